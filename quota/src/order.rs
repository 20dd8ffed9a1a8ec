//! The stored state of one (merchant, order number).

use crate::{AmountMinor, AttemptId, Currency, OnExpiry, Origins, Weighed, Weight};

/// Attempts that are stored with an order: this many live ones, and this many voided ones.
///
/// An order with more live attempts is *pinned*: voids of attempts no longer return its charge. Beyond this many voided
/// attempts the oldest is evicted. Both err on the side of quota consumed.
pub const ATTEMPTS_MAX: usize = 32;

/// Most repetitions of a charge that a rule may allow by number: attempts beyond those that are stored are not counted.
pub const REPLAYS_MAX: u8 = 31;
const _: () = assert!(REPLAYS_MAX as usize + 1 == ATTEMPTS_MAX);

/// Most captures and refunds of an order; the capture that ends its hold is always accepted in addition.
pub const OPERATIONS_MAX: usize = 32;

/// The same for captures that the gateway has already made and reports.
pub const REPORTED_OPERATIONS_MAX: usize = 64;

/// The state of an order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OrderState {
    /// Nothing is charged: it never was, or all attempts were voided. It may be charged.
    #[default]
    Open = 0,
    /// Consumed at once, by `consume`.
    Charged = 1,
    /// Consumed by a hold whose final amount is open.
    Held = 2,
    /// A hold that was captured.
    Settled = 3,
    /// A hold that ended without a capture. It cannot be charged again.
    Voided = 4,
}

impl OrderState {
    /// Every state.
    pub const ALL: [Self; 5] = [Self::Open, Self::Charged, Self::Held, Self::Settled, Self::Voided];

    /// The name used in answers and journal rows.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Charged => "charged",
            Self::Held => "held",
            Self::Settled => "settled",
            Self::Voided => "voided",
        }
    }

    /// Reads the name back; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// The number of packed values.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Reads the number of packed values; `None` for an unknown one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.number() == number)
    }

    /// Whether the order has consumed quota that was not returned as a whole.
    #[must_use]
    pub const fn is_charged(self) -> bool {
        matches!(self, Self::Charged | Self::Held | Self::Settled)
    }
}

/// When and how a hold expires. Unused for other orders.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// Seconds since the epoch.
    pub until_secs: u32,
    pub on_expiry: OnExpiry,
}

/// The idempotency key of a capture or refund within its order: a hash of the caller's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OperationId(pub [u8; 16]);

impl OperationId {
    /// The id of a caller's `capture_no` or `refund_no` (XXH3, 128 bits).
    #[must_use]
    pub fn of(number: &str) -> Self {
        Self(xxhash_rust::xxh3::xxh3_128(number.as_bytes()).to_be_bytes())
    }
}

/// The kind of an operation on a charged order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OperationKind {
    Capture = 1,
    /// A refund that the gateway has not confirmed: counted as refunded, but its quota is not returned yet.
    Reservation = 2,
    Refund = 3,
    /// The void or release that ended a hold. Stored so that a repetition is recognized: the same release must not go on to
    /// refund what was captured.
    Release = 4,
}

impl OperationKind {
    /// The number of packed values.
    #[must_use]
    pub const fn number(self) -> u8 {
        self as u8
    }

    /// Reads the number of packed values; `None` for an unknown one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::Capture, Self::Reservation, Self::Refund, Self::Release].into_iter().find(|kind| kind.number() == number)
    }
}

/// A capture, refund or release that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    pub kind: OperationKind,
    pub id: OperationId,
    /// The attempt that a reservation belongs to: its void cancels it.
    pub attempt: AttemptId,
    pub amount: AmountMinor,
    /// The windows in which a refund was counted; for other operations the windows at their time.
    pub counted: Origins,
    /// The id of the decision that accepted it; repetitions are answered with it.
    pub decision_id: [u8; 16],
}

/// The stored state of one (merchant, order number).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub currency: Currency,
    /// The charged amount; zero for an order that was never charged.
    pub amount: AmountMinor,
    /// What the amount counts against the limits.
    pub weight: Weight,
    /// The windows that the charge went into.
    pub charged_in: Origins,
    pub state: OrderState,
    /// More live attempts arrived than are stored.
    pub pinned: bool,
    /// An operation has returned quota of this order: no charge attempt is admitted any more.
    pub given_back: bool,
    /// It is unknown whether the gateway made the charge.
    pub unknown: bool,
    /// The charge is known to exist at the gateway: it was captured, refunded or voided there, or its outcome was resolved so.
    pub made: bool,
    /// The outcome of a capture, refund or void of the order was once unknown. Never reset, because it does not record which one.
    pub doubted: bool,
    pub hold: Hold,
    /// Captured so far, of a hold; see [`Order::captured`].
    pub settled: u64,
    /// Refunded, and reserved for refunds.
    pub refunded: u64,
    /// The billing cycle of its charge or latest capture, see [`CreditUsage::cycle`](crate::CreditUsage); 0 where its charge did
    /// not raise an exposure.
    pub credit_cycle: u32,
    /// Admitted and not voided, oldest first.
    pub live: Vec<AttemptId>,
    /// Voided, or to be refused should they still arrive; oldest first.
    pub voided: Vec<AttemptId>,
    /// Captures and refunds, oldest first.
    pub operations: Vec<Operation>,
    /// The id of the decision that charged the order; repetitions are answered with it.
    pub decision_id: [u8; 16],
    /// Seconds since the epoch from which on the order is treated as unknown.
    pub expires_at_secs: u32,
}

