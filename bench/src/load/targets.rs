//! What a run is to reach, and whether it did.

use std::fmt;

use serde::Serialize;

use super::comparison::Comparison;
use super::report::Report;
use super::studies::Axis;
use super::variant::Variant;

/// One target with its figure.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    pub name: &'static str,
    /// `true` where the figure is to be the bound or more.
    pub at_least: bool,
    pub bound: f64,
    pub figure: f64,
    pub met: bool,
}

impl Target {
    fn at_least(name: &'static str, bound: f64, figure: f64) -> Self {
        Self { name, at_least: true, bound, figure, met: figure >= bound }
    }

    fn at_most(name: &'static str, bound: f64, figure: f64) -> Self {
        Self { name, at_least: false, bound, figure, met: figure <= bound }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.at_least { ">=" } else { "<=" };
        let digits = if self.bound == 0.0 || self.bound >= 100.0 { 0 } else { 2 };
        let verdict = if self.met { "met" } else { "MISSED" };
        write!(f, "{:<68} {:>8.digits$}  {sign} {:<6.digits$} {verdict}", self.name, self.figure, self.bound)
    }
}

/// Processor time of all processes for a payment of Sluice at full load before its parts were made faster, in relation to Envoy
/// alone's in the same run: 278 of 74 microseconds (Envoy 172, server 46.5, Redis 35.5, Postgres 24; middles of several runs on two
/// cores). A figure of another machine compares with it only as a ratio.
const BEFORE_TO_ENVOY_ALONE: f64 = 278.0 / 74.0;
/// The peer with a target: `SLUICE_PEER_LIMITADOR_REDIS` (docs/performance/peers/limitador.sh).
const LIMITADOR_REDIS: &str = "limitador-redis";

/// The targets that this run has figures for.
pub(super) fn of(report: &Report) -> Vec<Target> {
    let mut targets = Vec::new();
    if let Some(comparison) = &report.comparison {
        targets.extend(throughputs(comparison));
        targets.extend(latencies(comparison));
        targets.extend(processor_times(comparison));
    }
    for peer in report.peers.iter().filter(|peer| peer.name == LIMITADOR_REDIS) {
        let to_peer = |variant: Variant| peer.sluice_to_peer.get(variant.name()).map_or(0.0, |ratio| ratio.median);
        targets.extend([
            Target::at_least("throughput, Sluice to limitador with Redis", 1.4, to_peer(Variant::Sluice)),
            Target::at_least(
                "throughput, native host, to limitador with Redis",
                1.7,
                to_peer(Variant::SluiceNativeHost),
            ),
        ]);
    }
    if let Some(merchants) = report.studies.iter().find(|study| study.axis == Axis::Merchants) {
        targets.push(Target::at_least(
            "throughput to parse-only, least to most, 100 to 1,000,000 merchants",
            0.90,
            merchants.flatness(),
        ));
    }
    if let Some(journal) = &report.journal {
        targets.extend(report.comparison.as_ref().map(|comparison| {
            let peak = comparison.figures(Variant::Sluice).rps.median;
            let name = "events a second that the journal drains, to the peak of payments";
            Target::at_least(name, 3.0, journal.drained.events_per_second / peak)
        }));
        targets.push(Target::at_most("events missing or stored twice", 0.0, journal.wrong as f64));
    }
    if let Some(memory) = &report.memory {
        targets.push(Target::at_most("bytes in Redis for an account", 200.0, memory.account_bytes));
        targets.push(Target::at_most("bytes in Redis for a live order", 150.0, memory.order_bytes));
    }
    if let Some(counts) = &report.counts {
        targets.push(Target::at_most("instructions of the module", 30_000.0, counts.module_instructions as f64));
        targets.push(Target::at_most("calls of the module into Envoy", 11.0, counts.host_calls));
    }
    if let Some(verdict) = &report.verdict {
        let over_admissions = report.races.iter().map(|race| race.over_admissions).sum::<u64>();
        let differences = verdict.journal_missing + verdict.counters_wrong;
        targets.extend([
            Target::at_most("wrong answers", 0.0, report.wrong_answers() as f64),
            Target::at_most("over-admissions", 0.0, over_admissions as f64),
            Target::at_most("differences of counters, journal and answers", 0.0, differences as f64),
        ]);
    }
    targets
}

