//! The pure core of Sluice: charges, the limits that apply to them, and the decision.
//!
//! Nothing here reads a clock, a socket, the environment or randomness: `now` is a parameter. The proxy filter and the
//! server both build on it; the differential suite compares the Redis script with it.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]
// An arm for all others would take a new variant in silently.
#![warn(clippy::wildcard_enum_match_arm)]

mod account;
mod code;
mod command;
mod counter;
mod credit;
mod decide;
mod ids;
mod ledger;
mod limits;
mod merchant;
mod money;
mod order;
mod period;
mod policy;
mod predict;
mod record;
mod right;
mod text;
mod thresholds;
mod weight;
mod window;
#[cfg(test)]
mod zones;

pub use account::{Account, BROUGHT_BACK_EPOCH, BROUGHT_BACK_EPOCHS, ClosedWindow, Counter, Origin, Origins};
pub use code::Code;
pub use command::{
    Action, Adjust, Change, Charge, Command, Effect, Grant, LAG_MS_MAX, Mark, NOW_MS_MAX, Outcome, Pace, Refund,
    ReleaseRight, Reply, Report, Reset, Resolution, RightAfter, Settle, Subject,
};
pub use counter::CounterName;
pub use credit::{ClosedCycle, CreditRecord, CreditTerms, CreditUsage, Posting, PostingKind};
pub use decide::{Stored, decide};
pub use ids::{
    ActorId, AttemptId, Channel, IdError, MerchantId, OperationNo, OrderNo, PaymentNo, is_same, is_visible_ascii,
};
pub use jiff::civil::Weekday;
pub use ledger::{Event, Ledger, NotBegun, shard_of};
pub use limits::{LimitKind, LimitName, LimitState};
pub use merchant::Merchant;
pub use money::{AmountError, AmountMinor, Currency, CurrencyError, Unit};
pub use order::{
    ATTEMPTS_MAX, Hold, OPERATIONS_MAX, Operation, OperationId, OperationKind, Order, OrderState, REPLAYS_MAX,
    REPORTED_OPERATIONS_MAX,
};
pub use period::{PerPeriod, Period};
pub use policy::{Breach, HoldTerms, Limits, OnExpiry, OnUnknownCredit, Policy, Throttle, WindowLimits};
pub use predict::{Outlook, Prediction};
pub use record::{First, OrderSummary, Record, WindowUsage};
pub use right::{HeldRight, Right, RightId, Share, Trust};
pub use text::{TextError, document_text};
pub use thresholds::{Crossing, ThresholdLevels, ThresholdPolicy, Thresholds, ThresholdsError};
pub use weight::{Weighed, Weight};
pub use window::{Calendar, WindowIds};

use serde::{Deserialize, Serialize};

/// What a route does with decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A refusal is answered by the proxy; the gateway never sees the payment.
    #[default]
    Enforce,
    /// Charges are decided, counted and journaled as in `Enforce`, but a refused payment goes through.
    Shadow,
    /// Requests are not read, checked or counted.
    Off,
}

impl Mode {
    /// The name used in configuration, on the wire and in logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Shadow => "shadow",
            Self::Off => "off",
        }
    }

    /// Reads the name back; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Enforce, Self::Shadow, Self::Off].into_iter().find(|mode| mode.as_str() == text)
    }
}
