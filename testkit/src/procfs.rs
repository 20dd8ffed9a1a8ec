//! What Linux reports about processes in `/proc`: who belongs to whom, and processor time.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use rustix::process::Pid;

use crate::failure::{Failure, Result};

/// The fields of `/proc/<pid>/stat` that matter here (proc_pid_stat(5)).
struct Stat {
    pid: Pid,
    parent: i32,
    /// User and system time of the process with all its threads and of its ended, awaited children.
    ticks: u64,
}

/// The process and all its descendants, itself first. Only itself where there is no `/proc`.
#[must_use]
pub fn tree(root: Pid) -> Vec<Pid> {
    let all = all();
    let mut tree = vec![root];
    let mut next = 0;
    while let Some(parent) = tree.get(next).copied() {
        next += 1;
        let children = all.iter().filter(|stat| stat.parent == parent.as_raw_nonzero().get()).map(|stat| stat.pid);
        tree.extend(children.filter(|child| *child != root));
    }
    tree
}

/// Processor time of a process and its descendants, ended and awaited ones too.
///
/// # Errors
/// When `/proc` does not know the process.
pub fn cpu_time(root: Pid) -> Result<Duration> {
    let members = tree(root);
    let ticks: u64 = members.iter().filter_map(|pid| stat(*pid)).map(|stat| stat.ticks).sum();
    if stat(root).is_none() {
        return Err(Failure::new(format!("/proc does not know process {root}")));
    }
    Ok(ticks_time(ticks))
}

/// Processor time of a process's living threads, summed by name. A number at a name's end does not count.
pub fn thread_times(pid: Pid) -> BTreeMap<String, Duration> {
    let mut times = BTreeMap::new();
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    for thread in threads {
        let text = fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let Some((name, ticks)) = name_and_ticks(&text) else { continue };
        let name = name.trim_end_matches(|last: char| last.is_ascii_digit() || last == '-').to_owned();
        *times.entry(name).or_default() += ticks_time(ticks);
    }
    times
}

/// A living thread of a process.
#[derive(Clone, Debug)]
pub struct Thread {
    pub id: Pid,
    pub name: String,
}

/// The living threads of a process.
#[must_use]
pub fn threads(pid: Pid) -> Vec<Thread> {
    let entries = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let thread = |entry: fs::DirEntry| {
        let id = entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw)?;
        let name = fs::read_to_string(entry.path().join("comm")).ok()?.trim_end().to_owned();
        Some(Thread { id, name })
    };
    entries.filter_map(thread).collect()
}

/// Processor time of a process's living threads to the nanosecond, by the scheduler's own count.
///
/// # Errors
/// When the kernel keeps none (`CONFIG_SCHED_INFO`).
pub fn run_time(pid: Pid) -> Result<Duration> {
    let times = threads(pid).into_iter().filter_map(|thread| {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{}/schedstat", thread.id)).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    let sum: u64 = times.sum();
    if sum == 0 {
        return Err(Failure::new(format!("/proc has no run times of process {pid}")));
    }
    Ok(Duration::from_nanos(sum))
}

/// The thread's own ticks, without those of children.
fn name_and_ticks(stat: &str) -> Option<(&str, u64)> {
    let (head, rest) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = rest.split(' ').collect();
    Some((name, fields.get(11..13)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum()))
}

fn ticks_time(ticks: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    Duration::from_micros(ticks.saturating_mul(1_000_000) / per_second)
}

fn all() -> Vec<Stat> {
    let numbers = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = numbers.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    pids.filter_map(stat).collect()
}

fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets and may hold anything, brackets too.
    let (_, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split(' ').collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some(Stat { pid, parent, ticks })
}
