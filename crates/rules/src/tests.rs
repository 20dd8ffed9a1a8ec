//! Tables for the document, the paths and the reading of charges, and a property: reading never panics.

use std::borrow::Cow;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

mod actions;
mod names;
mod overrides;

/// A request as the tests write it.
#[derive(Clone, Debug, Default)]
struct Sent {
    path: String,
    /// The path in the head, where it is not text.
    raw_path: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
    metadata: Vec<(String, Result<Vec<u8>, Unreadable>)>,
}

impl Head for Sent {
    fn method(&self) -> Cow<'_, str> {
        Cow::Borrowed("POST")
    }

    fn path(&self) -> &[u8] {
        self.raw_path.as_deref().unwrap_or(self.path.as_bytes())
    }

    fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_slice()))
    }

    fn metadata(&self, path: &[String]) -> Result<Option<Cow<'_, [u8]>>, Unreadable> {
        let found = self.metadata.iter().find(|(own, _)| *own == path.join("."));
        found.map(|(_, value)| value.clone().map(Cow::Owned)).transpose()
    }
}

fn document(change: &Value) -> Value {
    let mut rule = json!({
        "name": "payments",
        "match": {"methods": ["POST"], "path": "/v1/merchants/{merchant}/payments"},
        "extract": {
            "merchant": [{"path": "merchant"}], "amount": [{"json": "/payment/amount"}],
            "currency": [{"json": "/payment/currency"}], "order_no": [{"json": "/order_no"}],
            "payment_no": [{"json": "/payment_no"}], "channel": [{"json": "/methods/0/kind"}],
        },
        "unit": "minor",
    });
    merge(&mut rule, change);
    json!({"cluster": "c", "rules": [rule]})
}

