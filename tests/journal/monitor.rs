//! Alerts for operators: one for each trouble, however many servers see it, raised when Postgres is there.

use std::sync::Arc;

use sluice_alerts::monitor::Monitor;
use sluice_journal::postgres::UsageLog;
use sluice_kit::health::Health;
use sluice_kit::metrics::Metrics;
use sluice_settings::{Live, Secret, Settings};
use sluice_store::StoreClock;
use testkit::postgres::Postgres;
use testkit::{Result, Service};

use crate::bench::{AT_MS, Bench, event};

/// What a server watches with.
struct Server {
    health: Arc<Health>,
    monitor: Monitor,
}

impl Server {
    fn start(postgres: &Postgres) -> Result<Self> {
        let health = Arc::new(Health::new(Arc::new(Metrics::new())));
        health.redis_up();
        health.backlog_counted(None);
        let env = [("SLUICE_POLICY_FILE", "policies.yaml"), ("SLUICE_DEGRADED_STORE_SECS", "10")];
        let settings = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let live = Live::fixed(&Settings::load(settings.into_iter(), None)?);
        let monitor = Monitor::open(&Secret::new(postgres.url()), Arc::clone(&health), live, StoreClock::default())?;
        Ok(Self { health, monitor })
    }

    /// A round so many seconds after the beginning.
    async fn at(&mut self, secs: i64) -> Result<()> {
        Ok(self.monitor.round(AT_MS + secs * 1000).await?)
    }
}

/// Every alert in its order, as in `drift` while it is open and `drift: recovered` when it is over.
async fn alerts(postgres: &Postgres) -> Result<Vec<String>> {
    let pool = postgres.pool().await?;
    let statement = "SELECT alert_type || coalesce(': ' || resolve_reason, '') FROM quota_alert \
        WHERE merchant_id IS NULL AND currency IS NULL AND alert_level = 'critical' ORDER BY raised_at, alert_id";
    let alerts = sqlx::query_scalar(statement).fetch_all(&pool).await?;
    pool.close().await;
    Ok(alerts)
}

async fn execute(postgres: &Postgres, statement: &'static str) -> Result<()> {
    let pool = postgres.pool().await?;
    sqlx::query(statement).execute(&pool).await?;
    pool.close().await;
    Ok(())
}

async fn postgres() -> Result<Postgres> {
    let postgres = Postgres::start()?;
    UsageLog::new(&Secret::new(postgres.url()))?.probe().await?;
    Ok(postgres)
}

#[tokio::test]
async fn a_store_that_stays_away_is_reported_once() -> Result<()> {
    let postgres = postgres().await?;
    let (mut one, mut two) = (Server::start(&postgres)?, Server::start(&postgres)?);
    one.health.redis_down("gave no answer within 150 ms");
    for secs in [0, 9] {
        one.at(secs).await?;
    }
    // Too short to be reported to operators.
    one.health.redis_up();
    one.at(10).await?;
    one.health.redis_down("gave no answer within 150 ms");
    two.health.redis_down("connection refused");
    for secs in [11, 20] {
        one.at(secs).await?;
        two.at(secs).await?;
        assert_eq!(alerts(&postgres).await?, Vec::<String>::new(), "after {secs} s");
    }
    for secs in [21, 22, 40] {
        one.at(secs).await?;
        two.at(secs).await?;
        assert_eq!(alerts(&postgres).await?, ["degraded_store"], "after {secs} s");
    }
    let raised = "SELECT count(*) FROM quota_alert WHERE subject = 'degraded_store' \
        AND message LIKE 'Redis does not answer: % (gave no answer within 150 ms)' \
        AND extract(epoch FROM raised_at) * 1000 = 1795139200000 + 11000";
    let pool = postgres.pool().await?;
    assert_eq!(sqlx::query_scalar::<_, i64>(raised).fetch_one(&pool).await?, 1);
    pool.close().await;

    // It is over when the last server says so.
    one.health.redis_up();
    one.at(41).await?;
    one.at(60).await?;
    assert_eq!(alerts(&postgres).await?, ["degraded_store"]);
    two.health.redis_up();
    two.at(61).await?;
    assert_eq!(alerts(&postgres).await?, ["degraded_store: recovered"]);
    one.at(80).await?;
    assert_eq!(alerts(&postgres).await?, ["degraded_store: recovered"]);
    Ok(())
}

