//! F3: what Envoy's own filter sends is read as what the client sent, or refused.

use envoy_types::pb::envoy::config::core::v3::HeaderMap;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::Request;
use serde_json::json;
use sluice_rules::{Document, Found};

use super::super::parse::Parsed;
use super::*;

/// One rule that reads every kind of source that bytes can be lost on.
fn rules() -> Document {
    let rule = json!({"name": "pay", "match": {"methods": ["POST"], "path": "/pay/{merchant}/now"}, "unit": "minor", "extract": {
        "merchant": [{"path": "merchant"}], "amount": [{"json": "/amount"}], "currency": [{"query": "c"}],
        "order_no": [{"header": "o"}, {"json": "/order_no"}]}});
    Document::from_json(json!({"rules": [rule]}).to_string().as_bytes()).unwrap()
}

const PATH: &[u8] = b"/pay/m/now?c=USD";
const BODY: &[u8] = br#"{"amount": 5}"#;

/// What a client sends.
struct Sent<'a> {
    path: &'a [u8],
    headers: &'a [(&'a str, &'a [u8])],
    body: &'a [u8],
}

/// As Envoy writes a text that may not be UTF-8.
fn replaced(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).replace(char::REPLACEMENT_CHARACTER, "!")
}

impl Sent<'_> {
    fn http(&self, raw: bool) -> HttpRequest {
        let all = [(":path", self.path), ("content-type", &b"application/json"[..])];
        let all = all.into_iter().chain(self.headers.iter().copied());
        let mut http = HttpRequest { method: "POST".into(), path: replaced(self.path), ..HttpRequest::default() };
        if raw {
            let header = |(key, value): (&str, &[u8])| HeaderValue {
                key: key.to_owned(),
                raw_value: value.to_vec(),
                ..HeaderValue::default()
            };
            http.header_map = Some(HeaderMap { headers: all.map(header).collect() });
            http.raw_body = self.body.to_vec();
        } else {
            for (key, value) in all {
                let joined = http.headers.entry(key.to_owned()).or_default();
                let comma = if joined.is_empty() { "" } else { "," };
                *joined = format!("{joined}{comma}{}", replaced(value));
            }
            http.body = replaced(self.body);
        }
        http
    }

    /// The order number that is read, or the detail of the refusal.
    fn order(&self, raw: bool) -> Result<String, String> {
        let request = Request { http: Some(self.http(raw)), ..Request::default() };
        let attributes = AttributeContext { request: Some(request), ..AttributeContext::default() };
        match Parsed::read(&attributes, Some(&rules())) {
            Parsed::Decide(check) => {
                Ok(check.request.order_no.map_or_else(String::new, |order| order.as_str().to_owned()))
            }
            Parsed::Refuse(refused) => Err(refused.refusal.detail),
            Parsed::Pass => Err("no rule".to_owned()),
        }
    }
}

#[test]
fn f3_bytes_that_are_not_utf_8_are_no_order_number() {
    // What is sent; what is read with raw headers; what is read without.
    type Row<'a> = (Sent<'a>, Result<&'a str, &'a str>, Result<&'a str, &'a str>);
    let sent = |path, headers, body| Sent { path, headers, body };
    let table: &[Row<'_>] = &[
        (sent(PATH, &[("o", b"k")], BODY), Ok("k"), Ok("k")),
        (sent(PATH, &[("o", b"k!")], BODY), Ok("k!"), Err("encode_raw_headers")),
        (sent(PATH, &[("o", b"k\xf1")], BODY), Err("header o) is not UTF-8"), Err("encode_raw_headers")),
        (sent(PATH, &[("o", b"k\xf2"), ("o", b"k\xf3")], BODY), Err("more than once"), Err("encode_raw_headers")),
        // A comma is part of a value, and repetitions are separate, if Envoy does not join them.
        (sent(PATH, &[("o", b"a,b")], BODY), Ok("a,b"), Err("more than once")),
        (sent(PATH, &[("o", b"a"), ("o", b"b")], BODY), Err("more than once"), Err("more than once")),
        (sent(PATH, &[("o", b"a"), ("o", b"a")], BODY), Ok("a"), Ok("a")),
        (sent(PATH, &[("o", b"a"), ("O_", b"b")], BODY), Ok("a"), Ok("a")),
        // The path, the query and the body.
        (sent(b"/pay/m\xf1/now?c=USD", &[("o", b"k")], BODY), Err("two ways"), Err("encode_raw_headers")),
        (sent(b"/pay/m!/now?c=USD", &[("o", b"k")], BODY), Ok("k"), Err("encode_raw_headers")),
        (sent(b"/pay/m/now?c=USD&x=\xf1", &[("o", b"k")], BODY), Err("not UTF-8"), Err("encode_raw_headers")),
        (sent(b"/pay/m/now?c=US\xc4", &[("o", b"k")], BODY), Err("not UTF-8"), Err("encode_raw_headers")),
        (sent(PATH, &[], b"{\"amount\": 5, \"order_no\": \"k\xf1\"}"), Err("not UTF-8"), Err("pack_as_bytes")),
        (sent(PATH, &[], br#"{"amount": 5, "order_no": "k!"}"#), Ok("k!"), Err("pack_as_bytes")),
    ];
    for (sent, raw, joined) in table {
        for (is_raw, expected) in [(true, raw), (false, joined)] {
            match (sent.order(is_raw), expected) {
                (Ok(order), Ok(expected)) => assert_eq!(order, *expected),
                (Err(detail), Err(part)) => assert!(detail.contains(part), "{:?} {is_raw}: {detail}", sent.headers),
                (got, _) => panic!("{:?} {:?} {is_raw}: {got:?}, not {expected:?}", sent.path, sent.headers),
            }
        }
    }
}

/// A client must not choose the next source by making Envoy's value unreadable.
#[test]
fn f3_metadata_of_another_kind_is_not_absent() {
    use envoy_types::pb::envoy::config::core::v3::Metadata;
    use envoy_types::pb::google::protobuf::Value;
    let value = |kind| Value { kind: Some(kind) };
    let claims = [
        ("sub", Kind::StringValue("m".to_owned())),
        ("number", Kind::NumberValue(5.0)),
        ("null", Kind::NullValue(0)),
        ("flag", Kind::BoolValue(true)),
    ];
    let fields = claims.map(|(name, kind)| (name.to_owned(), value(kind))).into_iter().collect();
    let jwt = Struct { fields };
    let metadata = Metadata { filter_metadata: [("jwt".to_owned(), jwt)].into(), ..Metadata::default() };
    let attributes = AttributeContext { metadata_context: Some(metadata), ..AttributeContext::default() };
    let http = HttpRequest::default();
    let head = NativeHead::new(&attributes, &http);
    let read = |keys: &[&str]| {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        head.metadata(&keys).map(|value| value.map(Cow::into_owned))
    };
    assert_eq!(read(&["jwt", "sub"]), Ok(Some(b"m".to_vec())));
    for absent in [&["jwt", "none"][..], &["other", "sub"]] {
        assert_eq!(read(absent), Ok(None), "{absent:?}");
    }
    for unreadable in [&["jwt", "number"][..], &["jwt", "null"], &["jwt", "flag"], &["jwt", "sub", "deeper"]] {
        assert_eq!(read(unreadable), Err(Unreadable), "{unreadable:?}");
    }
    assert!(matches!(rules().rules.find(&head), Found::None));
}
