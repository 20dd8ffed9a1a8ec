//! Closes the windows of accounts that saw no command since they were over, so that their last figures are recorded too.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use quota::{Action, Calendar, Command, Currency, MerchantId, Reply, shard_of};
use sqlx::postgres::PgConnection;

use super::apply::Failures;
use super::{COMMANDS_PER_CALL, Shutdown, SweepError, Target, Tools, notes};
use crate::store::Notes;

/// Accounts that are read at once.
const ACCOUNTS_PER_PAGE: i64 = 1_000;
/// Lets one server sweep at a time; any number that nothing else uses.
const SWEEP_LOCK: i64 = 0x51_75_6f_74_61_03;
/// No zone's clock is further ahead of UTC: a later day than its is over nowhere.
const AHEAD_MAX: TimeDelta = TimeDelta::hours(14);
/// Who the journal says asked, and why.
const ACTOR: &str = "system:window";
const REASON: &str = "window_closed";

/// What a round did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    /// So many accounts had windows to close.
    Accounts(u64),
    /// Another server is at it.
    ByAnother,
}

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
    /// [`SweepError`] where Postgres or the store gives no answer, or holds something else for an account; what else could be
    /// closed is.
    pub async fn round(&self, now_ms: i64, shutdown: &Shutdown) -> Result<Closed, SweepError> {
        // The lock goes with the connection, where the round breaks off.
        let mut connection = self.0.pool.acquire().await?.detach();
        let lock = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(SWEEP_LOCK);
        if !lock.fetch_one(&mut connection).await? {
            return Ok(Closed::ByAnother);
        }
        let mut closed = 0;
        let mut failures = Failures::default();
        let mut after = Candidate { open_until: 0, merchant_id: String::new(), currency: String::new() };
        while !shutdown.is_asked() && !failures.are_too_many() {
            let page = page(&mut connection, &after, now_ms).await?;
            let Some(last) = page.last() else { break };
            after = last.clone();
            closed += self.close(&page, now_ms, &mut failures).await;
        }
        // Postgres notices the end of a connection some time after it: a round that began at once would find the lock taken.
        sqlx::query("SELECT pg_advisory_unlock($1)").bind(SWEEP_LOCK).execute(&mut connection).await?;
        sqlx::Connection::close(connection).await?;
        if closed > 0 {
            tracing::info!(accounts = closed, "windows of accounts without traffic were closed");
        }
        failures.after(Closed::Accounts(closed))
    }

    /// Gives how many accounts had windows to close.
    async fn close(&self, page: &[Candidate], now_ms: i64, failures: &mut Failures) -> u64 {
        let mut by_shard: BTreeMap<u16, Vec<(Command, Notes)>> = BTreeMap::new();
        for candidate in page {
            if let Some((command, notes)) = self.roll(candidate, now_ms).await {
                by_shard.entry(shard_of(&command.merchant, self.0.shards)).or_default().push((command, notes));
            }
        }
        let mut closed = 0;
        for batch in by_shard.values().flat_map(|commands| commands.chunks(COMMANDS_PER_CALL)) {
            if failures.are_too_many() {
                break;
            }
            match self.0.apply_each(batch, failures).await {
                Ok(replies) => closed += self.count(batch, &replies),
                Err(error) => failures.add(error.into()),
            }
        }
        closed
    }

    /// Gives how many accounts' windows were closed by these replies.
    fn count(&self, batch: &[(Command, Notes)], replies: &[Option<Reply>]) -> u64 {
        let replies = batch.iter().zip(replies).filter_map(|((command, _), reply)| Some((command, reply.as_ref()?)));
        let mut closed = 0;
        for (command, reply) in replies.filter(|(_, reply)| reply.event_seq.is_some()) {
            self.0.metrics.decision(command.action.as_str(), reply.record.code, reply.record.replay);
            self.0.metrics.sweep.account_closed();
            closed += 1;
        }
        closed
    }

    /// The command that closes an account's windows; `None` where they are not over, or no policy says whose calendar counts.
    async fn roll(&self, candidate: &Candidate, now_ms: i64) -> Option<(Command, Notes)> {
        let merchant = MerchantId::parse(&candidate.merchant_id).ok()?;
        let currency = Currency::parse(&candidate.currency).ok()?;
        let policy = self.0.policy(&merchant, currency, now_ms).await?;
        let target = Target { merchant, currency, order_no: None };
        let command = self.0.command(target, Action::Roll, Some(&policy), now_ms);
        let is_over = i64::from(command.windows.day) > i64::from(candidate.open_until);
        is_over.then(|| (command, notes(ACTOR, REASON, Some(&policy))))
    }
}

/// The next accounts that have counted something in a window that is over in some zone.
async fn page(connection: &mut PgConnection, after: &Candidate, now_ms: i64) -> Result<Vec<Candidate>, sqlx::Error> {
    let statement = "SELECT open_until, merchant_id, currency::text AS currency FROM quota_account \
        WHERE open_until < $1 AND (open_until, merchant_id, currency) > ($2, $3, $4::text::char(3)) \
        ORDER BY open_until, merchant_id, currency LIMIT $5";
    let latest_day = Calendar::UTC.windows_at(now_ms.saturating_add(AHEAD_MAX.num_milliseconds())).day;
    sqlx::query_as(statement)
        .bind(i32::try_from(latest_day).unwrap_or(i32::MAX))
        .bind(after.open_until)
        .bind(&after.merchant_id)
        .bind(&after.currency)
        .bind(ACCOUNTS_PER_PAGE)
        .fetch_all(connection)
        .await
}
