//! A race for a known limit: every connection charges one merchant whose yearly count is limited. What is admitted past it is
//! an over-admission.

use std::time::Duration;

use serde::Serialize;

use super::merchants::{RACE, RACE_NATIVE_HOST, RACE_ROOM, RACE_TRUSTED, RACE_TRUSTED_NATIVE_HOST, RACE_UNBATCHED};
use super::plan::{Expect, Payers, Plan, Stop, Tally};
use super::rig::{Rig, Way};
use super::variant::Variant;
use testkit::{Failure, Result};

/// A race takes this long at least, so that a slow machine gets to its limit.
pub(super) const RACE_MIN: Duration = Duration::from_secs(3);
/// Envoy's workers in a race with rights: in the wasm host each of them has its own.
const TRUSTED_WORKERS: u32 = 2;
/// A race with rights goes on at most so many times after rights were returned. Near the limit none are granted, so one is enough
/// for the most part.
const GO_ON_MAX: usize = 20;

/// What came of a race.
#[derive(Clone, Debug, Serialize)]
pub struct Race {
    pub who: String,
    /// Payments that the limit has room for.
    pub room: u64,
    pub requests: u64,
    pub admitted: u64,
    /// Of these, payments that were admitted from rights, where the rule is trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted: Option<u64>,
    /// Admitted past the limit.
    pub over_admissions: u64,
    /// Answers that neither admit nor refuse as they should.
    pub wrong: u64,
}

impl Race {
    pub(super) fn of(who: &str, tally: &Tally) -> Result<Self> {
        if tally.admitted < RACE_ROOM {
            let Tally { requests, admitted, wrong, .. } = tally;
            return Err(Failure::new(format!(
                "{who}'s race ended after {admitted} of {RACE_ROOM} payments; of {requests} answers {wrong} were wrong"
            )));
        }
        Ok(Self {
            who: who.to_owned(),
            room: RACE_ROOM,
            requests: tally.requests,
            admitted: tally.admitted,
            trusted: None,
            over_admissions: tally.admitted - RACE_ROOM,
            wrong: tally.wrong,
        })
    }
}

/// Sluice's races: in both hosts, without batches, and from rights in both hosts.
pub(super) async fn run_all(rig: &mut Rig) -> Result<Vec<Race>> {
    Ok(vec![
        run(rig, Variant::Sluice, RACE).await?,
        run(rig, Variant::SluiceNativeHost, RACE_NATIVE_HOST).await?,
        run(rig, Variant::Unbatched, RACE_UNBATCHED).await?,
        run(rig, Variant::Trusted, RACE_TRUSTED).await?,
        run(rig, Variant::TrustedNativeHost, RACE_TRUSTED_NATIVE_HOST).await?,
    ])
}

/// While a worker holds a right that it does not use, others are refused although there is room. Each stretch ends when all rights
/// are returned; then the race goes on until the room is used up.
async fn run(rig: &mut Rig, variant: Variant, payers: Payers) -> Result<Race> {
    let way = Way { variant, workers: if variant.trusts() { TRUSTED_WORKERS } else { 1 } };
    let trusted = rig.trusted(way)?;
    let mut tally = stretch(rig, way, Stop::After(rig.options.duration.max(RACE_MIN)), payers).await?;
    let rest = Stop::Payments { each: RACE_ROOM.div_ceil(rig.options.connections as u64) };
    for _ in 0..GO_ON_MAX {
        if tally.admitted >= RACE_ROOM || !variant.trusts() {
            break;
        }
        tally.absorb(&stretch(rig, way, rest, payers).await?);
    }
    let trusted = trusted.zip(rig.trusted(way)?).map(|(before, after)| (after - before) as u64);
    Ok(Race { trusted, ..Race::of(variant.name(), &tally)? })
}

async fn stretch(rig: &mut Rig, way: Way, stop: Stop, payers: Payers) -> Result<Tally> {
    let plan = rig.plan(way, stop, payers)?;
    rig.run(way, Plan { expect: Expect::Race { statuses: &[429] }, ..plan }).await
}
