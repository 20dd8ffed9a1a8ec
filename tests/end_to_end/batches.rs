//! Questions that wait for each other, at the moments that count: while the server holds the call before them, while it hangs,
//! while their clients leave, and while the filter's VM dies. What happens by chance among thousands is brought about here.

use std::time::{Duration, Instant};

use bench::traffic::{Lanes, Mix, Rig, RigOptions};
use proto::header;
use serde_yaml_ng::Value;
use testkit::client::{Call, Protocol, send_once};
use testkit::envoy::EnvoyConfig;
use testkit::{Context, Failure, Result, Service, build};
use tokio::task::JoinSet;

use crate::suite::Suite;

/// As many requests at a time as make full batches one behind the other.
const MANY: u32 = 200;
/// One HTTP/2 connection, or HTTP/1.1 connections.
const LANES: [(Protocol, Lanes); 2] = [
    (Protocol::Http1, Lanes { http1: MANY as usize, http2: 0, streams: 0 }),
    (Protocol::Http2, Lanes { http1: 0, http2: 1, streams: MANY as usize }),
];
/// The shipped deadline of a question.
const DEADLINE: Duration = Duration::from_millis(500);
/// A busy machine's share; two deadlines one behind the other would show all the same.
const SLACK: Duration = Duration::from_millis(450);
/// The header that traps the module which is made for it.
const TRAP: &str = "x-trap";
/// Envoy ends the streams that a dead VM held when nothing has come of them for so long (`stream_idle_timeout`), and not before.
const IDLE: &str = "2s";
/// A busy machine's.
const ENDED_WITHIN: Duration = Duration::from_secs(10);

pub(crate) fn add(suite: &mut Suite) {
    suite.alone("batches::refused_together_through_a_long_chain", refused_together);
    suite.alone("batches::clients_leave_while_their_questions_wait", clients_leave);
    suite.alone("batches::a_hung_server_costs_each_payment_its_own_deadline", a_hung_server);
    suite.alone("batches::every_second_call_is_lost", every_second_call);
    suite.alone("batches::a_vm_that_dies_with_questions_under_way", a_vm_that_dies);
}

fn options(mix: Mix, orders: u64) -> RigOptions {
    RigOptions::patient(11, mix, orders)
}

/// Full batches of refusals, each answered in one callback of the filter, through two dozen filters of Envoy's own.
async fn refused_together() -> Result<()> {
    let orders = u64::from(MANY);
    let mut rig = Rig::start(RigOptions { change: Some(long_chain), ..options(Mix::REFUSED, 2 * orders) })?;
    for (protocol, lanes) in LANES {
        rig.hold(true);
        let release = async {
            rig.held(MANY).await?;
            rig.hold(false);
            Ok(())
        };
        rig.send(lanes, orders, release).await.context(format!("{protocol:?}"))?;
    }
    let tally = rig.judge().await?;
    ensure!(tally.batches.get(&32).is_some_and(|full| *full >= 2), "no full batches: {:?}", tally.batches);
    ensure!(tally.refused > orders, "{}", tally.line());
    Ok(())
}

fn idle(config: &mut EnvoyConfig) -> Result<()> {
    manager(config)["stream_idle_timeout"] = IDLE.into();
    Ok(())
}

/// Envoy closes a connection with 250 early resets of its first 500 streams, as a guard against rapid resets.
fn unguarded(config: &mut EnvoyConfig) -> Result<()> {
    let layer = "layers: [{name: unguarded, static_layer: {overload.premature_reset_total_stream_count: 1000000}}]";
    config.bootstrap()["layered_runtime"] = serde_yaml_ng::from_str(layer)?;
    Ok(())
}

