//! What Envoy's access log says of a payment.

use std::time::Duration;

use serde_json::Value;
use testkit::envoy::Envoy;
use testkit::{Result, wait};

/// Envoy writes its log out every 20 ms in tests.
const WRITTEN_WITHIN: Duration = Duration::from_secs(10);

/// The access log's lines of an order, once there are so many.
pub(crate) fn lines_of(envoy: &Envoy, order: &str, count: usize) -> Result<Vec<Value>> {
    wait::until(&format!("{count} lines of {order} in the access log"), WRITTEN_WITHIN, || {
        let lines: Vec<Value> =
            envoy.access_log()?.into_iter().filter(|line| line["sluice"]["order"] == order).collect();
        Ok((lines.len() >= count).then_some(lines))
    })
}

/// The outcome of the latest payment of an order.
pub(crate) fn outcome(envoy: &Envoy, order: &str) -> Result<String> {
    let lines = lines_of(envoy, order, 1)?;
    let outcome = lines.last().and_then(|line| line["sluice"]["outcome"].as_str());
    Ok(outcome.unwrap_or_default().to_owned())
}
