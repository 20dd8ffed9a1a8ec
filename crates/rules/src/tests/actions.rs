//! The fields that each action needs in its rule and in the request.

use serde_json::{Value, json};

use super::{JSON, check, document, merge, read_by, request, rules};
use crate::{Action, Document, Field, Need, RuleSet, SettleOn};

/// The rule of the tests with another action, and only the fields named.
fn rule(action: &str, fields: &[&str], more: &Value) -> Value {
    let mut extract = json!({"merchant": [{"path": "merchant"}], "currency": [{"json": "/currency"}]});
    for field in fields {
        extract[*field] = json!([{"json": format!("/{field}")}]);
    }
    let mut document = document(&json!({"action": action}));
    document["rules"][0]["extract"] = extract;
    merge(&mut document["rules"][0], more);
    document
}

fn parsed(document: &Value) -> RuleSet {
    Document::from_json(document.to_string().as_bytes()).unwrap().rules
}

fn refused(document: &Value) -> Option<String> {
    Document::from_json(document.to_string().as_bytes()).err().map(|error| error.to_string())
}

#[test]
fn each_action_takes_its_fields_and_no_others() {
    let order = ["order_no", "amount"];
    let table: &[(&str, &[&str], &str)] = &[
        ("consume", &order, ""),
        ("consume", &["order_no"], "extract.amount: is needed for the action consume"),
        ("consume", &["amount"], "extract.order_no: is needed for the action consume"),
        ("consume", &["order_no", "amount", "final"], "extract.final: is of no use to the action consume"),
        ("consume", &["order_no", "amount", "operation_no"], "extract.operation_no: is of no use"),
        ("hold", &order, ""),
        ("hold", &["order_no"], "extract.amount: is needed for the action hold"),
        ("hold", &["order_no", "amount", "operation_no"], "extract.operation_no: is of no use to the action hold"),
        ("settle", &["order_no"], ""),
        ("settle", &["order_no", "amount", "operation_no", "final", "payment_no", "channel"], ""),
        ("settle", &["amount"], "extract.order_no: is needed for the action settle"),
        ("refund", &["order_no", "operation_no"], ""),
        ("refund", &["order_no", "operation_no", "amount"], ""),
        ("refund", &["order_no", "amount"], "extract.operation_no: is needed for the action refund"),
        ("refund", &["order_no", "operation_no", "final"], "extract.final: is of no use to the action refund"),
        ("void", &["order_no"], ""),
        ("void", &["order_no", "amount"], "extract.amount: is of no use to the action void"),
        ("check", &["amount"], ""),
        ("check", &order, ""),
        ("check", &["order_no"], "extract.amount: is needed for the action check"),
    ];
    for (action, fields, part) in table {
        match refused(&rule(action, fields, &json!({}))) {
            None if part.is_empty() => {}
            Some(error) if !part.is_empty() && error.contains(part) => {}
            got => panic!("{action} {fields:?}: {got:?}, not {part:?}"),
        }
    }
    for action in Action::ALL {
        assert_eq!(action.need(Field::Merchant), Need::Required, "{action:?}");
        assert_eq!(serde_json::to_value(action).unwrap(), action.as_str());
    }
}

#[test]
fn what_ends_a_hold_is_said_where_it_can_be() {
    let later = json!({"settle": "later"});
    let success = json!({"settle": "on_success", "settle_amount_header": "X-Captured-Amount"});
    let header = json!({"settle_amount_header": "x-captured"});
    let table: &[(&str, &[&str], &Value, &str)] = &[
        ("hold", &["order_no", "amount"], &later, ""),
        ("hold", &["order_no", "amount"], &success, ""),
        ("hold", &["order_no", "amount"], &json!({"settle": "never"}), "unknown variant `never`"),
        (
            "hold",
            &["order_no", "amount"],
            &json!({"settle": "later", "settle_amount_header": "x"}),
            "is never read where",
        ),
        ("hold", &["order_no", "amount"], &json!({"settle_amount_header": "a b"}), "\"a b\" is not a header name"),
        ("settle", &["order_no"], &header, ""),
        ("settle", &["order_no"], &later, "settle: is for the action hold, this one is settle"),
        ("consume", &["order_no", "amount"], &later, "settle: is for the action hold, this one is consume"),
        ("consume", &["order_no", "amount"], &json!({"outcome_header": "X-Outcome"}), ""),
        ("void", &["order_no"], &json!({"outcome_header": "x y"}), "outcome_header: \"x y\" is not a header name"),
        ("check", &["amount"], &json!({"outcome_header": "x"}), "outcome_header: is of no use to the action check"),
        ("consume", &["order_no", "amount"], &header, "settle_amount_header: is for the actions hold and settle"),
        ("refund", &["order_no", "operation_no"], &header, "settle_amount_header: is for the actions hold and settle"),
    ];
    for (action, fields, more, part) in table {
        match refused(&rule(action, fields, more)) {
            None if part.is_empty() => {}
            Some(error) if !part.is_empty() && error.contains(part) => {}
            got => panic!("{action} {more}: {got:?}, not {part:?}"),
        }
    }
    let valid = |action, fields: &[&str], more: &Value| parsed(&rule(action, fields, more)).rules()[0].clone();
    let hold = valid("hold", &["order_no", "amount"], &success);
    assert_eq!((hold.settle, hold.settle_amount_header.as_deref()), (SettleOn::Success, Some("x-captured-amount")));
    let table = [
        ("consume", &["order_no", "amount"][..], json!({}), false),
        ("check", &["amount"], json!({}), false),
        ("hold", &["order_no", "amount"], json!({}), true),
        ("hold", &["order_no", "amount"], later, false),
        ("settle", &["order_no"], json!({}), true),
        ("refund", &["order_no", "operation_no"], json!({}), true),
        ("void", &["order_no"], json!({}), true),
    ];
    for (action, fields, more, expected) in table {
        assert_eq!(valid(action, fields, &more).needs_response(), expected, "{action} {more}");
    }
}

