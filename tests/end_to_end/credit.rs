//! A credit line at the proxy, with Postgres and without it: what is known counts, what was never known is refused or let through.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::client::{Answer, Payment, Protocol};
use testkit::credit::open_line;
use testkit::server::ReadyWhen;
use testkit::stack::{Stack, StackOptions};
use testkit::{Result, Service, wait};

use crate::outages::ready_says;
use crate::server::pay_until_admitted;
use crate::suite::{Suite, patient};

/// The server notices within some seconds that Postgres is away, or there again; the journal stores within a second.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);
const LIMIT: i64 = 10_000;
const POLICIES: &str = "version: credit\n\
    default: {timezone: UTC, daily_amount: 100000000}\n\
    merchants:\n  lenient: {on_unknown_credit: allow}\n  weighed: {daily_amount: 1000, weight_bp: 20000}\n";

pub(crate) fn add(suite: &mut Suite) {
    let options = StackOptions { policies: Some(POLICIES.to_owned()), ..patient() };
    suite.owned("credit::a_line_counts_with_postgres_and_without", options, with_and_without);
}

fn payment(merchant: &str, number: u32, cents: u64) -> Payment {
    Payment::new(merchant, &format!("{merchant}-{number}"), cents)
}

async fn pay(stack: &Stack, merchant: &str, number: u32, cents: u64) -> Result<Answer> {
    stack.send(Protocol::Http1, payment(merchant, number, cents).call()).await
}

/// The problem of a refusal that no gateway has seen.
fn refused(stack: &Stack, answer: &Answer, (status, code): (u16, &str), order: &str) -> Result<Value> {
    let problem = answer.json();
    ensure_eq!((answer.status, problem["code"].as_str()), (status, Some(code)), "{problem}");
    ensure!(stack.gateway.seen_order(order).is_empty(), "{order} reached the gateway");
    Ok(problem)
}

async fn with_and_without(stack: &mut Stack) -> Result<()> {
    what_a_payment_counts_is_stated(stack).await?;
    for merchant in ["line", "lenient"] {
        open_line(stack, merchant, LIMIT).await?;
    }
    ensure_eq!(pay(stack, "line", 1, 6_000).await?.status, 200, "within the limit");
    a_refusal_says_what_to_pay(stack).await?;
    stack.postgres.kill()?;
    ready_says(stack, "postgres", false)?;
    what_is_known_counts(stack).await?;
    // A server that has never read a line.
    stack.server.stop()?;
    stack.server.options().ready_when = ReadyWhen::Healthy;
    stack.server.restart()?;
    what_was_never_known_is_refused(stack).await?;
    stack.postgres.restart()?;
    ready_says(stack, "postgres", true)?;
    what_is_read_again_counts(stack).await
}

/// A payment with a weight is refused by what it counts, and the refusal has that figure on either way through the proxy.
async fn what_a_payment_counts_is_stated(stack: &Stack) -> Result<()> {
    ensure_eq!(pay(stack, "weighed", 1, 400).await?.status, 200, "800 of 1000");
    for (number, path) in [(2, "/v1/payments"), (3, "/native/v1/payments")] {
        let payment = payment("weighed", number, 101).path(path);
        let answer = stack.send(Protocol::Http2, payment.call()).await?;
        let order_no = format!("weighed-{number}");
        let problem = refused(stack, &answer, (429, "DAILY_AMOUNT"), &order_no)?;
        ensure_eq!(problem["details"], json!({"counted_amount": 202}), "{path}");
        ensure_eq!(problem["limit"]["remaining"], 200, "{path}");
        let logged = stack.server.logged(|line| line["order_no"] == order_no)?;
        ensure_eq!((&logged["amount_minor"], &logged["counted_minor"]), (&json!(101), &json!(202)), "{logged}");
    }
    ensure_eq!(pay(stack, "weighed", 4, 100).await?.status, 200, "all of it");
    Ok(())
}

/// In the problem, on either way through the proxy; in the server's log; in the journal.
async fn a_refusal_says_what_to_pay(stack: &Stack) -> Result<()> {
    let credit = json!({"limit": LIMIT, "exposure": 6_000, "available": 4_000, "stage": "current", "days_past_due": 0,
        "amount_to_cure": 1_000});
    for (number, path) in [(2, "/v1/payments"), (3, "/native/v1/payments")] {
        let payment = payment("line", number, 5_000).path(path);
        let answer = stack.send(Protocol::Http2, payment.call()).await?;
        let problem = refused(stack, &answer, (403, "CREDIT_EXHAUSTED"), &format!("line-{number}"))?;
        ensure_eq!(problem["credit"], credit, "{path}");
        ensure_eq!(answer.header("retry-after"), None, "{path}");
        let logged = stack.server.logged(|line| line["order_no"] == format!("line-{number}"))?;
        let refusal: Value = serde_json::from_str(logged["refusal"].as_str().unwrap_or_default())?;
        ensure_eq!(refusal["credit"], credit, "{logged}");
        let rows = wait::until_async("the refusal in the journal", NOTICED_WITHIN, || async {
            let found = stack.caller().get(&format!("/usage-logs/order/line-{number}")).await?.json();
            Ok(found["items"].as_array().filter(|rows| !rows.is_empty()).cloned())
        });
        ensure_eq!(rows.await?[0]["failure_details"]["credit"], credit, "{path}");
    }
    Ok(())
}

/// The last known line and the day of the payment count, and refusals say when the line was read.
async fn what_is_known_counts(stack: &Stack) -> Result<()> {
    wait::until("the server to say that its lines are outdated", NOTICED_WITHIN, || {
        Ok((stack.server.metric("sluice_credit_lines_outdated", &[])? > 0.0).then_some(()))
    })?;
    ensure_eq!(pay(stack, "line", 4, 3_000).await?.status, 200, "within the limit, without Postgres");
    let problem = refused(stack, &pay(stack, "line", 5, 2_000).await?, (403, "CREDIT_EXHAUSTED"), "line-5")?;
    ensure_eq!(problem["credit"]["exposure"], 9_000, "{problem}");
    ensure!(problem["credit"]["read_at"].is_string(), "{problem}");
    Ok(())
}

/// Redis knows which accounts are on a line. Others are not concerned.
async fn what_was_never_known_is_refused(stack: &Stack) -> Result<()> {
    let answer = pay(stack, "line", 6, 500).await?;
    refused(stack, &answer, (503, "CREDIT_UNKNOWN"), "line-6")?;
    for merchant in ["lenient", "plain"] {
        ensure_eq!(pay(stack, merchant, 1, 500).await?.status, 200, "{merchant}");
    }
    Ok(())
}

async fn what_is_read_again_counts(stack: &Stack) -> Result<()> {
    pay_until_admitted(stack, Protocol::Http1, &payment("line", 7, 500)).await?;
    let problem = refused(stack, &pay(stack, "line", 8, 600).await?, (403, "CREDIT_EXHAUSTED"), "line-8")?;
    ensure_eq!(
        (&problem["credit"]["exposure"], &problem["credit"]["read_at"]),
        (&json!(9_500), &Value::Null),
        "{problem}"
    );
    Ok(())
}
