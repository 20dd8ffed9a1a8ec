//! The rig's servers: one Sluice, a gateway, a server that always allows, and an Envoy for each way that payments take, started
//! when it is first measured.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use sluice_store::keys;

use super::LoadOptions;
use super::books::Books;
use super::client;
use super::figures::{Cpu, Sample};
use super::merchants;
use super::plan::{Payers, Plan, Stop, Tally};
use super::variant::{Patience, Variant};
use testkit::api;
use testkit::build;
use testkit::dirs::RunDir;
use testkit::envoy::Envoy;
use testkit::ports::{self, loopback, with_free_ports};
use testkit::postgres::Postgres;
use testkit::process::{Process, Service};
use testkit::redis::Redis;
use testkit::server::{Server, ServerOptions};
use testkit::wait;
use testkit::{Failure, Result};

/// The number of shards that the server is started with.
pub(super) const SHARDS: u16 = 64;
/// Each measurement is led in by this much unmeasured load.
const WARM_UP: Duration = Duration::from_millis(500);
/// The journal may be this far behind at the end of a stretch.
const DRAINED_WITHIN: Duration = Duration::from_secs(120);
/// Rights are returned within a little more than their time, unless a report of theirs has to be repeated.
const RETURNED_WITHIN: Duration = Duration::from_secs(60);
/// Envoy's counter of payments that were admitted from rights.
const TRUSTED: &str = "sluice_trusted";
const READY_WITHIN: Duration = Duration::from_secs(20);

/// All servers of a run.
pub(super) struct Rig {
    pub(super) options: LoadOptions,
    envoys: BTreeMap<(Variant, u32), Envoy>,
    gateway: Own,
    allow: Own,
    pub(super) server: Server,
    pub(super) redis: Redis,
    pub(super) postgres: Postgres,
    pub(super) connection: MultiplexedConnection,
    round: u64,
    /// Everything that was charged so far.
    pub(super) books: Books,
    /// Accounts that exist without ever having been charged.
    pub(super) preloaded: u32,
    /// Rights that were not returned in time, and are not waited for again.
    unreturned: u64,
    _dir: Arc<RunDir>,
}

/// This program, started again as one of the rig's servers.
pub(super) struct Own {
    pub process: Process,
    pub address: SocketAddr,
}

impl Own {
    pub(super) fn start(options: &LoadOptions, role: &[&str], dir: &RunDir) -> Result<Self> {
        let name = role.first().copied().unwrap_or_default();
        with_free_ports(|| {
            let address = loopback(ports::free()?);
            let mut command = Command::new(&options.program);
            command.args(role).args(["--listen", &address.to_string()]);
            let mut process = Process::start(name, command, &dir.join(format!("{name}.log")))?;
            process.wait_ready(READY_WITHIN, || Ok(wait::connect(address).is_ok()))?;
            Ok(Self { process, address })
        })
    }
}

/// What a stretch goes through: its Envoy, and who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    pub variant: Variant,
    pub workers: u32,
}

impl From<Variant> for Way {
    fn from(variant: Variant) -> Self {
        Self { variant, workers: 1 }
    }
}

impl Rig {
    pub(super) async fn start(options: &LoadOptions) -> Result<Self> {
        let dir = RunDir::new("load")?;
        let gateway = Own::start(options, &["gateway"], &dir)?;
        let allow = Own::start(options, &["always-allow"], &dir)?;
        let redis = Redis::start_in(Arc::clone(&dir))?;
        let postgres = Postgres::start_in(Arc::clone(&dir), true)?;
        let server = start_server(options, &dir, &redis, &postgres)?;
        let connection = redis.connection().await?;
        Ok(Self {
            options: options.clone(),
            envoys: BTreeMap::new(),
            gateway,
            allow,
            server,
            redis,
            postgres,
            connection,
            round: 0,
            books: Books::default(),
            preloaded: 0,
            unreturned: 0,
            _dir: dir,
        })
    }

    pub(super) fn gateway(&self) -> SocketAddr {
        self.gateway.address
    }

    pub(super) fn gateway_process(&self) -> &Process {
        &self.gateway.process
    }

    pub(super) fn envoy(&mut self, way: Way) -> Result<&mut Envoy> {
        let Way { variant, workers } = way;
        if !self.envoys.contains_key(&(variant, workers)) {
            let decider = if variant.charges() { self.server.grpc_address() } else { self.allow.address };
            let config = variant.config(workers, self.options.release, self.gateway.address, decider)?;
            let envoy = Envoy::start_in(RunDir::new(variant.name())?, config)?;
            self.envoys.insert((variant, workers), envoy);
        }
        self.envoys.get_mut(&(variant, workers)).ok_or_else(|| Failure::new("an Envoy that was just started is gone"))
    }

    /// Keeps the orders of different stretches apart.
    pub(super) fn next_round(&mut self) -> u64 {
        self.round += 1;
        self.round
    }

    /// A stretch to start from: as fast as answers come, each payment of its own order.
    pub(super) fn plan(&mut self, way: Way, stop: Stop, payers: Payers) -> Result<Plan> {
        let address = self.envoy(way)?.address();
        Ok(Plan::new(address, self.options.connections, stop, payers, self.next_round()))
    }

