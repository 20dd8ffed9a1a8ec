//! How cost grows: one axis at a time, Sluice beside the parsing filter at each point, in turn.

use clap::ValueEnum;
use serde::Serialize;

use super::LoadOptions;
use super::figures::{Figures, Sample, Spread, ratio};
use super::lines;
use super::merchants::{CREDIT, DENIED, DENIED_ANSWER, LIMITS, LOAD, WATCHED, WATCHED_FROM};
use super::plan::{Payers, Plan, Stop};
use super::rig::{Rig, Way};
use super::slices;
use super::stored;
use super::variant::Variant;
use testkit::{Failure, Result};

/// What is varied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// 100 to 1,000,000 merchants that exist.
    Merchants,
    /// 1 to 10 limits in a policy.
    Limits,
    /// One hot merchant to a thousand.
    Hot,
    /// All payments refused.
    Denials,
    /// Accounts that have reached a threshold.
    Thresholds,
    /// Accounts with one limit, with another one, and with a credit line beside the one.
    Credit,
    /// Each order sent sixteen times.
    Replays,
    /// Bodies of 1 KB to 256 KB.
    Bodies,
    /// 1 to 1,000 connections.
    Connections,
    /// One and two Envoy workers.
    Workers,
}

impl Axis {
    /// All of them, in the order of the report.
    pub const ALL: [Self; 10] = [
        Self::Merchants,
        Self::Limits,
        Self::Hot,
        Self::Denials,
        Self::Thresholds,
        Self::Credit,
        Self::Replays,
        Self::Bodies,
        Self::Connections,
        Self::Workers,
    ];

    /// The points along the axis, by what they are called there.
    fn points(self, options: &LoadOptions) -> Vec<(u64, &'static str)> {
        let up_to = |most: u64, points: &[u64]| points.iter().filter(|at| **at <= most).map(|at| (*at, "")).collect();
        let plain = |points| up_to(u64::MAX, points);
        match self {
            Self::Merchants => up_to(options.merchants_max.into(), &[100, 1_000, 10_000, 100_000, 1_000_000]),
            Self::Limits => (1..=LIMITS.len() as u64).map(|at| (at, "")).collect(),
            Self::Hot => plain(&[1, 2, 8, 32, 1_000]),
            Self::Denials => vec![(0, "all admitted"), (1, "all refused")],
            Self::Thresholds => vec![(0, "below all"), (1, "past one")],
            Self::Credit => vec![(0, "one limit"), (1, "two limits"), (2, "one limit and a credit line")],
            Self::Replays => vec![(1, "new orders"), (REPEATS, "each order 16 times")],
            Self::Bodies => plain(&[1_024, 4_096, 16_384, 65_536, 262_144]),
            Self::Connections => up_to(options.connections_max.into(), &[1, 4, 16, 32, 64, 128, 256, 512, 1_000]),
            Self::Workers => plain(&[1, 2]),
        }
    }

    /// A stretch at a point.
    fn stretch(self, rig: &mut Rig, variant: Variant, at: u64) -> Result<(Way, Plan)> {
        let workers = if self == Self::Workers { u32::try_from(at)? } else { 1 };
        let way = Way { variant, workers };
        let payers = self.payers(at, rig.options.merchants)?;
        let mut plan = rig.plan(way, Stop::After(rig.options.duration), payers)?;
        match self {
            Self::Merchants | Self::Limits | Self::Hot | Self::Thresholds | Self::Credit | Self::Workers => {}
            Self::Denials if at == 1 && variant.charges() => plan.expect = DENIED_ANSWER,
            Self::Denials => {}
            Self::Replays => plan.repeats = at,
            Self::Bodies => plan.body_bytes = usize::try_from(at)?,
            Self::Connections => plan.connections = usize::try_from(at)?,
        }
        Ok((way, plan))
    }

    fn payers(self, at: u64, merchants: u32) -> Result<Payers> {
        Ok(match self {
            Self::Merchants | Self::Hot => Payers { count: u32::try_from(at)?, ..LOAD },
            Self::Limits => {
                let payers = LIMITS.get(usize::try_from(at)?.saturating_sub(1));
                *payers.ok_or_else(|| Failure::new(format!("no merchants have {at} limits")))?
            }
            Self::Credit if at == 2 => CREDIT,
            Self::Credit => LIMITS.get(usize::try_from(at)?).copied().unwrap_or(LOAD),
            Self::Denials if at == 1 => DENIED,
            Self::Thresholds if at == 1 => WATCHED,
            Self::Thresholds => Payers { count: WATCHED.count, ..LOAD },
            Self::Denials | Self::Replays | Self::Bodies | Self::Connections | Self::Workers => {
                Payers { count: merchants, ..LOAD }
            }
        })
    }
}

/// Times that an order is sent in the study of replays: fewer than the attempts that an order keeps by name.
const REPEATS: u64 = 16;

/// One point of an axis.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    pub at: u64,
    /// Where the point is no number.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: &'static str,
    pub sluice: Figures,
    pub parse_only: Figures,
    /// Throughput, Sluice to the parsing filter, round by round.
    pub ratio: Spread,
    /// Throughput, Sluice to Sluice at the first point, round by round.
    pub to_first: Spread,
    /// The same of the processor time for a payment, of all processes that serve it.
    pub cpu_to_first: Spread,
    pub wrong: u64,
    pub requests: u64,
}

