//! The comparison that the targets are judged by: all variants at full load in rotated rounds, one connection with and without
//! batches, all variants at shares of Sluice's peak, and Envoy's processor time in slices.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Closer;
use super::figures::{Figures, Sample, Spread, ratio};
use super::merchants::LOAD;
use super::plan::{Pace, Payers, Plan, Stop};
use super::rig::Rig;
use super::slices::{self, Slices};
use super::variant::Variant;
use testkit::Result;

/// Everything that the comparison measured.
#[derive(Clone, Debug)]
pub struct Comparison {
    full: BTreeMap<Variant, Vec<Sample>>,
    single: BTreeMap<Variant, Vec<Sample>>,
    /// By the share of the peak in percent.
    paced: BTreeMap<u8, BTreeMap<Variant, Vec<Sample>>>,
    /// Payments a second that Sluice's peak is.
    peak: f64,
    slices: Slices,
}

const ONE_CONNECTION: [Variant; 3] = [Variant::Sluice, Variant::SluiceNativeHost, Variant::Unbatched];
/// Shares of Sluice's peak at which payments begin at a fixed rate, the same for all variants, in percent.
const SHARES: [u8; 3] = [25, 50, 75];

pub(super) async fn run(rig: &mut Rig) -> Result<Comparison> {
    let slices = slices::run(rig, &Variant::ALL).await?;
    let full = rounds(rig, "full load", &Variant::ALL, |_| {}).await?;
    let single = rounds(rig, "1 connection", &ONE_CONNECTION, |plan| plan.connections = 1).await?;
    let peak = Figures::of(Comparison::samples(&full, Variant::Sluice)).rps.median;
    let mut paced = BTreeMap::new();
    for share in SHARES {
        let pace = Pace::Fixed { per_second: peak * f64::from(share) / 100.0 };
        let samples = rounds(rig, &format!("{share} % of peak"), &Variant::ALL, |plan| plan.pace = pace).await?;
        paced.insert(share, samples);
    }
    Ok(Comparison { full, single, paced, peak, slices })
}

/// Some variants under one load, by themselves.
#[derive(Clone, Debug, Serialize)]
pub struct CloserLook {
    /// By variant.
    pub figures: BTreeMap<&'static str, Figures>,
    pub requests: u64,
    pub wrong: u64,
}

pub(super) async fn look_closer(rig: &mut Rig, closer: &Closer) -> Result<CloserLook> {
    let Closer { variants, per_second } = closer;
    let pace = per_second.map_or(Pace::Closed, |per_second| Pace::Fixed { per_second });
    let samples = rounds(rig, "closer look", variants, |plan| plan.pace = pace).await?;
    let all = || samples.values().flatten();
    Ok(CloserLook {
        figures: by_name(&samples),
        requests: all().map(|sample| sample.requests).sum(),
        wrong: all().map(|sample| sample.wrong).sum(),
    })
}

