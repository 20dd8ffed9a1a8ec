//! Takes back what Envoy's native filter never heard of.
//!
//! The proxy filter voids an attempt itself when it got no answer. Envoy's native filter does not, so the server does: where
//! the store gave no answer the charge may have been made, and where the answer came too late it was made for a payment that
//! Envoy had refused.

use std::sync::Arc;
use std::time::Duration;

use quota::{Action, Command};
use tokio::sync::Semaphore;
use tracing::{info, warn};

use crate::clock;
use crate::store::{Notes, Store};

/// Voids that may be under way at a time; beyond it a charge stays, which errs to the side of quota consumed.
const UNDER_WAY_MAX: usize = 1024;
/// The first pause between two tries; each next one is twice as long.
const PAUSE_FIRST: Duration = Duration::from_millis(100);
/// Tries of one void: the last one comes 25 seconds after the first.
const TRIES_MAX: u32 = 9;
/// The reason in the journal.
const REASON: &str = "answer_unheard";

/// Voids under way.
#[derive(Debug)]
pub(super) struct Undo(Arc<Semaphore>);

impl Undo {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(UNDER_WAY_MAX)))
    }

    /// Voids the attempt of `command` in the background, until the store has answered or the tries are used up.
    pub(super) fn start(&self, store: Arc<impl Store>, command: Command, notes: Notes) {
        let Ok(permit) = Arc::clone(&self.0).try_acquire_owned() else {
            warn!(merchant = %command.merchant, order_no = %command.order_no, "too many voids under way, the charge stays");
            return;
        };
        tokio::spawn(async move {
            void(&*store, command, notes).await;
            drop(permit);
        });
    }
}

async fn void(store: &impl Store, mut command: Command, mut notes: Notes) {
    command.action = Action::Void;
    command.decision_id = clock::decision_id();
    REASON.clone_into(&mut notes.reason);
    let mut pause = PAUSE_FIRST;
    for _ in 0..TRIES_MAX {
        match store.apply(&command, &notes).await {
            Ok(reply) => {
                let (merchant, order_no) = (&command.merchant, &command.order_no);
                info!(%merchant, %order_no, code = reply.record.code.as_str(), reason = REASON, "attempt voided");
                return;
            }
            Err(_) => tokio::time::sleep(pause).await,
        }
        pause *= 2;
    }
    warn!(merchant = %command.merchant, order_no = %command.order_no, "the void found no store, the charge may stay");
}
