//! A stream entry read as a row of `usage_log`, or the reason why it cannot be one. Pure.

use chrono::{DateTime, TimeZone, Utc};
use prost::Message;
use proto::journal::EventContext;
use quota::{Record, WindowFigures};
use uuid::Uuid;

use super::postgres::Row;
use super::reply::{self, Entry};
use crate::store::packed;

/// Stream field that holds the packed context.
const CONTEXT_FIELD: &[u8] = b"c";
/// Stream field that holds the packed decision record.
const RECORD_FIELD: &[u8] = b"d";
/// Times before 2020 or from 2200 on come from no working clock, and would each make a partition.
const AT_MIN_MS: i64 = 1_577_836_800_000;
const AT_END_MS: i64 = 7_258_118_400_000;

/// An entry and what it says.
#[derive(Clone, Debug)]
pub struct Event {
    pub entry: Entry,
    pub row: Row,
}

/// An entry that cannot be a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub entry: Entry,
    pub reason: String,
}

/// Entries of one read, sorted by what becomes of them.
#[derive(Debug, Default)]
pub struct Batch {
    pub events: Vec<Event>,
    pub rejected: Vec<Rejected>,
    /// Deleted by someone else while they were pending: there is nothing to store.
    pub deleted: Vec<Entry>,
}

impl Batch {
    /// Reads every entry.
    #[must_use]
    pub fn read(entries: Vec<Entry>) -> Self {
        let mut batch = Self::default();
        for entry in entries {
            match entry.fields.as_deref().map(|fields| row(entry.shard, &entry.id, fields)) {
                None => batch.deleted.push(entry),
                Some(Ok(row)) => batch.events.push(Event { entry, row }),
                Some(Err(reason)) => batch.rejected.push(Rejected { entry, reason }),
            }
        }
        batch
    }

    /// All its entries.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let events = self.events.iter().map(|event| &event.entry);
        events.chain(self.rejected.iter().map(|rejected| &rejected.entry)).chain(&self.deleted)
    }

    /// When its oldest event happened.
    #[must_use]
    pub fn oldest(&self) -> Option<DateTime<Utc>> {
        self.events.iter().map(|event| event.row.at).min()
    }
}

fn row(shard: u16, id: &str, fields: &[Vec<u8>]) -> Result<Row, String> {
    let seq = reply::sequence(id).and_then(|seq| i64::try_from(seq).ok()).ok_or("id: not of the form 0-<seq>")?;
    let context = EventContext::decode(field(fields, CONTEXT_FIELD)?).map_err(|error| format!("field c: {error}"))?;
    let record = packed::record(field(fields, RECORD_FIELD)?).map_err(|error| format!("field d: {error}"))?;
    refuse_nul(&context)?;
    let success = record.code.http_status() == 200;
    let Windows { daily, monthly, yearly } = Windows::of(&record)?;
    Ok(Row {
        event_id: Uuid::from_slice(&context.event_id).map_err(|_| "event_id: not 16 bytes")?,
        at: time(context.at_ms)?,
        shard: i32::from(shard),
        seq,
        action_type: required(context.action, "action")?,
        code: record.code.as_str(),
        success,
        replay: record.replay,
        mode: required(context.mode, "mode")?,
        merchant_id: required(context.merchant, "merchant")?,
        currency: currency(context.currency)?,
        amount: figure(context.amount_minor, "amount_minor")?,
        order_no: required(context.order_no, "order_no")?,
        payment_no: optional(context.payment_no),
        channel: optional(context.channel),
        attempt: attempt(&context.attempt)?,
        reason: optional(context.reason),
        operator_type: operator_type(&context.actor),
        operator_id: required(context.actor, "actor")?,
        policy_version: optional(context.policy_version),
        trace_id: optional(context.trace_id),
        daily_window: daily.id,
        daily_used_before: daily.used_before,
        daily_used_after: daily.used_after,
        daily_count_before: daily.count_before,
        daily_count_after: daily.count_after,
        monthly_window: monthly.id,
        monthly_used_before: monthly.used_before,
        monthly_used_after: monthly.used_after,
        monthly_count_before: monthly.count_before,
        monthly_count_after: monthly.count_after,
        yearly_window: yearly.id,
        yearly_used_before: yearly.used_before,
        yearly_used_after: yearly.used_after,
        yearly_count_before: yearly.count_before,
        yearly_count_after: yearly.count_after,
        account_version: figure(record.version, "version")?,
    })
}

/// A record's windows with signed figures, as Postgres has them.
struct Windows {
    daily: Window,
    monthly: Window,
    yearly: Window,
}

struct Window {
    id: i32,
    used_before: i64,
    used_after: i64,
    count_before: i64,
    count_after: i64,
}

impl Windows {
    fn of(record: &Record) -> Result<Self, String> {
        let (daily, monthly, yearly) = (window(&record.day)?, window(&record.month)?, window(&record.year)?);
        Ok(Self { daily, monthly, yearly })
    }
}

fn window(figures: &WindowFigures) -> Result<Window, String> {
    Ok(Window {
        id: i32::try_from(figures.id).map_err(|_| "window id: too large")?,
        used_before: figure(figures.amount_before, "amount_before")?,
        used_after: figure(figures.amount_after, "amount_after")?,
        count_before: figure(figures.count_before, "count_before")?,
        count_after: figure(figures.count_after, "count_after")?,
    })
}

