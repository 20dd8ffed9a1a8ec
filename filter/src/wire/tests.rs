use super::*;
use crate::follow_up::Kind;
use crate::outcome::Reason;
use prost::Message;
use proto::extension;
use quota::AmountMinor;
use sluice_rules::Action;

fn attempt(operation_no: Option<&str>, is_final: bool) -> Attempt {
    let request = Request {
        merchant: quota::MerchantId::parse("m").unwrap(),
        amount: AmountMinor::new(5),
        currency: quota::Currency::parse("USD").unwrap(),
        order_no: quota::OrderNo::parse("o").ok(),
        payment_no: None,
        channel: quota::Channel::parse("card").ok(),
        operation_no: operation_no.map(|number| quota::OperationNo::parse(number).unwrap()),
        is_final,
    };
    Attempt { id: "0".repeat(32), request, mode: Mode::Shadow, traceparent: None }
}

fn read(message: &[u8]) -> String {
    let message = proto::envoy::CheckRequest::decode(message).unwrap();
    let extensions = message.attributes.unwrap().context_extensions;
    let common =
        [("attempt", "0".repeat(32)), ("merchant", "m".into()), ("currency", "USD".into()), ("order_no", "o".into())];
    for (name, value) in common {
        assert_eq!(extensions[&format!("sluice.{name}")], value);
    }
    assert_eq!(extensions[extension::MODE], "shadow");
    let mut rest: Vec<String> = extensions
        .into_iter()
        .map(|(name, value)| format!("{}={value}", name.trim_start_matches("sluice.")))
        .filter(|text| {
            !["attempt=", "merchant=", "currency=", "order_no=", "mode="].iter().any(|own| text.starts_with(own))
        })
        .collect();
    rest.sort();
    rest.join(" ")
}

#[test]
fn a_question_is_the_contracts_message() {
    let table = [
        (Action::Consume, "action=consume amount_minor=5 channel=card"),
        (Action::Hold, "action=hold amount_minor=5 channel=card"),
        (Action::Settle, "action=settle amount_minor=5 channel=card dry=1"),
        (Action::Refund, "action=refund amount_minor=5 channel=card stage=reserve"),
        (Action::Void, "action=void_order amount_minor=5 channel=card dry=1"),
        (Action::Check, "action=consume amount_minor=5 channel=card dry=journal"),
    ];
    for (action, expected) in table {
        assert_eq!(read(&check(action, None, &attempt(None, true), None)), expected, "{action:?}");
    }
    let partial = attempt(Some("n"), false);
    let expected = "action=settle amount_minor=5 channel=card dry=1 final=0 operation_no=n";
    assert_eq!(read(&check(Action::Settle, None, &partial, None)), expected);
    let amount = AmountMinor::new(3);
    let expected = "action=settle amount_minor=3 channel=card final=0 operation_no=n";
    assert_eq!(read(&confirm(Kind::Settle, &partial, amount)), expected);
    assert_eq!(
        read(&confirm(Kind::Refund, &attempt(Some("n"), true), None)),
        "action=refund channel=card operation_no=n"
    );
    assert_eq!(read(&confirm(Kind::VoidOrder, &attempt(None, true), None)), "action=void_order channel=card");
    assert_eq!(read(&void(&partial, Reason::ClientGone)), "action=void reason=client_gone");
}

#[test]
fn pairs_survive_the_way_and_damage_is_noticed() {
    let pairs = [("a".into(), ""), ("b\u{e9}".into(), "x y")];
    let bytes = encode_pairs(&pairs);
    let expected: Vec<(&[u8], &[u8])> = pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
    assert_eq!(decode_pairs(&bytes), Some(expected));
    assert_eq!(decode_pairs(&[]), Some(Vec::new()));
    for cut in 1..bytes.len() {
        assert_eq!(decode_pairs(&bytes[..cut]), None, "{cut}");
    }
    assert_eq!(decode_pairs(&[0xff; 4]), None);
    assert_eq!(decode_pairs(&[0xff; 100]), None);
}

/// A batch's message is the contract's, whichever side writes it.
#[test]
fn a_batch_is_the_contracts_message() {
    let one = check(Action::Consume, None, &attempt(None, true), None);
    let two = void(&attempt(Some("n"), false), Reason::ClientGone);
    for checks in [vec![], vec![&one[..]], vec![&one[..], &two[..], &one[..]]] {
        let request = proto::batch::BatchCheckRequest::decode(batch(checks.iter().copied()).as_slice()).unwrap();
        let decoded: Vec<_> = checks.iter().map(|check| proto::envoy::CheckRequest::decode(*check).unwrap()).collect();
        let received: Vec<_> = request.checks.into_iter().map(proto::envoy::CheckRequest::from).collect();
        assert_eq!(received, decoded);
    }
    let long = "x".repeat(300);
    let long = Attempt { traceparent: Some(long.clone()), ..attempt(None, true) };
    let message = proto::envoy::CheckRequest::decode(check(Action::Hold, Some(3), &long, None).as_slice()).unwrap();
    let extensions = message.attributes.unwrap().context_extensions;
    assert_eq!(extensions[extension::TRACEPARENT].len(), 300);
    assert_eq!(extensions[extension::REPLAYS_MAX], "3");
}

