//! One trace leads from the client's `traceparent` through server, Redis and journal to the webhook, and no collector makes a
//! payment wait.

use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use proto::header;
use serde_json::{Value, json};
use testkit::client::{Answer, Call, Payment, Protocol, send_once};
use testkit::gateway::{Gateway, Seen};
use testkit::stack::{Stack, StackOptions};
use testkit::{Failure, Result, wait};

use crate::collector::{Collector, Manner, attribute, hex};
use crate::suite::{Suite, patient, prompt};

const WRITTEN_WITHIN: Duration = Duration::from_secs(30);
/// Payments that send more spans than wait for a collector, and how many come at a time.
const CROWD: usize = 20_000;
const LANES: usize = 8;
const CLIENT: &str = "b7ad6b7169203331";

pub(crate) fn add(suite: &mut Suite) {
    suite.alone("tracing::one_trace_leads_from_the_client_to_the_webhook", one_trace);
    suite.alone("tracing::the_callers_word_counts_where_it_is_one", callers_word);
    suite.alone("tracing::a_request_to_the_api_is_traced", api_request);
    suite.alone("tracing::a_collector_that_hangs_costs_spans_only", collector_hangs);
    suite.alone("tracing::a_collector_that_is_away_costs_spans_only", collector_is_away);
    suite.shared("tracing::without_a_collector_no_trace_is_made_up", none_is_made_up);
}

/// A stack that sends its spans there, and webhooks to loopback.
fn traced(collector: &str, mut options: StackOptions) -> StackOptions {
    let own = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector), ("SLUICE_ALERT_MERCHANT_NETWORKS", "127.0.0.0/8")];
    options.server_env.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    options
}

fn traceparent(trace: &str, sampled: bool) -> String {
    format!("00-{trace}-{CLIENT}-0{}", u8::from(sampled))
}

async fn one_trace() -> Result<()> {
    let (collector, receiver) = (Collector::start(Manner::Takes)?, Gateway::start()?);
    let stack = Stack::start(&traced(&collector.url(), patient()))?;
    for (protocol, trace) in Protocol::BOTH.into_iter().zip(["a", "b"].map(|digit| digit.repeat(32))) {
        let merchant = format!("traced-{protocol:?}");
        notify(&stack, &merchant, &receiver).await?;
        // The second payment takes the day's usage above 80 percent.
        for (number, trace) in [(1, "c".repeat(32)), (2, trace.clone())] {
            let payment = Payment::new(&merchant, &format!("{merchant}-{number}"), 6_500);
            let answer = stack.send(protocol, payment.call().header("traceparent", &traceparent(&trace, true))).await?;
            ensure_eq!(answer.status, 200, "{}", answer.json());
        }
        let order = format!("{merchant}-2");
        let id = decision_at_gateway(&stack, &order)?;

        let check = collector.span(&trace, "decide consume")?;
        ensure_eq!((check.kind, hex(&check.parent_span_id).as_str()), (SpanKind::Server as i32, CLIENT));
        let keys = ["sluice.decision_id", "sluice.merchant", "sluice.order_no", "sluice.code"];
        ensure_eq!(keys.map(|key| attribute(&check, key)), [id.as_str(), &merchant, &order, "ADMITTED"]);
        let script = collector.span(&trace, "EVALSHA")?;
        ensure_eq!((script.kind, &script.parent_span_id), (SpanKind::Client as i32, &check.span_id));
        ensure!(attribute(&script, "sluice.batch_size").parse().is_ok_and(|commands: u64| commands >= 1), "{script:?}");
        ensure!(lies_within(&script, &check), "{script:?} {check:?}");

        let stored = collector.linked("store events", &check)?;
        ensure!(stored.parent_span_id.is_empty() && stored.trace_id != check.trace_id, "{stored:?}");
        ensure!(attribute(&stored, "sluice.batch_size") != "0" && stored.links.len() <= 128, "{stored:?}");

        let line = line_of(&stack, &id)?;
        ensure_eq!(line["trace_id"], trace.as_str(), "{line}");
        ensure_eq!(trace_in(&stack, "usage_log", "order_no", &order).await?, trace);
        ensure_eq!(trace_in(&stack, "quota_alert", "merchant_id", &merchant).await?, trace);

        let delivery = collector.span(&trace, "deliver webhook")?;
        ensure_eq!((delivery.kind, &delivery.parent_span_id), (SpanKind::Client as i32, &check.span_id));
        ensure_eq!(attribute(&delivery, "sluice.response_status"), "200", "{delivery:?}");
        let sent = |line: &Value| line["message"] == "alert message sent" && line["trace_id"] == trace.as_str();
        wait::until("the line about the message", WRITTEN_WITHIN, || {
            Ok(stack.server.log_lines().iter().any(sent).then_some(()))
        })?;
        let seen = of_merchant(&receiver, &merchant);
        ensure_eq!(seen.len(), 1, "{seen:#?}");
        let parent = seen[0].headers.get("traceparent").and_then(|value| value.to_str().ok());
        ensure_eq!(parent, Some(format!("00-{trace}-{}-01", hex(&delivery.span_id)).as_str()));
    }
    Ok(())
}

