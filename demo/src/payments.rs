//! The payments, an authorisation with its capture and refund, what is announced for each, and what came of it.

use std::time::Duration;

use testkit::client::{Answer, Call, Client, Payment, Protocol};
use testkit::stack::Stack;
use testkit::{Result, wait};

/// Whose payments these are.
pub(crate) const MERCHANT: &str = "demo-merchant";
/// What follows the gateway's answer (a void, a capture, a refund) is not waited for by anybody but this demo.
const VOID_WITHIN: Duration = Duration::from_secs(5);

/// What a payment is expected to come to.
struct Announced {
    status: u16,
    /// `None` where no server is asked.
    code: Option<&'static str>,
    reaches_gateway: bool,
    /// A header of the answer, or of the request as the gateway saw it.
    header: Option<&'static str>,
    /// The account's day after it, in cents.
    day_after: u64,
}

struct Line {
    what: &'static str,
    call: Call,
    announced: Announced,
}

fn line(what: &'static str, payment: Payment, announced: Announced) -> Line {
    Line { what, call: payment.call(), announced }
}

/// A later request about an authorised order.
fn about(what: &'static str, path: &str, members: &str, day_after: u64) -> Line {
    let body = format!(r#"{{"merchant_id":"{MERCHANT}","currency":"USD",{members}}}"#);
    Line { what, call: Call::post_json(path, body), announced: through(Some("APPLIED"), day_after) }
}

fn through(code: Option<&'static str>, day_after: u64) -> Announced {
    Announced { status: 200, code, reaches_gateway: true, header: None, day_after }
}

fn refused(status: u16, code: &'static str) -> Announced {
    Announced { status, code: Some(code), reaches_gateway: false, header: None, day_after: 6_000 }
}

fn lines() -> Vec<Line> {
    let order = |number: u32, cents: u64| Payment::new(MERCHANT, &format!("demo-{number}"), cents);
    let replayed = Announced { header: Some("x-sluice-replay"), ..through(Some("ADMITTED"), 6_000) };
    let over_the_day = Announced { header: Some("retry-after"), ..refused(429, "DAILY_AMOUNT") };
    let declined = Announced { status: 402, ..through(Some("ADMITTED"), 6_000) };
    vec![
        line("60.00, within all limits", order(1, 6_000), through(Some("ADMITTED"), 6_000)),
        line("the same order again: not counted twice", order(1, 6_000), replayed),
        line("the same order, another amount", order(1, 7_000), refused(409, "IDEMPOTENCY_CONFLICT")),
        line("100.01, over the single maximum", order(2, 10_001), refused(403, "ABOVE_SINGLE_MAX")),
        line("95.00, over what the day has left", order(3, 9_500), over_the_day),
        line("amount \"12.5x\", malformed", order(4, 0).amount_text("\"12.5x\""), refused(400, "BAD_AMOUNT")),
        line("20.00, refused by the gateway: returned", order(5, 2_000).gateway("fail-402"), declined),
        line(
            "100.01 on a route in shadow",
            order(6, 10_001).path("/v1/shadow/payments"),
            through(Some("ABOVE_SINGLE_MAX"), 6_000),
        ),
        line("100.01 on a route switched off", order(7, 10_001).path("/v1/open/payments"), through(None, 6_000)),
        line(
            "30.00 authorised: held, not captured yet",
            order(8, 3_000).path("/v1/authorizations"),
            through(Some("ADMITTED"), 9_000),
        ),
        about(
            "20.00 of it captured: the rest comes back",
            "/v1/authorizations/demo-8/captures",
            r#""capture_no":"c-1","amount":2000"#,
            8_000,
        ),
        about(
            "5.00 of the capture refunded",
            "/v1/payments/demo-8/refunds",
            r#""refund_no":"r-1","amount":500"#,
            7_500,
        ),
    ]
}

/// Sends all payments over HTTP/1.1 and prints a table; the number of those that did not come out as announced.
pub(crate) async fn send_all(stack: &Stack) -> Result<usize> {
    println!("{:<42} {:<6} {:<22} {:<12} {:<10}", "Payment (USD)", "HTTP", "Decision", "Gateway", "Day after");
    let mut client = stack.client(Protocol::Http1).await?;
    let mut wrong = 0;
    for line in lines() {
        let problems = send(stack, &mut client, &line).await?;
        wrong += usize::from(!problems.is_empty());
        for problem in problems {
            println!("    NOT AS ANNOUNCED: {problem}");
        }
    }
    Ok(wrong)
}

async fn send(stack: &Stack, client: &mut Client, line: &Line) -> Result<Vec<String>> {
    let before = stack.gateway.seen().len();
    let answer = client.send(line.call.clone()).await?;
    let seen = stack.gateway.seen().into_iter().nth(before);
    let at_gateway = |name: &str| {
        let headers = seen.as_ref().map(|request| &request.headers)?;
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    };
    let code = at_gateway("x-sluice-code").or_else(|| Some(answer.code()).filter(|code| !code.is_empty()));
    let header = line.announced.header.map(|name| (name, answer.header(name).map(str::to_owned).or(at_gateway(name))));
    let day = settled_day(stack, line.announced.day_after).await?;
    print_row(line.what, &answer, code.as_deref(), seen.is_some(), &header, day);

    let announced = &line.announced;
    let mut problems = Vec::new();
    let mut compare = |what: &str, announced: String, came: String| {
        if announced != came {
            problems.push(format!("{what} is {came}, announced was {announced}"));
        }
    };
    compare("the status", announced.status.to_string(), answer.status.to_string());
    compare("the decision", format!("{:?}", announced.code), format!("{:?}", code.as_deref()));
    compare("reaching the gateway", announced.reaches_gateway.to_string(), seen.is_some().to_string());
    compare("the day's amount", announced.day_after.to_string(), day.to_string());
    if let Some((name, None)) = &header {
        problems.push(format!("{name} is missing"));
    }
    Ok(problems)
}

fn print_row(
    what: &str,
    answer: &Answer,
    code: Option<&str>,
    reached: bool,
    header: &Option<(&str, Option<String>)>,
    day: u64,
) {
    let gateway = if reached { "reached" } else { "not reached" };
    let extra = match header {
        Some((name, Some(value))) => format!("{name}: {value}"),
        _ => String::new(),
    };
    let day = format!("{}.{:02}", day / 100, day % 100);
    println!("{what:<42} {:<6} {:<22} {gateway:<12} {day:<10} {extra}", answer.status, code.unwrap_or("(not asked)"));
}

/// The day's amount, after waiting for what follows the answer where the announced amount is not there at once.
async fn settled_day(stack: &Stack, announced: u64) -> Result<u64> {
    let day = async || Ok(stack.account(MERCHANT, "USD").await?.map_or(0, |account| account.windows.day.amount));
    let settled = wait::until_async("the day's amount", VOID_WITHIN, || async {
        Ok(Some(day().await?).filter(|day| *day == announced))
    });
    match settled.await {
        Ok(day) => Ok(day),
        Err(_) => day().await,
    }
}
