//! Every call into the host is made to fail in turn, with each status, in each main flow. Whatever fails: an enforced payment
//! reaches the gateway only after an answer that admits it; the filter does not trap but where its documentation says that the
//! SDK does; and what the server may have consumed for a payment that was not made is voided.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::host::{GrpcCall, Host, ROOT};
use super::proxy::{Answer, CONTINUE, Proxy, batch, delays, passes, question, questions, refuses, store_away};
use super::{BODY, HEAD_PAYMENT, PAYMENT, configuration};

/// Every status of the ABI that is no success, and one that it does not have.
const STATUSES: [u32; 13] = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 250];
/// A call to the server may fail with these: parse failure and internal failure.
const CALL_STATUSES: [u32; 2] = [4, 10];

/// Whether the SDK traps where this call fails with this status: a call to the server, or making the root effective to bring it
/// an answer, which it then reads.
fn traps(calls: &[String], at: usize, status: u32) -> bool {
    let read = matches!(calls.get(at + 1).map(String::as_str), Some("buffer 5" | "clock 1"));
    let brings = calls[at] == format!("effective {ROOT}") && read;
    brings || (calls[at].starts_with("grpc ") && !CALL_STATUSES.contains(&status))
}

/// One life of a stream.
#[derive(Debug)]
struct Flow {
    name: &'static str,
    change: Value,
    headers: &'static [(&'static str, &'static str)],
    body: &'static [&'static [u8]],
    trailers: &'static [(&'static str, &'static str)],
    mode: Option<&'static str>,
    /// Others pay at the same time: one is asked for already, and one goes in the same batch.
    beside: bool,
    /// `None`: the client leaves while it is pending.
    answer: Option<Answer>,
    /// The gateway's status, where it gets the payment.
    gateway: Option<u16>,
}

/// What came of it.
#[derive(Debug, Default)]
struct Result {
    configured: bool,
    asked: Option<String>,
    reached: bool,
    replied: bool,
    voided: bool,
    forged: bool,
    /// The server had nothing to decide.
    undecided: bool,
    /// Whether each of the others went on or was answered.
    others_decided: Vec<bool>,
}

/// Trailers with a name that is not a client's to set.
const FORGED: &[(&str, &str)] = &[("x-sluice-code", "ADMITTED")];

fn flows() -> Vec<Flow> {
    let base = |name, answer, gateway| Flow {
        name,
        change: json!({}),
        headers: PAYMENT,
        body: &[BODY],
        trailers: &[],
        mode: None,
        beside: false,
        answer,
        gateway,
    };
    let beside = |name, answer, gateway| Flow { beside: true, ..base(name, answer, gateway) };
    let admitted = || Some(passes("ADMITTED"));
    vec![
        base("admitted, paid", admitted(), Some(200)),
        base("admitted, failed by the gateway", admitted(), Some(422)),
        base("admitted, unknown", admitted(), None),
        base("refused", Some(refuses()), None),
        base("garbage", Some(Answer::Bytes(vec![0xff; 9])), None),
        base("no answer", Some(Answer::Failed(4)), None),
        base("client gone while pending", None, None),
        Flow { trailers: FORGED, body: &[b"{", BODY], ..base("malformed, with trailers", admitted(), Some(200)) },
        Flow { trailers: FORGED, ..base("with trailers", admitted(), Some(200)) },
        Flow { headers: HEAD_PAYMENT, trailers: FORGED, ..base("head only, with trailers", admitted(), Some(200)) },
        base("the store is away", Some(store_away()), None),
        Flow { headers: HEAD_PAYMENT, body: &[], ..base("head only", admitted(), Some(402)) },
        Flow { headers: HEAD_PAYMENT, body: &[b"x"], ..base("head with a body", Some(refuses()), None) },
        base("delayed, paid", Some(delays(300)), Some(200)),
        base("delayed, failed by the gateway", Some(delays(300)), Some(422)),
        Flow { headers: HEAD_PAYMENT, body: &[], ..base("delayed for long, client gone", Some(delays(30_000)), None) },
        Flow { mode: Some("enforce"), ..base("route says enforce", Some(refuses()), None) },
        Flow { mode: Some("nonsense"), ..base("route says nonsense", Some(refuses()), None) },
        beside("beside others, paid", admitted(), Some(200)),
        beside("beside others, failed by the gateway", admitted(), Some(422)),
        beside("beside others, refused", Some(refuses()), None),
        beside("beside others, no answer", Some(Answer::Failed(4)), None),
        beside("beside others, to be asked alone", Some(Answer::Failed(proto::batch::ALONE)), None),
        beside("beside others, delayed", Some(delays(300)), Some(200)),
        beside("beside others, client gone", None, None),
    ]
}

