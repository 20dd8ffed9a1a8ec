//! A decision server that is down, silent, or answers what cannot be acted upon: an enforced payment is answered 503 within
//! its time, a lenient or a watched one goes on, and what may have been charged is taken back.

use std::time::{Duration, Instant};

use proto::{extension, header};
use testkit::client::{Answer, Payment, Protocol, send_once};
use testkit::envoy::Host;
use testkit::{Context, Result, wait};
use tokio::task::JoinSet;

use crate::fake::{LENIENT, Rig, Says};
use crate::suite::Suite;

/// The filter waits half a second; the rest is a busy machine's.
const ANSWERED_WITHIN: Duration = Duration::from_secs(3);
/// Voids are tried again with growing pauses.
const VOIDED_WITHIN: Duration = Duration::from_secs(60);

/// Where payments go, and by which path.
const ROUTES: [(&str, &str); 3] =
    [("enforced", "/v1/payments"), ("lenient", LENIENT), ("shadow", "/v1/shadow/payments")];
/// Payments at once.
const TOGETHER: usize = 12;

const ANSWERS: &[Says] = &[
    Says::Garbage,
    Says::HalfFrame,
    Says::Nothing,
    Says::NoCode,
    Says::UnknownCode,
    Says::AllowsRefusal,
    Says::Contradicts,
    // Envoy's words for: not known there, wrong protocol, not reachable.
    Says::Status(12),
    Says::Status(13),
    Says::Status(14),
    // The same of each question by itself.
    Says::Fails(8),
    Says::Fails(14),
    Says::TooFew,
    Says::NoGrpc,
    Says::Silent,
    Says::HangsUp,
    Says::Shuts,
    Says::Http1,
];

pub(crate) fn add(suite: &mut Suite) {
    suite.alone("no_answer::no_answer_that_cannot_be_acted_upon_lets_a_payment_through", async || {
        let rig = Rig::start(|_| Ok(()))?;
        no_such_answer_passes(&rig).await.inspect_err(|_| rig.keep())
    });
    suite.alone("no_answer::a_cluster_that_speaks_http1", async || {
        let rig = Rig::start(|config| {
            let clusters = config.bootstrap()["static_resources"]["clusters"].as_sequence_mut();
            let asked = clusters.into_iter().flatten().find(|cluster| cluster["name"] == "sluice_authz");
            let cluster = asked.and_then(|cluster| cluster.as_mapping_mut());
            let cluster = cluster.ok_or_else(|| testkit::Failure::new("there is no cluster of the server"))?;
            // Envoy refuses a cluster that is checked by gRPC and speaks HTTP/1.1.
            for part in ["health_checks", "typed_extension_protocol_options"] {
                ensure!(cluster.remove(part).is_some(), "the cluster has no {part}");
            }
            Ok(())
        })?;
        rig.server.says(Says::Http1);
        try_all(&rig, "http1").await.inspect_err(|_| rig.keep())
    });
    // The native host uses no cluster.
    if Host::chosen().is_ok_and(|host| host == Host::Wasm) {
        suite.alone("no_answer::a_cluster_that_does_not_exist", async || {
            let mut plugin = crate::fake::lenient_plugin()?;
            plugin["cluster"] = "nowhere".into();
            let rig = Rig::start(|config| config.set_plugin(&plugin))?;
            try_all(&rig, "nowhere").await.inspect_err(|_| rig.keep())?;
            // No server was asked, so there is nothing to take back.
            ensure!(rig.envoy.metric("sluice_void_sent")?.abs() < 0.5, "a void was sent, and no server had been asked");
            Ok(())
        });
    }
}

