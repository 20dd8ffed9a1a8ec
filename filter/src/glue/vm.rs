//! What one worker's VM keeps: configurations, streams, calls under way, voids and metrics.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{metadata, mode_word};
use crate::abi::{self, Buffer, HostError, Level, Map, MetricKind};
use crate::config::{CONFIG_BYTES_MAX, Plugin};
use crate::machine::{Action, Effect, Event, Failed, RequestHead, Stream, drive};
use crate::record::STATE_NAME;
use crate::stats::{self, Stat};
use crate::voids::{TICK_MS, VOID_TIMEOUT_MS, Void, Voids};
use crate::wire::{self, Reply};

/// What a call to the server was for.
enum Call {
    /// A stream waits for it.
    Check { context: u32, since_nanos: u64 },
    /// Sent for this root context.
    Void { root: u32, void: Void },
}

/// A root context: one configuration of the plugin.
#[derive(Default)]
struct Root {
    plugin: Option<Rc<Plugin>>,
    warned_mode: bool,
}

/// A stream's context.
struct Http {
    root: u32,
    stream: Stream,
    /// The token of its check, once there is one.
    token: Option<u32>,
}

/// Everything that one worker's VM knows.
#[derive(Default)]
pub(super) struct Vm {
    roots: BTreeMap<u32, Root>,
    streams: BTreeMap<u32, Http>,
    services: Services,
}

/// What all streams share.
#[derive(Default)]
struct Services {
    /// Random, so that attempts of different workers and proxies differ.
    attempt_prefix: Option<u64>,
    attempts: u64,
    calls: BTreeMap<u32, Call>,
    voids: Voids,
    counters: BTreeMap<Stat, u32>,
    rules_enforcing: Option<u32>,
    check_ms: Option<u32>,
}

impl Vm {
    pub(super) fn stream(&self, context: u32) -> Option<&Stream> {
        self.streams.get(&context).map(|http| &http.stream)
    }

    pub(super) fn create(&mut self, context: u32, root: u32) {
        if root == 0 {
            self.roots.insert(context, Root::default());
            return;
        }
        // Without a configuration there is no stream, and its requests stay paused: Envoy does not send any.
        let Some(plugin) = self.roots.get(&root).and_then(|root| root.plugin.clone()) else {
            return;
        };
        let Some(attempt) = self.services.next_attempt() else {
            return;
        };
        self.streams.insert(context, Http { root, stream: Stream::new(plugin, attempt), token: None });
    }

    pub(super) fn delete(&mut self, context: u32) {
        if let Some(token) = self.streams.remove(&context).and_then(|http| http.token) {
            self.services.calls.remove(&token);
        }
        if self.roots.remove(&context).is_some() {
            self.services.forsake(context);
        }
    }

    pub(super) fn configure(&mut self, root: u32, size: usize) -> Result<(), String> {
        if size > CONFIG_BYTES_MAX {
            return Err(format!("it has {size} bytes, at most {CONFIG_BYTES_MAX} are read"));
        }
        let unreadable = |HostError(status)| format!("the proxy does not hand it out (status {status})");
        let text = abi::buffer(Buffer::PluginConfiguration, size).map_err(unreadable)?.unwrap_or_default();
        let plugin = Plugin::parse(&text)?;
        self.services.start()?;
        let no_tick = |HostError(status)| format!("the proxy sets no timer for voids (status {status})");
        abi::set_tick_period(TICK_MS).map_err(no_tick)?;
        self.services.record(self.services.rules_enforcing, plugin.enforcing());
        let rules = plugin.rules.rules().len();
        abi::log(Level::Info, &format!("sluice: configured, rules={rules} enforcing={}", plugin.enforcing()));
        let own = self.roots.entry(root).or_default();
        *own = Root { plugin: Some(Rc::new(plugin)), warned_mode: false };
        Ok(())
    }

    /// Voids of every root wait in one queue, and the newest root's tick serves it: it outlives the older ones.
    pub(super) fn tick(&mut self, root: u32) {
        if self.roots.last_key_value().is_some_and(|(newest, _)| *newest == root) {
            for void in self.services.voids.tick() {
                self.services.count(Stat::VoidRetried);
                self.services.send_void(root, void);
            }
        }
    }

    pub(super) fn request_headers(&mut self, context: u32, end: bool) -> Action {
        match abi::headers(Map::RequestHeaders) {
            Ok(headers) => {
                let head = RequestHead { headers, mode: mode_word(), metadata: &metadata };
                self.event(context, Event::RequestHeaders { head, end })
            }
            Err(HostError(_)) => self.event(context, Event::HostFailed),
        }
    }

    pub(super) fn event(&mut self, context: u32, event: Event<'_>) -> Action {
        let Some(http) = self.streams.get_mut(&context) else {
            return Action::Pause;
        };
        let warned = self.roots.get_mut(&http.root).map(|root| &mut root.warned_mode);
        let plugin = http.stream.plugin();
        let token = &mut http.token;
        let mut hands = Hands { services: &mut self.services, context, root: http.root, plugin, token, warned };
        drive(&mut http.stream, event, &mut |effect| hands.perform(effect).map_err(|HostError(_)| Failed))
    }

