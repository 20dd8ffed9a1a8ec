use super::*;

mod actions;
mod delays;

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
    Plugin::parse(serde_json::json!({"cluster": "sluice_authz", "rules": [rule]}).to_string().as_bytes()).unwrap()
}

use crate::outcome::Ending;
use proptest::prelude::*;
use prost::Message;
use proto::envoy::check_response::HttpResponse;
use proto::envoy::{CheckResponse, HeaderValue, HeaderValueOption, OkHttpResponse, RpcStatus};
use sluice_rules::Head;

const BODY: &[u8] = br#"{"order_no": "o", "amount": 5, "currency": "USD"}"#;

/// The server's answer with this code, and a delay.
fn delayed_answer(code: &str, delay_ms: Option<&str>) -> Vec<u8> {
    let delay: Vec<_> = delay_ms.into_iter().map(|delay_ms| ("X-Sluice-Delay-Ms", delay_ms)).collect();
    answer_with(code, &delay)
}

/// The server's answer with this code and more headers.
fn answer_with(code: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let header = |key: &str, value: &str| HeaderValue { key: key.into(), value: value.into() };
    let headers = std::iter::once(("x-sluice-code", code)).chain(more.iter().copied());
    let headers = headers.map(|(key, value)| header(key, value));
    let ok = OkHttpResponse { headers: headers.map(|header| HeaderValueOption { header: Some(header) }).collect() };
    let status = Some(RpcStatus { code: 0, message: String::new() });
    CheckResponse { status, http_response: Some(HttpResponse::OkResponse(ok)), ..CheckResponse::default() }
        .encode_to_vec()
}

const HEADERS: Headers<'static> =
    &[(b":method", b"POST"), (b":path", b"/v1/merchants/m/payments"), (b"content-type", b"application/json")];

/// Events by number, for sequences that no proxy would send.
fn event(number: u8, message: &[u8]) -> Event<'_> {
    let head = RequestHead { headers: HEADERS, mode: ModeWord::Unset, metadata: &|_| Ok(None) };
    let read: BodyReader<'_> = &|_| Ok(Cow::Borrowed(BODY));
    let ending = |status| Ending { status, tries: Some(1), ..Ending::default() };
    let headers_of_answer = AnswerHeaders { amounts: Ok(Vec::new()), outcomes: Ok(Vec::new()) };
    match number {
        0 => Event::RequestHeaders { head, end: false },
        1 => Event::RequestBody { size: BODY.len(), end: true, read },
        2 => Event::RequestBody { size: 1 << 20, end: false, read },
        3 => Event::RequestTrailers { trailers: Ok(&[(b"x-sluice-code", b"ADMITTED")]), read },
        10 => Event::RequestTrailers { trailers: Err(Unreadable), read },
        11 => Event::DelayOver,
        12 => Event::NotDelayed,
        4 => Event::Reply { grpc_status: 0, message: Some(message), check_ms: 1 },
        5 => Event::Reply { grpc_status: 14, message: None, check_ms: 1 },
        6 => Event::NotSent(NotSentReason::NotAccepted),
        13 => Event::NotSent(NotSentReason::Late),
        7 => Event::ResponseHeaders { ending: ending(Some(422)), headers: headers_of_answer },
        8 => Event::Log(ending(None)),
        _ => Event::HostFailed,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2000) })]

    #[test]
    fn whatever_happens_in_whatever_order_nothing_goes_on_without_an_admission(
        numbers in proptest::collection::vec(0_u8..14, 1..12), failing in proptest::collection::vec(any::<bool>(), 40), admits in any::<bool>(),
        delays in any::<bool>(), sends in proptest::collection::vec(any::<bool>(), 12),
    ) {
        let message = delayed_answer(if admits { "ADMITTED" } else { "DAILY_AMOUNT" }, delays.then_some("5"));
        let mut stream = Stream::new(Arc::new(plugin("{}")), 1);
        let (mut checked, mut sent, mut admitted, mut waited, mut voids) = (false, false, false, !delays, Vec::new());
        let mut sends = sends.into_iter();
        let mut failing = failing.into_iter().chain(std::iter::repeat(false));
        for number in std::iter::once(0).chain(numbers) {
            // The headers come once.
            if number == 0 && !matches!(stream.phase, Phase::New) {
                continue;
            }
            let before = checked;
            // A check may wait in the queue: the next event finds it sent, or not sent yet.
            // Only a check that was sent gets an answer.
            if checked && (matches!(number, 4 | 5) || sends.next().unwrap_or(true)) {
                sent = true;
                stream.check_sent();
            }
            waited |= number == 11 && admitted;
            admitted |= number == 4 && before && admits;
            let action = drive(&mut stream, event(number, &message), &mut |effect| {
                let failed = failing.next().unwrap_or_default();
                match effect {
                    Effect::Check { .. } if !failed => checked = true,
                    Effect::Resume => assert!(admitted && waited, "resumed"),
                    Effect::FollowUp(void) => voids.push(void),
                    _ => {}
                }
                if failed { Err(Failed) } else { Ok(()) }
            });
            let request_callback = number <= 3 || number == 10;
            prop_assert!(!request_callback || action != Action::Continue || (admitted && waited) || stream.is_over(), "went on");
        }
        prop_assert!(voids.len() <= 1, "one attempt is voided once");
        prop_assert!(voids.is_empty() || sent, "only what was sent is voided");
    }
}

