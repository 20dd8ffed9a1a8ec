//! The load rig: the same payments through Envoy alone, through a filter that only parses, through Envoy's own ext_authz
//! with a server that always allows, and through the whole of Sluice, in turn within one run.

mod allow;
mod client;
mod report;
mod rig;
mod verify;

use std::path::PathBuf;
use std::time::Duration;

pub use allow::serve_always_allow;
pub use report::{Growth, Memory, Report, Spread, Summary};
pub use rig::Variant;

use crate::failure::{Failure, Result};
use client::Plan;
use rig::{Rig, Sample};

/// What to run and for how long.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Rounds of the comparison; each measures every variant once.
    pub rounds: usize,
    /// Length of one measurement.
    pub duration: Duration,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// Merchants that the comparison's payments are spread over.
    pub merchants: u32,
    /// Numbers of merchants for the growth table.
    pub growth: Vec<u32>,
    /// The optimised server, as in every figure worth reading.
    pub release: bool,
    /// This program: it is started again as the gateway and as the server that always allows.
    pub program: PathBuf,
}

/// Runs everything and tells what it measured; progress goes to standard error.
///
/// # Errors
/// When a part does not start or an answer does not come. Wrong answers are no error here: see [`Report::is_clean`].
pub fn run(options: &LoadOptions) -> Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(run_async(options))
}

async fn run_async(options: &LoadOptions) -> Result<Report> {
    let mut rig = Rig::start(options).await?;
    let mut report = Report::begin(options);
    for round in 0..options.rounds {
        // Rotated, so that no variant always follows the same one.
        for turn in 0..Variant::ALL.len() {
            let variant = Variant::ALL[(round + turn) % Variant::ALL.len()];
            let sample = measure(&mut rig, options, variant, options.merchants).await?;
            eprintln!("round {}/{}  {:<13} {}", round + 1, options.rounds, variant.name(), sample.line());
            report.add(variant, sample);
        }
    }
    for round in 0..options.rounds.min(GROWTH_ROUNDS) {
        for merchants in &options.growth {
            let sample = measure(&mut rig, options, Variant::Sluice, *merchants).await?;
            eprintln!("growth {}  {merchants:>7} merchants {}", round + 1, sample.line());
            report.add_growth(*merchants, sample);
        }
    }
    report.memory = rig.memory().await?;
    let (over_admissions, wrong) = race(&mut rig, options).await?;
    report.raced(over_admissions, wrong);
    report.verified(verify::compare(&rig).await?);
    Ok(report)
}

/// Growth is measured in fewer rounds than the comparison.
const GROWTH_ROUNDS: usize = 3;
/// Each measurement is led in by this much unmeasured load.
const WARM_UP: Duration = Duration::from_millis(500);

async fn measure(rig: &mut Rig, options: &LoadOptions, variant: Variant, merchants: u32) -> Result<Sample> {
    let plan = |rig: &mut Rig, duration| Plan {
        address: rig.address(variant),
        connections: options.connections,
        duration,
        merchants,
        round: rig.next_round(),
    };
    let warm_up = plan(rig, WARM_UP);
    let warm_up = client::run(warm_up).await?;
    rig.settle(variant, &warm_up).await?;
    let before = rig.cpu()?;
    let measured = plan(rig, options.duration);
    let tally = client::run(measured).await?;
    // What is still on its way to Postgres belongs to these payments too.
    rig.settle(variant, &tally).await?;
    let cpu = rig.cpu()?;
    Ok(Sample::new(variant, &tally, &warm_up, before, cpu))
}

/// Payments of the race that its merchant has room for.
const RACE_ROOM: u64 = 300;
/// The race takes this long at least, so that a slow machine gets to its limit.
const RACE_MIN: Duration = Duration::from_secs(3);

/// Every connection charges one merchant whose yearly count is limited: what is admitted past it is an over-admission.
/// Gives over-admissions and wrong answers.
async fn race(rig: &mut Rig, options: &LoadOptions) -> Result<(u64, u64)> {
    let plan = Plan {
        address: rig.address(Variant::Sluice),
        connections: options.connections,
        duration: options.duration.max(RACE_MIN),
        merchants: 0,
        round: rig.next_round(),
    };
    let tally = client::run(plan).await?;
    rig.settle(Variant::Sluice, &tally).await?;
    if tally.admitted < RACE_ROOM {
        return Err(Failure::new(format!("the race ended after {} of {RACE_ROOM} payments", tally.admitted)));
    }
    Ok((tally.admitted - RACE_ROOM, tally.wrong))
}

/// The name of a merchant of the rig.
fn merchant(number: u32) -> String {
    format!("load-{number:06}")
}

/// The merchant of the race.
const RACE_MERCHANT: &str = "race";
