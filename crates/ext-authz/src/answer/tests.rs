use super::*;
use prost::Message;
use proto::envoy;
use quota::{AmountMinor, PerPeriod, Period, WindowLimits, WindowUsage};

const NOW_MS: i64 = 1_795_296_600_000;

fn refused() -> Answer {
    let amount = AmountMinor::new(500).unwrap();
    let limits = Limits::UNLIMITED.with(Period::Day, WindowLimits { amount, ..WindowLimits::UNLIMITED });
    let day = WindowUsage { id: 20_261_121, amount_before: 450, amount_after: 450, ..WindowUsage::default() };
    let record = Record { windows: PerPeriod { day, ..PerPeriod::default() }, ..Record::bare(Code::DailyAmount) };
    let binding = Binding::of(&record, &limits, &Calendar::UTC, NOW_MS);
    Answer { decision_id: Some(Uuid::from_u128(7)), binding, ..Answer::bare(record.code, Mode::Enforce) }
}

/// The reply as the proxy filter's own messages read it: both sides' fields are the same on the wire.
fn as_the_filter_reads(answer: &Answer) -> envoy::CheckResponse {
    let bytes = answer.to_check_response(false).encode_to_vec();
    envoy::CheckResponse::decode(bytes.as_slice()).unwrap()
}

fn pairs(headers: &[envoy::HeaderValueOption]) -> Vec<(String, String)> {
    headers.iter().filter_map(|option| option.header.clone()).map(|header| (header.key, header.value)).collect()
}

#[test]
fn golden_refusal() {
    let response = as_the_filter_reads(&refused());
    assert_eq!(response.status.unwrap().code, RpcCode::ResourceExhausted as i32);
    let Some(envoy::check_response::HttpResponse::DeniedResponse(denied)) = response.http_response else {
        panic!("not denied");
    };
    assert_eq!(denied.status.unwrap().code, 429);
    let text =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Vec<_>>();
    let expected = text(&[
        ("content-type", "application/problem+json"),
        ("x-sluice-code", "DAILY_AMOUNT"),
        ("x-sluice-decision-id", "00000000-0000-0000-0000-000000000007"),
        ("retry-after", "9000"),
        ("ratelimit-policy", "\"daily_amount\";q=500;w=86400"),
        ("ratelimit", "\"daily_amount\";r=50;t=9000"),
    ]);
    assert_eq!(pairs(&denied.headers), expected);
    let body = concat!(
        r#"{"type":"urn:sluice:problem:daily_amount","title":"The day's amount would be exceeded.","status":429,"#,
        r#""code":"DAILY_AMOUNT","decision_id":"00000000-0000-0000-0000-000000000007","#,
        r#""limit":{"name":"daily_amount","max":500,"used":450,"remaining":50,"resets_at":"2026-11-22T00:00:00Z"}}"#
    );
    assert_eq!(denied.body, body);
}

#[test]
fn shadow_lets_a_refusal_through_and_names_it() {
    let response = as_the_filter_reads(&Answer { mode: Mode::Shadow, ..refused() });
    assert_eq!(response.status.unwrap().code, RpcCode::Ok as i32);
    let Some(envoy::check_response::HttpResponse::OkResponse(passed)) = response.http_response else {
        panic!("not passed");
    };
    let headers = pairs(&passed.headers);
    assert!(headers.contains(&("x-sluice-code".to_owned(), "DAILY_AMOUNT".to_owned())), "{headers:?}");
}

#[test]
fn golden_no_decision() {
    let response = as_the_filter_reads(&Answer::without_decision(Mode::Enforce));
    assert_eq!(response.status.unwrap().code, RpcCode::Unavailable as i32);
    let Some(envoy::check_response::HttpResponse::DeniedResponse(denied)) = response.http_response else {
        panic!("not denied");
    };
    assert_eq!(denied.status.unwrap().code, 503);
    let expected =
        [("content-type", "application/problem+json"), ("x-sluice-code", "STORE_UNAVAILABLE"), ("retry-after", "1")];
    let expected = expected.map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(pairs(&denied.headers), expected);
    let body = concat!(
        r#"{"type":"urn:sluice:problem:store_unavailable","title":"The quota store gave no answer in time.","#,
        r#""status":503,"code":"STORE_UNAVAILABLE"}"#
    );
    assert_eq!(denied.body, body);
}

#[test]
fn a_clients_own_names_do_not_survive_the_native_filter() {
    let answer = Answer { code: Code::Admitted, binding: None, ..refused() };
    let Some(HttpResponse::OkResponse(passed)) = answer.to_check_response(true).http_response else {
        panic!("not passed");
    };
    assert!(
        passed.headers.iter().all(|option| option.append_action == HeaderAppendAction::OverwriteIfExistsOrAdd as i32)
    );
    assert_eq!(passed.headers_to_remove, ["x-sluice-replay", "x-sluice-delay-ms", "x-sluice-right"]);
}

#[test]
fn a_limit_that_time_does_not_lift_has_no_retry_after() {
    let answer = Answer { code: Code::AboveSingleMax, binding: None, ..refused() };
    let Some(HttpResponse::DeniedResponse(denied)) = answer.to_check_response(true).http_response else {
        panic!("not denied");
    };
    assert!(
        !denied.headers.iter().any(|option| option.header.as_ref().is_some_and(|header| header.key == "retry-after"))
    );
    assert_eq!(denied.status.unwrap().code, 403);
}

