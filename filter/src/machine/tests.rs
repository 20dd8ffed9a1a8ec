use super::*;

/// A plugin with one rule that reads everything from a JSON body; `change` is merged into the rule.
pub(crate) fn plugin(change: &str) -> Plugin {
    let mut rule: serde_json::Value = serde_json::from_str(
        r#"{"name": "payments", "match": {"methods": ["POST"], "path": "/v1/merchants/{merchant}/payments"}, "unit": "minor",
        "extract": {"merchant": [{"path": "merchant"}], "amount": [{"json": "/amount"}], "currency": [{"json": "/currency"}],
        "order_no": [{"json": "/order_no"}]}}"#,
    )
    .unwrap();
    let change: serde_json::Map<String, serde_json::Value> = serde_json::from_str(change).unwrap();
    rule.as_object_mut().unwrap().extend(change);
    Plugin::parse(
        serde_json::json!({"cluster": "sluice_authz", "rules": [rule]})
            .to_string()
            .as_bytes(),
    )
    .unwrap()
}