async fn no_such_answer_passes(rig: &Rig) -> Result<()> {
    for says in ANSWERS {
        rig.server.says(*says);
        try_all(rig, &format!("{says:?}")).await.context(format!("{says:?}"))?;
    }
    // Each of the enforced payments may have been charged as far as the filter knows, so each attempt is taken back.
    rig.server.says(Says::Admitted);
    let enforced = |asked: &testkit::fake::Asked| {
        asked.get(extension::ORDER_NO).is_some_and(|order| order.contains("payments-enforced"))
    };
    let asked = rig.server.asked();
    let attempts: Vec<_> =
        asked.iter().filter(|asked| enforced(asked)).filter_map(|asked| asked.get(extension::ATTEMPT)).collect();
    ensure!(attempts.len() >= 2 * (ANSWERS.len() - 4), "only {} enforced payments came to the server", attempts.len());
    // Of most kinds several were asked about in one call.
    let together = rig.server.calls().iter().filter(|call| call.len() > 1 && call.iter().any(enforced)).count();
    ensure!(together >= ANSWERS.len() / 2, "only {together} calls asked about several");
    wait::until_async("every attempt voided", VOIDED_WITHIN, || async {
        let voided = rig.server.attempts(extension::ACTION_VOID);
        Ok(attempts.iter().all(|attempt| voided.contains(attempt)).then_some(()))
    })
    .await?;
    let answer = rig.send(Protocol::Http1, Payment::new("m", "after", 100).call()).await?;
    ensure_eq!(answer.status, 200, "{}", answer.json());
    Ok(())
}

/// Payments on an enforced, a lenient and a watched route, on both protocols: one after the other, then all at once, so that they
/// are asked about together.
async fn try_all(rig: &Rig, name: &str) -> Result<()> {
    for protocol in Protocol::BOTH {
        for (route, path) in ROUTES {
            let order = format!("{name}-{protocol:?}-payments-{route}").replace(['(', ')'], "-");
            let payment = Payment::new("m", &order, 100).path(path);
            let since = Instant::now();
            let answer = rig.send(protocol, payment.call()).await?;
            judge(rig, name, route, &order, &answer, since.elapsed()).context(order)?;
        }
    }
    let mut together = JoinSet::new();
    for number in 0..TOGETHER {
        let (route, path) = ROUTES[number % ROUTES.len()];
        let order = format!("{name}-{number}-payments-{route}").replace(['(', ')'], "-");
        let call = Payment::new("m", &order, 100).path(path).call();
        let (address, protocol) = (rig.envoy.address(), Protocol::BOTH[number / ROUTES.len() % 2]);
        together.spawn(async move {
            let since = Instant::now();
            let answer = send_once(address, protocol, call).await;
            (route, order, answer, since.elapsed())
        });
    }
    while let Some(ended) = together.join_next().await {
        let (route, order, answer, took) = ended?;
        judge(rig, name, route, &order, &answer.context(&order)?, took).context(order)?;
    }
    Ok(())
}

fn judge(rig: &Rig, name: &str, route: &str, order: &str, answer: &Answer, took: Duration) -> Result<()> {
    ensure!(took < ANSWERED_WITHIN, "answered after {took:?}");
    let seen = rig.gateway.seen_order(order);
    if route == "enforced" {
        ensure!(seen.is_empty(), "the gateway saw {seen:?}");
        return unavailable(answer);
    }
    let [request] = seen.as_slice() else {
        return Err(testkit::Failure::new(format!("the gateway saw {seen:?}")));
    };
    ensure_eq!(answer.status, 200);
    let code = request.headers.get(header::CODE).and_then(|code| code.to_str().ok());
    let expected = if name == "AllowsRefusal" && route == "shadow" { "DAILY_AMOUNT" } else { "AUTHZ_UNAVAILABLE" };
    ensure_eq!(code, Some(expected));
    Ok(())
}

/// The filter's own refusal where it got no answer.
pub(crate) fn unavailable(answer: &Answer) -> Result<()> {
    refused_without_decision(answer, "AUTHZ_UNAVAILABLE")
}

/// The filter's own refusal where the server says that its store gave no answer.
pub(crate) fn store_unavailable(answer: &Answer) -> Result<()> {
    refused_without_decision(answer, "STORE_UNAVAILABLE")
}

fn refused_without_decision(answer: &Answer, code: &str) -> Result<()> {
    ensure_eq!(answer.status, 503, "{}", answer.json());
    ensure_eq!(answer.code(), code, "{}", answer.json());
    ensure_eq!(answer.header(header::CODE), Some(code));
    ensure_eq!(answer.header(header::RETRY_AFTER), Some("1"));
    ensure_eq!(answer.header("content-type"), Some("application/problem+json"));
    Ok(())
}
