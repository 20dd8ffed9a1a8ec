//! An order from its rows in the usage log. Pure.

use chrono::{DateTime, Utc};
use quota::{
    AmountMinor, AttemptId, Currency, Hold, OPERATIONS_MAX, OnExpiry, Operation, OperationId, OperationKind, Order,
    OrderState, Origin, Origins, Weight,
};
use sqlx::FromRow;
use uuid::Uuid;

use super::HistoryError;

/// A row that changed an order, or the attempt that holds one of its reservations.
#[derive(Clone, Debug, FromRow)]
pub(super) struct HistoryRow {
    pub(super) event_id: Uuid,
    pub(super) at: DateTime<Utc>,
    pub(super) shard: i32,
    pub(super) seq: i64,
    pub(super) action_type: String,
    pub(super) code: String,
    pub(super) currency: Option<String>,
    pub(super) amount: i64,
    pub(super) weight_bp: Option<i32>,
    pub(super) units_per_payment: Option<i64>,
    pub(super) counted_in: Option<String>,
    pub(super) attempt: Option<Uuid>,
    pub(super) operation_id: Option<Uuid>,
    pub(super) daily_window: i32,
    pub(super) daily_epoch: i16,
    pub(super) weekly_window: i32,
    pub(super) weekly_epoch: i16,
    pub(super) monthly_window: i32,
    pub(super) monthly_epoch: i16,
    pub(super) yearly_window: i32,
    pub(super) yearly_epoch: i16,
    pub(super) credit_cycle: Option<i32>,
    pub(super) order_state: String,
    pub(super) order_settled: i64,
    pub(super) order_refunded: i64,
    pub(super) order_ttl_secs: Option<i64>,
    pub(super) hold_until: Option<DateTime<Utc>>,
    pub(super) hold_on_expiry: Option<String>,
    pub(super) change: Option<String>,
}

/// An order and the state of its history.
#[derive(Clone, Debug)]
pub(super) struct Rebuilt {
    order: Order,
    pub(super) shard: i32,
    /// The number of the event that charged it.
    pub(super) charged_seq: i64,
    /// Until when the store keeps it, milliseconds since the epoch; `None` where the row has no lifetime.
    known_until_ms: Option<i64>,
    last_ms: i64,
}

impl Rebuilt {
    /// The order, which the store does not have at `now_ms`. Where it should, Redis lost writes, and perhaps the charge with
    /// them: then nothing is returned to the windows that it was counted in.
    pub(super) fn evicted_at(self, now_ms: i64, order_ttl_secs: u32) -> Order {
        let known_until_ms = self.known_until_ms.unwrap_or(self.last_ms + i64::from(order_ttl_secs) * 1000);
        let mut order = self.order;
        if known_until_ms > now_ms {
            order.charged_in = Origins::default();
            order.credit_cycle = 0;
            order.operations.iter_mut().for_each(|operation| operation.counted = Origins::default());
        }
        order
    }
}

/// The order that results from the rows, oldest first; `None` where nothing is charged.
pub(super) fn order(rows: &[HistoryRow]) -> Result<Option<Rebuilt>, HistoryError> {
    let mut rebuilt: Option<Rebuilt> = None;
    for row in rows {
        if row.code == "ADMITTED" {
            let (order, last_ms) = (charge(row)?, row.at.timestamp_millis());
            rebuilt = Some(Rebuilt { order, shard: row.shard, charged_seq: row.seq, known_until_ms: None, last_ms });
        }
        // Without a charge before it, the row belongs to one that is not kept any more.
        let Some(rebuilt) = &mut rebuilt else { continue };
        match row.code.as_str() {
            "APPLIED" => apply(&mut rebuilt.order, row)?,
            "VOIDED" => release(&mut rebuilt.order, row)?,
            _ => {}
        }
        apply_state(rebuilt, row)?;
    }
    Ok(rebuilt.filter(|rebuilt| rebuilt.order.state != OrderState::Open))
}