fn merge(into: &mut Value, change: &Value) {
    match (into, change) {
        (Value::Object(into), Value::Object(change)) => {
            for (key, value) in change {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, change) => *into = change.clone(),
    }
}

fn rules(change: &Value) -> Result<RuleSet, String> {
    Document::from_json(document(change).to_string().as_bytes())
        .map(|document| document.rules)
        .map_err(|error| error.to_string())
}

/// X6: how many repetitions of an order a rule allows.
#[test]
fn x6_a_rule_says_how_many_repetitions_pass() {
    for (replays, max) in [
        (json!({}), None),
        (json!({"replays": "pass"}), None),
        (json!({"replays": "refuse"}), Some(0)),
        (json!({"replays": 0}), Some(0)),
        (json!({"replays": 7}), Some(7)),
    ] {
        let rules = rules(&replays).unwrap();
        assert_eq!(rules.rules()[0].replays_max, max, "{replays}");
    }
}

#[test]
fn a_document_that_would_enforce_nothing_or_cannot_be_meant_is_refused() {
    let many: Vec<Value> = (0..9).map(|at| json!({"header": format!("h{at}")})).collect();
    let deep = "/a".repeat(17);
    let table: &[(Value, &str)] = &[
        (json!({}), ""),
        (json!({"mode": "shadow"}), ""),
        (json!({"mode": "off"}), "nothing would be enforced"),
        (json!({"mode": "enforced"}), "unknown variant `enforced`"),
        (json!({"action": "capture"}), "unknown variant `capture`, expected one of `consume`, `hold`"),
        (json!({"typo": 1}), "unknown field `typo`"),
        (json!({"name": ""}), "name: must have 1 to 256 bytes"),
        (json!({"match": {"methods": []}}), "match.methods: must name 1 to 16"),
        (json!({"match": {"methods": ["PO ST"]}}), "is not an HTTP method"),
        (json!({"match": {"path": "v1"}}), "match.path: must start with '/'"),
        (json!({"match": {"path": "/v1/merchants/{merchant}/"}}), "has an empty segment"),
        (json!({"match": {"path": "/v1/../{merchant}"}}), "must not hold '.'"),
        (json!({"match": {"path": "/v1/%41/{merchant}"}}), "without %"),
        (json!({"match": {"path": "/{merchant}/{merchant}"}}), "captures {merchant} twice"),
        (json!({"match": {"path": "/{merch ant}"}}), "must be named by letters"),
        (json!({"match": {"path": "/v1/payments"}}), "\"merchant\" is not captured by match.path"),
        (json!({"extract": {"merchant": []}}), "extract.merchant: must list 1 to 8 sources"),
        (json!({"extract": {"merchant": many}}), "it lists 9"),
        (json!({"extract": {"amount": Value::Null}}), "extract.amount: is needed for the action consume"),
        (json!({"extract": {"channel": []}}), "extract.channel: must list"),
        (json!({"extract": {"amount": [{}]}}), "exactly one of"),
        (json!({"extract": {"amount": [{"json": "/a", "form": "a"}]}}), "exactly one of"),
        (json!({"extract": {"amount": [{"cookie": "a"}]}}), "unknown field `cookie`"),
        (json!({"extract": {"amount": [{"json": "amount"}]}}), "must start with '/'"),
        (json!({"extract": {"amount": [{"json": "/"}]}}), "empty token"),
        (json!({"extract": {"amount": [{"json": "/a~2"}]}}), "neither ~0 nor ~1"),
        (json!({"extract": {"amount": [{"json": deep}]}}), "has 17 tokens"),
        (json!({"extract": {"amount": [{"json": "/order_no/x"}]}}), "inside another pointer"),
        (json!({"extract": {"amount": [{"json": "/methods"}]}}), "inside another pointer"),
        (json!({"extract": {"amount": [{"header": "x y"}]}}), "is not a header name"),
        (json!({"extract": {"amount": [{"header": "X-Sluice-Code"}]}}), "stripped"),
        (json!({"extract": {"amount": [{"metadata": ["only"]}]}}), "a namespace and 1 to 15 keys"),
        (json!({"extract": {"amount": [{"metadata": ["a", ""]}]}}), "none of them empty"),
        (json!({"extract": {"amount": [{"query": ""}]}}), "query must have 1 to"),
        (json!({"unit": "cents"}), "unknown variant `cents`"),
        (json!({"body_bytes_max": 0}), "body_bytes_max: must be 1 to 1048576, it is 0"),
        (json!({"body_bytes_max": 1_048_577}), "body_bytes_max: must be"),
        (json!({"timeout_ms": 0}), "timeout_ms: must be 1 to 30000, it is 0"),
        (json!({"timeout_ms": 30_001}), "timeout_ms: must be"),
        (json!({"trust": {}}), ""),
        (json!({"trust": {"report_ms": 1000}, "replays": "pass"}), ""),
        (json!({"trust": {"report_ms": 0}}), "trust.report_ms: must be 1 to 1000"),
        (json!({"trust": {"report_ms": 1001}}), "trust.report_ms: must be 1 to 1000"),
        (json!({"trust": {"every_ms": 5}}), "unknown field"),
        (json!({"trust": {}, "replays": 3}), "trust: cannot be combined with replays"),
        (json!({"trust": {}, "action": "hold"}), "trust: is for the action consume"),
        (json!({"replays": "pass"}), ""),
        (json!({"replays": "refuse"}), ""),
        (json!({"replays": 31}), ""),
        (json!({"replays": 32}), "replays: must be pass, refuse or 0 to 31, it is 32"),
        (json!({"replays": -1}), "`pass`, `refuse` or a number from 0 to 31"),
        (json!({"replays": "3"}), "`pass`, `refuse` or a number from 0 to 31"),
        (json!({"replays": "Refuse"}), "`pass`, `refuse` or a number from 0 to 31"),
        (json!({"action": "check", "replays": 3}), "replays: is for the actions consume and hold, this one is check"),
        (json!({"void_on": {"statuses": ["4xx", "418"], "except": [404]}}), ""),
        (json!({"void_on": {"statuses": []}}), ""),
        (json!({"void_on": {"statuses": ["2xx"]}}), "\"2xx\" is not 4xx, 5xx or 400 to 599"),
        (json!({"void_on": {"statuses": ["399"]}}), "is not 4xx"),
        (json!({"void_on": {"statuses": ["5xx"], "except": [200]}}), "except: 200 is not 400 to 599"),
    ];
    for (change, part) in table {
        match (rules(change), *part) {
            (Ok(_), "") => {}
            (Err(error), part) if !part.is_empty() && error.contains(part) => {}
            (got, part) => panic!("{change}: {:?}, not {part:?}", got.map(|_| ())),
        }
    }
    let rule = document(&json!({}))["rules"][0].clone();
    for (text, part) in [
        (json!({"rules": []}), "must hold 1 to 256 rules"),
        (json!({"rules": [rule, rule]}), "used by another rule"),
        (json!({"cluster": ""}), "missing field `rules`"),
        (json!({"rules": [rule], "unmatched": "deny"}), "unknown variant `deny`"),
        (json!([1]), "invalid"),
    ] {
        let error = Document::from_json(text.to_string().as_bytes()).unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
}

#[test]
fn a_void_rule_covers_what_it_names() {
    let covers = |change: &Value, status| rules(change).unwrap().rules()[0].void_on.covers(status);
    let own = json!({"void_on": {"statuses": ["4xx", "502"], "except": [404]}});
    let table = [
        (200, false, false),
        (302, false, false),
        (400, true, true),
        (404, true, false),
        (406, false, true),
        (409, false, true),
        (422, true, true),
        (500, false, false),
        (502, false, true),
        (504, false, false),
        (599, false, false),
        (600, false, false),
    ];
    for (status, by_default, by_own) in table {
        assert_eq!(covers(&json!({}), status), by_default, "{status} by default");
        assert_eq!(covers(&own, status), by_own, "{status} by {own}");
    }
}

#[test]
fn a_payment_does_not_slip_past_by_its_path() {
    let rules = rules(&json!({})).unwrap();
    let table: &[(&str, &str, Option<&str>)] = &[
        // Some(merchant): this rule. Some(""): ambiguous. None: no rule.
        ("POST", "/v1/merchants/m1/payments", Some("m1")),
        ("post", "/v1/merchants/m1/payments", Some("m1")),
        ("GET", "/v1/merchants/m1/payments", None),
        ("POST", "/v1/merchants/m1/payments?x=/a/b", Some("m1")),
        ("POST", "/v1/merchants/m1/payments#x", Some("m1")),
        ("POST", "/v1/merchants/m1/payments/", Some("m1")),
        ("POST", "//v1///merchants/m1/payments//", Some("m1")),
        ("POST", "/v1/./merchants/m1/x/../payments", Some("m1")),
        ("POST", "/../v1/merchants/m1/payments", Some("m1")),
        ("POST", "/V1/Merchants/M1/PAYMENTS", Some("M1")),
        ("POST", "/v1/merchants/m1/%70ayments", Some("m1")),
        ("POST", "/v1/merchants/m%2D1/payments", Some("m-1")),
        ("POST", "/v1/merchants/m.1/payments", Some("m.1")),
        ("POST", "/v1/%2e/merchants/m1/payments", Some("m1")),
        ("POST", "/v1/merchants/m1%2fpayments", Some("")),
        ("POST", "/v1%2Fmerchants/m1/payments", Some("")),
        ("POST", "/v1/merchants/a%2fb/payments", Some("")),
        ("POST", "/v1/merchants/m1%2f..%2fm2/payments", Some("")),
        ("POST", "/v1/merchants/m1/%2570ayments", Some("")),
        ("POST", "/v1\\merchants\\m1\\payments", Some("")),
        ("POST", "/v1/merchants/m1/payments;v=1", Some("")),
        ("POST", "/v1/merchants/m1;v=1/payments", Some("")),
        ("POST", "/v1/merchants/m1/x/..;/payments", Some("")),
        ("POST", "/v1/merchants/m%zz/payments", Some("")),
        ("POST", "/v1/merchants/m1/payments%2f", Some("")),
        ("POST", "/v1/merchants/m1/payments/refunds", None),
        ("POST", "/v1/merchants//payments", None),
        ("POST", "/projects/a%2fb/%zz", None),
        ("POST", "", None),
        ("POST", "*", None),
    ];
    for (method, path, expected) in table {
        let found = match rules.find(&(*method, *path)) {
            Found::None => None,
            Found::Rule(_, captures) => Some(captures.get("merchant").unwrap().to_owned()),
            Found::Ambiguous(_, refusal) => {
                assert_eq!(refusal.code, Code::BadRequest);
                Some(String::new())
            }
        };
        assert_eq!(found.as_deref(), *expected, "{method} {path}");
    }
}

/// Reads one request by the only rule of a document.
fn read(change: &Value, request: &Sent, body: &[u8]) -> Result<String, String> {
    read_by(&rules(change).unwrap(), request, body)
}

fn read_by(rules: &RuleSet, request: &Sent, body: &[u8]) -> Result<String, String> {
    let Found::Rule(rule, captures) = rules.find(request) else { panic!("no rule for {}", request.path) };
    let parsed = rule.read_head(request, &captures).and_then(|mut draft| draft.finish(rule, body));
    let show = |parsed: Request| {
        let optional = [parsed.payment_no.map(|no| no.to_string()), parsed.channel.map(|channel| channel.to_string())];
        let rest = [parsed.operation_no.map(|no| no.to_string()), (!parsed.is_final).then(|| "partial".to_owned())];
        format!(
            "{} {} {} {} {} {}",
            parsed.merchant,
            parsed.amount.map_or("-".to_owned(), |amount| amount.to_string()),
            parsed.currency,
            parsed.order_no.map_or("-".to_owned(), |order_no| order_no.to_string()),
            optional.map(Option::unwrap_or_default).join(","),
            rest.map(Option::unwrap_or_default).join(" "),
        )
    };
    parsed.map(show).map_err(|refusal| format!("{} {}", refusal.code.as_str(), refusal.detail))
}

fn request(path: &str, headers: &[(&str, &str)]) -> Sent {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    Sent { path: path.to_owned(), headers, ..Sent::default() }
}

fn check(what: &str, got: Result<String, String>, expected: Result<&str, &str>) {
    match (&got, expected) {
        (Ok(got), Ok(expected)) => assert_eq!(got.trim_end_matches([',', ' ']), expected, "{what}"),
        (Err(got), Err(part)) => assert!(got.contains(part), "{what}: {got}, not {part}"),
        _ => panic!("{what}: {got:?}, not {expected:?}"),
    }
}

const JSON: &[(&str, &str)] = &[("content-type", "application/json")];

#[test]
fn json_bodies_are_read_strictly() {
    let full = r#"{"order_no": "o-1", "payment": {"amount": 1050, "currency": "USD"}"#;
    let with = |rest: &str| format!("{full}, {rest}}}");
    let pay = |payment: &str| format!(r#"{{"order_no": "o-1", "payment": {payment}}}"#);
    let long = format!(r#"{{"amount": "{}", "currency": "USD"}}"#, "-".repeat(60_000));
    let nested = format!(r#""x": {}{}"#, "[".repeat(20_000), "]".repeat(20_000));
    let table: Vec<(String, Result<&str, &str>)> = vec![
        (format!("{full}}}"), Ok("m1 1050 USD o-1")),
        (with(r#""payment_no": "p", "methods": [{"kind": "card"}, {"kind": "x"}]"#), Ok("m1 1050 USD o-1 p,card")),
        (with(r#""payment_no": null, "methods": null"#), Ok("m1 1050 USD o-1")),
        (with(r#""methods": []"#), Ok("m1 1050 USD o-1")),
        (with(r#""payment_no": 17"#), Ok("m1 1050 USD o-1 17")),
        (with(r#""other": {"order_no": 1, "order_no": 2, "Payment": {}}"#), Ok("m1 1050 USD o-1")),
        (with(&nested), Ok("m1 1050 USD o-1")),
        (pay(r#"{"amount": "1050", "currency": "USD"}"#), Ok("m1 1050 USD o-1")),
        (pay(r#"{"\u0061mount": 7, "currency": "USD"}"#), Ok("m1 7 USD o-1")),
        (
            pay(r#"{"amount": 10.5, "currency": "USD"}"#),
            Err("BAD_AMOUNT amount (json /payment/amount): the amount has more"),
        ),
        (pay(r#"{"amount": 1e3, "currency": "USD"}"#), Err("BAD_AMOUNT")),
        (pay(r#"{"amount": -5, "currency": "USD"}"#), Err("negative")),
        (pay(r#"{"amount": 0, "currency": "USD"}"#), Err("zero")),
        (pay(r#"{"amount": " 5", "currency": "USD"}"#), Err("not a plain decimal")),
        (pay(r#"{"amount": 99999999999999999999, "currency": "USD"}"#), Err("larger than 9007199254740991")),
        (pay(&long), Err("more than 64 bytes")),
        (pay(r#"{"amount": null, "currency": "USD"}"#), Err("BAD_AMOUNT amount (json /payment/amount) is null")),
        (pay(r#"{"amount": true, "currency": "USD"}"#), Err("is not a string or a number")),
        (pay(r#"{"amount": {"v": 1}, "currency": "USD"}"#), Err("is not a string or a number")),
        (pay(r#"{"currency": "USD"}"#), Err("BAD_AMOUNT amount (json /payment/amount) is missing")),
        (pay(r#"{"amount": 5}"#), Err("BAD_REQUEST currency (json /payment/currency) is missing")),
        (pay(r#"{"amount": 5, "currency": 840}"#), Err("currency (json /payment/currency) is a number")),
        (pay(r#"{"amount": 5, "currency": "usd"}"#), Err("ISO 4217")),
        (pay("null"), Err("currency (json /payment/currency) is missing")),
        (pay("7"), Err(r#"the body's "payment" is not an object"#)),
        (pay("[]"), Err("is missing")),
        (pay(r#"{"amount": 5, "currency": "USD", "amount": 5}"#), Err(r#"the key "amount" twice"#)),
        (pay(r#"{"amount": 5, "currency": "USD", "Amount": 1}"#), Err(r#"a key that some gateways read as "amount""#)),
        (pay(r#"{"AMOUNT": 1, "amount": 5, "currency": "USD"}"#), Err("a key that some gateways read as")),
        (with(r#""order_no": "o-1""#), Err(r#"the key "order_no" twice"#)),
        (with(r#""\u017fx": 1, "payment": {}"#), Err(r#"the key "payment" twice"#)),
        (with(r#""Payment": {"amount": 1}"#), Err("a key that some gateways read as")),
        (with(r#""payment_no": 1.5"#), Err("payment_no (json /payment_no) is a number that is not a plain integer")),
        (with(r#""payment_no": "a b""#), Err("visible ASCII")),
        (with(r#""payment_no": """#), Err("1 to 128 characters")),
        (format!("{full}}} {{}}"), Err("not one JSON document")),
        (full.to_owned(), Err("not one JSON document")),
        ("[1]".to_owned(), Err("is missing")),
        ("null".to_owned(), Err("the body is not an object")),
        ("\u{feff}{}".to_owned(), Err("byte order mark")),
        (String::new(), Err("the body is empty")),
    ];
    let request = request("/v1/merchants/m1/payments", JSON);
    for (body, expected) in table {
        check(body.get(..body.len().min(200)).unwrap(), read(&json!({}), &request, body.as_bytes()), expected);
    }
    check("not UTF-8", read(&json!({}), &request, b"{\"a\": \"\xff\"}"), Err("not UTF-8"));
    let kelvin = json!({"extract": {"payment_no": [{"json": "/key"}]}});
    check(
        "folded",
        read(&kelvin, &request, with("\"\u{212a}ey\": 1").as_bytes()),
        Err("some gateways read as \"key\""),
    );
}

#[test]
fn content_must_be_what_the_sources_read() {
    let json_body = br#"{"order_no": "o", "payment": {"amount": 5, "currency": "USD"}}"#;
    let table: &[(&[(&str, &str)], Result<&str, &str>)] = &[
        (&[("content-type", "application/json; charset=UTF-8")], Ok("m1 5 USD o")),
        (&[("content-type", "application/vnd.pay+json;charset=\"utf-8\"; v=1")], Ok("m1 5 USD o")),
        (&[("content-type", "application/json"), ("content-encoding", "identity")], Ok("m1 5 USD o")),
        (&[("content-type", "application/json"), ("content-type", "application/json")], Ok("m1 5 USD o")),
        (&[], Err("UNSUPPORTED_CONTENT content-type must be application/json")),
        (&[("content-type", "text/plain")], Err("UNSUPPORTED_CONTENT")),
        (&[("content-type", "application/json; charset=utf-16")], Err("UNSUPPORTED_CONTENT")),
        (&[("content-type", "application/json, text/plain")], Err("UNSUPPORTED_CONTENT")),
        (
            &[("content-type", "application/json"), ("content-type", "text/plain")],
            Err("UNSUPPORTED_CONTENT header content-type"),
        ),
        (
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
            Err("UNSUPPORTED_CONTENT the body is compressed"),
        ),
        (&[("content-type", "application/x-www-form-urlencoded")], Err("UNSUPPORTED_CONTENT")),
        (
            &[("content-type", "application/json"), ("content-length", "65537")],
            Err("BODY_TOO_LARGE the body is larger than 65536 bytes"),
        ),
        (&[("content-type", "application/json"), ("content-length", "99999999999999999999999")], Err("BODY_TOO_LARGE")),
        (&[("content-type", "application/json"), ("content-length", "+5")], Err("BAD_REQUEST header content-length")),
    ];
    for (headers, expected) in table {
        let request = request("/v1/merchants/m1/payments", headers);
        check(&format!("{headers:?}"), read(&json!({}), &request, json_body), *expected);
    }
    let small = json!({"body_bytes_max": 10});
    check("too large", read(&small, &request("/v1/merchants/m1/payments", JSON), json_body), Err("BODY_TOO_LARGE"));
}

#[test]
fn every_source_is_read_and_must_agree_with_the_others() {
    let change = json!({"extract": {
        "merchant": [{"metadata": ["jwt", "sub"]}, {"path": "merchant"}], "amount": [{"query": "a"}, {"header": "X-Amount"}],
        "currency": [{"query": "c"}], "order_no": [{"header": "idempotency-key"}], "payment_no": [{"query": "p"}], "channel": [{"query": "ch"}],
    }});
    let base = "/v1/merchants/m1/payments";
    let key = ("idempotency-key", "o-1");
    let table: &[(&str, &[(&str, &str)], Option<Result<&[u8], Unreadable>>, Result<&str, &str>)] = &[
        ("?a=5&c=USD", &[key], None, Ok("m1 5 USD o-1")),
        ("?a=5&c=USD&ch=c%61rd", &[key], Some(Ok(b"m1")), Ok("m1 5 USD o-1 ,card")),
        ("?a=5&c=USD#&ch=x", &[key, ("x-amount", "005")], None, Ok("m1 5 USD o-1")),
        ("?c=USD", &[key, ("x-amount", "7"), ("x-amount", "7")], None, Ok("m1 7 USD o-1")),
        ("?a=5&c=USD", &[key, ("x-amount", "6")], None, Err("amount (header x-amount) differs from another source")),
        ("?a=5&c=USD", &[key], Some(Ok(b"m2")), Err("merchant (path {merchant}) differs")),
        (
            "?a=5&c=USD",
            &[key],
            Some(Ok(&[0, 0, 0, 0, 0, 0, 240, 63])),
            Err("merchant (metadata jwt.sub) is not a string"),
        ),
        ("?a=5&c=USD", &[key], Some(Err(Unreadable)), Err("merchant (metadata jwt.sub) could not be read")),
        ("?a=5&a=5&c=USD", &[key], None, Err("amount (query a) is given more than once")),
        ("?a=5&%61=6&c=USD", &[key], None, Err("amount (query a) is given more than once")),
        (
            "?a=5&c=USD",
            &[key, ("idempotency-key", "o-2")],
            None,
            Err("order_no (header idempotency-key) is given more than once"),
        ),
        ("?a=5&c=USD", &[], None, Err("order_no (header idempotency-key) is missing")),
        ("?c=USD", &[key], None, Err("BAD_AMOUNT amount (query a, header x-amount) is missing")),
        ("?a=+5&c=USD", &[key], None, Err("BAD_AMOUNT")),
        ("?a=%ff&c=USD", &[key], None, Err("BAD_AMOUNT")),
    ];
    for (query, headers, claim, expected) in table {
        let mut request = request(&format!("{base}{query}"), headers);
        request.metadata.extend(claim.map(|claim| ("jwt.sub".to_owned(), claim.map(<[u8]>::to_vec))));
        assert!(!rules(&change).unwrap().rules()[0].reads_body());
        check(query, read(&change, &request, b"not read"), *expected);
    }
    let mut binary = request(&format!("{base}?a=5&c=USD"), &[]);
    binary.headers.push(("idempotency-key".to_owned(), vec![0xff]));
    check("binary", read(&change, &binary, b""), Err("is not UTF-8"));
}

#[test]
fn forms_are_read() {
    let change = json!({"unit": "major", "extract": {
        "amount": [{"form": "amount"}, {"json": "/amount"}], "currency": [{"form": "currency"}, {"json": "/currency"}],
        "order_no": [{"form": "order no"}, {"json": "/order_no"}], "payment_no": [{"form": "p"}], "channel": [{"form": "ch"}],
    }});
    let form: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
    let path = "/v1/merchants/m1/payments";
    for (body, expected) in [
        ("amount=10.50&currency=USD&order+no=o%2D1", Ok("m1 1050 USD o-1")),
        ("amount=10.505&currency=USD&order+no=o", Err("BAD_AMOUNT amount (form amount)")),
        ("amount=1&amount=1&currency=USD&order+no=o", Err("amount (form amount) is given more than once")),
        ("amount=1&currency=USD", Err("order_no (form order no, json /order_no) is missing")),
        ("", Err("is missing")),
    ] {
        check(body, read(&change, &request(path, form), body.as_bytes()), expected);
    }
    let json_body = br#"{"amount": 10.5, "currency": "USD", "order_no": 8}"#;
    check("json by content-type", read(&change, &request(path, JSON), json_body), Ok("m1 1050 USD 8"));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn reading_never_panics_and_repeats_nothing(body in proptest::collection::vec(any::<u8>(), 0..200), path in "\\PC{0,60}") {
        let rules = rules(&json!({})).unwrap();
        let _ = rules.find(&("POST", path.as_str()));
        let _ = read(&json!({}), &request("/v1/merchants/m1/payments", JSON), &body);
    }

    #[test]
    fn near_misses_of_json_never_panic(
        mutations in proptest::collection::vec((0_usize..70, any::<u8>()), 0..4), cut in 0_usize..70,
    ) {
        let mut body = br#"{"order_no": "o-1", "payment": {"amount": 1050, "currency": "USD"}}"#.to_vec();
        for (at, byte) in mutations {
            if let Some(own) = body.get_mut(at) {
                *own = byte;
            }
        }
        body.truncate(cut);
        if let Err(detail) = read(&json!({}), &request("/v1/merchants/m1/payments", JSON), &body) {
            prop_assert!(detail.len() < 300, "{detail}");
        }
    }

    #[test]
    fn any_spelling_of_a_path_is_matched_or_refused(spelling in proptest::collection::vec((any::<bool>(), any::<bool>()), 9)) {
        // Each letter of `payments` as it is, in capitals or escaped: never "no rule".
        let mut path = "/v1/merchants/m1/".to_owned();
        for (letter, (escape, upper)) in "payments".chars().zip(spelling) {
            let letter = if upper { letter.to_ascii_uppercase() } else { letter };
            path.push_str(&if escape { format!("%{:02x}", u32::from(letter)) } else { letter.to_string() });
        }
        let rules = rules(&json!({})).unwrap();
        prop_assert!(!matches!(rules.find(&("POST", path.as_str())), Found::None));
    }
}

/// A document that an editor saved with a byte order mark, or as UTF-16, is refused with the remedy.
#[test]
fn rules_in_another_encoding_are_refused_by_name() {
    for (bytes, problem) in [
        ("\u{feff}{}".as_bytes(), "starts with a byte order mark: save it without"),
        (b"\xff\xfe{\0}\0", "is UTF-16 or UTF-32: save it as UTF-8"),
        (b"{\"rules\": \"\xf6\"}", "is not UTF-8 from byte 11 on"),
    ] {
        let error = Document::from_json(bytes).unwrap_err().to_string();
        assert!(error.contains(problem), "{error}");
    }
}
