//! Resolves alerts that their accounts do not justify, where no event will: Redis has lost the counters, or the account, and no
//! event closed the window.

use std::sync::Arc;

use chrono::TimeDelta;
use quota::{Account, Calendar, Currency, LimitName, MerchantId, ThresholdPolicy};
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::Tools;
use sluice_alerts::projection::CHANNEL as ALERT_CHANNEL;
use sluice_alerts::raise::SYSTEM;
use sluice_journal::postgres::{REWOUND, StoredAccount};
use sluice_kit::clock;

/// Alerts per page.
const ALERTS_PER_PAGE: usize = 1_000;
/// A window that was over in UTC this long ago is over in every zone, whatever its cutoff.
const OVER_EVERYWHERE: TimeDelta = TimeDelta::hours(72);
/// Why they are resolved.
const COUNTERS_LOST: &str = "counters_lost";
const WINDOW_CLOSED: &str = "window_closed";

/// An open alert and its account, in a state no older than the alert.
#[derive(Debug, sqlx::FromRow)]
struct Open {
    alert_id: Uuid,
    subject: String,
    threshold: Option<i32>,
    window_id: Option<i32>,
    is_suspended: bool,
    #[sqlx(flatten)]
    account: StoredAccount,
}

impl Tools {
    /// Resolves open alerts that should not be open. Alerts that are raised meanwhile are left alone.
    pub(super) async fn end_orphans(&self, connection: &mut PgConnection, now_ms: i64) -> Result<(), sqlx::Error> {
        let mut ended = end_over_everywhere(connection, now_ms).await?;
        let mut after = Uuid::nil();
        loop {
            let page = page(connection, after).await?;
            let Some(last) = page.last() else { break };
            after = last.alert_id;
            let mut orphans = Vec::new();
            for open in &page {
                if !open.is_justified(self.threshold_policy(&open.account, now_ms).as_deref()) {
                    orphans.push(open.alert_id);
                }
            }
            ended += end(connection, &orphans, COUNTERS_LOST).await?;
            if page.len() < ALERTS_PER_PAGE {
                break;
            }
        }
        if ended > 0 {
            tracing::warn!(alerts = ended, "alerts resolved, their accounts do not justify them");
        }
        Ok(())
    }

    fn threshold_policy(&self, account: &StoredAccount, now_ms: i64) -> Option<Arc<ThresholdPolicy>> {
        let (merchant, currency) =
            (MerchantId::parse(&account.merchant_id).ok()?, Currency::parse(&account.currency).ok()?);
        self.policy(&merchant, currency, now_ms)?.threshold_policy.clone()
    }
}

impl Open {
    /// Whether the account has reached the alert's threshold. Levels of another list than the current one only show that some
    /// threshold is reached: the account will get new levels.
    fn is_justified(&self, policy: Option<&ThresholdPolicy>) -> bool {
        let index = ThresholdPolicy::LIMITS.into_iter().position(|limit| limit.as_str() == self.subject);
        let Some((index, limit)) = index.and_then(|index| Some((index, *ThresholdPolicy::LIMITS.get(index)?))) else {
            return self.is_suspended;
        };
        let account = self.account.account();
        let window = limit.period().map(|period| account.of(period).id);
        if self.window_id.is_some() && self.window_id.map(i32::unsigned_abs) != window {
            return false;
        }
        let level = account.levels.by_limit.get(index).copied().map_or(0, usize::from);
        match policy.map(ThresholdPolicy::thresholds).filter(|thresholds| thresholds.list() == account.levels.list) {
            Some(thresholds) => {
                let reached = thresholds.percents().iter().take(level);
                reached.map(|percent| i32::from(*percent)).any(|percent| Some(percent) == self.threshold)
            }
            None => level > 0,
        }
    }
}

async fn page(connection: &mut PgConnection, after: Uuid) -> Result<Vec<Open>, sqlx::Error> {
    let statement = "SELECT account.*, alert_id, subject, threshold, window_id, \
            account.suspended_at IS NOT NULL AS is_suspended \
        FROM quota_alert AS alert JOIN quota_account AS account \
            ON account.merchant_id = alert.merchant_id AND account.currency = alert.currency \
        WHERE resolved_at IS NULL AND subject <> 'over_capture' AND alert_id > $1 \
            AND (account.shard = alert.shard AND account.seq >= raised_seq OR account.updated_at > raised_at + $2) \
        ORDER BY alert_id LIMIT $3";
    let query = sqlx::query_as(statement).bind(after).bind(REWOUND);
    query.bind(i64::try_from(ALERTS_PER_PAGE).unwrap_or(i64::MAX)).fetch_all(connection).await
}

/// Resolves alerts of windows that are over in every zone.
async fn end_over_everywhere(connection: &mut PgConnection, now_ms: i64) -> Result<u64, sqlx::Error> {
    let then = Calendar::UTC.windows_at(now_ms.saturating_sub(OVER_EVERYWHERE.num_milliseconds()));
    let first = |limit: LimitName| Some(Account::default().rolled(then).of(limit.period()?).id);
    let limits = ThresholdPolicy::LIMITS
        .into_iter()
        .filter_map(|limit| Some((limit.as_str(), i32::try_from(first(limit)?).ok()?)));
    let (subjects, windows): (Vec<&str>, Vec<i32>) = limits.unzip();
    let statement = "SELECT alert_id FROM quota_alert JOIN UNNEST($1::text[], $2::int4[]) AS first (subject, window_id) \
            USING (subject) WHERE resolved_at IS NULL AND quota_alert.window_id < first.window_id";
    let orphans: Vec<Uuid> =
        sqlx::query_scalar(statement).bind(subjects).bind(windows).fetch_all(&mut *connection).await?;
    end(connection, &orphans, WINDOW_CLOSED).await
}

/// Resolves these alerts, in the order in which the journal locks them; returns how many were still open.
async fn end(connection: &mut PgConnection, alerts: &[Uuid], reason: &str) -> Result<u64, sqlx::Error> {
    let statement = "WITH open AS ( \
            SELECT alert_id FROM quota_alert WHERE alert_id = ANY($1) AND resolved_at IS NULL ORDER BY alert_id FOR UPDATE \
        ), ended AS ( \
            UPDATE quota_alert SET resolved_at = greatest($2, raised_at), resolved_by = $3, resolve_reason = $4 \
            FROM open WHERE quota_alert.alert_id = open.alert_id RETURNING quota_alert.alert_id \
        ) SELECT pg_notify($5, alert_id::text) FROM ended";
    let query = sqlx::query(statement).bind(alerts).bind(clock::now()).bind(SYSTEM).bind(reason).bind(ALERT_CHANNEL);
    Ok(query.fetch_all(connection).await?.len() as u64)
}
