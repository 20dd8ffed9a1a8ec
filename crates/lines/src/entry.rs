//! The entries of a credit line's books, from the journal's events. Charges and holds are not among them: the usage log has what
//! they do to the exposure, and the cycle's close has their sum.

use chrono::{DateTime, Utc};
use quota::{Code, CreditRecord, OrderState, PostingKind};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sluice_journal::event::Event;
use sluice_kit::database::row::table_row;
use uuid::Uuid;

use crate::takeover::cycle_of;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// A billing cycle has closed, with what was unbilled.
    CycleClosed,
    /// A posting to the line.
    Posting(PostingKind),
    /// A void or refund of a charge that is billed already.
    Credit,
}

impl EntryKind {
    /// The name in `credit_entry`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CycleClosed => "cycle_closed",
            Self::Posting(kind) => kind.as_str(),
            Self::Credit => "credit",
        }
    }

    /// Reads the name back; `None` for anything else.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let postings = PostingKind::ALL.into_iter().map(Self::Posting);
        [Self::CycleClosed, Self::Credit].into_iter().chain(postings).find(|kind| kind.as_str() == name)
    }
}

impl<'de> Deserialize<'de> for EntryKind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::parse(&name).ok_or_else(|| D::Error::custom(format!("unknown kind `{name}`")))
    }
}

impl Serialize for EntryKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

table_row! {
    /// One entry, as `credit_entry` stores it. Amounts in minor units.
    pub(crate) struct Entry {
        event_id: Uuid => "uuid";
        kind: &'static str => "text";
        merchant_id: String => "text";
        currency: String => "text";
        shard: i32 => "int4";
        seq: i64 => "int8";
        at: DateTime<Utc> => "timestamptz";
        business_day: i32 => "int4";
        cycle: i32 => "int4";
        amount: i64 => "int8";
        posting_no: Option<String> => "text";
        value_day: Option<i32> => "int4";
    }
}

/// The entries of an event, in their order: a cycle closes before anything else of the event. The cycle of a credit is not known
/// yet: the usage log has the one in which its order was billed.
pub(crate) fn of(event: &Event) -> Vec<Entry> {
    let Some(credit) = event.record.credit.filter(|_| event.changes_account) else { return Vec::new() };
    let Some(currency) = event.row.currency.clone() else { return Vec::new() };
    let entry = |kind: EntryKind, cycle, amount| Entry {
        event_id: event.row.event_id,
        kind: kind.as_str(),
        merchant_id: event.row.merchant_id.clone(),
        currency: currency.clone(),
        shard: event.row.shard,
        seq: event.row.seq,
        at: event.row.at,
        business_day: event.row.daily_window,
        cycle,
        amount,
        posting_no: event.row.posting_no.clone(),
        value_day: event.value_day,
    };
    let closed = event.closed.cycle.map(|closed| {
        let amount = i64::try_from(closed.amount).unwrap_or(i64::MAX);
        entry(EntryKind::CycleClosed, i32::try_from(closed.cycle).unwrap_or_default(), amount)
    });
    let posting = PostingKind::ALL.into_iter().find(|kind| kind.as_str() == event.row.action_type);
    let other = match posting {
        Some(kind) => (event.record.code == Code::Applied).then(|| {
            let opened = event.row.posting_no.as_deref().filter(|_| kind == PostingKind::Opening).and_then(cycle_of);
            let cycle = opened.and_then(|cycle| i32::try_from(cycle).ok()).unwrap_or_default();
            entry(EntryKind::Posting(kind), cycle, event.row.amount)
        }),
        None => credited(event, &credit).map(|amount| entry(EntryKind::Credit, 0, amount)),
    };
    closed.into_iter().chain(other).collect()
}

/// What a void or refund of a charge takes out of the exposure that is not unbilled any more. The end of a hold is none: that was
/// never billed.
fn credited(event: &Event, credit: &CreditRecord) -> Option<i64> {
    let gives_back = match (event.row.action_type.as_str(), event.record.code) {
        ("refund" | "release", Code::Applied) => true,
        ("void" | "resolve", Code::Voided) => event.record.order.state == OrderState::Open,
        _ => false,
    };
    let exposure = credit.exposure_before - credit.exposure_after;
    let unbilled = credit.unbilled_before.cast_signed() - credit.unbilled_after.cast_signed();
    Some(exposure - unbilled).filter(|amount| gives_back && *amount > 0)
}
