//! Names under which a gateway may read another value than was read here: foldings, other places, names that must be absent.

use super::*;

const FORM: &[(&str, &str)] = &[("content-type", "application/x-www-form-urlencoded")];

fn rule(change: &Value) -> RuleSet {
    let mut rule = json!({
        "name": "p", "match": {"methods": ["POST"], "path": "/p"}, "unit": "minor",
        "extract": {"merchant": [{"header": "x-merchant-id"}], "amount": [{"json": "/amount"}], "currency": [{"json": "/currency"}],
            "order_no": [{"json": "/order_no"}]},
    });
    merge(&mut rule, change);
    Document::from_json(json!({"rules": [rule]}).to_string().as_bytes()).unwrap().rules
}

fn from(kind: &str) -> Value {
    json!({"extract": {"amount": [{kind: "amount"}], "currency": [{kind: "currency"}], "order_no": [{kind: "order_no"}]}})
}

fn sent(path: &str, headers: &[(&str, &str)]) -> Sent {
    request(path, &[headers, &[("x-merchant-id", "m1")]].concat())
}

/// Spellings of `order_no` in a query or form that a gateway may read as it.
#[rustfmt::skip]
const SPELLINGS: &[&str] = &[
    "Order_No", "ORDER_NO", "+order_no", "%20order_no", "%09order_no", "%0aorder_no", "order_no+", "order_no%20", "order_no%00x",
    "%00order_no", "order.no", "order+no", "order%20no", "order[no", "order%5Bno", "order_no[]", "order_no%5B%5D", "order_no[x]",
    "[order_no]", "[[order_no", "%EF%BB%BForder_no", "\u{feff}order_no", "orderNo", "order-no", "order_no]", "?order_no",
    "%6frder_no%20", "x=1;order_no", "x=1;+order_no", "x=1&amp;order_no", ";order_no", "%6Frder.no",
];

#[test]
fn f4_a_parameter_that_folds_onto_another_is_refused() {
    let query = rule(&from("query"));
    let form = rule(&from("form"));
    let plain = "amount=1&currency=USD&order_no=A";
    check("query", read_by(&query, &sent(&format!("/p?{plain}"), &[]), b""), Ok("m1 1 USD A"));
    check("form", read_by(&form, &sent("/p", FORM), plain.as_bytes()), Ok("m1 1 USD A"));
    for spelling in SPELLINGS {
        for parameters in [format!("{plain}&{spelling}=B"), format!("{spelling}=B&{plain}")] {
            let expected = Err("BAD_REQUEST order_no (");
            check(spelling, read_by(&query, &sent(&format!("/p?{parameters}"), &[]), b""), expected);
            check(spelling, read_by(&form, &sent("/p", FORM), parameters.as_bytes()), expected);
        }
    }
}

#[test]
fn f4_a_parameter_that_gateways_cut_differently_is_refused() {
    let table: &[(&str, Result<&str, &str>)] = &[
        ("amount=1&currency=USD&order_no=A%3B1", Ok("m1 1 USD A;1")),
        ("amount=1&currency=USD&order_no=A;1", Err("order_no (form order_no) stands beside a ';'")),
        ("amount=1&currency=USD&order_no=A;x=1", Err("stands beside a ';'")),
        ("amount=1&currency=USD&x=1;y=2&order_no=A", Ok("m1 1 USD A")),
        ("amount=1&currency=USD&order_no=A%zz", Err("order_no (form order_no) has a '%' without two")),
        ("amount=1&currency=USD&order_no=A%", Err("has a '%' without two")),
        ("amount=1&currency=USD&order_no=A&x=%zz", Ok("m1 1 USD A")),
        ("amount=1&currency=USD&order_no=A&%u006frder_no=B", Err("a parameter's name has a '%' without two")),
        ("amount=1&currency=USD&order_no=A]=B", Err("order_no (form order_no) has a ']' before a '='")),
        ("amount=1&currency=USD&order_no=A%5d=B", Err("has a ']' before a '='")),
        ("amount=1&currency=USD&order_no=A%5d%3dB=", Ok("m1 1 USD A]=B=")),
        ("amount=1&currency=USD&order_no=A&order_no=A", Err("order_no (form order_no) is given more than once")),
        ("amount=1&&currency=USD&order_no=A&", Ok("m1 1 USD A")),
        ("amount=1&currency=USD&order_no=A&_order_no=B&order=C&no=D&orders[no]=E", Ok("m1 1 USD A")),
    ];
    for (body, expected) in table {
        check(body, read_by(&rule(&from("form")), &sent("/p", FORM), body.as_bytes()), *expected);
    }
    for (count, expected) in
        [(PARAMETERS_MAX - 3, Ok("m1 1 USD A")), (PARAMETERS_MAX - 2, Err("more than 500 parameters"))]
    {
        let body = format!("{}amount=1&currency=USD&order_no=A", "x=1&".repeat(count));
        check("many", read_by(&rule(&from("form")), &sent("/p", FORM), body.as_bytes()), expected);
    }
}