fn throughputs(comparison: &Comparison) -> [Target; 7] {
    let to = |own, other| comparison.throughput(own, other).median;
    [
        Target::at_least("throughput, Sluice to parse-only", 0.60, to(Variant::Sluice, Variant::ParseOnly)),
        Target::at_least(
            "throughput, Sluice to native ext_authz that always allows",
            0.80,
            to(Variant::Sluice, Variant::NativeAllow),
        ),
        Target::at_least(
            "throughput, native host, to parse-only in the wasm host",
            0.75,
            to(Variant::SluiceNativeHost, Variant::ParseOnly),
        ),
        Target::at_least(
            "throughput, native host, to native ext_authz that always allows",
            0.95,
            to(Variant::SluiceNativeHost, Variant::NativeAllow),
        ),
        Target::at_least("throughput, trusted, to parse-only", 0.90, to(Variant::Trusted, Variant::ParseOnly)),
        Target::at_least(
            "throughput, trusted, native host, to parse-only in the wasm host",
            1.10,
            to(Variant::TrustedNativeHost, Variant::ParseOnly),
        ),
        Target::at_least(
            "throughput, trusted, to native ext_authz that always allows",
            1.25,
            to(Variant::Trusted, Variant::NativeAllow),
        ),
    ]
}

fn latencies(comparison: &Comparison) -> [Target; 9] {
    let p50_to = |own, other| comparison.latency(50, own, other, |sample| sample.p50_ms).median;
    let p99_to = |own, other| comparison.latency(50, own, other, |sample| sample.p99_ms).median;
    let p50 = |own| p50_to(own, Variant::NativeAllow);
    let p99 = |own| p99_to(own, Variant::NativeAllow);
    let (wasm_host, native_host) =
        ((Variant::Trusted, Variant::ParseOnly), (Variant::TrustedNativeHost, Variant::ParseOnlyNativeHost));
    [
        Target::at_most("p50 at one connection, batched to unbatched", 1.05, comparison.single_p50().median),
        Target::at_most("p50 at half of the peak, Sluice to native ext_authz", 1.5, p50(Variant::Sluice)),
        Target::at_most("p99 at half of the peak, Sluice to native ext_authz", 2.0, p99(Variant::Sluice)),
        Target::at_most(
            "p50 at half of the peak, native host, to native ext_authz",
            1.3,
            p50(Variant::SluiceNativeHost),
        ),
        Target::at_most(
            "p99 at half of the peak, native host, to native ext_authz",
            1.7,
            p99(Variant::SluiceNativeHost),
        ),
        Target::at_most("p50 at half of the peak, trusted, to parse-only", 1.3, p50_to(wasm_host.0, wasm_host.1)),
        Target::at_most("p99 at half of the peak, trusted, to parse-only", 1.3, p99_to(wasm_host.0, wasm_host.1)),
        Target::at_most(
            "p50 at half of the peak, trusted, to parse-only, native host",
            1.3,
            p50_to(native_host.0, native_host.1),
        ),
        Target::at_most(
            "p99 at half of the peak, trusted, to parse-only, native host",
            1.3,
            p99_to(native_host.0, native_host.1),
        ),
    ]
}

fn processor_times(comparison: &Comparison) -> [Target; 4] {
    let to_before = |variant| comparison.processor_time(variant, Variant::Envoy).median / BEFORE_TO_ENVOY_ALONE;
    [
        Target::at_most(
            "Envoy's time for a payment, native host to wasm host",
            0.75,
            comparison.slices().native_host_to_wasm_host.median,
        ),
        Target::at_most("processor time of all processes, to the time before", 0.80, to_before(Variant::Sluice)),
        Target::at_most(
            "processor time of all processes, native host, to the time before",
            0.70,
            to_before(Variant::SluiceNativeHost),
        ),
        Target::at_most(
            "processor time of all processes, trusted to Sluice",
            0.60,
            comparison.processor_time(Variant::Trusted, Variant::Sluice).median,
        ),
    ]
}
