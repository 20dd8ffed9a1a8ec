//! Envoy's processor time for a payment, measured in short slices: the variants take turns every 100 ms, so that what the machine
//! does meanwhile is the same for all of them. Rounds of seconds spread over 20 points on a shared machine, pairs of slices over two.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::Serialize;

use super::client::Session;
use super::figures::Spread;
use super::merchants::LOAD;
use super::plan::{Payers, Plan, Stop, Tally};
use super::rig::{Rig, Way};
use super::variant::Variant;
use testkit::process::Service as _;
use testkit::procfs;
use testkit::{Failure, Result};

/// Length of a slice.
const SLICE: Duration = Duration::from_millis(100);
/// Slices of each variant at most: pairs agree long before.
const SLICES_MAX: usize = 150;
/// Slices of each variant that are not measured.
const WARM_UP: usize = 5;
/// The beginning of the name of Envoy's worker threads.
const WORKER: &str = "wrk:worker";

/// What Envoy spends on a payment of each variant.
#[derive(Clone, Debug, Serialize)]
pub struct Slices {
    /// Slices of each variant.
    pub count: usize,
    /// Microseconds of Envoy for a payment.
    pub envoy_us: BTreeMap<&'static str, Spread>,
    /// The same in relation to the parsing filter in the wasm host, slice by slice.
    pub to_parse_only: BTreeMap<&'static str, Spread>,
    /// Sluice in the native host in relation to Sluice in the wasm host, slice by slice.
    pub native_host_to_wasm_host: Spread,
    pub requests: u64,
    pub wrong: u64,
}

/// What the slices of one way of paying gave.
struct Turns {
    /// Payments a second, slice by slice.
    rps: Vec<f64>,
    /// Microseconds of Envoy for a payment, slice by slice.
    us: Vec<f64>,
    /// Of all slices, unmeasured ones too.
    tally: Tally,
}

/// Measures the variants at full load in turn.
pub(super) async fn run(rig: &mut Rig, variants: &[Variant]) -> Result<Slices> {
    let measured = rig.options.duration.as_millis() * rig.options.rounds as u128 / SLICE.as_millis();
    let count = usize::try_from(measured).unwrap_or(SLICES_MAX).clamp(1, SLICES_MAX);
    let mut plans = Vec::with_capacity(variants.len());
    for variant in variants {
        let way = Way::from(*variant);
        let payers = Payers { count: rig.options.merchants, ..LOAD };
        plans.push((way, rig.plan(way, Stop::After(SLICE), payers)?));
    }
    let turns = in_turn(rig, &plans, count).await?;
    let named = || variants.iter().map(|variant| variant.name()).zip(&turns);
    let us = |wanted: Variant| {
        let turn = variants.iter().zip(&turns).find(|(variant, _)| **variant == wanted);
        turn.map_or(&[] as &[f64], |(_, turn)| &turn.us)
    };
    let parse_only = us(Variant::ParseOnly);
    let slices = Slices {
        count,
        envoy_us: named().map(|(name, turn)| (name, Spread::of(turn.us.iter().copied()))).collect(),
        to_parse_only: named().map(|(name, turn)| (name, ratios(&turn.us, parse_only))).collect(),
        native_host_to_wasm_host: ratios(us(Variant::SluiceNativeHost), us(Variant::Sluice)),
        requests: turns.iter().map(|turn| turn.tally.requests).sum(),
        wrong: turns.iter().map(|turn| turn.tally.wrong).sum(),
    };
    for (name, us) in &slices.envoy_us {
        let to_parse_only = slices.to_parse_only.get(name).copied().unwrap_or_default();
        eprintln!("slices  {name:<24} {us} us of Envoy for a payment, {to_parse_only} of parse-only");
    }
    Ok(slices)
}

/// Throughputs in relation to the first one's, slice by slice: of payments that go the same way, for different merchants.
pub(super) async fn throughputs(rig: &mut Rig, payers: &[Payers]) -> Result<Vec<Spread>> {
    let way = Way::from(Variant::Sluice);
    let plans: Result<Vec<_>> =
        payers.iter().map(|payers| Ok((way, rig.plan(way, Stop::After(SLICE), *payers)?))).collect();
    let turns = in_turn(rig, &plans?, SLICES_MAX).await?;
    let wrong: u64 = turns.iter().map(|turn| turn.tally.wrong).sum();
    if wrong > 0 {
        return Err(Failure::new(format!("{wrong} answers are wrong")));
    }
    let first = turns.first().map_or(&[] as &[f64], |turn| &turn.rps);
    Ok(turns.iter().map(|turn| ratios(&turn.rps, first)).collect())
}

/// Runs the plans in turn, and books what they charged.
async fn in_turn(rig: &mut Rig, plans: &[(Way, Plan)], count: usize) -> Result<Vec<Turns>> {
    let mut ways = Vec::with_capacity(plans.len());
    for (way, plan) in plans {
        let envoy = i32::try_from(rig.envoy(*way)?.process().pid())?;
        let envoy = Pid::from_raw(envoy).ok_or_else(|| Failure::new("Envoy has no process id"))?;
        ways.push((*plan, envoy));
    }
    let thread = std::thread::Builder::new().name("generator".to_owned());
    let (done, turns) = tokio::sync::oneshot::channel();
    thread.spawn(move || {
        let _ = done.send(take_turns(ways, count));
    })?;
    let turns = turns.await.map_err(|_| Failure::new("the generator's thread died"))??;
    for (_, turn) in plans.iter().zip(&turns).filter(|((way, _), _)| way.variant.charges()) {
        rig.enter(&turn.tally).await?;
    }
    Ok(turns)
}

fn ratios(own: &[f64], other: &[f64]) -> Spread {
    Spread::of(own.iter().zip(other).map(|(own, other)| own / other))
}

fn take_turns(ways: Vec<(Plan, Pid)>, count: usize) -> Result<Vec<Turns>> {
    let mut sessions = Vec::with_capacity(ways.len());
    for (plan, envoy) in ways {
        let turns = Turns { rps: Vec::with_capacity(count), us: Vec::with_capacity(count), tally: Tally::empty(plan)? };
        sessions.push((Session::open(plan)?, envoy, turns));
    }
    let processors = std::thread::available_parallelism()?.get();
    for (_, envoy, _) in &sessions {
        run_on(*envoy, processors - 1..processors)?;
    }
    for round in 0..WARM_UP + count {
        for turn in 0..sessions.len() {
            let place = (round + turn) % sessions.len();
            let Some((session, envoy, turns)) = sessions.get_mut(place) else { continue };
            let before = procfs::run_time(*envoy)?;
            let tally = session.run()?;
            let spent = procfs::run_time(*envoy)?.saturating_sub(before);
            if round >= WARM_UP {
                turns.rps.push(tally.requests as f64 / tally.elapsed.as_secs_f64());
                turns.us.push(spent.as_secs_f64() * 1e6 / tally.requests.max(1) as f64);
            }
            turns.tally.absorb(&tally);
        }
    }
    for (_, envoy, _) in &sessions {
        run_on(*envoy, 0..processors)?;
    }
    Ok(sessions.into_iter().map(|(_, _, turns)| turns).collect())
}

/// Keeps Envoy's workers on these processors: on one, no slice pays for a move.
fn run_on(envoy: Pid, processors: Range<usize>) -> Result<()> {
    let mut set = CpuSet::new();
    processors.for_each(|processor| set.set(processor));
    for thread in procfs::threads(envoy).into_iter().filter(|thread| thread.name.starts_with(WORKER)) {
        sched_setaffinity(Some(thread.id), &set)?;
    }
    Ok(())
}