/// A server that dies takes its word with it: another one ends the alert, and one that still sees the trouble keeps it.
#[tokio::test]
async fn the_word_of_a_dead_server_does_not_count() -> Result<()> {
    let postgres = postgres().await?;
    let (mut dying, mut other) = (Server::start(&postgres)?, Server::start(&postgres)?);
    dying.health.redis_down("away");
    for secs in [0, 10] {
        dying.at(secs).await?;
        other.at(secs).await?;
    }
    other.at(20).await?;
    assert_eq!(alerts(&postgres).await?, ["degraded_store"]);
    drop(dying);
    // Its connection is gone when Postgres says so.
    let gone = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'";
    let pool = postgres.pool().await?;
    testkit::wait::until_async("its locks are gone", crate::bench::WITHIN, || async {
        Ok((sqlx::query_scalar::<_, i64>(gone).fetch_one(&pool).await? == 0).then_some(()))
    })
    .await?;
    pool.close().await;
    // One that has just started has no word yet.
    let mut fresh = Server::start(&postgres)?;
    fresh.health.redis_down("not reached yet");
    fresh.at(25).await?;
    assert_eq!(alerts(&postgres).await?, ["degraded_store"]);
    // Who held it may come back.
    other.at(30).await?;
    assert_eq!(alerts(&postgres).await?, ["degraded_store"]);
    other.at(40).await?;
    assert_eq!(alerts(&postgres).await?, ["degraded_store: recovered"]);
    Ok(())
}

/// A server that loses its connection for a while keeps its word.
#[tokio::test]
async fn a_lost_session_does_not_end_an_alert() -> Result<()> {
    let postgres = postgres().await?;
    let (mut one, mut two) = (Server::start(&postgres)?, Server::start(&postgres)?);
    one.health.redis_down("away");
    for secs in [0, 10] {
        one.at(secs).await?;
        two.at(secs).await?;
    }
    let pool = postgres.pool().await?;
    let cut =
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_locks WHERE locktype = 'advisory' AND mode = 'ShareLock'";
    assert!(sqlx::query_scalar::<_, bool>(cut).fetch_one(&pool).await?);
    pool.close().await;
    two.at(20).await?;
    assert!(one.at(20).await.is_err());
    one.at(21).await?;
    for secs in [30, 40, 50] {
        one.at(secs).await?;
        two.at(secs).await?;
        assert_eq!(alerts(&postgres).await?, ["degraded_store"], "after {secs} s");
    }
    one.health.redis_up();
    one.at(60).await?;
    assert_eq!(alerts(&postgres).await?, ["degraded_store: recovered"]);
    Ok(())
}

/// What happened while Postgres was away is reported when it is back, with the times at which it was so.
#[tokio::test]
async fn alerts_wait_for_postgres() -> Result<()> {
    let mut postgres = postgres().await?;
    let (mut one, mut two) = (Server::start(&postgres)?, Server::start(&postgres)?);
    one.at(0).await?;
    postgres.stop()?;
    for server in [&mut one, &mut two] {
        server.health.backlog_counted(Some("900 events of shard 3 wait, of 1000 at most".to_owned()));
        assert!(server.at(1).await.is_err());
        server.health.backlog_counted(None);
        assert!(server.at(5).await.is_err());
        server.health.redis_down("away");
        assert!(server.at(6).await.is_err());
        assert!(server.at(16).await.is_err());
    }
    postgres.restart()?;
    for server in [&mut one, &mut two] {
        server.at(30).await?;
        assert_eq!(alerts(&postgres).await?, ["journal_backlog: recovered", "degraded_store"]);
    }
    let times = "SELECT count(*) FROM quota_alert WHERE alert_type = 'journal_backlog' AND resolved_by = 'system' \
        AND resolved_at - raised_at = interval '4 seconds' AND message LIKE '%(900 events of shard 3 wait, of 1000 at most)'";
    let pool = postgres.pool().await?;
    assert_eq!(sqlx::query_scalar::<_, i64>(times).fetch_one(&pool).await?, 1);
    pool.close().await;
    Ok(())
}

