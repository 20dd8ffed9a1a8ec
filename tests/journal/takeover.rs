//! What a journal holds when it stops for a while or loses a connection: stored events whose accounts are not stored, and events
//! in hand that another journal has stored meanwhile.

use std::time::Duration;

use proto::journal::EventContext;
use sluice_settings::Secret;
use sluice_store::keys;
use testkit::{Result, Service};

use crate::bench::{AT_MS, Bench, Journal, SHARDS, event};
use crate::line::Line;

const HOUR: Duration = Duration::from_secs(3600);
const HOUR_MS: i64 = 3_600_000;
const SEQ: &str = "SELECT seq FROM quota_account WHERE merchant_id = 'm-1'";

fn an_hour_later(number: u64) -> EventContext {
    EventContext { at_ms: AT_MS + HOUR_MS, ..event(number) }
}

/// The journal that reads stops with events in hand, another one stores and removes them, and it goes on. Whether the other
/// still reads by then, and whether Redis has given the numbers to other events meanwhile: each event is stored once, and none is
/// removed unread. The account is as the last event left it.
#[tokio::test]
async fn a_journal_that_goes_on_after_another_took_over_removes_nothing_unread() -> Result<()> {
    for (emptied, other_stays, last, rows, duplicates, seq) in [
        (false, false, 110, 111, "sluice_journal_duplicates_total 110", 110),
        (true, false, 110, 111, "sluice_journal_duplicates_total 60", 60),
        (true, true, 60, 61, "sluice_journal_duplicates_total 50", 10),
    ] {
        let bench = Bench::start()?;
        let (redis, postgres) = (Line::to(&bench.redis.url()).await?, Line::to(&bench.postgres.url()).await?);
        let mut config = bench.config("stopped");
        config.redis_url = Secret::new(redis.url());
        config.postgres_url = Secret::new(postgres.url());
        // It is to stop in the midst of storing, not of another check.
        config.check_interval = HOUR;
        let stopped = Journal::start(config)?;
        // Its first check and all else that it begins with are over then.
        bench.append(1, [EventContext { merchant: "m-2".to_owned(), ..event(1000) }]).await?;
        bench.wait_until_drained(SHARDS).await?;
        stopped.wait_for_metric("sluice_journal_lag_seconds 0.0").await?;
        postgres.hold();
        bench.append(0, (1..=50).map(event)).await?;
        stopped.wait_until_in_hand().await?;
        redis.hold();

        let mut config = bench.config("other");
        config.lease = Duration::from_secs(60);
        let mut other = Some(Journal::start(config)?);
        bench.wait_for_rows(51).await?;
        bench.wait_until_drained(SHARDS).await?;
        if !other_stays && let Some(other) = other.take() {
            other.stop()?;
        }
        if emptied {
            redis::cmd("DEL").arg(keys::stream(0)).query_async::<()>(&mut bench.connection().await?).await?;
        }
        bench.append(0, (51..=last).map(an_hour_later)).await?;
        if other_stays {
            bench.wait_for_rows(rows).await?;
            bench.wait_until_drained(SHARDS).await?;
        }

        postgres.let_go();
        redis.let_go();
        bench.wait_for_rows(rows).await?;
        bench.wait_until_drained(SHARDS).await?;
        stopped.wait_for_metric(duplicates).await?;
        stopped.stop()?;
        other.map_or(Ok(()), Journal::stop)?;
        assert_eq!(bench.count("SELECT count(DISTINCT event_id) FROM usage_log").await?, rows);
        assert_eq!(bench.count(SEQ).await?, seq, "emptied {emptied}, the other stays {other_stays}");
    }
    Ok(())
}

/// A journal that has lost its lease says no more how old events are, although some wait: for another journal.
#[tokio::test]
async fn only_who_reads_reports_how_old_events_are() -> Result<()> {
    let bench = Bench::start()?;
    let postgres = Line::to(&bench.postgres.url()).await?;
    let mut config = bench.config("left");
    config.postgres_url = Secret::new(postgres.url());
    let left = Journal::start(config)?;
    left.wait_for_postgres(true).await?;
    postgres.hold();
    bench.append(0, (1..=50).map(event)).await?;
    left.wait_until_in_hand().await?;
    let mut lease = redis::cmd("SET");
    lease.arg(keys::JOURNAL_LEASE).arg("other").arg("PX").arg(HOUR.as_millis() as u64);
    lease.query_async::<()>(&mut bench.connection().await?).await?;
    postgres.let_go();
    left.wait_for_metric("sluice_journal_lag_seconds 0.0").await?;
    assert!(left.metrics.encode().contains("sluice_journal_backlog_events 50"), "{}", left.metrics.encode());
    left.stop()
}

/// Makes it impossible to store accounts; they can be read all the same.
const REFUSE_ACCOUNTS: &str = "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE undefined_table; END $$; \
    CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON quota_account EXECUTE FUNCTION refuse()";
/// Makes it possible again.
const TAKE_ACCOUNTS: &str = "DROP TRIGGER refuse ON quota_account";

async fn execute(bench: &Bench, statement: &'static str) -> Result<()> {
    let pool = bench.postgres.pool().await?;
    sqlx::raw_sql(statement).execute(&pool).await?;
    pool.close().await;
    Ok(())
}

/// A running journal that has stored fifty events and cannot store their account.
async fn between_events_and_accounts(bench: &Bench) -> Result<Journal> {
    let journal = bench.journal("a")?;
    journal.wait_for_postgres(true).await?;
    execute(bench, REFUSE_ACCOUNTS).await?;
    bench.append(0, (1..=50).map(event)).await?;
    bench.wait_for_rows(50).await?;
    journal.wait_for_postgres(false).await?;
    Ok(journal)
}

#[tokio::test]
async fn postgres_goes_away_between_events_and_accounts() -> Result<()> {
    let mut bench = Bench::start()?;
    let journal = between_events_and_accounts(&bench).await?;
    bench.postgres.kill()?;
    bench.append(1, (51..=60).map(|number| EventContext { merchant: "m-2".to_owned(), ..event(number) })).await?;
    journal.wait_for_metric("sluice_journal_backlog_events 60").await?;
    bench.postgres.restart()?;
    execute(&bench, TAKE_ACCOUNTS).await?;
    bench.wait_for_rows(60).await?;
    bench.wait_until_drained(SHARDS).await?;
    assert_eq!(bench.count(SEQ).await?, 50);
    assert_eq!(bench.count("SELECT seq FROM quota_account WHERE merchant_id = 'm-2'").await?, 10);
    journal.wait_for_metric("sluice_journal_missing_events 0").await?;
    journal.stop()
}

/// Accounts of events that Redis has lost are not taken for newer than those of events that have their numbers.
#[tokio::test]
async fn accounts_of_a_lost_connection_are_forgotten() -> Result<()> {
    let mut bench = Bench::start()?;
    let journal = between_events_and_accounts(&bench).await?;
    bench.redis.restart_empty()?;
    bench.append(0, (51..=53).map(event)).await?;
    bench.wait_for_rows(53).await?;
    execute(&bench, TAKE_ACCOUNTS).await?;
    bench.wait_until_drained(SHARDS).await?;
    journal.stop()?;
    assert_eq!(bench.count(SEQ).await?, 3);
    Ok(())
}
