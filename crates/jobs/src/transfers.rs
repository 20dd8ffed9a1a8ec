//! Transfers that their caller has left half way, because a server died or the store was away: takes each to its end.

use std::collections::HashSet;

use quota::{MerchantId, shard_of};
use sluice_decision::operations::transfer::{self, TransferError};
use sluice_lines::{Transfer, TransferRepository};

use super::apply::Failures;
use super::{SweepError, Tools};
use sluice_kit::shutdown::Shutdown;

/// Transfers of one round.
const TRANSFERS_MAX: i64 = 1_000;

/// The sweep over unfinished transfers.
#[derive(Debug)]
pub struct TransferSweep {
    tools: Tools,
    transfers: TransferRepository,
}

impl TransferSweep {
    /// A sweep.
    #[must_use]
    pub fn new(tools: Tools) -> Self {
        let transfers = TransferRepository::new(tools.pool.clone());
        Self { tools, transfers }
    }

    /// Goes on with every transfer that has a step left. Several servers may do so at once: each step happens once. Returns how many
    /// it has ended.
    ///
    /// # Errors
    /// [`SweepError`] of the first transfer that could not go on; the others did.
    pub async fn round(&self, shutdown: &Shutdown) -> Result<u64, SweepError> {
        let (mut ended, mut failures) = (0, Failures::default());
        // One shard that gives no answer holds up no transfer between others.
        let mut silent: HashSet<u16> = HashSet::new();
        for Transfer { transfer_no, from_merchant_id, to_merchant_id, .. } in
            self.transfers.unfinished(TRANSFERS_MAX).await?
        {
            if shutdown.is_requested() {
                break;
            }
            let merchants = [&from_merchant_id, &to_merchant_id].map(|id| MerchantId::parse(id).ok());
            let shards: Vec<u16> =
                merchants.iter().flatten().map(|merchant| shard_of(merchant, self.tools.shards)).collect();
            if shards.iter().any(|shard| silent.contains(shard)) {
                continue;
            }
            match transfer::finish(&self.transfers, &self.tools.operations, &transfer_no).await {
                Ok(done) => {
                    let state = done.transfer.state.into_str();
                    tracing::info!(transfer_no, state, code = done.transfer.code, "an unfinished transfer was ended");
                    ended += 1;
                }
                Err(TransferError::Unknown | TransferError::NoPolicy) => {}
                Err(TransferError::Store(error)) => {
                    silent.extend(shards);
                    failures.add(error.into());
                }
                Err(TransferError::Row(error)) => {
                    failures.add(error.into());
                    break;
                }
                Err(error @ TransferError::Corrupt(_)) => {
                    tracing::error!(transfer_no, %error, "a transfer cannot be ended");
                }
            }
        }
        failures.after(ended)
    }
}
