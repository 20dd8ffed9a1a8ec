//! What is tried with orders by the thousand. The suite runs each for a moment, `cargo soak` for as many orders as it is
//! given.

use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::time::Duration;
use testkit::ensure;

use super::client::Lanes;
use super::ledger::Tally;
use super::orders::Mix;
use super::real;
use super::rig::{Rig, RigOptions};
use super::swap::Swap;
use testkit::wait;
use testkit::{Failure, Result};

/// How much to send.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    pub orders: u64,
    /// Sets the orders of a run apart from those of others.
    pub seed: u32,
    /// The optimised server, where a real one is asked.
    pub release: bool,
}

type Running = Pin<Box<dyn Future<Output = Result<Tally>> + Send>>;

/// One kind of run.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// Orders that the suite sends.
    pub orders: u64,
    run: fn(Scale) -> Running,
}

impl Scenario {
    /// Runs to the end and compares everything.
    ///
    /// # Errors
    /// What was misdelivered, hung, lost or decided otherwise than it should have been.
    pub async fn run(&self, scale: Scale) -> Result<Tally> {
        (self.run)(scale).await
    }
}

/// Every scenario.
pub const SCENARIOS: &[Scenario] = &[
    Scenario { name: "everything_at_once", orders: 6_000, run: |scale| Box::pin(everything(scale, 1, None)) },
    Scenario { name: "with_three_workers", orders: 3_000, run: |scale| Box::pin(everything(scale, 3, None)) },
    Scenario { name: "one_call_each", orders: 2_000, run: |scale| Box::pin(everything(scale, 1, Some(1))) },
    Scenario { name: "two_to_a_call", orders: 2_000, run: |scale| Box::pin(everything(scale, 1, Some(2))) },
    Scenario { name: "a_server_that_fails", orders: 5_000, run: |scale| Box::pin(failing(scale)) },
    Scenario { name: "the_filter_is_swapped", orders: 5_000, run: |scale| Box::pin(swapped(scale, Swap::Filter)) },
    Scenario { name: "the_listener_is_swapped", orders: 3_000, run: |scale| Box::pin(swapped(scale, Swap::Listener)) },
    Scenario { name: "the_whole_of_it", orders: 4_000, run: |scale| Box::pin(real::run(scale)) },
];

/// Connections of a run: as many requests at a time as make full batches.
pub(super) const LANES: Lanes = Lanes { http1: 32, http2: 3, streams: 16 };
/// Swaps of the configuration during a run.
const SWAPS: u64 = 8;
/// Where a question has half a second: that, a busy machine, and less than the answers that come late.
const UNANSWERED_MAX: Duration = Duration::from_millis(1_400);
/// And with the gateway.
const ANSWERED_MAX: Duration = Duration::from_secs(2);
/// Longer than a run takes to get on.
const GETS_ON_WITHIN: Duration = Duration::from_secs(600);

async fn everything(scale: Scale, workers: u32, batch_max: Option<u32>) -> Result<Tally> {
    let patient = RigOptions::patient(scale.seed, Mix::ALL, scale.orders);
    let mut rig = Rig::start(RigOptions { workers, batch_max, ..patient })?;
    rig.send(LANES, scale.orders, async { Ok(()) }).await?;
    let tally = rig.judge().await?;
    let largest = tally.batches.last_key_value().map_or(0, |(size, _)| *size);
    let bound = usize::try_from(batch_max.unwrap_or(32))?;
    ensure!(largest <= bound, "a batch of {largest}: {}", tally.line());
    ensure!(batch_max == Some(1) || largest > 1, "nothing was asked in batches: {}", tally.line());
    Ok(tally)
}

/// Every eighth call fails in some way; payments are answered within the shipped deadline all the same.
async fn failing(scale: Scale) -> Result<Tally> {
    let patient = RigOptions::patient(scale.seed, Mix::ALL, scale.orders);
    let mut rig = Rig::start(RigOptions { prompt: true, ..patient })?;
    rig.server.script().set_faulty(true);
    rig.send(LANES, scale.orders, async { Ok(()) }).await?;
    // Every void and capture that is still due reaches the server now.
    rig.server.script().set_faulty(false);
    let tally = rig.judge().await?;
    let prompt = tally.longest < ANSWERED_MAX && tally.longest_unanswered < UNANSWERED_MAX;
    ensure!(prompt && tally.unanswered > 0, "not in time: {}", tally.line());
    Ok(tally)
}

/// The configuration is exchanged while payments wait, are asked about and are at the gateway; none of them notices.
async fn swapped(scale: Scale, swap: Swap) -> Result<Tally> {
    const WORKERS: u32 = 2;
    let patient = RigOptions::patient(scale.seed, Mix::ALL, scale.orders);
    let mut rig = Rig::start(RigOptions { workers: WORKERS, swap: Some(swap), ..patient })?;
    let bounds = [Some(1), Some(32), Some(2), None].into_iter().cycle();
    let plugins = (1..=SWAPS).zip(bounds).map(|(step, batch_max)| Ok((step, rig.plugin(batch_max, step)?)));
    let plugins = plugins.collect::<Result<Vec<_>>>()?;
    let mut discovered = rig.discovered.take();
    let clients = std::sync::Arc::clone(&rig.clients);
    let swapping = async {
        let Some(discovered) = &mut discovered else { return Ok(()) };
        for (step, plugin) in &plugins {
            let from = scale.orders * step / (SWAPS + 1);
            wait::until_async("payments before a swap", GETS_ON_WITHIN, || async {
                Ok((clients.taken() >= from).then_some(()))
            })
            .await?;
            discovered.swap(plugin, WORKERS).await?;
        }
        Ok(())
    };
    rig.send(LANES, scale.orders, swapping).await?;
    rig.judge().await
}

/// A server that answers a batch in another order delivers every answer to the wrong stream: a run must say so.
///
/// # Errors
/// When nothing was noticed, or nothing could have been.
pub async fn misdelivered_answers_are_noticed() -> Result<()> {
    const ORDERS: u64 = 500;
    let rig = Rig::start(RigOptions::patient(1, Mix::CALM, ORDERS))?;
    rig.server.script().shuffles.store(true, Ordering::Relaxed);
    rig.send(LANES, ORDERS, async { Ok(()) }).await?;
    match rig.compare().await {
        Err(failure) if failure.to_string().contains("MISDELIVERED") => Ok(()),
        Err(failure) => Err(failure.while_doing("the run noticed no misdelivered answer")),
        Ok(tally) => Err(Failure::new(format!("the run noticed no misdelivered answer: {}", tally.line()))),
    }
}
