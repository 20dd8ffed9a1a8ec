//! Shared by the sweeps over accounts: one server at a time reads them from Postgres, and the store rolls those that need it.

use std::collections::BTreeMap;

use quota::{Currency, MerchantId, shard_of};
use sqlx::postgres::PgConnection;

use super::apply::Failures;
use super::{COMMANDS_PER_CALL, SweepError, Task, Tools, request};
use sluice_decision::decider::{Decision, Prepared};
use sluice_decision::request::Operation;

/// Accounts per page.
pub(super) const ACCOUNTS_PER_PAGE: i64 = 1_000;

/// The result of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rolled {
    /// So many accounts changed.
    Accounts(u64),
    /// Another server is sweeping.
    ByAnother,
}

/// The lock of the one server that sweeps: it ends with its connection, where the round breaks off.
pub(super) struct Turn {
    pub(super) connection: PgConnection,
    lock: i64,
}

impl Turn {
    /// Releases the lock. Postgres notices the end of a connection some time after it: a round that began at once would find
    /// the lock taken.
    pub(super) async fn end(mut self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_advisory_unlock($1)").bind(self.lock).execute(&mut self.connection).await?;
        sqlx::Connection::close(self.connection).await
    }
}

impl Tools {
    /// `None` while another server has the lock.
    pub(super) async fn turn(&self, lock: i64) -> Result<Option<Turn>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?.detach();
        let taken = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(lock);
        Ok(if taken.fetch_one(&mut connection).await? { Some(Turn { connection, lock }) } else { None })
    }

    /// The command that rolls an account; `None` for an invalid account.
    pub(super) fn roll(&self, merchant_id: &str, currency: &str, task: Task, now_ms: i64) -> Option<Prepared> {
        let (merchant, currency) = (MerchantId::parse(merchant_id).ok()?, Currency::parse(currency).ok()?);
        let policy = self.policy(&merchant, currency, now_ms);
        Some(self.prepare(request(merchant, currency, Operation::Roll), task, policy, now_ms))
    }

    /// Decides the commands; returns how many changed their account.
    pub(super) async fn roll_each(&self, commands: Vec<Prepared>, failures: &mut Failures) -> u64 {
        let mut by_shard: BTreeMap<u16, Vec<Prepared>> = BTreeMap::new();
        for prepared in commands {
            by_shard.entry(shard_of(&prepared.command.merchant, self.shards)).or_default().push(prepared);
        }
        let mut rolled = 0;
        for mut commands in by_shard.into_values() {
            while !commands.is_empty() && !failures.are_too_many() {
                let later = commands.split_off(COMMANDS_PER_CALL.min(commands.len()));
                let batch = std::mem::replace(&mut commands, later);
                match self.decide_each(batch, failures).await {
                    Ok(decisions) => {
                        let changed = |decision: &Decision| decision.reply.event_seq.is_some();
                        rolled += decisions.iter().flatten().filter(|decision| changed(decision)).count() as u64;
                    }
                    Err(error) => failures.add(SweepError::from(error)),
                }
            }
        }
        rolled
    }
}
