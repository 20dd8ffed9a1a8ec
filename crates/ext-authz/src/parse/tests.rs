//! How the filter's extensions and native requests are read.

use std::fmt::Write;

use envoy_types::pb::envoy::service::auth::v3::attribute_context;
use serde_json::{Value, json};

use super::*;

const RIGHT: RightId = RightId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]);

fn read(extensions: &[(&str, &str)]) -> Result<ParsedCheck, String> {
    let common = [("merchant", "m"), ("currency", "USD"), ("order_no", "o"), ("attempt", "1"), ("mode", "enforce")];
    let mut all: HashMap<String, String> =
        common.into_iter().map(|(name, value)| (format!("sluice.{name}"), value.to_owned())).collect();
    for (name, value) in extensions {
        let name = format!("sluice.{name}");
        // A dash means that the name is left out.
        if *value == "-" {
            all.remove(&name)
        } else {
            all.insert(name, (*value).to_owned())
        };
    }
    from_filter(&Extensions::Map(&all))
}

#[test]
fn the_filters_words_are_read_and_nothing_else_is() {
    let amount = |minor| AmountMinor::new(minor).unwrap();
    let (capture, refund) = (|number| OperationId::of(number), OperationId::of("r"));
    let settle = |amount, id, last, reported| Operation::Settle { amount, id, last, reported };
    // Without a number a capture that others follow is identified by its attempt.
    let of_attempt = OperationId::of(&AttemptId::from_text("1").to_string());
    let (five, charge) = (Some(amount(5)), ("amount_minor", "5"));
    type Row<'a> = (&'a [(&'a str, &'a str)], Result<(Operation, Effect), &'a str>);
    let table: &[Row<'_>] = &[
        (&[("action", "consume"), charge], Ok((Operation::Consume(amount(5)), Effect::Commit))),
        (
            &[("action", "consume"), charge, ("dry", "journal"), ("order_no", "-")],
            Ok((Operation::Consume(amount(5)), Effect::DryRunJournaled)),
        ),
        (
            &[("action", "consume"), charge, ("dry", "1"), ("order_no", "-")],
            Ok((Operation::Consume(amount(5)), Effect::DryRun)),
        ),
        (&[("action", "consume"), charge, ("order_no", "-")], Err("sluice.order_no is missing")),
        (&[("action", "consume")], Err("sluice.amount_minor is missing")),
        (&[("action", "consume"), ("amount_minor", "5.0")], Err("sluice.amount_minor")),
        (&[("action", "consume"), charge, ("dry", "yes")], Err("sluice.dry is \"yes\"")),
        (&[("action", "hold"), charge], Ok((Operation::Hold(amount(5)), Effect::Commit))),
        (&[("action", "hold"), charge, ("dry", "1"), ("order_no", "-")], Err("sluice.order_no is missing")),
        (&[("action", "hold")], Err("sluice.amount_minor is missing")),
        (&[("action", "settle")], Ok((settle(None, capture_id(None), true, true), Effect::Commit))),
        (
            &[("action", "settle"), charge, ("final", "0"), ("dry", "1"), ("operation_no", "c")],
            Ok((settle(five, capture("c"), false, false), Effect::DryRun)),
        ),
        (&[("action", "settle"), ("final", "1")], Err("sluice.final is \"1\", it may only be \"0\"")),
        (&[("action", "settle"), ("order_no", "-")], Err("sluice.order_no is missing")),
        (
            &[("action", "refund"), ("operation_no", "r"), ("stage", "reserve")],
            Ok((Operation::Refund { amount: None, id: refund, reserve: true }, Effect::Commit)),
        ),
        (
            &[("action", "refund"), ("operation_no", "r"), charge],
            Ok((Operation::Refund { amount: five, id: refund, reserve: false }, Effect::Commit)),
        ),
        (&[("action", "refund"), charge], Err("sluice.operation_no is missing")),
        (&[("action", "refund"), ("operation_no", "r"), ("stage", "apply")], Err("sluice.stage is \"apply\"")),
        (&[("action", "refund"), ("operation_no", "")], Err("sluice.operation_no: operation_no must have 1 to 128")),
        (&[("action", "void"), ("reason", "client_gone")], Ok((Operation::VoidAttempt, Effect::Commit))),
        (&[("action", "void_order"), ("dry", "1")], Ok((Operation::Void, Effect::DryRun))),
        (&[("action", "made")], Ok((Operation::Resolve(Resolution::Made), Effect::Commit))),
        (
            &[("action", "unknown"), ("outcome_of", "settle"), charge, ("final", "0")],
            Ok((
                Operation::MarkUnknown(Mark { subject: quota::Subject::Capture(of_attempt), amount: five }),
                Effect::Commit,
            )),
        ),
        (&[("action", "unknown")], Err("sluice.outcome_of is missing")),
        (&[("action", "unknown"), ("outcome_of", "refund")], Err("sluice.operation_no is missing")),
        (&[("action", "unknown"), ("outcome_of", "made")], Err("sluice.outcome_of is \"made\"")),
        (
            &[("action", "release")],
            Err("none of consume, hold, settle, refund, void, void_order, unknown, made, report"),
        ),
        (
            &[("action", "report"), charge, ("right", "000102030405060708090a0b0c0d0e0f")],
            Ok((Operation::Report { right: RIGHT, amount: five.unwrap() }, Effect::Commit)),
        ),
        (&[("action", "report"), charge], Err("sluice.right is missing")),
        (&[("action", "report"), ("right", "r")], Err("sluice.amount_minor is missing")),
        (
            &[("action", "release_right"), ("right", "000102030405060708090a0b0c0d0e0f"), ("order_no", "-")],
            Ok((Operation::ReleaseRight(ReleaseRight { right: RIGHT, by_holder: true }), Effect::Commit)),
        ),
        (&[("action", "consume"), charge, ("right_wanted", "3")], Err("sluice.right_wanted is \"3\"")),
        (&[("action", "void"), ("attempt", "-")], Err("sluice.attempt is missing")),
        (&[("action", "void"), ("mode", "maybe")], Err("sluice.mode is \"maybe\"")),
        (&[("action", "void"), ("currency", "XXQ")], Err("")),
    ];
    for (extensions, expected) in table {
        match (read(extensions), expected) {
            (Ok(check), Ok((operation, dry))) => {
                assert_eq!((check.request.operation, check.request.effect), (*operation, *dry), "{extensions:?}");
            }
            (Err(error), Err(part)) => assert!(error.contains(part), "{extensions:?}: {error}"),
            (got, expected) => panic!("{extensions:?}: {got:?}, not {expected:?}"),
        }
    }
    // X6: how many repetitions the rule admits.
    let replays =
        |text| read(&[("action", "consume"), charge, ("replays_max", text)]).map(|check| check.request.replays_max);
    for (text, max) in [("-", None), ("0", Some(0)), ("31", Some(31))] {
        assert_eq!(replays(text), Ok(max), "{text}");
    }
    for text in ["", "32", "256", "-1", "any"] {
        assert!(replays(text).is_err_and(|error| error.contains("sluice.replays_max is")), "{text}");
    }
    let long = "r".repeat(REASON_LEN_MAX + 1);
    assert!(read(&[("action", "void"), ("reason", &long)]).unwrap_err().contains("longer than 64"));
}

