//! The policy document changes while the server runs: the next payments see it, whole or not at all.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use testkit::client::{Payment, Protocol};
use testkit::policies;
use testkit::stack::Stack;
use testkit::{Result, wait};

use crate::suite::{Suite, patient};

/// The server looks at the file twice a second.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn add(suite: &mut Suite) {
    suite.owned("policy::a_change_is_seen_by_the_next_payments", patient(), a_change_is_seen);
}

async fn a_change_is_seen(stack: &mut Stack) -> Result<()> {
    const ABOVE: (u16, &str) = (403, "ABOVE_SINGLE_MAX");
    const ADMITTED: (u16, &str) = (200, "");
    ensure_eq!(pay(stack, 11_000).await?, ABOVE);
    stack.replace_policies(&policies::with("v2", "changing: {single_max: 12000, daily_amount: unlimited}"))?;
    wait_for(stack, 11_000, ADMITTED).await?;
    ensure_eq!(pay(stack, 12_001).await?, ABOVE);

    // A field that does not exist, a zone that does not exist, and half a file: each is refused whole and says why.
    let tables = [
        "changing: {single_max: 1, daily_ammount: 5}",
        "changing: {single_max: 1, timezone: Mars/Olympus}",
        "changing: {",
    ];
    for (number, slip) in tables.into_iter().enumerate() {
        stack.replace_policies(&policies::with("v3", slip))?;
        wait::until("the slip in the log", IN_FORCE_WITHIN, || {
            let refused = stack.server.log_lines().into_iter().filter(says_refused);
            Ok((refused.count() > number).then_some(()))
        })?;
        ensure_eq!(pay(stack, 12_000).await?, ADMITTED, "{slip}");
        ensure_eq!(pay(stack, 12_001).await?, ABOVE, "{slip}");
        ensure_eq!(stack.server.get("/ready")?.0, 200, "{slip}");
    }
    let log = stack.server.log_lines();
    let said: Vec<String> = log.iter().filter(|line| says_refused(line)).map(Value::to_string).collect();
    ensure!(said[0].contains("daily_ammount") && said[1].contains("Mars/Olympus"), "{said:#?}");

    stack.replace_policies(&policies::with("v4", ""))?;
    wait_for(stack, 11_000, ABOVE).await
}

fn says_refused(line: &Value) -> bool {
    line.to_string().contains("policy file refused")
}

/// A payment of a new order: status and code.
async fn pay(stack: &Stack, cents: u64) -> Result<(u16, &'static str)> {
    static ORDERS: AtomicU32 = AtomicU32::new(0);
    let order = format!("changing-{}", ORDERS.fetch_add(1, Ordering::Relaxed));
    let answer = stack.send(Protocol::Http2, Payment::new("changing", &order, cents).call()).await?;
    let code = quota::Code::parse(&answer.code()).map_or("", quota::Code::as_str);
    Ok((answer.status, code))
}

async fn wait_for(stack: &Stack, cents: u64, expected: (u16, &str)) -> Result<()> {
    wait::until_async("the new policies", IN_FORCE_WITHIN, || async {
        Ok((pay(stack, cents).await? == expected).then_some(()))
    })
    .await
}
