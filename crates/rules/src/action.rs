//! The actions of rules, and the fields that each needs.

use serde::{Deserialize, Serialize};

use super::Field;

/// The operation that a matching request requests from the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Consume quota for an attempt at an order.
    #[default]
    Consume,
    /// Consume quota whose final amount is open: an authorisation.
    Hold,
    /// Capture from a hold.
    Settle,
    /// Return captured quota.
    Refund,
    /// End a hold and return the amount that is still held.
    Void,
    /// Check whether a charge would be admitted, and consume nothing.
    Check,
}

/// When a hold is captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SettleOn {
    /// By the gateway's answer to the authorisation itself.
    #[default]
    #[serde(rename = "on_success")]
    Success,
    /// By a separate request, or never: then the hold's expiry decides.
    #[serde(rename = "later")]
    Later,
}

/// Whether an action takes a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    Required,
    Optional,
    /// The action does not use the field: its presence is a configuration mistake.
    No,
}

impl Action {
    /// Every action.
    pub const ALL: [Self; 6] = [Self::Consume, Self::Hold, Self::Settle, Self::Refund, Self::Void, Self::Check];

    /// The name in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Consume => "consume",
            Self::Hold => "hold",
            Self::Settle => "settle",
            Self::Refund => "refund",
            Self::Void => "void",
            Self::Check => "check",
        }
    }

    /// Whether the action changes state that must be reverted if the payment is not made.
    #[must_use]
    pub const fn changes(self) -> bool {
        match self {
            Self::Consume | Self::Hold | Self::Refund => true,
            Self::Settle | Self::Void | Self::Check => false,
        }
    }

    /// Whether the action takes the field.
    #[must_use]
    pub const fn need(self, field: Field) -> Need {
        match (field, self) {
            (Field::Merchant | Field::Currency, _)
            | (Field::Amount, Self::Consume | Self::Hold | Self::Check)
            | (Field::OrderNo, Self::Consume | Self::Hold | Self::Settle | Self::Refund | Self::Void)
            | (Field::OperationNo, Self::Refund) => Need::Required,
            (Field::PaymentNo | Field::Channel, _)
            | (Field::Amount, Self::Settle | Self::Refund)
            | (Field::OrderNo, Self::Check)
            | (Field::OperationNo | Field::Final, Self::Settle) => Need::Optional,
            (Field::Amount, Self::Void)
            | (Field::OperationNo, Self::Consume | Self::Hold | Self::Void | Self::Check)
            | (Field::Final, Self::Consume | Self::Hold | Self::Refund | Self::Void | Self::Check) => Need::No,
        }
    }
}
