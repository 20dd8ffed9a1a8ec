//! Settings that change while the server runs, against real Postgres: a change holds as a whole or not at all, reaches every
//! server at once, and is recorded with who, when, old, new and why.

mod bench;
mod process;
mod service;

use serde_json::{Value, json};
use sluice_settings::runtime::{Change, ChangeError, HistoryQuery};
use testkit::{Result, Service as _, api};

use bench::{NEVER, Node, OFTEN, postgres};

/// Version, key, old and new value of each row, newest first.
async fn recorded(node: &Node) -> Result<Vec<(u64, String, Option<String>, Option<String>)>> {
    let rows = node.history().await?;
    Ok(rows.into_iter().map(|row| (row.version, row.key, row.old_value, row.new_value)).collect())
}

/// A row that a server of before wrote under a setting's former name is read, replaced and reset under the present one.
#[tokio::test]
async fn a_setting_that_was_renamed_leaves_no_row_behind() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres, NEVER, &[]).await?;
    let lease = || node.live.current().journal_lease_ms;
    let former = "INSERT INTO runtime_setting (key, value, version, changed_by) VALUES ('journal_claim_idle_ms', '2000', 1, 'ana')";
    sqlx::query(former).execute(&postgres.pool().await?).await?;
    node.change("ana", json!({"journal_lease_ms": 3000})).await?;
    assert_eq!(lease(), 3_000);
    node.change("ana", json!({"journal_lease_ms": null})).await?;
    assert_eq!(lease(), 5_000, "the default, not the former name's value");
    node.change("ana", json!({"journal_claim_idle_ms": 4000})).await?;
    assert_eq!(Node::start(&postgres, NEVER, &[]).await?.live.current().journal_lease_ms, 4_000);
    Ok(())
}

#[tokio::test]
async fn a_change_in_one_server_reaches_the_others_and_is_recorded() -> Result<()> {
    let postgres = postgres().await?;
    let a = Node::start(&postgres, NEVER, &[("SLUICE_REDIS_TIMEOUT_MS", "100")]).await?;
    let b = Node::start(&postgres, NEVER, &[]).await?;
    let changed = a.change("ana", json!({"redis_timeout_ms": 120, "log": "info,sluice_store=debug"})).await?;
    assert_eq!((changed.version, changed.changes.len()), (1, 2));
    // At once here, as soon as it is notified there: no server looks in this test.
    assert_eq!(a.live.current().redis_timeout_ms, 120);
    b.wait_for("redis_timeout_ms", "120").await?;
    assert_eq!(b.live.current().log.as_str(), "info,sluice_store=debug");
    assert_eq!(b.repository.list().version, 1);

    let removed = b.change("ben", json!({"redis_timeout_ms": null, "hold_sweep_ms": "2000"})).await?;
    assert_eq!(removed.version, 2);
    a.wait_for("hold_sweep_ms", "2000").await?;
    assert_eq!(a.live.current().redis_timeout_ms, 100, "the environment's again");
    assert_eq!(b.live.current().redis_timeout_ms, 150, "the default again");

    let rows = a.history().await?;
    assert_eq!(rows, b.history().await?);
    let text = |text: &str| Some(text.to_owned());
    let expected = [
        (2, "ben", "hold_sweep_ms", text("1000"), text("2000"), false),
        (2, "ben", "redis_timeout_ms", text("120"), text("150"), true),
        (1, "ana", "log", text("info"), text("info,sluice_store=debug"), false),
        (1, "ana", "redis_timeout_ms", text("100"), text("120"), false),
    ];
    let mut found: Vec<_> = rows
        .iter()
        .map(|row| {
            assert_eq!(row.reason, "a test");
            (
                row.version,
                row.actor.as_str(),
                row.key.as_str(),
                row.old_value.clone(),
                row.new_value.clone(),
                row.removed,
            )
        })
        .collect();
    found.sort_by(|one, other| (other.0, one.2).cmp(&(one.0, other.2)));
    assert_eq!(found, expected);

    // What is so already is no change.
    let same = a.change("ana", json!({"hold_sweep_ms": 2000})).await?;
    assert_eq!((same.version, same.changes.len()), (2, 0));
    assert_eq!(a.history().await?.len(), 4);
    a.stop().await?;
    b.stop().await
}

