//! A race for a known limit: every connection charges one merchant whose yearly count is limited. What is admitted past it is
//! an over-admission.

use std::time::Duration;

use serde::Serialize;

use super::merchants::{RACE, RACE_NATIVE_HOST, RACE_ROOM, RACE_UNBATCHED};
use super::plan::{Expect, Payers, Plan, Stop, Tally};
use super::rig::Rig;
use super::variant::Variant;
use testkit::{Failure, Result};

/// A race takes this long at least, so that a slow machine gets to its limit.
pub(super) const RACE_MIN: Duration = Duration::from_secs(3);

/// What came of a race.
#[derive(Clone, Debug, Serialize)]
pub struct Race {
    pub who: String,
    /// Payments that the limit has room for.
    pub room: u64,
    pub requests: u64,
    pub admitted: u64,
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
            over_admissions: tally.admitted - RACE_ROOM,
            wrong: tally.wrong,
        })
    }
}

/// Sluice's races: in both hosts, and without batches.
pub(super) async fn run_all(rig: &mut Rig) -> Result<Vec<Race>> {
    Ok(vec![
        run(rig, Variant::Sluice, RACE).await?,
        run(rig, Variant::SluiceNativeHost, RACE_NATIVE_HOST).await?,
        run(rig, Variant::Unbatched, RACE_UNBATCHED).await?,
    ])
}

async fn run(rig: &mut Rig, variant: Variant, payers: Payers) -> Result<Race> {
    let duration = rig.options.duration.max(RACE_MIN);
    let plan = rig.plan(variant.into(), Stop::After(duration), payers)?;
    let plan = Plan { expect: Expect::Race { statuses: &[429] }, ..plan };
    let tally = rig.run(variant.into(), plan).await?;
    Race::of(variant.name(), &tally)
}