#[test]
fn f4_a_map_is_not_a_parameter_itself() {
    let rules =
        rule(&json!({"extract": {"amount": [{"form": "payment[amount]"}], "currency": [{"form": "payment[currency]"}],
        "order_no": [{"form": "order_no"}]}}));
    let plain = "payment[amount]=1&payment[currency]=USD&order_no=A";
    let table = [
        ("payment[note]=x", Ok("m1 1 USD A")),
        ("paymen=x", Ok("m1 1 USD A")),
        ("payment=9", Err("(form payment[currency]) must not be in the form")),
        ("Payment=9", Err("(form payment[currency]) must not be in the form")),
        ("payment[amount][x]=9", Err("amount (form payment[amount]): another parameter")),
        ("payment.amount=9", Err("amount (form payment[amount]): another parameter")),
    ];
    for (other, expected) in table {
        for body in [format!("{plain}&{other}"), format!("{other}&{plain}")] {
            check(&body, read_by(&rules, &sent("/p", FORM), body.as_bytes()), expected);
        }
    }
}

#[test]
fn x4_a_json_key_that_folds_onto_a_wanted_one_is_refused_at_any_depth() {
    let keys = [
        "Amount",
        "AMOUNT",
        " amount",
        "amount ",
        "\\tamount",
        "amount\\n",
        "amount\\u0000x",
        "\\u0000amount",
        "amount[]",
        "amount[x]",
        "[amount]",
        "\\ufeffamount",
        "amount]",
        "amount.",
        "a_mount",
        "a-mount",
    ];
    for (pointer, around) in
        [("/amount", "{}"), ("/payment/amount", r#"{"payment": {}}"#), ("/a/0/b/amount", r#"{"a": [{"b": {}}]}"#)]
    {
        let rules = rule(&json!({"extract": {"amount": [{"json": pointer}], "currency": [{"constant": "USD"}],
            "order_no": [{"header": "idempotency-key"}]}}));
        let head = sent("/p", &[JSON[0], ("idempotency-key", "A")]);
        let body = |members: &str| around.replacen("{}", &format!("{{{members}}}"), 1);
        check(
            pointer,
            read_by(&rules, &head, body(r#""amount": 1, "amounts": 2, "_amount": 3"#).as_bytes()),
            Ok("m1 1 USD A"),
        );
        for key in keys {
            let folded = body(&format!(r#""amount": 1, "{key}": 2"#));
            check(
                &folded,
                read_by(&rules, &head, folded.as_bytes()),
                Err(r#"a key that some gateways read as "amount""#),
            );
        }
    }
    // The members on the way fold as well.
    let rules = rule(&json!({"extract": {"amount": [{"json": "/payment/amount"}]}}));
    let body = r#"{"order_no": "A", "currency": "USD", "payment": {"amount": 1}, "payment[x]": 1}"#;
    check(body, read_by(&rules, &sent("/p", JSON), body.as_bytes()), Err(r#"some gateways read as "payment""#));
}

#[test]
fn x1_a_query_that_names_a_field_read_elsewhere_is_refused() {
    let json = br#"{"order_no": "A", "amount": 1, "currency": "USD"}"#;
    let form = b"amount=1&currency=USD&order_no=A";
    for query in [
        "amount=99999.00",
        "order_no=B0",
        "merchant_id=victim",
        "merchant=victim",
        "currency=JPY",
        "Amount=1",
        "+amount=1",
        "amount[]=1",
        "x-merchant-id=victim",
        "orderNo=B",
        "order.no=B",
        "order_no",
        "x=1;amount=2",
        "a=b&merchant-id=victim",
    ] {
        let path = format!("/p?{query}");
        let expected = Err("must not be in the query as well");
        check(query, read_by(&rule(&json!({})), &sent(&path, JSON), json), expected);
        check(query, read_by(&rule(&from("form")), &sent(&path, FORM), form), expected);
    }
    for query in ["fast=1", "amounts=1", "trace=amount", "", "a&b&&c=%zz", "utm_source=x;y"] {
        check(query, read_by(&rule(&json!({})), &sent(&format!("/p?{query}"), JSON), json), Ok("m1 1 USD A"));
    }
    // Bytes that are not UTF-8 hide nothing.
    let mut raw = sent("/p", JSON);
    raw.raw_path = Some(b"/p?x=\xff&amount=2".to_vec());
    check("raw", read_by(&rule(&json!({})), &raw, json), Err("the parameters are not UTF-8"));
}

/// Which of two values a gateway uses: framework and version, its behaviour, query, content type, body, and the value it reads.
type Gateway = (&'static str, &'static str, &'static str, Option<&'static str>, &'static str, &'static str);

#[rustfmt::skip]
const GATEWAYS: &[Gateway] = &[
    // A repeated name.
    ("PHP 8.2", "the last one wins", "", FORM_TYPE, "amount=1&amount=2", "2"),
    ("Rack 2.2, Rails 6.1", "the last one wins", "", FORM_TYPE, "amount=1&amount=2", "2"),
    ("Django 5.2", "the last one wins", "", FORM_TYPE, "amount=1&amount=2", "2"),
    ("Tomcat 9, getParameter", "the first one wins", "", FORM_TYPE, "amount=1&amount=2", "1"),
    ("Flask 3.1", "the first one wins", "", FORM_TYPE, "amount=1&amount=2", "1"),
    ("Express 5, qs 6", "both, as a list", "", FORM_TYPE, "amount=1&amount=2", "[1, 2]"),
    ("PHP 8.2", "a list takes the place of a value", "", FORM_TYPE, "amount=1&amount[x]=2", "{x: 2}"),
    // Query and body.
    ("Rails 6.1 params", "the query goes before a form", "amount=9", FORM_TYPE, "amount=1", "9"),
    ("Rails 6.1 params", "the query goes before JSON", "amount=9", Some("application/json"), r#"{"amount": 1}"#, "9"),
    ("Tomcat 9, getParameter", "the query goes before a form", "amount=9", FORM_TYPE, "amount=1", "9"),
    ("Flask 3.1 values", "the query goes before a form", "amount=9", FORM_TYPE, "amount=1", "9"),
    ("WebOb 1.8 params", "the query goes before a form", "amount=9", FORM_TYPE, "amount=1", "9"),
    ("PHP 8.2 $_REQUEST (request_order GP)", "the form goes before the query", "amount=9", FORM_TYPE, "amount=1", "1"),
    ("Bottle 0.13 params", "the form goes before the query", "amount=9", FORM_TYPE, "amount=1", "1"),
    ("Rack 2.2", "a body without a content type is a form", "amount=9", None, "amount=1", "9"),
    // Separators and escapes.
    ("Rack 2.2", "a ';' separates, blanks behind it are dropped", "", FORM_TYPE, "x=1; amount=2", "2"),
    ("Tomcat 9", "a parameter with a bad escape is dropped", "", FORM_TYPE, "amount=1&order_no=%zz", "1, and no order_no"),
    ("Rack 2.2", "a bad escape is an error", "", FORM_TYPE, "am%zzount=1", "nothing"),
    ("ASP.NET", "%u0061 is a", "", FORM_TYPE, "%u0061mount=1", "1"),
    ("qs 6", "a name ends behind ]= where there is one", "", FORM_TYPE, "order_no=A]=B", "no order_no"),
    ("PHP 8.2 (max_input_vars), Tomcat 9 (maxParameterCount)", "what comes after so many is dropped", "", FORM_TYPE, "1001 others&amount=1", "nothing"),
];

const FORM_TYPE: Option<&str> = Some("application/x-www-form-urlencoded");

#[test]
fn x1_f4_what_gateways_decide_differently_is_refused() {
    for (gateway, what, query, content_type, body, _) in GATEWAYS {
        let rules = match *content_type {
            FORM_TYPE => rule(&from("form")),
            None => rule(&from("query")),
            Some(_) => rule(&json!({})),
        };
        let headers: Vec<(&str, &str)> = content_type.iter().map(|media| ("content-type", *media)).collect();
        let body = body.replace("1001 others", &"x=1&".repeat(1001));
        let got = read_by(&rules, &sent(&format!("/p?{query}"), &headers), body.as_bytes()).unwrap_err();
        // The reason must not be a missing field.
        assert!(!got.contains("is missing"), "{gateway}: {what}: {got}");
    }
}

#[test]
fn x1_a_listed_parameter_must_agree() {
    let rules = rule(&json!({"extract": {"amount": [{"json": "/amount"}, {"query": "amount"}]}}));
    let json = br#"{"order_no": "A", "amount": 1, "currency": "USD"}"#;
    let table = [
        ("/p", Ok("m1 1 USD A")),
        ("/p?amount=1", Ok("m1 1 USD A")),
        ("/p?amount=2", Err("amount (query amount) differs from another source")),
        ("/p?amount=1&Amount=2", Err("amount (query amount): another parameter")),
        ("/p?order_no=A", Err("order_no (json /order_no) must not be in the query as well")),
    ];
    for (path, expected) in table {
        check(path, read_by(&rules, &sent(path, JSON), json), expected);
    }
}

#[test]
fn x1_pointers_and_captures_have_names_in_the_query_too() {
    let rules = rule(&json!({
        "match": {"path": "/p/{shop}/pay"},
        "extract": {"merchant": [{"path": "shop"}], "amount": [{"json": "/payment/sums/0/value"}], "order_no": [{"header": "idempotency-key"}]},
    }));
    let json = br#"{"currency": "USD", "payment": {"sums": [{"value": 1}]}}"#;
    let head = |query: &str| sent(&format!("/p/m1/pay?{query}"), &[JSON[0], ("idempotency-key", "A")]);
    check("plain", read_by(&rules, &head("other=1"), json), Ok("m1 1 USD A"));
    for query in [
        "shop=m2",
        "merchant=m2",
        "payment=1",
        "payment[sums][0][value]=9",
        "payment.sums.0.value=9",
        "value=9",
        "amount=9",
        "payment[x]=1",
        "idempotency_key=B",
        "Idempotency-Key=B",
        "order_no=B",
    ] {
        check(query, read_by(&rules, &head(query), json), Err("must not be in the query as well"));
    }
    // A capture's name must not be in the body either: data binders prefer parameters to it.
    let other = br#"{"currency": "USD", "payment": {"sums": [{"value": 1}]}, "shop": "m2"}"#;
    check(
        "body",
        read_by(&rules, &head(""), other),
        Err("merchant (path {shop}) must not be in the body's own object as well"),
    );
}

#[test]
fn x1_a_body_that_names_a_field_read_elsewhere_is_refused() {
    let in_query = rule(&from("query"));
    let path = "/p?amount=1&currency=USD&order_no=A";
    let gzip = ("content-encoding", "gzip");
    let multipart = ("content-type", "multipart/form-data; boundary=x");
    let table: &[(&[(&str, &str)], &[u8], Result<&str, &str>)] = &[
        (&[], b"", Ok("m1 1 USD A")),
        (FORM, b"", Ok("m1 1 USD A")),
        (JSON, b"", Ok("m1 1 USD A")),
        (FORM, b"note=1&x[amount]=2", Ok("m1 1 USD A")),
        (FORM, b"amount=2", Err("amount (query amount) must not be in the form as well")),
        (FORM, b"note=1&Amount[]=2", Err("amount (query amount) must not be in the form as well")),
        (FORM, b"merchant_id=m2", Err("merchant (header x-merchant-id) must not be in the form as well")),
        // Rack reads a form where there is no content type.
        (&[], b"order_no=B", Err("order_no (query order_no) must not be in the form as well")),
        (JSON, br#"{"note": {"amount": 2}}"#, Ok("m1 1 USD A")),
        (JSON, br#"[{"amount": 2}]"#, Ok("m1 1 USD A")),
        (JSON, b"null", Ok("m1 1 USD A")),
        (JSON, br#"{"Amount": 2}"#, Err("amount (query amount) must not be in the body's own object as well")),
        (JSON, br#"{"note": 1"#, Err("not one JSON document")),
        (&[("content-type", "text/plain")], b"amount=2", Ok("m1 1 USD A")),
        (&[("content-type", "application/octet-stream"), gzip], b"\x1f\x8b", Ok("m1 1 USD A")),
        (&[multipart], b"--x", Err("UNSUPPORTED_CONTENT the body may hold fields")),
        (&[multipart], b"", Ok("m1 1 USD A")),
        (&[FORM[0], gzip], b"\x1f\x8b", Err("UNSUPPORTED_CONTENT")),
        (&[("content-type", "application/json; charset=utf-16")], b"{}", Err("UNSUPPORTED_CONTENT")),
        (&[FORM[0], multipart], b"note=1", Err("UNSUPPORTED_CONTENT")),
    ];
    for (headers, body, expected) in table {
        check(
            &format!("{headers:?} {}", String::from_utf8_lossy(body)),
            read_by(&in_query, &sent(path, headers), body),
            *expected,
        );
    }
    let large = vec![b'x'; 70_000];
    check("large", read_by(&in_query, &sent(path, FORM), &large), Err("BODY_TOO_LARGE"));
    // The same for a rule with some of its fields in the body.
    let mixed = rule(&json!({"extract": {"amount": [{"query": "sum"}]}}));
    let body = br#"{"order_no": "A", "currency": "USD"}"#;
    check("mixed", read_by(&mixed, &sent("/p?sum=1", JSON), body), Ok("m1 1 USD A"));
    for name in ["sum", "Sum", "amount", "merchant_id"] {
        let body = format!(r#"{{"order_no": "A", "currency": "USD", "{name}": 2}}"#);
        check(
            &body,
            read_by(&mixed, &sent("/p?sum=1", JSON), body.as_bytes()),
            Err("must not be in the body's own object as well"),
        );
    }
}

#[test]
fn x1_a_cookie_of_a_fields_name_must_agree() {
    let body = br#"{"order_no": "A", "amount": 1, "currency": "USD"}"#;
    let table = [
        ("session=abc; theme=dark", Ok("m1 1 USD A")),
        ("currency=USD; session=abc", Ok("m1 1 USD A")),
        ("session=abc;currency=EUR", Err("BAD_REQUEST currency differs in a cookie")),
        ("amount=2", Err("amount differs in a cookie")),
        ("amount=1; Amount=2", Err("amount differs in a cookie")),
        ("x=1; order.no=B", Err("order_no differs in a cookie")),
        ("merchant%5fid=m2", Err("merchant differs in a cookie")),
        ("amount[]=1", Ok("m1 1 USD A")),
        ("amount=", Err("amount differs in a cookie")),
        ("amount; amounts=2; =3", Ok("m1 1 USD A")),
    ];
    for (cookie, expected) in table {
        check(cookie, read_by(&rule(&json!({})), &sent("/p", &[JSON[0], ("cookie", cookie)]), body), expected);
    }
    let head = sent("/p", &[JSON[0], ("cookie", "x=1"), ("cookie", "amount=2")]);
    check("two headers", read_by(&rule(&json!({})), &head, body), Err("amount differs in a cookie"));
}

#[test]
fn x7_names_that_must_be_absent() {
    let rules = rule(
        &json!({"absent": [{"json": "/payment"}, {"json": "/meta/override"}, {"query": "debug"}, {"form": "payment"}]}),
    );
    let table: &[(&str, &str, Result<&str, &str>)] = &[
        ("/p", "", Ok("m1 1 USD A")),
        ("/p", r#", "meta": {"x": 1}"#, Ok("m1 1 USD A")),
        ("/p", r#", "meta": 7"#, Ok("m1 1 USD A")),
        ("/p", r#", "meta": [1]"#, Ok("m1 1 USD A")),
        (
            "/p",
            r#", "payment": {"amount": 9999999}"#,
            Err("BAD_REQUEST json /payment, or a name that some gateways read as it, must be absent"),
        ),
        ("/p", r#", "payment": null"#, Err("must be absent")),
        ("/p", r#", "Payment": 1"#, Err("must be absent")),
        ("/p", r#", "payment[amount]": 1"#, Err("must be absent")),
        ("/p", r#", "meta": {"OverRide": 1}"#, Err("json /meta/override, or")),
        ("/p", r#", "meta": {}, "meta": {"override": 1}"#, Err(r#"the key "meta" twice"#)),
        ("/p", r#", "Meta": {"override": 1}"#, Err(r#"some gateways read as "meta""#)),
        ("/p?debug=1", "", Err("query debug, or a name")),
        ("/p?Debug[]=1", "", Err("query debug, or a name")),
    ];
    for (path, rest, expected) in table {
        let body = format!(r#"{{"order_no": "A", "amount": 1, "currency": "USD"{rest}}}"#);
        check(&format!("{path} {body}"), read_by(&rules, &sent(path, JSON), body.as_bytes()), *expected);
    }
    let mut change = from("form");
    merge(&mut change, &json!({"absent": [{"form": "payment"}]}));
    let body = b"order_no=A&amount=1&currency=USD&payment[amount]=2";
    check("form", read_by(&rule(&change), &sent("/p", FORM), body), Err("form payment, or a name"));
}

#[test]
fn f11_x8_one_spelling_of_currencies_and_merchants() {
    let body = |currency: &str| format!(r#"{{"order_no": "A", "amount": 1, "currency": "{currency}"}}"#);
    let table: &[(Value, &str, &str, Result<&str, &str>)] = &[
        (json!({}), "m1", "usd", Err("ISO 4217")),
        (json!({"case": {"currency": "upper"}}), "m1", "usd", Ok("m1 1 USD A")),
        (json!({"case": {"currency": "upper"}}), "m1", "uSd", Ok("m1 1 USD A")),
        (json!({"case": {"currency": "upper"}}), "m1", "usdx", Err("ISO 4217")),
        (json!({"case": {"currency": "upper"}}), "M1", "USD", Ok("M1 1 USD A")),
        (json!({"case": {"merchant": "lower"}}), "M-Small", "USD", Ok("m-small 1 USD A")),
        (json!({"case": {"merchant": "upper"}}), "M-Small", "USD", Ok("M-SMALL 1 USD A")),
        (json!({}), "007", "USD", Ok("007 1 USD A")),
        (json!({"strip_leading_zeros": ["merchant"]}), "007", "USD", Ok("7 1 USD A")),
        (json!({"strip_leading_zeros": ["merchant"]}), "000", "USD", Ok("0 1 USD A")),
        (json!({"strip_leading_zeros": ["merchant"]}), "007a", "USD", Ok("007a 1 USD A")),
        (json!({"strip_leading_zeros": ["merchant"], "case": {"merchant": "lower"}}), "0A", "USD", Ok("0a 1 USD A")),
    ];
    for (change, merchant, currency, expected) in table {
        let head = request("/p", &[JSON[0], ("x-merchant-id", merchant)]);
        check(
            &format!("{change} {merchant} {currency}"),
            read_by(&rule(change), &head, body(currency).as_bytes()),
            *expected,
        );
    }
    // Sources are compared after it.
    let two = json!({"case": {"merchant": "lower"}, "extract": {"merchant": [{"header": "x-merchant-id"}, {"json": "/merchant_id"}]}});
    let body = br#"{"order_no": "A", "amount": 1, "currency": "USD", "merchant_id": "M1"}"#;
    check("two", read_by(&rule(&two), &sent("/p", JSON), body), Ok("m1 1 USD A"));
}

#[test]
fn f11_a_field_may_be_a_constant() {
    let constant = |field: &str, text: &str| json!({"extract": {field: [{"constant": text}]}});
    let body = br#"{"order_no": "A", "amount": 1, "currency": "USD"}"#;
    let without = |field: &str| {
        let mut body: Value = serde_json::from_slice(body).unwrap();
        body.as_object_mut().unwrap().remove(field);
        body.to_string()
    };
    let table = [
        ("merchant", "m2", "m2 1 USD A"),
        ("amount", "5", "m1 5 USD A"),
        ("currency", "JPY", "m1 1 JPY A"),
        ("order_no", "B", "m1 1 USD B"),
        ("payment_no", "p", "m1 1 USD A p"),
        ("channel", "card", "m1 1 USD A ,card"),
    ];
    for (field, text, expected) in table {
        check(
            field,
            read_by(&rule(&constant(field, text)), &sent("/p", JSON), without(field).as_bytes()),
            Ok(expected),
        );
    }
    // A request must not contradict the constant in a place that a gateway may read.
    check(
        "body",
        read_by(&rule(&constant("currency", "JPY")), &sent("/p", JSON), body),
        Err("currency (constant JPY) must not be in the body's"),
    );
    // Beside other sources, those that are present agree with it.
    let beside = rule(&json!({"extract": {"currency": [{"json": "/currency"}, {"constant": "USD"}]}}));
    check("agrees", read_by(&beside, &sent("/p", JSON), body), Ok("m1 1 USD A"));
    check("absent", read_by(&beside, &sent("/p", JSON), without("currency").as_bytes()), Ok("m1 1 USD A"));
    let other = br#"{"order_no": "A", "amount": 1, "currency": "EUR"}"#;
    check("differs", read_by(&beside, &sent("/p", JSON), other), Err("differs from another source"));
}

#[test]
fn options_that_cannot_be_meant_are_refused() {
    let constant = |field: &str, text: &str| json!({"extract": {field: [{"constant": text}]}});
    let table: &[(Value, &str)] = &[
        (
            constant("currency", "usd"),
            "rule \"payments\": extract.currency: constant \"usd\": the currency is not an ISO 4217",
        ),
        (constant("currency", ""), "extract.currency: constant must have 1 to"),
        (constant("amount", "1.5"), "extract.amount: constant \"1.5\": the amount has more decimals"),
        (constant("amount", "-1"), "extract.amount: constant \"-1\": the amount is negative"),
        (constant("merchant", "a:b"), "extract.merchant: constant \"a:b\": merchant may hold visible ASCII"),
        (constant("order_no", "a b"), "extract.order_no: constant"),
        (constant("channel", &"x".repeat(33)), "extract.channel: constant"),
        (json!({"extract": {"currency": [{"constant": "USD"}, {"constant": "EUR"}]}}), "lists more than one constant"),
        (json!({"case": {"currency": "lower"}}), "case.currency: must be upper"),
        (json!({"case": {"currency": "title"}}), "unknown variant `title`"),
        (json!({"case": {"order_no": "lower"}}), "unknown field `order_no`"),
        (json!({"strip_leading_zeros": ["order_no"]}), "strip_leading_zeros: is for merchant only"),
        (json!({"absent": [{}]}), "absent: an entry has exactly one of query, json, form"),
        (json!({"absent": [{"json": "/a", "form": "a"}]}), "exactly one of"),
        (json!({"absent": [{"header": "a"}]}), "unknown field `header`"),
        (json!({"absent": [{"json": "payment"}]}), "absent: json payment must start with '/'"),
        (json!({"absent": [{"json": "/order_no"}]}), "absent: json /order_no is inside another pointer"),
        (json!({"absent": [{"json": "/payment"}]}), "absent: json /payment is inside another pointer"),
        (json!({"absent": vec![json!({"query": "x"}); 33]}), "absent: must list at most 32 names, it lists 33"),
        (
            json!({"extract": {"amount": [{"query": "a"}]}, "absent": [{"query": "a"}]}),
            "absent: query a is a source of the rule",
        ),
    ];
    for (change, part) in table {
        let error = rules(change).map(drop).unwrap_err();
        assert!(error.contains(part), "{change}: {error}");
    }
}

#[test]
fn x4_a_number_that_some_gateways_round_is_no_identifier() {
    let body = |order_no: &str| format!(r#"{{"order_no": {order_no}, "amount": 1, "currency": "USD"}}"#);
    for (order_no, expected) in [
        ("9007199254740991", Ok("m1 1 USD 9007199254740991")),
        ("9007199254740992", Err("order_no (json /order_no) is a number above 9007199254740991")),
        ("12345678901234567890123", Err("is a number above 9007199254740991")),
        (r#""9007199254740993""#, Ok("m1 1 USD 9007199254740993")),
    ] {
        check(order_no, read_by(&rule(&json!({})), &sent("/p", JSON), body(order_no).as_bytes()), expected);
    }
}

#[test]
fn a_plus_in_a_query_is_said_to_be_a_blank() {
    let rules = rule(&from("query"));
    for (query, part) in [
        ("amount=1&currency=USD&order_no=a+b", "order_no (query order_no)"),
        ("amount=+1&currency=USD&order_no=a", "BAD_AMOUNT"),
    ] {
        let got = read_by(&rules, &sent(&format!("/p?{query}"), &[]), b"");
        check(query, got.clone(), Err(part));
        check(query, got, Err("which is what a '+' means here: write %2B"));
    }
    check("escaped", read_by(&rules, &sent("/p?amount=1&currency=USD&order_no=a%2Bb", &[]), b""), Ok("m1 1 USD a+b"));
}
