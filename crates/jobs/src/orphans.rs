//! Resolves alerts that their accounts do not justify, where no event will: Redis has lost the counters, or the account, and no
//! event closed the window.

use std::sync::Arc;

use quota::{Currency, MerchantId, ThresholdPolicy};
use uuid::Uuid;

use super::Tools;
use sluice_alerts::orphans::{self, OpenAlert};
use sluice_journal::postgres::StoredAccount;
use sluice_kit::database::{self, PgConnection};

/// Why they are resolved.
const COUNTERS_LOST: &str = "counters_lost";

impl Tools {
    /// Resolves open alerts that should not be open. Alerts that are raised meanwhile are left alone.
    pub(super) async fn end_orphans(&self, connection: &mut PgConnection, now_ms: i64) -> Result<(), database::Error> {
        let mut ended = orphans::resolve_over_everywhere(connection, now_ms).await?;
        let mut after = Uuid::nil();
        loop {
            let page = OpenAlert::page(connection, after).await?;
            let Some(last) = page.last() else { break };
            after = last.alert_id;
            let mut unjustified = Vec::new();
            for open in &page {
                if !open.is_justified(self.threshold_policy(&open.account, now_ms).as_deref()) {
                    unjustified.push(open.alert_id);
                }
            }
            ended += orphans::resolve(connection, &unjustified, COUNTERS_LOST).await?;
        }
        if ended > 0 {
            tracing::warn!(alerts = ended, "alerts resolved, their accounts do not justify them");
        }
        Ok(())
    }

    fn threshold_policy(&self, account: &StoredAccount, now_ms: i64) -> Option<Arc<ThresholdPolicy>> {
        let (merchant, currency) =
            (MerchantId::parse(&account.merchant_id).ok()?, Currency::parse(&account.currency).ok()?);
        self.in_force(&merchant, currency, now_ms).policy?.threshold_policy.clone()
    }
}
