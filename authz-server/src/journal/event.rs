//! A stream entry read as a row of `usage_log` with the windows that it closed, or the reason why it cannot be one. Pure.

mod row;
#[cfg(test)]
mod tests;

use chrono::{DateTime, Utc};
use prost::Message;
use proto::journal::EventContext;
use quota::{ClosedWindow, Code, Record};

use super::postgres::Row;
use super::reply::Entry;
use crate::store::packed;

/// Stream field that holds the packed context.
const CONTEXT_FIELD: &[u8] = b"c";
/// Stream field that holds the packed decision record.
const RECORD_FIELD: &[u8] = b"d";
/// Stream field that holds the packed windows that the decision closed; absent where it closed none.
const CLOSED_FIELD: &[u8] = b"w";

/// An entry and what it says.
#[derive(Clone, Debug)]
pub struct Event {
    pub entry: Entry,
    pub row: Row,
    /// Windows that are over since.
    pub closed: Vec<ClosedWindow>,
    /// Whether the account is as the row says: a refusal shows it as of its own windows, which are not stored.
    pub changes_account: bool,
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
}

impl Batch {
    /// Reads every entry.
    #[must_use]
    pub fn read(entries: Vec<Entry>) -> Self {
        let mut batch = Self::default();
        for entry in entries {
            match read(&entry) {
                Ok((row, closed, changes_account)) => {
                    batch.events.push(Event { entry, row, closed, changes_account });
                }
                Err(reason) => batch.rejected.push(Rejected { entry, reason }),
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

fn read(Entry { shard, id, fields }: &Entry) -> Result<(Row, Vec<ClosedWindow>, bool), String> {
    let seq = id.sequence().and_then(|seq| i64::try_from(seq).ok()).ok_or("id: not of the form 0-<seq>")?;
    let context = required(fields, CONTEXT_FIELD)?;
    let context = EventContext::decode(context).map_err(|error| format!("field c: {error}"))?;
    let record = packed::record(required(fields, RECORD_FIELD)?, context.amount_minor)
        .map_err(|error| format!("field d: {error}"))?;
    let closed = packed::closed(field(fields, CLOSED_FIELD).unwrap_or_default());
    let closed = closed.map_err(|error| format!("field w: {error}"))?;
    let changes_account = changes_account(&record);
    Ok((row::of(*shard, seq, context, &record)?, closed, changes_account))
}

/// Whether the decision changed its account: what was granted and is no repetition did, but for voids of single attempts.
const fn changes_account(record: &Record) -> bool {
    !record.replay && matches!(record.code, Code::Admitted | Code::Applied | Code::Voided)
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