/// The order as charged.
fn charge(row: &HistoryRow) -> Result<Order, HistoryError> {
    let currency = row.currency.as_deref().and_then(|code| Currency::parse(code).ok());
    Ok(Order {
        currency: currency.ok_or_else(|| corrupt(row, "no currency"))?,
        amount: amount(row)?,
        weight: weight(row)?,
        charged_in: counted_in(row)?,
        state: state(row)?,
        pinned: false,
        given_back: false,
        unknown: false,
        made: false,
        doubted: false,
        hold: hold(row)?,
        settled: 0,
        refunded: 0,
        credit_cycle: credit_cycle(row)?,
        // Attempts are as old as the order: none of them is still under way.
        live: Vec::new(),
        voided: Vec::new(),
        operations: Vec::new(),
        decision_id: row.event_id.into_bytes(),
        expires_at_secs: 0,
    })
}

/// Applies the operation of the row to the order's operations.
fn apply(order: &mut Order, row: &HistoryRow) -> Result<(), HistoryError> {
    match row.action_type.as_str() {
        "settle" => {
            billed(order, row)?;
            record(order, row, OperationKind::Capture)
        }
        "reserve_refund" => record(order, row, OperationKind::Reservation),
        "refund" | "release" => {
            order.given_back = true;
            record(order, row, OperationKind::Refund)
        }
        "unknown" => {
            match row.change.as_deref() {
                Some("charge") => order.unknown = true,
                Some(_) | None => order.doubted = true,
            }
            Ok(())
        }
        "resolve" => {
            known_at_gateway(order);
            Ok(())
        }
        "void" => {
            let cancels = |operation: &Operation| {
                operation.kind == OperationKind::Reservation && operation.attempt == attempt(row)
            };
            order.operations.retain(|operation| !cancels(operation));
            Ok(())
        }
        "expire" => billed(order, row),
        "extend_hold" => {
            order.hold = Hold { on_expiry: order.hold.on_expiry, ..hold(row)? };
            Ok(())
        }
        _ => Err(corrupt(row, "an action that applies to no order")),
    }
}

/// A capture is billed in the cycle of its row, where the order is on the credit line.
fn billed(order: &mut Order, row: &HistoryRow) -> Result<(), HistoryError> {
    if order.credit_cycle > 0 && row.credit_cycle.is_some() {
        order.credit_cycle = credit_cycle(row)?;
    }
    Ok(())
}

/// A report or an operation of the gateway shows that it has the order.
const fn known_at_gateway(order: &mut Order) {
    order.made = true;
    order.unknown = false;
}

/// Adds an operation, or moves a refund on: to another attempt, and from reserved to made.
fn record(order: &mut Order, row: &HistoryRow, kind: OperationKind) -> Result<(), HistoryError> {
    let id = row.operation_id.ok_or_else(|| corrupt(row, "no operation_id"))?;
    record_as(order, row, kind, OperationId(id.into_bytes()))
}

/// A hold that was ended by a request that may be repeated: a release under its number, a void by its attempt. No request
/// repeats the end of an expired hold, and the void of the last attempt leaves the order open.
fn release(order: &mut Order, row: &HistoryRow) -> Result<(), HistoryError> {
    if state(row)? == OrderState::Open {
        return Ok(());
    }
    order.given_back = true;
    if row.action_type == "expire" {
        return Ok(());
    }
    let id = row.operation_id.map_or_else(|| attempt(row).0, Uuid::into_bytes);
    record_as(order, row, OperationKind::Release, OperationId(id))
}

