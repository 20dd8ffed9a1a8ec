//! Outcomes that a single answer does not show: retries and redirects that Envoy follows, tries that it hedges, and a
//! gateway that says the outcome itself.

use std::time::Duration;

use serde_json::json;
use testkit::books::{books_agree, settles_at};
use testkit::client::{Call, Payment, Protocol};
use testkit::envoy::EnvoyConfig;
use testkit::gateway::HEADER;
use testkit::stack::{Stack, StackOptions};
use testkit::{Context, Failure, Result, wait};

use crate::logs::{lines_of, outcome};
use crate::suite::{Suite, patient, wait_longer};

/// The shipped route of payments, and what it has here besides.
const ROUTE: &str = "            match: {path: /v1/payments}\n            route: {cluster: gateway, timeout: 5s}";
const RETRYING: &str = "            match: {path: /v1/payments}\n            route:\n              cluster: gateway\n              timeout: 5s\n              \
     retry_policy: {retry_on: reset, num_retries: 2, per_try_timeout: 0.5s}\n              \
     hedge_policy: {hedge_on_per_try_timeout: true}\n              \
     internal_redirect_policy: {max_internal_redirects: 1, redirect_response_codes: [307]}";

/// What the gateway does, and what follows.
struct Row {
    behaviour: &'static str,
    status: u16,
    /// Requests at the gateway.
    tries: usize,
    outcome: &'static str,
}

const fn row(behaviour: &'static str, status: u16, tries: usize, outcome: &'static str) -> Row {
    Row { behaviour, status, tries, outcome }
}

/// The first try breaks off or hangs, and the last one is answered.
const RETRIED: &[Row] = &[
    row("then-422", 422, 2, "unknown"),
    row("then-402", 402, 2, "unknown"),
    row("then-500", 500, 2, "unknown"),
    row("then-200", 200, 2, "kept"),
    row("late-422", 422, 2, "unknown"),
    row("late-200", 200, 2, "kept"),
    // One try is one, whatever the route's policy would allow.
    row("fail-422", 422, 1, "voided"),
    row("status-200", 200, 1, "kept"),
];

const SAID: &[Row] = &[
    row("says-made-200", 200, 1, "kept"),
    row("says-made-406", 406, 1, "kept"),
    row("says-made-500", 500, 1, "kept"),
    row("says-not_made-200", 200, 1, "voided"),
    row("says-not_made-500", 500, 1, "voided"),
    row("says-unknown-200", 200, 1, "unknown"),
    row("says-unknown-422", 422, 1, "unknown"),
    row("says-perhaps-422", 422, 1, "unknown"),
];

/// What was reported is stored by the journal.
const STORED_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn add(suite: &mut Suite) {
    suite.shared("outcomes::x2_unknown_outcomes_are_reported_and_settled_by_a_retry", reported_and_settled);
    suite.owned("outcomes::f7_retries_and_redirects_leave_it_unknown", changed(), retries_and_redirects);
    suite.owned("outcomes::x2_the_gateway_says_it_itself", changed(), said_by_the_gateway);
}

fn changed() -> StackOptions {
    StackOptions { change: Some(retry_and_read), ..patient() }
}

fn retry_and_read(config: &mut EnvoyConfig) -> Result<()> {
    wait_longer(config)?;
    let mut plugin = config.plugin()?;
    for rule in plugin["rules"].as_array_mut().into_iter().flatten().filter(|rule| rule["name"] == "payments") {
        rule["outcome_header"] = json!("x-payment-outcome");
    }
    config.set_plugin(&plugin)?;
    let routes = config.routes().to_owned();
    ensure!(routes.contains(ROUTE), "the shipped route file has another route of payments");
    config.set_routes(&routes.replacen(ROUTE, RETRYING, 1));
    Ok(())
}

async fn retries_and_redirects(stack: &mut Stack) -> Result<()> {
    for protocol in Protocol::BOTH {
        for (number, row) in RETRIED.iter().enumerate() {
            try_row(stack, protocol, &format!("retried-{protocol:?}-{number}"), row).await.context(row.behaviour)?;
        }
        redirected(stack, protocol).await.context("redirected")?;
    }
    Ok(())
}

async fn said_by_the_gateway(stack: &mut Stack) -> Result<()> {
    for (number, row) in SAID.iter().enumerate() {
        let protocol = Protocol::BOTH[number % 2];
        try_row(stack, protocol, &format!("said-{number}"), row).await.context(row.behaviour)?;
    }
    let unreadable = stack.envoy.metric("sluice_outcome_unreadable")?;
    ensure!((unreadable - 1.0).abs() < 0.5, "sluice_outcome_unreadable is {unreadable}");
    Ok(())
}

async fn try_row(stack: &Stack, protocol: Protocol, merchant: &str, row: &Row) -> Result<()> {
    let order = format!("{merchant}-1");
    let answer = stack.send(protocol, Payment::new(merchant, &order, 6_000).gateway(row.behaviour).call()).await?;
    ensure_eq!(answer.status, row.status, "{}", answer.json());
    ensure_eq!(stack.gateway.seen_order(&order).len(), row.tries, "requests at the gateway");
    ensure_eq!(outcome(&stack.envoy, &order)?, row.outcome);
    settles_at(stack, merchant, if row.outcome == "voided" { (0, 0) } else { (6_000, 1) }).await?;
    books_agree(stack, merchant).await.map(drop)
}

