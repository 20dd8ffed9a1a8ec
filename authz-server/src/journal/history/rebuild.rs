//! An order from its rows in the usage log. Pure.

use chrono::{DateTime, Utc};
use quota::{
    AmountMinor, AttemptId, Currency, Hold, OPERATIONS_MAX, OnExpiry, Operation, OperationId, OperationKind, Order,
    OrderState, Origin, Origins,
};
use sqlx::FromRow;
use uuid::Uuid;

use super::HistoryError;

/// A row that changed an order, or the attempt that holds one of its reservations.
#[derive(Clone, Debug, FromRow)]
pub(super) struct Past {
    pub(super) event_id: Uuid,
    pub(super) at: DateTime<Utc>,
    pub(super) shard: i32,
    pub(super) seq: i64,
    pub(super) action_type: String,
    pub(super) code: String,
    pub(super) currency: Option<String>,
    pub(super) amount: i64,
    pub(super) attempt: Option<Uuid>,
    pub(super) operation_id: Option<Uuid>,
    pub(super) daily_window: i32,
    pub(super) daily_epoch: i16,
    pub(super) monthly_window: i32,
    pub(super) monthly_epoch: i16,
    pub(super) yearly_window: i32,
    pub(super) yearly_epoch: i16,
    pub(super) order_state: String,
    pub(super) order_settled: i64,
    pub(super) order_refunded: i64,
    pub(super) order_ttl_secs: Option<i64>,
    pub(super) hold_until: Option<DateTime<Utc>>,
    pub(super) hold_on_expiry: Option<String>,
}

/// An order and where its history stands.
#[derive(Clone, Debug)]
pub(super) struct Rebuilt {
    order: Order,
    pub(super) shard: i32,
    /// The number of the event that charged it.
    pub(super) charged_seq: i64,
    /// Until when the store remembers it, milliseconds since the epoch; `None` where the row does not say for how long.
    known_until_ms: Option<i64>,
    last_ms: i64,
}

impl Rebuilt {
    /// The order. Where the store should remember it as of `now_ms` and yet does not, Redis lost writes, and perhaps the charge
    /// with them: then nothing returns into the windows that it was counted in.
    pub(super) fn as_of(self, now_ms: i64, order_ttl_secs: u32) -> Order {
        let known_until_ms = self.known_until_ms.unwrap_or(self.last_ms + i64::from(order_ttl_secs) * 1000);
        let mut order = self.order;
        if known_until_ms > now_ms {
            order.charged_in = Origins::default();
            order.operations.iter_mut().for_each(|operation| operation.counted = Origins::default());
        }
        order
    }
}

/// The order that the rows, oldest first, have made; `None` where nothing is charged.
pub(super) fn order(rows: &[Past]) -> Result<Option<Rebuilt>, HistoryError> {
    let mut rebuilt: Option<Rebuilt> = None;
    for row in rows {
        if row.code == "ADMITTED" {
            let (order, last_ms) = (charge(row)?, row.at.timestamp_millis());
            rebuilt = Some(Rebuilt { order, shard: row.shard, charged_seq: row.seq, known_until_ms: None, last_ms });
        }
        // Without a charge before it, the row is of one that is not kept any more.
        let Some(rebuilt) = &mut rebuilt else { continue };
        match row.code.as_str() {
            "APPLIED" => apply(&mut rebuilt.order, row)?,
            // Of all that returns a hold, only a release has an id: asked for again, it must not go on to refund.
            "VOIDED" if row.operation_id.is_some() => record(&mut rebuilt.order, row, OperationKind::Release)?,
            _ => {}
        }
        stand(rebuilt, row)?;
    }
    Ok(rebuilt.filter(|rebuilt| rebuilt.order.state != OrderState::Open))
}

/// The order as its charge made it.
fn charge(row: &Past) -> Result<Order, HistoryError> {
    let currency = row.currency.as_deref().and_then(|code| Currency::parse(code).ok());
    Ok(Order {
        currency: currency.ok_or_else(|| corrupt(row, "no currency"))?,
        amount: amount(row)?,
        charged_in: origins(row)?,
        state: state(row)?,
        pinned: false,
        hold: hold(row)?,
        settled: 0,
        refunded: 0,
        // Attempts are as old as the order: none of them is still under way.
        live: Vec::new(),
        voided: Vec::new(),
        operations: Vec::new(),
        decision_id: row.event_id.into_bytes(),
        expires_at_secs: 0,
    })
}

