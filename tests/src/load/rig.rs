//! The rig's servers: one Envoy for each variant, all in front of the same gateway, and one Sluice.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use authz_server::store::keys;
use redis::aio::MultiplexedConnection;

use super::client::Tally;
use super::report::Memory;
use super::{LoadOptions, RACE_MERCHANT, RACE_ROOM};
use crate::build;
use crate::dirs::RunDir;
use crate::envoy::{Envoy, EnvoyConfig};
use crate::failure::{Failure, Result};
use crate::ports::{self, loopback, with_free_ports};
use crate::postgres::Postgres;
use crate::process::{Process, Service};
use crate::redis::Redis;
use crate::server::{Server, ServerOptions};
use crate::wait;

/// What payments go through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Variant {
    /// Envoy without a filter.
    Envoy,
    /// The filter reads the charge and asks nobody.
    ParseOnly,
    /// Envoy's own ext_authz filter and a server that always allows.
    NativeAllow,
    /// The filter, the server, Redis, and the journal draining to Postgres.
    Sluice,
}

impl Variant {
    /// In the order of the report.
    pub const ALL: [Self; 4] = [Self::Envoy, Self::ParseOnly, Self::NativeAllow, Self::Sluice];

    /// The name in figures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::ParseOnly => "parse_only",
            Self::NativeAllow => "native_allow",
            Self::Sluice => "sluice",
        }
    }
}

/// Processor time so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cpu {
    envoys: [Duration; 4],
    allow: Duration,
    server: Duration,
    redis: Duration,
    postgres: Duration,
}

/// One measurement.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub rps: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// Microseconds per request.
    pub envoy_us: f64,
    pub server_us: f64,
    pub redis_us: f64,
    pub postgres_us: f64,
    pub wrong: u64,
}

impl Sample {
    pub(super) fn new(variant: Variant, tally: &Tally, warm_up: &Tally, before: Cpu, after: Cpu) -> Self {
        let requests = tally.requests.max(1) as f64;
        let each = |from: Duration, to: Duration| to.saturating_sub(from).as_secs_f64() * 1e6 / requests;
        let index = variant as usize;
        let (server_from, server_to) = match variant {
            Variant::NativeAllow => (before.allow, after.allow),
            Variant::Envoy | Variant::ParseOnly | Variant::Sluice => (before.server, after.server),
        };
        Self {
            rps: tally.requests as f64 / tally.elapsed.as_secs_f64(),
            p50_ms: tally.latency.value_at_quantile(0.5) as f64 / 1e3,
            p99_ms: tally.latency.value_at_quantile(0.99) as f64 / 1e3,
            envoy_us: each(before.envoys[index], after.envoys[index]),
            server_us: each(server_from, server_to),
            redis_us: each(before.redis, after.redis),
            postgres_us: each(before.postgres, after.postgres),
            wrong: tally.wrong + warm_up.wrong,
        }
    }

    pub(super) fn line(&self) -> String {
        format!("{:>8.0} req/s  p50 {:>6.2} ms  p99 {:>6.2} ms", self.rps, self.p50_ms, self.p99_ms)
    }
}

/// All servers of a run.
pub(super) struct Rig {
    /// In the order of [`Variant::ALL`].
    envoys: [Envoy; 4],
    allow: Process,
    server: Server,
    pub(super) redis: Redis,
    pub(super) postgres: Postgres,
    connection: MultiplexedConnection,
    round: u64,
    /// Admitted payments of each merchant, over all stretches.
    pub(super) admitted: Vec<u64>,
    pub(super) race_admitted: u64,
    _gateway: Process,
}

/// Every path goes to the gateway through whatever filters there are.
const ROUTES: &str = r#"
resources:
  - "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
    name: payments
    virtual_hosts:
      - {name: payments, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: gateway, timeout: 5s}}]}
"#;
/// The number of shards that the server is started with.
pub(super) const SHARDS: u16 = 64;

impl Rig {
    pub(super) async fn start(options: &LoadOptions) -> Result<Self> {
        let dir = RunDir::new("load")?;
        let (gateway, gateway_address) = own_server(options, "gateway", &dir)?;
        let (allow, allow_address) = own_server(options, "always-allow", &dir)?;
        let redis = Redis::start_in(Arc::clone(&dir))?;
        let postgres = Postgres::start_in(Arc::clone(&dir), true)?;
        let server = start_server(options, &dir, &redis, &postgres)?;
        let mut envoys = Vec::new();
        for variant in Variant::ALL {
            let decider = if variant == Variant::Sluice { server.grpc_address() } else { allow_address };
            let mut config = config(variant)?;
            config.set_routes(ROUTES);
            config.set_cluster("gateway", gateway_address)?;
            config.set_cluster("sluice_authz", decider)?;
            envoys.push(Envoy::start_in(RunDir::new(variant.name())?, config)?);
        }
        let connection = redis.connection().await?;
        Ok(Self {
            envoys: envoys.try_into().map_err(|_| Failure::new("not as many Envoys as variants"))?,
            allow,
            server,
            redis,
            postgres,
            connection,
            round: 0,
            admitted: Vec::new(),
            race_admitted: 0,
            _gateway: gateway,
        })
    }

    pub(super) fn address(&self, variant: Variant) -> SocketAddr {
        self.envoys[variant as usize].address()
    }

    pub(super) fn next_round(&mut self) -> u64 {
        self.round += 1;
        self.round
    }

