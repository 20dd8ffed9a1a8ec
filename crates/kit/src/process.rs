//! Metrics of this process under the names that Prometheus' clients share, read from `/proc` (proc(5)) at each scrape, and the
//! build's own.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// This program's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Where the fields that follow the program's name in `/proc/self/stat` begin: the third field of proc_pid_stat(5).
const FIRST_FIELD: usize = 3;
const USER_TICKS: usize = 14;
const SYSTEM_TICKS: usize = 15;
const THREADS: usize = 20;
const START_TICKS: usize = 22;

/// What is shown of the process.
#[derive(Debug)]
struct ProcessCollector;

/// Shows the process and the build in the registry.
pub fn register(r: &mut Registry) {
    let build = Family::<[(&'static str, &'static str); 1], Gauge>::default();
    build.get_or_create(&[("version", VERSION)]).set(1);
    r.register("sluice_build_info", "The version of this program", build);
    r.register_collector(Box::new(ProcessCollector));
}

impl Collector for ProcessCollector {
    /// A value that cannot be read is left out, as where there is no `/proc`.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(seconds) = cpu_seconds() {
            counter(&mut encoder, "process_cpu_seconds", "User and system time in seconds", seconds)?;
        }
        let gauges = [
            (
                "process_start_time_seconds",
                "When the process started, in seconds since the epoch",
                start_time_seconds(),
            ),
            ("process_resident_memory_bytes", "Memory in use, in bytes", status_bytes("VmRSS:")),
            ("process_virtual_memory_bytes", "Address space, in bytes", status_bytes("VmSize:")),
            ("process_threads", "Threads", field(THREADS)),
            ("process_open_fds", "Open file descriptors", open_fds()),
            ("process_max_fds", "Most file descriptors that may be open", max_fds()),
        ];
        for (name, help, value) in gauges {
            if let Some(value) = value {
                gauge(&mut encoder, name, help, value)?;
            }
        }
        Ok(())
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    let metric = encoder.encode_descriptor(name, help, None, counter.metric_type())?;
    counter.encode(metric)
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
    gauge.encode(metric)
}

/// A number of `/proc/self/stat`, by its place in proc_pid_stat(5).
fn field(place: usize) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name may hold blanks and brackets; the last bracket ends it.
    let (_, fields) = text.rsplit_once(')')?;
    fields.split_whitespace().nth(place.checked_sub(FIRST_FIELD)?)?.parse().ok()
}

fn ticks_per_second() -> f64 {
    // At most a few thousand.
    rustix::param::clock_ticks_per_second() as f64
}

fn cpu_seconds() -> Option<f64> {
    Some((field(USER_TICKS)? + field(SYSTEM_TICKS)?) / ticks_per_second())
}

fn start_time_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()?;
    Some(booted + field(START_TICKS)? / ticks_per_second())
}

/// A row of `/proc/self/status`, which counts in kB.
fn status_bytes(name: &str) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let row = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(row.split_whitespace().next()?.parse::<f64>().ok()? * 1024.0)
}

fn open_fds() -> Option<f64> {
    // The directory itself is one of them while it is read.
    let found = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1);
    u32::try_from(found).ok().map(f64::from)
}

fn max_fds() -> Option<f64> {
    let text = fs::read_to_string("/proc/self/limits").ok()?;
    let row = text.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    row.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_shown_under_the_usual_names() {
        let mut registry = Registry::default();
        register(&mut registry);
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        let value = |name: &str| -> f64 {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            line.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
        };
        assert!(text.contains(&format!("sluice_build_info{{version=\"{VERSION}\"}} 1")), "{text}");
        assert!(value("process_cpu_seconds_total") >= 0.0);
        assert!(value("process_resident_memory_bytes") > 100_000.0);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0);
        assert!(value("process_open_fds") >= 3.0 && value("process_open_fds") < value("process_max_fds"));
        // Since 2020, and not in the future.
        assert!(
            (1_577_836_800.0..=crate::clock::now_ms() as f64 / 1000.0 + 1.0)
                .contains(&value("process_start_time_seconds"))
        );
    }
}
