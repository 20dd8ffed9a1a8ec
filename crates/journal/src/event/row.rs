//! A row of `usage_log` from an event's context and record.

use chrono::{DateTime, TimeZone, Utc};
use proto::journal::EventContext;
use quota::{
    AmountMinor, Change, CounterName, CreditRecord, OrderSummary, Origin, Origins, PerPeriod, PostingKind, Record,
    Thresholds, Weighed, WindowUsage,
};
use serde::de::IgnoredAny;
use uuid::Uuid;

use crate::postgres::Row;
use sluice_kit::database::row::Json;
use sluice_store::CreditContext;
use sluice_store::refusal::{self, RefusalContext};

/// Times before 2020 or from 2200 on come from no working clock, and would each make a partition.
const AT_MIN_MS: i64 = 1_577_836_800_000;
const AT_END_MS: i64 = 7_258_118_400_000;

/// Makes the row; the error names the field that does not fit.
pub(super) fn of(
    shard: u16,
    seq: i64,
    context: EventContext,
    record: &Record,
    counted_in: Option<&Origins>,
) -> Result<Row, String> {
    refuse_nul(&context)?;
    let PerPeriod { day, week, month, year } = &record.windows;
    let (daily, weekly, monthly, yearly) = (window(day)?, window(week)?, window(month)?, window(year)?);
    // An order that is unknown has no amounts.
    let order = Some(record.order).filter(|order| *order != OrderSummary::default());
    let order_value = |of: fn(&OrderSummary) -> u64| order.as_ref().map(|order| signed(of(order), "order")).transpose();
    let (capture_no, refund_no) = operation_numbers(&context);
    let success = record.code.http_status() == 200;
    let failure_details = failure_details(&context, record)?;
    let credit = record.credit.as_ref();
    let unbilled = |of: fn(&CreditRecord) -> u64| credit.map(|credit| signed(of(credit), "unbilled")).transpose();
    let weighed =
        |of: fn(&Weighed) -> u64| record.weighed.as_ref().map(|weighed| signed(of(weighed), "weight")).transpose();
    let (order_no, posting_no) = numbers(&context);
    Ok(Row {
        event_id: Uuid::from_slice(&context.event_id).map_err(|_| "event_id: not 16 bytes")?,
        at: time(context.at_ms)?,
        shard: i32::from(shard),
        seq,
        code: record.code.as_str(),
        success,
        failure_reason: Some(record.code.as_str()).filter(|_| !success),
        replay: record.replay,
        mode: required(context.mode, "mode")?,
        merchant_id: required(context.merchant, "merchant")?,
        currency: currency(context.currency)?,
        amount: signed(record.amount, "amount")?,
        counted_amount: weighed(|weighed| weighed.counted)?,
        weight_bp: record
            .weighed
            .map(|weighed| i32::try_from(weighed.weight.bp()))
            .transpose()
            .map_err(|_| "weight_bp: too large")?,
        right_id: id(&context.right_id, "right_id")?,
        counted_in: counted_in.map(windows_text),
        units_per_payment: weighed(|weighed| weighed.weight.units_per_payment().get())?,
        order_no,
        posting_no,
        payment_no: optional(context.payment_no),
        channel: optional(context.channel),
        attempt: id(&context.attempt, "attempt")?,
        reason: optional(context.reason),
        operator_type: operator_type(&context.operator_type, &context.actor)?,
        operator_id: required(context.actor, "actor")?,
        policy_version: optional(context.policy_version),
        trace_id: optional(context.trace_id),
        daily_window: daily.id,
        daily_used_before: daily.used.0,
        daily_used_after: daily.used.1,
        daily_count_before: daily.count.0,
        daily_count_after: daily.count.1,
        monthly_window: monthly.id,
        monthly_used_before: monthly.used.0,
        monthly_used_after: monthly.used.1,
        monthly_count_before: monthly.count.0,
        monthly_count_after: monthly.count.1,
        yearly_window: yearly.id,
        yearly_used_before: yearly.used.0,
        yearly_used_after: yearly.used.1,
        yearly_count_before: yearly.count.0,
        yearly_count_after: yearly.count.1,
        account_version: signed(record.version, "version")?,
        operation_id: id(&context.operation_id, "operation_id")?,
        capture_no,
        refund_no,
        daily_epoch: daily.epoch,
        monthly_epoch: monthly.epoch,
        yearly_epoch: yearly.epoch,
        daily_refunded_before: daily.refunded.0,
        daily_refunded_after: daily.refunded.1,
        monthly_refunded_before: monthly.refunded.0,
        monthly_refunded_after: monthly.refunded.1,
        yearly_refunded_before: yearly.refunded.0,
        yearly_refunded_after: yearly.refunded.1,
        weekly_window: weekly.id,
        weekly_used_before: weekly.used.0,
        weekly_used_after: weekly.used.1,
        weekly_count_before: weekly.count.0,
        weekly_count_after: weekly.count.1,
        weekly_epoch: weekly.epoch,
        weekly_refunded_before: weekly.refunded.0,
        weekly_refunded_after: weekly.refunded.1,
        credit_cycle: credit
            .map(|credit| i32::try_from(credit.cycle))
            .transpose()
            .map_err(|_| "credit_cycle: too large")?,
        exposure_before: credit.map(|credit| credit.exposure_before),
        exposure_after: credit.map(|credit| credit.exposure_after),
        unbilled_before: unbilled(|credit| credit.unbilled_before)?,
        unbilled_after: unbilled(|credit| credit.unbilled_after)?,
        pending_before: signed(record.pending_before, "pending_before")?,
        pending_after: signed(record.pending_after, "pending_after")?,
        order_state: order.map(|order| order.state.as_str()),
        order_amount: order_value(|order| order.amount)?,
        order_settled: order_value(|order| order.settled)?,
        order_refunded: order_value(|order| order.refunded)?,
        order_ttl_secs: Some(i64::from(context.order_ttl_secs)).filter(|secs| *secs > 0),
        hold_until: moment(u64::from(record.order.hold_until_secs) * 1000, "hold_until")?,
        hold_on_expiry: optional(context.hold_on_expiry),
        wait_ms: signed(record.wait_ms, "wait_ms")?,
        suspended_at: moment(record.suspended_at_ms, "suspended_at")?,
        counter: optional(context.counter),
        change: optional(context.change),
        expected_version: context.expected_version.map(|version| signed(version, "expected_version")).transpose()?,
        remarks: optional(context.remarks),
        metadata: json(context.metadata)?,
        failure_details,
        action_type: required(context.action, "action")?,
    })
}

