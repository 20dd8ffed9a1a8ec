//! Open alerts that their accounts may not justify, where no event will resolve them: Redis has lost the counters, or the account.
//! Those of credit lines follow from the lines' books: `credit` resolves them. Those of merchants' own thresholds: `recount`.

use quota::{Calendar, LimitName, ThresholdPolicy};
use sluice_journal::postgres::{REWOUND, StoredAccount};
use sluice_kit::clock;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::projection::CHANNEL;
use crate::raise::SYSTEM;
use crate::subject::Subject;

/// Alerts per page.
const ALERTS_PER_PAGE: i64 = 1_000;
/// Why alerts of windows that are over are resolved.
const WINDOW_CLOSED: &str = "window_closed";

/// An open alert and its account, in a state no older than the alert.
#[derive(Debug, sqlx::FromRow)]
pub struct OpenAlert {
    pub alert_id: Uuid,
    subject: String,
    threshold: Option<i32>,
    window_id: Option<i32>,
    is_suspended: bool,
    #[sqlx(flatten)]
    pub account: StoredAccount,
}

impl OpenAlert {
    /// The next open alerts after one; none where there are no more.
    ///
    /// # Errors
    /// [`sqlx::Error`] where Postgres gives no answer.
    pub async fn page(connection: &mut PgConnection, after: Uuid) -> Result<Vec<Self>, sqlx::Error> {
        let statement = "SELECT account.*, alert_id, subject, threshold, window_id, \
                account.suspended_at IS NOT NULL AS is_suspended \
            FROM quota_alert AS alert JOIN quota_account AS account \
                ON account.merchant_id = alert.merchant_id AND account.currency = alert.currency \
            WHERE resolved_at IS NULL AND NOT is_own AND alert_id > $1 \
                AND subject NOT IN ('over_capture', 'credit_dunning', 'credit_watch', 'credit_utilisation') \
                AND (account.shard = alert.shard AND account.seq >= raised_seq OR account.updated_at > raised_at + $2) \
            ORDER BY alert_id LIMIT $3";
        let query = sqlx::query_as(statement).bind(after).bind(REWOUND);
        query.bind(ALERTS_PER_PAGE).fetch_all(connection).await
    }

    /// Whether the account has reached the alert's threshold. Levels of another list than the current one only show that some
    /// threshold is reached: the account will get new levels.
    #[must_use]
    pub fn is_justified(&self, policy: Option<&ThresholdPolicy>) -> bool {
        let limit = Subject::from_column(&self.subject).and_then(Subject::limit);
        let Some(limit) = limit else { return self.is_suspended };
        let account = self.account.account();
        let window = limit.period().map(|period| account.of(period).id);
        if self.window_id.is_some() && self.window_id.map(i32::unsigned_abs) != window {
            return false;
        }
        let mut levels = ThresholdPolicy::LIMITS.into_iter().zip(account.levels.by_limit);
        let level = levels.find(|(other, _)| *other == limit).map_or(0, |(_, level)| usize::from(level));
        match policy.map(ThresholdPolicy::thresholds).filter(|thresholds| thresholds.list() == account.levels.list) {
            Some(thresholds) => {
                let reached = thresholds.percents().iter().take(level);
                reached.map(|percent| i32::from(*percent)).any(|percent| Some(percent) == self.threshold)
            }
            None => level > 0,
        }
    }
}

/// Resolves alerts of windows that are over in every calendar; returns how many.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub async fn resolve_over_everywhere(connection: &mut PgConnection, now_ms: i64) -> Result<u64, sqlx::Error> {
    let oldest = Calendar::oldest_open_at(now_ms);
    let first = |limit: LimitName| Some((limit.as_str(), i32::try_from(*oldest.of(limit.period()?)).ok()?));
    let limits = ThresholdPolicy::LIMITS.into_iter().filter_map(first);
    let (subjects, windows): (Vec<&str>, Vec<i32>) = limits.unzip();
    let statement = "SELECT alert_id FROM quota_alert JOIN UNNEST($1::text[], $2::int4[]) AS first (subject, window_id) \
            USING (subject) WHERE resolved_at IS NULL AND quota_alert.window_id < first.window_id";
    let orphans: Vec<Uuid> =
        sqlx::query_scalar(statement).bind(subjects).bind(windows).fetch_all(&mut *connection).await?;
    resolve(connection, &orphans, WINDOW_CLOSED).await
}

/// Resolves these alerts, in the order in which the journal locks them; returns how many were still open.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub async fn resolve(connection: &mut PgConnection, alerts: &[Uuid], reason: &str) -> Result<u64, sqlx::Error> {
    let statement = "WITH open AS ( \
            SELECT alert_id FROM quota_alert WHERE alert_id = ANY($1) AND resolved_at IS NULL ORDER BY alert_id FOR UPDATE \
        ), ended AS ( \
            UPDATE quota_alert SET resolved_at = greatest($2, raised_at), resolved_by = $3, resolve_reason = $4 \
            FROM open WHERE quota_alert.alert_id = open.alert_id RETURNING quota_alert.alert_id \
        ) SELECT pg_notify($5, alert_id::text) FROM ended";
    let query = sqlx::query(statement).bind(alerts).bind(clock::now()).bind(SYSTEM).bind(reason).bind(CHANNEL);
    Ok(query.fetch_all(connection).await?.len() as u64)
}
