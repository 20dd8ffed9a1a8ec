//! Shared by the sweeps over accounts: one server at a time reads them from Postgres, and the store rolls those that need it.

use std::collections::BTreeMap;

use quota::{Currency, MerchantId, shard_of};

use super::apply::Failures;
use super::{COMMANDS_PER_CALL, SweepError, Task, Tools, request};
use sluice_decision::decider::{Decision, Prepared};
use sluice_decision::request::Operation;

/// The result of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rolled {
    /// So many accounts changed.
    Accounts(u64),
    /// Another server is sweeping.
    ByAnother,
}

impl Tools {
    /// The command that rolls an account; `None` for an invalid account.
    pub(super) fn roll(&self, merchant_id: &str, currency: &str, task: Task, now_ms: i64) -> Option<Prepared> {
        let (merchant, currency) = (MerchantId::parse(merchant_id).ok()?, Currency::parse(currency).ok()?);
        let in_force = self.in_force(&merchant, currency, now_ms);
        Some(self.prepare(request(merchant, currency, Operation::Roll), task, in_force, now_ms))
    }

    /// Decides the commands; returns how many changed their account.
    pub(super) async fn roll_each(&self, commands: Vec<Prepared>, failures: &mut Failures) -> u64 {
        let mut by_shard: BTreeMap<u16, Vec<Prepared>> = BTreeMap::new();
        for prepared in commands {
            by_shard.entry(shard_of(&prepared.command().merchant, self.shards)).or_default().push(prepared);
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