/// Plays a flow as far as it goes with one failing call.
fn play(flow: &Flow, fail: Option<(usize, u32)>, fail_on: bool) -> (Result, Proxy) {
    let mut proxy = Proxy::new(Host { fail, fail_on, ..Host::default() });
    let mut result = Result { configured: proxy.configure(&configuration(&flow.change)), ..Result::default() };
    if !result.configured {
        return (result, proxy);
    }
    let first = flow.beside.then(|| other(&mut proxy));
    let first_call = proxy.new_calls();
    let context = proxy.open(flow.headers);
    if let Some(mode) = flow.mode {
        proxy.set_mode(context, mode);
    }
    let trailers = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
    proxy.stream(context).request_trailers = flow.trailers.iter().map(trailers).collect();
    let mut action = proxy.headers(context, flow.body.is_empty() && flow.trailers.is_empty());
    for (at, chunk) in flow.body.iter().enumerate() {
        // A request that was answered gets nothing more.
        if proxy.stream(context).reply.is_none() {
            action = proxy.body(context, chunk, at + 1 == flow.body.len() && flow.trailers.is_empty());
        }
    }
    if !flow.trailers.is_empty() && proxy.stream(context).reply.is_none() && action != CONTINUE {
        action = proxy.trailers(context);
        let forged = proxy.stream(context).request_trailers.iter().any(|(name, _)| name == FORGED[0].0);
        assert!(!forged || action != CONTINUE);
    }
    result.forged = proxy.stream(context).request_trailers.iter().any(|(name, _)| name == FORGED[0].0);
    let companion = flow.beside.then(|| other(&mut proxy));
    for call in first_call {
        proxy.answer(call.token, &passes("ADMITTED"));
    }
    let mut calls = proxy.new_calls();
    result.asked = calls.iter().flat_map(asked_in).find(is_own(flow)).map(|asked| asked["attempt"].clone());
    answer_all(&mut proxy, flow, &mut calls);
    // One that is held back may have to wait.
    for _ in 0..6 {
        if proxy.stream(context).reply.is_none() && !proxy.reached_gateway(context) {
            proxy.tick();
        }
    }
    result.reached = proxy.reached_gateway(context);
    let status = flow.gateway.filter(|_| result.reached && !proxy.stream(context).reset);
    if let Some(status) = status {
        proxy.response_headers(context, status, 0);
    }
    let reply = proxy.stream(context).reply.clone();
    result.replied = reply.is_some();
    let shown = status.or_else(|| reply.and_then(|reply| u16::try_from(reply.status).ok()));
    proxy.close(context, shown, if shown.is_none() { 1 << 14 } else { 0 });
    // Voids are tried again with pauses.
    for _ in 0..10 {
        calls.append(&mut proxy.new_calls());
        let own = calls.iter().flat_map(asked_in).filter(is_own(flow));
        for asked in own.filter(|asked| asked["action"] == "void") {
            assert_eq!(Some(&asked["attempt"]), result.asked.as_ref());
            result.voided = true;
        }
        answer_all(&mut proxy, flow, &mut calls);
        // The proxy ends those that hang when their time is over.
        for call in calls.drain(..) {
            proxy.answer(call.token, &Answer::Failed(4));
        }
        proxy.tick();
    }
    // Of a question that the server wants alone it knows nothing yet.
    let alone = |call: &GrpcCall| call.path.ends_with("/Check") && asked_in(call).iter().any(is_own(flow));
    let wanted_alone = flow.name.ends_with("to be asked alone");
    result.undecided = wanted_alone && !proxy.host().grpc_calls.iter().any(alone);
    for other in [first, companion].into_iter().flatten() {
        let ended = proxy.stream(other).reply.is_some() || proxy.stream(other).reset;
        result.others_decided.push(proxy.reached_gateway(other) || ended);
    }
    (result, proxy)
}

/// Another payment, which the server admits.
fn other(proxy: &mut Proxy) -> u32 {
    let context = proxy.open(HEAD_PAYMENT);
    proxy.headers(context, true);
    context
}

fn asked_in(call: &GrpcCall) -> Vec<BTreeMap<String, String>> {
    if call.path.ends_with("BatchCheck") { questions(call) } else { vec![question(call)] }
}

/// What is asked of the flow's own payment, and not of the others.
fn is_own(flow: &Flow) -> impl Fn(&BTreeMap<String, String>) -> bool {
    let own = if flow.headers == HEAD_PAYMENT { "o-2" } else { "o-1" };
    move |asked| asked["order_no"] == own
}

