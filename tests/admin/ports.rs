//! Who reaches which port: what takes charges without a token, probes while the API is exhausted, and figures of merchants.

use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use testkit::api::secret;
use testkit::client::{Call, Protocol, send_once};
use testkit::server::Server;
use testkit::{Result, wait};

use crate::bench::{Bench, WITHIN, ask, token};
use crate::keys::{Signer, claims, with};

/// Another address of this machine: what listens on 127.0.0.1 alone is not found there.
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];
/// More than the admin port has places for.
const IDLE: usize = 600;
/// How long a probe waits for its answer as load balancers do.
const PROBE_WITHIN: Duration = Duration::from_secs(2);

/// X9: the port that takes charges without a token is on loopback, unless it is bound on purpose, which each start warns of.
#[test]
fn x9_the_ext_authz_port_is_reached_from_this_machine_unless_bound_on_purpose() -> Result<()> {
    const WARNING: &str =
        "the ext_authz port takes charges and refunds without authentication: let only envoy reach it";
    let check = |server: &Server, reached: bool| {
        let elsewhere = SocketAddr::from((ELSEWHERE, server.grpc_address().port()));
        assert_eq!(TcpStream::connect(elsewhere).is_ok(), reached, "{elsewhere}");
        let warned = server.log_lines().iter().filter(|line| line["message"] == WARNING).count();
        assert_eq!(warned, usize::from(reached), "{elsewhere}");
    };
    let bench = Bench::start()?;
    check(&bench.server, false);
    // Both write one log.
    check(&bench.another(&[("JWT_SECRET", secret()), ("SLUICE_GRPC_BIND", "0.0.0.0")])?, true);
    Ok(())
}

/// X10: connections that are held open for nothing keep neither probes nor callers out, on the admin port and beside it.
#[tokio::test]
async fn x10_probes_and_callers_are_answered_beside_600_idle_connections() -> Result<()> {
    let bench = Bench::start()?;
    for (begin, port) in [("", "the admin port"), ("GET /api/v1/quo", "the admin port"), ("", "the probes' port")] {
        let address =
            if port == "the admin port" { bench.server.admin_address() } else { bench.server.probe_address() };
        let mut held = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            let mut stream = TcpStream::connect(address)?;
            std::io::Write::write_all(&mut stream, begin.as_bytes())?;
            held.push(stream);
        }
        let started = Instant::now();
        for probe in [bench.server.admin_address(), bench.server.probe_address()] {
            for path in ["/health", "/ready", "/ready/payments", "/metrics"] {
                let answer = send_once(probe, Protocol::Http1, Call::new("GET", path)).await?;
                assert_eq!(answer.status, 200, "{path} with {IDLE} idle connections to {port}");
            }
        }
        assert_eq!(bench.get("/api/v1/usage-logs/stats", &token("operator")?).await?.status, 200);
        assert!(started.elapsed() < PROBE_WITHIN, "{port}: {:?}", started.elapsed());
        drop(held);
    }
    Ok(())
}

/// X10: the probes' port has nothing else.
#[tokio::test]
async fn x10_the_probes_port_has_probes_only() -> Result<()> {
    let bench = Bench::start()?;
    let token = format!("Bearer {}", token("admin")?);
    for (method, path, status) in [
        ("GET", "/health", 200),
        ("POST", "/health", 405),
        ("GET", "/", 404),
        ("GET", "/api/v1/usage-logs/stats", 404),
        ("POST", "/api/v1/quotas/consume", 404),
        ("GET", "/openapi.json", 404),
        ("GET", "/swagger/index.html", 404),
    ] {
        let call = Call::new(method, path).header("authorization", &token);
        let answer = send_once(bench.server.probe_address(), Protocol::Http1, call).await?;
        assert_eq!(answer.status, status, "{method} {path}");
    }
    Ok(())
}

/// X10: how much business a merchant has is shown to those who may see all merchants.
#[tokio::test]
async fn x10_figures_of_single_merchants_take_a_token() -> Result<()> {
    let often = ("SLUICE_USAGE_RATE_SECS", "1");
    let bench = Bench::with(&[("JWT_SECRET", secret()), often])?;
    let charge = json!({"merchant_id": "merchant-001", "currency": "USD", "order_no": "A", "amount": 5_000});
    let (operator, admin) = (token("operator")?, token("admin")?);
    assert_eq!(bench.post("/api/v1/quotas/consume", &operator, &charge).await?.status, 200);
    let own = with(claims("merchant"), json!({"merchant_id": "merchant-001"}));
    let own = Signer::secret(secret()).sign(&own)?;
    let narrow = Signer::secret(secret()).sign(&with(claims("operator"), json!({"merchant_id": "merchant-001"})))?;
    let shown = |text: &[u8]| String::from_utf8_lossy(text).contains("merchant_id=\"merchant-001\"");
    wait::until_async("the merchant's usage", WITHIN, || async {
        let answer = ask(&bench.server, Call::new("GET", "/metrics"), &operator).await?;
        Ok(shown(&answer.body).then_some(()))
    })
    .await?;
    for address in [bench.server.admin_address(), bench.server.probe_address()] {
        for (token, status, expected) in [
            (None, 200, false),
            (Some(&operator), 200, true),
            (Some(&admin), 200, true),
            (Some(&own), 403, false),
            (Some(&narrow), 403, false),
            (Some(&"nonsense".to_owned()), 401, false),
        ] {
            let call = Call::new("GET", "/metrics");
            let call = match token {
                Some(token) => call.header("authorization", &format!("Bearer {token}")),
                None => call,
            };
            let answer = send_once(address, Protocol::Http1, call).await?;
            assert_eq!((answer.status, shown(&answer.body)), (status, expected), "{address} {token:?}");
        }
    }
    Ok(())
}
