//! The whole of Sluice on loopback: gateway, Redis, Postgres, server and Envoy, started in this order and stopped in the
//! reverse one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use quota::{Currency, MerchantId};
use serde::Serialize;
use serde_json::json;
use sluice_kit::secret::Secret;
use sluice_store::{RedisStore, RedisStoreConfig};

use crate::api::{self, Caller};
use crate::build;
use crate::client::{Answer, Call, Client, Protocol, send_once};
use crate::dirs::{self, RunDir};
use crate::envoy::{Envoy, EnvoyConfig, Host, RouteState};
use crate::failover;
use crate::failure::{Context, Failure, Result};
use crate::forward::Forwarder;
use crate::gateway::Gateway;
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::server::{Server, ServerOptions};

/// The server's own default.
const SHARDS_DEFAULT: u16 = 64;

/// How to start a stack. `StackOptions::default()` is what is shipped, with one Envoy worker and the debug server.
#[derive(Clone, Debug, Default)]
pub struct StackOptions {
    /// The optimised server; it takes minutes to build.
    pub release: bool,
    /// Valkey instead of the system's Redis.
    pub valkey: bool,
    /// Postgres flushes each commit to disk.
    pub durable: bool,
    /// Envoy's worker threads; 0 means 1.
    pub workers: u32,
    /// The text of the policy document; `deploy/policies.yaml` where there is none.
    pub policies: Option<String>,
    /// The plugin configuration, which is the server's rules document as well; the shipped one where there is none.
    pub plugin: Option<serde_json::Value>,
    /// More environment for the server, or other values than the harness's.
    pub server_env: BTreeMap<String, String>,
    /// A second server beside the first.
    pub two_servers: bool,
    /// The server reaches Redis through it.
    pub redis_through: Option<Forwarder>,
    /// What runs the filter; what the environment chooses where this says nothing.
    pub host: Option<Host>,
    /// A last change to Envoy's configuration.
    pub change: Option<fn(&mut EnvoyConfig) -> Result<()>>,
}

impl StackOptions {
    /// The shipped plugin configuration, to start from for [`StackOptions::plugin`].
    ///
    /// # Errors
    /// When `envoy/rules.json` cannot be read.
    pub fn shipped_plugin() -> Result<serde_json::Value> {
        let text = fs::read_to_string(dirs::workspace().join("envoy/rules.json")).context("envoy/rules.json")?;
        serde_json::from_str(&text).context("envoy/rules.json")
    }
}

/// A running stack. Its parts are public: tests stop, hang and restart them.
#[derive(Debug)]
pub struct Stack {
    pub envoy: Envoy,
    pub server: Server,
    pub postgres: Postgres,
    pub redis: Redis,
    pub gateway: Gateway,
    /// The second one, where the options say so.
    pub second: Option<Server>,
    /// By what the server reaches Redis, where the options say so.
    pub redis_through: Option<Forwarder>,
    admin_token: String,
    dir: Arc<RunDir>,
}

/// Where everything listens, as URLs; also the file that `--addresses` writes.
#[derive(Clone, Debug, Serialize)]
pub struct Addresses {
    pub envoy: String,
    pub envoy_admin: String,
    pub admin_api: String,
    pub grpc: String,
    pub redis: String,
    pub postgres: String,
    pub gateway: String,
    /// Opens the API under `/api/v1` of `admin_api`, for as long as the stack runs.
    pub admin_token: String,
}

impl Stack {
    /// Builds what is not built yet, finds the tools and starts everything.
    ///
    /// # Errors
    /// When a part cannot be built, found or started; the logs are kept then.
    pub fn start(options: &StackOptions) -> Result<Self> {
        let dir = RunDir::new("stack")?;
        let started = Self::start_in(&dir, options);
        if started.is_err() {
            dir.keep();
        }
        started
    }

    fn start_in(dir: &Arc<RunDir>, options: &StackOptions) -> Result<Self> {
        let config = EnvoyConfig::for_host(options.host.map_or_else(Host::chosen, Ok)?)?;
        let program = build::server_bin(options.release)?;
        let (redis, postgres) = start_stores(dir, options)?;
        let gateway = Gateway::start()?;
        let mut env = server_env(dir, options, &redis, &postgres)?;
        let secret = env.entry("JWT_SECRET".to_owned()).or_insert_with(|| api::secret().to_owned()).clone();
        let admin_token = api::sign(&secret, &json!({"sub": "ana", "role": "admin", "exp": api::EXPIRES_AT_SECS}))?;
        let server_options = ServerOptions { program, env, ..ServerOptions::default() };
        let server = Server::start_in(Arc::clone(dir), server_options.clone())?;
        let second =
            options.two_servers.then(|| Server::start_in(RunDir::new("second")?, server_options)).transpose()?;
        let mut config = config.with_workers(options.workers.max(1));
        config.set_cluster("gateway", gateway.address())?;
        let servers = [Some(&server), second.as_ref()].map(|server| server.map(Server::grpc_address));
        config.set_endpoints("sluice_authz", &servers.into_iter().flatten().collect::<Vec<_>>())?;
        if let Some(plugin) = &options.plugin {
            config.set_plugin(plugin)?;
        }
        if let Some(change) = options.change {
            change(&mut config)?;
        }
        let envoy = Envoy::start_in(Arc::clone(dir), config)?;
        let redis_through = options.redis_through.clone();
        Ok(Self { envoy, server, postgres, redis, gateway, second, redis_through, admin_token, dir: Arc::clone(dir) })
    }

