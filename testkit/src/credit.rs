//! Credit lines of a stack's merchants.

use std::time::Duration;

use serde_json::json;

use crate::api::{Caller, EXPIRES_AT_SECS, secret, sign};
use crate::client::Answer;
use crate::failure::{Failure, Result};
use crate::stack::Stack;
use crate::wait;

/// A server knows of a new line within a second.
const KNOWN_WITHIN: Duration = Duration::from_secs(20);

/// A credit line in force in USD, drafted by one person and approved by another, that the stack's server knows.
///
/// # Errors
/// When a step is refused, or the server does not know the line in time.
pub async fn open_line(stack: &Stack, merchant: &str, limit_base: i64) -> Result<()> {
    let claims = json!({"sub": "oleg", "role": "operator", "exp": EXPIRES_AT_SECS});
    let maker = Caller::new(stack.server.admin_address(), &sign(secret(), &claims)?);
    let checker = stack.caller();
    let line =
        json!({"line": {"merchant_id": merchant, "currency": "USD", "limit_base": limit_base}, "reason": "a contract"});
    accepted("the draft", &maker.post("/credit-lines", &line).await?)?;
    for step in ["approve", "activate"] {
        let path = format!("/credit-lines/{merchant}/USD/{step}");
        accepted(step, &checker.post(&path, &json!({})).await?)?;
    }
    wait::until_async("the server to know the credit line", KNOWN_WITHIN, || async {
        let account = checker.get(&format!("/quotas/merchant/{merchant}/currency/USD")).await?.json();
        Ok(account["credit"]["limit"].is_number().then_some(()))
    })
    .await
}

fn accepted(what: &str, answer: &Answer) -> Result<()> {
    if answer.status < 300 { Ok(()) } else { Err(Failure::new(format!("{what}: {} {}", answer.status, answer.json()))) }
}
