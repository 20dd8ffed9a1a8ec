//! What a merchant meets in a day, line by line: every kind of decision, on every kind of route.

use proto::header;
use testkit::books::{books_agree, settles_at};
use testkit::client::{Answer, Client, Payment, Protocol};
use testkit::gateway::Seen;
use testkit::stack::Stack;
use testkit::{Context, Result};

use crate::suite::Suite;

/// A row of the journal as it is announced: order, action, code, mode and whether it repeats an answer.
type Row = (u32, &'static str, &'static str, &'static str, bool);

/// One payment, and what must come of it.
struct Line {
    what: &'static str,
    order: u32,
    cents: u64,
    /// The amount as it stands in the body, where it is not `cents`.
    amount: Option<&'static str>,
    path: &'static str,
    gateway: Option<&'static str>,
    status: u16,
    /// The decision's code, in the refusal or in what the gateway saw. `None` where no server was asked.
    code: Option<&'static str>,
    reaches_gateway: bool,
    replay: bool,
    /// The day's amount and count after it.
    day: (u64, u64),
    rows: &'static [Row],
}

const ENFORCED: &str = "/v1/payments";
const NATIVE: &str = "/native/v1/payments";

/// Admitted as the first payment of the merchant's day.
const ADMITTED: Line = Line {
    what: "admitted",
    order: 1,
    cents: 6_000,
    amount: None,
    path: ENFORCED,
    gateway: None,
    status: 200,
    code: Some("ADMITTED"),
    reaches_gateway: true,
    replay: false,
    day: (6_000, 1),
    rows: &[(1, "consume", "ADMITTED", "enforce", false)],
};

const fn refused(what: &'static str, order: u32, cents: u64, status: u16, code: &'static str) -> Line {
    Line { what, order, cents, status, code: Some(code), reaches_gateway: false, rows: &[], ..ADMITTED }
}

/// The day of a merchant on the routes of the wasm filter.
const DAY: &[Line] = &[
    ADMITTED,
    Line {
        what: "the same order again is not counted twice",
        replay: true,
        rows: &[(1, "consume", "ADMITTED", "enforce", true)],
        ..ADMITTED
    },
    Line {
        rows: &[(1, "consume", "IDEMPOTENCY_CONFLICT", "enforce", false)],
        ..refused("the same order with another amount", 1, 7_000, 409, "IDEMPOTENCY_CONFLICT")
    },
    Line {
        rows: &[(2, "consume", "ABOVE_SINGLE_MAX", "enforce", false)],
        ..refused("over the single maximum", 2, 10_001, 403, "ABOVE_SINGLE_MAX")
    },
    Line {
        rows: &[(2, "consume", "BELOW_SINGLE_MIN", "enforce", false)],
        ..refused("below the single minimum", 2, 99, 403, "BELOW_SINGLE_MIN")
    },
    Line {
        rows: &[(3, "consume", "DAILY_AMOUNT", "enforce", false)],
        ..refused("over what the day has left", 3, 9_001, 429, "DAILY_AMOUNT")
    },
    Line { amount: Some("\"12.5x\""), ..refused("a malformed amount", 4, 0, 400, "BAD_AMOUNT") },
    Line {
        what: "refused by the gateway with 422: returned",
        order: 5,
        cents: 2_000,
        gateway: Some("fail-422"),
        status: 422,
        rows: &[(5, "consume", "ADMITTED", "enforce", false), (5, "void", "VOIDED", "enforce", false)],
        ..ADMITTED
    },
    Line {
        what: "the refused order again, refused with 402: returned again",
        order: 5,
        cents: 2_000,
        gateway: Some("fail-402"),
        status: 402,
        rows: &[(5, "consume", "ADMITTED", "enforce", false), (5, "void", "VOIDED", "enforce", false)],
        ..ADMITTED
    },
    Line {
        what: "the refused order once more, with another amount: admitted",
        order: 5,
        cents: 1_500,
        day: (7_500, 2),
        rows: &[(5, "consume", "ADMITTED", "enforce", false)],
        ..ADMITTED
    },
    Line {
        what: "a repetition that the gateway refuses returns nothing that the first one holds",
        order: 5,
        cents: 1_500,
        gateway: Some("fail-422"),
        status: 422,
        replay: true,
        day: (7_500, 2),
        rows: &[(5, "consume", "ADMITTED", "enforce", true), (5, "void", "ATTEMPT_RELEASED", "enforce", false)],
        ..ADMITTED
    },
    Line {
        what: "the gateway's 409 keeps the charge",
        order: 6,
        cents: 1_000,
        gateway: Some("conflict-409"),
        status: 409,
        day: (8_500, 3),
        rows: &[(6, "consume", "ADMITTED", "enforce", false)],
        ..ADMITTED
    },
    Line {
        what: "the gateway's 504 keeps the charge",
        order: 7,
        cents: 1_000,
        gateway: Some("status-504"),
        status: 504,
        day: (9_500, 4),
        rows: &[(7, "consume", "ADMITTED", "enforce", false)],
        ..ADMITTED
    },
    Line {
        what: "in shadow, a refusal goes through",
        order: 8,
        cents: 10_001,
        path: "/v1/shadow/payments",
        code: Some("ABOVE_SINGLE_MAX"),
        day: (9_500, 4),
        rows: &[(8, "consume", "ABOVE_SINGLE_MAX", "shadow", false)],
        ..ADMITTED
    },
    Line {
        what: "in shadow, an admission counts",
        order: 9,
        cents: 500,
        path: "/v1/shadow/payments",
        day: (10_000, 5),
        rows: &[(9, "consume", "ADMITTED", "shadow", false)],
        ..ADMITTED
    },
    Line {
        what: "in shadow, what cannot be read goes through",
        order: 10,
        amount: Some("-1"),
        path: "/v1/shadow/payments",
        code: Some("BAD_AMOUNT"),
        day: (10_000, 5),
        rows: &[],
        ..ADMITTED
    },
    Line {
        what: "a route that is off asks no server",
        order: 11,
        cents: 10_001,
        path: "/v1/open/payments",
        code: None,
        day: (10_000, 5),
        rows: &[],
        ..ADMITTED
    },
    Line {
        what: "a path that no rule covers asks no server",
        order: 12,
        cents: 10_001,
        path: "/v1/statements",
        code: None,
        day: (10_000, 5),
        rows: &[],
        ..ADMITTED
    },
    Line {
        what: "the day's last cent",
        order: 13,
        cents: 5_000,
        day: (15_000, 6),
        rows: &[(13, "consume", "ADMITTED", "enforce", false)],
        ..ADMITTED
    },
];

/// The same server asked by Envoy's own ext_authz: the same answers, but nothing voids what fails at the gateway.
const NATIVE_DAY: &[Line] = &[
    Line { path: NATIVE, ..ADMITTED },
    Line {
        what: "the same order again is not counted twice",
        path: NATIVE,
        replay: true,
        rows: &[(1, "consume", "ADMITTED", "enforce", true)],
        ..ADMITTED
    },
    Line {
        path: NATIVE,
        rows: &[(1, "consume", "IDEMPOTENCY_CONFLICT", "enforce", false)],
        ..refused("the same order with another amount", 1, 7_000, 409, "IDEMPOTENCY_CONFLICT")
    },
    Line {
        path: NATIVE,
        rows: &[(2, "consume", "ABOVE_SINGLE_MAX", "enforce", false)],
        ..refused("over the single maximum", 2, 10_001, 403, "ABOVE_SINGLE_MAX")
    },
    Line {
        path: NATIVE,
        rows: &[(3, "consume", "DAILY_AMOUNT", "enforce", false)],
        ..refused("over what the day has left", 3, 9_001, 429, "DAILY_AMOUNT")
    },
    Line { path: NATIVE, amount: Some("\"12.5x\""), ..refused("a malformed amount", 4, 0, 400, "BAD_AMOUNT") },
];

pub(crate) fn add(suite: &mut Suite) {
    for protocol in Protocol::BOTH {
        for (name, lines) in [("a_merchants_day", DAY), ("a_merchants_day_natively", NATIVE_DAY)] {
            suite.shared(format!("payments::{name}::{protocol:?}"), async move |stack: &Stack| {
                send_all(stack, &format!("{name}-{protocol:?}"), protocol, lines).await
            });
        }
    }
}

/// Sends the lines over one connection, and compares the journal with all of them at the end.
async fn send_all(stack: &Stack, merchant: &str, protocol: Protocol, lines: &[Line]) -> Result<()> {
    let mut client = stack.client(protocol).await?;
    for line in lines {
        send(stack, merchant, &mut client, line).await.context(format!("{merchant}, {}", line.what))?;
    }
    let entries = books_agree(stack, merchant).await?;
    // The report of an unknown outcome follows its answer, before or after the next payment.
    let decided = entries.iter().filter(|entry| entry.action != "unknown");
    let rows: Vec<_> = decided.map(|entry| (entry.brief(), entry.replay)).collect();
    let orders: Vec<String> = (0..20).map(|order| order_no(merchant, order)).collect();
    let announced: Vec<_> = lines
        .iter()
        .flat_map(|line| line.rows)
        .map(|(order, action, code, mode, replay)| ((&*orders[*order as usize], *action, *code, *mode), *replay))
        .collect();
    ensure_eq!(rows, announced, "{merchant}");
    Ok(())
}

fn order_no(merchant: &str, order: u32) -> String {
    format!("{merchant}-{order}")
}

async fn send(stack: &Stack, merchant: &str, client: &mut Client, line: &Line) -> Result<()> {
    let order = order_no(merchant, line.order);
    let mut payment = Payment::new(merchant, &order, line.cents).path(line.path);
    if let Some(text) = line.amount {
        payment = payment.amount_text(text);
    }
    if let Some(behaviour) = line.gateway {
        payment = payment.gateway(behaviour);
    }
    let before = stack.gateway.seen_order(&order).len();
    let answer = client.send(payment.call()).await?;
    let seen = stack.gateway.seen_order(&order);
    let new = seen.get(before..).unwrap_or_default();
    ensure_eq!(answer.status, line.status, "{:?}", answer.json());
    ensure_eq!(new.len(), usize::from(line.reaches_gateway), "requests at the gateway");
    match new {
        [request] => forwarded(request, line)?,
        _ => answered(&answer, line)?,
    }
    settles_at(stack, merchant, line.day).await
}

/// What the gateway must have seen.
fn forwarded(request: &Seen, line: &Line) -> Result<()> {
    let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
    ensure_eq!(header(header::CODE), line.code, "the code at the gateway");
    ensure_eq!(header(header::REPLAY), line.replay.then_some("true"), "the replay mark at the gateway");
    // What was not decided, and a refusal of the filter itself, have no decision.
    let decided = line.code.is_some_and(|code| code != "BAD_AMOUNT");
    let has_id = header(header::DECISION_ID).is_some();
    ensure_eq!(has_id, decided, "decision id at the gateway");
    Ok(())
}

/// What the client must have been answered.
fn answered(answer: &Answer, line: &Line) -> Result<()> {
    let problem = answer.json();
    let text = |name: &str| problem.get(name).and_then(|value| value.as_str()).unwrap_or_default().to_owned();
    let code = line.code.unwrap_or_default();
    ensure_eq!(answer.header("content-type"), Some("application/problem+json"));
    ensure_eq!(answer.header(header::CODE), Some(code));
    ensure_eq!(text("code"), code);
    ensure_eq!(text("type"), format!("urn:sluice:problem:{}", code.to_lowercase()));
    ensure_eq!(problem.get("status").and_then(serde_json::Value::as_u64), Some(u64::from(line.status)));
    ensure!(!text("title").is_empty(), "the problem has no title");
    match line.status {
        400 => ensure!(text("detail").contains("amount"), "the detail names no field: {problem}"),
        _ => ensure_eq!(answer.header(header::DECISION_ID), Some(&*text("decision_id"))),
    }
    if line.status == 429 { names_its_limit(answer, &problem, line) } else { Ok(()) }
}

/// The day's limit, in the body and in the headers of RFC 9110 and the draft `ratelimit-headers`.
fn names_its_limit(answer: &Answer, problem: &serde_json::Value, line: &Line) -> Result<()> {
    let limit = problem.get("limit").cloned().unwrap_or_default();
    let (used, _) = line.day;
    let remaining = testkit::policies::DAILY_AMOUNT - used;
    let figures = ["max", "used", "remaining"].map(|name| limit.get(name).and_then(serde_json::Value::as_u64));
    ensure_eq!(figures, [Some(testkit::policies::DAILY_AMOUNT), Some(used), Some(remaining)], "{limit}");
    let resets_at = limit.get("resets_at").and_then(|at| at.as_str()).unwrap_or_default().to_owned();
    ensure!(resets_at.ends_with(":00:00Z"), "the day ends at {resets_at}");
    let seconds: u64 = answer.header(header::RETRY_AFTER).unwrap_or_default().parse()?;
    ensure!((1..=86_400).contains(&seconds), "retry after {seconds} s");
    ensure_eq!(answer.header(header::RATE_LIMIT), Some(&*format!("\"daily_amount\";r={remaining};t={seconds}")));
    ensure_eq!(
        answer.header(header::RATE_LIMIT_POLICY),
        Some(&*format!("\"daily_amount\";q={};w=86400", testkit::policies::DAILY_AMOUNT))
    );
    Ok(())
}