impl Order {
    /// An order that was never charged.
    #[must_use]
    pub const fn open(currency: Currency, decision_id: [u8; 16]) -> Self {
        Self {
            currency,
            amount: AmountMinor::ZERO,
            weight: Weight::AMOUNT,
            charged_in: Origins::all(crate::Origin { id: 0, epoch: 0 }),
            state: OrderState::Open,
            pinned: false,
            given_back: false,
            unknown: false,
            made: false,
            doubted: false,
            hold: Hold { until_secs: 0, on_expiry: OnExpiry::Void },
            settled: 0,
            refunded: 0,
            credit_cycle: 0,
            live: Vec::new(),
            voided: Vec::new(),
            operations: Vec::new(),
            decision_id,
            expires_at_secs: 0,
        }
    }

    /// The amount paid to the merchant: all of a charge, or the captured part of a hold.
    #[must_use]
    pub const fn captured(&self) -> u64 {
        match self.state {
            OrderState::Charged => self.amount.get(),
            OrderState::Held | OrderState::Settled => self.settled,
            OrderState::Open | OrderState::Voided => 0,
        }
    }

    /// The amount that is still held.
    #[must_use]
    pub const fn held(&self) -> u64 {
        match self.state {
            OrderState::Held => self.amount.get().saturating_sub(self.settled),
            OrderState::Open | OrderState::Charged | OrderState::Settled | OrderState::Voided => 0,
        }
    }

    /// The net amount, which still counts: what is captured or still held, less what was refunded.
    #[must_use]
    pub fn net(&self) -> u64 {
        let refunds = self.operations.iter().filter(|operation| operation.kind == OperationKind::Refund);
        let refunded: u64 = refunds.map(|operation| operation.amount.get()).sum();
        (self.captured() + self.held()).saturating_sub(refunded)
    }

    /// What is returned to the limits for a part of the amount.
    pub(crate) fn counts_of_last(&self, less: u64) -> u64 {
        if self.weight.is_amount() { less } else { self.weight.counts_of_last(self.net(), less) }
    }

    /// What a capture beyond the hold consumes.
    pub(crate) fn counts_of_next(&self, more: u64) -> u64 {
        if self.weight.is_amount() { more } else { self.weight.counts_of_next(self.net(), more) }
    }

    /// What a part of the hold counts, when it is no longer held.
    pub(crate) fn counts_of_held(&self, less: u64) -> u64 {
        self.weight.counts_of_last(self.held(), less)
    }

    /// The figure beside an amount of the order; `None` where the limits count amounts as they are.
    pub(crate) fn weighed(&self, counted: u64) -> Option<Weighed> {
        (!self.weight.is_amount()).then_some(Weighed { weight: self.weight, counted })
    }

    /// Whether only tombstones of attempts are stored: the order itself is unknown.
    #[must_use]
    pub fn was_never_charged(&self) -> bool {
        self.state == OrderState::Open && self.amount == AmountMinor::ZERO
    }

    /// Whether the store has evicted the order itself at `now_secs` (seconds since the epoch).
    #[must_use]
    pub fn is_forgotten(&self, now_secs: i64) -> bool {
        i64::from(self.expires_at_secs) <= now_secs || self.was_never_charged()
    }

    /// Whether it accepts no charge attempt any more: an operation has ended it or returned quota of it.
    #[must_use]
    pub const fn is_closed(&self) -> bool {
        self.given_back || matches!(self.state, OrderState::Voided)
    }

    /// Whether the allowed number of repetitions of its charge is in progress or done. An order whose attempts were evicted had
    /// at least one, and a pinned one more than are stored.
    pub(crate) fn has_used_up(&self, replays_max: u8) -> bool {
        self.pinned || self.live.len().max(1) > usize::from(replays_max)
    }

    /// Whether an outcome of the order is or was unknown, so that an operation on it may resolve that.
    pub(crate) const fn is_doubtful(&self) -> bool {
        self.unknown || self.doubted
    }

    /// Records that the gateway has the order, as its answer or an operation there proves.
    pub(crate) const fn known_at_gateway(&mut self) {
        self.made = true;
        self.unknown = false;
    }

    /// Whether voiding its last attempt returns the charge: nothing was captured or refunded of it.
    pub(crate) const fn is_untouched(&self) -> bool {
        matches!(self.state, OrderState::Charged | OrderState::Held) && self.operations.is_empty()
    }
}
