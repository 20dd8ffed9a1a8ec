//! The configuration service: down at the start, down later, garbage, half good; and back.

use testkit::Result;

use crate::bench::{Node, OFTEN, Service, postgres};

#[tokio::test]
async fn a_service_that_is_down_at_the_start_is_found_later_and_lost_again() -> Result<()> {
    let postgres = postgres().await?;
    let mut service = Service::down()?;
    let url = service.url();
    let env = [("CONFIG_SERVICE_URL", url.as_str()), ("SLUICE_REDIS_TIMEOUT_MS", "100")];
    let node = Node::start(&postgres, OFTEN, &env).await?;
    node.wait_for_failures("away", 2).await?;
    node.wait_until_current(false).await?;
    assert_eq!(node.live.current().redis_timeout_ms, 100, "the environment's");
    assert_eq!(node.live.current().check_timeout_ms, 250, "the default");

    service.say(r#"{"redis_timeout_ms": 120, "log": "warn"}"#);
    service.start()?;
    node.wait_for("redis_timeout_ms", "120").await?;
    node.wait_until_current(true).await?;

    service.stop();
    node.wait_for_failures("away", 2).await?;
    node.wait_until_current(false).await?;
    assert_eq!(
        (node.live.current().redis_timeout_ms, node.live.current().log.as_str()),
        (120, "warn"),
        "the last good"
    );

    service.say(r#"{"log": "warn"}"#);
    service.start()?;
    node.wait_for("redis_timeout_ms", "100").await?;
    node.wait_until_current(true).await?;
    node.stop().await
}

#[tokio::test]
async fn garbage_and_the_half_good_are_refused_whole() -> Result<()> {
    let postgres = postgres().await?;
    let service = Service::with(r#"{"redis_timeout_ms": 120}"#)?;
    let node = Node::start(&postgres, OFTEN, &[("CONFIG_SERVICE_URL", &service.url())]).await?;
    assert_eq!(node.live.current().redis_timeout_ms, 120, "read before the start goes on");
    let before = node.live.current();
    let large = format!(r#"{{"log": "{}"}}"#, "x".repeat(70_000));
    let refused = [
        "",
        "null",
        "[]",
        "<html></html>",
        r#"{"log": "debug""#,
        r#"{"log": "debug"} {}"#,
        r#"{"log": "debug", "log": "warn"}"#,
        r#"{"log": "debug", "redis_timeout_ms": null}"#,
        r#"{"log": "debug", "redis_timeout_ms": [130]}"#,
        r#"{"log": "debug", "redis_timeout_ms": 4}"#,
        r#"{"log": "debug", "redis_timeout_ms": 1e2}"#,
        r#"{"log": "debug", "redis_timeout_ms": 250}"#,
        r#"{"log": "debug", "redis_timeout": 130}"#,
        r#"{"log": "debug", "SLUICE_REDIS_TIMEOUT_MS": 130}"#,
        r#"{"log": "debug", "port": 1}"#,
        r#"{"log": "debug", "jwt_secret": "hunter2"}"#,
        r#"{"redis_timeout_ms": 130, "log": "a=b=c"}"#,
        // B6
        r#"{"redis_timeout_ms": 130, "log": "warning"}"#,
        r#"{"redis_timeout_ms": 130, "log": "debgu"}"#,
        &large,
    ];
    for body in refused {
        service.say(body);
        // The second one was asked for after the answer changed.
        node.wait_for_failures("refused", 2).await?;
        assert_eq!(node.live.current(), before, "{body}");
        node.wait_until_current(false).await?;
    }
    let away = [
        ("500 Internal Server Error", ""),
        ("204 No Content", ""),
        ("301 Moved Permanently", "location: /elsewhere\r\n"),
    ];
    for (status, headers) in away {
        service.answer_with(status, headers, r#"{"log": "debug"}"#);
        node.wait_for_failures("away", 2).await?;
        assert_eq!(node.live.current(), before, "{status}");
    }
    service.say(r#"{"redis_timeout_ms": "130", "log": "debug"}"#);
    node.wait_for("log", "debug").await?;
    assert_eq!(node.live.current().redis_timeout_ms, 130);
    node.wait_until_current(true).await?;
    node.stop().await
}

/// Every server receives the same: the record has it once, with old and new.
#[tokio::test]
async fn what_the_service_changes_is_recorded_once() -> Result<()> {
    let postgres = postgres().await?;
    let service = Service::with(r#"{"hold_sweep_ms": 700}"#)?;
    let url = service.url();
    let env = [("CONFIG_SERVICE_URL", url.as_str())];
    let (a, b) = (Node::start(&postgres, OFTEN, &env).await?, Node::start(&postgres, OFTEN, &env).await?);
    service.say(r#"{"hold_sweep_ms": 800}"#);
    a.wait_for("hold_sweep_ms", "800").await?;
    b.wait_for("hold_sweep_ms", "800").await?;
    service.say(r#"{}"#);
    a.wait_for("hold_sweep_ms", "1000").await?;
    b.wait_for("hold_sweep_ms", "1000").await?;
    // The record is written after the change is in force, and at the stop at the latest.
    let looks = a.repository.clone();
    a.stop().await?;
    b.stop().await?;
    let query = sluice_settings::runtime::HistoryQuery { limit: 100, ..Default::default() };
    let rows = looks.history(query).await?.items;
    let found: Vec<_> =
        rows.iter().map(|row| (row.version, row.old_value.as_deref(), row.new_value.as_deref())).collect();
    let expected = [(3, Some("800"), Some("1000")), (2, Some("700"), Some("800")), (1, Some("1000"), Some("700"))];
    assert_eq!(found, expected);
    assert!(rows.iter().all(|row| row.actor == "config_service" && row.reason == url), "{rows:?}");
    Ok(())
}