fn record_as(order: &mut Order, row: &HistoryRow, kind: OperationKind, id: OperationId) -> Result<(), HistoryError> {
    if kind != OperationKind::Reservation {
        known_at_gateway(order);
    }
    let same =
        |known: &&mut Operation| known.id == id && (known.kind == kind || is_refund(known.kind) && is_refund(kind));
    if let Some(known) = order.operations.iter_mut().find(same) {
        if known.kind == OperationKind::Reservation {
            known.kind = kind;
            known.attempt = attempt(row);
        }
        return Ok(());
    }
    // The one that ends a hold is taken in addition to the others.
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

/// Applies the order's state after the row.
fn apply_state(rebuilt: &mut Rebuilt, row: &HistoryRow) -> Result<(), HistoryError> {
    let order = &mut rebuilt.order;
    order.state = state(row)?;
    order.settled = unsigned(row, row.order_settled)?;
    let refunds = order.operations.iter().filter(|operation| is_refund(operation.kind));
    let refunds: u64 = refunds.map(|operation| operation.amount.get()).sum();
    // They are equal, unless Redis lost a refund that is in the log: it was made.
    order.refunded = unsigned(row, row.order_refunded)?.max(refunds);
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

fn state(row: &HistoryRow) -> Result<OrderState, HistoryError> {
    OrderState::parse(&row.order_state).ok_or_else(|| corrupt(row, "an unknown order_state"))
}

fn hold(row: &HistoryRow) -> Result<Hold, HistoryError> {
    let Some(until) = row.hold_until else { return Ok(Hold::default()) };
    let until_secs = u32::try_from(until.timestamp()).map_err(|_| corrupt(row, "hold_until out of range"))?;
    let on_expiry = match row.hold_on_expiry.as_deref() {
        Some("settle") => OnExpiry::Settle,
        Some("void") | None => OnExpiry::Void,
        Some(_) => return Err(corrupt(row, "an unknown hold_on_expiry")),
    };
    Ok(Hold { until_secs, on_expiry })
}

fn origins(row: &HistoryRow) -> Result<Origins, HistoryError> {
    let origin = |id: i32, epoch: i16| {
        let id = u32::try_from(id).map_err(|_| corrupt(row, "a window out of range"))?;
        let epoch = u8::try_from(epoch).map_err(|_| corrupt(row, "an epoch out of range"))?;
        Ok::<_, HistoryError>(Origin { id, epoch })
    };
    Ok(Origins {
        day: origin(row.daily_window, row.daily_epoch)?,
        week: origin(row.weekly_window, row.weekly_epoch)?,
        month: origin(row.monthly_window, row.monthly_epoch)?,
        year: origin(row.yearly_window, row.yearly_epoch)?,
    })
}

/// 0 where the account was on no credit line.
fn credit_cycle(row: &HistoryRow) -> Result<u32, HistoryError> {
    u32::try_from(row.credit_cycle.unwrap_or_default()).map_err(|_| corrupt(row, "a billing cycle out of range"))
}

fn attempt(row: &HistoryRow) -> AttemptId {
    AttemptId(row.attempt.unwrap_or_default().into_bytes())
}

fn amount(row: &HistoryRow) -> Result<AmountMinor, HistoryError> {
    AmountMinor::new(unsigned(row, row.amount)?).ok_or_else(|| corrupt(row, "an amount out of range"))
}

/// The amount itself where the row has no weight.
fn weight(row: &HistoryRow) -> Result<Weight, HistoryError> {
    let Some((bp, units)) = row.weight_bp.zip(row.units_per_payment) else { return Ok(Weight::AMOUNT) };
    let units = AmountMinor::new(unsigned(row, units)?);
    let weight = u32::try_from(bp).ok().zip(units).and_then(|(bp, units)| Weight::of_parts(bp, units));
    weight.ok_or_else(|| corrupt(row, "a weight out of range"))
}

/// The windows that a charge was counted in: those of the row, except where it was counted with a right of earlier ones.
fn counted_in(row: &HistoryRow) -> Result<Origins, HistoryError> {
    let Some(text) = &row.counted_in else { return origins(row) };
    let window = |part: &str| {
        let (id, epoch) = part.split_once(':')?;
        Some(Origin { id: id.parse().ok()?, epoch: epoch.parse().ok()? })
    };
    let windows: Option<Vec<Origin>> = text.split(' ').map(window).collect();
    match windows.as_deref() {
        Some(&[day, week, month, year]) => Ok(Origins { day, week, month, year }),
        Some(_) | None => Err(corrupt(row, "windows that cannot be read")),
    }
}

fn unsigned(row: &HistoryRow, value: i64) -> Result<u64, HistoryError> {
    u64::try_from(value).map_err(|_| corrupt(row, "a negative number"))
}

fn corrupt(row: &HistoryRow, what: &str) -> HistoryError {
    HistoryError::Corrupt(format!("event {} has {what}", row.event_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(action: &str, code: &str) -> HistoryRow {
        HistoryRow {
            event_id: Uuid::from_u128(7),
            at: DateTime::from_timestamp(1_795_139_200, 0).unwrap(),
            shard: 3,
            seq: 9,
            action_type: action.to_owned(),
            code: code.to_owned(),
            currency: Some("USD".to_owned()),
            amount: 50,
            weight_bp: None,
            units_per_payment: None,
            counted_in: None,
            attempt: None,
            operation_id: Some(Uuid::from_u128(1)),
            daily_window: 20_261_120,
            daily_epoch: 0,
            weekly_window: 20_261_116,
            weekly_epoch: 0,
            monthly_window: 202_611,
            monthly_epoch: 0,
            yearly_window: 2026,
            yearly_epoch: 0,
            credit_cycle: None,
            order_state: "charged".to_owned(),
            order_settled: 0,
            order_refunded: 0,
            order_ttl_secs: None,
            hold_until: None,
            hold_on_expiry: None,
            change: None,
        }
    }

    fn refund(id: u128) -> HistoryRow {
        HistoryRow {
            operation_id: Some(Uuid::from_u128(id)),
            order_refunded: 10,
            amount: 10,
            ..row("refund", "APPLIED")
        }
    }

    #[test]
    fn an_order_begins_with_its_charge() {
        assert!(order(&[]).unwrap().is_none());
        // Its charge lies in a partition that is not kept any more.
        assert!(order(&[refund(1)]).unwrap().is_none());
        let rebuilt = order(&[refund(1), row("consume", "ADMITTED")]).unwrap().unwrap();
        assert_eq!((rebuilt.order.refunded, rebuilt.order.operations.len(), rebuilt.charged_seq), (0, 0, 9));
    }

    /// what is returned of a rebuilt order is what its charge had counted.
    #[test]
    fn q4_a_rebuilt_order_keeps_its_weight() {
        for (bp, units) in [(5_000, 0), (0, 25), (0, 0)] {
            let charge =
                HistoryRow { weight_bp: Some(bp), units_per_payment: Some(units), ..row("consume", "ADMITTED") };
            let order = order(&[charge, refund(1)]).unwrap().unwrap().order;
            let parts = (order.weight.bp(), order.weight.units_per_payment().get(), order.net());
            assert_eq!(parts, (bp.unsigned_abs(), units.unsigned_abs(), 40));
        }
        assert_eq!(order(&[row("consume", "ADMITTED")]).unwrap().unwrap().order.weight, Weight::AMOUNT);
    }

    /// a payment that was counted with a right of the day before is returned to that day.
    #[test]
    fn q4_a_rebuilt_order_keeps_the_windows_of_its_right() {
        let counted_in = Some("20261119:3 20261116:0 202611:1 2026:0".to_owned());
        let charge = HistoryRow { counted_in, ..row("consume", "ADMITTED") };
        let windows = order(&[charge]).unwrap().unwrap().order.charged_in;
        let at = |id, epoch| Origin { id, epoch };
        let expected =
            Origins { day: at(20_261_119, 3), week: at(20_261_116, 0), month: at(202_611, 1), year: at(2026, 0) };
        assert_eq!(windows, expected);
    }

    /// X5: an operation that gave back quota closes the rebuilt order, as it closed the evicted one.
    #[test]
    fn x5_what_gave_back_closes_a_rebuilt_order() {
        let as_state = |row: HistoryRow, state: &str| HistoryRow { order_state: state.to_owned(), ..row };
        let held = || as_state(row("hold", "ADMITTED"), "held");
        let settled = |action, code| as_state(row(action, code), "settled");
        let attempt_void = HistoryRow { attempt: Some(Uuid::from_u128(5)), ..row("void", "APPLIED") };
        let reserved = HistoryRow { attempt: Some(Uuid::from_u128(5)), ..row("reserve_refund", "APPLIED") };
        let charged = || row("consume", "ADMITTED");
        let table = [
            ("a charge", vec![charged()], false),
            ("a refund", vec![charged(), refund(2)], true),
            ("a release", vec![charged(), row("release", "APPLIED")], true),
            ("a reserved refund", vec![charged(), reserved.clone()], false),
            ("one that was made", vec![charged(), reserved.clone(), row("refund", "APPLIED")], true),
            ("one that was cancelled", vec![charged(), reserved, attempt_void], false),
            ("a capture that returns the rest", vec![held(), settled("settle", "APPLIED")], false),
            ("a hold that was voided", vec![held(), as_state(row("void", "VOIDED"), "voided")], true),
            ("one whose rest was voided", vec![held(), settled("void", "VOIDED")], true),
            ("one that was released", vec![held(), as_state(row("release", "VOIDED"), "voided")], true),
            ("one that expired", vec![held(), as_state(row("expire", "VOIDED"), "voided")], true),
            ("one whose rest expired", vec![held(), settled("expire", "VOIDED")], true),
            ("one that expired as captured", vec![held(), settled("expire", "APPLIED")], false),
            // Charged again after it was evicted.
            ("a charge of later", vec![charged(), refund(2), charged()], false),
        ];
        for (name, rows, closed) in table {
            assert_eq!(order(&rows).unwrap().unwrap().order.is_closed(), closed, "{name}");
        }
    }

    /// Redis lost a refund that is in the log and took another: both were made, and a repeated one only once.
    #[test]
    fn refunds_that_redis_lost_still_count() {
        let rows = [row("consume", "ADMITTED"), refund(1), refund(2), refund(2)];
        let rebuilt = order(&rows).unwrap().unwrap();
        assert_eq!((rebuilt.order.refunded, rebuilt.order.operations.len()), (20, 2));
    }

    #[test]
    fn until_when_an_order_should_be_known() {
        let at_ms = 1_795_139_200_000;
        let held = |ttl| HistoryRow {
            order_state: "held".to_owned(),
            hold_until: DateTime::from_timestamp(1_795_139_260, 0),
            order_ttl_secs: ttl,
            ..row("hold", "ADMITTED")
        };
        let charged = |ttl| HistoryRow { order_ttl_secs: ttl, ..row("consume", "ADMITTED") };
        for (history_row, until_ms) in [
            (charged(Some(100)), at_ms + 100_000),
            // An older row: the current setting applies.
            (charged(None), at_ms + 500_000),
            (held(Some(100)), at_ms + 160_000),
        ] {
            let day = |now_ms| {
                order(std::slice::from_ref(&history_row)).unwrap().unwrap().evicted_at(now_ms, 500).charged_in.day.id
            };
            assert_eq!((day(until_ms - 1), day(until_ms)), (0, 20_261_120), "{history_row:?}");
        }
    }

    #[test]
    fn what_no_decision_can_have_made_is_refused() {
        type Change = fn(&mut HistoryRow);
        let table: &[(Change, &str)] = &[
            (|row| row.currency = None, "currency"),
            (|row| row.amount = -1, "negative"),
            (|row| row.amount = i64::MAX, "amount"),
            (|row| (row.weight_bp, row.units_per_payment) = (Some(-1), Some(0)), "weight"),
            (|row| (row.weight_bp, row.units_per_payment) = (Some(5_000), Some(7)), "weight"),
            (|row| (row.weight_bp, row.units_per_payment) = (Some(0), Some(i64::MAX)), "weight"),
            (|row| row.daily_window = -1, "window"),
            (|row| row.monthly_epoch = 256, "epoch"),
            (|row| row.counted_in = Some("20261119:0 20261116:0 202611:0".to_owned()), "windows"),
            (|row| row.counted_in = Some("20261119:0 20261116:0 202611:0 2026:256".to_owned()), "windows"),
            (|row| row.order_state = "strange".to_owned(), "order_state"),
            (|row| row.hold_on_expiry = Some("strange".to_owned()), "hold_on_expiry"),
        ];
        for (change, word) in table {
            let mut charge = HistoryRow { hold_until: DateTime::from_timestamp(1, 0), ..row("hold", "ADMITTED") };
            change(&mut charge);
            let error = order(&[charge]).unwrap_err().to_string();
            assert!(error.contains(word), "{word}: {error}");
        }
        let unnamed = HistoryRow { operation_id: None, ..refund(1) };
        let strange = row("adjust", "APPLIED");
        for history_row in [unnamed, strange] {
            assert!(order(&[row("consume", "ADMITTED"), history_row.clone()]).is_err(), "{history_row:?}");
        }
        let many = (1..=34).map(refund);
        let many: Vec<HistoryRow> = std::iter::once(row("consume", "ADMITTED")).chain(many).collect();
        assert!(order(&many).is_err() && order(&many[..34]).is_ok());
    }
}