/// Lua, header mutations, compressors and more, before and behind the filter.
fn long_chain(config: &mut EnvoyConfig) -> Result<()> {
    const LUA: &str = "
        function envoy_on_request(handle) handle:headers():add('x-chain', 'request') end
        function envoy_on_response(handle) handle:headers():add('x-chain', 'response') end";
    let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.filters.http.{name}");
    let append = "{header: {key: x-chain, value: mutation}, append_action: APPEND_IF_EXISTS_OR_ADD}";
    let gzip = "compressor_library: {name: gzip, typed_config: {'@type': \
        type.googleapis.com/envoy.extensions.compression.gzip.compressor.v3.Gzip}}, \
        response_direction_config: {common_config: {min_content_length: 30, content_type: [application/problem+json]}}";
    let mut one_half = vec![
        format!("{{'@type': {}, max_request_bytes: 1048576}}", kind("buffer.v3.Buffer")),
        format!("{{'@type': {}}}", kind("cors.v3.Cors")),
        format!("{{'@type': {}, {gzip}}}", kind("compressor.v3.Compressor")),
    ];
    let mutation = kind("header_mutation.v3.HeaderMutation");
    for _ in 0..5 {
        let lua = serde_json::to_string(LUA)?;
        one_half.push(format!("{{'@type': {}, default_source_code: {{inline_string: {lua}}}}}", kind("lua.v3.Lua")));
        one_half.push(format!("{{'@type': {mutation}, mutations: {{response_mutations: [{{append: {append}}}]}}}}"));
    }
    let filters = http_filters(config)?;
    let own = filters.iter().position(|filter| filter["name"] == "sluice");
    let own = own.ok_or_else(|| Failure::new("the shipped configuration has no filter"))?;
    for (half, at) in [("behind", own + 1), ("before", own)] {
        for (number, typed_config) in one_half.iter().enumerate() {
            let filter = format!("{{name: {half}-{number}, typed_config: {typed_config}}}");
            filters.insert(at, serde_yaml_ng::from_str(&filter).context(filter)?);
        }
    }
    Ok(())
}

fn http_filters(config: &mut EnvoyConfig) -> Result<&mut Vec<Value>> {
    manager(config)["http_filters"]
        .as_sequence_mut()
        .ok_or_else(|| Failure::new("the shipped configuration has no filters"))
}

fn manager(config: &mut EnvoyConfig) -> &mut Value {
    let listener = &mut config.bootstrap()["static_resources"]["listeners"][0];
    &mut listener["filter_chains"][0]["filters"][0]["typed_config"]
}

/// Clients that are gone before their questions were sent are never asked about, and nothing is taken back for them; those
/// whose questions are under way are taken back once.
async fn clients_leave() -> Result<()> {
    let orders = 2 * u64::from(MANY);
    let mix = Mix { left: 100, ..Mix::CALM };
    let mut rig = Rig::start(RigOptions { change: Some(unguarded), ..options(mix, 2 * orders) })?;
    for (protocol, lanes) in LANES {
        rig.hold(true);
        let release = async {
            rig.left().await?;
            rig.hold(false);
            Ok(())
        };
        rig.send(lanes, orders, release).await.context(format!("{protocol:?}"))?;
    }
    let tally = rig.judge().await?;
    ensure!(tally.unasked > orders, "only {} of {} were not asked about", tally.unasked, tally.requests);
    ensure_eq!(tally.voided_unasked, 0, "taken back without having been asked about");
    ensure!(tally.voided > 0, "no question was under way");
    Ok(())
}

/// Every payment waits for its own deadline and no longer, however many wait with it and however many calls hang; the first
/// payments after the server has come back are decided.
async fn a_hung_server() -> Result<()> {
    let orders = u64::from(MANY);
    let calm = Mix { refused: 0, failing: 0, ..Mix::CALM };
    let mut rig = Rig::start(RigOptions { prompt: true, ..options(calm, 4 * orders) })?;
    let (_, lanes) = LANES[1];
    rig.hold(true);
    let since = Instant::now();
    // Three rounds, one behind the other.
    rig.send(lanes, 3 * orders, async { Ok(()) }).await?;
    let hung_for = since.elapsed();
    rig.hold(false);
    rig.send(lanes, orders, async { Ok(()) }).await?;
    let tally = rig.judge().await?;
    println!("{orders} clients paid three times while the server hung, in {hung_for:?}; {}", tally.line());
    ensure!(tally.longest < DEADLINE + SLACK, "a payment waited {:?}", tally.longest);
    ensure!(hung_for < 3 * (DEADLINE + SLACK), "three deadlines took {hung_for:?}");
    ensure!(tally.passed >= orders * 9 / 10, "the server came back, and {}", tally.line());
    Ok(())
}

