//! Closes the windows of accounts without a command since they were over, so that their last usage is recorded too.

use quota::Calendar;
use sqlx::postgres::PgConnection;

use super::apply::Failures;
use super::roll::{ACCOUNTS_PER_PAGE, Rolled};
use super::{Shutdown, SweepError, Task, Tools};
use sluice_decision::decider::Prepared;
use sluice_kit::database::leader::Leader;

/// Lets one server sweep at a time; any number that nothing else uses.
const SWEEP_LOCK: i64 = 0x51_75_6f_74_61_03;
const TASK: Task = Task { actor: "system:window", reason: "window_closed" };

/// The sweep over accounts.
#[derive(Debug)]
pub struct WindowSweep(Tools);

/// An account whose windows may be over.
#[derive(Clone, Debug, sqlx::FromRow)]
struct Candidate {
    open_until: i32,
    merchant_id: String,
    currency: String,
}

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
        let mut after = Candidate { open_until: 0, merchant_id: String::new(), currency: String::new() };
        while !shutdown.is_requested() && !failures.are_too_many() {
            let page = page(&mut leader.connection, &after, now_ms).await?;
            let Some(last) = page.last() else { break };
            after = last.clone();
            let commands = page.iter().filter_map(|candidate| self.roll(candidate, now_ms)).collect();
            let rolled = self.0.roll_each(commands, &mut failures).await;
            self.0.job_metrics.accounts_closed(rolled);
            closed += rolled;
        }
        let ahead = ahead(&mut leader.connection, now_ms).await?;
        self.tell_ahead(&ahead);
        leader.resign().await?;
        if closed > 0 {
            tracing::info!(accounts = closed, "windows of accounts without traffic were closed");
        }
        failures.after(Rolled::Accounts(closed))
    }

    /// Logs that accounts are in windows that have not begun, once for each number of them.
    fn tell_ahead(&self, ahead: &Ahead) {
        let is_news = self.0.decider.metrics().set_accounts_ahead(ahead.accounts.unsigned_abs());
        if is_news && ahead.accounts > 0 {
            let Ahead { accounts, merchant_id, day } = ahead;
            tracing::warn!(
                accounts,
                merchant_id,
                day,
                "accounts are in a window that has not begun, because a server's clock was ahead: a reset brings each of them back"
            );
        }
    }

    /// The command that closes an account's windows; `None` where they are not over, or no policy gives the calendar.
    fn roll(&self, candidate: &Candidate, now_ms: i64) -> Option<Prepared> {
        let prepared = self.0.roll(&candidate.merchant_id, &candidate.currency, TASK, now_ms)?;
        let is_over = i64::from(prepared.command.windows.ids.day) > i64::from(candidate.open_until);
        (prepared.policy.is_some() && is_over).then_some(prepared)
    }
}

/// Accounts in a day that has begun nowhere.
#[derive(Debug, sqlx::FromRow)]
struct Ahead {
    accounts: i64,
    /// One of them, and the latest day.
    merchant_id: Option<String>,
    day: Option<i32>,
}

async fn ahead(connection: &mut PgConnection, now_ms: i64) -> Result<Ahead, sqlx::Error> {
    let statement = "SELECT count(*) AS accounts, min(merchant_id) AS merchant_id, max(daily_window) AS day \
        FROM quota_account WHERE daily_window > $1";
    sqlx::query_as(statement).bind(latest_day(now_ms)).fetch_one(connection).await
}

fn latest_day(now_ms: i64) -> i32 {
    i32::try_from(Calendar::latest_day_at(now_ms)).unwrap_or(i32::MAX)
}

/// The next accounts that have counted something in a window that is over in some zone.
async fn page(connection: &mut PgConnection, after: &Candidate, now_ms: i64) -> Result<Vec<Candidate>, sqlx::Error> {
    let statement = "SELECT open_until, merchant_id, currency::text AS currency FROM quota_account \
        WHERE open_until < $1 AND (open_until, merchant_id, currency) > ($2, $3, $4::text::char(3)) \
        ORDER BY open_until, merchant_id, currency LIMIT $5";
    sqlx::query_as(statement)
        .bind(latest_day(now_ms))
        .bind(after.open_until)
        .bind(&after.merchant_id)
        .bind(&after.currency)
        .bind(ACCOUNTS_PER_PAGE)
        .fetch_all(connection)
        .await
}
