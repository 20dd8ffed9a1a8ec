//! A real Envoy with the shipped configuration between the clients of a run, its decision server and its gateway.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::client::{Clients, Lanes};
use super::gateway::EchoGateway;
use super::judge::{self, Rigour, Watch};
use super::ledger::{Ledger, Tally};
use super::order::{Leaves, Route};
use super::orders::{Mix, Orders};
use super::server::Decider;
use super::swap::{Discovered, Swap};
use testkit::build;
use testkit::client::Call;
use testkit::dirs::RunDir;
use testkit::envoy::{Envoy, EnvoyConfig, Host};
use testkit::fake::FakeServer;
use testkit::stack::StackOptions;
use testkit::wait;
use testkit::{Context, Failure, Result};

/// So long a question may wait where no question is to fail for want of time.
pub(super) const PATIENCE_MS: u32 = 20_000;
/// And where the server fails it: as shipped.
const PROMPT_MS: u32 = 500;

/// Requests come to Envoy at once; a busy machine takes its time.
const HELD_WITHIN: Duration = Duration::from_secs(20);

/// How to start.
#[derive(Clone, Copy, Debug)]
pub struct RigOptions {
    pub seed: u32,
    pub mix: Mix,
    /// Orders that are sent at most.
    pub orders: u64,
    /// Envoy's workers.
    pub workers: u32,
    /// Questions are answered or fail within the shipped half second, not within a busy machine's time.
    pub prompt: bool,
    /// Most questions in a call; the filter's own default where there is none.
    pub batch_max: Option<u32>,
    /// A part of the configuration that Envoy discovers and that can be swapped.
    pub swap: Option<Swap>,
    /// A last change to Envoy's configuration.
    pub change: Option<fn(&mut EnvoyConfig) -> Result<()>>,
    /// The module that traps where a request asks for it, instead of the shipped one.
    pub traps: bool,
}

impl RigOptions {
    /// One worker with all the time that it needs, as shipped otherwise.
    #[must_use]
    pub fn patient(seed: u32, mix: Mix, orders: u64) -> Self {
        Self { seed, mix, orders, workers: 1, prompt: false, batch_max: None, swap: None, change: None, traps: false }
    }
}

/// A running rig.
#[derive(Debug)]
pub struct Rig {
    pub envoy: Envoy,
    pub(super) server: FakeServer<Decider>,
    pub(super) clients: Arc<Clients>,
    pub(super) ledger: Arc<Ledger>,
    pub(super) discovered: Option<Discovered>,
    orders: Orders,
    options: RigOptions,
    /// The server has held calls.
    held: AtomicBool,
    watch: Watch,
    _gateway: EchoGateway,
    dir: Arc<RunDir>,
}

