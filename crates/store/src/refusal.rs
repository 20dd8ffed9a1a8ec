//! Details of a refusal besides its code: the bound that was exceeded, or the obstacle. One function for every kind of answer:
//! the proxy's, the API's, the usage log and the server's log.

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, SecondsFormat};
use proto::{CreditStanding, RefusalDetails};
use quota::{Action, Adjust, AmountMinor, Change, Code, Command, CounterName, LimitKind, LimitName, Policy, Record};
use serde_json::Value;

use crate::{AuditContext, CreditContext};

/// The domain of gRPC's `ErrorInfo`.
pub const DOMAIN: &str = "sluice";

/// Most names of allowed channels or currencies in a refusal.
const NAMES_MAX: usize = 20;

/// The parts of a request that refusals report.
#[derive(Clone, Copy, Debug)]
pub struct RefusalContext<'a> {
    /// The counter to correct manually, and how.
    pub correction: Option<(CounterName, Change)>,
    /// The policy's details where it refuses the charge; see [`by_policy`].
    pub by_policy: Option<&'a RefusalDetails>,
    pub credit: Option<&'a CreditContext>,
}

impl<'a> RefusalContext<'a> {
    /// The parts of a command.
    #[must_use]
    pub fn of(command: &Command, audit: &'a AuditContext) -> Self {
        let correction = if let Action::Adjust(Adjust { counter, change, .. }) = command.action {
            Some((counter, change))
        } else {
            None
        };
        Self { correction, by_policy: audit.refusal.as_deref(), credit: audit.credit.as_ref() }
    }
}

/// The policy's details for a charge that it refuses before it is decided; `None` where it does not.
#[must_use]
pub fn by_policy(action: &Action, policy: Option<&Policy>) -> Option<Box<RefusalDetails>> {
    let (Action::Consume(charge) | Action::Hold(charge, _)) = action else { return None };
    let (code, policy) = charge.refusal.zip(policy)?;
    let names = |allowed: &Option<BTreeSet<String>>| {
        allowed.as_ref().map(|names| names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>())
    };
    let more = |allowed: &Option<BTreeSet<String>>| {
        allowed.as_ref().map(|names| names.len().saturating_sub(NAMES_MAX) as u64).filter(|more| *more > 0)
    };
    let none = RefusalDetails::default();
    let details = if code == Code::AboveSingleMax {
        RefusalDetails { single_max: Some(policy.single_max.get()), ..none }
    } else if code == Code::BelowSingleMin {
        RefusalDetails { single_min: Some(policy.single_min.get()), ..none }
    } else if code == Code::ChannelNotAllowed {
        let (allowed_channels, allowed_more) = (names(&policy.allowed_channels), more(&policy.allowed_channels));
        RefusalDetails { allowed_channels, allowed_more, ..none }
    } else if code == Code::CurrencyNotAllowed {
        let (allowed_currencies, allowed_more) = (names(&policy.allowed_currencies), more(&policy.allowed_currencies));
        RefusalDetails { allowed_currencies, allowed_more, ..none }
    } else {
        return None;
    };
    Some(Box::new(details))
}

/// The refusal's details; `None` for an answer that is not a refusal, and where code and limit are all there is.
#[must_use]
pub fn details(record: &Record, context: &RefusalContext<'_>) -> Option<RefusalDetails> {
    let none = RefusalDetails::default();
    if let Some(first) = record.first {
        let (first_amount, first_currency) = (Some(first.amount), Some(first.currency.code().to_owned()));
        return Some(RefusalDetails { first_amount, first_currency, ..none });
    }
    if record.code == Code::Suspended {
        let suspended = if record.merchant_suspended { "merchant" } else { "account" };
        return Some(RefusalDetails { suspended: Some(suspended.to_owned()), ..none });
    }
    let by_credit = [Code::CreditFrozen, Code::CreditChannel, Code::CreditRestricted, Code::CreditExhausted];
    if by_credit.contains(&record.code) {
        let credit = context.credit.map(|credit| standing(credit, record))?;
        return Some(RefusalDetails { credit: Some(credit), ..none });
    }
    if record.code == Code::BadAmount {
        let (counter, change) = context.correction?;
        let value = before(record, counter);
        let (counter, would_be) = (Some(counter.as_str().to_owned()), Some(corrected(value, change)));
        return Some(RefusalDetails { counter, value: Some(value), would_be, ..none });
    }
    let by_amount = LimitName::of_code(record.code)
        .is_some_and(|limit| matches!(limit.kind(), LimitKind::Amount(_) | LimitKind::Pending));
    if let Some(weighed) = record.weighed.filter(|_| by_amount) {
        return Some(RefusalDetails { counted_amount: Some(weighed.counted), ..none });
    }
    let by_policy = [Code::AboveSingleMax, Code::BelowSingleMin, Code::ChannelNotAllowed, Code::CurrencyNotAllowed];
    context.by_policy.filter(|_| by_policy.contains(&record.code)).cloned()
}

