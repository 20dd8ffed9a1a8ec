//! Rights that no holder has returned: records those whose holder is lost, ends those whose windows are all over, and shows what is
//! outstanding.

use std::collections::BTreeMap;

use quota::{Action, ReleaseRight, Share};
use tracing::warn;

use super::apply::Failures;
use super::{COMMANDS_PER_CALL, Shutdown, SweepError, Task, Tools, request};
use sluice_decision::decider::Prepared;
use sluice_decision::request::Operation;
use sluice_kit::metrics::signed;
use sluice_store::OutstandingRight;

/// How long after its end a right is returned at the latest: its holder's last reports are on their way for as long.
pub const LOST_AFTER_MS: u64 = 60_000;
/// Accounts with a series of their own.
const ACCOUNTS_SHOWN: usize = 20;
const TASK: Task = Task { actor: "system:rights", reason: "holder_lost" };
const WINDOWS_OVER: Task = Task { actor: "system:rights", reason: "windows_over" };

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Rights whose holder is lost.
    pub orphaned: u64,
    /// Rights that were ended because all of their windows are over.
    pub ended: u64,
}

/// What is outstanding.
#[derive(Debug, Default)]
struct Outstanding {
    accounts: BTreeMap<(String, &'static str), Share>,
    orphaned: Share,
}

impl Outstanding {
    fn add(&mut self, own: &OutstandingRight) {
        let OutstandingRight { merchant, currency, right, .. } = own;
        let account = self.accounts.entry((merchant.to_string(), currency.code())).or_default();
        account.amount = account.amount.saturating_add(right.left.amount);
        account.count = account.count.saturating_add(1);
        if right.orphaned {
            self.orphaned.amount = self.orphaned.amount.saturating_add(right.left.amount);
            self.orphaned.count = self.orphaned.count.saturating_add(1);
        }
    }
}

/// The sweep over rights.
#[derive(Debug)]
pub struct RightSweep {
    tools: Tools,
}

impl RightSweep {
    /// A sweep.
    #[must_use]
    pub const fn new(tools: Tools) -> Self {
        Self { tools }
    }

    /// Looks at every right, at `now_ms`, milliseconds since the epoch. Several servers may: the store records each loss once.
    ///
    /// # Errors
    /// [`SweepError`] where the store gives no answer; the other shards are looked at.
    pub async fn round(&self, now_ms: i64, shutdown: &Shutdown) -> Result<Swept, SweepError> {
        let (mut swept, mut outstanding, mut failures) =
            (Swept::default(), Outstanding::default(), Failures::default());
        for shard in 0..self.tools.shards {
            if shutdown.is_requested() || failures.are_too_many() {
                break;
            }
            if let Err(error) = self.shard(shard, now_ms, &mut swept, &mut outstanding, &mut failures).await {
                failures.add(error);
            }
        }
        let result = failures.after(swept);
        if result.is_ok() {
            self.show(outstanding);
        }
        result
    }

    async fn shard(
        &self,
        shard: u16,
        now_ms: i64,
        swept: &mut Swept,
        outstanding: &mut Outstanding,
        failures: &mut Failures,
    ) -> Result<(), SweepError> {
        // All of them: those that are orphaned stay, and come before the ones of later holders.
        for from in (0..).step_by(COMMANDS_PER_CALL) {
            let found = self.tools.store().rights(shard, from..from.saturating_add(COMMANDS_PER_CALL)).await?;
            let mut batch = Vec::new();
            for own in &found.rights {
                outstanding.add(own);
                batch.extend(self.due(own, now_ms));
            }
            for decision in self.tools.decide_each(batch, failures).await?.iter().flatten() {
                if decision.reply.event_seq.is_none() {
                    continue;
                }
                let command = decision.command();
                if matches!(command.action, Action::OrphanRight(_)) {
                    let (merchant, currency) = (&command.merchant, command.currency);
                    let amount_minor = decision.reply.record.amount;
                    warn!(%merchant, %currency, amount_minor, "a right was not returned: its holder is lost, and what it has not reported stays consumed");
                    swept.orphaned += 1;
                } else {
                    swept.ended += 1;
                }
            }
            if found.members < COMMANDS_PER_CALL {
                return Ok(());
            }
        }
        Ok(())
    }

    /// What is to be done about a right, if anything.
    fn due(&self, own: &OutstandingRight, now_ms: i64) -> Option<Prepared> {
        let OutstandingRight { merchant, currency, id, right } = own;
        if right.until_ms.saturating_add(LOST_AFTER_MS) > now_ms.max(0).unsigned_abs() {
            return None;
        }
        let in_force = self.tools.in_force(merchant, *currency, now_ms);
        // None that is open counts it any more: a week may be of two years.
        let is_over = in_force.policy.as_ref().is_some_and(|policy| {
            let ids = policy.windows_at(now_ms).ids;
            ids.year > right.counted_in.year.id && ids.week > right.counted_in.week.id
        });
        let (task, operation) = if is_over && right.orphaned {
            (WINDOWS_OVER, Operation::ReleaseRight(ReleaseRight { right: *id, by_holder: false }))
        } else if right.orphaned {
            return None;
        } else {
            (TASK, Operation::OrphanRight(*id))
        };
        Some(self.tools.prepare(request(merchant.clone(), *currency, operation), task, in_force, now_ms))
    }

    fn show(&self, outstanding: Outstanding) {
        let metrics = &self.tools.job_metrics;
        let all = |of: fn(&Share) -> u64| outstanding.accounts.values().map(of).fold(0, u64::saturating_add);
        metrics.rights.set(signed(all(|share| share.count)));
        metrics.rights_orphaned.set(signed(outstanding.orphaned.count));
        let mut accounts: Vec<_> = outstanding.accounts.into_iter().collect();
        accounts.sort_by_key(|(_, share)| std::cmp::Reverse(share.amount));
        metrics.rights_amount.clear();
        for ((merchant, currency), share) in accounts.into_iter().take(ACCOUNTS_SHOWN) {
            metrics
                .rights_amount
                .of([merchant.into(), currency.into()] as [std::borrow::Cow<'static, str>; 2])
                .set(signed(share.amount));
        }
    }
}