/// The refusal's details besides its code.
fn failure_details(context: &EventContext, record: &Record) -> Result<Option<Json>, String> {
    let by_policy = match context.policy_refusal.as_str() {
        "" => None,
        text => Some(serde_json::from_str(text).map_err(|error| format!("policy_refusal: {error}"))?),
    };
    let credit = context.credit.as_ref().map(credit_context);
    let refusal_context =
        RefusalContext { correction: correction(context), by_policy: by_policy.as_ref(), credit: credit.as_ref() };
    Ok(refusal::details(record, &refusal_context).map(|details| Json(refusal::text(&details))))
}

pub(super) fn credit_context(credit: &proto::journal::CreditContext) -> CreditContext {
    let stage = if credit.stage.is_empty() { CreditContext::CURRENT.into() } else { credit.stage.clone().into() };
    CreditContext {
        limit: credit.limit,
        stage,
        days_past_due: credit.days_past_due,
        oldest_due_day: Some(credit.oldest_due_day).filter(|day| *day > 0),
        amount_to_cure: credit.amount_to_cure,
        read_at_ms: Some(credit.read_at_ms).filter(|at| *at > 0),
        thresholds: Thresholds::new(credit.threshold_percents.iter().copied()).unwrap_or(Thresholds::DEFAULT),
    }
}

fn correction(context: &EventContext) -> Option<(CounterName, Change)> {
    let (counter, amount) = (CounterName::parse(&context.counter)?, AmountMinor::new(context.amount_minor)?);
    let change = match context.change.as_str() {
        "add" => Change::Add(amount),
        "subtract" => Change::Subtract(amount),
        "set" => Change::Set(amount),
        _ => return None,
    };
    Some((counter, change))
}

/// A window with signed counters, as Postgres has them: before and after.
struct Window {
    id: i32,
    epoch: i16,
    used: (i64, i64),
    count: (i64, i64),
    refunded: (i64, i64),
}

fn window(usage: &WindowUsage) -> Result<Window, String> {
    let pair = |before, after, name: &str| Ok::<_, String>((signed(before, name)?, signed(after, name)?));
    Ok(Window {
        id: i32::try_from(usage.id).map_err(|_| "window id: too large")?,
        epoch: i16::from(usage.epoch),
        used: pair(usage.amount_before, usage.amount_after, "amount")?,
        count: pair(usage.count_before, usage.count_after, "count")?,
        refunded: pair(usage.refunded_before, usage.refunded_after, "refunded")?,
    })
}

