//! Other limiters behind Envoy's own filters, with the same payments: what they cost, and how much they admit past a known
//! limit. Environment variables say how to start them.

mod config;
mod sample;
mod spec;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

pub use sample::{Counting, serve_ext_authz, serve_rls};
pub use spec::{Kind, Peer};

use super::client;
use super::figures::{Cpu, Figures, Sample, Spread, ratio};
use super::merchants::{LOAD, RACE};
use super::plan::{Expect, Payers, Plan, Stop, Tally};
use super::race::{RACE_MIN, Race};
use super::rig::Rig;
use super::variant::{Patience, Variant};
use testkit::dirs::RunDir;
use testkit::envoy::Envoy;
use testkit::ports::{self, loopback, with_free_ports};
use testkit::process::{Process, Service};
use testkit::redis::Redis;
use testkit::wait;
use testkit::{Context, Result};

/// A peer may take so long until it listens.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// Each measurement is led in by this much unmeasured load.
const WARM_UP: Duration = Duration::from_millis(500);
/// The statuses that Envoy's filters refuse with.
const REFUSED: &[u16] = &[429, 403];

/// What a peer did.
#[derive(Clone, Debug, Serialize)]
pub struct PeerFigures {
    pub name: String,
    /// None for Sluice itself, which runs between them.
    pub kind: Option<Kind>,
    pub figures: Figures,
    /// Throughput of Sluice to the peer's, by Sluice's variant, round by round.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sluice_to_peer: BTreeMap<&'static str, Spread>,
    /// Sluice's own is among the run's races.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub race: Option<Race>,
    /// Payments far from any limit that were not admitted: each is a payment lost.
    pub lost: u64,
}

/// A running peer with its own Envoy and its own Redis.
struct Running {
    peer: Peer,
    envoy: Envoy,
    process: Process,
    redis: Redis,
    _dir: Arc<RunDir>,
}

/// Starts each peer and ends it again: one that does not start must not cost a run of half an hour.
pub(super) fn try_start(rig: &Rig, peers: &[Peer]) -> Result<()> {
    peers.iter().try_for_each(|peer| Running::start(rig, peer).map(drop).context(format!("the peer {}", peer.name)))
}

/// What runs between the peers.
const OWN: [Variant; 2] = [Variant::Sluice, Variant::SluiceNativeHost];

/// Measures each peer and Sluice in both hosts in rotated rounds, then lets each peer run the race.
pub(super) async fn run(rig: &mut Rig, peers: &[Peer]) -> Result<Vec<PeerFigures>> {
    let mut running = Vec::new();
    for peer in peers {
        running.push(Running::start(rig, peer).context(format!("the peer {}", peer.name))?);
    }
    let mut samples: Vec<Vec<Sample>> = vec![Vec::new(); running.len() + OWN.len()];
    for round in 0..rig.options.rounds {
        for turn in 0..samples.len() {
            let at = (round + turn) % samples.len();
            let own = at.checked_sub(running.len()).and_then(|own| OWN.get(own)).copied().unwrap_or(Variant::Sluice);
            let plan = plan(rig, own)?;
            let (name, sample) = match running.get_mut(at) {
                Some(peer) => (peer.peer.name.clone(), peer.measure(rig, plan).await?),
                None => (own.name().to_owned(), rig.measure(own.into(), plan).await?),
            };
            eprintln!("peers {}/{}  {name:<17} {}", round + 1, rig.options.rounds, sample.line());
            if let Some(samples) = samples.get_mut(at) {
                samples.push(sample);
            }
        }
    }
    let sluice = samples.split_off(running.len());
    let sluice: Vec<(&'static str, Vec<Sample>)> = OWN.iter().map(|variant| variant.name()).zip(sluice).collect();
    let mut figures = Vec::new();
    for (peer, samples) in running.iter_mut().zip(&samples) {
        let race = peer.race(rig).await?;
        let mut of_peer = peer_figures(&peer.peer.name, Some(peer.peer.kind), samples, Some(race));
        let to_peer = |own: &[Sample]| ratio(own, samples, |sample| sample.rps);
        of_peer.sluice_to_peer = sluice.iter().map(|(name, own)| (*name, to_peer(own))).collect();
        figures.push(of_peer);
    }
    figures.extend(sluice.iter().map(|(name, samples)| peer_figures(name, None, samples, None)));
    Ok(figures)
}

fn peer_figures(name: &str, kind: Option<Kind>, samples: &[Sample], race: Option<Race>) -> PeerFigures {
    let lost = samples.iter().map(|sample| sample.wrong).sum();
    let sluice_to_peer = BTreeMap::new();
    PeerFigures { name: name.to_owned(), kind, figures: Figures::of(samples), sluice_to_peer, race, lost }
}

/// The same payments for everybody: with the merchant as a header, which is all that a descriptor can be made of.
fn plan(rig: &mut Rig, variant: Variant) -> Result<Plan> {
    let payers = Payers { count: rig.options.merchants, ..LOAD };
    let plan = rig.plan(variant.into(), Stop::After(rig.options.duration), payers)?;
    Ok(Plan { merchant_header: true, ..plan })
}

impl Running {
    fn start(rig: &Rig, peer: &Peer) -> Result<Self> {
        let dir = RunDir::new(&format!("peer-{}", peer.name))?;
        let redis = Redis::start_in(Arc::clone(&dir))?;
        let (process, address) = with_free_ports(|| {
            let address = loopback(ports::free()?);
            let places = spec::Places { port: address.port(), redis_port: redis.port() };
            let mut command = Command::new("/bin/sh");
            command.arg("-c").arg(peer.command_line(&places, &dir)?).current_dir(dir.path());
            let mut process = Process::start(&peer.name, command, &dir.join("peer.log"))?;
            process.wait_ready(READY_WITHIN, || Ok(wait::connect(address).is_ok()))?;
            Ok((process, address))
        })?;
        let config = config::of(peer.kind, Patience::of(rig.options.release), rig.gateway(), address)?;
        let envoy = Envoy::start_in(Arc::clone(&dir), config)?;
        Ok(Self { peer: peer.clone(), envoy, process, redis, _dir: dir })
    }

    async fn measure(&mut self, rig: &mut Rig, plan: Plan) -> Result<Sample> {
        let plan = Plan { address: self.envoy.address(), ..plan };
        let warm_up = Plan { stop: Stop::After(WARM_UP), round: rig.next_round(), ..plan };
        client::run(warm_up).await?;
        let before = self.cpu(rig)?;
        let tally = client::run(plan).await?;
        let after = self.cpu(rig)?;
        Ok(Sample::new(&tally, &before, &after))
    }

    async fn race(&mut self, rig: &mut Rig) -> Result<Race> {
        let plan = plan(rig, Variant::Sluice)?;
        let plan = Plan {
            address: self.envoy.address(),
            stop: Stop::After(rig.options.duration.max(RACE_MIN)),
            payers: RACE,
            expect: Expect::Race { statuses: REFUSED },
            ..plan
        };
        let tally: Tally = client::run(plan).await?;
        Race::of(&self.peer.name, &tally)
    }

    fn cpu(&mut self, rig: &mut Rig) -> Result<Cpu> {
        let mut cpu = Cpu::default();
        cpu.processes.insert("envoy", self.envoy.cpu_time()?);
        cpu.processes.insert("gateway", rig.gateway_process().cpu_time()?);
        cpu.processes.insert("server", self.process.cpu_time()?);
        cpu.processes.insert("redis", self.redis.cpu_time()?);
        Ok(cpu)
    }
}
