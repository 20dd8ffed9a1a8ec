//! Proof that the usage log is complete. Every shard numbers its events 1, 2, 3 …; every number that Redis acknowledged must be
//! stored. A number that is not is *missing*; a number that two events have, or that Redis has lost, is *rewound*: Redis lost
//! writes that it had acknowledged. Reused numbers are checked for repetition only; the search for missing ones continues where
//! the sequence passes its old end.

use std::collections::{BTreeMap, BTreeSet};

use sqlx::Connection;
use sqlx::postgres::PgConnection;

use super::{PostgresError, STORE_TIMEOUT, UsageLog, within};
use crate::reply::Position;

/// Numbers of one shard per check; the rest wait for the next.
const NUMBERS_PER_CHECK: i64 = 100_000;
/// Open gaps that one check rechecks, those checked longest ago first.
const GAPS_PER_CHECK: i64 = 100;
/// Lets one server check at a time; any number that nothing else uses.
const CHECK_LOCK: i64 = 0x51_75_6f_74_61_02;

/// Known anomalies, and which of them are new.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anomalies {
    /// Numbers that are missing and not resolved.
    pub missing_events: u64,
    /// Ranges that were used twice and are not resolved.
    pub rewound_ranges: u64,
    /// Accounts that Redis has lost and that are not resolved.
    pub lost_accounts: u64,
    /// Found by this check: shard, kind, first and last number.
    pub found: Vec<(i32, String, i64, i64)>,
}

/// A shard's numbers in this check: from `first` to `last`.
struct Span {
    shard: i32,
    first: i64,
    last: i64,
}

impl UsageLog {
    /// Checks what was acknowledged since the last check, and rechecks open gaps.
    ///
    /// # Errors
    /// [`PostgresError`] where Postgres could not answer; nothing is taken as checked then.
    pub async fn check_sequences(&mut self, positions: &[Position]) -> Result<Anomalies, PostgresError> {
        let mut connection = self.take().await?;
        let (contiguous, anomalies) = within(STORE_TIMEOUT, check(&mut connection, positions)).await?;
        self.connection = Some(connection);
        self.contiguous = contiguous;
        Ok(anomalies)
    }
}

async fn check(
    connection: &mut PgConnection,
    positions: &[Position],
) -> Result<(BTreeMap<i32, i64>, Anomalies), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let locked: bool = sqlx::query_scalar("SELECT pg_try_advisory_xact_lock($1)")
        .bind(CHECK_LOCK)
        .fetch_one(&mut *transaction)
        .await?;
    let mut found = Vec::new();
    if locked {
        let before = checked(&mut transaction).await?;
        found = record_rewound(&mut transaction, positions, &before).await?;
        found.extend(check_spans(&mut transaction, &spans(positions, &before)).await?);
        close_gaps(&mut transaction).await?;
    }
    let totals = "SELECT coalesce(sum(last_seq - first_seq + 1) FILTER (WHERE kind = 'missing'), 0)::bigint, \
                  count(*) FILTER (WHERE kind = 'rewound'), count(*) FILTER (WHERE kind = 'account_lost') \
                  FROM journal_anomaly WHERE resolved_at IS NULL";
    let (missing, rewound, lost): (i64, i64, i64) = sqlx::query_as(totals).fetch_one(&mut *transaction).await?;
    let contiguous = checked(&mut transaction).await?;
    transaction.commit().await?;
    let [missing_events, rewound_ranges, lost_accounts] = [missing, rewound, lost].map(i64::unsigned_abs);
    let anomalies = Anomalies { missing_events, rewound_ranges, lost_accounts, found };
    Ok((contiguous, anomalies))
}

/// How far each shard was checked.
pub(super) async fn checked(connection: &mut PgConnection) -> Result<BTreeMap<i32, i64>, sqlx::Error> {
    let rows: Vec<(i32, i64)> =
        sqlx::query_as("SELECT shard, contiguous_seq FROM journal_shard").fetch_all(connection).await?;
    Ok(rows.into_iter().collect())
}

