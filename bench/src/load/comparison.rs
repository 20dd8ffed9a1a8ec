//! The comparison that the targets are judged by: all variants at full load in rotated rounds, one connection with and without
//! batches, and half of Sluice's peak beside the parsing filter at the same rate.

use std::collections::BTreeMap;

use serde::Serialize;

use super::figures::{Figures, Sample, Spread, ratio};
use super::merchants::LOAD;
use super::plan::{Pace, Payers, Plan, Stop};
use super::rig::Rig;
use super::variant::Variant;
use testkit::Result;

/// Everything that the comparison measured.
#[derive(Clone, Debug)]
pub struct Comparison {
    full: BTreeMap<Variant, Vec<Sample>>,
    single: BTreeMap<Variant, Vec<Sample>>,
    half: BTreeMap<Variant, Vec<Sample>>,
    /// Payments a second of the half load.
    half_rate: f64,
}

const ONE_CONNECTION: [Variant; 2] = [Variant::Sluice, Variant::Unbatched];
const HALF_LOAD: [Variant; 2] = [Variant::ParseOnly, Variant::Sluice];

pub(super) async fn run(rig: &mut Rig) -> Result<Comparison> {
    let full = rounds(rig, "full load", &Variant::ALL, |_| {}).await?;
    let single = rounds(rig, "1 connection", &ONE_CONNECTION, |plan| plan.connections = 1).await?;
    let peak = Figures::of(Comparison::samples(&full, Variant::Sluice)).rps.median;
    let half_rate = peak / 2.0;
    let pace = Pace::Fixed { per_second: half_rate };
    let half = rounds(rig, "half load", &HALF_LOAD, |plan| plan.pace = pace).await?;
    Ok(Comparison { full, single, half, half_rate })
}

/// Measures each variant once a round, in rotated order, so that no variant always follows the same one.
async fn rounds(
    rig: &mut Rig,
    what: &str,
    variants: &[Variant],
    change: impl Fn(&mut Plan),
) -> Result<BTreeMap<Variant, Vec<Sample>>> {
    let rounds = rig.options.rounds;
    let mut samples: BTreeMap<Variant, Vec<Sample>> = BTreeMap::new();
    for round in 0..rounds {
        for turn in 0..variants.len() {
            let Some(variant) = variants.get((round + turn) % variants.len()).copied() else { continue };
            let payers = Payers { count: rig.options.merchants, ..LOAD };
            let mut plan = rig.plan(variant.into(), Stop::After(rig.options.duration), payers)?;
            change(&mut plan);
            let sample = rig.measure(variant.into(), plan).await?;
            eprintln!("{what:<13} {}/{rounds}  {:<17} {}", round + 1, variant.name(), sample.line());
            samples.entry(variant).or_default().push(sample);
        }
    }
    Ok(samples)
}

impl Comparison {
    fn samples(set: &BTreeMap<Variant, Vec<Sample>>, variant: Variant) -> &[Sample] {
        set.get(&variant).map_or(&[], Vec::as_slice)
    }

    /// One variant at full load.
    #[must_use]
    pub fn figures(&self, variant: Variant) -> Figures {
        Figures::of(Self::samples(&self.full, variant))
    }

    /// Sluice's throughput to another variant's, round by round.
    #[must_use]
    pub fn throughput_to(&self, other: Variant) -> Spread {
        ratio(Self::samples(&self.full, Variant::Sluice), Self::samples(&self.full, other), |sample| sample.rps)
    }

    /// The median latency at one connection, with batches to without.
    #[must_use]
    pub fn single_p50(&self) -> Spread {
        let of = |variant| Self::samples(&self.single, variant);
        ratio(of(Variant::Sluice), of(Variant::Unbatched), |sample| sample.p50_ms)
    }

    /// The 99th percentile at half of the peak load, Sluice to the parsing filter.
    #[must_use]
    pub fn half_p99(&self) -> Spread {
        let of = |variant| Self::samples(&self.half, variant);
        ratio(of(Variant::Sluice), of(Variant::ParseOnly), |sample| sample.p99_ms)
    }

    pub(super) fn wrong(&self) -> u64 {
        let sets = [&self.full, &self.single, &self.half];
        sets.into_iter().flat_map(BTreeMap::values).flatten().map(|sample| sample.wrong).sum()
    }

    pub(super) fn requests(&self) -> u64 {
        let sets = [&self.full, &self.single, &self.half];
        sets.into_iter().flat_map(BTreeMap::values).flatten().map(|sample| sample.requests).sum()
    }

    /// The stretches with their names, for reports.
    pub(super) fn stretches(&self) -> [(&'static str, BTreeMap<&'static str, Figures>); 3] {
        let by_name = |set: &BTreeMap<Variant, Vec<Sample>>| {
            set.iter().map(|(variant, samples)| (variant.name(), Figures::of(samples))).collect()
        };
        [
            ("full_load", by_name(&self.full)),
            ("one_connection", by_name(&self.single)),
            ("half_load", by_name(&self.half)),
        ]
    }

    pub(super) fn half_rate(&self) -> f64 {
        self.half_rate
    }
}

impl Serialize for Comparison {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        let stretches: BTreeMap<_, _> = self.stretches().into_iter().collect();
        let ratios = serde_json::json!({
            "throughput_to_envoy": self.throughput_to(Variant::Envoy),
            "throughput_to_parse_only": self.throughput_to(Variant::ParseOnly),
            "throughput_to_native_allow": self.throughput_to(Variant::NativeAllow),
            "throughput_to_unbatched": self.throughput_to(Variant::Unbatched),
            "single_p50_to_unbatched": self.single_p50(),
            "half_load_p99_to_parse_only": self.half_p99(),
        });
        serde_json::json!({"stretches": stretches, "ratios": ratios, "half_load_per_second": self.half_rate})
            .serialize(serializer)
    }
}