impl Rig {
    /// Starts everything, within a runtime.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start(options: RigOptions) -> Result<Self> {
        let dir = RunDir::new("traffic")?;
        let started = Self::start_in(&dir, options);
        if started.is_err() {
            dir.keep();
        }
        started
    }

    fn start_in(dir: &Arc<RunDir>, options: RigOptions) -> Result<Self> {
        let orders = Orders { seed: options.seed, mix: options.mix, real: false };
        let ledger = Arc::new(Ledger::new(options.orders));
        let gateway = EchoGateway::start(orders, Arc::clone(&ledger))?;
        let server = FakeServer::start(Decider::new(orders, Arc::clone(&ledger)))?;
        let config = if options.traps {
            EnvoyConfig::shipped(&build::filter_wasm_trapping()?)?
        } else {
            EnvoyConfig::for_host(Host::chosen()?)?
        };
        let mut config = config.with_workers(options.workers);
        config.set_cluster("gateway", gateway.address)?;
        config.set_cluster("sluice_authz", server.address())?;
        config.set_plugin(&plugin(&options, options.batch_max)?)?;
        if let Some(change) = options.change {
            change(&mut config)?;
        }
        let discovered = options.swap.map(|swap| Discovered::new(swap, dir, &mut config)).transpose()?;
        let mut envoy = Envoy::start_in(Arc::clone(dir), config)?;
        if let Some(address) = discovered.as_ref().and_then(Discovered::address) {
            wait::until("the discovered listener", HELD_WITHIN, || Ok(wait::connect(address).ok().map(drop)))?;
        }
        let address = discovered.as_ref().and_then(Discovered::address).unwrap_or(envoy.address());
        let clients = Clients::new(address, orders, Arc::clone(&ledger));
        let watch = Watch::begin(&mut envoy, dir);
        let dir = Arc::clone(dir);
        let (held, _gateway) = (AtomicBool::default(), gateway);
        Ok(Self { envoy, server, clients, ledger, discovered, orders, options, held, watch, _gateway, dir })
    }

    /// The plugin configuration with another bound of a batch, to swap in. No two of them are alike: Envoy keeps on using a
    /// root context whose configuration it is given again while streams of it are there.
    pub(super) fn plugin(&self, batch_max: Option<u32>, version: u64) -> Result<Value> {
        let mut plugin = plugin(&self.options, batch_max)?;
        let lenient = plugin["rules"].as_array_mut().and_then(|rules| rules.last_mut());
        let lenient = lenient.ok_or_else(|| Failure::new("there are no rules"))?;
        lenient["name"] = format!("lenient-payments-{version}").into();
        Ok(plugin)
    }

    /// Sends so many orders more, and runs `with` meanwhile.
    ///
    /// # Errors
    /// That of `with`. What goes wrong with an order is reported by [`Rig::judge`].
    pub async fn send<F>(&self, lanes: Lanes, orders: u64, with: F) -> Result<()>
    where
        F: Future<Output = Result<()>>,
    {
        self.clients.send(lanes, orders, with).await.inspect_err(|_| self.dir.keep())
    }

    /// The server takes calls and answers none, or answers all that it holds.
    pub fn hold(&self, hold: bool) {
        self.held.fetch_or(hold, Ordering::Relaxed);
        self.server.script().hold(hold);
    }

    /// The server answers every second call only, or every one.
    pub fn lose_half(&self, lose: bool) {
        self.server.script().loses_half.store(lose, Ordering::Relaxed);
    }

    /// Waits until Envoy holds so many requests.
    ///
    /// # Errors
    /// When it does not come to that.
    pub async fn held(&self, requests: u32) -> Result<()> {
        wait::until_async(&format!("{requests} requests held"), HELD_WITHIN, || async {
            // The one that asks is counted too.
            Ok((self.envoy.metric("envoy_http_downstream_rq_active")? >= f64::from(requests + 1)).then_some(()))
        })
        .await
    }

    /// Waits until every client has left that leaves before it has an answer.
    ///
    /// # Errors
    /// When one does not leave.
    pub async fn left(&self) -> Result<()> {
        let gone = wait::until_async("the clients gone", HELD_WITHIN, || async {
            Ok(self.still_there().is_empty().then_some(()))
        });
        gone.await.context(format!("{:?}", self.still_there()))
    }

    /// Orders that have not ended though their clients leave before they have an answer.
    fn still_there(&self) -> Vec<String> {
        let sent = (0..self.clients.sent()).zip(self.ledger.pages());
        let open = sent.filter(|(_, page)| page.ended.is_none()).map(|(number, _)| self.orders.order(number));
        let open = open.filter(|order| !matches!(order.leaves, Leaves::Never | Leaves::AtTheHead));
        open.map(|order| order.to_string()).collect()
    }

    /// The request of an order, for a test that sends it by itself.
    #[must_use]
    pub fn call(&self, number: u64) -> Call {
        let order = self.orders.order(number);
        Call::post_json(order.route.path(), order.body())
    }

    /// How often an order came to the gateway.
    #[must_use]
    pub fn at_gateway(&self, number: u64) -> u32 {
        self.ledger.with(number, |page| page.at_gateway).unwrap_or_default()
    }

    /// Compares what all parts saw, and looks after the proxy.
    ///
    /// # Errors
    /// All that does not fit.
    pub async fn judge(&mut self) -> Result<Tally> {
        let judged = self.compare().await;
        judged.and_then(|tally| self.proxy_is_well().map(|()| tally)).inspect_err(|_| self.dir.keep())
    }

    /// Compares what all parts saw.
    pub(super) async fn compare(&self) -> Result<Tally> {
        let log = self.dir.join("access.log");
        let patient = !self.options.prompt;
        // A follow-up whose call is held, or whose root goes with its configuration, is sent again though the server
        // has received it.
        let once = patient && self.options.swap.is_none() && !self.held.load(Ordering::Relaxed);
        judge::judge(self.orders, &self.ledger, &log, Rigour { patient, once }).await
    }

    /// Envoy is the process that was started, with the VM that it was started with, and nothing in it was lost.
    pub(super) fn proxy_is_well(&mut self) -> Result<()> {
        self.watch.is_well(&mut self.envoy)
    }

    /// Keeps the logs where a scenario fails.
    pub fn keep(&self) {
        self.dir.keep();
    }
}

/// The shipped plugin configuration with a lenient route and the run's deadlines.
pub(super) fn plugin(options: &RigOptions, batch_max: Option<u32>) -> Result<Value> {
    let mut plugin = StackOptions::shipped_plugin()?;
    let timeout_ms = if options.prompt { PROMPT_MS } else { PATIENCE_MS };
    if let Some(batch_max) = batch_max {
        plugin["batch_max"] = batch_max.into();
    }
    let rules = plugin.get_mut("rules").and_then(Value::as_array_mut);
    let rules = rules.ok_or_else(|| Failure::new("the shipped configuration has no rules"))?;
    let mut lenient = rules.first().cloned().ok_or_else(|| Failure::new("the shipped configuration has no rule"))?;
    lenient["name"] = "lenient-payments".into();
    lenient["match"]["path"] = Route::Lenient.path().into();
    lenient["on_error"] = "allow".into();
    rules.push(lenient);
    for rule in rules {
        rule["timeout_ms"] = timeout_ms.into();
    }
    Ok(plugin)
}