/// Windows with their epochs, as [`crate::history`] reads them back.
fn windows_text(windows: &Origins) -> String {
    windows.iter().map(|(_, Origin { id, epoch })| format!("{id}:{epoch}")).collect::<Vec<_>>().join(" ")
}

/// The order's number, and that of a posting.
fn numbers(context: &EventContext) -> (Option<String>, Option<String>) {
    let number = optional(context.order_no.clone());
    let is_posting = PostingKind::ALL.into_iter().any(|kind| kind.as_str() == context.action);
    if is_posting { (None, number) } else { (number, None) }
}

/// The caller's number of a capture or of a refund.
fn operation_numbers(context: &EventContext) -> (Option<String>, Option<String>) {
    let number = optional(context.operation_no.clone());
    match (context.action.as_str(), context.change.as_str()) {
        ("settle", _) | ("unknown", "capture") => (number, None),
        ("refund" | "reserve_refund" | "release", _) | ("unknown", "refund") => (None, number),
        _ => (None, None),
    }
}

/// Postgres stores no NUL in text.
fn refuse_nul(context: &EventContext) -> Result<(), String> {
    let texts = [
        ("action", &context.action),
        ("merchant", &context.merchant),
        ("currency", &context.currency),
        ("order_no", &context.order_no),
        ("payment_no", &context.payment_no),
        ("channel", &context.channel),
        ("actor", &context.actor),
        ("policy_version", &context.policy_version),
        ("mode", &context.mode),
        ("trace_id", &context.trace_id),
        ("reason", &context.reason),
        ("operation_no", &context.operation_no),
        ("remarks", &context.remarks),
        ("counter", &context.counter),
        ("change", &context.change),
        ("hold_on_expiry", &context.hold_on_expiry),
    ];
    match texts.into_iter().find(|(_, text)| text.contains('\0')) {
        Some((name, _)) => Err(format!("{name}: contains NUL")),
        None => Ok(()),
    }
}

fn required(text: String, name: &str) -> Result<String, String> {
    if text.is_empty() { Err(format!("{name}: empty")) } else { Ok(text) }
}

fn optional(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

fn currency(code: String) -> Result<Option<String>, String> {
    match code.len() {
        0 => Ok(None),
        3 if code.bytes().all(|byte| byte.is_ascii_uppercase()) => Ok(Some(code)),
        _ => Err("currency: not three capital letters".to_owned()),
    }
}

fn signed(value: u64, name: &str) -> Result<i64, String> {
    i64::try_from(value).map_err(|_| format!("{name}: too large"))
}

fn id(bytes: &[u8], name: &str) -> Result<Option<Uuid>, String> {
    match bytes {
        [] => Ok(None),
        bytes => Uuid::from_slice(bytes).map(Some).map_err(|_| format!("{name}: not 16 bytes")),
    }
}

fn json(text: String) -> Result<Option<Json>, String> {
    let text = optional(text);
    if let Some(text) = &text {
        serde_json::from_str::<IgnoredAny>(text).map_err(|error| format!("metadata: {error}"))?;
    }
    Ok(text.map(Json))
}

fn time(at_ms: i64) -> Result<DateTime<Utc>, String> {
    let at = Utc.timestamp_millis_opt(at_ms).single();
    at.filter(|_| (AT_MIN_MS..AT_END_MS).contains(&at_ms))
        .ok_or_else(|| format!("at_ms: {at_ms} is not in 2020 to 2199"))
}

/// A time of the record; none where it is zero.
fn moment(ms: u64, name: &str) -> Result<Option<DateTime<Utc>>, String> {
    if ms == 0 {
        return Ok(None);
    }
    let at = Utc.timestamp_millis_opt(signed(ms, name)?).single();
    at.map(Some).ok_or_else(|| format!("{name}: {ms} ms is no time"))
}

/// The context's value; else the proxy and the server act for themselves, people's subjects have the prefix `admin:`, and the
/// rest are programs.
fn operator_type(named: &str, actor: &str) -> Result<&'static str, String> {
    match (named, actor) {
        ("system", _) | ("", "proxy" | "system") => Ok("system"),
        ("admin", _) => Ok("admin"),
        ("api", _) => Ok("api"),
        ("", actor) if actor.starts_with("system:") => Ok("system"),
        ("", actor) if actor.starts_with("admin:") => Ok("admin"),
        ("", _) => Ok("api"),
        (other, _) => Err(format!("operator_type: {other} is not system, admin or api")),
    }
}
