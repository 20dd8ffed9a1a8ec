//! Policy documents: limits for a default, tiers and merchants, by channel, currency and time, compiled into one
//! [`quota::Policy`] for each charge.
//!
//! No IO: documents are texts, and time zones come from a [`ZoneSource`].

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod book;
mod compile;
mod diff;
mod document;
mod error;
mod fields;
mod set;
mod zone;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use book::PolicyBook;
pub use diff::policy_diff;
pub use document::parse_moment;
pub use error::PolicyError;
pub use fields::PolicyFields;
pub use set::{PolicyOverride, PolicyRule, PolicySet, Scope, Span, TierBinding};
pub use zone::{ZoneError, ZoneSource, check_zone_name};

/// How charges of a merchant that no policy names are decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UnknownMerchants {
    /// By the default policy.
    #[default]
    Default,
    /// They are refused. Earlier charges of such a merchant are captured, voided and refunded under the default policy.
    Refuse,
}

impl UnknownMerchants {
    /// The value in documents and tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Refuse => "refuse",
        }
    }
}