/// Records numbers of a batch that two events have.
pub(super) async fn record_repetitions(
    connection: &mut PgConnection,
    repeated: &BTreeSet<(i32, i64)>,
) -> Result<(), sqlx::Error> {
    if repeated.is_empty() {
        return Ok(());
    }
    let (shards, numbers): (Vec<i32>, Vec<i64>) = repeated.iter().copied().unzip();
    let statement = "INSERT INTO journal_anomaly (shard, kind, first_seq, last_seq) \
        SELECT shard, 'rewound', min(seq), max(seq) FROM ( \
            SELECT shard, seq FROM usage_log \
            WHERE (shard, seq) IN (SELECT * FROM UNNEST($1::int4[], $2::int8[])) \
            GROUP BY shard, seq HAVING count(*) > 1 \
        ) AS twice GROUP BY shard ON CONFLICT DO NOTHING";
    sqlx::query(statement).bind(shards).bind(numbers).execute(connection).await?;
    Ok(())
}

/// Where Redis's last number is behind what is stored, Redis has lost the rest.
async fn record_rewound(
    connection: &mut PgConnection,
    positions: &[Position],
    before: &BTreeMap<i32, i64>,
) -> Result<Vec<(i32, String, i64, i64)>, sqlx::Error> {
    let mut found = Vec::new();
    for Position { shard, generated, .. } in positions {
        let shard = i32::from(*shard);
        let generated = signed(*generated);
        let Some(stored) = before.get(&shard).copied().filter(|stored| *stored > generated) else {
            continue;
        };
        // One open record of a loss is enough: the numbers are reused one by one, and each check would add another.
        let statement = "INSERT INTO journal_anomaly (shard, kind, first_seq, last_seq) \
            SELECT $1, 'rewound', $2, $3 WHERE NOT EXISTS ( \
                SELECT FROM journal_anomaly WHERE shard = $1 AND kind = 'rewound' AND last_seq >= $3 \
            ) ON CONFLICT DO NOTHING";
        let query = sqlx::query(statement).bind(shard).bind(generated + 1).bind(stored);
        if query.execute(&mut *connection).await?.rows_affected() > 0 {
            found.push((shard, "rewound".to_owned(), generated + 1, stored));
        }
    }
    Ok(found)
}

fn spans(positions: &[Position], before: &BTreeMap<i32, i64>) -> Vec<Span> {
    let span = |position: &Position| {
        let shard = i32::from(position.shard);
        let first = before.get(&shard).copied().unwrap_or_default() + 1;
        Span { shard, first, last: signed(position.removed).min(first + NUMBERS_PER_CHECK - 1) }
    };
    positions.iter().map(span).filter(|span| span.first <= span.last).collect()
}

/// Checks every span, records its anomalies and moves the checked position past it.
async fn check_spans(
    connection: &mut PgConnection,
    spans: &[Span],
) -> Result<Vec<(i32, String, i64, i64)>, sqlx::Error> {
    if spans.is_empty() {
        return Ok(Vec::new());
    }
    let shards: Vec<i32> = spans.iter().map(|span| span.shard).collect();
    let firsts: Vec<i64> = spans.iter().map(|span| span.first).collect();
    let lasts: Vec<i64> = spans.iter().map(|span| span.last).collect();
    let statement = "SELECT span.shard, present.numbers = span.last - span.first + 1 AND present.numbers = present.rows \
        FROM UNNEST($1::int4[], $2::int8[], $3::int8[]) AS span (shard, first, last) CROSS JOIN LATERAL ( \
            SELECT count(DISTINCT seq) AS numbers, count(*) AS rows FROM usage_log \
            WHERE usage_log.shard = span.shard AND seq BETWEEN span.first AND span.last \
        ) AS present";
    let query = sqlx::query_as(statement).bind(&shards).bind(&firsts).bind(&lasts);
    let whole: BTreeMap<i32, bool> = query.fetch_all(&mut *connection).await?.into_iter().collect();
    let mut found = Vec::new();
    for span in spans.iter().filter(|span| whole.get(&span.shard) != Some(&true)) {
        found.extend(record_span(connection, span).await?);
    }
    let statement = "INSERT INTO journal_shard (shard, contiguous_seq) SELECT * FROM UNNEST($1::int4[], $2::int8[]) \
        ON CONFLICT (shard) DO UPDATE SET contiguous_seq = EXCLUDED.contiguous_seq, checked_at = now()";
    sqlx::query(statement).bind(&shards).bind(&lasts).execute(&mut *connection).await?;
    Ok(found)
}

