//! The filter as a proxy loads it, in hosts that record what it does: the wasm module, and the native module behind Envoy's C ABI.
//! What it asks of the proxy in every phase of a stream, that no chunking of a body changes the charge, and that no failing host call
//! lets a payment past (Q-10).
//!
//! The scenarios are written once. Each host includes them beside a `proxy` and a `host` of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]
#![expect(clippy::duplicate_mod, reason = "both hosts run the same scenarios")]

mod answers;
mod native;
mod wasm;

use serde_json::{Value, json};

/// A payment's body.
const BODY: &[u8] = br#"{"order_no": "o-1", "amount": 1050, "currency": "USD", "note": "\u00e9 {}"}"#;

/// The configuration of most tests: one rule that reads the body, one that reads the head alone.
fn configuration(change: &Value) -> Value {
    let mut payments = json!({
        "name": "payments", "match": {"methods": ["POST"], "path": "/v1/merchants/{merchant}/payments"}, "unit": "minor",
        "body_bytes_max": 1000, "timeout_ms": 300,
        "extract": {"merchant": [{"path": "merchant"}], "amount": [{"json": "/amount"}],
            "currency": [{"json": "/currency"}], "order_no": [{"json": "/order_no"}]},
    });
    payments.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    let head_only = json!({
        "name": "head", "match": {"methods": ["POST"], "path": "/pay/{merchant}"}, "unit": "major",
        "extract": {"merchant": [{"path": "merchant"}], "amount": [{"query": "amount"}], "currency": [{"query": "currency"}],
            "order_no": [{"header": "idempotency-key"}], "channel": [{"metadata": ["jwt", "channel"]}]},
    });
    json!({"cluster": "sluice_authz", "servers": ["http://sluice_authz"], "rules": [payments, head_only]})
}

/// The headers of a payment whose body is read.
const PAYMENT: &[(&str, &str)] = &[
    (":method", "POST"),
    (":path", "/v1/merchants/m1/payments"),
    ("content-type", "application/json"),
    ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ("x-sluice-code", "ADMITTED"),
];

/// The headers of a payment that is read from its head.
const HEAD_PAYMENT: &[(&str, &str)] =
    &[(":method", "POST"), (":path", "/pay/m2?amount=10.50&currency=EUR"), ("idempotency-key", "o-2")];