#[test]
fn a_capture_may_leave_out_what_it_need_not_say() {
    let all = ["order_no", "amount", "operation_no", "final"];
    let table: &[(&str, Result<&str, &str>)] = &[
        (r#""amount": 5, "operation_no": "c-1", "final": false"#, Ok("m1 5 USD o , c-1 partial")),
        (r#""amount": 5, "operation_no": 7, "final": "false""#, Ok("m1 5 USD o , 7 partial")),
        (r#""amount": 5, "final": true"#, Ok("m1 5 USD o")),
        (r#""final": "true""#, Ok("m1 - USD o")),
        ("", Ok("m1 - USD o")),
        (r#""amount": null, "operation_no": null, "final": null"#, Ok("m1 - USD o")),
        (r#""amount": 0"#, Err("BAD_AMOUNT")),
        (r#""amount": true"#, Err("BAD_AMOUNT amount (json /amount) is not a string or a number")),
        (r#""final": 1"#, Err("final (json /final) is neither true nor false")),
        (r#""final": []"#, Err("final (json /final) is neither true nor false")),
        (r#""final": "no""#, Err("BAD_REQUEST final (json /final): must be true or false")),
        (r#""final": "True""#, Err("must be true or false")),
        (r#""operation_no": """#, Err("operation_no must have 1 to 128 characters")),
        (r#""operation_no": true"#, Err("operation_no (json /operation_no) is not a string or a number")),
    ];
    let rules = parsed(&rule("settle", &all, &json!({})));
    for (rest, expected) in table {
        let comma = if rest.is_empty() { "" } else { ", " };
        let body = format!(r#"{{"currency": "USD", "order_no": "o"{comma}{rest}}}"#);
        let request = request("/v1/merchants/m1/payments", JSON);
        check(&body, read_by(&rules, &request, body.as_bytes()), *expected);
    }
}

#[test]
fn a_refund_needs_its_number_and_a_check_no_order() {
    let table: &[(&str, &[&str], &str, Result<&str, &str>)] = &[
        (
            "refund",
            &["order_no", "operation_no", "amount"],
            r#""order_no": "o", "operation_no": "r""#,
            Ok("m1 - USD o , r"),
        ),
        (
            "refund",
            &["order_no", "operation_no"],
            r#""order_no": "o""#,
            Err("operation_no (json /operation_no) is missing"),
        ),
        ("refund", &["order_no", "operation_no"], r#""order_no": "o", "operation_no": null"#, Err("is null")),
        ("check", &["amount"], r#""amount": 5"#, Ok("m1 5 USD -")),
        ("check", &["amount", "order_no"], r#""amount": 5, "order_no": null"#, Ok("m1 5 USD -")),
        ("check", &["amount", "order_no"], r#""amount": 5, "order_no": "o""#, Ok("m1 5 USD o")),
        ("check", &["amount"], r#""order_no": "o""#, Err("BAD_AMOUNT amount (json /amount) is missing")),
        ("void", &["order_no"], r#""order_no": "o", "amount": 5"#, Ok("m1 - USD o")),
        (
            "hold",
            &["order_no", "amount"],
            r#""order_no": "o", "amount": null"#,
            Err("BAD_AMOUNT amount (json /amount) is null"),
        ),
    ];
    for (action, fields, rest, expected) in table {
        let rules = parsed(&rule(action, fields, &json!({})));
        let body = format!(r#"{{"currency": "USD", {rest}}}"#);
        let request = request("/v1/merchants/m1/payments", JSON);
        check(&format!("{action} {body}"), read_by(&rules, &request, body.as_bytes()), *expected);
    }
}

#[test]
fn the_gateways_amount_is_read_in_the_rules_unit() {
    let usd = quota::Currency::parse("USD").unwrap();
    let table: &[(&str, &[u8], Option<u64>)] = &[
        ("minor", b"1050", Some(1050)),
        ("minor", b"0", Some(0)),
        ("minor", b"10.50", None),
        ("minor", b"-1", None),
        ("minor", b" 1", None),
        ("minor", b"", None),
        ("minor", b"\xff", None),
        ("minor", &[b'1'; 65], None),
        ("major", b"10.50", Some(1050)),
        ("major", b"10.505", None),
    ];
    for (unit, text, expected) in table {
        let rules = rules(&json!({"unit": unit})).unwrap();
        let got = rules.rules()[0].captured(text, usd);
        assert_eq!(got.as_ref().ok().map(|amount| amount.get()), *expected, "{unit} {text:?}: {got:?}");
    }
}
