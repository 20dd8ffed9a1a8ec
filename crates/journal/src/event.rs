//! Converts a stream entry into a row of `usage_log` with the windows that it closed and the thresholds that it crossed, or
//! returns the reason why it cannot. Pure.

pub mod outcome;
mod row;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use prost::Message;
use proto::journal::EventContext;
use quota::{Action, Code, Crossing, Record};

use super::postgres::Row;
use super::reply::Entry;
use sluice_store::CreditContext;
use sluice_store::packed::{self, Closed};

/// Stream field that holds the packed context.
const CONTEXT_FIELD: &[u8] = b"c";
/// Stream field that holds the packed decision record.
const RECORD_FIELD: &[u8] = b"d";
/// Stream field that holds the packed windows that the decision closed; absent where it closed none.
const CLOSED_FIELD: &[u8] = b"w";
/// Stream field that holds the packed crossing of thresholds; absent where none was crossed.
const CROSSING_FIELD: &[u8] = b"a";
/// Stream field that holds the packed windows of a report's right; absent where they are the account's.
const COUNTED_FIELD: &[u8] = b"o";

/// An entry and its content.
#[derive(Clone, Debug)]
pub struct Event {
    pub entry: Entry,
    pub row: Row,
    /// What the row was made from.
    pub record: Record,
    /// The day on which money was received, `YYYYMMDD`, where it is not the business day.
    pub value_day: Option<i32>,
    /// Windows, and the billing cycle, that it closed.
    pub closed: Closed,
    /// Thresholds that usage crossed.
    pub crossing: Option<Crossing>,
    /// The account's credit line, where the server that decided knew it.
    pub credit: Option<CreditContext>,
    /// Unknown outcomes that it reports or resolves.
    pub outcomes: Vec<outcome::Change>,
    /// Whether the row has the stored account: a refusal has it as of its own windows, which are not stored.
    pub changes_account: bool,
    /// Whether the row has the merchant's own state: it has no account then.
    pub changes_merchant: bool,
}

/// An entry that cannot become a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub entry: Entry,
    pub reason: String,
}

/// Entries of one read, sorted into events and rejected ones.
#[derive(Debug, Default)]
pub struct Batch {
    pub events: Vec<Event>,
    pub rejected: Vec<Rejected>,
}

impl Batch {
    /// Reads every entry.
    #[must_use]
    pub fn read(entries: Vec<Entry>) -> Self {
        let mut batch = Self::default();
        for entry in entries {
            match read(entry) {
                Ok(event) => batch.events.push(event),
                Err(rejected) => batch.rejected.push(rejected),
            }
        }
        batch
    }

    /// All its entries.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        let events = self.events.iter().map(|event| &event.entry);
        events.chain(self.rejected.iter().map(|rejected| &rejected.entry))
    }

    /// When its oldest event happened.
    #[must_use]
    pub fn oldest(&self) -> Option<DateTime<Utc>> {
        self.events.iter().map(|event| event.row.at).min()
    }
}

fn read(entry: Entry) -> Result<Event, Rejected> {
    match parts(&entry) {
        Ok(Parts { row, record, value_day, closed, crossing, credit }) => {
            let (granted, of_merchant) = (is_change(&row, &record), is_of_merchant(&row));
            let (changes_account, changes_merchant) = (granted && !of_merchant, granted && of_merchant);
            let outcomes = outcome::changes(&row, &record);
            Ok(Event {
                entry,
                row,
                record,
                value_day,
                closed,
                crossing,
                credit,
                outcomes,
                changes_account,
                changes_merchant,
            })
        }
        Err(reason) => Err(Rejected { entry, reason }),
    }
}

/// What an entry's fields contain.
struct Parts {
    row: Row,
    record: Record,
    value_day: Option<i32>,
    closed: Closed,
    crossing: Option<Crossing>,
    credit: Option<CreditContext>,
}

fn parts(Entry { shard, id, fields }: &Entry) -> Result<Parts, String> {
    let seq = id.sequence().and_then(|seq| i64::try_from(seq).ok()).ok_or("id: not of the form 0-<seq>")?;
    let context = required(fields, CONTEXT_FIELD)?;
    let context = EventContext::decode(context).map_err(|error| format!("field c: {error}"))?;
    let packed_record = required(fields, RECORD_FIELD)?;
    let record = packed::record(packed_record, context.amount_minor).map_err(|error| format!("field d: {error}"))?;
    let closed = packed::closed(field(fields, CLOSED_FIELD).unwrap_or_default());
    let closed = closed.map_err(|error| format!("field w: {error}"))?;
    let crossing = field(fields, CROSSING_FIELD).filter(|bytes| !bytes.is_empty());
    let crossing = crossing.map(packed::crossing).transpose();
    let crossing = crossing.map_err(|error| format!("field a: {error}"))?;
    let value_day = i32::try_from(context.value_day).ok().filter(|day| *day > 0);
    let credit = context.credit.as_ref().map(row::credit_context);
    let counted_in = field(fields, COUNTED_FIELD).map(packed::counted_in).transpose();
    let counted_in = counted_in.map_err(|error| format!("field o: {error}"))?;
    Ok(Parts {
        row: row::of(*shard, seq, context, &record, counted_in.as_ref())?,
        record,
        value_day,
        closed,
        crossing,
        credit,
    })
}

/// Whether a row is about a merchant as a whole.
fn is_of_merchant(row: &Row) -> bool {
    let of_merchant = [Action::SuspendMerchant, Action::ResumeMerchant];
    of_merchant.iter().any(|action| action.as_str() == row.action_type)
}

/// Whether the decision changed its subject: a granted one that is no repetition did, except voids of single attempts, reports
/// about outcomes, and extensions of holds, which change the order alone; a payment of a right, whose amount was counted with the right;
/// and the loss of a right's holder.
fn is_change(row: &Row, record: &Record) -> bool {
    let is_of_order =
        matches!((row.action_type.as_str(), record.code), ("unknown" | "resolve" | "extend_hold", Code::Applied));
    let is_of_right = row.right_id.is_some()
        && matches!(row.action_type.as_str(), "consume" | "orphan_right")
        && record.windows.iter().all(|(_, window)| window.count_before == window.count_after);
    !record.replay
        && !is_of_order
        && !is_of_right
        && matches!(record.code, Code::Admitted | Code::Applied | Code::Voided)
}

fn field<'a>(fields: &'a [Vec<u8>], name: &[u8]) -> Option<&'a [u8]> {
    fields.chunks_exact(2).find_map(|pair| match pair {
        [key, value] if key == name => Some(value.as_slice()),
        _ => None,
    })
}

fn required<'a>(fields: &'a [Vec<u8>], name: &[u8]) -> Result<&'a [u8], String> {
    field(fields, name).ok_or_else(|| format!("field {}: absent", String::from_utf8_lossy(name)))
}
