//! A sweep's commands as calls of the store; none of them blocks another.

use std::time::Instant;

use super::{SweepError, Tools};
use sluice_decision::decider::{Decision, Prepared};
use sluice_store::StoreError;

/// Calls of one round that may find Redis or Postgres away; with one more the round would only wait.
const AWAY_MAX: usize = 3;

/// The failures of a round. The round continues, and returns the first of them at its end.
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

    /// Whether the round has to end, because nothing could be done in it.
    pub(super) const fn are_too_many(&self) -> bool {
        self.away >= AWAY_MAX
    }

    /// What the round did, or its first failure.
    pub(super) fn after<T>(self, done: T) -> Result<T, SweepError> {
        self.first.map_or(Ok(done), Err)
    }
}

impl Tools {
    /// Decides commands, each by itself; returns `None` for each that failed on a value that is not the store's.
    ///
    /// # Errors
    /// [`StoreError`] where the store gives no answer.
    pub(super) async fn decide_each(
        &self,
        batch: Vec<Prepared>,
        failures: &mut Failures,
    ) -> Result<Vec<Option<Decision>>, StoreError> {
        let results = self.decider.decide_each(batch, Instant::now()).await.into_iter();
        let decided = results.map(|result| match result {
            Ok(decision) => Ok(Some(decision)),
            Err(error @ StoreError::Corrupt(_)) => {
                failures.add(error.into());
                Ok(None)
            }
            Err(error) => Err(error),
        });
        decided.collect()
    }
}
