//! Everything that a run reports, as a table and as JSON.

use std::fmt;

use serde::Serialize;
use serde_json::Value;

use super::LoadOptions;
use super::books::Verdict;
use super::comparison::{CloserLook, Comparison};
use super::counts::Counts;
use super::figures::{Figures, PROCESSES};
use super::journal::JournalReport;
use super::machine::Machine;
use super::peers::PeerFigures;
use super::race::Race;
use super::stored::Memory;
use super::studies::{Axis, Study};
use super::targets::{self, Target};
use super::variant::Variant;
use testkit::Result;

/// A whole run.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub machine: Machine,
    pub rounds: usize,
    pub connections: usize,
    pub seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comparison: Option<Comparison>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub closer_look: Option<CloserLook>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub studies: Vec<Study>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub peers: Vec<PeerFigures>,
    pub races: Vec<Race>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<Memory>,
    /// None where no payment was made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<JournalReport>,
    /// None where they were not asked for, or valgrind is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub counts: Option<Counts>,
}

/// The studies of a run: the targets include the growth of merchants.
pub(super) fn studies_of(options: &LoadOptions) -> Vec<Axis> {
    let wanted = |axis: &Axis| options.studies.contains(axis) || options.targets && *axis == Axis::Merchants;
    Axis::ALL.into_iter().filter(wanted).collect()
}

impl Report {
    pub(super) fn begin(options: &LoadOptions) -> Result<Self> {
        Ok(Self {
            machine: Machine::look(options)?,
            rounds: options.rounds,
            connections: options.connections,
            seconds: options.duration.as_secs_f64(),
            comparison: None,
            closer_look: None,
            studies: Vec::new(),
            peers: Vec::new(),
            races: Vec::new(),
            memory: None,
            verdict: None,
            journal: None,
            counts: None,
        })
    }

    /// Answers that were not what their request had to get.
    #[must_use]
    pub fn wrong_answers(&self) -> u64 {
        let points = self.studies.iter().flat_map(|study| &study.points).map(|point| point.wrong);
        let races = self.races.iter().map(|race| race.wrong);
        let look = self.closer_look.as_ref().map_or(0, |look| look.wrong);
        self.comparison.as_ref().map_or(0, Comparison::wrong) + look + points.chain(races).sum::<u64>()
    }

    /// Answers that were looked at.
    #[must_use]
    pub fn requests(&self) -> u64 {
        let points = self.studies.iter().flat_map(|study| &study.points).map(|point| point.requests);
        let races = self.races.iter().map(|race| race.requests);
        let look = self.closer_look.as_ref().map_or(0, |look| look.requests);
        self.comparison.as_ref().map_or(0, Comparison::requests) + look + points.chain(races).sum::<u64>()
    }

    /// Every answer was right, nothing was admitted past a limit, and counters and journal agree.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        let over_admissions = self.races.iter().any(|race| race.over_admissions > 0);
        let journal_wrong = self.journal.as_ref().is_some_and(|journal| journal.wrong > 0);
        let books_agree = self.verdict.as_ref().is_none_or(Verdict::is_clean);
        self.wrong_answers() == 0 && !over_admissions && !journal_wrong && books_agree
    }

    /// The targets with their figures.
    #[must_use]
    pub fn targets(&self) -> Vec<Target> {
        targets::of(self)
    }

    /// Processor time of Sluice at full load: the journal's thread and Postgres, to all processes but generator and gateway.
    #[must_use]
    pub fn journal_share(&self) -> Option<f64> {
        let figures = self.comparison.as_ref()?.figures(Variant::Sluice);
        let of = |name: &str| figures.cpu_us.get(name).map_or(0.0, |spread| spread.median);
        let journal = figures.server_us.get("journal").map_or(0.0, |spread| spread.median) + of("postgres");
        Some(journal / ["envoy", "server", "redis", "postgres"].map(of).iter().sum::<f64>())
    }

    /// The figures for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let mut json = serde_json::json!(self);
        if let Some(comparison) = &self.comparison {
            json["ratios"] = serde_json::json!(comparison.ratios());
            json["latency"] = serde_json::json!(comparison.latencies());
            json["processor_time"] = serde_json::json!(comparison.processor_times());
        }
        json["targets"] = serde_json::json!(self.targets());
        json["wrong_answers"] = self.wrong_answers().into();
        json["requests"] = self.requests().into();
        json["journal_share_of_cpu"] = serde_json::json!(self.journal_share());
        round(&mut json);
        json
    }
}