fn by_name(set: &BTreeMap<Variant, Vec<Sample>>) -> BTreeMap<&'static str, Figures> {
    set.iter().map(|(variant, samples)| (variant.name(), Figures::of(samples))).collect()
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
            eprintln!("{what:<13} {}/{rounds}  {:<22} {}", round + 1, variant.name(), sample.line());
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

    /// A variant's throughput to another's, round by round.
    #[must_use]
    pub fn throughput(&self, own: Variant, other: Variant) -> Spread {
        ratio(Self::samples(&self.full, own), Self::samples(&self.full, other), |sample| sample.rps)
    }

    /// The median latency at one connection, with batches to without.
    #[must_use]
    pub fn single_p50(&self) -> Spread {
        let of = |variant| Self::samples(&self.single, variant);
        ratio(of(Variant::Sluice), of(Variant::Unbatched), |sample| sample.p50_ms)
    }

    /// A latency of a variant to another's at a share of Sluice's peak in percent, round by round.
    #[must_use]
    pub fn latency(&self, share: u8, own: Variant, other: Variant, figure: fn(&Sample) -> f64) -> Spread {
        let of = |variant| self.paced.get(&share).map_or(&[] as &[Sample], |set| Self::samples(set, variant));
        ratio(of(own), of(other), figure)
    }

    /// Envoy's processor time in slices.
    #[must_use]
    pub const fn slices(&self) -> &Slices {
        &self.slices
    }

    fn all(&self) -> impl Iterator<Item = &Sample> {
        let sets = [&self.full, &self.single].into_iter().chain(self.paced.values());
        sets.flat_map(BTreeMap::values).flatten()
    }

    pub(super) fn wrong(&self) -> u64 {
        self.all().map(|sample| sample.wrong).sum::<u64>() + self.slices.wrong
    }

    pub(super) fn requests(&self) -> u64 {
        self.all().map(|sample| sample.requests).sum::<u64>() + self.slices.requests
    }

    /// The stretches with their names, for reports.
    pub(super) fn stretches(&self) -> BTreeMap<String, BTreeMap<&'static str, Figures>> {
        let paced = self.paced.iter().map(|(share, set)| (format!("load_{share}"), by_name(set)));
        let whole =
            [("full_load".to_owned(), by_name(&self.full)), ("one_connection".to_owned(), by_name(&self.single))];
        whole.into_iter().chain(paced).collect()
    }

    pub(super) const fn peak(&self) -> f64 {
        self.peak
    }

    /// Throughputs in relation to each other: `parse_only` is Sluice to the parsing filter. Those of the native host are in
    /// relation to the same variants: `native_host_parse_only` and `trusted_native_host_parse_only` are to the parsing filter in the
    /// wasm host.
    #[must_use]
    pub fn ratios(&self) -> BTreeMap<&'static str, Spread> {
        let sluice = |other| self.throughput(Variant::Sluice, other);
        let native_host = |other| self.throughput(Variant::SluiceNativeHost, other);
        let trusted = |other| self.throughput(Variant::Trusted, other);
        BTreeMap::from([
            ("parse_only", sluice(Variant::ParseOnly)),
            ("native_allow", sluice(Variant::NativeAllow)),
            ("envoy", sluice(Variant::Envoy)),
            ("unbatched", sluice(Variant::Unbatched)),
            ("native_host_parse_only", native_host(Variant::ParseOnly)),
            ("native_host_native_allow", native_host(Variant::NativeAllow)),
            ("native_host_wasm_host", native_host(Variant::Sluice)),
            ("trusted_parse_only", trusted(Variant::ParseOnly)),
            ("trusted_native_allow", trusted(Variant::NativeAllow)),
            ("trusted_native_host_parse_only", self.throughput(Variant::TrustedNativeHost, Variant::ParseOnly)),
        ])
    }

    /// Processor time of all processes for a payment at full load, generator and gateway left out, to another variant's, round by
    /// round.
    #[must_use]
    pub fn processor_time(&self, own: Variant, other: Variant) -> Spread {
        ratio(Self::samples(&self.full, own), Self::samples(&self.full, other), Sample::serving_us)
    }

    /// Processor times in relation to each other: payments that are admitted from rights to those that the server decides, in each
    /// host.
    #[must_use]
    pub fn processor_times(&self) -> BTreeMap<&'static str, Spread> {
        BTreeMap::from([
            ("trusted_to_sluice", self.processor_time(Variant::Trusted, Variant::Sluice)),
            (
                "trusted_native_host_to_sluice_native_host",
                self.processor_time(Variant::TrustedNativeHost, Variant::SluiceNativeHost),
            ),
        ])
    }

    /// Latencies in relation to native ext_authz that always allows, and of payments that are admitted from rights to the parsing
    /// filter in the same host, by the figure and the share of Sluice's peak in percent.
    #[must_use]
    pub fn latencies(&self) -> BTreeMap<&'static str, BTreeMap<String, Spread>> {
        let [p50, p99]: [fn(&Sample) -> f64; 2] = [|sample| sample.p50_ms, |sample| sample.p99_ms];
        let by_share = |own: Variant, other: Variant, figure: fn(&Sample) -> f64| {
            let at = |share: u8| (share.to_string(), self.latency(share, own, other, figure));
            SHARES.map(at).into_iter().collect()
        };
        let to_native_allow = |own, figure| by_share(own, Variant::NativeAllow, figure);
        let trusted = |figure| by_share(Variant::Trusted, Variant::ParseOnly, figure);
        let trusted_native_host = |figure| by_share(Variant::TrustedNativeHost, Variant::ParseOnlyNativeHost, figure);
        BTreeMap::from([
            ("p50_to_native_allow", to_native_allow(Variant::Sluice, p50)),
            ("p99_to_native_allow", to_native_allow(Variant::Sluice, p99)),
            ("native_host_p50_to_native_allow", to_native_allow(Variant::SluiceNativeHost, p50)),
            ("native_host_p99_to_native_allow", to_native_allow(Variant::SluiceNativeHost, p99)),
            ("trusted_p50_to_parse_only", trusted(p50)),
            ("trusted_p99_to_parse_only", trusted(p99)),
            ("trusted_native_host_p50_to_parse_only", trusted_native_host(p50)),
            ("trusted_native_host_p99_to_parse_only", trusted_native_host(p99)),
        ])
    }
}

impl Serialize for Comparison {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serde_json::json!({
            "stretches": self.stretches(),
            "single_p50_to_unbatched": self.single_p50(),
            "peak_per_second": self.peak,
            "slices": self.slices,
        })
        .serialize(serializer)
    }
}