/// What a person has ended by hand does not come again while the same trouble lasts.
#[tokio::test]
async fn an_end_by_hand_stays() -> Result<()> {
    const BY_HAND: &str = "UPDATE quota_alert SET resolved_at = greatest(now(), raised_at), resolved_by = 'ann', \
        resolve_reason = 'by_hand' WHERE resolved_at IS NULL";
    let postgres = postgres().await?;
    let mut server = Server::start(&postgres)?;
    server.health.redis_down("away");
    for secs in [0, 10] {
        server.at(secs).await?;
    }
    // The clocks of this test are ahead of Postgres's.
    let ended = "UPDATE quota_alert SET resolved_at = raised_at + interval '15 seconds', resolved_by = 'ann', \
        resolve_reason = 'by_hand'";
    execute(&postgres, ended).await?;
    for secs in [20, 40] {
        server.at(secs).await?;
        assert_eq!(alerts(&postgres).await?, ["degraded_store: by_hand"]);
    }
    server.health.redis_up();
    server.at(50).await?;
    server.health.redis_down("away again");
    for secs in [60, 70] {
        server.at(secs).await?;
    }
    assert_eq!(alerts(&postgres).await?, ["degraded_store: by_hand", "degraded_store"]);
    server.health.redis_up();
    server.at(80).await?;

    let anomaly = "INSERT INTO journal_anomaly (shard, kind, first_seq, last_seq) VALUES (1, 'missing', 5, 9)";
    execute(&postgres, anomaly).await?;
    server.at(90).await?;
    let drift = async || -> Result<Vec<String>> {
        Ok(alerts(&postgres).await?.into_iter().filter(|alert| alert.starts_with("drift")).collect())
    };
    assert_eq!(drift().await?, ["drift"]);
    execute(&postgres, BY_HAND).await?;
    server.at(100).await?;
    assert_eq!(drift().await?, ["drift: by_hand"]);
    let rewound = "INSERT INTO journal_anomaly (shard, kind, first_seq, last_seq) VALUES (1, 'rewound', 20, 29)";
    execute(&postgres, rewound).await?;
    server.at(110).await?;
    assert_eq!(drift().await?, ["drift: by_hand", "drift"]);
    Ok(())
}

/// The journal finds a gap, and closes it when its events arrive: so do the operators' alerts.
#[tokio::test]
async fn books_that_do_not_agree_are_reported_until_they_do() -> Result<()> {
    let bench = Bench::start()?;
    bench.append(0, (1..=3).map(event)).await?;
    let mut connection = bench.connection().await?;
    redis::cmd("XDEL").arg(sluice_store::keys::stream(0)).arg("0-2").query_async::<()>(&mut connection).await?;
    let journal = bench.journal("a")?;
    bench.wait_for("SELECT count(*) FROM journal_anomaly WHERE resolved_at IS NULL", 1).await?;
    let (mut one, mut two) = (Server::start(&bench.postgres)?, Server::start(&bench.postgres)?);
    one.at(0).await?;
    two.at(0).await?;
    assert_eq!(alerts(&bench.postgres).await?, ["drift"]);
    let raised = "SELECT count(*) FROM quota_alert WHERE message = \
        'The journal is incomplete: 1 events are missing, Redis reused sequence numbers 0 times (journal_anomaly)'";
    assert_eq!(bench.count(raised).await?, 1);
    execute(&bench.postgres, "UPDATE journal_anomaly SET resolved_at = now()").await?;
    one.at(20).await?;
    assert_eq!(alerts(&bench.postgres).await?, ["drift: recovered"]);
    journal.stop()
}
