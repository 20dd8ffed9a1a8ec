//! The policy service's answer, and whether it may be used.

use chrono::{DateTime, Utc};
use quota::{Limits, Policy, TextError, document_text};
use serde::Deserialize;
use sluice_policy::{PolicyFields, Span, ZoneSource};
use thiserror::Error;

use super::Account;
use crate::postgres::checks::span;
use crate::postgres::model::{ALL_CHANNELS, LimitsAnswer, PolicyStatus};
use crate::postgres::of_policy;
use sluice_kit::clock;
use sluice_kit::database::change::ChangeError;

/// Why an answer is not used.
#[derive(Debug, Error)]
pub(super) enum AnswerError {
    #[error("it {0}")]
    Text(#[from] TextError),
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
    #[error("it is for another account: `{field}` is '{found}'")]
    Foreign { field: &'static str, found: String },
    #[error("its {0}")]
    Field(ChangeError),
    #[error("it is not in force")]
    NotInForce,
    #[error("it names no limit that payments count against")]
    EnforcesNothing,
}

/// An answer. Unknown fields are ignored.
#[derive(Debug, Deserialize)]
pub(super) struct Answer {
    merchant_id: Option<String>,
    currency: Option<String>,
    channel: Option<String>,
    status: Option<PolicyStatus>,
    effective_date: Option<DateTime<Utc>>,
    expiry_date: Option<DateTime<Utc>>,
    /// The other names of `single_trans_min` and `single_trans_max`.
    single_min: Option<u64>,
    single_max: Option<u64>,
    #[serde(flatten)]
    limits: LimitsAnswer,
}

impl Answer {
    pub(super) fn read(body: &[u8]) -> Result<Self, AnswerError> {
        Ok(serde_json::from_str(document_text(body)?)?)
    }

    /// The policy, where it is for the requested account and in force.
    pub(super) fn policy(
        mut self,
        account: &Account,
        body: &[u8],
        zones: &dyn ZoneSource,
    ) -> Result<Policy, AnswerError> {
        self.check_account(account)?;
        let Span { from_ms, until_ms } = span(self.effective_date, self.expiry_date).map_err(AnswerError::Field)?;
        let now_ms = clock::now_ms();
        if self.status.is_some_and(|status| status != PolicyStatus::Active) || !(from_ms <= now_ms && now_ms < until_ms)
        {
            return Err(AnswerError::NotInForce);
        }
        self.limits.single_trans_min = self.limits.single_trans_min.or(self.single_min);
        self.limits.single_trans_max = self.limits.single_trans_max.or(self.single_max);
        let fields: PolicyFields = self.limits.fields().map_err(AnswerError::Field)?;
        // It is about one merchant.
        fields.check_for_some("").map_err(|error| AnswerError::Field(of_policy(error)))?;
        if account.channel.is_some() && self.channel.as_deref() != Some(ALL_CHANNELS) {
            check_of_account(&fields)?;
        }
        let version = format!("service:{:08x}", xxhash_rust::xxh3::xxh3_64(body) >> 32);
        let policy = fields.alone(&version, zones).map_err(|error| AnswerError::Field(of_policy(error)))?;
        // A channel may count in number only: then the answer for all channels enforces the amounts.
        let names_limit = account.channel.is_some() && policy.limits != Limits::UNLIMITED;
        if policy.enforces() || names_limit { Ok(policy) } else { Err(AnswerError::EnforcesNothing) }
    }

    /// The account in the answer must be the requested one.
    fn check_account(&self, account: &Account) -> Result<(), AnswerError> {
        let channel = account.channel.as_ref().map_or(ALL_CHANNELS, |channel| channel.as_str());
        // A policy for all channels is valid for each of them.
        let of_all = self.channel.as_deref() == Some(ALL_CHANNELS);
        let given = [
            ("merchant_id", &self.merchant_id, account.merchant.as_str()),
            ("currency", &self.currency, account.currency.code()),
            ("channel", &self.channel, if of_all { ALL_CHANNELS } else { channel }),
        ];
        for (field, found, expected) in given {
            if let Some(found) = found.as_ref().filter(|found| *found != expected) {
                let found = found.chars().take(100).collect();
                return Err(AnswerError::Foreign { field, found });
            }
        }
        Ok(())
    }
}

/// Counters and rights are the account's, so all its channels share the windows, the thresholds and trust: only its answer for all
/// channels may set them.
fn check_of_account(fields: &PolicyFields) -> Result<(), AnswerError> {
    let given = [
        ("timezone", fields.timezone.is_some()),
        ("cutoff_hour", fields.cutoff_hour.is_some()),
        ("week_starts_on", fields.week_starts_on.is_some()),
        ("thresholds", fields.thresholds.is_some()),
        ("trust", fields.trust.is_some()),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((field, _)) => {
            let problem = "cannot differ by channel; give it in the answer for all channels";
            Err(AnswerError::Field(ChangeError::Invalid { field: field.to_owned(), problem: problem.to_owned() }))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
