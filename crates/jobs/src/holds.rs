//! Ends holds that were neither captured nor voided in time, in the way that each of them specifies.

use std::collections::BTreeMap;

use quota::{Code, Command, Order, OrderNo, Reply};

use super::apply::Failures;
use super::{COMMANDS_PER_CALL, Shutdown, SweepError, Task, Tools, request};
use sluice_decision::decider::{Decision, Prepared};
use sluice_decision::request::{Operation, Request};
use sluice_journal::history::{self, HistoryError};
use sluice_kit::clock;
use sluice_kit::metrics::signed;
use sluice_store::{DueHold, StoreError};

/// Script calls that one round makes for a shard; what is left then waits for the next round.
const CALLS_PER_SHARD: usize = 40;
const TASK: Task = Task { actor: "system:expiry", reason: "hold_expired" };

/// The result of a round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Holds whose quota was returned, wholly or for what was not captured.
    pub voided: u64,
    /// Holds that count as captured.
    pub settled: u64,
}

/// The sweep over open holds.
#[derive(Debug)]
pub struct HoldSweep {
    tools: Tools,
    /// The offset of the next round in a shard where one round does not see all due holds: behind those that could not be
    /// ended.
    left_off: BTreeMap<u16, usize>,
}

/// The state of a round.
#[derive(Debug)]
struct Round {
    now_ms: i64,
    ended: Ended,
    late_secs: u64,
    failures: Failures,
    /// Postgres gave no answer; every hold that needs one would wait as long for it.
    is_journal_away: bool,
}

impl Round {
    const fn now_secs(&self) -> u64 {
        self.now_ms.unsigned_abs() / 1000
    }
}

impl HoldSweep {
    /// A sweep.
    #[must_use]
    pub const fn new(tools: Tools) -> Self {
        Self { tools, left_off: BTreeMap::new() }
    }

    /// Ends the holds that are over at `now_ms`, milliseconds since the epoch. Servers begin at shards of their own, so that
    /// they do not all read the same holds; where they do, the store lets the first one end it.
    ///
    /// # Errors
    /// [`SweepError`] where the store gives no answer, or contains an unexpected value for an account or order; the other holds
    /// are ended.
    pub async fn round(&mut self, now_ms: i64, shutdown: &Shutdown) -> Result<Ended, SweepError> {
        let (ended, failures) = (Ended::default(), Failures::default());
        let mut round = Round { now_ms: now_ms.max(0), ended, late_secs: 0, failures, is_journal_away: false };
        let first = random_below(self.tools.shards);
        for shard in (first..self.tools.shards).chain(0..first) {
            // One shard's holds do not wait for another's, unless no shard can be reached.
            if let Err(error) = self.shard(shard, shutdown, &mut round).await {
                round.failures.add(error);
            }
            if round.failures.are_too_many() {
                break;
            }
        }
        self.tools.job_metrics.hold_lag_secs.set(signed(round.late_secs));
        round.failures.after(round.ended)
    }

    /// Ends holds of a shard. Those that cannot be ended stay at the beginning of the set: they are skipped, otherwise they
    /// would keep all later ones from ending.
    async fn shard(&mut self, shard: u16, shutdown: &Shutdown, round: &mut Round) -> Result<(), SweepError> {
        let mut passed = self.left_off.remove(&shard).unwrap_or_default();
        for _ in 0..CALLS_PER_SHARD {
            let range = passed..passed.saturating_add(COMMANDS_PER_CALL);
            let due = self.tools.store().due_holds(shard, round.now_secs(), range).await?;
            let oldest = due.holds.iter().map(|hold| u64::from(hold.until_secs)).min();
            let late_secs = oldest.map_or(0, |until_secs| round.now_secs().saturating_sub(until_secs));
            round.late_secs = round.late_secs.max(late_secs);
            let gone = self.end(due.holds, round).await?;
            if due.members < COMMANDS_PER_CALL || shutdown.is_requested() {
                return Ok(());
            }
            passed = passed.saturating_add(due.members.saturating_sub(gone));
        }
        self.left_off.insert(shard, passed);
        Ok(())
    }