fn field<'a>(fields: &'a [Vec<u8>], name: &[u8]) -> Result<&'a [u8], String> {
    let found = fields.chunks_exact(2).find_map(|pair| match pair {
        [key, value] if key == name => Some(value.as_slice()),
        _ => None,
    });
    found.ok_or_else(|| format!("field {}: absent", String::from_utf8_lossy(name)))
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
    ];
    match texts.into_iter().find(|(_, text)| text.contains('\0')) {
        Some((name, _)) => Err(format!("{name}: holds a NUL")),
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

fn figure(value: u64, name: &str) -> Result<i64, String> {
    i64::try_from(value).map_err(|_| format!("{name}: too large"))
}

fn attempt(bytes: &[u8]) -> Result<Option<Uuid>, String> {
    match bytes {
        [] => Ok(None),
        bytes => Uuid::from_slice(bytes).map(Some).map_err(|_| "attempt: not 16 bytes".to_owned()),
    }
}

fn time(at_ms: i64) -> Result<DateTime<Utc>, String> {
    let at = Utc.timestamp_millis_opt(at_ms).single();
    at.filter(|_| (AT_MIN_MS..AT_END_MS).contains(&at_ms))
        .ok_or_else(|| format!("at_ms: {at_ms} is not in 2020 to 2199"))
}

/// People's subjects carry the prefix `admin:`; the proxy and the server act for themselves; the rest are programs.
fn operator_type(actor: &str) -> &'static str {
    match actor {
        "proxy" | "system" => "system",
        actor if actor.starts_with("admin:") => "admin",
        _ => "api",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context() -> EventContext {
        EventContext {
            event_id: vec![7; 16],
            at_ms: 1_795_000_000_000,
            action: "consume".into(),
            merchant: "m".into(),
            currency: "USD".into(),
            amount_minor: 50,
            order_no: "o".into(),
            actor: "proxy".into(),
            mode: "enforce".into(),
            attempt: vec![9; 16],
            ..EventContext::default()
        }
    }

    /// An admitted charge of 50 as the first of its windows.
    fn record() -> Vec<u8> {
        let mut bytes = vec![1, 0, 1, 0];
        for id in [20_261_121_u32, 202_611, 2026] {
            bytes.extend_from_slice(&id.to_le_bytes());
        }
        for _ in 0..3 {
            for figure in [0.0_f64, 50.0, 0.0, 1.0] {
                bytes.extend_from_slice(&figure.to_le_bytes());
            }
        }
        bytes.extend_from_slice(&3.0_f64.to_le_bytes());
        bytes
    }

    fn entry(context: &EventContext, record: Vec<u8>) -> Entry {
        let fields = vec![b"c".to_vec(), context.encode_to_vec(), b"d".to_vec(), record];
        Entry { shard: 5, id: "0-12".into(), fields: Some(fields) }
    }

    #[test]
    fn an_event_becomes_a_row() {
        let batch = Batch::read(vec![entry(&context(), record())]);
        let row = &batch.events[0].row;
        assert_eq!((row.shard, row.seq, row.code, row.success, row.replay), (5, 12, "ADMITTED", true, true));
        assert_eq!((row.daily_window, row.daily_used_after, row.yearly_count_after), (20_261_121, 50, 1));
        assert_eq!((row.account_version, row.operator_type, row.payment_no.clone()), (3, "system", None));
        assert_eq!(row.attempt, Some(Uuid::from_bytes([9; 16])));
        assert_eq!(batch.oldest(), Some(row.at));
    }

    #[test]
    fn what_cannot_be_a_row_is_rejected_with_the_field() {
        type Change = fn(&mut EventContext);
        let table: &[(Change, &str)] = &[
            (|c| c.event_id = vec![1], "event_id"),
            (|c| c.at_ms = 0, "at_ms"),
            (|c| c.at_ms = i64::MAX, "at_ms"),
            (|c| c.action.clear(), "action"),
            (|c| c.merchant.push('\0'), "merchant"),
            (|c| c.currency = "US".into(), "currency"),
            (|c| c.amount_minor = u64::MAX, "amount_minor"),
            (|c| c.attempt = vec![1], "attempt"),
        ];
        for (change, field) in table {
            let mut context = context();
            change(&mut context);
            let batch = Batch::read(vec![entry(&context, record())]);
            assert!(batch.rejected[0].reason.starts_with(field), "{field}: {}", batch.rejected[0].reason);
        }
        let mut strange = entry(&context(), record());
        strange.id = "5-1".into();
        let mut torn = entry(&context(), record());
        torn.fields.as_mut().unwrap().truncate(2);
        let garbage = entry(&context(), vec![1, 2, 3]);
        let reasons: Vec<_> =
            Batch::read(vec![strange, torn, garbage]).rejected.into_iter().map(|r| r.reason).collect();
        assert!(reasons[0].starts_with("id:") && reasons[1].starts_with("field d: absent"), "{reasons:?}");
        assert!(reasons[2].starts_with("field d:"), "{reasons:?}");
    }

    #[test]
    fn deleted_entries_are_only_acknowledged() {
        let batch = Batch::read(vec![Entry { shard: 0, id: "0-1".into(), fields: None }]);
        assert_eq!((batch.entries().count(), batch.events.len(), batch.rejected.len()), (1, 0, 0));
    }
}