/// What the access log shows of an answer: the same members on both routes, as far as each knows them.
#[test]
fn the_access_log_has_the_decision_with_its_policy_and_its_limit() {
    let known = Salvaged {
        merchant: MerchantId::parse("m").ok(),
        order_no: OrderNo::parse("o").ok(),
        currency: Currency::parse("USD").ok(),
        amount: AmountMinor::new(1_050),
    };
    let subject = Subject { rule: Some("pay".into()), action: Some("consume"), attempt: Some("a".into()), known };
    let answer = Answer { policy_version: "v7".into(), subject, ..refused() };
    let shown = |metadata: Struct| {
        let mut members: Vec<String> = metadata
            .fields
            .into_iter()
            .map(|(name, value)| match value.kind {
                Some(Kind::StringValue(text)) => format!("{name}={text}"),
                Some(Kind::NumberValue(number)) => format!("{name}={number}"),
                other => format!("{name}: {other:?}"),
            })
            .collect();
        members.sort();
        members.join(" ")
    };
    let native = shown(answer.to_check_response(true).dynamic_metadata.unwrap());
    let expected = "action=consume amount_minor=1050 attempt=a code=DAILY_AMOUNT currency=USD \
        decision_id=00000000-0000-0000-0000-000000000007 limit=daily_amount merchant=m mode=enforce order=o outcome=refused \
        policy_version=v7 rule=pay";
    assert_eq!(native, expected);
    let own = Struct::decode(answer.to_filter_response().dynamic_metadata.as_slice()).unwrap();
    assert_eq!(shown(own), "limit=daily_amount policy_version=v7");
    assert_eq!(
        shown(answer.to_check_response(false).dynamic_metadata.unwrap()),
        "limit=daily_amount policy_version=v7"
    );
}

fn headers_of(answer: &Answer) -> Vec<(String, String)> {
    match as_the_filter_reads(answer).http_response {
        Some(envoy::check_response::HttpResponse::OkResponse(passed)) => pairs(&passed.headers),
        Some(envoy::check_response::HttpResponse::DeniedResponse(denied)) => pairs(&denied.headers),
        None => panic!("no answer"),
    }
}

#[test]
fn a_turn_that_is_near_is_a_delay_and_one_that_is_far_a_refusal() {
    let header = |answer: &Answer, name: &str| {
        headers_of(answer).into_iter().find(|(own, _)| own == name).map(|(_, value)| value)
    };
    let table = [
        (Code::Admitted, 750, Some("750"), None),
        (Code::Admitted, 0, None, None),
        (Code::Throttled, 750, None, Some("1")),
        (Code::Throttled, 1000, None, Some("1")),
        (Code::Throttled, 61_001, None, Some("62")),
    ];
    for (code, wait_ms, delay, retry_after) in table {
        let answer = Answer { wait_ms, ..Answer::bare(code, Mode::Enforce) };
        assert_eq!(header(&answer, header::DELAY_MS).as_deref(), delay, "{code:?} {wait_ms}");
        assert_eq!(header(&answer, header::RETRY_AFTER).as_deref(), retry_after, "{code:?} {wait_ms}");
    }
}

#[test]
fn limits_of_refunds_and_holds_are_shown_like_the_others() {
    let hundred = AmountMinor::new(100).unwrap();
    let limits = Limits { pending: hundred, ..Limits::UNLIMITED };
    let limits = limits.with(Period::Day, WindowLimits { refunded: hundred, ..WindowLimits::UNLIMITED });
    let day = WindowUsage { id: 20_261_121, refunded_before: 80, refunded_after: 80, ..WindowUsage::default() };
    let windows = PerPeriod { day, ..PerPeriod::default() };
    let record = |code| Record { windows, pending_before: 90, pending_after: 90, ..Record::bare(code) };
    let table: [(Code, &[(&str, &str)], &str); 2] = [
        (
            Code::RefundDaily,
            &[
                ("retry-after", "9000"),
                ("ratelimit-policy", "\"refund_daily_amount\";q=100;w=86400"),
                ("ratelimit", "\"refund_daily_amount\";r=20;t=9000"),
            ],
            r#""used":80,"remaining":20,"resets_at":"2026-11-22T00:00:00Z"}"#,
        ),
        // No time lifts it, so none is named.
        (
            Code::PendingAmount,
            &[("ratelimit-policy", "\"pending_amount\";q=100"), ("ratelimit", "\"pending_amount\";r=10")],
            r#""used":90,"remaining":10}"#,
        ),
    ];
    for (code, expected, end) in table {
        let binding = Binding::of(&record(code), &limits, &Calendar::UTC, NOW_MS);
        let answer = Answer { binding, ..Answer::bare(code, Mode::Enforce) };
        let got: Vec<_> = headers_of(&answer).into_iter().filter(|(name, _)| name.starts_with('r')).collect();
        let expected: Vec<_> = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        assert_eq!(got, expected, "{code:?}");
        let body = answer.problem().to_json();
        assert!(body.contains(end), "{code:?}: {body}");
    }
}