#[tokio::test]
async fn a_change_with_anything_wrong_changes_nothing() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres, NEVER, &[("DB_PASSWORD", "")]).await;
    assert!(node.is_err(), "DATABASE_URL and DB_PASSWORD contradict each other");
    let secret = &format!("hunter2-{}", api::secret());
    let node = Node::start(&postgres, NEVER, &[("JWT_SECRET", secret.as_str())]).await?;
    node.change("ana", json!({"hold_sweep_ms": 700})).await?;
    let (before, listed) = (node.live.current(), serde_json::to_value(node.repository.list())?);
    let long = "x".repeat(5000);
    let table = [
        (json!({"log": "debug", "redis_timeout_ms": 4}), "redis_timeout_ms", "a whole number from 5 to 10000"),
        (json!({"log": "debug", "redis_timeout_ms": -4}), "redis_timeout_ms", "redis_timeout_ms is '-4'"),
        (json!({"log": "debug", "redis_timeout_ms": 9.5}), "redis_timeout_ms", "redis_timeout_ms is '9.5'"),
        (json!({"log": "debug", "redis_timeout_ms": true}), "redis_timeout_ms", "redis_timeout_ms is 'true'"),
        (json!({"log": "debug", "redis_timeout_ms": ""}), "redis_timeout_ms", "redis_timeout_ms is empty"),
        (json!({"log": "debug", "redis_timeout_ms": [9]}), "redis_timeout_ms", "must be a text"),
        (
            json!({"log": "debug", "redis_timeout_ms": 250}),
            "check_timeout_ms",
            "must be greater than SLUICE_REDIS_TIMEOUT_MS",
        ),
        (
            json!({"log": "debug", "check_timeout_ms": 150}),
            "check_timeout_ms",
            "must be greater than SLUICE_REDIS_TIMEOUT_MS",
        ),
        (json!({"redis_timeout_ms": 90, "log": "a=b=c"}), "log", "off, error, warn, info, debug or trace"),
        (json!({"redis_timeout_ms": 90, "log": "warning"}), "log", "off, error, warn, info, debug or trace"),
        (json!({"redis_timeout_ms": 90, "log": "debgu"}), "log", "log is 'debgu'"),
        (json!({"redis_timeout_ms": 90, "log": long}), "log", "at most 4096 bytes"),
        (json!({"log": "debug", "port": 1}), "port", "cannot change while the server runs"),
        (json!({"log": "debug", "shards": 8}), "shards", "cannot change while the server runs"),
        (json!({"log": "debug", "jwt_secret": secret}), "jwt_secret", "cannot change while the server runs"),
        (json!({"log": "debug", "database_url": null}), "database_url", "cannot change while the server runs"),
        (json!({"log": "debug", "enable_config_client": false}), "enable_config_client", "cannot change"),
        (json!({"log": "debug", "redis_timeout": 9}), "redis_timeout", "nearest known names are redis_timeout_ms"),
        (json!({"log": "debug", "SLUICE_HOLD_SWEEP_MS": 900}), "hold_sweep_ms", "is not a setting"),
        (json!({"log": "debug", long.as_str(): 1}), "changes", "a name of more than 64 bytes"),
        (json!({}), "changes", "must hold 1 to"),
    ];
    for (changes, field, part) in table {
        let error = node.change("ana", changes.clone()).await.expect_err(&changes.to_string());
        assert_eq!((error.code(), error.field()), ("SETTING_INVALID", Some(field)), "{changes}: {error}");
        assert!(error.to_string().contains(part) && !error.to_string().contains("hunter2"), "{changes}: {error}");
    }
    for reason in ["", " ", "a\nb", &"x".repeat(1001)] {
        let changes = [("log".to_owned(), json!("debug"))].into();
        let change = Change { changes, reason: reason.to_owned(), expected_version: None };
        let error = node.repository.change("ana", change).await.expect_err(reason);
        assert_eq!((error.code(), error.field()), ("SETTING_INVALID", Some("reason")), "{error}");
    }
    assert_eq!(node.live.current(), before);
    assert_eq!(serde_json::to_value(node.repository.list())?, listed);
    assert!(!listed.to_string().contains("hunter2"), "{listed}");
    assert_eq!(node.history().await?.len(), 1);
    let stored: Vec<String> =
        sqlx::query_scalar("SELECT key FROM runtime_setting").fetch_all(&postgres.pool().await?).await?;
    assert_eq!(stored, ["hold_sweep_ms"]);
    // The same process takes a good one after all that.
    node.change("ana", json!({"redis_timeout_ms": 250, "check_timeout_ms": 251})).await?;
    node.stop().await
}

