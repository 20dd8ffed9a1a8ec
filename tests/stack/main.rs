//! The harness itself: each part starts, hangs, dies and comes back as tests will ask of it.

use std::time::Duration;

use e2e::{Service, postgres::Postgres, redis::Redis};

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::test]
async fn redis_keeps_its_data_through_a_restart_and_loses_them_when_told() -> Outcome {
    let mut server = Redis::start()?;
    let mut connection = server.connection().await?;
    let () = redis::cmd("SET").arg("k").arg("v").query_async(&mut connection).await?;
    server.restart()?;
    let mut connection = server.connection().await?;
    assert_eq!(
        redis::cmd("GET")
            .arg("k")
            .query_async::<Option<String>>(&mut connection)
            .await?
            .as_deref(),
        Some("v")
    );
    server.restart_empty()?;
    let mut connection = server.connection().await?;
    assert_eq!(
        redis::cmd("GET")
            .arg("k")
            .query_async::<Option<String>>(&mut connection)
            .await?,
        None
    );
    Ok(())
}

#[tokio::test]
async fn valkey_takes_partial_stream_ids() -> Outcome {
    let server = Redis::start_valkey()?;
    let mut connection = server.connection().await?;
    for expected in ["0-1", "0-2"] {
        let id: String = redis::cmd("XADD")
            .arg("s")
            .arg("0-*")
            .arg("f")
            .arg("v")
            .query_async(&mut connection)
            .await?;
        assert_eq!(id, expected);
    }
    Ok(())
}

#[tokio::test]
async fn postgres_hangs_when_paused_and_recovers_when_killed() -> Outcome {
    let mut server = Postgres::start()?;
    let pool = server.pool().await?;
    sqlx::query("CREATE TABLE t (n int)").execute(&pool).await?;
    server.pause()?;
    let asked = tokio::time::timeout(Duration::from_millis(300), sqlx::query("SELECT 1").execute(&pool)).await;
    assert!(asked.is_err(), "a paused server answered");
    server.resume()?;
    sqlx::query("INSERT INTO t VALUES (7)").execute(&pool).await?;
    assert!(server.cpu_time()? > Duration::ZERO);
    server.kill()?;
    server.restart()?;
    let pool = server.pool().await?;
    let number: i32 = sqlx::query_scalar("SELECT n FROM t").fetch_one(&pool).await?;
    assert_eq!(number, 7);
    Ok(())
}