/// Rules with one of each action, each on its own path.
fn rules() -> Document {
    let rule = |action: &str, more: Value| {
        let mut extract = json!({"merchant": [{"header": "m"}], "currency": [{"header": "c"}]});
        let fields: &[&str] = match action {
            "check" => &["amount"],
            "refund" => &["order_no", "operation_no"],
            "settle" | "void" => &["order_no"],
            _ => &["amount", "order_no"],
        };
        for field in fields {
            extract[*field] = json!([{"header": field}]);
        }
        let mut name = action.to_owned();
        more.get("settle").iter().for_each(|_| name.push_str("-later"));
        let path = format!("/{name}");
        let mut rule = json!({"name": name, "match": {"methods": ["POST"], "path": path}, "unit": "minor",
            "action": action, "extract": extract});
        rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        rule
    };
    let plain = ["consume", "hold", "settle", "refund", "void", "check"].map(|action| rule(action, json!({})));
    let mut all = plain.to_vec();
    all.push(rule("hold", json!({"settle": "later"})));
    Document::from_json(json!({"rules": all}).to_string().as_bytes()).unwrap()
}

#[test]
fn envoys_own_filter_gets_what_it_can_carry_out() {
    let headers = [("m", "m"), ("c", "USD"), ("amount", "5"), ("order_no", "o"), ("operation_no", "r")];
    let native = |path: &str| {
        let http = HttpRequest {
            method: "POST".into(),
            path: path.into(),
            headers: HashMap::from(headers.map(|(key, value)| (key.to_owned(), value.to_owned()))),
            ..HttpRequest::default()
        };
        let request = attribute_context::Request { http: Some(http), ..attribute_context::Request::default() };
        AttributeContext { request: Some(request), ..AttributeContext::default() }
    };
    let amount = AmountMinor::new(5).unwrap();
    let table = [
        ("/consume", Ok((Operation::Consume(amount), Effect::Commit, true))),
        ("/hold-later", Ok((Operation::Hold(amount), Effect::Commit, true))),
        ("/check", Ok((Operation::Consume(amount), Effect::DryRunJournaled, false))),
        ("/hold", Err("hold")),
        ("/settle", Err("settle")),
        ("/refund", Err("refund")),
        ("/void", Err("void")),
    ];
    let rules = rules();
    for (path, expected) in table {
        match (Parsed::read(&native(path), Some(&rules)), expected) {
            (Parsed::Decide(check), Ok((operation, dry, has_order))) => {
                let request = check.request;
                assert_eq!(
                    (request.operation, request.effect, request.order_no.is_some()),
                    (operation, dry, has_order),
                    "{path}"
                );
                assert!(check.rule.is_some() && !request.may_delay);
            }
            (Parsed::Refuse(refused), Err(action)) => {
                assert_eq!(refused.mode, Mode::Enforce);
                let read = (action == "hold").then_some(amount);
                assert_eq!(refused.subject.known.amount, read, "{path}");
                let refusal = refused.refusal;
                let mut part = String::new();
                write!(part, "the rule's action {action} needs the gateway's answer").unwrap();
                assert!(refusal.detail.starts_with(&part), "{path}: {}", refusal.detail);
            }
            (got, _) => panic!("{path}: {got:?}"),
        }
    }
}

