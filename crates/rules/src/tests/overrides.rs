//! Override methods in a request, and headers that gateways read as another header.

use super::*;

/// Rules of two methods on one path each, and one for a refund.
fn rules() -> RuleSet {
    let rule = |name: &str, methods: &[&str], path: &str| {
        json!({"name": name, "match": {"methods": methods, "path": path}, "unit": "minor", "extract": {
            "merchant": [{"header": "x-merchant-id"}], "amount": [{"json": "/amount"}, {"form": "amount"}],
            "currency": [{"json": "/currency"}, {"form": "currency"}], "order_no": [{"json": "/order_no"}, {"form": "order_no"}]}})
    };
    let rules = [rule("pay", &["POST"], "/pay"), rule("put", &["PUT", "PATCH"], "/put"), rule("get", &["GET"], "/get")];
    Document::from_json(json!({"rules": rules}).to_string().as_bytes()).unwrap().rules
}

struct TestRequest<'a>(&'a str, &'a str, &'a [(&'a str, &'a str)]);

impl Head for TestRequest<'_> {
    fn method(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }

    fn path(&self) -> &[u8] {
        self.1.as_bytes()
    }

    fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.2.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()))
    }

    fn metadata(&self, _path: &[String]) -> Result<Option<Cow<'_, [u8]>>, Unreadable> {
        Ok(None)
    }
}

/// Framework, request, and whether a rule matches: `None` is no rule, `Some(true)` the rule, `Some(false)` a refusal.
type Row<'a> = (&'a str, TestRequest<'a>, Option<bool>);

#[test]
fn x3_a_method_override_makes_no_payment_of_another_request_and_no_other_request_of_a_payment() {
    let table: &[Row<'_>] = &[
        ("plain", TestRequest("POST", "/pay", &[]), Some(true)),
        ("plain", TestRequest("PUT", "/pay", &[]), None),
        ("plain: a HEAD runs a GET's handler", TestRequest("HEAD", "/get", &[]), Some(true)),
        (
            "Slim: a header on any request",
            TestRequest("GET", "/pay", &[("x-http-method-override", "POST")]),
            Some(false),
        ),
        ("Rails, Symfony: a header", TestRequest("POST", "/put", &[("X-HTTP-Method-Override", "put")]), Some(false)),
        ("OData, ASP.NET: a header", TestRequest("POST", "/put", &[("X-HTTP-Method", "PATCH")]), Some(false)),
        ("IBM, Express: a header", TestRequest("POST", "/put", &[("x-method-override", "PUT")]), Some(false)),
        ("WSGI: an underscore", TestRequest("POST", "/put", &[("x_http_method_override", "PUT")]), Some(false)),
        ("repeated headers joined", TestRequest("POST", "/put", &[("x-http-method", "GET, PUT")]), Some(false)),
        ("Symfony, Express: the query", TestRequest("POST", "/put?_method=PUT", &[]), Some(false)),
        ("Slim: the query in capitals", TestRequest("POST", "/put?a=b&_METHOD=PUT", &[]), Some(false)),
        ("PHP: an array", TestRequest("POST", "/put?_method[]=PUT", &[]), Some(false)),
        (
            "a payment that would be none",
            TestRequest("POST", "/pay", &[("x-http-method-override", "GET")]),
            Some(false),
        ),
        ("a payment that would be none", TestRequest("POST", "/pay?_method=get", &[]), Some(false)),
        (
            "the same method",
            TestRequest("POST", "/pay?_method=post", &[("x-http-method-override", "POST")]),
            Some(true),
        ),
        ("both are the rule's", TestRequest("PUT", "/put", &[("x-http-method-override", "PATCH")]), Some(true)),
        ("no payment's path", TestRequest("POST", "/other", &[("x-http-method-override", "PUT")]), None),
        ("no method of a rule", TestRequest("GET", "/pay", &[("x-http-method-override", "DELETE")]), None),
    ];
    let rules = rules();
    for (framework, head, expected) in table {
        let got = match rules.find(head) {
            Found::None => None,
            Found::Rule(..) => Some(true),
            Found::Ambiguous(_, refusal) => {
                assert!(refusal.detail.contains("another method"), "{framework}: {}", refusal.detail);
                Some(false)
            }
        };
        assert_eq!(got, *expected, "{framework}: {} {} {:?}", head.0, head.1, head.2);
    }
}

#[test]
fn x3_a_body_may_not_name_another_method() {
    let table = [
        ("application/json", r#"{"amount": 5, "currency": "USD", "order_no": "o", "_method": "post"}"#, false),
        ("application/json", r#"{"amount": 5, "currency": "USD", "order_no": "o", "_method": "GET"}"#, false),
        ("application/json", r#"{"amount": 5, "currency": "USD", "order_no": "o", "_method": ["GET"]}"#, false),
        ("application/json", r#"{"amount": 5, "currency": "USD", "order_no": "o", "a": {"_method": "GET"}}"#, true),
        ("application/x-www-form-urlencoded", "amount=5&currency=USD&order_no=o&_method=POST", false),
        ("application/x-www-form-urlencoded", "amount=5&currency=USD&order_no=o&_method=get", false),
        ("application/x-www-form-urlencoded", "amount=5&currency=USD&order_no=o&%5fMethod=get", false),
    ];
    let rules = rules();
    for (kind, body, expected) in table {
        let head = TestRequest("POST", "/pay", &[("x-merchant-id", "m"), ("content-type", kind)]);
        let Found::Rule(rule, captures) = rules.find(&head) else { panic!("no rule") };
        let read = rule.read_head(&head, &captures).and_then(|mut draft| draft.finish(rule, body.as_bytes()));
        assert_eq!(read.is_ok(), expected, "{body}: {read:?}");
    }
}

/// F5: a request that Envoy passes as no payment must not be another reading of a payment's headers.
#[test]
fn f5_a_header_that_gateways_take_for_a_source_is_refused() {
    let kind = ("content-type", "application/json");
    let table: &[(&[(&str, &str)], bool)] = &[
        (&[kind, ("x-merchant-id", "m"), ("api_key", "x")], true),
        (&[kind, ("x-merchant-id", "m"), ("X-Merchant-Id", "m")], true),
        (&[kind, ("x-merchant-id", "m"), ("x_merchant_id", "m")], false),
        (&[kind, ("x-merchant-id", "m"), ("X-Merchant_ID", "m")], false),
        (&[kind, ("x-merchant-id", "m"), ("x.merchant.id", "m")], false),
        (&[kind, ("x_merchant_id", "m")], false),
        (&[kind, ("x-merchant-id", "m"), ("content_type", "text/plain")], false),
        (&[kind, ("x-merchant-id", "m"), ("content_length", "1")], false),
    ];
    let rules = rules();
    for (headers, expected) in table {
        let head = TestRequest("POST", "/pay", headers);
        let Found::Rule(rule, captures) = rules.find(&head) else { panic!("no rule") };
        let body = br#"{"amount": 5, "currency": "USD", "order_no": "o"}"#;
        let read = rule.read_head(&head, &captures).and_then(|mut draft| draft.finish(rule, body));
        assert_eq!(read.is_ok(), *expected, "{headers:?}: {read:?}");
    }
}