/// What the operation that the row grants has made of the order's operations.
fn apply(order: &mut Order, row: &Past) -> Result<(), HistoryError> {
    match row.action_type.as_str() {
        "settle" => record(order, row, OperationKind::Capture),
        "reserve_refund" => record(order, row, OperationKind::Reservation),
        "refund" | "release" => record(order, row, OperationKind::Refund),
        "void" => {
            let cancels = |operation: &Operation| {
                operation.kind == OperationKind::Reservation && operation.attempt == attempt(row)
            };
            order.operations.retain(|operation| !cancels(operation));
            Ok(())
        }
        "expire" => Ok(()),
        _ => Err(corrupt(row, "an action that applies to no order")),
    }
}

/// Adds an operation, or moves a refund on: to another attempt, and from reserved to made.
fn record(order: &mut Order, row: &Past, kind: OperationKind) -> Result<(), HistoryError> {
    let id = OperationId(row.operation_id.ok_or_else(|| corrupt(row, "no operation_id"))?.into_bytes());
    let same =
        |known: &&mut Operation| known.id == id && (known.kind == kind || is_refund(known.kind) && is_refund(kind));
    if let Some(known) = order.operations.iter_mut().find(same) {
        if known.kind == OperationKind::Reservation {
            known.kind = kind;
            known.attempt = attempt(row);
        }
        return Ok(());
    }
    // The one that ends a hold is taken beside the others.
    if order.operations.len() > OPERATIONS_MAX {
        return Err(corrupt(row, "more operations than an order takes"));
    }
    order.operations.push(Operation {
        kind,
        id,
        attempt: attempt(row),
        amount: amount(row)?,
        counted: origins(row)?,
        decision_id: row.event_id.into_bytes(),
    });
    Ok(())
}

/// How the order stands after the row.
fn stand(rebuilt: &mut Rebuilt, row: &Past) -> Result<(), HistoryError> {
    let order = &mut rebuilt.order;
    order.state = state(row)?;
    order.settled = figure(row, row.order_settled)?;
    let refunds = order.operations.iter().filter(|operation| is_refund(operation.kind));
    let refunds: u64 = refunds.map(|operation| operation.amount.get()).sum();
    // They are the same, unless Redis lost a refund that the log knows of: it was made.
    order.refunded = figure(row, row.order_refunded)?.max(refunds);
    rebuilt.last_ms = row.at.timestamp_millis();
    let held_until_ms =
        row.hold_until.filter(|_| order.state == OrderState::Held).map(|until| until.timestamp_millis());
    let from_ms = held_until_ms.map_or(rebuilt.last_ms, |until_ms| until_ms.max(rebuilt.last_ms));
    rebuilt.known_until_ms = row.order_ttl_secs.map(|ttl_secs| from_ms.saturating_add(ttl_secs.saturating_mul(1000)));
    Ok(())
}

const fn is_refund(kind: OperationKind) -> bool {
    match kind {
        OperationKind::Reservation | OperationKind::Refund => true,
        OperationKind::Capture | OperationKind::Release => false,
    }
}

fn state(row: &Past) -> Result<OrderState, HistoryError> {
    OrderState::parse(&row.order_state).ok_or_else(|| corrupt(row, "an unknown order_state"))
}

fn hold(row: &Past) -> Result<Hold, HistoryError> {
    let Some(until) = row.hold_until else { return Ok(Hold::default()) };
    let until_secs = u32::try_from(until.timestamp()).map_err(|_| corrupt(row, "hold_until out of range"))?;
    let on_expiry = match row.hold_on_expiry.as_deref() {
        Some("settle") => OnExpiry::Settle,
        Some("void") | None => OnExpiry::Void,
        Some(_) => return Err(corrupt(row, "an unknown hold_on_expiry")),
    };
    Ok(Hold { until_secs, on_expiry })
}

fn origins(row: &Past) -> Result<Origins, HistoryError> {
    let origin = |id: i32, epoch: i16| {
        let id = u32::try_from(id).map_err(|_| corrupt(row, "a window out of range"))?;
        let epoch = u8::try_from(epoch).map_err(|_| corrupt(row, "an epoch out of range"))?;
        Ok::<_, HistoryError>(Origin { id, epoch })
    };
    Ok(Origins {
        day: origin(row.daily_window, row.daily_epoch)?,
        month: origin(row.monthly_window, row.monthly_epoch)?,
        year: origin(row.yearly_window, row.yearly_epoch)?,
    })
}

fn attempt(row: &Past) -> AttemptId {
    AttemptId(row.attempt.unwrap_or_default().into_bytes())
}

fn amount(row: &Past) -> Result<AmountMinor, HistoryError> {
    AmountMinor::new(figure(row, row.amount)?).ok_or_else(|| corrupt(row, "an amount out of range"))
}

fn figure(row: &Past, value: i64) -> Result<u64, HistoryError> {
    u64::try_from(value).map_err(|_| corrupt(row, "a negative figure"))
}

fn corrupt(row: &Past, what: &str) -> HistoryError {
    HistoryError::Corrupt(format!("event {} has {what}", row.event_id))
}
