//! What a run measured: medians with their spread, ratios within the run, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::process::Command;

use serde::Serialize;

use super::rig::{Sample, Variant};
use super::verify::Verdict;
use super::{LoadOptions, RACE_ROOM};
use crate::dirs;

/// Median, smallest and largest of the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values = values.collect::<Vec<_>>();
        values.sort_by(f64::total_cmp);
        let at = |index: usize| values.get(index).copied().unwrap_or_default();
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 { at(middle) } else { (at(middle.saturating_sub(1)) + at(middle)) / 2.0 };
        Self { median, min: at(0), max: at(values.len().saturating_sub(1)) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = if self.max >= 1000.0 {
            0
        } else if self.max >= 10.0 {
            1
        } else {
            2
        };
        write!(f, "{:.digits$} ({:.digits$}-{:.digits$})", self.median, self.min, self.max)
    }
}

/// Processor time of one request in microseconds, by process.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct CpuMicros {
    pub envoy: Spread,
    pub server: Spread,
    pub redis: Spread,
    pub postgres: Spread,
}

/// One variant over all its rounds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Summary {
    pub rps: Spread,
    pub p50_ms: Spread,
    pub p99_ms: Spread,
    pub cpu_us: CpuMicros,
}

impl Summary {
    fn of(samples: &[Sample]) -> Self {
        let spread = |figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
        Self {
            rps: spread(|sample| sample.rps),
            p50_ms: spread(|sample| sample.p50_ms),
            p99_ms: spread(|sample| sample.p99_ms),
            cpu_us: CpuMicros {
                envoy: spread(|sample| sample.envoy_us),
                server: spread(|sample| sample.server_us),
                redis: spread(|sample| sample.redis_us),
                postgres: spread(|sample| sample.postgres_us),
            },
        }
    }
}

/// Sluice's throughput to the others': medians of the ratios within each round.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ratios {
    pub envoy: Spread,
    pub parse_only: Spread,
    pub native_allow: Spread,
}

/// Bytes in Redis.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    pub account_bytes: f64,
    pub order_bytes: f64,
}

/// Sluice with a number of merchants.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Growth {
    pub merchants: u32,
    pub rps: Spread,
    pub p99_ms: Spread,
}

/// Everything that a run tells.
#[derive(Clone, Debug)]
pub struct Report {
    machine: String,
    commit: String,
    rounds: usize,
    connections: usize,
    seconds: f64,
    samples: BTreeMap<Variant, Vec<Sample>>,
    growth: BTreeMap<u32, Vec<Sample>>,
    verdict: Option<Verdict>,
    pub(super) memory: Memory,
    /// Payments admitted past the race's limit.
    pub over_admissions: u64,
    race_wrong: u64,
}

impl Report {
    pub(super) fn begin(options: &LoadOptions) -> Self {
        Self {
            machine: machine(),
            commit: commit(),
            rounds: options.rounds,
            connections: options.connections,
            seconds: options.duration.as_secs_f64(),
            samples: BTreeMap::new(),
            growth: BTreeMap::new(),
            verdict: None,
            memory: Memory::default(),
            over_admissions: 0,
            race_wrong: 0,
        }
    }

    pub(super) fn add(&mut self, variant: Variant, sample: Sample) {
        self.samples.entry(variant).or_default().push(sample);
    }

    pub(super) fn add_growth(&mut self, merchants: u32, sample: Sample) {
        self.growth.entry(merchants).or_default().push(sample);
    }

    pub(super) fn raced(&mut self, over_admissions: u64, wrong: u64) {
        self.over_admissions = over_admissions;
        self.race_wrong = wrong;
    }

    pub(super) fn verified(&mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
    }

    /// Answers that were not what their request had to get.
    #[must_use]
    pub fn wrong_answers(&self) -> u64 {
        let samples = self.samples.values().chain(self.growth.values()).flatten();
        samples.map(|sample| sample.wrong).sum::<u64>() + self.race_wrong
    }

