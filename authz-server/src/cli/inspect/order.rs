//! An order as it is stored.

use chrono::{DateTime, SecondsFormat};
use quota::{MerchantId, OnExpiry, OperationKind, Order, OrderNo, OrderState, Origin, Weight};
use serde::Serialize;
use uuid::Uuid;

use super::Shown;

#[derive(Debug, Serialize)]
struct OriginShown {
    window: u32,
    epoch: u8,
}

impl OriginShown {
    const fn of(origin: Origin) -> Self {
        Self { window: origin.id, epoch: origin.epoch }
    }
}

#[derive(Debug, Serialize)]
struct OriginsShown {
    day: OriginShown,
    week: OriginShown,
    month: OriginShown,
    year: OriginShown,
}

#[derive(Debug, Serialize)]
struct OperationShown {
    kind: &'static str,
    amount: u64,
    /// A hash of the caller's number.
    id: String,
    decision_id: Uuid,
}

#[derive(Debug, Serialize)]
pub(super) struct OrderShown {
    merchant_id: String,
    order_no: String,
    currency: &'static str,
    state: &'static str,
    amount: u64,
    /// What still counts of the amount against the amount limits.
    counted_amount: u64,
    weight_bp: u32,
    units_per_payment: u64,
    captured: u64,
    held: u64,
    refunded: u64,
    /// When the open hold ends by itself.
    hold_until: Option<String>,
    /// `void` or `settle`, of an open hold.
    on_expiry: Option<&'static str>,
    charged_in: OriginsShown,
    live_attempts: Vec<String>,
    voided_attempts: Vec<String>,
    /// The charge is not returned by voids any more.
    pinned: bool,
    /// An operation ended the order or gave back quota of it: no charge is admitted any more.
    closed: bool,
    /// Whether the charge's outcome at the gateway is unknown.
    outcome_unknown: bool,
    operations: Vec<OperationShown>,
    decision_id: Uuid,
    /// From then on the order counts as unknown.
    expires_at: Option<String>,
    expired: bool,
}

impl OrderShown {
    pub(super) fn of(merchant: &MerchantId, order_no: &OrderNo, order: &Order, now_ms: i64) -> Self {
        let held = order.state == OrderState::Held;
        let operation = |operation: &quota::Operation| OperationShown {
            kind: kind(operation.kind),
            amount: operation.amount.get(),
            id: Uuid::from_bytes(operation.id.0).simple().to_string(),
            decision_id: Uuid::from_bytes(operation.decision_id),
        };
        Self {
            merchant_id: merchant.to_string(),
            order_no: order_no.to_string(),
            currency: order.currency.code(),
            state: order.state.as_str(),
            amount: order.amount.get(),
            counted_amount: order.weight.counts(order.net()),
            weight_bp: order.weight.bp(),
            units_per_payment: order.weight.units_per_payment().get(),
            captured: order.captured(),
            held: order.held(),
            refunded: order.refunded,
            hold_until: moment_secs(order.hold.until_secs).filter(|_| held),
            on_expiry: held.then_some(match order.hold.on_expiry {
                OnExpiry::Void => "void",
                OnExpiry::Settle => "settle",
            }),
            charged_in: OriginsShown {
                day: OriginShown::of(order.charged_in.day),
                week: OriginShown::of(order.charged_in.week),
                month: OriginShown::of(order.charged_in.month),
                year: OriginShown::of(order.charged_in.year),
            },
            live_attempts: order.live.iter().map(ToString::to_string).collect(),
            voided_attempts: order.voided.iter().map(ToString::to_string).collect(),
            pinned: order.pinned,
            closed: order.is_closed(),
            outcome_unknown: order.unknown,
            operations: order.operations.iter().map(operation).collect(),
            decision_id: Uuid::from_bytes(order.decision_id),
            expires_at: moment_secs(order.expires_at_secs),
            expired: i64::from(order.expires_at_secs) <= now_ms / 1000,
        }
    }
}

impl Shown for OrderShown {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let OriginsShown { day, week, month, year } = &self.charged_in;
        let expires_at = self.expires_at.as_deref().unwrap_or("never");
        let mut rows = vec![
            (
                "order",
                format!("{} of {}, amounts in minor units of {}", self.order_no, self.merchant_id, self.currency),
            ),
            ("state", self.state.to_owned()),
            ("amount", self.amount.to_string()),
            ("captured", self.captured.to_string()),
            ("held", self.held.to_string()),
            ("refunded", self.refunded.to_string()),
            (
                "charged in",
                format!("day {}, week {}, month {}, year {}", day.window, week.window, month.window, year.window),
            ),
            ("decision", self.decision_id.to_string()),
            ("kept until", format!("{expires_at}{}", if self.expired { ", so it counts as unknown" } else { "" })),
        ];
        if self.weight_bp == 0 {
            rows.push((
                "weight",
                format!("{} for each payment, of which {} count", self.units_per_payment, self.counted_amount),
            ));
        } else if self.weight_bp != Weight::WHOLE_BP {
            rows.push((
                "weight",
                format!("{} basis points of the amount, so {} count", self.weight_bp, self.counted_amount),
            ));
        }
        if let Some((until, on_expiry)) = self.hold_until.as_ref().zip(self.on_expiry) {
            rows.push(("hold ends", format!("{until}, then: {on_expiry}")));
        }
        rows.extend(self.live_attempts.iter().map(|id| ("live attempt", id.clone())));
        rows.extend(self.voided_attempts.iter().map(|id| ("voided attempt", id.clone())));
        rows.extend(self.closed.then(|| ("closed", "no charge of this order is admitted any more".to_owned())));
        rows.extend(self.pinned.then(|| ("pinned", "voids do not return the charge any more".to_owned())));
        rows.extend(
            self.operations
                .iter()
                .map(|operation| (operation.kind, format!("{}, decision {}", operation.amount, operation.decision_id))),
        );
        rows
    }
}

const fn kind(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Capture => "capture",
        OperationKind::Reservation => "reserved refund",
        OperationKind::Refund => "refund",
        OperationKind::Release => "release",
    }
}

fn moment_secs(secs: u32) -> Option<String> {
    let at = DateTime::from_timestamp(i64::from(secs), 0).filter(|_| secs > 0)?;
    Some(at.to_rfc3339_opts(SecondsFormat::Secs, true))
}
