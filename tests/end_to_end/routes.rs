//! Operators switch routes in the route file while payments run: each switch is in force at once, and no request fails by it.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proto::header;
use testkit::books::books_agree;
use testkit::client::{Client, Payment, Protocol, send_once};
use testkit::envoy::{RouteState, with_route};
use testkit::policies::SINGLE_MAX;
use testkit::stack::Stack;
use testkit::{Failure, Result, wait};
use tokio::task::JoinHandle;

use crate::suite::{Suite, patient};

/// The promise is a second; a busy machine gets some more.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(5);
/// The enforced route in the route file.
const ROUTE: &str = "payments";

/// What a route does with a payment that it should refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Refused,
    /// It went through, and the gateway could read why it should not.
    Watched,
    /// It went through unseen.
    Open,
}

pub(crate) fn add(suite: &mut Suite) {
    suite.owned("routes::are_switched_under_traffic", patient(), are_switched_under_traffic);
    suite.owned("routes::a_slip_in_the_route_file_enforces", patient(), a_slip_enforces);
}

async fn are_switched_under_traffic(stack: &mut Stack) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    let traffic = Protocol::BOTH.map(|protocol| pay_on(stack.envoy.address(), protocol, Arc::clone(&stop)));
    let mut standing = stack.client(Protocol::Http1).await?;
    let mut number = 0;
    ensure_eq!(probe(stack, &mut standing, &mut number).await?, Seen::Refused);
    for (state, expected) in [
        (RouteState::Shadow, Seen::Watched),
        (RouteState::Off, Seen::Open),
        (RouteState::Enforce, Seen::Refused),
        (RouteState::Removed, Seen::Open),
        (RouteState::Enforce, Seen::Refused),
    ] {
        let since = Instant::now();
        stack.switch_route(ROUTE, state)?;
        loop {
            let seen = probe(stack, &mut standing, &mut number).await?;
            if seen == expected {
                break;
            }
            ensure!(since.elapsed() < IN_FORCE_WITHIN, "{state:?}: still {seen:?}");
        }
        println!("{state:?} in force after {} ms", since.elapsed().as_millis());
        for _ in 0..10 {
            ensure_eq!(probe(stack, &mut standing, &mut number).await?, expected, "after switching to {state:?}");
        }
    }
    stop.store(true, Ordering::Relaxed);
    for paying in traffic {
        let paid = paying.await??;
        ensure!(paid > 20, "only {paid} payments were made meanwhile");
    }
    books_agree(stack, "roomy").await.map(drop)
}

/// One payment after the other within all limits, until it is stopped; every one must get through.
fn pay_on(address: SocketAddr, protocol: Protocol, stop: Arc<AtomicBool>) -> JoinHandle<Result<u64>> {
    tokio::spawn(async move {
        let mut client = Client::connect(address, protocol).await?;
        let mut paid = 0;
        while !stop.load(Ordering::Relaxed) {
            let order = format!("roomy-{protocol:?}-{paid}");
            let answer = client.send(Payment::new("roomy", &order, 100).call()).await?;
            ensure_eq!(answer.status, 200, "{order}: {}", answer.json());
            paid += 1;
        }
        Ok(paid)
    })
}

/// Tries a payment over the single maximum, over a standing connection and a new one of the other protocol in turn.
async fn probe(stack: &Stack, standing: &mut Client, number: &mut u32) -> Result<Seen> {
    *number += 1;
    let order = format!("probe-{number}");
    let call = Payment::new("probe", &order, SINGLE_MAX + 1).call();
    let answer = match *number % 2 {
        0 => standing.send(call).await?,
        _ => send_once(stack.envoy.address(), Protocol::Http2, call).await?,
    };
    let seen = stack.gateway.seen_order(&order);
    match (answer.status, seen.as_slice()) {
        (403, []) => Ok(Seen::Refused),
        (200, [request]) => match request.headers.get(header::CODE).map(|code| code.as_bytes()) {
            Some(b"ABOVE_SINGLE_MAX") => Ok(Seen::Watched),
            None => Ok(Seen::Open),
            Some(code) => Err(Failure::new(format!("{order}: {}", String::from_utf8_lossy(code)))),
        },
        other => Err(Failure::new(format!("{order}: {other:?}"))),
    }
}

/// A word that is no mode, YAML's own reading of `off`, and a file that is none: each of them enforces.
async fn a_slip_enforces(stack: &mut Stack) -> Result<()> {
    let shadow = with_route(stack.envoy.routes(), ROUTE, RouteState::Shadow)?;
    let mut client = stack.client(Protocol::Http1).await?;
    let mut number = 0;
    for word in ["\"shdow\"", "\"Shadow\"", "\"\"", "false", "0", "[\"off\"]"] {
        let before = stack.envoy.metric("sluice_unknown_mode")?;
        let slip = shadow.replacen("\"mode\": \"shadow\"", &format!("\"mode\": {word}"), 1);
        ensure!(slip != shadow, "the route file has another form");
        stack.envoy.switch_routes(&slip)?;
        wait::until_async("the slip in force", IN_FORCE_WITHIN, || async {
            send_once(stack.envoy.address(), Protocol::Http1, Payment::new("slip", "slip", 100).call()).await?;
            Ok((stack.envoy.metric("sluice_unknown_mode")? > before).then_some(()))
        })
        .await?;
        for _ in 0..4 {
            ensure_eq!(probe(stack, &mut client, &mut number).await?, Seen::Refused, "mode: {word}");
        }
    }
    let log = fs::read_to_string(stack.dir().join("envoy.log"))?;
    let named = log.matches("route \"payments\": metadata sluice.mode is an unknown mode").count();
    ensure_eq!(named, 1, "Envoy's log names the route once");
    broken_file_changes_nothing(stack, &mut client, &mut number).await
}

async fn broken_file_changes_nothing(stack: &mut Stack, client: &mut Client, number: &mut u32) -> Result<()> {
    let rejected = || -> Result<f64> {
        let names = ["envoy_http_rds_update_rejected", "envoy_http_rds_update_failure"];
        Ok(names.map(|name| stack.envoy.metric(name)).into_iter().collect::<Result<Vec<_>>>()?.iter().sum())
    };
    let before = rejected()?;
    let fresh = stack.dir().join("broken.yaml");
    fs::write(&fresh, "resources: [{\"@type\": type.googleapis.com/envoy.config.route.v3.RouteConfiguration, name: 7")?;
    fs::rename(fresh, stack.dir().join("routes/routes.yaml"))?;
    wait::until("the broken file refused", IN_FORCE_WITHIN, || Ok((rejected()? > before).then_some(())))?;
    for _ in 0..4 {
        ensure_eq!(probe(stack, client, number).await?, Seen::Refused, "after a broken file");
    }
    Ok(())
}