/// The credit line as the refused command found it.
fn standing(credit: &CreditContext, record: &Record) -> CreditStanding {
    let exposure = record.credit.map_or(0, |credit| credit.exposure_after);
    let limit = i64::try_from(credit.limit).unwrap_or(i64::MAX);
    let exceeds = exposure.saturating_add_unsigned(record.amount).saturating_sub(limit);
    CreditStanding {
        limit: credit.limit,
        exposure,
        available: limit.saturating_sub(exposure).max(0).unsigned_abs(),
        stage: credit.stage.to_string(),
        days_past_due: credit.days_past_due,
        oldest_due_on: credit.oldest_due_day.map(date_text),
        amount_to_cure: credit.amount_to_cure.max(exceeds.max(0).unsigned_abs()),
        read_at: credit
            .read_at_ms
            .and_then(DateTime::from_timestamp_millis)
            .map(|at| at.to_rfc3339_opts(SecondsFormat::Secs, true)),
    }
}

/// `YYYYMMDD` as `YYYY-MM-DD`.
fn date_text(day: u32) -> String {
    format!("{:04}-{:02}-{:02}", day / 10_000, day / 100 % 100, day % 100)
}

/// The same in a sentence; `currency` is the command's.
#[must_use]
pub fn sentence(details: &RefusalDetails, currency: &str) -> Option<String> {
    let minor = |amount: u64, currency: &str| format!("{amount} minor units of {currency}");
    let more = details.allowed_more.map(|more| format!(" and {more} more")).unwrap_or_default();
    if let Some(max) = details.single_max {
        return Some(format!("The maximum for one payment is {}.", minor(max, currency)));
    }
    if let Some(min) = details.single_min {
        return Some(format!("The minimum for one payment is {}.", minor(min, currency)));
    }
    if let Some(names) = details.allowed_channels.as_ref() {
        return Some(format!("Allowed channels: {}{more}.", listed(names)));
    }
    if let Some(names) = details.allowed_currencies.as_ref() {
        return Some(format!("Allowed currencies: {}{more}.", listed(names)));
    }
    if let Some((amount, first)) = details.first_amount.zip(details.first_currency.as_deref()) {
        return Some(format!("The first request was for {}.", minor(amount, first)));
    }
    if let Some(credit) = &details.credit {
        let past_due = match (&credit.oldest_due_on, credit.days_past_due) {
            (Some(due_on), days) if days > 0 => format!(" The oldest statement was due on {due_on}, {days} days ago."),
            _ => String::new(),
        };
        let (limit, cure) = (minor(credit.limit, currency), minor(credit.amount_to_cure, currency));
        let exposure = credit.exposure;
        return Some(format!(
            "The credit limit is {limit}, and {exposure} are used.{past_due} A repayment of {cure} makes room for this payment."
        ));
    }
    if let Some((counter, value)) = details.counter.as_ref().zip(details.value) {
        let would_be = details.would_be.unwrap_or_default();
        let (max, now) = (AmountMinor::MAX, format!("{counter} is {value}"));
        return Some(format!("{now} and would become {would_be}, which is not 0 to {max}."));
    }
    if let Some(counted) = details.counted_amount {
        return Some(format!("The payment counts {} against the limits.", minor(counted, currency)));
    }
    details.suspended.as_ref().map(|who| format!("The {who} is suspended."))
}

/// The same as the metadata of gRPC's `ErrorInfo`: lists are joined with commas, and a credit line's members have its name before
/// theirs.
#[must_use]
pub fn members(details: &RefusalDetails) -> HashMap<String, String> {
    let Ok(Value::Object(members)) = serde_json::to_value(details) else { return HashMap::new() };
    let flat = |(name, value): (String, Value)| match value {
        Value::Object(inner) => inner.into_iter().map(|(own, value)| (format!("{name}_{own}"), plain(value))).collect(),
        value @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
            vec![(name, plain(value))]
        }
    };
    members.into_iter().flat_map(flat).collect()
}

fn plain(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Array(items) => items.into_iter().map(plain).collect::<Vec<_>>().join(","),
        other @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => other.to_string(),
    }
}

/// For the log: members and values, as JSON.
#[must_use]
pub fn text(details: &RefusalDetails) -> String {
    serde_json::to_string(details).unwrap_or_default()
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn corrected(value: u64, change: Change) -> i64 {
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    match change {
        Change::Add(more) => signed(value).saturating_add(signed(more.get())),
        Change::Subtract(less) => signed(value).saturating_sub(signed(less.get())),
        Change::Set(value) => signed(value.get()),
    }
}

/// The counter's value before the command.
const fn before(record: &Record, counter: CounterName) -> u64 {
    match counter {
        CounterName::Amount(period) => record.of(period).amount_before,
        CounterName::Count(period) => record.of(period).count_before,
        CounterName::Refunded(period) => record.of(period).refunded_before,
        CounterName::Pending => record.pending_before,
    }
}
