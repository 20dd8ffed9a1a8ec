//! Finds usage that crossed a threshold, up or down, without a payment: limits and thresholds change without one. Suspended
//! accounts are included. Then resolves the alerts that no account justifies.

use std::sync::Arc;

use chrono::DateTime;
use quota::{Currency, MerchantId, ThresholdPolicy};
use sluice_alerts::recount::{Recounted, recount};

use super::apply::Failures;
use super::roll::Rolled;
use super::{Shutdown, SweepError, Task, Tools};
use sluice_decision::decider::Prepared;
use sluice_journal::postgres::StoredAccount;
use sluice_kit::database::PgConnection;
use sluice_kit::database::leader::Leader;

/// Lets one server sweep at a time; any number that nothing else uses.
const SWEEP_LOCK: i64 = 0x51_75_6f_74_61_06;
const TASK: Task = Task { actor: "system:threshold", reason: "threshold_crossed" };

/// The sweep over thresholds.
#[derive(Debug)]
pub struct ThresholdSweep(Tools);

impl ThresholdSweep {
    /// A sweep.
    #[must_use]
    pub const fn new(tools: Tools) -> Self {
        Self(tools)
    }

    /// Updates the accounts' threshold levels to the limits of `now_ms`, milliseconds since the epoch. One server does it at a
    /// time.
    ///
    /// # Errors
    /// [`SweepError`] where Postgres or the store gives no answer, or contains an unexpected value for an account; the other
    /// accounts are done.
    pub async fn round(&self, now_ms: i64, shutdown: &Shutdown) -> Result<Rolled, SweepError> {
        let Some(mut leader) = Leader::elect(&self.0.pool, SWEEP_LOCK).await? else { return Ok(Rolled::ByAnother) };
        let mut updated = 0;
        let mut failures = Failures::default();
        let mut after = StoredAccount::default();
        while !shutdown.is_requested() && !failures.are_too_many() {
            let page = StoredAccount::page(&mut leader.connection, &after).await?;
            let Some(last) = page.last() else { break };
            after = last.clone();
            let commands = page.iter().filter_map(|stored| self.roll(stored, now_ms)).collect();
            let rolled = self.0.roll_each(commands, &mut failures).await;
            self.0.job_metrics.accounts_updated.inc_by(rolled);
            updated += rolled;
            self.recount(&mut leader.connection, page, now_ms).await?;
        }
        if !shutdown.is_requested() {
            self.0.end_orphans(&mut leader.connection, now_ms).await?;
        }
        leader.resign().await?;
        if updated > 0 {
            tracing::info!(accounts = updated, "accounts crossed a threshold without a payment");
        }
        failures.after(Rolled::Accounts(updated))
    }

    /// Raises and ends the alerts of merchants' own thresholds, by the limits of now.
    async fn recount(
        &self,
        connection: &mut PgConnection,
        page: Vec<StoredAccount>,
        now_ms: i64,
    ) -> Result<(), SweepError> {
        let recounted: Vec<Recounted> = page.into_iter().filter_map(|stored| self.recounted(stored, now_ms)).collect();
        let at = DateTime::from_timestamp_millis(now_ms).unwrap_or_default();
        recount(connection, &self.0.alert_metrics, &recounted, at).await?;
        Ok(())
    }

    /// An account with the limits in force; `None` where these are unknown.
    fn recounted(&self, stored: StoredAccount, now_ms: i64) -> Option<Recounted> {
        let (merchant, currency) =
            (MerchantId::parse(&stored.merchant_id).ok()?, Currency::parse(&stored.currency).ok()?);
        match self.0.in_force(&merchant, currency, now_ms).policy {
            Some(policy) => {
                let windows = policy.windows_at(now_ms);
                // Without thresholds it stands in for a policy that could not be fetched.
                let limits = policy.threshold_policy.clone()?;
                Some(Recounted::limits(stored, Some((limits, windows))))
            }
            None => self.0.decider.policies().any().then(|| Recounted::limits(stored, None)),
        }
    }

    /// The command that updates an account's levels; `None` where they are right, or where that is unknown.
    fn roll(&self, stored: &StoredAccount, now_ms: i64) -> Option<Prepared> {
        let mut prepared = self.0.roll(&stored.merchant_id, &stored.currency, TASK, now_ms)?;
        if prepared.in_force.policy.is_none() && self.0.decider.policies().any() {
            // An account that has no policy any more has no limit to be near.
            prepared.command_mut().threshold_policy = Some(Arc::new(ThresholdPolicy::NOTHING));
        }
        let command = prepared.command();
        let account = stored.account().rolled(command.windows);
        let has_new_levels =
            command.threshold_policy.as_ref().is_some_and(|policy| policy.levels(&account) != account.levels);
        has_new_levels.then_some(prepared)
    }
}