    /// Where everything listens.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        Addresses {
            envoy: format!("http://{}", self.envoy.address()),
            envoy_admin: format!("http://{}", self.envoy.admin_address()),
            admin_api: format!("http://{}", self.server.admin_address()),
            grpc: format!("http://{}", self.server.grpc_address()),
            redis: self.redis.url(),
            postgres: self.postgres.url(),
            gateway: format!("http://{}", self.gateway.address()),
            admin_token: self.admin_token.clone(),
        }
    }

    /// A caller of the API who may do everything.
    #[must_use]
    pub fn caller(&self) -> Caller {
        Caller::new(self.server.admin_address(), &self.admin_token)
    }

    /// The run folder with all logs.
    #[must_use]
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }

    /// Sends one call through Envoy over a connection of its own.
    ///
    /// # Errors
    /// When the connection breaks or no answer comes.
    pub async fn send(&self, protocol: Protocol, call: Call) -> Result<Answer> {
        send_once(self.envoy.address(), protocol, call).await
    }

    /// A connection to Envoy for several calls.
    ///
    /// # Errors
    /// When Envoy does not listen.
    pub async fn client(&self, protocol: Protocol) -> Result<Client> {
        Client::connect(self.envoy.address(), protocol).await
    }

    /// The account as Redis has it; `None` where it was never charged.
    ///
    /// # Errors
    /// When the names are none, or Redis does not answer.
    pub async fn account(&self, merchant: &str, currency: &str) -> Result<Option<quota::Account>> {
        let shards = self.server.options_env("SLUICE_SHARDS").and_then(|text| text.parse().ok());
        let store = RedisStore::open(&RedisStoreConfig {
            url: Secret::new(self.redis.url()),
            shards: shards.unwrap_or(SHARDS_DEFAULT),
            timeout: Duration::from_secs(5),
        })?;
        Ok(store.account(&MerchantId::parse(merchant)?, Currency::parse(currency)?).await?)
    }

    /// Switches a route by its name in the route file, as an operator does, and returns when Envoy has taken the change.
    ///
    /// # Errors
    /// When there is no such route or Envoy does not take the file.
    pub fn switch_route(&mut self, name: &str, state: RouteState) -> Result<()> {
        let changed = crate::envoy::with_route(self.envoy.routes(), name, state)?;
        self.envoy.switch_routes(&changed)
    }

    /// Puts another policy document in the place of the one that the server reads (by rename).
    ///
    /// # Errors
    /// Those of the file system.
    pub fn replace_policies(&self, text: &str) -> Result<()> {
        let fresh = self.dir.join("policies.yaml.new");
        fs::write(&fresh, text)?;
        Ok(fs::rename(fresh, policies_file(&self.dir))?)
    }
}

fn policies_file(dir: &RunDir) -> PathBuf {
    dir.join("policies.yaml")
}

/// Redis and Postgres start side by side; Postgres takes the longest.
fn start_stores(dir: &Arc<RunDir>, options: &StackOptions) -> Result<(Redis, Postgres)> {
    std::thread::scope(|scope| {
        let postgres = scope.spawn(|| Postgres::start_in(Arc::clone(dir), options.durable));
        let redis =
            if options.valkey { Redis::start_valkey_in(Arc::clone(dir)) } else { Redis::start_in(Arc::clone(dir)) };
        let postgres = postgres.join().map_err(|_| Failure::new("the thread that started Postgres died"))?;
        Ok((redis?, postgres?))
    })
}

fn server_env(
    dir: &RunDir,
    options: &StackOptions,
    redis: &Redis,
    postgres: &Postgres,
) -> Result<BTreeMap<String, String>> {
    let policies = match &options.policies {
        Some(text) => text.clone(),
        None => fs::read_to_string(dirs::workspace().join("deploy/policies.yaml")).context("deploy/policies.yaml")?,
    };
    fs::write(policies_file(dir), policies)?;
    let rules = match &options.plugin {
        Some(plugin) => plugin.clone(),
        None => StackOptions::shipped_plugin()?,
    };
    fs::write(dir.join("rules.json"), rules.to_string())?;
    let redis_url = match &options.redis_through {
        Some(forwarder) => {
            forwarder.lead_to(failover::address(redis));
            format!("redis://{}/", forwarder.address())
        }
        None => redis.url(),
    };
    let mut env = BTreeMap::from([
        ("REDIS_URL".to_owned(), redis_url),
        ("DATABASE_URL".to_owned(), postgres.url()),
        ("SLUICE_POLICY_FILE".to_owned(), policies_file(dir).display().to_string()),
        ("SLUICE_RULES_FILE".to_owned(), dir.join("rules.json").display().to_string()),
    ]);
    env.extend(options.server_env.clone());
    Ok(env)
}