    /// Ends holds of one shard; returns how many are not in its set any more.
    async fn end(&self, due: Vec<DueHold>, round: &mut Round) -> Result<usize, SweepError> {
        let mut batch = Vec::with_capacity(due.len());
        for hold in due {
            batch.extend(self.expiry(hold, round).await?);
        }
        let decisions = self.tools.decide_each(batch, &mut round.failures).await?;
        let mut gone = 0;
        for decision in decisions.iter().flatten() {
            if decision.reply.event_seq.is_some() {
                self.count(decision, &mut round.ended);
            }
            gone += usize::from(is_gone(&decision.reply));
        }
        Ok(gone)
    }

    /// Counts a hold that this server ended. Nothing is journalled where another server, a capture or a void came first.
    fn count(&self, decision: &Decision, ended: &mut Ended) {
        let settled = decision.reply.record.code == Code::Applied;
        let counter = if settled { &mut ended.settled } else { &mut ended.voided };
        *counter += 1;
        self.tools.job_metrics.hold_ended(settled);
    }

    /// The command that ends a hold; `None` where that cannot be yet.
    async fn expiry(&self, hold: DueHold, round: &mut Round) -> Result<Option<Prepared>, SweepError> {
        let DueHold { merchant, currency, order_no, .. } = hold;
        let in_force = self.tools.in_force(&merchant, currency, round.now_ms);
        let expire = Request { order_no: Some(order_no.clone()), ..request(merchant, currency, Operation::Expire) };
        let mut prepared = self.tools.prepare(expire, TASK, in_force, round.now_ms);
        match self.order_source(prepared.command(), &order_no, round.is_journal_away).await {
            Ok(OrderSource::Store) => {}
            Ok(OrderSource::Journal(history)) => prepared.command_mut().history = history.map(Box::new),
            Ok(OrderSource::NotQueried) => return Ok(None),
            Err(HistoryError::Store(error @ (StoreError::Timeout { .. } | StoreError::Unavailable(_)))) => {
                return Err(error.into());
            }
            Err(error) => {
                round.is_journal_away |= matches!(error, HistoryError::Database(_));
                let (merchant, is_journal_away) = (&prepared.command().merchant, round.is_journal_away);
                match is_journal_away {
                    true => tracing::debug!(%merchant, %order_no, %error, "a hold cannot be ended yet"),
                    false => tracing::warn!(%merchant, %order_no, %error, "a hold cannot be ended yet"),
                }
                return Ok(None);
            }
        }
        Ok(Some(prepared))
    }

    /// The order's history from the journal, where the store has evicted it: otherwise its quota would stay pending for ever.
    async fn order_source(
        &self,
        command: &Command,
        order_no: &OrderNo,
        is_journal_away: bool,
    ) -> Result<OrderSource, HistoryError> {
        let (pool, store) = (&self.tools.pool, self.tools.store());
        let Command { merchant, now_ms, order_ttl_secs, .. } = command;
        let stored = store.order(merchant, order_no).await?;
        if stored.is_some_and(|order| !order.is_forgotten(now_ms / 1000)) {
            return Ok(OrderSource::Store);
        }
        if is_journal_away {
            return Ok(OrderSource::NotQueried);
        }
        history::find_at(pool, store, merchant, order_no, *order_ttl_secs, *now_ms).await.map(OrderSource::Journal)
    }
}

/// Where a hold's order is.
enum OrderSource {
    /// The store has it.
    Store,
    /// In the journal, or nowhere.
    Journal(Option<Order>),
    /// The journal is not queried now.
    NotQueried,
}

/// Whether the hold's member has left the set: it was ended, or is not an open hold.
const fn is_gone(reply: &Reply) -> bool {
    reply.event_seq.is_some()
        || matches!(reply.record.code, Code::OrderUnknown | Code::OrderClosed | Code::IdempotencyConflict)
}

/// Any number below `bound`.
fn random_below(bound: u16) -> u16 {
    // The last two bytes of a version 7 UUID are random.
    let [.., high, low] = clock::decision_id();
    u16::from_be_bytes([high, low]) % bound.max(1)
}