/// Answers all calls but those that are to hang, which stay.
fn answer_all(proxy: &mut Proxy, flow: &Flow, calls: &mut Vec<GrpcCall>) {
    let own = is_own(flow);
    for call in std::mem::take(calls) {
        let answers = asked_in(&call).into_iter().map(|asked| match asked["action"].as_str() {
            "void" => Some(passes("VOIDED")),
            _ if own(&asked) => flow.answer.clone(),
            _ => Some(passes("ADMITTED")),
        });
        let Some(answers) = answers.collect::<Option<Vec<_>>>() else {
            calls.push(call);
            continue;
        };
        let answer = if let [one] = &answers[..] { one.clone() } else { batch(&answers) };
        proxy.answer(call.token, &answer);
    }
}

#[test]
fn each_host_call_fails_in_turn() {
    let mut runs = 0;
    for flow in flows() {
        let (whole, proxy) = play(&flow, None, false);
        assert!(whole.configured);
        let calls = proxy.host().calls.clone();
        for (at, failing) in calls.iter().enumerate() {
            for status in STATUSES {
                let (result, proxy) = play(&flow, Some((at, status)), false);
                let what =
                    format!("{}: {failing} ({at}) with {status}: {result:?}\n{:#?}", flow.name, proxy.host().calls);
                let traps = traps(&calls, at, status);
                match &proxy.trapped {
                    Some(call) => assert!(call == failing && traps, "a trap: {what}"),
                    None => assert!(!traps, "no trap: {what}"),
                }
                judge(&flow, &result, proxy.trapped.is_some(), &what);
                runs += 1;
            }
        }
    }
    assert!(runs > 1000, "{runs}");
}

#[test]
fn a_host_that_stays_broken_is_survived() {
    for flow in flows() {
        let (_, proxy) = play(&flow, None, false);
        for at in 0..proxy.host().calls.len() {
            for status in [1, 10, 250] {
                let (result, proxy) = play(&flow, Some((at, status)), true);
                let trapped =
                    proxy.trapped.is_none_or(|call| call == format!("effective {ROOT}") || call.starts_with("grpc "));
                assert!(trapped, "{} {at} {status}: a trap", flow.name);
                assert!(!result.reached || admits(&flow), "{} {at} {status}: {result:?}", flow.name);
            }
        }
    }
}

fn admits(flow: &Flow) -> bool {
    let admitting = [passes("ADMITTED"), delays(300), delays(30_000)];
    matches!(&flow.answer, Some(Answer::Bytes(bytes)) if admitting.iter().any(|own| is_bytes(own, bytes)))
}

fn judge(flow: &Flow, result: &Result, trapped: bool, what: &str) {
    if !result.configured {
        return;
    }
    let admits = admits(flow);
    if result.reached {
        assert!(admits && result.asked.is_some(), "a payment got past: {what}");
        assert!(!result.forged, "a forged trailer got past: {what}");
    }
    if trapped {
        return;
    }
    // What the server may have consumed is kept only for a payment that may have been made.
    let refused_by_server =
        flow.answer.as_ref().is_some_and(|answer| !admits && matches!(answer, Answer::Bytes(b) if b.len() > 9));
    let consumed = result.asked.is_some() && !refused_by_server && !result.undecided;
    let may_be_made = result.reached && flow.gateway.is_none_or(|status| status < 400);
    let hung = result.others_decided.iter().any(|decided| !decided);
    assert!(!hung, "another payment hangs: {what}");
    if consumed && !may_be_made && !may_miss(result, what) {
        assert!(result.voided, "a charge is left behind: {what}");
    }
}

/// A gateway's failure is unknown where the proxy does not hand out its status: then the charge is kept on purpose.
fn may_miss(result: &Result, what: &str) -> bool {
    result.reached
        && ["header 2", "property response", "property upstream"]
            .iter()
            .any(|call| what.lines().next().is_some_and(|line| line.contains(call)))
}

fn is_bytes(answer: &Answer, bytes: &[u8]) -> bool {
    matches!(answer, Answer::Bytes(own) if own == bytes)
}

#[test]
fn a_request_that_can_neither_go_on_nor_be_answered_is_reset() {
    let flow = flows().into_iter().find(|flow| flow.name == "no answer").unwrap();
    let (_, proxy) = play(&flow, None, false);
    let respond = proxy.host().calls.iter().position(|call| call == "respond 503").unwrap();
    let (result, mut proxy) = play(&flow, Some((respond, 10)), false);
    assert!(!result.reached && !result.replied && result.voided);
    assert!(proxy.stream(super::host::ROOT + 1).reset);
}

#[test]
fn without_randomness_or_a_timer_nothing_starts() {
    for call in ["random", "tick_period 250", "buffer 7"] {
        let flow = flows().remove(0);
        let (_, proxy) = play(&flow, None, false);
        let at = proxy.host().calls.iter().position(|own| own == call).unwrap();
        let (result, proxy) = play(&flow, Some((at, 10)), false);
        assert!(!result.configured, "{call}");
        assert!(proxy.host().logs.last().unwrap().contains("is refused"), "{call}: {:?}", proxy.host().logs);
    }
}
