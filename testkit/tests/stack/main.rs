//! The harness itself: each part starts, hangs, dies and comes back as tests will ask of it.

mod checks;
mod clocks;
mod recall;
mod reports;
mod shards;
mod threads;
mod trailers;

use std::time::{Duration, Instant};

use testkit::client::{Part, Payment, Protocol};
use testkit::envoy::RouteState;
use testkit::postgres::Postgres;
use testkit::redis::Redis;
use testkit::stack::{Stack, StackOptions};
use testkit::{Service, wait};

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::test]
async fn redis_keeps_its_data_through_a_restart_and_loses_them_when_asked() -> Outcome {
    let mut server = Redis::start()?;
    let mut connection = server.connection().await?;
    let () = redis::cmd("SET").arg("k").arg("v").query_async(&mut connection).await?;
    server.restart()?;
    let mut connection = server.connection().await?;
    assert_eq!(redis::cmd("GET").arg("k").query_async::<Option<String>>(&mut connection).await?.as_deref(), Some("v"));
    server.restart_empty()?;
    let mut connection = server.connection().await?;
    assert_eq!(redis::cmd("GET").arg("k").query_async::<Option<String>>(&mut connection).await?, None);
    Ok(())
}

#[tokio::test]
async fn valkey_takes_partial_stream_ids() -> Outcome {
    let server = Redis::start_valkey()?;
    let mut connection = server.connection().await?;
    for expected in ["0-1", "0-2"] {
        let id: String = redis::cmd("XADD").arg("s").arg("0-*").arg("f").arg("v").query_async(&mut connection).await?;
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
    // Much more than the tick of a clock that counts hundredths of a second.
    sqlx::query("SELECT sum(n) FROM generate_series(1, 3000000) AS n").execute(&pool).await?;
    assert!(server.cpu_time()? > Duration::ZERO);
    let killed = server.pid();
    server.kill()?;
    server.restart()?;
    let pool = server.pool().await?;
    let number: i32 = sqlx::query_scalar("SELECT n FROM t").fetch_one(&pool).await?;
    assert_eq!(number, 7);

    // The kernel has room for few segments of shared memory: none is left behind. The fifth column is who made one.
    let pids = [killed, server.pid()].map(|pid| pid.to_string());
    drop(server);
    let segments = std::fs::read_to_string("/proc/sysvipc/shm")?;
    let left: Vec<&str> = segments
        .lines()
        .filter(|line| line.split_whitespace().nth(4).is_some_and(|pid| pids.iter().any(|own| own == pid)))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

/// One merchant with 100.00 for one payment.
const POLICIES: &str = r#"
version: stack
default:
  timezone: UTC
merchants:
  m:
    single_max: 10000
"#;

fn stack() -> testkit::Result<Stack> {
    Stack::start(&StackOptions { policies: Some(POLICIES.to_owned()), ..StackOptions::default() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_route_is_switched_within_a_second_by_renaming_the_route_file() -> Outcome {
    let mut stack = stack()?;
    let over_the_limit = Payment::new("m", "o", 10_001);
    let mut client = stack.client(Protocol::Http1).await?;
    for (state, status, at_gateway) in [
        (RouteState::Enforce, 403, None),
        (RouteState::Shadow, 200, Some("ABOVE_SINGLE_MAX")),
        (RouteState::Enforce, 403, None),
        (RouteState::Off, 200, None),
        (RouteState::Enforce, 403, None),
        (RouteState::Removed, 200, None),
        (RouteState::Enforce, 403, None),
    ] {
        let switched_at = Instant::now();
        stack.switch_route("payments", state)?;
        // Envoy counts the update when its main thread has it; the workers follow.
        loop {
            let seen = stack.gateway.seen().len();
            let answer = client.send(over_the_limit.call()).await?;
            if answer.status == status {
                let request = stack.gateway.seen().into_iter().nth(seen);
                let code = request.as_ref().and_then(|request| request.headers.get(proto::header::CODE));
                assert_eq!(code.and_then(|code| code.to_str().ok()), at_gateway, "{state:?}");
                assert_eq!(request.is_some(), status == 200, "{state:?}");
                break;
            }
            assert!(switched_at.elapsed() < Duration::from_secs(1), "{state:?}: still {}", answer.status);
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_hangs_or_dies_lets_nothing_through_and_comes_back() -> Outcome {
    let mut stack = stack()?;
    let before = stack.server.pid();
    stack.server.pause()?;
    let asked_at = Instant::now();
    let answer = stack.send(Protocol::Http2, Payment::new("m", "hang", 100).call()).await?;
    assert_eq!((answer.status, answer.code().as_str()), (503, "AUTHZ_UNAVAILABLE"), "{:?}", answer.json());
    assert!(asked_at.elapsed() < Duration::from_secs(2), "{:?}", asked_at.elapsed());
    stack.server.resume()?;
    stack.server.kill()?;
    let answer = stack.send(Protocol::Http2, Payment::new("m", "down", 100).call()).await?;
    assert_eq!((answer.status, answer.code().as_str()), (503, "AUTHZ_UNAVAILABLE"), "{:?}", answer.json());
    assert_eq!(stack.gateway.count(), 0);
    stack.server.restart()?;
    assert_ne!(stack.server.pid(), before);
    let address = stack.envoy.address();
    // Envoy's connection to the server may still be waiting out a failed attempt.
    let answer = wait::until_async("an admitted payment", Duration::from_secs(5), || async {
        let answer = testkit::client::send_once(address, Protocol::Http1, Payment::new("m", "up", 100).call()).await?;
        Ok(Some(answer).filter(|answer| answer.status == 200))
    });
    answer.await?;
    assert!(!stack.gateway.seen_order("up").is_empty());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_happened_can_be_read_in_logs_metrics_and_stores() -> Outcome {
    let stack = stack()?;
    for protocol in Protocol::BOTH {
        let mut client = stack.client(protocol).await?;
        let order = format!("{protocol:?}");
        let answer = client.send(Payment::new("m", &order, 700).call()).await?;
        assert_eq!(answer.status, 200, "{protocol:?}: {:?}", answer.json());
        let native = Payment::new("m", &format!("{order}-native"), 10_001).path("/native/v1/payments");
        let answer = client.send(native.call().header("x-sluice-code", "ADMITTED")).await?;
        assert_eq!((answer.status, answer.code().as_str()), (403, "ABOVE_SINGLE_MAX"), "{protocol:?}");
        let leaving = Payment::new("m", "left", 700).call().part(Part::Pause(Duration::from_millis(50)));
        let left = client.send(leaving.part(Part::Abort)).await;
        assert!(left.is_err(), "{protocol:?}: {left:?}");
    }
    assert!(stack.gateway.seen_order("left").is_empty());
    let account = stack.account("m", "USD").await?.ok_or("the account was never charged")?;
    assert_eq!((account.windows.day.amount, account.windows.day.count), (1_400, 2));
    assert!((stack.envoy.metric("sluice_admitted")? - 2.0).abs() < f64::EPSILON);
    let admitted = stack.server.metric("quota_operations_total", &["code=\"ADMITTED\""])?;
    assert!((admitted - 2.0).abs() < f64::EPSILON, "{admitted}");
    let log = wait::until("the access log", Duration::from_secs(5), || {
        Ok(Some(stack.envoy.access_log()?).filter(|log| log.len() >= 6))
    })?;
    let codes: Vec<&str> = log.iter().filter_map(|line| line["sluice"]["code"].as_str()).collect();
    assert_eq!(codes.iter().filter(|code| **code == "ADMITTED").count(), 2, "{log:#?}");
    let native = log.iter().filter(|line| line["route"] == "native-payments");
    assert_eq!(native.map(|line| &line["sluice"]["code"]).collect::<Vec<_>>(), ["ABOVE_SINGLE_MAX"; 2]);
    let decisions = wait::until("the server's log", Duration::from_secs(5), || {
        Ok(Some(stack.server.decisions()).filter(|decisions| decisions.len() >= 4))
    })?;
    assert_eq!(decisions.len(), 4, "{decisions:#?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_and_postgres_absent_for_a_while_are_survived() -> Outcome {
    let mut stack = stack()?;
    let mut client = stack.client(Protocol::Http1).await?;
    stack.postgres.stop()?;
    stack.redis.kill()?;
    let answer = client.send(Payment::new("m", "absent", 100).call()).await?;
    assert_eq!((answer.status, answer.code().as_str()), (503, "STORE_UNAVAILABLE"), "{:?}", answer.json());
    assert_eq!(stack.gateway.count(), 0);
    wait::until("/ready says that they are away", Duration::from_secs(10), || {
        let (status, body) = stack.server.get("/ready")?;
        Ok((status == 503 && body.contains("redis") && body.contains("postgres")).then_some(()))
    })?;
    stack.redis.restart()?;
    stack.postgres.restart()?;
    wait::until("/ready says that they are back", Duration::from_secs(15), || {
        Ok((stack.server.get("/ready")?.0 == 200).then_some(()))
    })?;
    // The server's connection to Redis may report its last failed attempt once more.
    let address = stack.envoy.address();
    let admitted = wait::until_async("an admitted payment", Duration::from_secs(5), || async {
        let payment = Payment::new("m", "back", 100).call();
        let answer = testkit::client::send_once(address, Protocol::Http1, payment).await?;
        Ok((answer.status == 200).then_some(()))
    });
    admitted.await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_that_only_sluice_may_set_are_never_a_clients() -> Outcome {
    const FORGED: &str = "forged";
    let stack = stack()?;
    for protocol in Protocol::BOTH {
        let mut client = stack.client(protocol).await?;
        for (path, decided) in [
            ("/v1/payments", true),
            ("/v1/shadow/payments", true),
            ("/v1/open/payments", false),
            ("/native/v1/payments", true),
            ("/somewhere/else", false),
        ] {
            let order = format!("{protocol:?}{path}");
            let payment = Payment::new("m", &order, 100).path(path).call();
            let names = ["x-sluice-code", "x-sluice-decision-id", "x-sluice-replay", "x-sluice-of-tomorrow"];
            let call = names.iter().fold(payment, |call, name| call.header(name, FORGED));
            // Trailers are cleaned, too, and neither they nor their cleaning stand in the way.
            let answer = client.send(call.trailer("x-sluice-of-tomorrow", FORGED)).await?;
            assert_eq!(answer.status, 200, "{order}: {:?}", answer.json());
            let seen = stack.gateway.seen_order(&order);
            let [request] = seen.as_slice() else { return Err(format!("{order}: {seen:?}").into()) };
            let forged = request.headers.iter().filter(|(_, value)| *value == FORGED);
            assert_eq!(forged.count(), 0, "{order}: {:?}", request.headers);
            let code = request.headers.get(proto::header::CODE).and_then(|code| code.to_str().ok());
            assert_eq!(code, decided.then_some("ADMITTED"), "{order}");
        }
    }
    assert!(stack.envoy.metric("sluice_host_failed")?.abs() < f64::EPSILON);
    Ok(())
}

/// While its charge is being decided, a payment that is read from its head alone is held with the body that arrives. More than
/// the listener buffers (1 MiB) Envoy refuses itself over HTTP/1.1, and its charge is returned.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_payment_that_waits_at_its_headers_keeps_its_body() -> Outcome {
    const BODY_HELD: usize = 600_000;
    const RECEIVED: &str = "envoy_http_downstream_cx_rx_bytes_total";
    let mut plugin = StackOptions::shipped_plugin()?;
    let rule = &mut plugin["rules"][0];
    rule["timeout_ms"] = 20_000.into();
    for field in ["merchant", "amount", "currency", "order_no"] {
        rule["extract"][field] = serde_json::json!([{"header": format!("x-{}", field.replace('_', "-"))}]);
    }
    for field in ["payment_no", "channel"] {
        rule["extract"].as_object_mut().and_then(|extract| extract.remove(field));
    }
    let options = StackOptions { policies: Some(POLICIES.to_owned()), plugin: Some(plugin), ..StackOptions::default() };
    let mut stack = Stack::start(&options)?;
    let address = stack.envoy.address();
    for (protocol, size, status) in [
        (Protocol::Http1, BODY_HELD, 200),
        (Protocol::Http2, BODY_HELD, 200),
        (Protocol::Http1, 3 * BODY_HELD, 413),
        (Protocol::Http2, 3 * BODY_HELD, 200),
    ] {
        let order = format!("{protocol:?}-{size}");
        let before = stack.envoy.metric(RECEIVED)?;
        stack.server.pause()?;
        let body = format!("{{\"order_no\": \"{order}\", \"note\": \"{}\"}}", "n".repeat(size));
        // Of a kind that gateways find no fields in: any other body is read before the charge.
        let mut call = testkit::client::Call::new("POST", "/v1/payments").header("content-type", "text/plain");
        for (name, value) in [("x-merchant", "m"), ("x-amount", "100"), ("x-currency", "USD"), ("x-order-no", &order)] {
            call = call.header(name, value);
        }
        for piece in body.as_bytes().chunks(50_000) {
            call = call.part(Part::Data(piece.to_vec().into()));
        }
        let sent = tokio::spawn(testkit::client::send_once(address, protocol, call));
        let held = wait::until("the body", Duration::from_secs(5), || {
            let all = stack.envoy.metric(RECEIVED)? - before >= size as f64;
            Ok((all || sent.is_finished()).then_some(()))
        });
        stack.server.resume()?;
        held?;
        let answer = sent.await??;
        assert_eq!(answer.status, status, "{order}: {:?}", answer.json());
        let seen = stack.gateway.seen_order(&order);
        assert_eq!(seen.len(), usize::from(status == 200), "{order}");
        if let [request] = seen.as_slice() {
            assert_eq!(request.body, body.as_bytes(), "{order}");
        }
    }
    wait::until_async("three charges", Duration::from_secs(5), || async {
        Ok(stack
            .account("m", "USD")
            .await?
            .filter(|account| (account.windows.day.amount, account.windows.day.count) == (300, 3)))
    })
    .await?;
    Ok(())
}
