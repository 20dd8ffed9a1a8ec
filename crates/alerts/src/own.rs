//! A merchant's own thresholds: when it is warned. They are read with each transaction of the journal, so a change counts from the
//! next event on, whichever server stores it.

use std::collections::HashMap;

use quota::{AmountMinor, Currency, Thresholds};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;
use tracing::error;
use utoipa::ToSchema;

use crate::scope::Scope;
use crate::subject::Subject;
use crate::validation::{Check, bounded, filled, invalid};

/// Most lists of a merchant.
const LISTS_MAX: usize = 10;
/// Every subject that has thresholds.
const TYPES_MAX: usize = 10;
/// Most entries of each kind in a list.
const ENTRIES_MAX: usize = 8;

const READ: &str = "SELECT substr(scope, length('merchant:') + 1), document ->> 'thresholds' FROM alert_settings \
    WHERE document ? 'thresholds' AND scope = ANY($1)";

/// When a merchant is warned about some limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OwnThresholds {
    /// Only of accounts in this currency; of all where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "USD")]
    pub currency: Option<String>,
    /// Limits, as in `daily`, and `credit_utilisation`; all of them where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(min_items = 1, max_items = 10)]
    pub types: Option<Vec<Subject>>,
    /// Percentages of the limit that usage reaches. With neither these nor `remaining_below` the merchant is not warned.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub percents: Vec<u32>,
    /// It is warned when less than this is left of the limit: minor units of `currency`, or a number of payments for limits of a
    /// number. Needs `currency` and `types`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(max_items = 8)]
    pub remaining_below: Vec<u64>,
}

impl OwnThresholds {
    /// Whether it is about a limit of an account in the currency.
    #[must_use]
    pub fn names(&self, currency: &str, subject: Subject) -> bool {
        self.currency.as_ref().is_none_or(|own| own == currency)
            && self.types.as_ref().is_none_or(|types| types.contains(&subject))
    }

    fn check(&self, at: &str) -> Check {
        if let Some(currency) = &self.currency {
            Currency::parse(currency).map_err(|error| invalid(format!("{at}.currency"), error.to_string()))?;
        }
        if let Some(types) = &self.types {
            let field = format!("{at}.types");
            filled(&field, types.len(), TYPES_MAX)?;
            if let Some(index) = types.iter().position(|subject| !subject.has_thresholds()) {
                return Err(invalid(format!("{field}[{index}]"), "has no limit, and no thresholds"));
            }
        }
        Thresholds::new(self.percents.iter().copied())
            .map_err(|error| invalid(format!("{at}.percents"), error.to_string()))?;
        self.check_remaining(at)
    }

    fn check_remaining(&self, at: &str) -> Check {
        let field = format!("{at}.remaining_below");
        bounded(&field, self.remaining_below.len(), ENTRIES_MAX)?;
        if self.remaining_below.is_empty() {
            return Ok(());
        }
        let (Some(_), Some(types)) = (&self.currency, &self.types) else {
            return Err(invalid(field, "needs `currency` and `types`: it is in minor units, or a number of payments"));
        };
        if types.iter().any(|subject| subject.is_count()) && !types.iter().all(|subject| subject.is_count()) {
            return Err(invalid(field, "cannot be both an amount and a number of payments: give each its own list"));
        }
        let is_possible = |least: &u64| *least > 0 && *least < AmountMinor::MAX.get();
        if let Some(index) = self.remaining_below.iter().position(|least| !is_possible(least)) {
            return Err(invalid(format!("{field}[{index}]"), format!("must be from 1 and below {}", AmountMinor::MAX)));
        }
        Ok(())
    }
}

/// Checks the lists of a scope.
pub(crate) fn check_all(lists: &[OwnThresholds], scope: &Scope) -> Check {
    bounded("thresholds", lists.len(), LISTS_MAX)?;
    if *scope == Scope::Operators && !lists.is_empty() {
        return Err(invalid("thresholds", "are of merchants: operators are notified at those of the policies"));
    }
    lists.iter().enumerate().try_for_each(|(index, own)| own.check(&format!("thresholds[{index}]")))
}

/// The lists of each merchant that has any.
pub(crate) type OwnByMerchant = HashMap<String, Vec<OwnThresholds>>;

/// Reads the lists of some merchants.
pub(crate) async fn read<'a>(
    connection: &mut PgConnection,
    merchants: impl Iterator<Item = &'a str>,
) -> Result<OwnByMerchant, sqlx::Error> {
    let scopes: Vec<String> = merchants.map(|merchant| format!("merchant:{merchant}")).collect();
    let rows: Vec<(String, String)> = sqlx::query_as(READ).bind(scopes).fetch_all(connection).await?;
    let read = rows.into_iter().filter_map(|(merchant, lists)| match serde_json::from_str(&lists) {
        Ok(lists) => Some((merchant, lists)),
        Err(error) => {
            error!(merchant, %error, "own thresholds cannot be read: those of the policy count");
            None
        }
    });
    Ok(read.collect())
}
