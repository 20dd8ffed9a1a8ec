//! Ends holds that nobody captured or voided in their time, in the way that each of them says.

use quota::{Action, Code, Command, Order, OrderNo};

use super::{COMMANDS_PER_CALL, Shutdown, SweepError, Target, Tools, notes};
use crate::clock;
use crate::journal::history::{self, HistoryError};
use crate::store::{DueHold, Notes, Store, StoreError};

/// Script calls that one round makes for a shard; what is left then waits for the next round.
const CALLS_PER_SHARD: usize = 40;
/// A round ends when so many shards have failed.
const SHARD_FAILURES_MAX: usize = 3;
/// Who the journal says asked, and why.
const ACTOR: &str = "system:expiry";
const REASON: &str = "hold_expired";

/// What a round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Holds whose quota was returned, wholly or for what was not captured.
    pub voided: u64,
    /// Holds that count as captured.
    pub settled: u64,
}

/// The sweep over open holds.
#[derive(Debug)]
pub struct HoldSweep(Tools);

impl HoldSweep {
    /// A sweep.
    #[must_use]
    pub const fn new(tools: Tools) -> Self {
        Self(tools)
    }

    /// Ends the holds that are over at `now_ms`, milliseconds since the epoch. Servers begin at shards of their own, so that
    /// they do not all ask for the same holds; where they do, the store lets the first one end it.
    ///
    /// # Errors
    /// [`SweepError`] where the store gives no answer; what was ended until then is.
    pub async fn round(&self, now_ms: i64, shutdown: &Shutdown) -> Result<Ended, SweepError> {
        let mut ended = Ended::default();
        let mut lag_secs = 0;
        let mut failed = Vec::new();
        let first = random_below(self.0.shards);
        for shard in (first..self.0.shards).chain(0..first) {
            match self.shard(shard, now_ms, shutdown, &mut ended).await {
                Ok(late_secs) => lag_secs = lag_secs.max(late_secs),
                Err(error) => failed.push(error),
            }
            // One shard's holds do not wait for another's, unless no shard can be reached.
            if failed.len() >= SHARD_FAILURES_MAX {
                break;
            }
        }
        self.0.metrics.sweep.set_hold_lag(lag_secs);
        failed.into_iter().next().map_or(Ok(ended), Err)
    }

    /// Gives how late the oldest hold was, in seconds.
    async fn shard(&self, shard: u16, now_ms: i64, shutdown: &Shutdown, ended: &mut Ended) -> Result<u64, SweepError> {
        let now_secs = now_ms.max(0).unsigned_abs() / 1000;
        let mut late_secs = 0;
        for _ in 0..CALLS_PER_SHARD {
            let max = isize::try_from(COMMANDS_PER_CALL).unwrap_or(isize::MAX);
            let due = self.0.store.due_holds(shard, now_secs, max).await?;
            let oldest = due.iter().map(|hold| u64::from(hold.until_secs)).min();
            late_secs = oldest.map_or(0, |until_secs| now_secs.saturating_sub(until_secs)).max(late_secs);
            let is_last = due.len() < COMMANDS_PER_CALL;
            let asked = self.end(due, now_ms, ended).await?;
            if is_last || asked == 0 || shutdown.is_asked() {
                break;
            }
        }
        Ok(late_secs)
    }

    /// Ends holds of one shard; gives how many the store was asked for.
    async fn end(&self, due: Vec<DueHold>, now_ms: i64, ended: &mut Ended) -> Result<usize, SweepError> {
        let mut batch = Vec::with_capacity(due.len());
        for hold in due {
            batch.extend(self.expiry(hold, now_ms).await?);
        }
        if batch.is_empty() {
            return Ok(0);
        }
        let replies = self.0.store.apply_batch(&batch, false).await?;
        for ((command, _), reply) in batch.iter().zip(&replies) {
            let record = &reply.record;
            // Nothing is journalled where another server, a capture or a void came first.
            let Some(event_seq) = reply.event_seq else { continue };
            self.0.metrics.decision(command.action.as_str(), record.code, record.replay);
            let settled = record.code == Code::Applied;
            let counter = if settled { &mut ended.settled } else { &mut ended.voided };
            *counter += 1;
            self.0.metrics.sweep.hold_ended(settled);
            tracing::info!(
                merchant = %command.merchant,
                currency = %command.currency,
                order_no = command.order_no.as_ref().map(OrderNo::as_str),
                code = record.code.as_str(),
                amount_minor = record.amount,
                order_state = record.order.state.as_str(),
                event_seq,
                "a hold has ended with its time"
            );
        }
        Ok(batch.len())
    }

    /// The command that ends a hold; `None` where that cannot be yet.
    async fn expiry(&self, hold: DueHold, now_ms: i64) -> Result<Option<(Command, Notes)>, SweepError> {
        let DueHold { merchant, currency, order_no, .. } = hold;
        let policy = self.0.policy(&merchant, currency, now_ms).await;
        let target = Target { merchant, currency, order_no: Some(order_no.clone()) };
        let mut command = self.0.command(target, Action::Expire, policy.as_deref(), now_ms);
        match self.recall(&command, &order_no).await {
            Ok(history) => command.history = history.map(Box::new),
            Err(HistoryError::Store(error @ (StoreError::Timeout { .. } | StoreError::Unavailable(_)))) => {
                return Err(error.into());
            }
            Err(error) => {
                tracing::warn!(merchant = %command.merchant, %order_no, %error, "a hold cannot be ended yet");
                return Ok(None);
            }
        }
        Ok(Some((command, notes(ACTOR, REASON, policy.as_deref()))))
    }

    /// The order as the journal knows it, where the store has forgotten it: its quota would stay pending for ever.
    async fn recall(&self, command: &Command, order_no: &OrderNo) -> Result<Option<Order>, HistoryError> {
        let Tools { pool, store, .. } = &self.0;
        let Command { merchant, now_ms, order_ttl_secs, .. } = command;
        let known = store.order(merchant, order_no).await?;
        if known.is_some_and(|order| i64::from(order.expires_at_secs) > now_ms / 1000) {
            return Ok(None);
        }
        history::find_at(pool, store, merchant, order_no, *order_ttl_secs, *now_ms).await
    }
}

/// Any number below `bound`.
fn random_below(bound: u16) -> u16 {
    // The last two bytes of a version 7 UUID are random.
    let [.., high, low] = clock::decision_id();
    u16::from_be_bytes([high, low]) % bound.max(1)
}