/// Records every missing range of a span, and the range of numbers that was used twice.
async fn record_span(connection: &mut PgConnection, span: &Span) -> Result<Vec<(i32, String, i64, i64)>, sqlx::Error> {
    let statement = "WITH rows AS ( \
            SELECT seq FROM usage_log WHERE shard = $1 AND seq BETWEEN $2 AND $3 \
        ), present AS ( \
            SELECT seq FROM rows \
            UNION SELECT seq FROM journal_rejected WHERE shard = $1 AND seq BETWEEN $2 AND $3 \
            UNION SELECT $3 + 1 \
        ), steps AS ( \
            SELECT lag(seq, 1, $2 - 1) OVER (ORDER BY seq) + 1 AS first_seq, seq - 1 AS last_seq FROM present \
        ), wrong AS ( \
            SELECT 'missing' AS kind, first_seq, last_seq FROM steps WHERE first_seq <= last_seq \
            UNION ALL SELECT 'rewound', min(seq), max(seq) \
            FROM (SELECT seq FROM rows GROUP BY seq HAVING count(*) > 1) AS twice HAVING count(*) > 0 \
        ) \
        INSERT INTO journal_anomaly (shard, kind, first_seq, last_seq) SELECT $1, kind, first_seq, last_seq FROM wrong \
        ON CONFLICT DO NOTHING RETURNING shard, kind, first_seq, last_seq";
    sqlx::query_as(statement).bind(span.shard).bind(span.first).bind(span.last).fetch_all(connection).await
}

/// Resolves gaps whose events arrived after all, stored or set aside. Gaps that stay open take turns, so that any number of
/// them keeps no other from being checked.
async fn close_gaps(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let statement = "WITH open AS ( \
            SELECT shard, first_seq, last_seq FROM journal_anomaly \
            WHERE kind = 'missing' AND resolved_at IS NULL ORDER BY looked_at, shard, first_seq LIMIT $1 \
        ), looked AS ( \
            SELECT shard, first_seq, last_seq, ( \
                SELECT count(*) FROM ( \
                    SELECT seq FROM usage_log \
                    WHERE shard = open.shard AND seq BETWEEN open.first_seq AND open.last_seq \
                    UNION SELECT seq FROM journal_rejected \
                    WHERE shard = open.shard AND seq BETWEEN open.first_seq AND open.last_seq \
                ) AS present \
            ) AS arrived FROM open \
        ) \
        UPDATE journal_anomaly AS gap SET looked_at = now(), \
            resolved_at = CASE WHEN looked.arrived = looked.last_seq - looked.first_seq + 1 THEN now() END \
        FROM looked WHERE gap.kind = 'missing' AND gap.shard = looked.shard \
            AND gap.first_seq = looked.first_seq AND gap.last_seq = looked.last_seq";
    sqlx::query(statement).bind(GAPS_PER_CHECK).execute(connection).await?;
    Ok(())
}

/// Numbers are far below the bound; one that is not is shown as the largest.
fn signed(number: u64) -> i64 {
    // One less than the largest, so that the next number still is one.
    i64::try_from(number).unwrap_or(i64::MAX).min(i64::MAX - 1)
}