#[tokio::test]
async fn of_changes_on_one_version_one_wins() -> Result<()> {
    let postgres = postgres().await?;
    let (a, b) = (Node::start(&postgres, NEVER, &[]).await?, Node::start(&postgres, NEVER, &[]).await?);
    let change = |node, value: u64| Node::change_on(node, "ana", json!({"hold_sweep_ms": value}), Some(0));
    let outcomes = tokio::join!(change(&a, 201), change(&b, 202), change(&a, 203), change(&b, 204), change(&a, 205));
    let outcomes = [outcomes.0, outcomes.1, outcomes.2, outcomes.3, outcomes.4];
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1, "{outcomes:?}");
    for error in outcomes.into_iter().filter_map(std::result::Result::err) {
        assert!(matches!(error, ChangeError::Version { expected: 0, actual: 1 }), "{error}");
        assert_eq!((error.code(), error.field()), ("VERSION_CONFLICT", Some("expected_version")));
    }
    assert_eq!(recorded(&a).await?.len(), 1);

    // Without a version, changes of different settings all count, one after the other.
    let outcomes = tokio::join!(
        a.change("ana", json!({"window_sweep_secs": 20})),
        b.change("ben", json!({"policy_refresh_secs": 21})),
        a.change("ana", json!({"admin_page_max": 22})),
        b.change("ben", json!({"admin_rate_per_minute": 23})),
    );
    let mut versions = [outcomes.0?, outcomes.1?, outcomes.2?, outcomes.3?].map(|changed| changed.version);
    versions.sort_unstable();
    assert_eq!(versions, [2, 3, 4, 5]);
    for node in [&a, &b] {
        for (key, value) in [("window_sweep_secs", "20"), ("policy_refresh_secs", "21"), ("admin_page_max", "22")] {
            node.wait_for(key, value).await?;
        }
        node.wait_for("admin_rate_per_minute", "23").await?;
    }
    // Two changes that fit each by itself, and not together: the second is refused whichever it is.
    let outcomes = tokio::join!(
        a.change("ana", json!({"redis_timeout_ms": 200})),
        b.change("ben", json!({"check_timeout_ms": 180})),
    );
    assert!(outcomes.0.is_ok() != outcomes.1.is_ok(), "{outcomes:?}");
    a.stop().await?;
    b.stop().await
}

