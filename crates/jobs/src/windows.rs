//! Closes the windows of accounts without a command since they were over, so that their last usage is recorded too.

use quota::Calendar;

use super::apply::Failures;
use super::roll::Rolled;
use super::{Shutdown, SweepError, Task, Tools};
use sluice_decision::decider::Prepared;
use sluice_journal::postgres::{AccountsAhead, OpenAccount};
use sluice_kit::database::leader::Leader;

/// Lets one server sweep at a time; any number that nothing else uses.
const SWEEP_LOCK: i64 = 0x51_75_6f_74_61_03;
const TASK: Task = Task { actor: "system:window", reason: "window_closed" };

/// The sweep over accounts.
#[derive(Debug)]
pub struct WindowSweep(Tools);

impl WindowSweep {
    /// A sweep.
    #[must_use]
    pub const fn new(tools: Tools) -> Self {
        Self(tools)
    }

    /// Closes the windows that are over at `now_ms`, milliseconds since the epoch, in the account's calendar. One server does
    /// it at a time.
    ///
    /// # Errors
    /// [`SweepError`] where Postgres or the store gives no answer, or contains an unexpected value for an account; the other
    /// windows are closed.
    pub async fn round(&self, now_ms: i64, shutdown: &Shutdown) -> Result<Rolled, SweepError> {
        let Some(mut leader) = Leader::elect(&self.0.pool, SWEEP_LOCK).await? else { return Ok(Rolled::ByAnother) };
        let mut closed = 0;
        let mut failures = Failures::default();
        let mut after = OpenAccount::default();
        while !shutdown.is_requested() && !failures.are_too_many() {
            let page = OpenAccount::page(&mut leader.connection, &after, latest_day(now_ms)).await?;
            let Some(last) = page.last() else { break };
            after = last.clone();
            let commands = page.iter().filter_map(|candidate| self.roll(candidate, now_ms)).collect();
            let rolled = self.0.roll_each(commands, &mut failures).await;
            self.0.job_metrics.accounts_closed.inc_by(rolled);
            closed += rolled;
        }
        let ahead = AccountsAhead::of(&mut leader.connection, latest_day(now_ms)).await?;
        self.log_ahead(&ahead);
        leader.resign().await?;
        if closed > 0 {
            tracing::info!(accounts = closed, "windows of accounts without traffic were closed");
        }
        failures.after(Rolled::Accounts(closed))
    }

    /// Logs that accounts are in windows that have not begun, once for each number of them.
    fn log_ahead(&self, ahead: &AccountsAhead) {
        let is_news = self.0.job_metrics.set_accounts_ahead(ahead.accounts.unsigned_abs());
        if is_news && ahead.accounts > 0 {
            let AccountsAhead { accounts, merchant_id, day } = ahead;
            tracing::warn!(
                accounts,
                merchant_id,
                day,
                "accounts are in a window that has not begun, because a server's clock was ahead: a reset brings each of them back"
            );
        }
    }

    /// The command that closes an account's windows; `None` where they are not over, or no policy gives the calendar.
    fn roll(&self, candidate: &OpenAccount, now_ms: i64) -> Option<Prepared> {
        let prepared = self.0.roll(&candidate.merchant_id, &candidate.currency, TASK, now_ms)?;
        let is_over = i64::from(prepared.command().windows.ids.day) > i64::from(candidate.open_until);
        (prepared.in_force.policy.is_some() && is_over).then_some(prepared)
    }
}

fn latest_day(now_ms: i64) -> i32 {
    i32::try_from(Calendar::latest_day_at(now_ms)).unwrap_or(i32::MAX)
}