/// One of two servers hangs: what is lost costs its own payments their deadlines, and none waits in vain for its turn.
async fn every_second_call() -> Result<()> {
    let orders = 5 * u64::from(MANY);
    let calm = Mix { refused: 0, failing: 0, ..Mix::CALM };
    // Small batches: many calls are lost at a time.
    let mut rig = Rig::start(RigOptions { prompt: true, batch_max: Some(8), ..options(calm, orders) })?;
    let (_, lanes) = LANES[1];
    rig.lose_half(true);
    rig.send(lanes, orders, async { Ok(()) }).await?;
    rig.lose_half(false);
    let tally = rig.judge().await?;
    println!("{}; {} never asked about", tally.line(), tally.unasked);
    ensure!(tally.longest < DEADLINE + SLACK, "a payment waited {:?}", tally.longest);
    ensure!(tally.unasked * 20 <= orders, "{} were never asked about: {}", tally.unasked, tally.line());
    ensure!(tally.passed >= orders / 4 && tally.unanswered > 0, "{}", tally.line());
    Ok(())
}

/// A trap in the filter ends its VM: the payments that it holds end with the stream's idle time, none goes to the gateway, Envoy
/// lives, and the next payments are decided by a fresh VM.
async fn a_vm_that_dies() -> Result<()> {
    const HELD: u32 = 60;
    // The header that traps means nothing to the module that is shipped.
    let shipped = std::fs::read(build::filter_wasm()?)?;
    ensure!(!shipped.windows(TRAP.len()).any(|text| text == TRAP.as_bytes()), "the shipped module can be trapped");
    let mut rig =
        Rig::start(RigOptions { traps: true, change: Some(idle), ..options(Mix { failing: 0, ..Mix::CALM }, 1_000) })?;
    let (address, pid) = (rig.envoy.address(), rig.envoy.pid());
    for round in 0..3 {
        let from = round * 2 * u64::from(HELD);
        rig.hold(true);
        let mut held = JoinSet::new();
        for number in from..from + u64::from(HELD) {
            let protocol = Protocol::BOTH[usize::try_from(number)? % 2];
            let call = rig.call(number);
            held.spawn(async move { (number, send_once(address, protocol, call).await) });
        }
        rig.held(HELD).await?;
        let trap = send_once(address, Protocol::Http1, Call::new("GET", "/").header(TRAP, "now")).await;
        ensure!(trap.as_ref().map_or(true, |answer| answer.status >= 500), "the trap was answered {trap:?}");
        let since = Instant::now();
        while let Some(ended) = held.join_next().await {
            let (number, answer) = ended?;
            ensure!(since.elapsed() < ENDED_WITHIN, "order {number} ended after {:?}", since.elapsed());
            let refused = |status: u16| matches!(status, 408 | 503 | 504);
            ensure!(answer.as_ref().map_or(true, |answer| refused(answer.status)), "order {number}: {answer:?}");
            ensure_eq!(rig.at_gateway(number), 0, "order {number} at the gateway");
        }
        rig.hold(false);
        ensure_eq!(rig.envoy.pid(), pid, "Envoy's process");
        rig.envoy.process().check_running()?;
        for number in from + u64::from(HELD)..from + 2 * u64::from(HELD) {
            let protocol = Protocol::BOTH[usize::try_from(number)? % 2];
            let answer = send_once(address, protocol, rig.call(number)).await?;
            let refused = answer.header(header::CODE).is_some();
            let decided = answer.status != 503 && refused == (rig.at_gateway(number) == 0);
            ensure!(decided, "order {number} after the reload: {answer:?}");
        }
    }
    Ok(())
}
