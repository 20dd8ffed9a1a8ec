//! An example of every request body, as it can be sent: by the name of the operation. Swagger would otherwise fill in random text.

use serde_json::{Value, json};

/// An id that does not exist; a caller replaces it by its own.
const ID: &str = "0190b0a4-5b5e-7cc3-98c8-2f4c1d7e9a10";

/// The example of an operation's body; none if it needs none.
pub(super) fn of(operation: &str) -> Option<Value> {
    Some(match operation {
        "check" => json!({"merchant_id": "merchant-001", "currency": "USD", "amount": 50_000, "channel": "card"}),
        "consume" => charge("ORDER-001"),
        "hold" => charge("ORDER-002"),
        "settle" => with(order("ORDER-002"), json!({"amount": 45_000})),
        "void" => order("ORDER-002"),
        "extend_hold" => with(order("ORDER-002"), json!({"hold_until": "2026-12-31T12:00:00Z"})),
        "release" => order("ORDER-001"),
        "refund" => with(order("ORDER-001"), json!({"refund_no": "REFUND-001", "amount": 20_000})),
        "adjust" => with(
            account(),
            json!({"counter": "daily_used", "operation": "add", "amount": 1_000, "reason": "missed by the import"}),
        ),
        "reset" => with(account(), json!({"window": "daily", "reason": "a new contract"})),
        "suspend" => with(account(), json!({"reason": "chargebacks"})),
        "resume" => with(account(), json!({"reason": "settled with the merchant"})),
        "initialize" => account(),
        "release_right" => json!({
            "merchant_id": "merchant-001", "currency": "USD", "right_id": "5c1f0a90-0000-0000-0000-00000000002a",
            "reason": "the proxy was replaced"
        }),
        "batch" => json!({"operations": [
            with(charge("ORDER-003"), json!({"action": "consume"})),
            with(charge("ORDER-004"), json!({"action": "hold"})),
        ], "atomic": false}),
        "create_limit_policy" | "update_limit_policy" => {
            json!({"policy": {"merchant_id": "merchant-001", "daily_limit": 5_000_000, "single_trans_max": 1_000_000},
                "reason": "a contract"})
        }
        "create_tier" | "update_tier" => {
            json!({"tier_code": "gold", "tier_level": 3, "allowed_channels": ["card"], "allowed_currencies": ["USD"]})
        }
        "bind" => json!({"merchant_id": "merchant-001", "tier_id": ID, "change_reason": "more volume"}),
        "create_override" => json!({"merchant_id": "merchant-001", "daily_limit": 9_000_000, "reason": "a sale",
            "effective_date": "2090-11-27T00:00:00Z", "expiry_date": "2090-11-30T00:00:00Z"}),
        "set_merchant_settings" => with(
            settings(),
            json!({"thresholds": [
                {"types": ["daily", "credit_utilisation"], "percents": [50, 90]},
                {"currency": "USD", "types": ["monthly"], "remaining_below": [500_000]},
            ]}),
        ),
        "set_operators_settings" => settings(),
        "test_merchant_settings" | "test_operators_settings" => json!({"channel_id": "ops-chat"}),
        "create_credit_line" => {
            json!({"line": {"merchant_id": "merchant-001", "currency": "USD", "limit_base": 1_000_000},
            "reason": "a new contract"})
        }
        "update_credit_line" => json!({"line": {"limit_base": 2_000_000, "terms": {"due_days": 30}},
            "reason": "more volume"}),
        "repay" => json!({"repayment_no": "REPAYMENT-001", "amount": 250_000}),
        "reverse_repayment" => json!({"reason": "the bank returned the debit"}),
        "write_off" => json!({"write_off_no": "WRITE-OFF-001", "amount": 5_000, "reason": "insolvent"}),
        "pause" => json!({"from": "2026-12-01", "to": "2026-12-10", "reason": "pays in two parts"}),
        "request_grade" => json!({"grade": "A", "reason": "audited accounts", "expires_on": "2099-12-31"}),
        "take_over_obligations" => json!({"obligations": [{"closed_on": "2026-10-31", "amount": 250_000}],
            "reason": "taken over from the former system"}),
        "transfer" => json!({"transfer_no": "TRANSFER-001", "from_merchant_id": "merchant-001",
            "to_merchant_id": "merchant-002", "currency": "USD", "amount": 100_000, "reason": "an invitation"}),
        "record_dispute" => json!({"dispute_no": "DISPUTE-001", "amount": 2_500, "remarks": "goods not received"}),
        "put_scorecard" => json!({"card": scorecard(), "reason": "fitted to the accounts of 2026"}),
        "activate_scorecard" => json!({"role": "challenger", "reason": "a trial of six months"}),
        "change_settings" => json!({"changes": {"admin_page_max": 100}, "reason": "smaller pages"}),
        "create_access_token" => json!({"name": "reports", "role": "operator", "permissions": ["quotas:read"]}),
        "resolve_outcome" => {
            json!({"outcome": "not_made", "reason": "the gateway's report of 20 November has no such order"})
        }
        "acknowledge_alert" | "resolve_alert" => json!({"notes": "the merchant was called"}),
        "approve_limit_policy"
        | "activate_limit_policy"
        | "deactivate_limit_policy"
        | "approve_override"
        | "revoke_override"
        | "approve_credit_line"
        | "activate_credit_line"
        | "close_credit_line"
        | "retire_scorecard"
        | "approve_grade" => json!({"reason": "as agreed"}),
        _ => return None,
    })
}

fn account() -> Value {
    json!({"merchant_id": "merchant-001", "currency": "USD"})
}

fn order(order_no: &str) -> Value {
    with(account(), json!({"order_no": order_no}))
}

fn charge(order_no: &str) -> Value {
    with(order(order_no), json!({"amount": 50_000, "channel": "card"}))
}

/// The bands of the standard scorecard, which are the default, with points for two features only.
fn scorecard() -> Value {
    json!({"version": "2027-01", "base_points": 600, "characteristics": [
        {"feature": "worst_dpd", "missing_points": 0, "bins": [
            {"from": null, "to": 0, "points": 20}, {"from": 1, "to": 30, "points": -20}, {"from": 31, "to": null, "points": -90}]},
        {"feature": "utilisation_bp", "missing_points": 0, "bins": [
            {"from": null, "to": 7_999, "points": 15}, {"from": 8_000, "to": null, "points": -15}]},
    ]})
}

fn settings() -> Value {
    json!({
        "channels": [{"kind": "slack", "id": "ops-chat", "url": "https://hooks.example/services/T0/B0/XXXXXXXX"}],
        "routes": [{"levels": ["critical"], "channels": ["ops-chat"]}],
    })
}

fn with(mut body: Value, more: Value) -> Value {
    if let (Value::Object(body), Value::Object(more)) = (&mut body, more) {
        body.extend(more);
    }
    body
}