/// Two servers whose environments differ: a change that does not fit one of them is refused there, and said.
#[tokio::test]
async fn a_change_that_does_not_fit_another_server_leaves_that_one_as_it_was() -> Result<()> {
    let postgres = postgres().await?;
    let wide = Node::start(&postgres, NEVER, &[("SLUICE_CHECK_TIMEOUT_MS", "900")]).await?;
    let narrow = Node::start(&postgres, NEVER, &[]).await?;
    wide.change("ana", json!({"redis_timeout_ms": 500, "log": "warn"})).await?;
    narrow.wait_until_current(false).await?;
    assert_eq!(narrow.metric("sluice_settings_failures_total{kind=\"refused\"}"), 1);
    assert_eq!((narrow.live.current().redis_timeout_ms, narrow.live.current().log.as_str()), (150, "info"));
    wide.change("ana", json!({"check_timeout_ms": 900})).await?;
    narrow.wait_for("redis_timeout_ms", "500").await?;
    narrow.wait_until_current(true).await?;
    assert_eq!(narrow.live.current().log.as_str(), "warn");
    wide.stop().await?;
    narrow.stop().await
}

#[tokio::test]
async fn what_is_written_by_hand_is_notified_and_checked_too() -> Result<()> {
    let postgres = postgres().await?;
    let pool = postgres.pool().await?;
    let node = Node::start(&postgres, NEVER, &[]).await?;
    let insert = "INSERT INTO runtime_setting (key, value, version, changed_by) VALUES ($1, $2, 0, 'hand')";
    sqlx::query(insert).bind("hold_sweep_ms").bind("900").execute(&pool).await?;
    node.wait_for("hold_sweep_ms", "900").await?;
    for (key, value) in [("redis_timeout_ms", "4"), ("port", "1"), ("no_such", "1")] {
        sqlx::query(insert).bind(key).bind(value).execute(&pool).await?;
        node.wait_until_current(false).await?;
        assert_eq!(node.live.current().hold_sweep_ms, 900);
        // A change on top of what does not fit would put that in force, so it is refused with the name of the culprit.
        let error = node.change("ana", json!({"log": "warn"})).await.expect_err(key);
        assert_eq!(error.field(), Some(key), "{error}");
        sqlx::query("DELETE FROM runtime_setting WHERE key = $1").bind(key).execute(&pool).await?;
        node.wait_until_current(true).await?;
    }
    // One that mends is taken.
    sqlx::query(insert).bind("redis_timeout_ms").bind("4").execute(&pool).await?;
    node.wait_until_current(false).await?;
    node.change("ana", json!({"redis_timeout_ms": null, "log": "warn"})).await?;
    node.wait_until_current(true).await?;
    assert_eq!(recorded(&node).await?.len(), 2);
    for sql in [
        "DELETE FROM runtime_setting_audit",
        "UPDATE runtime_setting_audit SET actor = 'mallory'",
        "TRUNCATE runtime_setting_audit",
    ] {
        assert!(sqlx::query(sql).execute(&pool).await.is_err(), "{sql}");
    }
    node.stop().await
}

#[tokio::test]
async fn a_database_that_is_away_changes_nothing_and_is_found_again() -> Result<()> {
    let mut postgres = postgres().await?;
    let a = Node::start(&postgres, OFTEN, &[]).await?;
    a.change("ana", json!({"hold_sweep_ms": 700})).await?;
    postgres.stop()?;
    a.wait_until_current(false).await?;
    let error = a.change("ana", json!({"hold_sweep_ms": 800})).await.expect_err("postgres is away");
    assert_eq!((error.code(), error.field()), ("DATABASE_UNAVAILABLE", None), "{error}");
    assert_eq!(a.live.current().hold_sweep_ms, 700, "the last good value");
    // A server that starts now has what its file and environment say.
    let b = Node::start(&postgres, OFTEN, &[("SLUICE_HOLD_SWEEP_MS", "600")]).await?;
    assert_eq!((b.live.current().hold_sweep_ms, b.repository.list().up_to_date), (600, false));
    assert_eq!(b.metric("sluice_settings_current"), 0);

    postgres.restart()?;
    b.wait_for("hold_sweep_ms", "700").await?;
    a.wait_until_current(true).await?;
    a.change("ana", json!({"hold_sweep_ms": 800})).await?;
    b.wait_for("hold_sweep_ms", "800").await?;

    // One that hangs is given up in time.
    postgres.pause()?;
    let error = a.change("ana", json!({"hold_sweep_ms": 900})).await.expect_err("postgres hangs");
    assert_eq!(error.code(), "DATABASE_UNAVAILABLE", "{error}");
    assert_eq!(a.live.current().hold_sweep_ms, 800);
    postgres.resume()?;
    b.change("ben", json!({"hold_sweep_ms": 1000})).await?;
    a.wait_for("hold_sweep_ms", "1000").await?;
    a.stop().await?;
    b.stop().await
}

