//! `cargo soak`: the suite's orders by the thousand, as many as asked for.

use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bench::traffic::{SCENARIOS, Scale, Scenario, Tally};
use clap::Parser;
use testkit::{Context, Result};
use tokio::runtime::Builder;

/// Sends orders through real Envoy in every scenario of the suite's `thousands` and holds each answer against its own request.
/// Ends with an error where one was misdelivered, hung, lost or decided otherwise than it should have been. With `E2E_HOST=native` in
/// the environment the filter runs as a dynamic module.
#[derive(Debug, Parser)]
struct Arguments {
    /// Orders altogether, shared out among the scenarios as in the suite.
    #[arg(long, default_value_t = 300_000, value_parser = clap::value_parser!(u64).range(1_000..=100_000_000))]
    orders: u64,
    /// Which orders: the same seed sends the same ones.
    #[arg(long)]
    seed: Option<u32>,
    /// Only the scenarios whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
}

/// Orders that one start of a scenario sends at most: what all parts saw of each is kept until its end.
const ORDERS_PER_START_MAX: u64 = 50_000;

fn main() -> Result<ExitCode> {
    testkit::build::for_program("bench");
    let arguments = Arguments::parse();
    let chosen: Vec<&Scenario> = SCENARIOS.iter().filter(|own| own.name.contains(&arguments.only)).collect();
    let shares: u64 = chosen.iter().map(|scenario| scenario.orders).sum();
    // Another run, other orders.
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock")?;
    let seed = arguments.seed.unwrap_or_else(|| now.subsec_nanos());
    println!("seed {seed}");
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (mut all, mut failed) = (Tally::default(), 0);
    for scenario in chosen {
        let mut left = arguments.orders * scenario.orders / shares.max(1);
        let mut start_seed = seed;
        while left > 0 {
            let orders = left.min(ORDERS_PER_START_MAX);
            let began = Instant::now();
            let scale = Scale { orders, seed: start_seed, release: !cfg!(debug_assertions) };
            match runtime.block_on(scenario.run(scale)) {
                Ok(tally) => {
                    println!("{:<24} {:>6.1} s  {}", scenario.name, began.elapsed().as_secs_f64(), tally.line());
                    all.add(&tally);
                }
                Err(failure) => {
                    println!("{:<24} seed {start_seed}: FAILED: {failure}", scenario.name);
                    failed += 1;
                }
            }
            (left, start_seed) = (left - orders, start_seed.wrapping_add(1));
        }
    }
    println!("{:<24} {}", "all", all.line());
    if failed > 0 {
        println!("{failed} failed");
        return Ok(ExitCode::FAILURE);
    }
    println!("none misdelivered, hung or lost");
    Ok(ExitCode::SUCCESS)
}
