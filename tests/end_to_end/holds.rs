//! Authorisations, captures, voids, sales, refunds and checks through the shipped rules: what the gateway does decides, and the
//! counters follow it.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::books::{Entry, books_agree};
use testkit::client::{Call, Protocol};
use testkit::gateway::HEADER;
use testkit::stack::Stack;
use testkit::{Context, Failure, Result, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::logs::outcome;
use crate::suite::{Suite, patient};

/// A confirmation follows the answer to its request, and is sent again where it got no answer.
const CONFIRMED_WITHIN: Duration = Duration::from_secs(60);

/// The day's amount and count, what is pending, and what was refunded today.
type Figures = (u64, u64, u64, u64);

/// One request, and what must come of it.
struct Step {
    what: &'static str,
    path: &'static str,
    /// Members of the body beside merchant, currency and order.
    body: Value,
    gateway: Option<&'static str>,
    status: u16,
    /// Of the refusal; none where the gateway answers.
    code: &'static str,
    outcome: &'static str,
    after: Figures,
}

fn done(what: &'static str, path: &'static str, body: Value, outcome: &'static str, after: Figures) -> Step {
    Step { what, path, body, gateway: None, status: 200, code: "", outcome, after }
}

fn refused(
    what: &'static str,
    path: &'static str,
    body: Value,
    status: u16,
    code: &'static str,
    after: Figures,
) -> Step {
    Step { what, path, body, gateway: None, status, code, outcome: "refused", after }
}

impl Step {
    /// The gateway does this with it, and answers so.
    fn gateway(self, behaviour: &'static str, status: u16) -> Self {
        Self { gateway: Some(behaviour), status, ..self }
    }
}

const AUTHORIZE: &str = "/v1/authorizations";
const CAPTURE: &str = "/v1/authorizations/{order}/captures";
const VOID: &str = "/v1/authorizations/{order}/void";
const SALE: &str = "/v1/sales";
const REFUND: &str = "/v1/payments/{order}/refunds";
const CHECK: &str = "/v1/checkouts";

fn capture(number: &str, amount: u64, is_final: bool) -> Value {
    json!({"capture_no": number, "amount": amount, "final": is_final})
}

fn refund(number: &str, amount: u64) -> Value {
    json!({"refund_no": number, "amount": amount})
}

/// An authorisation of 60.00, captured in parts, then refunded in parts.
fn captured_and_refunded() -> Vec<Step> {
    vec![
        refused("nothing is held yet", CAPTURE, capture("c-0", 100, true), 404, "ORDER_UNKNOWN", (0, 0, 0, 0)),
        done("authorised", AUTHORIZE, json!({"amount": 6_000}), "kept", (6_000, 1, 6_000, 0)),
        done("a partial capture", CAPTURE, capture("c-1", 2_000, false), "settled", (6_000, 1, 4_000, 0)),
        done("the same again counts once", CAPTURE, capture("c-1", 2_000, false), "settled", (6_000, 1, 4_000, 0)),
        refused(
            "with another amount",
            CAPTURE,
            capture("c-1", 2_500, false),
            409,
            "IDEMPOTENCY_CONFLICT",
            (6_000, 1, 4_000, 0),
        ),
        refused(
            "more than is held",
            CAPTURE,
            capture("c-2", 4_001, true),
            403,
            "CAPTURE_EXCEEDS_HOLD",
            (6_000, 1, 4_000, 0),
        ),
        done("refused by the gateway", CAPTURE, capture("c-2", 1_000, true), "unchanged", (6_000, 1, 4_000, 0))
            .gateway("fail-422", 422),
        done("fails at the gateway", CAPTURE, capture("c-2", 1_000, true), "unknown", (6_000, 1, 4_000, 0))
            .gateway("fail-500", 500),
        done("without a known outcome", CAPTURE, capture("c-2", 1_000, true), "unknown", (6_000, 1, 4_000, 0))
            .gateway("status-504", 504),
        done("a conflict is no capture", CAPTURE, capture("c-2", 1_000, true), "unknown", (6_000, 1, 4_000, 0))
            .gateway("conflict-409", 409),
        done(
            "the gateway captures more, and the rest comes back",
            CAPTURE,
            capture("c-2", 1_000, true),
            "settled",
            (3_500, 1, 0, 0),
        )
        .gateway("captures-1500", 200),
        refused("after the last capture", CAPTURE, capture("c-3", 1, true), 409, "ORDER_CLOSED", (3_500, 1, 0, 0)),
        refused("a capture is no void", VOID, json!({}), 409, "ORDER_CLOSED", (3_500, 1, 0, 0)),
        done("a refund", REFUND, refund("r-1", 1_000), "refunded", (2_500, 1, 0, 1_000)),
        done("the same again counts once", REFUND, refund("r-1", 1_000), "refunded", (2_500, 1, 0, 1_000)),
        refused("with another amount", REFUND, refund("r-1", 999), 409, "IDEMPOTENCY_CONFLICT", (2_500, 1, 0, 1_000)),
        refused("more than is left", REFUND, refund("r-2", 2_501), 403, "REFUND_EXCEEDS_ORDER", (2_500, 1, 0, 1_000)),
        refused("without a number", REFUND, json!({"amount": 1}), 400, "BAD_REQUEST", (2_500, 1, 0, 1_000)),
        done("refused by the gateway", REFUND, refund("r-2", 500), "voided", (2_500, 1, 0, 1_000))
            .gateway("fail-402", 402),
        done("without a known outcome it stays reserved", REFUND, refund("r-2", 500), "unknown", (2_500, 1, 0, 1_500))
            .gateway("status-504", 504),
        done(
            "declined with a conflict, it gives nothing back",
            REFUND,
            refund("r-2", 500),
            "unknown",
            (2_500, 1, 0, 1_500),
        )
        .gateway("conflict-409", 409),
        done("then it is made", REFUND, refund("r-2", 500), "refunded", (2_000, 1, 0, 1_500)),
        done("all that is left", REFUND, json!({"refund_no": "r-3"}), "refunded", (0, 1, 0, 3_500)),
    ]
}

/// An authorisation that is taken back.
fn voided() -> Vec<Step> {
    vec![
        refused("nothing is held yet", VOID, json!({}), 404, "ORDER_UNKNOWN", (0, 0, 0, 0)),
        done("refused by the gateway", AUTHORIZE, json!({"amount": 5_000}), "voided", (0, 0, 0, 0))
            .gateway("fail-402", 402),
        done("authorised", AUTHORIZE, json!({"amount": 5_000}), "kept", (5_000, 1, 5_000, 0)),
        refused(
            "another amount",
            AUTHORIZE,
            json!({"amount": 5_001}),
            409,
            "IDEMPOTENCY_CONFLICT",
            (5_000, 1, 5_000, 0),
        ),
        done("the gateway refuses the void", VOID, json!({}), "unchanged", (5_000, 1, 5_000, 0))
            .gateway("fail-422", 422),
        done("the void fails at the gateway", VOID, json!({}), "unknown", (5_000, 1, 5_000, 0))
            .gateway("fail-500", 500),
        done("a conflict leaves the hold", VOID, json!({}), "unknown", (5_000, 1, 5_000, 0))
            .gateway("conflict-409", 409),
        done("voided", VOID, json!({}), "order_voided", (0, 0, 0, 0)),
        done("the same again changes nothing", VOID, json!({}), "order_voided", (0, 0, 0, 0)),
        refused("nothing is left to capture", CAPTURE, capture("c", 1, true), 409, "ORDER_CLOSED", (0, 0, 0, 0)),
        refused("nor to refund", REFUND, refund("r", 1), 409, "ORDER_CLOSED", (0, 0, 0, 0)),
    ]
}

/// Sales: authorised and captured in one request.
fn sold() -> Vec<Step> {
    vec![
        done("refused by the gateway", SALE, json!({"amount": 4_000}), "voided", (0, 0, 0, 0)).gateway("fail-422", 422),
        done("a conflict leaves the hold open", SALE, json!({"amount": 4_000}), "unknown", (4_000, 1, 4_000, 0))
            .gateway("conflict-409", 409),
        done("sold for less than was held", SALE, json!({"amount": 4_000}), "settled", (2_500, 1, 0, 0))
            .gateway("captures-2500", 200),
        done("the same again counts once", SALE, json!({"amount": 4_000}), "settled", (2_500, 1, 0, 0))
            .gateway("captures-2500", 200),
        refused("with another amount", SALE, json!({"amount": 4_001}), 409, "IDEMPOTENCY_CONFLICT", (2_500, 1, 0, 0)),
        done("half of it back", REFUND, refund("r-1", 1_000), "refunded", (1_500, 1, 0, 1_000)),
    ]
}

/// Nothing was captured of a sale.
fn sold_for_nothing() -> Vec<Step> {
    vec![
        done("nothing was captured", SALE, json!({"amount": 4_000}), "order_voided", (0, 0, 0, 0))
            .gateway("captures-0", 200),
    ]
}

/// Checks consume nothing, whatever they say.
fn checked() -> Vec<Step> {
    vec![
        done("it would fit", CHECK, json!({"amount": 10_000}), "forwarded", (0, 0, 0, 0)),
        done("it would still fit", CHECK, json!({"amount": 10_000}), "forwarded", (0, 0, 0, 0)),
        refused("it would not", CHECK, json!({"amount": 10_001}), 403, "ABOVE_SINGLE_MAX", (0, 0, 0, 0)),
        done("and is not charged if the gateway fails", CHECK, json!({"amount": 100}), "forwarded", (0, 0, 0, 0))
            .gateway("fail-500", 500),
    ]
}

pub(crate) fn add(suite: &mut Suite) {
    let flows: [(&str, fn() -> Vec<Step>); 5] = [
        ("captured", captured_and_refunded),
        ("voided", voided),
        ("sold", sold),
        ("unsold", sold_for_nothing),
        ("checked", checked),
    ];
    suite.owned("holds::a_sale_that_is_tried_again_is_not_lost", patient(), a_sale_is_tried_again);
    suite.shared("holds::a_client_that_leaves_during_the_answer_undoes_no_capture", a_client_leaves_during_the_answer);
    for protocol in Protocol::BOTH {
        for (name, steps) in flows {
            suite.shared(format!("holds::{name}::{protocol:?}"), async move |stack: &Stack| {
                play(stack, protocol, &format!("holds-{name}-{protocol:?}"), &steps()).await
            });
        }
        suite.shared(format!("holds::journal::{protocol:?}"), async move |stack: &Stack| {
            the_journal_records_it(stack, protocol).await
        });
    }
}

async fn play(stack: &Stack, protocol: Protocol, merchant: &str, steps: &[Step]) -> Result<()> {
    let order = format!("{merchant}-1");
    let mut client = stack.client(protocol).await?;
    for (number, step) in steps.iter().enumerate() {
        let tried = async {
            let before = stack.gateway.seen_order(&order).len();
            let answer = client.send(call(step, merchant, &order)).await?;
            ensure_eq!(answer.status, step.status, "{}", answer.json());
            ensure_eq!(answer.code(), step.code, "{}", answer.json());
            let reached = stack.gateway.seen_order(&order).len() - before;
            ensure_eq!(reached, usize::from(step.outcome != "refused"), "requests at the gateway");
            figures_become(stack, merchant, step.after).await?;
            ensure_eq!(outcome_of(stack, &order, number)?, step.outcome);
            Ok(())
        };
        tried.await.context(format!("{merchant}, step {number} ({})", step.what))?;
    }
    books_agree(stack, merchant).await.map(drop)
}

/// The access log's outcome of a step. Each has a line that names the order, a refused one too: it is in the path or in the body.
fn outcome_of(stack: &Stack, order: &str, number: usize) -> Result<String> {
    crate::logs::lines_of(&stack.envoy, order, number + 1)?;
    outcome(&stack.envoy, order)
}

fn call(step: &Step, merchant: &str, order: &str) -> Call {
    let mut body = json!({"merchant_id": merchant, "currency": "USD", "order_no": order});
    if let (Some(body), Some(more)) = (body.as_object_mut(), step.body.as_object()) {
        body.extend(more.clone());
    }
    let call = Call::post_json(&step.path.replace("{order}", order), body.to_string());
    match step.gateway {
        Some(behaviour) => call.header(HEADER, behaviour),
        None => call,
    }
}

async fn figures(stack: &Stack, merchant: &str) -> Result<Figures> {
    let account = stack.account(merchant, "USD").await?;
    let figures = account.map(|account| {
        (account.windows.day.amount, account.windows.day.count, account.pending, account.windows.day.refunded)
    });
    Ok(figures.unwrap_or_default())
}

/// Waits for what is confirmed after the answer. A step that changes nothing is seen to have changed nothing by the
/// step after it, and by the books.
async fn figures_become(stack: &Stack, merchant: &str, expected: Figures) -> Result<()> {
    let become_so = wait::until_async("the figures", CONFIRMED_WITHIN, || async {
        Ok((figures(stack, merchant).await? == expected).then_some(()))
    });
    match become_so.await {
        Ok(()) => Ok(()),
        Err(failure) => {
            let last = figures(stack, merchant).await;
            Err(failure.while_doing(format!("waiting for {expected:?}, last {last:?}")))
        }
    }
}

/// The gateway answers a sale that comes again as it did the first time, and so does the server the sale's
/// confirmation: no one has to look at an order that is in order.
async fn a_sale_is_tried_again(stack: &mut Stack) -> Result<()> {
    for (number, protocol) in (1_u32..).zip(Protocol::BOTH) {
        let merchant = format!("sale-{protocol:?}");
        let order = format!("{merchant}-1");
        // The gateway says how much it captured, or it does not.
        let again = done("again", SALE, json!({"amount": 4_000}), "settled", (4_000, 1, 0, 0));
        let said =
            done("again", SALE, json!({"amount": 4_000}), "settled", (4_000, 1, 0, 0)).gateway("captures-4000", 200);
        for step in [&again, &again, &said, &again] {
            ensure_eq!(stack.send(protocol, call(step, &merchant, &order)).await?.status, 200);
            figures_become(stack, &merchant, step.after).await?;
        }
        // All but the first one of each four repeat it.
        let confirmed = 4.0 * f64::from(number);
        wait::until("the confirmations of the sale", CONFIRMED_WITHIN, || {
            let applied = stack.server.metric("quota_operations_total", &["action=\"settle\"", "code=\"APPLIED\""])?;
            Ok((applied >= confirmed).then_some(()))
        })?;
        books_agree(stack, &merchant).await?;
    }
    ensure!(stack.envoy.metric("sluice_confirm_lost")?.abs() < 0.5, "a confirmation was lost");
    Ok(())
}

/// The gateway has begun to say that it sold, and its client goes: the capture is booked all the same.
async fn a_client_leaves_during_the_answer(stack: &Stack) -> Result<()> {
    let (merchant, order) = ("holds-leaver", "holds-leaver-1");
    let body = json!({"merchant_id": merchant, "currency": "USD", "order_no": order, "amount": 4_000}).to_string();
    let length = body.len();
    let head = format!(
        "POST {SALE} HTTP/1.1\r\nhost: payments\r\ncontent-type: application/json\r\n{HEADER}: stall-after-headers\r\n\
         content-length: {length}\r\n\r\n"
    );
    let mut connection = TcpStream::connect(stack.envoy.address()).await?;
    connection.write_all((head + &body).as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.starts_with(b"HTTP/1.1 200") {
        let read = timeout(CONFIRMED_WITHIN, connection.read_buf(&mut answer)).await;
        let read = read.map_err(|_| Failure::new(format!("no success in {:?}", String::from_utf8_lossy(&answer))))?;
        ensure!(read? > 0, "no success in {:?}", String::from_utf8_lossy(&answer));
    }
    drop(connection);
    figures_become(stack, merchant, (4_000, 1, 0, 0)).await?;
    let lines = crate::logs::lines_of(&stack.envoy, order, 1)?;
    ensure_eq!(lines[0]["flags"], "DC", "{}", lines[0]);
    ensure_eq!(lines[0]["sluice"]["outcome"], "settled");
    books_agree(stack, merchant).await.map(drop)
}

/// Every step that changed something, and every refusal, is a row; what was only tried is none.
async fn the_journal_records_it(stack: &Stack, protocol: Protocol) -> Result<()> {
    let merchant = format!("holds-recorded-{protocol:?}");
    let steps = [
        done("authorised", AUTHORIZE, json!({"amount": 6_000}), "kept", (6_000, 1, 6_000, 0)),
        done("captured", CAPTURE, capture("c-1", 2_000, true), "settled", (2_000, 1, 0, 0)),
        refused("too late", CAPTURE, capture("c-2", 1, true), 409, "ORDER_CLOSED", (2_000, 1, 0, 0)),
        done("refunded", REFUND, refund("r-1", 500), "refunded", (1_500, 1, 0, 500)),
        done("not refunded", REFUND, refund("r-2", 500), "voided", (1_500, 1, 0, 500)).gateway("fail-402", 402),
        refused("gave back", CHECK, json!({"amount": 7_000}), 409, "ORDER_CLOSED", (1_500, 1, 0, 500)),
    ];
    play(stack, protocol, &merchant, &steps).await?;
    let entries = books_agree(stack, &merchant).await?;
    let rows: Vec<_> = entries.iter().map(Entry::brief).map(|(_, action, code, _)| (action, code)).collect();
    let expected = [
        ("hold", "ADMITTED"),
        ("settle", "APPLIED"),
        ("reserve_refund", "APPLIED"),
        ("refund", "APPLIED"),
        ("reserve_refund", "APPLIED"),
        ("void", "APPLIED"),
        ("consume", "ORDER_CLOSED"),
    ];
    ensure_eq!(rows, expected);
    Ok(())
}
