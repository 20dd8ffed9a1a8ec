//! What an event reports about unknown outcomes: a new one, or which of them it resolves. Pure.

use quota::{Code, OrderState, Record};
use uuid::Uuid;

use crate::postgres::Row;

/// A change of the rows of `unknown_outcome`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// An outcome is unknown.
    Opened {
        /// `consume`, `hold`, `settle`, `refund` or `void`.
        operation: &'static str,
    },
    /// The open ones that match are resolved.
    Settled { which: Which, made: bool },
}

/// Which of an order's unknown outcomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Of its charge or hold.
    Charge,
    /// Of the capture with this id.
    Capture(Option<Uuid>),
    /// Of the refund with this id, or by this attempt.
    Refund(Option<Uuid>),
    RefundOf(Option<Uuid>),
    Void,
}

/// The event's change. A repetition changes nothing.
pub(super) fn changes(row: &Row, record: &Record) -> Vec<Change> {
    if !row.success || row.replay {
        return Vec::new();
    }
    if row.action_type == "unknown" {
        return opened(row, record).into_iter().map(|operation| Change::Opened { operation }).collect();
    }
    if !record.was_unknown {
        return Vec::new();
    }
    settled(row, record).into_iter().map(|(which, made)| Change::Settled { which, made }).collect()
}

fn opened(row: &Row, record: &Record) -> Option<&'static str> {
    match row.change.as_deref() {
        Some("charge") => Some(if record.order.state == OrderState::Charged { "consume" } else { "hold" }),
        Some("capture") => Some("settle"),
        Some("refund") => Some("refund"),
        Some("void") => Some("void"),
        Some(_) | None => None,
    }
}

/// What was captured, refunded or voided exists at the gateway. Quota that is given back manually or through the API is that of
/// a charge that was not made; the proxy only reports what the gateway has done.
fn settled(row: &Row, record: &Record) -> Vec<(Which, bool)> {
    let by_proxy = row.operator_type == "system";
    match (row.action_type.as_str(), record.code) {
        ("resolve", Code::Applied) => vec![(Which::Charge, true)],
        ("resolve", Code::Voided) => vec![(Which::Charge, false)],
        ("settle", Code::Applied) => vec![(Which::Charge, true), (Which::Capture(row.operation_id), true)],
        ("refund", Code::Applied) => vec![(Which::Charge, true), (Which::Refund(row.operation_id), true)],
        ("release", Code::Applied) => vec![(Which::Charge, false), (Which::Refund(row.operation_id), true)],
        ("void", Code::Applied) => vec![(Which::RefundOf(row.attempt), false)],
        ("void", Code::Voided) if record.order.state == OrderState::Open => vec![(Which::Charge, false)],
        ("void", Code::Voided) => vec![(Which::Charge, by_proxy), (Which::Void, true)],
        ("release", Code::Voided) => vec![(Which::Charge, false), (Which::Void, true)],
        _ => Vec::new(),
    }
}
