//! A trusted account: payments that the proxy admits without a call, and its limit, which is exact all the same.

use serde_json::json;
use testkit::Result;
use testkit::books::{day, settles_at};
use testkit::client::{Payment, Protocol};
use testkit::envoy::EnvoyConfig;
use testkit::stack::Stack;

/// Whose account it is. Its policy is in [`crate::policies`].
const MERCHANT: &str = "demo-trusted";
/// Payments a day.
const LIMIT: u64 = 200;
const CENTS: u64 = 100;

/// Payments of the shipped rule may be admitted from rights, where the policy grants some.
pub(crate) fn opt_in(config: &mut EnvoyConfig) -> Result<()> {
    let mut plugin = config.plugin()?;
    for rule in plugin["rules"].as_array_mut().into_iter().flatten() {
        if rule["name"] == "payments" {
            rule["trust"] = json!({});
        }
    }
    config.set_plugin(&plugin)
}

/// Pays until the limit is used up, and prints a table; the number of results that did not come out as announced.
pub(crate) async fn show(stack: &Stack) -> Result<usize> {
    println!("\nTrusted account of {MERCHANT} in USD: {LIMIT} payments a day, the proxy may admit some without a call");
    println!("{:<42} {:<10} {:<18} Day after", "Payments (USD)", "Admitted", "Without a call");
    let (half, mut wrong) = (LIMIT / 2, 0);
    wrong += pay(stack, "100 of 1.00", 0..half, half).await?;
    settles_at(stack, MERCHANT, (half * CENTS, half)).await?;
    println!("{:<42} {:<10} {:<18} {} in {half}", "rights are returned, all is reported", "", "", half * CENTS);
    wrong += pay(stack, "101 more, one above the limit", half..LIMIT + 1, LIMIT - half).await?;
    settles_at(stack, MERCHANT, (LIMIT * CENTS, LIMIT)).await?;
    println!("{:<42} {:<10} {:<18} {} in {LIMIT}", "the limit is exact", "", "", LIMIT * CENTS);
    if stack.envoy.metric("sluice_trusted")? < 1.0 {
        println!("    NOT AS ANNOUNCED: no payment was admitted without a call");
        wrong += 1;
    }
    Ok(wrong)
}

async fn pay(stack: &Stack, what: &str, numbers: std::ops::Range<u64>, announced: u64) -> Result<usize> {
    let mut client = stack.client(Protocol::Http1).await?;
    let (before, mut admitted) = (stack.envoy.metric("sluice_trusted")?, 0);
    for number in numbers {
        let answer = client.send(Payment::new(MERCHANT, &format!("trusted-{number}"), CENTS).call()).await?;
        admitted += u64::from(answer.status == 200);
    }
    let trusted = stack.envoy.metric("sluice_trusted")? - before;
    let (amount, count) = day(stack, MERCHANT).await?;
    println!("{what:<42} {admitted:<10} {trusted:<18} {amount} in {count}");
    if admitted == announced {
        return Ok(0);
    }
    println!("    NOT AS ANNOUNCED: {admitted} were admitted, announced was {announced}");
    Ok(1)
}
