//! Every decision can be read: one id leads from the refusal through Envoy's access log and the server's log to the journal,
//! and both have figures of it.

use std::time::Duration;

use proto::header;
use serde_json::Value;
use testkit::books::{books_agree, settles_at};
use testkit::client::{Answer, Payment, Protocol};
use testkit::policies::SINGLE_MAX;
use testkit::stack::Stack;
use testkit::{Failure, Result, wait};

use crate::logs::lines_of;
use crate::suite::{Suite, patient};

const WRITTEN_WITHIN: Duration = Duration::from_secs(10);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

pub(crate) fn add(suite: &mut Suite) {
    suite.owned("observed::one_id_leads_from_the_answer_to_the_journal", patient(), one_id_leads);
    suite.owned("observed::envoy_and_server_count", patient(), envoy_and_server_count);
}

async fn one_id_leads(stack: &mut Stack) -> Result<()> {
    for protocol in Protocol::BOTH {
        let merchant = format!("traced-{protocol:?}");
        for (number, cents, path, code, outcome) in [
            (1, 6_000, "/v1/payments", "ADMITTED", "kept"),
            (2, SINGLE_MAX + 1, "/v1/payments", "ABOVE_SINGLE_MAX", "refused"),
            (3, SINGLE_MAX + 1, "/v1/shadow/payments", "ABOVE_SINGLE_MAX", "forwarded"),
        ] {
            let order = format!("{merchant}-{number}");
            let call = Payment::new(&merchant, &order, cents).path(path).call();
            let call = call.header("traceparent", &format!("00-{TRACE}-b7ad6b7169203331-01"));
            let answer = stack.send(protocol, call).await?;
            let id = decision_id(stack, &answer, &order)?;
            let lines = lines_of(&stack.envoy, &order, 1)?;
            let (line, record) = (&lines[0], &lines[0]["sluice"]);
            let shown =
                [&record["decision_id"], &record["code"], &record["outcome"], &record["merchant"], &line["route"]];
            let route = if path == "/v1/payments" { "payments" } else { "shadow-payments" };
            ensure_eq!(
                shown.map(|text| text.as_str().unwrap_or_default()),
                [id.as_str(), code, outcome, &merchant, route]
            );
            ensure!(record["check_ms"].is_u64() && line["status"] == answer.status, "{line}");
            ensure_eq!((&record["amount_minor"], &record["currency"]), (&cents.into(), &"USD".into()));
            ensure!(record["policy_version"].is_string() && record["attempt"].is_string(), "{line}");
            let decision = decision_line(stack, &id)?;
            let logged = [&decision["code"], &decision["merchant"], &decision["order_no"], &decision["trace_id"]];
            ensure_eq!(logged.map(|text| text.as_str().unwrap_or_default()), [code, &merchant, &order, TRACE]);
            ensure!(decision["latency_us"].is_u64() && decision["policy_version"].is_string(), "{decision}");
            let entries = books_agree(stack, &merchant).await?;
            let row = entries.iter().find(|entry| entry.event_id == id);
            ensure!(row.is_some_and(|row| row.order_no == order && row.code == code), "{id}: {row:?}");
        }
    }
    native_decisions_are_logged(stack).await?;
    unreadable_payments_are_found(stack).await
}

/// A payment that cannot be read is found by its order number all the same, on both ways.
async fn unreadable_payments_are_found(stack: &Stack) -> Result<()> {
    for (number, path) in ["/v1/payments", "/native/v1/payments"].into_iter().enumerate() {
        let order = format!("unreadable-{number}");
        let payment = Payment::new("traced", &order, 0).amount_text("\"12x\"").path(path);
        ensure_eq!(stack.send(Protocol::Http1, payment.call()).await?.status, 400);
        let line = &lines_of(&stack.envoy, &order, 1)?[0];
        let shown =
            ["code", "outcome", "merchant", "currency"].map(|name| line["sluice"][name].as_str().unwrap_or_default());
        ensure_eq!(shown, ["BAD_AMOUNT", "refused", "traced", "USD"], "{line}");
        ensure!(line["sluice"]["detail"].as_str().is_some_and(|detail| detail.contains("amount")), "{line}");
    }
    Ok(())
}

/// The id as the caller of a refused payment, or the gateway of one that went through, has it.
fn decision_id(stack: &Stack, answer: &Answer, order: &str) -> Result<String> {
    let seen = stack.gateway.seen_order(order);
    let at_gateway = seen.first().and_then(|request| request.headers.get(header::DECISION_ID)?.to_str().ok());
    let id = answer.header(header::DECISION_ID).or(at_gateway);
    id.map(str::to_owned).ok_or_else(|| Failure::new(format!("{order} has no decision id")))
}