    pub(super) fn cpu(&mut self) -> Result<Cpu> {
        let mut envoys = [Duration::ZERO; 4];
        for (cpu, envoy) in envoys.iter_mut().zip(&mut self.envoys) {
            *cpu = envoy.cpu_time()?;
        }
        Ok(Cpu {
            envoys,
            allow: self.allow.cpu_time()?,
            server: self.server.cpu_time()?,
            redis: self.redis.cpu_time()?,
            postgres: self.postgres.cpu_time()?,
        })
    }

    /// Books what a stretch charged, and waits until its events are in Postgres.
    pub(super) async fn settle(&mut self, variant: Variant, tally: &Tally) -> Result<()> {
        if variant != Variant::Sluice {
            return Ok(());
        }
        match tally.plan.merchants {
            0 => self.race_admitted += tally.admitted,
            _ => book(&mut self.admitted, &tally.by_merchant),
        }
        let connection = &self.connection;
        wait::until_async("the journal has drained", DRAINED_WITHIN, || async {
            let waiting: Vec<u64> = streams().query_async(&mut connection.clone()).await?;
            Ok((waiting.iter().sum::<u64>() == 0).then_some(()))
        })
        .await
    }

    /// What Redis spends on one account and on one order, as its own `MEMORY USAGE` counts it.
    pub(super) async fn memory(&mut self) -> Result<Memory> {
        let account = self.average_bytes("sluice:*:a:*").await?;
        let order = self.average_bytes("sluice:*:o:*").await?;
        Ok(Memory { account_bytes: account, order_bytes: order })
    }

    async fn average_bytes(&mut self, pattern: &str) -> Result<f64> {
        let (_, keys): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(0)
            .arg("MATCH")
            .arg(pattern)
            .arg("COUNT")
            .arg(SCANNED_KEYS)
            .query_async(&mut self.connection)
            .await?;
        let mut bytes = 0_u64;
        for key in &keys {
            bytes += redis::cmd("MEMORY").arg("USAGE").arg(key).query_async::<u64>(&mut self.connection).await?;
        }
        if keys.is_empty() {
            Err(Failure::new(format!("no key like {pattern}")))
        } else {
            Ok(bytes as f64 / keys.len() as f64)
        }
    }
}

/// The journal may be this far behind at the end of a stretch.
const DRAINED_WITHIN: Duration = Duration::from_secs(120);
/// Keys looked at for the memory figures.
const SCANNED_KEYS: u32 = 20_000;

fn streams() -> redis::Pipeline {
    let mut pipeline = redis::pipe();
    for shard in 0..SHARDS {
        pipeline.cmd("XLEN").arg(keys::stream(shard));
    }
    pipeline
}

fn book(sums: &mut Vec<u64>, more: &[u32]) {
    sums.resize(sums.len().max(more.len()), 0);
    for (sum, more) in sums.iter_mut().zip(more) {
        *sum += u64::from(*more);
    }
}

fn config(variant: Variant) -> Result<EnvoyConfig> {
    let filter = match variant {
        Variant::ParseOnly => build::filter_wasm_parse_only()?,
        Variant::Envoy | Variant::NativeAllow | Variant::Sluice => build::filter_wasm()?,
    };
    let mut config = EnvoyConfig::shipped(&filter)?;
    match variant {
        Variant::ParseOnly | Variant::Sluice => {}
        Variant::Envoy => config.remove_http_filter("sluice")?,
        Variant::NativeAllow => {
            config.remove_http_filter("sluice")?;
            let ext_authz = config.http_filter("envoy.filters.http.ext_authz")?;
            ext_authz["disabled"] = false.into();
            // The peer at its best: it is not even shown the body.
            ext_authz["typed_config"]["with_request_body"] = serde_yaml_ng::Value::Null;
        }
    }
    Ok(config)
}

fn start_server(options: &LoadOptions, dir: &Arc<RunDir>, redis: &Redis, postgres: &Postgres) -> Result<Server> {
    let policies = dir.join("policies.yaml");
    std::fs::write(&policies, policies_text())?;
    let env = [
        ("REDIS_URL", redis.url()),
        ("DATABASE_URL", postgres.url()),
        ("SLUICE_POLICY_FILE", policies.display().to_string()),
        ("SLUICE_SHARDS", SHARDS.to_string()),
        ("SLUICE_BIND", "127.0.0.1".to_owned()),
    ];
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let program = build::server_bin(options.release)?;
    Server::start_in(Arc::clone(dir), ServerOptions { program, env, ..ServerOptions::default() })
}

/// Limits that the comparison never meets, so that every payment is decided and charged, and one that the race does.
fn policies_text() -> String {
    format!(
        "version: load\ndefault: {{single_max: 100000000, daily_amount: 9000000000000000}}\n\
         merchants: {{{RACE_MERCHANT}: {{yearly_count: {RACE_ROOM}}}}}\n"
    )
}

/// Starts this program again as one of the rig's servers.
fn own_server(options: &LoadOptions, role: &str, dir: &RunDir) -> Result<(Process, SocketAddr)> {
    with_free_ports(|| {
        let address = loopback(ports::free()?);
        let mut command = Command::new(&options.program);
        command.args([role, "--listen", &address.to_string()]);
        let mut process = Process::start(role, command, &dir.join(format!("{role}.log")))?;
        process.wait_ready(READY_WITHIN, || Ok(wait::connect(address).is_ok()))?;
        Ok((process, address))
    })
}

const READY_WITHIN: Duration = Duration::from_secs(20);