#[test]
fn x1_a_body_that_no_source_is_in_is_read_on_native_routes_too() {
    let form = ("content-type", "application/x-www-form-urlencoded");
    let table: &[(&[(&str, &str)], &str, &str)] = &[
        (&[form], "", ""),
        (&[form, ("content-length", "0")], "", ""),
        (&[form], "note=1", ""),
        (&[form], "Amount=9", "amount (header amount) must not be in the form"),
        (&[form], "merchant_id=m2", "merchant (header m) must not be in the form"),
        (
            &[("content-type", "application/json")],
            r#"{"order.no": "p"}"#,
            "order_no (header order_no) must not be in the body",
        ),
        (&[("content-type", "multipart/form-data; boundary=x")], "--x", "the body may hold fields"),
        (&[form, (PARTIAL_BODY, "true")], "note=1", "the body is larger than"),
        (&[form, ("content-length", "6")], "", "Envoy did not hand over"),
        (&[form, ("transfer-encoding", "chunked")], "", "Envoy did not hand over"),
        (&[("content-type", "text/plain"), ("content-length", "6")], "", ""),
    ];
    let rules = rules();
    for (headers, body, part) in table {
        let common = [("m", "m"), ("c", "USD"), ("amount", "5"), ("order_no", "o")];
        let headers = common.iter().chain(*headers).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let http = HttpRequest {
            method: "POST".into(),
            path: "/consume".into(),
            headers: headers.collect(),
            raw_body: body.as_bytes().to_vec(),
            ..HttpRequest::default()
        };
        let request = attribute_context::Request { http: Some(http), ..attribute_context::Request::default() };
        let attributes = AttributeContext { request: Some(request), ..AttributeContext::default() };
        match Parsed::read(&attributes, Some(&rules)) {
            Parsed::Decide(_) => assert!(part.is_empty(), "{body}: admitted"),
            Parsed::Refuse(refused) => {
                let refusal = refused.refusal;
                assert!(!part.is_empty() && refusal.detail.contains(part), "{body}: {}", refusal.detail);
            }
            Parsed::Pass => panic!("{body}: passed"),
        }
    }
}