    /// Every answer was right, nothing was admitted past a limit, and counters and journal agree.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.wrong_answers() == 0 && self.over_admissions == 0 && self.verdict == Some(Verdict::default())
    }

    /// One variant's figures.
    #[must_use]
    pub fn summary(&self, variant: Variant) -> Summary {
        Summary::of(self.samples.get(&variant).map_or(&[], Vec::as_slice))
    }

    /// Sluice to the others.
    #[must_use]
    pub fn ratios(&self) -> Ratios {
        let samples = |variant| self.samples.get(&variant).map_or(&[][..], Vec::as_slice);
        let to = |other| {
            let pairs = samples(Variant::Sluice).iter().zip(samples(other));
            Spread::of(pairs.map(|(own, other): (&Sample, &Sample)| own.rps / other.rps))
        };
        Ratios { envoy: to(Variant::Envoy), parse_only: to(Variant::ParseOnly), native_allow: to(Variant::NativeAllow) }
    }

    fn growth(&self) -> Vec<Growth> {
        let row = |(merchants, samples): (&u32, &Vec<Sample>)| {
            let Summary { rps, p99_ms, .. } = Summary::of(samples);
            Growth { merchants: *merchants, rps, p99_ms }
        };
        self.growth.iter().map(row).collect()
    }

    /// The figures for programs. Variants hold medians; `spread` has the rest.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let of = |figures: fn(&Summary) -> serde_json::Value| {
            let named = |variant: &Variant| (variant.name().to_owned(), figures(&self.summary(*variant)));
            Variant::ALL.iter().map(named).collect::<serde_json::Map<_, _>>()
        };
        let medians = of(|summary| {
            let cpu = summary.cpu_us;
            serde_json::json!({
                "rps": summary.rps.median,
                "p50_ms": summary.p50_ms.median,
                "p99_ms": summary.p99_ms.median,
                "cpu_us": {
                    "envoy": cpu.envoy.median,
                    "server": cpu.server.median,
                    "redis": cpu.redis.median,
                    "postgres": cpu.postgres.median,
                },
            })
        });
        let spread = of(|summary| serde_json::json!(summary));
        let ratios = self.ratios();
        let verdict = self.verdict.clone().unwrap_or_default();
        serde_json::json!({
            "machine": self.machine,
            "commit": self.commit,
            "rounds": self.rounds,
            "connections": self.connections,
            "seconds": self.seconds,
            "variants": medians,
            "spread": spread,
            "ratios": {
                "envoy": ratios.envoy.median,
                "parse_only": ratios.parse_only.median,
                "native_allow": ratios.native_allow.median,
            },
            "growth": self.growth(),
            "memory": self.memory,
            "wrong_answers": self.wrong_answers(),
            "over_admissions": self.over_admissions,
            "journal_missing": verdict.journal_missing,
            "counters_wrong": verdict.counters_wrong,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, commit, rounds, connections, seconds, .. } = self;
        writeln!(f, "{machine}, commit {commit}")?;
        writeln!(f, "{rounds} rounds of {seconds} s, {connections} connections, one Envoy worker: median (min-max)\n")?;
        let row = |f: &mut fmt::Formatter<'_>, cells: [&str; 8]| {
            let [name, rps, p50, p99, envoy, server, redis, postgres] = cells;
            writeln!(f, "{name:<13} {rps:>22} {p50:>18} {p99:>20} {envoy:>22} {server:>18} {redis:>18} {postgres:>18}")
        };
        let head =
            ["", "req/s", "p50 ms", "p99 ms", "Envoy us/req", "server us/req", "Redis us/req", "Postgres us/req"];
        row(f, head)?;
        for variant in Variant::ALL {
            let Summary { rps, p50_ms, p99_ms, cpu_us } = self.summary(variant);
            let cells = [rps, p50_ms, p99_ms, cpu_us.envoy, cpu_us.server, cpu_us.redis, cpu_us.postgres];
            let [rps, p50, p99, envoy, server, redis, postgres] = cells.map(|cell| cell.to_string());
            row(f, [variant.name(), &rps, &p50, &p99, &envoy, &server, &redis, &postgres])?;
        }
        let Ratios { envoy, parse_only, native_allow } = self.ratios();
        writeln!(f, "\nSluice to Envoy alone        {envoy}")?;
        writeln!(f, "Sluice to parse-only         {parse_only}")?;
        writeln!(f, "Sluice to native ext_authz   {native_allow}")?;
        for Growth { merchants, rps, p99_ms } in self.growth() {
            writeln!(f, "\n{merchants:>7} merchants   {rps} req/s   p99 {p99_ms} ms")?;
        }
        let Memory { account_bytes, order_bytes } = self.memory;
        writeln!(f, "\nRedis: {account_bytes:.0} bytes an account, {order_bytes:.0} bytes an order")?;
        let Verdict { journal_missing, counters_wrong } = self.verdict.clone().unwrap_or_default();
        writeln!(
            f,
            "wrong answers {}, over-admissions {} (room for {RACE_ROOM}), journal missing {journal_missing}, counters wrong {counters_wrong}",
            self.wrong_answers(),
            self.over_admissions,
        )
    }
}

fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{} with {cores} cores", model.unwrap_or("unknown processor"))
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).current_dir(dirs::workspace()).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let changed = git(&["status", "--porcelain"]).is_none_or(|status| !status.is_empty());
    let commit = git(&["rev-parse", "--short", "HEAD"]).unwrap_or_else(|| "unknown".to_owned());
    if changed { format!("{commit} with changes") } else { commit }
}