impl Stream {
    /// After the log there is no request to forward.
    fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }
}

#[test]
fn a_failure_of_the_proxys_answer_still_returns_the_charge() {
    let mut stream = Stream::new(Arc::new(plugin("{}")), 1);
    let mut seen = Vec::new();
    for number in [0, 1, 5] {
        drive(&mut stream, event(number, &[]), &mut |effect| {
            let failed = matches!(effect, Effect::Respond { .. });
            seen.push(effect);
            if failed { Err(Failed) } else { Ok(()) }
        });
    }
    assert!(seen.contains(&Effect::Reset));
    assert!(seen.iter().any(|effect| matches!(effect, Effect::FollowUp(_))));
}

proptest! {
    /// What is known after one visit is what each question would find: a length that is denied hides a header from every rule.
    #[test]
    fn a_visited_head_hides_no_header(
        names in prop::collection::vec(
            prop_oneof![
                "[a-zA-Z_-]{0,70}",
                prop::sample::select(vec![":path", ":method", "traceparent", "Traceparent", "X_SLUICE_CODE", "x-sluice-code", "cookie"])
                    .prop_map(str::to_owned),
            ],
            0..12,
        ),
    ) {
        let values: Vec<String> = (0..names.len()).map(|number| format!("/{number}?q={number}")).collect();
        let headers: Vec<(&[u8], &[u8])> =
            names.iter().zip(&values).map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let head = RequestHead { headers: &headers, mode: ModeWord::Unset, metadata: &|_| Ok(None) };
        let visited = VisitedHead::new(&head);
        let first = |wanted: &str| headers.iter().find(|(name, _)| *name == wanted.as_bytes()).map_or(&b""[..], |(_, value)| value);
        prop_assert!(headers.iter().all(|(name, _)| visited.may_have(name.len())));
        prop_assert!((0..60).all(|length| !visited.may_have(length) || names.iter().any(|name| name.len() == length)));
        prop_assert_eq!(visited.path(), first(":path"));
        prop_assert!(visited.method().as_bytes() == first(":method"));
        prop_assert_eq!(visited.query(), sluice_rules::query(first(":path")));
        prop_assert_eq!(visited.own_names(), own_names(&headers));
        let alone = names.iter().filter(|name| *name == "traceparent").count() == 1;
        prop_assert_eq!(visited.traceparent().is_some(), alone);
    }
}