#[test]
fn results_are_read_where_there_are_as_many_as_asked_for() {
    use proto::batch::{BatchCheckResponse, BatchCheckResult};
    use proto::envoy::{CheckResponse, RpcStatus};
    let status =
        |code| CheckResponse { status: Some(RpcStatus { code, message: "m".into() }), ..CheckResponse::default() };
    let result = |grpc_status, response| BatchCheckResult { grpc_status, response };
    let response =
        BatchCheckResponse { results: vec![result(0, Some(status(7))), result(14, None), result(0, Some(status(0)))] };
    let bytes = response.encode_to_vec();
    let read = results(&bytes, 3).unwrap();
    assert_eq!(read.iter().map(|outcome| outcome.grpc_status).collect::<Vec<_>>(), [0, 14, 0]);
    assert_eq!(CheckResponse::decode(read[0].response.unwrap()).unwrap(), status(7));
    assert_eq!((read[1].response, read[2].response.map(<[u8]>::len)), (None, Some(status(0).encoded_len())));
    for wrong in [0, 1, 2, 4, 32] {
        assert_eq!(results(&bytes, wrong), None, "{wrong}");
    }
    assert_eq!(results(&[], 0), Some(Vec::new()));
    for cut in 1..bytes.len() {
        assert_eq!(results(&bytes[..cut], 3), None, "{cut}");
    }
    // A field of another version is skipped; a repeated field makes the message unreadable.
    let added = [&[0x18, 5, 0x25, 1, 2, 3, 4][..], &bytes].concat();
    assert_eq!(results(&added, 3).map(|read| read.len()), Some(3));
    assert_eq!(results(&[0x0a, 4, 0x12, 0, 0x12, 0], 1), None);
    assert_eq!(results(&[0x0a, 2, 0x10, 0], 1), None);
    assert_eq!(results(&[0xff; 40], 1), None);
}

#[test]
fn an_attempts_id_is_written_in_hexadecimal_digits() {
    for id in [0, 1, 0x5a5a_0123_4567_89ab_cdef_0000_0000_0009, u128::MAX, u128::MAX / 7] {
        assert_eq!(attempt_id(id), format!("{id:032x}"));
    }
}

/// What is read in place equals what the generated messages contain.
#[test]
fn answers_are_read_as_the_contract_writes_them() {
    use proto::envoy::check_response::HttpResponse;
    use proto::envoy::{
        CheckResponse, DeniedHttpResponse, HeaderValue, HeaderValueOption, HttpStatus, OkHttpResponse, RpcStatus,
    };
    let option = |key: &str, value: &str| HeaderValueOption {
        header: Some(HeaderValue { key: key.to_owned(), value: value.to_owned() }),
    };
    let status = |code| Some(RpcStatus { code, message: "m".into() });
    let headers = vec![option("X-Sluice-Code", "ADMITTED"), option("x-other", "1"), HeaderValueOption { header: None }];
    let ok = Some(HttpResponse::OkResponse(OkHttpResponse { headers: headers.clone() }));
    let answer =
        CheckResponse { status: status(0), http_response: ok.clone(), dynamic_metadata: b"x".to_vec() }.encode_to_vec();
    let expected = vec![("x-sluice-code".into(), "ADMITTED")];
    assert_eq!(
        reply(0, Some(&answer)),
        Reply::Pass { code: Code::Admitted, headers: expected, delay_ms: 0, decided: b"x" }
    );
    let denied = |code| {
        Some(HttpResponse::DeniedResponse(DeniedHttpResponse {
            status: Some(HttpStatus { code }),
            headers: vec![option("x-sluice-code", "DAILY_AMOUNT"), option(":status", "200"), option("", "x")],
            body: "{\u{e9}}".into(),
        }))
    };
    for (code, expected) in [(429, 429), (200, 403), (0, 403), (-1, 403), (600, 403)] {
        let answer = CheckResponse { status: status(7), http_response: denied(code), ..CheckResponse::default() }
            .encode_to_vec();
        let headers = vec![("x-sluice-code".into(), "DAILY_AMOUNT")];
        let body = "{\u{e9}}".as_bytes();
        let refuse = Reply::Refuse { code: Some(Code::DailyAmount), status: expected, headers, body, decided: &[] };
        assert_eq!(reply(0, Some(&answer)), refuse, "{code}");
    }
    // A status and a response that do not belong together, two responses, and none.
    let both = [
        CheckResponse { status: status(0), http_response: ok.clone(), ..CheckResponse::default() }.encode_to_vec(),
        CheckResponse { status: None, http_response: denied(429), ..CheckResponse::default() }.encode_to_vec(),
    ];
    for message in [
        CheckResponse { status: status(7), http_response: ok.clone(), ..CheckResponse::default() }.encode_to_vec(),
        CheckResponse { status: status(0), http_response: denied(429), ..CheckResponse::default() }.encode_to_vec(),
        CheckResponse { status: status(-1), http_response: ok, ..CheckResponse::default() }.encode_to_vec(),
        CheckResponse { status: status(0), http_response: None, ..CheckResponse::default() }.encode_to_vec(),
        both.concat(),
    ] {
        assert!(matches!(reply(0, Some(&message)), Reply::None(_)), "{message:?}");
    }
    // Texts must be texts. The status's own, at the fifth byte, is not read.
    for at in (0..answer.len()).filter(|at| *at != 4) {
        let mut damaged = answer.clone();
        damaged[at] ^= 0x80;
        let generated = CheckResponse::decode(damaged.as_slice()).is_ok();
        let passed = matches!(reply(0, Some(&damaged)), Reply::Pass { .. });
        assert!(!passed || generated, "{at}");
    }
}
