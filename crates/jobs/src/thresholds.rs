//! Finds usage that is across a threshold, or below one again, though no payment took it there: limits and thresholds change
//! without one. A suspended account is looked at like any other. Then come the alerts that no account bears out.

use std::sync::Arc;

use quota::Watch;

use super::apply::Failures;
use super::roll::Rolled;
use super::{Shutdown, SweepError, Task, Tools};
use sluice_decision::decider::Prepared;
use sluice_journal::postgres::StoredAccount;

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

    /// Brings the accounts' thresholds in line with the limits of `now_ms`, milliseconds since the epoch. One server does it at
    /// a time.
    ///
    /// # Errors
    /// [`SweepError`] where Postgres or the store gives no answer, or holds something else for an account; what else could be
    /// done is.
    pub async fn round(&self, now_ms: i64, shutdown: &Shutdown) -> Result<Rolled, SweepError> {
        let Some(mut turn) = self.0.turn(SWEEP_LOCK).await? else { return Ok(Rolled::ByAnother) };
        let mut marked = 0;
        let mut failures = Failures::default();
        let mut after = StoredAccount::default();
        while !shutdown.is_asked() && !failures.are_too_many() {
            let page = StoredAccount::page(&mut turn.connection, &after).await?;
            let Some(last) = page.last() else { break };
            after = last.clone();
            let commands = page.iter().filter_map(|stored| self.roll(stored, now_ms)).collect();
            let rolled = self.0.roll_each(commands, &mut failures).await;
            self.0.figures.accounts_marked(rolled);
            marked += rolled;
        }
        if !shutdown.is_asked() {
            self.0.end_orphans(&mut turn.connection, now_ms).await?;
        }
        turn.end().await?;
        if marked > 0 {
            tracing::info!(accounts = marked, "usage of accounts was found across a threshold without a payment");
        }
        failures.after(Rolled::Accounts(marked))
    }

    /// The command that marks an account anew; `None` where its marks are right, or nobody knows what is.
    fn roll(&self, stored: &StoredAccount, now_ms: i64) -> Option<Prepared> {
        let mut prepared = self.0.roll(&stored.merchant_id, &stored.currency, TASK, now_ms)?;
        let command = &mut prepared.command;
        if prepared.policy.is_none() && self.0.decider.policies().any() {
            // An account that has no policy any more has no limit that it could be near.
            command.watch = Some(Arc::new(Watch::NOTHING));
        }
        let account = stored.account().rolled(command.windows);
        let is_to_be_marked = command.watch.as_ref().is_some_and(|watch| watch.marks(&account) != account.marks);
        is_to_be_marked.then_some(prepared)
    }
}