/// Envoy follows the gateway's redirect by itself: to a path that no rule matches. What was charged stays, although
/// nothing is known of the payment any more.
async fn redirected(stack: &Stack, protocol: Protocol) -> Result<()> {
    let merchant = format!("redirected-{protocol:?}");
    let order = format!("{merchant}-1");
    // Envoy itself follows whole URLs only.
    let payment = Payment::new(&merchant, &order, 6_000).gateway("moved-http://payments/v1/statements");
    let answer = stack.send(protocol, payment.call()).await?;
    ensure_eq!(answer.status, 307, "{}", answer.json());
    let seen: Vec<String> = stack.gateway.seen_order(&order).into_iter().map(|request| request.path).collect();
    ensure_eq!(seen, ["/v1/payments", "/v1/statements"]);
    settles_at(stack, &merchant, (6_000, 1)).await?;
    let lines = lines_of(&stack.envoy, &order, 1)?;
    let unknown = lines.iter().any(|line| line["sluice"]["outcome"] == "unknown");
    ensure!(unknown, "{lines:?}");
    books_agree(stack, &merchant).await.map(drop).map_err(|failure: Failure| failure.while_doing("the books"))
}

/// Order, operation, reason, resolution and who resolved it.
type Unknown = (String, String, String, Option<String>, Option<String>);

/// What a row is to be: resolved, where it is, by the proxy.
type Brief<'a> = (&'a str, &'a str, &'a str, Option<&'a str>);

async fn unknown_rows(stack: &Stack, merchant: &str) -> Result<Vec<Unknown>> {
    let statement = "SELECT order_no, operation, reason, resolution, resolved_by FROM unknown_outcome \
                     WHERE merchant_id = $1 ORDER BY since, order_no";
    let pool = stack.postgres.pool().await?;
    let rows = sqlx::query_as(statement).bind(merchant).fetch_all(&pool).await;
    pool.close().await;
    Ok(rows?)
}

fn brief((order, operation, reason, resolution, by): &Unknown) -> Brief<'_> {
    let by_proxy = by.as_deref().is_none_or(|by| by == "proxy");
    (order, operation, reason, if by_proxy { resolution.as_deref() } else { Some("by another") })
}

async fn unknown_become(stack: &Stack, merchant: &str, expected: &[Brief<'_>]) -> Result<()> {
    let become_so = wait::until_async("the unknown outcomes", STORED_WITHIN, || async {
        let rows = unknown_rows(stack, merchant).await?;
        Ok((rows.iter().map(brief).collect::<Vec<_>>() == expected).then_some(()))
    });
    match become_so.await {
        Ok(()) => Ok(()),
        Err(failure) => {
            let last = unknown_rows(stack, merchant).await;
            Err(failure.while_doing(format!("waiting for {expected:?}, last {last:?}")))
        }
    }
}

/// A charge that failed at the gateway and is tried again: its success settles it, its refusal does not. The same of a sale and of a
/// capture.
async fn reported_and_settled(stack: &Stack) -> Result<()> {
    let (merchant, protocol) = ("reported", Protocol::Http1);
    let pay = async |order: &str, behaviour: &str, status: u16| {
        let answer = stack.send(protocol, Payment::new(merchant, order, 1_000).gateway(behaviour).call()).await?;
        ensure_eq!(answer.status, status, "{order} {behaviour}: {}", answer.json());
        Ok(())
    };
    let post = async |path: &str, order: &str, more: serde_json::Value, behaviour: &str, status: u16| {
        let mut body = json!({"merchant_id": merchant, "currency": "USD", "order_no": order});
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        let call = Call::post_json(path, body.to_string()).header(HEADER, behaviour);
        let answer = stack.send(protocol, call).await?;
        ensure_eq!(answer.status, status, "{order} {behaviour}: {}", answer.json());
        Ok::<_, Failure>(())
    };
    pay("reported-1", "fail-500", 500).await?;
    unknown_become(stack, merchant, &[("reported-1", "consume", "status_500", None)]).await?;
    pay("reported-2", "reset", 503).await?;
    let open = ("reported-2", "consume", "flag_UC", None);
    unknown_become(stack, merchant, &[("reported-1", "consume", "status_500", None), open]).await?;
    pay("reported-1", "status-200", 200).await?;
    pay("reported-2", "fail-422", 422).await?;
    let settled = ("reported-1", "consume", "status_500", Some("made"));
    unknown_become(stack, merchant, &[settled, open]).await?;
    let amount = || json!({"amount": 1_000});
    post("/v1/sales", "reported-3", amount(), "fail-503", 503).await?;
    unknown_become(stack, merchant, &[settled, open, ("reported-3", "hold", "status_503", None)]).await?;
    post("/v1/sales", "reported-3", amount(), "status-200", 200).await?;
    let sold = ("reported-3", "hold", "status_503", Some("made"));
    unknown_become(stack, merchant, &[settled, open, sold]).await?;
    post("/v1/authorizations", "reported-4", amount(), "status-200", 200).await?;
    let capture = || json!({"capture_no": "c-1", "amount": 1_000, "final": true});
    post("/v1/authorizations/reported-4/captures", "reported-4", capture(), "status-406", 406).await?;
    unknown_become(stack, merchant, &[settled, open, sold, ("reported-4", "settle", "status_406", None)]).await?;
    post("/v1/authorizations/reported-4/captures", "reported-4", capture(), "status-200", 200).await?;
    let captured = ("reported-4", "settle", "status_406", Some("made"));
    unknown_become(stack, merchant, &[settled, open, sold, captured]).await?;
    settles_at(stack, merchant, (4_000, 4)).await?;
    books_agree(stack, merchant).await.map(drop)
}