/// All points of an axis.
#[derive(Clone, Debug, Serialize)]
pub struct Study {
    pub axis: Axis,
    pub points: Vec<Point>,
    /// Throughput of each point to the first one's in turns of 100 ms, where a point is only another kind of account.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub in_slices: Vec<Spread>,
}

impl Study {
    /// The smallest of the points' ratios to the largest: 1 where the cost does not grow at all.
    #[must_use]
    pub fn flatness(&self) -> f64 {
        let ratios = || self.points.iter().map(|point| point.ratio.median);
        ratios().fold(f64::INFINITY, f64::min) / ratios().fold(0.0, f64::max)
    }
}

/// Measures all points of an axis, in every round all of them in turn, so that a moment in which the machine is slower is not one
/// point's alone. Those of the merchants come one after the other: each needs its merchants to exist, and no others.
pub(super) async fn run(rig: &mut Rig, axis: Axis) -> Result<Study> {
    let points = axis.points(&rig.options);
    let groups = if axis == Axis::Merchants { points.chunks(1) } else { points.chunks(points.len().max(1)) };
    let mut measured = Vec::new();
    for group in groups {
        for (at, _) in group {
            prepare(rig, axis, *at).await?;
        }
        let mut samples: Vec<Samples> = group.iter().map(|_| Samples::default()).collect();
        for round in 0..rig.options.rounds {
            for turn in 0..group.len() {
                let place = (round + turn) % group.len();
                let (Some((at, name)), Some(samples)) = (group.get(place), samples.get_mut(place)) else { continue };
                samples.measure(rig, axis, *at, name, round).await?;
            }
        }
        measured.extend(group.iter().copied().zip(samples));
    }
    let first = measured.first().map(|(_, samples)| samples.sluice.clone()).unwrap_or_default();
    let in_slices = if axis == Axis::Credit {
        let payers =
            points.iter().map(|(at, _)| axis.payers(*at, rig.options.merchants)).collect::<Result<Vec<_>>>()?;
        slices::throughputs(rig, &payers).await?
    } else {
        Vec::new()
    };
    let points = measured.into_iter().map(|((at, name), samples)| samples.point(at, name, &first)).collect();
    Ok(Study { axis, points, in_slices })
}

/// What must be there before a point is measured.
async fn prepare(rig: &mut Rig, axis: Axis, at: u64) -> Result<()> {
    match (axis, at) {
        (Axis::Merchants, _) => stored::preload(rig, u32::try_from(at)?).await,
        (Axis::Denials, 1) => use_up(rig).await,
        (Axis::Thresholds, 1) => reach(rig).await,
        (Axis::Credit, 2) => lines::open(rig).await,
        _ => Ok(()),
    }
}

/// What was measured at a point, round by round.
#[derive(Default)]
struct Samples {
    sluice: Vec<Sample>,
    parse_only: Vec<Sample>,
}

impl Samples {
    async fn measure(&mut self, rig: &mut Rig, axis: Axis, at: u64, name: &str, round: usize) -> Result<()> {
        let mut order = [Variant::Sluice, Variant::ParseOnly];
        order.rotate_left(round % 2);
        for variant in order {
            let (way, plan) = axis.stretch(rig, variant, at)?;
            let sample = rig.measure(way, plan).await?;
            eprintln!("{axis:?} {at:>7} {name}  {:<11} {}", variant.name(), sample.line());
            if variant == Variant::Sluice { self.sluice.push(sample) } else { self.parse_only.push(sample) }
        }
        Ok(())
    }

    fn point(&self, at: u64, name: &'static str, first: &[Sample]) -> Point {
        let both = || self.sluice.iter().chain(&self.parse_only);
        Point {
            at,
            name,
            ratio: ratio(&self.sluice, &self.parse_only, |sample| sample.rps),
            to_first: ratio(&self.sluice, first, |sample| sample.rps),
            cpu_to_first: ratio(&self.sluice, first, Sample::serving_us),
            wrong: both().map(|sample: &Sample| sample.wrong).sum(),
            requests: both().map(|sample| sample.requests).sum(),
            sluice: Figures::of(&self.sluice),
            parse_only: Figures::of(&self.parse_only),
        }
    }
}

/// As many payments as take each merchant's usage to its threshold.
async fn reach(rig: &mut Rig) -> Result<()> {
    let way = Way::from(Variant::Sluice);
    let all = WATCHED_FROM * u64::from(WATCHED.count);
    let stop = Stop::Payments { each: all.div_ceil(rig.options.connections as u64) };
    let plan = rig.plan(way, stop, WATCHED)?;
    rig.run(way, plan).await.map(drop)
}

/// One payment of each merchant that is to be refused from then on; where a run does this twice, the second is refused.
async fn use_up(rig: &mut Rig) -> Result<()> {
    let way = Way::from(Variant::Sluice);
    let stop = Stop::Payments { each: u64::from(DENIED.count) };
    let plan = rig.plan(way, stop, DENIED)?;
    let tally = rig.run(way, Plan { connections: 1, ..plan }).await?;
    if tally.admitted == u64::from(DENIED.count) {
        Ok(())
    } else {
        Err(Failure::new(format!("{} of {} first payments were admitted", tally.admitted, DENIED.count)))
    }
}