/// Sends the merchant's alerts to the receiver.
async fn notify(stack: &Stack, merchant: &str, receiver: &Gateway) -> Result<()> {
    let url = format!("http://{}/hook/{merchant}", receiver.address());
    let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    let settings = json!({
        "channels": [{"kind": "webhook", "id": "hook", "url": url, "secrets": [secret]}],
        "routes": [{"channels": ["hook"]}],
    });
    let mut call = Call::post_json(&format!("/api/v1/merchants/{merchant}/settings"), settings.to_string());
    call.method = "PUT".to_owned();
    let answer = ask(stack, call).await?;
    ensure_eq!(answer.status, 200, "{}", answer.json());
    Ok(())
}

async fn ask(stack: &Stack, call: Call) -> Result<Answer> {
    let call = call.header("authorization", &format!("Bearer {}", stack.addresses().admin_token));
    send_once(stack.server.admin_address(), Protocol::Http1, call).await
}

fn of_merchant(receiver: &Gateway, merchant: &str) -> Vec<Seen> {
    let path = format!("/hook/{merchant}");
    receiver.seen().into_iter().filter(|request| request.path == path).collect()
}

fn lies_within(inner: &Span, outer: &Span) -> bool {
    inner.start_time_unix_nano >= outer.start_time_unix_nano && inner.end_time_unix_nano <= outer.end_time_unix_nano
}

fn decision_at_gateway(stack: &Stack, order: &str) -> Result<String> {
    let seen = stack.gateway.seen_order(order);
    let id = seen.first().and_then(|request| request.headers.get(header::DECISION_ID)?.to_str().ok());
    id.map(str::to_owned).ok_or_else(|| Failure::new(format!("{order} has no decision id")))
}

/// The one line of the log about a decision.
fn line_of(stack: &Stack, id: &str) -> Result<Value> {
    wait::until(&format!("the line of {id}"), WRITTEN_WITHIN, || {
        let mut lines = stack.server.decisions();
        lines.retain(|line| line["decision_id"] == id);
        Ok(lines.pop())
    })
}

/// The trace of the one row, once it is there; empty where it has none.
async fn trace_in(stack: &Stack, table: &str, column: &str, value: &str) -> Result<String> {
    let pool = stack.postgres.pool().await?;
    let query = format!("SELECT trace_id FROM {table} WHERE {column} = $1");
    wait::until_async(&format!("{value} in {table}"), WRITTEN_WITHIN, || async {
        let rows: Vec<Option<String>> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(query.as_str())).bind(value).fetch_all(&pool).await?;
        ensure!(rows.len() <= 1, "{} rows of {value} in {table}", rows.len());
        Ok(rows.into_iter().next().map(Option::unwrap_or_default))
    })
    .await
}

/// What a `traceparent` leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leads {
    /// To its own trace.
    On,
    /// To its own trace, and no span is made.
    Unrecorded,
    /// Nowhere: the server begins a trace.
    Nowhere,
}

async fn callers_word() -> Result<()> {
    let collector = Collector::start(Manner::Takes)?;
    let stack = Stack::start(&traced(&collector.url(), patient()))?;
    let trace = |number: usize| format!("{:032x}", number + 1);
    let id = trace(4_000);
    let table: [(Vec<String>, Leads); 10] = [
        (vec![], Leads::Nowhere),
        (vec![traceparent(&trace(1), false)], Leads::Unrecorded),
        (vec![traceparent(&trace(2), true)], Leads::On),
        (vec![format!("cc-{}-{CLIENT}-01-more", trace(3))], Leads::On),
        (vec![traceparent(&id, true), traceparent(&id, true)], Leads::Nowhere),
        (vec![format!("ff-{id}-{CLIENT}-01")], Leads::Nowhere),
        (vec![format!("00-{}-{CLIENT}-01", "A".repeat(32))], Leads::Nowhere),
        (vec![traceparent(&"0".repeat(32), true)], Leads::Nowhere),
        (vec![format!("00-{id}-{CLIENT}-01-{}", "x".repeat(4_000))], Leads::Nowhere),
        (vec!["no trace at all".to_owned()], Leads::Nowhere),
    ];
    for (number, (headers, leads)) in table.iter().enumerate() {
        let order = format!("word-{number}");
        let payment = Payment::new("roomy", &order, 500);
        let call = headers.iter().fold(payment.call(), |call, value| call.header("traceparent", value));
        let answer = stack.send(Protocol::Http2, call).await?;
        ensure_eq!(answer.status, 200, "{headers:?}: {}", answer.json());
        let line = line_of(&stack, &decision_at_gateway(&stack, &order)?)?;
        let logged = line["trace_id"].as_str().unwrap_or_default();
        ensure_eq!(logged.len(), 32, "{headers:?}: {line}");
        let named = headers.iter().any(|value| value.contains(logged));
        ensure_eq!(named, *leads != Leads::Nowhere, "{headers:?}: {line}");
        if *leads != Leads::Unrecorded {
            let parent = if *leads == Leads::On { CLIENT } else { "" };
            ensure_eq!(hex(&collector.span(logged, "decide consume")?.parent_span_id), parent, "{headers:?}");
        }
    }
    // Later spans are there, so these were not made.
    ensure!(collector.trace(&trace(1)).is_empty(), "{:?}", collector.trace(&trace(1)));
    Ok(())
}

