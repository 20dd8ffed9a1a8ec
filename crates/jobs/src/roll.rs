//! What the sweeps over accounts share: one server at a time reads them from Postgres, and asks the store to roll those that
//! need it.

use std::collections::BTreeMap;
use std::sync::Arc;

use quota::{Action, Command, Currency, MerchantId, Policy, shard_of};
use sqlx::postgres::PgConnection;

use super::apply::Failures;
use super::{COMMANDS_PER_CALL, SweepError, Target, Tools};
use sluice_store::Notes;

/// Accounts that are read at once.
pub(super) const ACCOUNTS_PER_PAGE: i64 = 1_000;

/// What a round did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rolled {
    /// So many accounts changed.
    Accounts(u64),
    /// Another server is at it.
    ByAnother,
}

/// The turn of the one server that sweeps: it ends with its connection, where the round breaks off.
pub(super) struct Turn {
    pub(super) connection: PgConnection,
    lock: i64,
}

impl Turn {
    /// Gives the turn back. Postgres notices the end of a connection some time after it: a round that began at once would find
    /// the lock taken.
    pub(super) async fn end(mut self) -> Result<(), sqlx::Error> {
        sqlx::query("SELECT pg_advisory_unlock($1)").bind(self.lock).execute(&mut self.connection).await?;
        sqlx::Connection::close(self.connection).await
    }
}

impl Tools {
    /// `None` while another server has the turn.
    pub(super) async fn turn(&self, lock: i64) -> Result<Option<Turn>, sqlx::Error> {
        let mut connection = self.pool.acquire().await?.detach();
        let taken = sqlx::query_scalar("SELECT pg_try_advisory_lock($1)").bind(lock);
        Ok(if taken.fetch_one(&mut connection).await? { Some(Turn { connection, lock }) } else { None })
    }

    /// The policy of an account and the command that rolls it; `None` for what is no account.
    pub(super) async fn roll(&self, merchant_id: &str, currency: &str, now_ms: i64) -> Option<Roll> {
        let (merchant, currency) = (MerchantId::parse(merchant_id).ok()?, Currency::parse(currency).ok()?);
        let policy = self.policy(&merchant, currency, now_ms).await;
        let target = Target { merchant, currency, order_no: None };
        let command = self.command(target, Action::Roll, policy.as_deref(), now_ms);
        Some(Roll { command, policy })
    }

    /// Applies the commands; gives how many changed their account.
    pub(super) async fn roll_each(&self, commands: Vec<(Command, Notes)>, failures: &mut Failures) -> u64 {
        let mut by_shard: BTreeMap<u16, Vec<(Command, Notes)>> = BTreeMap::new();
        for (command, notes) in commands {
            by_shard.entry(shard_of(&command.merchant, self.shards)).or_default().push((command, notes));
        }
        let mut rolled = 0;
        for batch in by_shard.values().flat_map(|commands| commands.chunks(COMMANDS_PER_CALL)) {
            if failures.are_too_many() {
                break;
            }
            match self.apply_each(batch, failures).await {
                Ok(replies) => {
                    let replies = batch.iter().zip(replies).filter_map(|((command, _), reply)| Some((command, reply?)));
                    for (command, reply) in replies.filter(|(_, reply)| reply.event_seq.is_some()) {
                        self.metrics.decision(command.action.as_str(), reply.record.code, reply.record.replay);
                        rolled += 1;
                    }
                }
                Err(error) => failures.add(SweepError::from(error)),
            }
        }
        rolled
    }
}

/// A command that rolls an account, and the policy that it is made by.
pub(super) struct Roll {
    pub(super) command: Command,
    pub(super) policy: Option<Arc<Policy>>,
}