/// Three digits after the point are more than any figure is worth.
fn round(json: &mut Value) {
    match json {
        Value::Array(items) => items.iter_mut().for_each(round),
        Value::Object(members) => members.values_mut().for_each(round),
        Value::Number(number) if number.is_f64() => {
            let rounded = number.as_f64().map(|number| (number * 1e3).round() / 1e3);
            *json = serde_json::json!(rounded);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { processor, cores, kernel, commit, envoy, redis, postgres, server, .. } = &self.machine;
        writeln!(f, "{processor}, {cores} cores, Linux {kernel}; commit {commit}, {server} server")?;
        writeln!(f, "{envoy}; {redis}; {postgres}")?;
        let Self { rounds, seconds, connections, .. } = self;
        writeln!(f, "{rounds} rounds of {seconds} s, {connections} connections, one Envoy worker: median (min-max)")?;
        if let Some(comparison) = &self.comparison {
            for (stretch, variants) in comparison.stretches() {
                writeln!(f, "\n{stretch} (processor time in us per request)")?;
                for (name, figures) in variants {
                    row(f, name, &figures)?;
                }
            }
            writeln!(f, "\nthe peak is {:.0} payments a second", comparison.peak())?;
            relations(f, comparison)?;
            writeln!(f, "\nEnvoy's processor time for a payment, in {} slices of 100 ms", comparison.slices().count)?;
            for (name, us) in &comparison.slices().envoy_us {
                let to = comparison.slices().to_parse_only.get(name).copied().unwrap_or_default();
                writeln!(f, "  {name:<24} {us} us, {to} of parse-only")?;
            }
            let native_host = comparison.slices().native_host_to_wasm_host;
            writeln!(f, "  the native host takes {native_host} of the wasm host's time")?;
        }
        if let Some(look) = &self.closer_look {
            writeln!(f, "\na closer look (processor time in us per request)")?;
            look.figures.iter().try_for_each(|(name, figures)| row(f, name, figures))?;
        }
        for study in &self.studies {
            writeln!(f, "\n{:?}", study.axis)?;
            for point in &study.points {
                let at = if point.name.is_empty() { point.at.to_string() } else { point.name.to_owned() };
                row(f, &at, &point.sluice)?;
                writeln!(f, "  {:<22} {} of parse-only", "", point.ratio)?;
                writeln!(f, "  {:<22} {} of the first, processor time {}", "", point.to_first, point.cpu_to_first)?;
            }
            for (point, ratio) in study.points.iter().zip(&study.in_slices) {
                writeln!(f, "  in turns of 100 ms, {}: {ratio} of the first", point.name)?;
            }
        }
        for peer in &self.peers {
            writeln!(f, "\npeer, {} lost", peer.lost)?;
            row(f, &peer.name, &peer.figures)?;
            for (variant, ratio) in &peer.sluice_to_peer {
                writeln!(f, "  {variant}: {ratio} of its throughput")?;
            }
        }
        let peers = self.peers.iter().filter_map(|peer| peer.race.as_ref());
        for race in self.races.iter().chain(peers) {
            let Race { who, room, requests, admitted, over_admissions, .. } = race;
            write!(f, "\nrace, {who}: {admitted} of {requests} admitted, room for {room}, {over_admissions} over")?;
            race.trusted.map_or(Ok(()), |trusted| write!(f, ", {trusted} from rights"))?;
            writeln!(f)?;
        }
        if let Some(share) = self.journal_share() {
            writeln!(f, "\njournal and Postgres: {:.0} % of Sluice's processor time", share * 100.0)?;
        }
        if let Some(verdict) = &self.verdict {
            writeln!(f, "{} answers checked, {} orders compared\n", self.requests(), verdict.orders)?;
        }
        if let Some(journal) = &self.journal {
            writeln!(f, "{journal}")?;
        }
        if let Some(counts) = &self.counts {
            writeln!(
                f,
                "a payment of a batch in exact counts: {} instructions of the module and",
                counts.module_instructions
            )?;
            writeln!(
                f,
                "{:.1} calls into Envoy, {} instructions of the server",
                counts.host_calls, counts.server_instructions
            )?;
            writeln!(f, "and {} of Redis, {} bytes of the journal\n", counts.redis_instructions, counts.journal_bytes)?;
        }
        self.targets().iter().try_for_each(|target| writeln!(f, "{target}"))
    }
}

/// Throughputs, latencies and processor times in relation to each other, under the names that the JSON has.
fn relations(f: &mut fmt::Formatter<'_>, comparison: &Comparison) -> fmt::Result {
    writeln!(f, "\nthroughput in relation to each other")?;
    comparison.ratios().iter().try_for_each(|(name, ratio)| writeln!(f, "  {name:<42} {ratio}"))?;
    writeln!(f, "\nlatency in relation to each other, by the share of the peak")?;
    for (name, shares) in comparison.latencies() {
        let shares: Vec<String> = shares.iter().map(|(share, ratio)| format!("{share} %: {ratio}")).collect();
        writeln!(f, "  {name:<42} {}", shares.join(", "))?;
    }
    writeln!(f, "\nprocessor time for a payment at full load in relation to each other")?;
    comparison.processor_times().iter().try_for_each(|(name, ratio)| writeln!(f, "  {name:<42} {ratio}"))
}

/// Throughput, latency, and processor time by process and by the server's parts.
fn row(f: &mut fmt::Formatter<'_>, name: &str, figures: &Figures) -> fmt::Result {
    let Figures { rps, p50_ms, p99_ms, cpu_us, server_us, trusted } = figures;
    write!(f, "  {name:<22} {rps} req/s, p50 {p50_ms} ms, p99 {p99_ms} ms")?;
    trusted.map_or(Ok(()), |trusted| write!(f, ", {trusted} of them from rights"))?;
    writeln!(f)?;
    write!(f, "  {:<22}", "")?;
    for process in PROCESSES {
        if let Some(us) = cpu_us.get(process) {
            write!(f, " {process} {:.1}", us.median)?;
        }
    }
    let parts: Vec<String> = server_us.iter().map(|(part, us)| format!("{part} {:.1}", us.median)).collect();
    if parts.is_empty() { writeln!(f) } else { writeln!(f, " (server: {})", parts.join(", ")) }
}