    pub(super) fn answered(&mut self, token: u32, grpc_status: u32, message: Option<&[u8]>) {
        match self.services.calls.remove(&token) {
            Some(Call::Check { context, since_nanos }) => {
                // Answers come to the root context. If the stream cannot be reached it stays paused, and at its end its
                // attempt is voided.
                if abi::set_effective_context(context).is_err() {
                    self.services.count(Stat::HostFailed);
                    return abi::log(Level::Error, "sluice: the proxy does not know the stream of an answer");
                }
                let check_ms = abi::now_nanos().saturating_sub(since_nanos).checked_div(1_000_000).unwrap_or_default();
                self.event(context, Event::Reply { grpc_status, message, check_ms });
            }
            Some(Call::Void { void, .. }) => match wire::reply(grpc_status, message) {
                // On shadow routes a store that is away is a pass, too.
                Reply::Pass { code, .. } if code.http_status() == 200 => {}
                Reply::Pass { .. } | Reply::Refuse { .. } | Reply::None(_) => self.services.retry_void(void),
            },
            None => {}
        }
    }
}

/// Carries out the effects of one stream.
struct Hands<'a> {
    services: &'a mut Services,
    context: u32,
    root: u32,
    plugin: Rc<Plugin>,
    token: &'a mut Option<u32>,
    warned: Option<&'a mut bool>,
}

impl Hands<'_> {
    fn perform(&mut self, effect: Effect) -> Result<(), HostError> {
        match effect {
            Effect::StripHeader(name) => abi::remove_request_header(&name),
            Effect::SetHeader { name, value } => abi::set_request_header(&name, &value),
            Effect::Ask { message, timeout_ms } => self.ask(&message, timeout_ms),
            Effect::Resume => abi::resume_request(),
            Effect::Respond { status, headers, body } => abi::respond(status, &headers, &body),
            Effect::Reset => abi::reset_request(),
            Effect::Void(void) => {
                self.services.count(Stat::VoidSent);
                self.services.send_void(self.root, Void { tries: 1, ..void });
                Ok(())
            }
            Effect::Show(text) => abi::set_state(STATE_NAME, text.as_bytes()),
            Effect::Count(stat) => {
                self.services.count(stat);
                Ok(())
            }
            Effect::ObserveCheck(millis) => {
                self.services.record(self.services.check_ms, millis);
                Ok(())
            }
            Effect::WarnMode => {
                self.warn_mode();
                Ok(())
            }
        }
    }

    fn ask(&mut self, message: &[u8], timeout_ms: u32) -> Result<(), HostError> {
        let since_nanos = abi::now_nanos();
        let token = abi::grpc_call(&self.plugin.cluster, message, timeout_ms)?;
        self.services.calls.insert(token, Call::Check { context: self.context, since_nanos });
        *self.token = Some(token);
        Ok(())
    }

    fn warn_mode(&mut self) {
        if let Some(warned) = self.warned.as_mut().filter(|warned| !***warned) {
            **warned = true;
            abi::log(
                Level::Warn,
                "sluice: a route's metadata names an unknown mode; it is enforced (modes: enforce, shadow, off)",
            );
        }
    }
}

impl Services {
    /// Once per VM: random bytes for attempt ids, and the metrics.
    fn start(&mut self) -> Result<(), String> {
        if self.attempt_prefix.is_none() {
            let prefix =
                getrandom::u64().map_err(|error| format!("there is no randomness for attempt ids: {error}"))?;
            self.attempt_prefix = Some(prefix);
            for stat in Stat::ALL {
                let id = abi::define_metric(MetricKind::Counter, stat.name());
                self.counters.extend(id.ok().map(|id| (stat, id)));
            }
            self.rules_enforcing = abi::define_metric(MetricKind::Gauge, stats::RULES_ENFORCING).ok();
            self.check_ms = abi::define_metric(MetricKind::Histogram, stats::CHECK_MS).ok();
        }
        Ok(())
    }

    fn next_attempt(&mut self) -> Option<u128> {
        let prefix = self.attempt_prefix?;
        self.attempts = self.attempts.checked_add(1)?;
        Some((u128::from(prefix) << 64) | u128::from(self.attempts))
    }

    /// Whatever context is effective, the proxy makes the call in the root's and brings the answer there.
    fn send_void(&mut self, root: u32, void: Void) {
        match abi::grpc_call(&void.cluster, &void.message, VOID_TIMEOUT_MS) {
            Ok(token) => {
                self.calls.insert(token, Call::Void { root, void });
            }
            Err(HostError(_)) => self.retry_void(void),
        }
    }

    /// A root context is gone, and with it the answers to its voids: they are sent again for another one.
    fn forsake(&mut self, root: u32) {
        for (token, call) in std::mem::take(&mut self.calls) {
            match call {
                Call::Void { root: own, void } if own == root => self.retry_void(void),
                call => {
                    self.calls.insert(token, call);
                }
            }
        }
    }

    fn retry_void(&mut self, void: Void) {
        if let Err(lost) = self.voids.retry(void) {
            self.count(Stat::VoidLost);
            abi::log(Level::Error, &format!("sluice: a void is lost, its charge stays: {}", lost.label));
        }
    }

    // A figure that cannot be written must not stop a payment, nor let one through.
    fn count(&self, stat: Stat) {
        if let Some(id) = self.counters.get(&stat) {
            let _ = abi::increment_metric(*id);
        }
    }

    fn record(&self, metric: Option<u32>, value: u64) {
        if let Some(id) = metric {
            let _ = abi::record_metric(id, value);
        }
    }
}
