//! Each action with each answer and each ending: the check, whether the request is forwarded, and what is reported afterwards.

use super::*;
use proto::envoy::{CheckRequest, DeniedHttpResponse, HttpStatus};

/// What a stream did.
#[derive(Debug, Default)]
struct Seen {
    check: String,
    /// Resumed, and not answered.
    went_on: bool,
    delayed_ms: Option<u32>,
    reply: Option<u32>,
    reports: Vec<String>,
    counted: Vec<Stat>,
    shown: Vec<(String, String)>,
}

/// The request, and its outcome.
#[derive(Clone, Debug)]
struct Case {
    /// Members of the rule.
    rule: &'static str,
    /// Members of the body beside order and currency.
    body: &'static str,
    answer: Answer,
    response: Option<(u16, &'static [&'static str])>,
    /// The log's status and flags.
    end: (Option<u16>, u64),
}

#[derive(Clone, Copy, Debug)]
enum Answer {
    Passes(&'static str),
    Refuses(&'static str, i32),
    Fails,
    /// The check could not be sent.
    NotSent,
    /// The check waited in the queue until its deadline.
    Waited,
    /// The client leaves first.
    Never,
    /// The client leaves while the check waits in the queue.
    NeverSent,
}

const CONSUME: &str = r#""action": "consume""#;
const HOLD: &str = r#""action": "hold""#;
const HOLD_LATER: &str = r#""action": "hold", "settle": "later""#;
const HOLD_AMOUNT: &str = r#""action": "hold", "settle_amount_header": "x-captured-amount""#;
const SETTLE: &str = r#""action": "settle""#;
const SETTLE_AMOUNT: &str = r#""action": "settle", "settle_amount_header": "x-captured-amount""#;
const REFUND: &str = r#""action": "refund""#;
const VOID: &str = r#""action": "void""#;
const CHECK: &str = r#""action": "check""#;

const GONE: (Option<u16>, u64) = (None, 1 << 14);
const RESET: (Option<u16>, u64) = (Some(200), 1 << 23);
/// The client leaves while the gateway's answer is delivered.
const LEFT: (Option<u16>, u64) = (Some(200), 1 << 14);

fn extracts(rule: &str) -> serde_json::Value {
    let action = rule.split('"').nth(3).unwrap();
    let mut extract = serde_json::json!({"merchant": [{"path": "merchant"}], "currency": [{"json": "/currency"}]});
    let fields: &[&str] = match action {
        "settle" => &["order_no", "amount", "operation_no", "final"],
        "refund" => &["order_no", "amount", "operation_no"],
        "void" => &["order_no"],
        _ => &["order_no", "amount"],
    };
    for field in fields {
        extract[*field] = serde_json::json!([{"json": format!("/{field}")}]);
    }
    extract
}

fn own_fields(message: &[u8]) -> String {
    let attributes = CheckRequest::decode(message).unwrap().attributes.unwrap();
    let common = ["sluice.attempt", "sluice.merchant", "sluice.currency", "sluice.order_no", "sluice.mode"];
    let mut extensions: Vec<_> = attributes.context_extensions.into_iter().collect();
    extensions.sort();
    let own = extensions.into_iter().filter(|(name, _)| !common.contains(&name.as_str()));
    let words: Vec<String> =
        own.map(|(name, value)| format!("{}={value}", name.trim_start_matches("sluice."))).collect();
    words.join(" ")
}

fn play(case: &Case, mode: ModeWord<'_>, on_error: &str) -> Seen {
    let extract = extracts(case.rule);
    let plugin = plugin(&format!(r#"{{{}, "extract": {extract}, "on_error": "{on_error}"}}"#, case.rule));
    let body = format!(r#"{{"order_no": "o", "currency": "USD"{}}}"#, case.body);
    let mut stream = Stream::new(Arc::new(plugin), 1);
    let mut seen = Seen::default();
    let head = RequestHead { headers: HEADERS, mode, metadata: &|_| Ok(None) };
    step(&mut stream, Event::RequestHeaders { head, end: false }, case, &mut seen);
    let read: BodyReader<'_> = &|_| Ok(Cow::Borrowed(body.as_bytes()));
    step(&mut stream, Event::RequestBody { size: body.len(), end: true, read }, case, &mut seen);
    let refusal = |code: &str, status| {
        let header = Some(HeaderValue { key: "x-sluice-code".into(), value: code.into() });
        let denied = DeniedHttpResponse {
            status: Some(HttpStatus { code: status }),
            headers: vec![HeaderValueOption { header }],
            body: "{}".into(),
        };
        let status = Some(RpcStatus { code: 7, message: String::new() });
        CheckResponse { status, http_response: Some(HttpResponse::DeniedResponse(denied)), ..CheckResponse::default() }
            .encode_to_vec()
    };
    let reply = |grpc_status, message| Event::Reply { grpc_status, message, check_ms: 1 };
    match case.answer {
        Answer::Passes(code) => {
            let answer = match code.strip_suffix(" replay") {
                Some(code) => answer_with(code, &[("x-sluice-replay", "true")]),
                None => delayed_answer(code, None),
            };
            step(&mut stream, reply(0, Some(&answer)), case, &mut seen);
        }
        Answer::Refuses(code, status) => {
            step(&mut stream, reply(0, Some(&refusal(code, status))), case, &mut seen);
        }
        Answer::Fails => step(&mut stream, reply(14, None), case, &mut seen),
        Answer::Waited => step(&mut stream, Event::NotSent(NotSentReason::Late), case, &mut seen),
        Answer::NotSent | Answer::Never | Answer::NeverSent => {}
    }
    if let Some((status, values)) = case.response.filter(|_| seen.went_on) {
        let ending = Ending { status: Some(status), flags: 0, tries: Some(1) };
        let values = |wanted: bool| {
            let values = if wanted { values } else { &[] };
            Ok(values.iter().map(|value| value.as_bytes().to_vec()).collect())
        };
        let amounts = values(stream.amount_header().is_some());
        let headers = AnswerHeaders { amounts, outcomes: values(stream.outcome_header().is_some()) };
        step(&mut stream, Event::ResponseHeaders { ending, headers }, case, &mut seen);
    }
    let ending = Ending { status: case.end.0, flags: case.end.1, tries: Some(1) };
    step(&mut stream, Event::Log(ending), case, &mut seen);
    seen
}

fn step(stream: &mut Stream, event: Event<'_>, case: &Case, seen: &mut Seen) {
    drive(stream, event, &mut |effect| {
        match effect {
            Effect::Check { .. } if matches!(case.answer, Answer::NotSent) => return Err(Failed),
            Effect::Check { message, .. } => seen.check = own_fields(&message),
            Effect::Resume => seen.went_on = true,
            Effect::Delay { delay_ms } => seen.delayed_ms = Some(delay_ms),
            Effect::Respond { status, .. } => seen.reply = Some(status),
            Effect::FollowUp(follow_up) => {
                assert!(follow_up.label.contains("merchant=m order=o"), "{}", follow_up.label);
                assert!(own_fields(&follow_up.message).contains(&format!("action={}", follow_up.kind.as_str())));
                seen.reports.push(own_fields(&follow_up.message));
            }
            Effect::Count(stat) => seen.counted.push(stat),
            Effect::Show(object) => seen.shown = crate::wire::structure::members(&object),
            _ => {}
        }
        Ok(())
    });
    if !matches!(case.answer, Answer::NotSent | Answer::Waited | Answer::NeverSent) {
        stream.check_sent();
    }
    // If the check could not be sent, the same callback forwards the request.
    if matches!(case.answer, Answer::NotSent) && stream.is_forwarded() {
        seen.went_on = true;
    }
}

const AMOUNT: &str = r#", "amount": 5"#;
const CAPTURE: &str = r#", "amount": 5, "operation_no": "c", "final": false"#;
const REFUNDED: &str = r#", "amount": 3, "operation_no": "r""#;

/// The rule, the body, the check, the code that admits.
const ACTIONS: &[(&str, &str, &str, &str)] = &[
    (CONSUME, AMOUNT, "action=consume amount_minor=5", "ADMITTED"),
    (HOLD, AMOUNT, "action=hold amount_minor=5", "ADMITTED"),
    (HOLD_LATER, AMOUNT, "action=hold amount_minor=5", "ADMITTED"),
    (SETTLE, CAPTURE, "action=settle amount_minor=5 dry=1 final=0 operation_no=c", "APPLIED"),
    (REFUND, REFUNDED, "action=refund amount_minor=3 operation_no=r stage=reserve", "APPLIED"),
    (VOID, "", "action=void_order dry=1", "APPLIED"),
    (VOID, "", "action=void_order dry=1", "VOIDED"),
    (CHECK, AMOUNT, "action=consume amount_minor=5 dry=journal", "ADMITTED"),
];

/// What is reported for each of [`ACTIONS`], in the same order: the text and the outcome of the record.
type Expected = [(&'static str, &'static str); 8];

#[test]
fn each_action_with_each_ending() {
    const VOIDED_4XX: &str = "action=void reason=upstream_4xx";
    const UNREACHED: &str = "action=void reason=upstream_unreached";
    const CAPTURED: &str = "action=settle amount_minor=5 final=0 operation_no=c";
    const CONFIRMED: &str = "action=refund amount_minor=3 operation_no=r";
    let paid: Expected = [
        ("", "kept"),
        ("action=settle", "settled"),
        ("", "kept"),
        (CAPTURED, "settled"),
        (CONFIRMED, "refunded"),
        ("action=void_order", "order_voided"),
        ("action=void_order", "order_voided"),
        ("", "forwarded"),
    ];
    let failed = |void: &'static str| -> Expected {
        [
            (void, "voided"),
            (void, "voided"),
            (void, "voided"),
            ("", "unchanged"),
            (void, "voided"),
            ("", "unchanged"),
            ("", "unchanged"),
            ("", "forwarded"),
        ]
    };
    const LEFT_OPEN: [&str; 5] = [
        "action=unknown amount_minor=5 outcome_of=consume",
        "action=unknown amount_minor=5 outcome_of=hold",
        "action=unknown amount_minor=5 final=0 operation_no=c outcome_of=settle",
        "action=unknown amount_minor=3 operation_no=r outcome_of=refund",
        "action=unknown outcome_of=void_order",
    ];
    let [charge, hold, capture, refund, void] = LEFT_OPEN;
    let unknown: Expected = [
        (charge, "unknown"),
        (hold, "unknown"),
        (hold, "unknown"),
        (capture, "unknown"),
        (refund, "unknown"),
        (void, "unknown"),
        (void, "unknown"),
        ("", "forwarded"),
    ];
    // What was charged or captured before the client left was.
    let left: Expected = [
        ("", "kept"),
        ("action=settle", "settled"),
        ("", "kept"),
        (CAPTURED, "settled"),
        (refund, "unknown"),
        (void, "unknown"),
        (void, "unknown"),
        ("", "forwarded"),
    ];
    type End = (Option<(u16, &'static [&'static str])>, (Option<u16>, u64));
    let table: [(End, Expected); 15] = [
        ((Some((200, &[])), (Some(200), 0)), paid),
        ((Some((299, &[])), (Some(299), 0)), paid),
        ((Some((302, &[])), (Some(302), 0)), unknown),
        ((Some((409, &[])), (Some(409), 0)), unknown),
        ((Some((200, &[])), LEFT), left),
        ((Some((200, &[])), (None, 1 << 16 | 1 << 28)), left),
        ((Some((409, &[])), (Some(409), 1 << 14)), unknown),
        ((Some((200, &[])), (Some(200), 1 << 14 | 1 << 6)), unknown),
        ((Some((422, &[])), (Some(422), 0)), failed(VOIDED_4XX)),
        ((Some((406, &[])), (Some(406), 0)), unknown),
        ((Some((500, &[])), (Some(500), 0)), unknown),
        ((None, (Some(503), 1 << 5)), failed(UNREACHED)),
        ((Some((504, &[])), (Some(504), 0)), unknown),
        ((Some((200, &[])), RESET), unknown),
        ((None, GONE), unknown),
    ];
    for ((response, end), expected) in table {
        for ((rule, body, check, code), (report, outcome)) in ACTIONS.iter().zip(expected) {
            let case = Case { rule, body, answer: Answer::Passes(code), response, end };
            let seen = play(&case, ModeWord::Unset, "deny");
            let what = format!("{case:?}: {seen:?}");
            assert_eq!(seen.check, *check, "{what}");
            assert!(seen.went_on && seen.reply.is_none(), "{what}");
            // The reason is in the report too, and in the access log.
            let all = seen.reports.join(" + ");
            let (text, why) = if outcome == "unknown" { all.split_once(" reason=").unwrap() } else { (&*all, "") };
            assert_eq!(text, report, "{what}");
            assert!(why.is_empty() || seen.shown.contains(&("detail".to_owned(), why.to_owned())), "{what}");
            assert!(seen.shown.contains(&("outcome".to_owned(), outcome.to_owned())), "{what}");
            assert_eq!(seen.counted.contains(&Stat::Unknown), outcome == "unknown", "{what}");
        }
    }
}

#[test]
fn each_action_without_an_admission() {
    const LATE: &str = "action=void reason=check_timeout";
    const LEFT: &str = "action=void reason=client_gone";
    // The answer, the report of actions that change something, and the reply; the others report nothing.
    let table: [(Answer, &str, Option<u32>); 10] = [
        (Answer::Refuses("DAILY_AMOUNT", 429), "", Some(429)),
        (Answer::Refuses("ORDER_UNKNOWN", 404), "", Some(404)),
        (Answer::Passes("DAILY_AMOUNT"), LATE, Some(503)),
        (Answer::Passes("TOMBSTONED"), LATE, Some(503)),
        (Answer::Refuses("STORE_UNAVAILABLE", 503), LATE, Some(503)),
        (Answer::Fails, LATE, Some(503)),
        (Answer::NotSent, "", Some(503)),
        (Answer::Waited, "", Some(503)),
        (Answer::Never, LEFT, None),
        (Answer::NeverSent, "", None),
    ];
    for (answer, report, reply) in table {
        for (rule, body, _, _) in ACTIONS {
            let case = Case { rule, body, answer, response: None, end: GONE };
            let seen = play(&case, ModeWord::Unset, "deny");
            let changes = [CONSUME, HOLD, HOLD_LATER, REFUND].contains(rule);
            assert_eq!(seen.reports.join(" + "), if changes { report } else { "" }, "{case:?}: {seen:?}");
            assert_eq!(seen.reply, reply, "{case:?}: {seen:?}");
            assert!(!seen.went_on, "{case:?}: {seen:?}");
        }
    }
}

/// The code that admits one action admits no other one.
#[test]
fn an_admission_is_of_its_own_kind() {
    for (rule, body, _, _) in ACTIONS {
        for code in Code::ALL {
            let case = Case { rule, body, answer: Answer::Passes(code.as_str()), response: None, end: GONE };
            let seen = play(&case, ModeWord::Unset, "deny");
            let expected = match *rule {
                CONSUME | HOLD | HOLD_LATER | CHECK => code == Code::Admitted,
                SETTLE | REFUND => code == Code::Applied,
                _ => [Code::Applied, Code::Voided].contains(&code),
            };
            assert_eq!(seen.went_on, expected, "{case:?}: {seen:?}");
        }
    }
}

#[test]
fn on_routes_that_go_on_without_an_answer_the_gateways_deeds_are_told() {
    // The check was sent, or it was not; the gateway made the payment, or it did not.
    let table: [(&str, [&str; 4]); 6] = [
        (CONSUME, ["", "action=void reason=upstream_4xx", "", ""]),
        (HOLD, ["action=settle", "action=void reason=upstream_4xx", "", ""]),
        (SETTLE, ["action=settle", "", "action=settle", ""]),
        (
            REFUND,
            ["action=refund operation_no=r", "action=void reason=upstream_4xx", "action=refund operation_no=r", ""],
        ),
        (VOID, ["action=void_order", "", "action=void_order", ""]),
        (CHECK, ["", "", "", ""]),
    ];
    for (rule, expected) in table {
        let body = match rule {
            REFUND => r#", "operation_no": "r""#,
            SETTLE | VOID => "",
            _ => AMOUNT,
        };
        let cases = [(Answer::Fails, 200), (Answer::Fails, 422), (Answer::NotSent, 200), (Answer::NotSent, 422)];
        let waited = [(Answer::Waited, 200), (Answer::Waited, 422)].into_iter().zip(expected.into_iter().skip(2));
        for ((answer, status), report) in cases.into_iter().zip(expected).chain(waited) {
            for (mode, on_error) in [(ModeWord::Unset, "allow"), (ModeWord::Word(b"shadow"), "deny")] {
                let response = Some((status, &[][..]));
                let case = Case { rule, body, answer, response, end: (Some(status), 0) };
                let seen = play(&case, mode, on_error);
                assert_eq!(seen.reports.join(" + "), report, "{case:?} {on_error}: {seen:?}");
                assert_eq!(seen.reply, None, "{case:?} {on_error}: {seen:?}");
            }
        }
    }
}

#[test]
fn the_captured_amount_comes_from_the_gateways_answer_first() {
    const PART: &str = "action=settle amount_minor=3";
    let whole = "action=settle";
    let own = "action=settle amount_minor=5";
    const OPEN: &str = "action=unknown amount_minor=5 outcome_of=settle reason=amount_unreadable";
    let table: &[(&str, &str, &[&str], &str, &str)] = &[
        (HOLD_AMOUNT, AMOUNT, &["3"], PART, "settled"),
        (HOLD_AMOUNT, AMOUNT, &["3", "3"], PART, "settled"),
        (HOLD_AMOUNT, AMOUNT, &[], whole, "settled"),
        (HOLD_AMOUNT, AMOUNT, &["7"], "action=settle amount_minor=7", "settled"),
        (HOLD_AMOUNT, AMOUNT, &["0"], "action=void_order", "order_voided"),
        (HOLD_AMOUNT, AMOUNT, &["3", "4"], OPEN, "unsettled"),
        (HOLD_AMOUNT, AMOUNT, &["3.0"], OPEN, "unsettled"),
        (HOLD_AMOUNT, AMOUNT, &[""], OPEN, "unsettled"),
        (HOLD_AMOUNT, AMOUNT, &["-3"], OPEN, "unsettled"),
        (HOLD, AMOUNT, &["3"], whole, "settled"),
        (SETTLE_AMOUNT, AMOUNT, &["3"], PART, "settled"),
        (SETTLE_AMOUNT, AMOUNT, &[], own, "settled"),
        (SETTLE_AMOUNT, "", &[], whole, "settled"),
        (SETTLE_AMOUNT, AMOUNT, &["x"], OPEN, "unsettled"),
        (SETTLE_AMOUNT, AMOUNT, &["0"], "action=void_order", "order_voided"),
        (SETTLE_AMOUNT, r#", "amount": 5, "final": "false""#, &["0"], "", "kept"),
        (SETTLE, AMOUNT, &["3"], own, "settled"),
    ];
    for (rule, body, amounts, report, outcome) in table {
        let code = if rule.contains("hold") { "ADMITTED" } else { "APPLIED" };
        let (response, end) = (Some((201, *amounts)), (Some(201), 0));
        let case = Case { rule, body, answer: Answer::Passes(code), response, end };
        let seen = play(&case, ModeWord::Unset, "deny");
        assert_eq!(seen.reports.join(" + "), *report, "{case:?}: {seen:?}");
        assert!(seen.shown.contains(&("outcome".to_owned(), (*outcome).to_owned())), "{case:?}: {seen:?}");
        assert_eq!(seen.counted.contains(&Stat::AmountUnreadable), *outcome == "unsettled", "{case:?}: {seen:?}");
        // A gateway that refuses has captured nothing, whatever amount it returns.
        let case = Case { response: Some((422, *amounts)), end: (Some(422), 0), ..case };
        let seen = play(&case, ModeWord::Unset, "deny");
        let expected = if rule.contains("hold") { "action=void reason=upstream_4xx" } else { "" };
        assert_eq!(seen.reports.join(" + "), expected, "{case:?}: {seen:?}");
    }
}

/// The gateway's outcome header outranks its status, for every action.
#[test]
fn x2_the_outcome_header_decides_for_each_action() {
    let changes = |rule: &str| !rule.contains("settle\"") && !rule.contains("void\"");
    for (rule, body, code) in [
        (r#""action": "consume", "outcome_header": "X-Outcome""#, AMOUNT, "ADMITTED"),
        (r#""action": "hold", "outcome_header": "x-outcome""#, AMOUNT, "ADMITTED"),
        (r#""action": "settle", "outcome_header": "x-outcome""#, CAPTURE, "APPLIED"),
        (r#""action": "refund", "outcome_header": "x-outcome""#, REFUNDED, "APPLIED"),
        (r#""action": "void", "outcome_header": "x-outcome""#, "", "APPLIED"),
    ] {
        for status in [200, 302, 406, 422, 503] {
            let table: [(&'static [&'static str], &[&str]); 6] = [
                (&["made"], &["kept", "settled", "refunded", "order_voided"]),
                (&["not_made"], if changes(rule) { &["voided"] } else { &["unchanged"] }),
                (&["unknown"], &["unknown"]),
                (&["Made"], &["unknown"]),
                (&["made", "not_made"], &["unknown"]),
                (&[""], &["unknown"]),
            ];
            for (values, outcomes) in table {
                let answer = Answer::Passes(code);
                let case = Case { rule, body, answer, response: Some((status, values)), end: (Some(status), 0) };
                let seen = play(&case, ModeWord::Unset, "deny");
                let outcome =
                    outcomes.iter().any(|word| seen.shown.contains(&("outcome".to_owned(), (*word).to_owned())));
                assert!(outcome, "{case:?}: {seen:?}");
                let unreadable = !matches!(*values, ["made"] | ["not_made"] | ["unknown"]);
                assert_eq!(seen.counted.contains(&Stat::OutcomeUnreadable), unreadable, "{case:?}: {seen:?}");
            }
        }
    }
}

/// The success of a replay settles an earlier attempt at the order that may be open; a first attempt needs no report.
#[test]
fn x2_the_success_of_a_retry_is_reported() {
    for (rule, report) in [(CONSUME, "action=made"), (HOLD_LATER, "action=made"), (HOLD, "action=settle")] {
        let case = |code, status| Case {
            rule,
            body: AMOUNT,
            answer: Answer::Passes(code),
            response: Some((status, &[])),
            end: (Some(status), 0),
        };
        let replayed = play(&case("ADMITTED replay", 200), ModeWord::Unset, "deny");
        assert_eq!(replayed.reports.join(" + "), report, "{replayed:?}");
        let first = play(&case("ADMITTED", 200), ModeWord::Unset, "deny");
        assert!(!first.reports.contains(&"action=made".to_owned()), "{first:?}");
        // A refusal of the retry does not concern the first attempt: this one is voided.
        let refused = play(&case("ADMITTED replay", 422), ModeWord::Unset, "deny");
        assert_eq!(refused.reports.join(" + "), "action=void reason=upstream_4xx", "{refused:?}");
    }
}

#[test]
fn shadow_refuses_nothing_and_tells_only_what_was_admitted() {
    for (rule, body, _, code) in ACTIONS {
        for answer in [Answer::Passes("ORDER_UNKNOWN"), Answer::Refuses("DAILY_AMOUNT", 429)] {
            let case = Case { rule, body, answer, response: Some((200, &[])), end: (Some(200), 0) };
            let seen = play(&case, ModeWord::Word(b"shadow"), "deny");
            assert!(seen.went_on && seen.reports.is_empty(), "{case:?}: {seen:?}");
            assert!(seen.counted.contains(&Stat::ShadowRefused), "{case:?}: {seen:?}");
        }
        let case = Case { rule, body, answer: Answer::Passes(code), response: Some((200, &[])), end: (Some(200), 0) };
        let enforced = play(&case, ModeWord::Unset, "deny");
        assert_eq!(play(&case, ModeWord::Word(b"shadow"), "deny").reports, enforced.reports, "{case:?}");
    }
}