/// The connection that listens dies, and no server looks for a day: it is made again, and what was missed is read.
#[tokio::test]
async fn a_lost_connection_is_made_again_and_nothing_missed() -> Result<()> {
    let postgres = postgres().await?;
    let pool = postgres.pool().await?;
    let (a, b) = (Node::start(&postgres, NEVER, &[]).await?, Node::start(&postgres, NEVER, &[]).await?);
    for value in ["201", "202", "203"] {
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'LISTEN%'")
            .execute(&pool)
            .await?;
        a.change("ana", json!({"hold_sweep_ms": value})).await?;
        b.wait_for("hold_sweep_ms", value).await?;
    }
    a.stop().await?;
    b.stop().await
}

#[tokio::test]
async fn the_record_has_pages() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres, NEVER, &[]).await?;
    for number in 0..5 {
        node.change("ana", json!({"hold_sweep_ms": 200 + number, "window_sweep_secs": 20 + number})).await?;
    }
    let all = node.history().await?;
    let mut query = HistoryQuery { limit: 4, ..HistoryQuery::default() };
    let mut read = Vec::new();
    let mut pages = 0;
    loop {
        let page = node.repository.history(query.clone()).await?;
        assert!(page.items.len() <= 4);
        read.extend(page.items);
        pages += 1;
        query.before = page.next;
        if page.next.is_none() {
            break;
        }
    }
    assert_eq!((pages, read.len()), (3, 10));
    assert_eq!(read, all);
    let one = HistoryQuery { key: Some("hold_sweep_ms".to_owned()), before: None, limit: 5 };
    let page = node.repository.history(one).await?;
    assert!(page.next.is_none() && page.items.len() == 5, "a last page that is full has none after it");
    assert!(page.items.iter().all(|row| row.key == "hold_sweep_ms"));
    node.stop().await
}

#[tokio::test]
async fn where_nothing_may_change_a_change_says_so() -> Result<()> {
    let postgres = postgres().await?;
    let service = bench::Service::with("{}")?;
    let node = Node::start(&postgres, NEVER, &[("CONFIG_SERVICE_URL", &service.url())]).await?;
    let error = node.change("ana", json!({"hold_sweep_ms": 700})).await.expect_err("changed elsewhere");
    assert!(matches!(error, ChangeError::Elsewhere) && error.code() == "SETTINGS_FIXED", "{error}");
    assert_eq!(serde_json::to_value(node.repository.list())?.get("changed_in"), Some(&Value::from("config_service")));
    node.stop().await?;

    let settings = bench::settings(&postgres, &[("ENABLE_CONFIG_CLIENT", "false")])?;
    assert!(sluice_settings::runtime::Source::of(&settings)?.is_none());
    let pool = sluice_kit::database::pool(&settings.postgres_url(), 1)?;
    let live = sluice_settings::Live::fixed(&settings);
    let metrics = sluice_kit::metrics::Metrics::new();
    let repository = sluice_settings::runtime::Repository::new(&settings, live, pool, &metrics);
    let changes = [("hold_sweep_ms".to_owned(), json!(700))].into();
    let change = Change { changes, reason: "a test".to_owned(), expected_version: None };
    let error = repository.change("ana", change).await.expect_err("fixed");
    assert!(matches!(error, ChangeError::Fixed) && error.code() == "SETTINGS_FIXED", "{error}");
    assert_eq!(serde_json::to_value(repository.list())?.get("changed_in"), Some(&Value::from("nothing")));
    Ok(())
}