/// The server's one line about a decision.
fn decision_line(stack: &Stack, id: &str) -> Result<Value> {
    wait::until("the decision in the server's log", WRITTEN_WITHIN, || {
        let mut of_id = stack.server.decisions();
        of_id.retain(|line| line["decision_id"] == id);
        ensure!(of_id.len() <= 1, "{of_id:#?}");
        Ok(of_id.pop())
    })
}

async fn native_decisions_are_logged(stack: &Stack) -> Result<()> {
    let payment = Payment::new("traced", "traced-native", SINGLE_MAX + 1).path("/native/v1/payments");
    let answer = stack.send(Protocol::Http2, payment.call()).await?;
    let id = decision_id(stack, &answer, "traced-native")?;
    let line = wait::until("the decision in the access log", WRITTEN_WITHIN, || {
        let lines = stack.envoy.access_log()?;
        Ok(lines.into_iter().find(|line| line["sluice"]["decision_id"] == id.as_str()))
    })?;
    let record = &line["sluice"];
    let shown = ["code", "outcome", "merchant", "order", "currency", "mode", "rule", "action"];
    let expected =
        ["ABOVE_SINGLE_MAX", "refused", "traced", "traced-native", "USD", "enforce", "native-payments", "consume"];
    ensure_eq!(shown.map(|name| record[name].as_str().unwrap_or_default()), expected, "{line}");
    ensure_eq!(record["amount_minor"], SINGLE_MAX + 1);
    ensure!(record["policy_version"].is_string() && record["attempt"].is_string(), "{line}");
    ensure_eq!(line["status"], 403);
    decision_line(stack, &id).map(drop)
}

/// Each kind of decision moves its own figure, in Envoy and in the server.
async fn envoy_and_server_count(stack: &mut Stack) -> Result<()> {
    let pay = async |order: &str, cents: u64, path: &str, gateway: Option<&str>| {
        let payment = Payment::new("counted", order, cents).path(path);
        let payment = gateway.map_or(payment.clone(), |behaviour| payment.gateway(behaviour));
        stack.send(Protocol::Http1, payment.call()).await
    };
    pay("counted-1", 6_000, "/v1/payments", None).await?;
    pay("counted-1", 6_000, "/v1/payments", None).await?;
    pay("counted-2", SINGLE_MAX + 1, "/v1/payments", None).await?;
    pay("counted-3", SINGLE_MAX + 1, "/v1/shadow/payments", None).await?;
    pay("counted-4", 0, "/v1/payments", None).await?;
    pay("counted-5", 1_000, "/v1/payments", Some("fail-422")).await?;
    pay("counted-6", 1_000, "/v1/payments", Some("reset")).await?;
    pay("counted-7", 1_000, "/v1/statements", None).await?;
    settles_at(stack, "counted", (7_000, 2)).await?;
    for (name, expected) in [
        ("sluice_admitted", 3.0),
        ("sluice_replayed", 1.0),
        ("sluice_refused", 1.0),
        ("sluice_shadow_refused", 1.0),
        ("sluice_bad_request", 1.0),
        ("sluice_void_sent", 1.0),
        ("sluice_unknown", 1.0),
        ("sluice_unmatched", 1.0),
        ("sluice_no_answer_denied", 0.0),
        ("sluice_host_failed", 0.0),
        ("sluice_check_ms_count", 6.0),
        ("sluice_rules_enforcing", 11.0),
    ] {
        // Envoy merges its histograms every few seconds.
        wait::until(&format!("{name} being {expected}"), WRITTEN_WITHIN, || {
            let is = stack.envoy.metric(name)?;
            ensure!(is <= expected, "{name} is {is}");
            Ok(((is - expected).abs() < 0.5).then_some(()))
        })?;
    }
    for (labels, expected) in
        [(&["code=\"ADMITTED\""][..], 4.0), (&["code=\"ABOVE_SINGLE_MAX\""][..], 2.0), (&["code=\"VOIDED\""][..], 1.0)]
    {
        let is = stack.server.metric("quota_operations_total", labels)?;
        ensure!((is - expected).abs() < 0.5, "quota_operations_total {labels:?} is {is}, not {expected}");
    }
    books_agree(stack, "counted").await.map(drop)
}
