//! One measurement, and what several of them say together.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::plan::Tally;

/// Median, smallest and largest of the rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    pub(super) fn of(values: impl Iterator<Item = f64>) -> Self {
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

/// The processes whose processor time is counted. `server` is the process that decides: Sluice's, the one that always
/// allows, a peer.
pub(super) const PROCESSES: [&str; 6] = ["envoy", "server", "redis", "postgres", "generator", "gateway"];
/// Those that serve payments. The generator and the gateway belong to the rig.
const SERVING: [&str; 4] = ["envoy", "server", "redis", "postgres"];
/// The parts of Sluice's server. What is none of these decides.
pub(super) const SERVER_PARTS: [&str; 4] = ["decisions", "journal", "log", "other"];

/// Processor time so far: of the processes, and of the server's threads by name.
#[derive(Clone, Debug, Default)]
pub(super) struct Cpu {
    pub processes: BTreeMap<&'static str, Duration>,
    pub server_threads: BTreeMap<String, Duration>,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    pub requests: u64,
    pub rps: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Microseconds per request.
    pub cpu_us: BTreeMap<&'static str, f64>,
    /// The server's share by its parts.
    pub server_us: BTreeMap<&'static str, f64>,
    /// The part of the payments that was admitted from rights, where the rule is trusted.
    pub trusted: Option<f64>,
    /// Answers that were not what their request had to get.
    pub wrong: u64,
}

impl Sample {
    pub(super) fn new(tally: &Tally, before: &Cpu, after: &Cpu) -> Self {
        let requests = tally.requests.max(1) as f64;
        let each = |from: Option<&Duration>, to: Duration| {
            to.saturating_sub(from.copied().unwrap_or_default()).as_secs_f64() * 1e6 / requests
        };
        let mut cpu_us: BTreeMap<&'static str, f64> =
            after.processes.iter().map(|(name, to)| (*name, each(before.processes.get(name), *to))).collect();
        cpu_us.insert("generator", each(None, tally.cpu));
        let mut server_us = BTreeMap::new();
        for (name, to) in &after.server_threads {
            *server_us.entry(part(name)).or_default() += each(before.server_threads.get(name), *to);
        }
        Self {
            requests: tally.requests,
            rps: tally.requests as f64 / tally.elapsed.as_secs_f64(),
            p50_ms: tally.latency.value_at_quantile(0.5) as f64 / 1e3,
            p99_ms: tally.latency.value_at_quantile(0.99) as f64 / 1e3,
            cpu_us,
            server_us,
            trusted: None,
            wrong: tally.wrong,
        }
    }

    /// Microseconds per request of everything that serves payments.
    pub(super) fn serving_us(&self) -> f64 {
        SERVING.iter().filter_map(|name| self.cpu_us.get(name)).sum()
    }

    pub(super) fn line(&self) -> String {
        format!("{:>8.0} req/s  p50 {:>7.3} ms  p99 {:>7.3} ms", self.rps, self.p50_ms, self.p99_ms)
    }
}

/// The part of the server that a thread of this name belongs to.
fn part(thread: &str) -> &'static str {
    match thread {
        "journal" => "journal",
        "log" => "log",
        "sweep" | "admin" => "other",
        guard if guard.ends_with("-guard") => "other",
        _ => "decisions",
    }
}

/// Several measurements of the same.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    pub rps: Spread,
    pub p50_ms: Spread,
    pub p99_ms: Spread,
    /// Microseconds per request, by process.
    pub cpu_us: BTreeMap<&'static str, Spread>,
    /// The server's share by its parts, where it is Sluice's.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub server_us: BTreeMap<&'static str, Spread>,
    /// The part of the payments that was admitted from rights, where the rule is trusted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trusted: Option<Spread>,
}

impl Figures {
    #[must_use]
    pub fn of(samples: &[Sample]) -> Self {
        let spread = |figure: fn(&Sample) -> f64| Spread::of(samples.iter().map(figure));
        let by_name = |names: &[&'static str], of: fn(&Sample) -> &BTreeMap<&'static str, f64>| {
            let values = |name: &'static str| samples.iter().filter_map(move |sample| of(sample).get(name).copied());
            let present = names.iter().filter(|name| values(name).next().is_some());
            present.map(|name| (*name, Spread::of(values(name)))).collect()
        };
        let trusted = samples.iter().map(|sample| sample.trusted).collect::<Option<Vec<_>>>();
        Self {
            rps: spread(|sample| sample.rps),
            p50_ms: spread(|sample| sample.p50_ms),
            p99_ms: spread(|sample| sample.p99_ms),
            cpu_us: by_name(&PROCESSES, |sample| &sample.cpu_us),
            server_us: by_name(&SERVER_PARTS, |sample| &sample.server_us),
            trusted: trusted.filter(|parts| !parts.is_empty()).map(|parts| Spread::of(parts.into_iter())),
        }
    }
}

/// What `figure` gives for `own` in relation to `other`, round by round: what the machine does meanwhile, it does to both.
pub(super) fn ratio(own: &[Sample], other: &[Sample], figure: fn(&Sample) -> f64) -> Spread {
    Spread::of(own.iter().zip(other).map(|(own, other)| figure(own) / figure(other)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_lies_in_the_middle() {
        for (values, median) in [(vec![], 0.0), (vec![3.0], 3.0), (vec![4.0, 1.0], 2.5), (vec![9.0, 1.0, 2.0], 2.0)] {
            assert_eq!(Spread::of(values.iter().copied()).median, median, "{values:?}");
        }
    }

    #[test]
    fn every_thread_belongs_to_a_part() {
        for (thread, expected) in [
            ("journal", "journal"),
            ("journal-guard", "other"),
            ("log", "log"),
            ("admin", "other"),
            ("sweep", "other"),
            ("authz-server", "decisions"),
            ("decisions", "decisions"),
        ] {
            assert_eq!(part(thread), expected, "{thread}");
        }
    }
}