    /// Runs a stretch after some unmeasured load of the same kind, with everybody's processor time. Where most answers are wrong,
    /// nothing is measured that is worth going on for.
    pub(super) async fn measure(&mut self, way: Way, plan: Plan) -> Result<Sample> {
        let warm_up = Plan { stop: Stop::After(WARM_UP), round: self.next_round(), ..plan };
        let warm_up = self.warm_up(way, warm_up).await?;
        let trusted = self.trusted(way)?;
        let before = self.cpu(way)?;
        let tally = self.run(way, plan).await?;
        if tally.wrong > tally.requests / 2 {
            let name = way.variant.name();
            return Err(Failure::new(format!("{name}: {} of {} answers are wrong", tally.wrong, tally.requests)));
        }
        let after = self.cpu(way)?;
        let mut sample = Sample::new(&tally, &before, &after);
        sample.wrong += warm_up.wrong;
        let trusted = trusted.zip(self.trusted(way)?).map(|(before, after)| after - before);
        sample.trusted = trusted.map(|trusted| trusted / tally.requests.max(1) as f64);
        Ok(sample)
    }

    /// Payments that were admitted from rights so far, where the rule is trusted.
    pub(super) fn trusted(&mut self, way: Way) -> Result<Option<f64>> {
        way.variant.trusts().then(|| self.envoy(way)?.metric(TRUSTED)).transpose()
    }

    /// Runs a stretch whose rights are kept: what is measured after it begins with them, as it would at any other moment.
    async fn warm_up(&mut self, way: Way, plan: Plan) -> Result<Tally> {
        let tally = client::run(plan).await?;
        if way.variant.charges() {
            self.books.enter(&tally);
            self.drained().await?;
        }
        Ok(tally)
    }

    /// Runs a stretch, books what it charged and waits until its events are in Postgres: what is still on its way there
    /// belongs to these payments too.
    pub(super) async fn run(&mut self, way: Way, plan: Plan) -> Result<Tally> {
        let tally = client::run(plan).await?;
        if way.variant.charges() {
            self.enter(&tally).await?;
        }
        Ok(tally)
    }

    /// Books what was charged, and waits until its rights are returned and its events are in Postgres.
    pub(super) async fn enter(&mut self, tally: &Tally) -> Result<()> {
        self.books.enter(tally);
        self.returned().await?;
        self.drained().await
    }

    /// Waits until no right is outstanding: then all payments that were admitted from rights are reported, and counters are what was
    /// charged. A right whose reports are lost is never returned; the comparison of the books has the difference.
    async fn returned(&mut self) -> Result<()> {
        let (connection, unreturned) = (&self.connection, self.unreturned);
        let outstanding = || async {
            let rights: Vec<u64> = of_shards("ZCARD", keys::rights).query_async(&mut connection.clone()).await?;
            Ok::<_, Failure>(rights.iter().sum::<u64>())
        };
        let returned = wait::until_async("rights are returned", RETURNED_WITHIN, || async {
            Ok((outstanding().await? <= unreturned).then_some(()))
        });
        if let Err(failure) = returned.await {
            self.unreturned = outstanding().await?;
            eprintln!("{failure}: {} are outstanding", self.unreturned);
        }
        Ok(())
    }

    /// Waits until no event is on its way to Postgres.
    pub(super) async fn drained(&self) -> Result<()> {
        let connection = &self.connection;
        wait::until_async("the journal has drained", DRAINED_WITHIN, || async {
            let waiting: Vec<u64> = of_shards("XLEN", keys::stream).query_async(&mut connection.clone()).await?;
            Ok((waiting.iter().sum::<u64>() == 0).then_some(()))
        })
        .await
    }

    fn cpu(&mut self, way: Way) -> Result<Cpu> {
        let mut cpu = Cpu::default();
        cpu.processes.insert("envoy", self.envoy(way)?.cpu_time()?);
        cpu.processes.insert("gateway", self.gateway.process.cpu_time()?);
        if way.variant.charges() {
            cpu.processes.insert("server", self.server.cpu_time()?);
            cpu.processes.insert("redis", self.redis.cpu_time()?);
            cpu.processes.insert("postgres", self.postgres.cpu_time()?);
            cpu.server_threads = self.server.process().thread_times();
        } else if way.variant == Variant::NativeAllow {
            cpu.processes.insert("server", self.allow.process.cpu_time()?);
        }
        Ok(cpu)
    }
}

/// A command for a key of each shard.
fn of_shards(command: &str, key: fn(u16) -> String) -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    for shard in 0..SHARDS {
        pipeline.cmd(command).arg(key(shard));
    }
    pipeline
}

fn start_server(options: &LoadOptions, dir: &Arc<RunDir>, redis: &Redis, postgres: &Postgres) -> Result<Server> {
    let policies = dir.join("policies.yaml");
    std::fs::write(&policies, merchants::policies())?;
    let env = [
        // All parts share a machine, as where Redis runs beside the server.
        ("REDIS_URL", redis.local_url()),
        ("DATABASE_URL", postgres.url()),
        ("SLUICE_POLICY_FILE", policies.display().to_string()),
        ("SLUICE_SHARDS", SHARDS.to_string()),
        ("SLUICE_BIND", "127.0.0.1".to_owned()),
        ("JWT_SECRET", api::secret().to_owned()),
    ];
    let env = env.into_iter().chain(Patience::of(options.release).server_env());
    let env = env.map(|(name, value)| (name.to_owned(), value)).collect();
    let program = build::server_bin(options.release)?;
    Server::start_in(Arc::clone(dir), ServerOptions { program, env, ..ServerOptions::default() })
}
