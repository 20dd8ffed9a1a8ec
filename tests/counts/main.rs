//! What a payment costs in exact counts, as gates: a change that makes payments dearer has to say so in [`EXPECTED`].
//!
//! Instructions are counted under valgrind's callgrind, of the programs as the suites build them: a debug server takes some ten
//! times the instructions of an optimised one, and rises and falls with it. Where valgrind is missing nothing is counted: the
//! suite says so and passes, except in CI.

mod workload;

use std::process::ExitCode;

use bench::counts;
use libtest_mimic::{Arguments, Failed, Trial};
use testkit::callgrind::{Callgrind, INSTALL};
use testkit::{Failure, Result, build, dirs};
use tokio::runtime::Builder;

/// How far a count may be above its expectation, in percent.
const RISE_MAX: u64 = 2;
/// Set in CI, where counting nothing is a failure.
const CI_VARIABLE: &str = "CI";

/// The counts of a payment, as docs/performance.md lists them. Another compiler, Valkey or C library may need others.
const EXPECTED: [(&str, u64); 8] = [
    // Instructions of the rule for a plain charge.
    ("decide", 5_449),
    // Instructions from a wire message to the script's arguments, and from its reply to a record.
    ("pack", 51_140),
    // Instructions of the server's decision thread.
    ("server: a payment alone", 1_235_000),
    ("server: a payment of a batch", 379_000),
    // Instructions of Redis' main thread in the script's call.
    ("redis: a payment alone", 178_500),
    ("redis: a payment of a batch", 101_000),
    // Bytes of its event in Redis, and of the row that is sent to Postgres; there is one of each.
    ("journal: bytes of an event", 247),
    ("journal: bytes of a row", 682),
];

fn main() -> Result<ExitCode> {
    if workload::run()? {
        return Ok(ExitCode::SUCCESS);
    }
    let arguments = Arguments::from_args();
    let Some(callgrind) = Callgrind::find() else {
        eprintln!("no count was compared: {INSTALL}");
        let is_ci = std::env::var_os(CI_VARIABLE).is_some();
        return Ok(if is_ci { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    };
    let trials =
        [("decide", decide as fn(&Callgrind) -> Result<()>), ("pack", pack), ("server", server), ("redis", redis)];
    let trials = trials.into_iter().map(|(name, trial)| {
        let callgrind = callgrind.clone();
        Trial::test(name, move || trial(&callgrind).map_err(|failure| Failed::from(failure.to_string())))
    });
    let trials = trials.chain([Trial::test("documented", documented)]);
    Ok(libtest_mimic::run(&arguments, trials.collect()).exit_code())
}

/// The table of docs/performance.md has the same counts.
fn documented() -> std::result::Result<(), Failed> {
    let guide = std::fs::read_to_string(dirs::workspace().join("docs/performance.md"))?;
    let digits = |text: &str| text.replace(',', "");
    let rows: Vec<String> = guide.lines().map(digits).collect();
    for (name, expected) in EXPECTED {
        let row = format!("| {name} | {expected} |");
        if !rows.contains(&row) {
            return Err(format!("docs/performance.md has no row {row}").into());
        }
    }
    Ok(())
}

fn decide(callgrind: &Callgrind) -> Result<()> {
    check(&[("decide", workload::count_decide(callgrind)?)])
}

fn pack(callgrind: &Callgrind) -> Result<()> {
    check(&[("pack", workload::count_pack(callgrind, &block_on(workload::record())?)?)])
}

fn server(callgrind: &Callgrind) -> Result<()> {
    let counted = block_on(counts::server(callgrind, &build::server_bin(false)?))?;
    check(&[("server: a payment alone", counted.alone), ("server: a payment of a batch", counted.batched)])
}

fn redis(callgrind: &Callgrind) -> Result<()> {
    let counts::RedisCounts { instructions, journal_bytes } = block_on(counts::redis(callgrind))?;
    check(&[
        ("redis: a payment alone", instructions.alone),
        ("redis: a payment of a batch", instructions.batched),
        ("journal: bytes of an event", journal_bytes.event),
        ("journal: bytes of a row", journal_bytes.row),
    ])
}

/// A rise fails, and a fall may be written down.
fn check(counts: &[(&str, u64)]) -> Result<()> {
    let mut dearer = Vec::new();
    for (name, counted) in counts {
        let expected = EXPECTED.iter().find(|(own, _)| own == name).map_or(0, |(_, expected)| *expected);
        println!("{name}: {counted}, {expected} are expected");
        let place = format!("write {counted} into EXPECTED of tests/counts/main.rs");
        if counted * 100 > expected * (100 + RISE_MAX) {
            dearer.push(format!("{name}: {counted}, {expected} are expected. If it has to be so, {place}"));
        } else if counted * (100 + RISE_MAX) < expected * 100 {
            println!("{name} has become cheaper: {place}");
        }
    }
    if dearer.is_empty() { Ok(()) } else { Err(Failure::new(dearer.join("\n"))) }
}

fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    Builder::new_current_thread().enable_all().build()?.block_on(work)
}
