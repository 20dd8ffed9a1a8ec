//! Compensating voids: void charges whose answer Envoy's native filter never got.
//!
//! The proxy filter voids an attempt itself when it got no answer. Envoy's native filter does not, so the server does: if the
//! store gave no answer the charge may have been made, and if the answer came too late it was made for a payment that Envoy had
//! refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::extension::REASON_ANSWER_UNHEARD as REASON;
use quota::OrderNo;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;
use tracing::warn;
use uuid::Uuid;

use sluice_decision::decider::{Decider, Prepared};
use sluice_kit::telemetry::trace_id;
use sluice_store::Store;

/// Most voids in progress; beyond it a charge stays, which errs to the side of quota consumed.
const UNDER_WAY_MAX: usize = 1024;
/// The first pause between two tries; each next one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Tries of one void: the last one comes 25 seconds after the first.
const TRIES_MAX: u32 = 9;

/// Voids in progress.
#[derive(Debug)]
pub(super) struct CompensatingVoids {
    room: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl CompensatingVoids {
    /// Voids will run as `tasks`.
    pub(super) fn new(tasks: TaskTracker) -> Self {
        Self { room: Arc::new(Semaphore::new(UNDER_WAY_MAX)), tasks }
    }

    /// Voids the attempt of a charge in the background, until the store answers or the tries are used up.
    pub(super) fn start(&self, decider: Decider<impl Store>, charge: Prepared) {
        let Ok(permit) = Arc::clone(&self.room).try_acquire_owned() else {
            warn_of(&charge, "compensating void skipped, the charge stays: too many in progress");
            return;
        };
        self.tasks.spawn(async move {
            void(&decider, &charge).await;
            drop(permit);
        });
    }
}

async fn void(decider: &Decider<impl Store>, charge: &Prepared) {
    let mut pause = PAUSE_FIRST;
    for _ in 0..TRIES_MAX {
        // Each try may leave an event, so each has an id of its own.
        let void = decider.prepare_void(charge, REASON);
        if decider.decide(void, Instant::now()).await.is_ok() {
            return;
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    warn_of(charge, "compensating void failed, the charge may stay: no answer from the store");
}

fn warn_of(charge: &Prepared, problem: &'static str) {
    warn!(
        decision_id = %Uuid::from_bytes(charge.command().decision_id),
        merchant = %charge.command().merchant,
        order_no = charge.command().order_no.as_ref().map(OrderNo::as_str),
        trace_id = trace_id(charge.audit().trace),
        "{problem}"
    );
}
