//! A sweep's commands as calls of the store, of which none stands in another's way.

use quota::{Command, OrderNo, Reply};

use super::{SweepError, Tools};
use sluice_store::{Notes, Store, StoreError};

/// Calls of one round that may find Redis or Postgres away; with one more the round would only wait.
const AWAY_MAX: usize = 3;

/// What failed in a round. The round goes on, and tells the first of it at its end.
#[derive(Debug, Default)]
pub(super) struct Failures {
    first: Option<SweepError>,
    away: usize,
}

impl Failures {
    pub(super) fn add(&mut self, error: SweepError) {
        // A value that is not the store's concerns one account or order.
        if !matches!(error, SweepError::Store(StoreError::Corrupt(_))) {
            self.away += 1;
        }
        self.first.get_or_insert(error);
    }

    /// Whether the round is to end, for nothing would be done in it.
    pub(super) const fn are_too_many(&self) -> bool {
        self.away >= AWAY_MAX
    }

    /// What the round did, or why it did not do all.
    pub(super) fn after<T>(self, done: T) -> Result<T, SweepError> {
        self.first.map_or(Ok(done), Err)
    }
}

impl Tools {
    /// Applies commands, each by itself; gives `None` for each that failed on a value that is not the store's.
    ///
    /// # Errors
    /// [`StoreError`] where the store gives no answer.
    pub(super) async fn apply_each(
        &self,
        batch: &[(Command, Notes)],
        failures: &mut Failures,
    ) -> Result<Vec<Option<Reply>>, StoreError> {
        let mut replies = Vec::with_capacity(batch.len());
        for ((command, _), result) in batch.iter().zip(self.store.apply_each(batch).await) {
            let reply = match result {
                Ok(reply) => Some(reply),
                Err(error @ StoreError::Corrupt(_)) => {
                    warn_of(command, &error);
                    failures.add(error.into());
                    None
                }
                Err(error) => return Err(error),
            };
            replies.push(reply);
        }
        Ok(replies)
    }
}

fn warn_of(command: &Command, error: &StoreError) {
    tracing::warn!(
        decision_id = %uuid::Uuid::from_bytes(command.decision_id),
        merchant = %command.merchant,
        currency = %command.currency,
        order_no = command.order_no.as_ref().map(OrderNo::as_str),
        action = command.action.as_str(),
        %error,
        "a sweep cannot do this: the account's or the order's value in redis has to be put right"
    );
}
