//! A credit line: used, refused, repaid and used again, through Envoy.

use serde_json::{Value, json};
use testkit::client::{Client, Payment, Protocol};
use testkit::credit::open_line;
use testkit::stack::Stack;
use testkit::{Failure, Result};

/// Whose line it is.
const MERCHANT: &str = "demo-credit";
/// The limit: 100.00.
const LIMIT: i64 = 10_000;

/// Opens the line, pays with it, and prints a table; the number of payments that did not come out as announced.
pub(crate) async fn show(stack: &Stack) -> Result<usize> {
    println!("\nCredit line of {MERCHANT} in USD: {} cents, drafted by one person, approved by another", LIMIT);
    open_line(stack, MERCHANT, LIMIT).await?;
    println!("{:<42} {:<6} {:<22} {:<12} Credit", "Payment (USD)", "HTTP", "Decision", "Exposure");
    let mut client = stack.client(Protocol::Http1).await?;
    let mut wrong = pay(stack, &mut client, "60.00, within the line", (1, 6_000), (200, "ADMITTED", 6_000)).await?;
    wrong += pay(stack, &mut client, "50.00, more than is left", (2, 5_000), (403, "CREDIT_EXHAUSTED", 6_000)).await?;
    wrong += repay(stack, 1_000, 5_000).await?;
    wrong += pay(stack, &mut client, "50.00 again", (2, 5_000), (200, "ADMITTED", 10_000)).await?;
    Ok(wrong)
}

fn path(rest: &str) -> String {
    format!("/credit-lines/{MERCHANT}/USD{rest}")
}

async fn done(what: &str, answer: testkit::client::Answer) -> Result<Value> {
    if answer.status >= 300 {
        return Err(Failure::new(format!("{what}: {} {}", answer.status, answer.json())));
    }
    Ok(answer.json())
}

async fn pay(
    stack: &Stack,
    client: &mut Client,
    what: &str,
    (number, cents): (u32, u64),
    announced: (u16, &str, i64),
) -> Result<usize> {
    let payment = Payment::new(MERCHANT, &format!("credit-{number}"), cents);
    let before = stack.gateway.seen().len();
    let answer = client.send(payment.call()).await?;
    let reached = stack.gateway.seen().into_iter().nth(before);
    let admitted =
        reached.as_ref().and_then(|seen| seen.headers.get("x-sluice-code")?.to_str().ok().map(str::to_owned));
    let code = admitted.unwrap_or_else(|| answer.code());
    let exposure = exposure(stack).await?;
    let credit = answer.json()["credit"].clone();
    let to_cure = credit["amount_to_cure"].as_u64();
    let note =
        to_cure.map(|minor| format!("available {}, amount_to_cure {minor}", credit["available"])).unwrap_or_default();
    println!("{what:<42} {:<6} {code:<22} {:<12} {note}", answer.status, exposure);
    let came = (answer.status, code.as_str(), exposure);
    if came == announced && (announced.0 == 200 || to_cure.is_some()) {
        return Ok(0);
    }
    println!("    NOT AS ANNOUNCED: {came:?}, announced was {announced:?}");
    Ok(1)
}

async fn repay(stack: &Stack, cents: u64, announced: i64) -> Result<usize> {
    let repayment = json!({"repayment_no": "demo-repayment", "amount": cents});
    let answer = done("the repayment", stack.caller().post(&path("/repayments"), &repayment).await?).await?;
    let exposure = answer["credit"]["exposure"].as_i64().unwrap_or_default();
    let code = answer["code"].as_str().unwrap_or_default();
    println!("{:<42} {:<6} {code:<22} {exposure:<12} available {}", "10.00 repaid", 200, answer["credit"]["available"]);
    if exposure == announced {
        return Ok(0);
    }
    println!("    NOT AS ANNOUNCED: the exposure is {exposure}, announced was {announced}");
    Ok(1)
}

/// What the account uses of its line, as Redis has it.
async fn exposure(stack: &Stack) -> Result<i64> {
    let account = stack.account(MERCHANT, "USD").await?;
    Ok(account.and_then(|account| account.credit).map_or(0, |credit| credit.exposure))
}