async fn api_request() -> Result<()> {
    let collector = Collector::start(Manner::Takes)?;
    let stack = Stack::start(&traced(&collector.url(), patient()))?;
    let body = |order: &str| json!({"merchant_id": "roomy", "order_no": order, "amount": 500, "currency": "USD"});
    // With a key the request is done by another task.
    for (trace, key) in [("d".repeat(32), None), ("e".repeat(32), Some("a-key"))] {
        let call = Call::post_json("/api/v1/quotas/consume", body(&trace).to_string());
        let call = call.header("traceparent", &traceparent(&trace, true));
        let call = key.map_or(call.clone(), |key| call.header("idempotency-key", key));
        let answer = ask(&stack, call).await?;
        ensure_eq!(answer.status, 200, "{}", answer.json());
        let request = collector.span(&trace, "POST /api/v1/quotas/consume")?;
        ensure_eq!((request.kind, hex(&request.parent_span_id).as_str()), (SpanKind::Server as i32, CLIENT));
        ensure_eq!(attribute(&request, "http.response.status_code"), "200");
        let operation = collector.span(&trace, "decide consume")?;
        ensure_eq!(operation.parent_span_id, request.span_id);
        ensure_eq!(collector.span(&trace, "EVALSHA")?.parent_span_id, operation.span_id);
        let line = line_of(&stack, answer.json()["decision_id"].as_str().unwrap_or_default())?;
        ensure_eq!(line["trace_id"], trace.as_str(), "{line}");
    }
    Ok(())
}

/// Its queue fills, and payments are decided as before: with deadlines as short as in service.
async fn collector_hangs() -> Result<()> {
    let collector = Collector::start(Manner::Hangs)?;
    let stack = Stack::start(&traced(&collector.url(), prompt()))?;
    pay(&stack, "hung-first").await?;
    wait::until("a call that hangs", WRITTEN_WITHIN, || Ok((collector.calls() > 0).then_some(())))?;
    let spans = |name: &str, labels: &[&str]| stack.server.metric(name, labels);
    let full = || spans("sluice_spans_dropped_total", &["why=\"queue_full\""]);
    let mut paid = 0;
    while full()? == 0.0 {
        ensure!(paid < CROWD, "{paid} payments do not fill the queue");
        pay_many(&stack, paid).await?;
        paid += 50 * LANES;
    }
    pay_many(&stack, paid).await?;
    ensure_eq!(spans("sluice_spans_exported_total", &[])?, 0.0);
    spans_are_lost(&stack)
}

async fn pay_many(stack: &Stack, from: usize) -> Result<()> {
    let lane = |lane: usize| async move {
        for number in 0..50 {
            pay(stack, &format!("hung-{from}-{lane}-{number}")).await?;
        }
        Ok(())
    };
    futures_util::future::try_join_all((0..LANES).map(lane)).await.map(drop)
}

async fn collector_is_away() -> Result<()> {
    let collector = Collector::start(Manner::Takes)?;
    let stack = Stack::start(&traced(&collector.url(), prompt()))?;
    drop(collector);
    for number in 0..20 {
        pay(&stack, &format!("away-{number}")).await?;
    }
    spans_are_lost(&stack)
}

async fn pay(stack: &Stack, order: &str) -> Result<()> {
    let answer = stack.send(Protocol::Http1, Payment::new("roomy", order, 500).call()).await?;
    ensure_eq!(answer.status, 200, "{order}: {}", answer.json());
    Ok(())
}

fn spans_are_lost(stack: &Stack) -> Result<()> {
    let warning = "the collector takes no spans";
    wait::until("spans that are counted as lost", WRITTEN_WITHIN, || {
        let lost = stack.server.metric("sluice_spans_dropped_total", &["why=\"unsent\""])?;
        let warns = |line: &Value| line["message"].as_str().is_some_and(|message| message.starts_with(warning));
        Ok((lost > 0.0 && stack.server.log_lines().iter().any(warns)).then_some(()))
    })
}

async fn none_is_made_up(stack: &Stack) -> Result<()> {
    pay(stack, "untraced-1").await?;
    let line = line_of(stack, &decision_at_gateway(stack, "untraced-1")?)?;
    ensure!(line.get("trace_id").is_none(), "{line}");
    ensure_eq!(trace_in(stack, "usage_log", "order_no", "untraced-1").await?, "");
    Ok(())
}
