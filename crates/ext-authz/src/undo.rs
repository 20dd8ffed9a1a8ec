//! Takes back what Envoy's native filter never heard of.
//!
//! The proxy filter voids an attempt itself when it got no answer. Envoy's native filter does not, so the server does: where
//! the store gave no answer the charge may have been made, and where the answer came too late it was made for a payment that
//! Envoy had refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::extension::REASON_ANSWER_UNHEARD as REASON;
use quota::{Action, Command, OrderNo, Reply};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use uuid::Uuid;

use sluice_decision::spans;
use sluice_kit::clock;
use sluice_kit::metrics::Metrics;
use sluice_kit::telemetry::{DECISION, trace_id};
use sluice_store::{Notes, Store};

/// Voids that may be under way at a time; beyond it a charge stays, which errs to the side of quota consumed.
const UNDER_WAY_MAX: usize = 1024;
/// The first pause between two tries; each next one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Tries of one void: the last one comes 25 seconds after the first.
const TRIES_MAX: u32 = 9;

/// Voids under way.
#[derive(Debug)]
pub(super) struct Undo {
    room: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Undo {
    /// Voids will run as `tasks`.
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { room: Arc::new(Semaphore::new(UNDER_WAY_MAX)), tasks }
    }

    /// Voids the attempt of `command` in the background, until the store has answered or the tries are used up.
    pub(super) fn start(&self, store: Arc<impl Store>, metrics: Arc<Metrics>, command: Command, notes: Notes) {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            warn!(
                decision_id = %Uuid::from_bytes(command.decision_id),
                merchant = %command.merchant,
                order_no = command.order_no.as_ref().map(OrderNo::as_str),
                trace_id = trace_id(notes.trace),
                "too many voids under way, the charge stays"
            );
            return;
        };
        self.tasks.spawn(async move {
            void(&*store, &metrics, command, notes).await;
            drop(permit);
        });
    }
}

async fn void(store: &impl Store, metrics: &Metrics, mut command: Command, mut notes: Notes) {
    let charge = notes.trace;
    command.action = Action::VoidAttempt;
    REASON.clone_into(&mut notes.reason);
    let mut pause = PAUSE_FIRST;
    for _ in 0..TRIES_MAX {
        // Each try may leave an event, so each has an id of its own.
        command.decision_id = clock::decision_id();
        notes.trace = spans::of_decision(charge, command.decision_id);
        let started = Instant::now();
        let result = store.apply(&command, &notes).await;
        spans::check(&command, &notes, result.as_ref(), started.elapsed());
        if let Ok(Reply { record, decision_id, event_id, .. }) = result {
            metrics.decision(command.action.as_str(), record.code, record.replay);
            info!(
                target: DECISION,
                decision_id = %Uuid::from_bytes(decision_id),
                event_id = %Uuid::from_bytes(event_id),
                action = command.action.as_str(),
                merchant = %command.merchant,
                order_no = command.order_no.as_ref().map(OrderNo::as_str),
                attempt = %command.attempt,
                code = record.code.as_str(),
                replay = record.replay,
                reason = REASON,
                trace_id = trace_id(notes.trace),
                "decision"
            );
            return;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    warn!(
        decision_id = %Uuid::from_bytes(command.decision_id),
        merchant = %command.merchant,
        order_no = command.order_no.as_ref().map(OrderNo::as_str),
        trace_id = trace_id(notes.trace),
        "the void found no store, the charge may stay"
    );
}
