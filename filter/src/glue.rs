//! The functions that the proxy calls, and what the filter keeps between the calls. Translates only: every decision is in
//! `machine` and `voids`.
//!
//! A worker is one thread and the proxy does not call back while it serves a call of the filter. Should it ever, the state is
//! found borrowed and the callback answers as if the host had failed: requests stay paused.

#![expect(unsafe_code, reason = "functions are exported under the ABI's names")]

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use quota::rule::Unreadable;

use crate::abi::{self, Buffer, HostError, Level, Map, MetricKind};
use crate::config::{CONFIG_BYTES_MAX, Plugin};
use crate::machine::{Action, Effect, Event, Failed, ModeWord, RequestHead, Stream, drive};
use crate::outcome::Ending;
use crate::record::STATE_NAME;
use crate::stats::{self, Stat};
use crate::voids::{TICK_MS, VOID_TIMEOUT_MS, Void, Voids};
use crate::wire::{self, Reply};

/// Longest answer of the server that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Where the route's mode is written.
const MODE_PATH: [&str; 5] = ["xds", "route_metadata", "filter_metadata", "sluice", "mode"];

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
struct Vm {
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

thread_local! {
    static VM: RefCell<Vm> = RefCell::default();
}

fn with_vm<T>(otherwise: T, act: impl FnOnce(&mut Vm) -> T) -> T {
    VM.with(|vm| match vm.try_borrow_mut() {
        Ok(mut vm) => act(&mut vm),
        Err(_) => {
            abi::log(Level::Error, "sluice: the proxy called the filter while serving its call");
            otherwise
        }
    })
}

unsafe extern "C" {
    safe fn __wasm_call_ctors();
}

#[unsafe(no_mangle)]
extern "C" fn _initialize() {
    __wasm_call_ctors();
}

#[unsafe(no_mangle)]
extern "C" fn proxy_abi_version_0_2_1() {}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_context_create(context: u32, root: u32) {
    with_vm((), |vm| vm.create(context, root));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_vm_start(_root: u32, _configuration_size: usize) -> u32 {
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_configure(root: u32, configuration_size: usize) -> u32 {
    let configured = with_vm(Err("the filter is busy".to_owned()), |vm| vm.configure(root, configuration_size));
    match configured {
        Ok(()) => 1,
        Err(problem) => {
            abi::log(Level::Error, &format!("sluice: the plugin configuration is refused: {problem}"));
            0
        }
    }
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_tick(root: u32) {
    with_vm((), |vm| vm.tick(root));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_headers(context: u32, _count: u32, end: u32) -> u32 {
    with_vm(Action::PauseAll, |vm| vm.request_headers(context, end != 0)).status()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_body(context: u32, size: usize, end: u32) -> u32 {
    let event = Event::RequestBody { size, end: end != 0, read: &request_body };
    with_vm(Action::Pause, |vm| vm.event(context, event)).status()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_request_trailers(context: u32, _count: u32) -> u32 {
    with_vm(Action::Pause, |vm| vm.event(context, Event::RequestTrailers { read: &request_body })).status()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_response_headers(context: u32, _count: u32, _end: u32) -> u32 {
    let status = abi::header(Map::ResponseHeaders, ":status").ok().flatten();
    let status = status.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
    with_vm((), |vm| {
        if vm.streams.get(&context).is_some_and(|http| http.stream.is_charged()) {
            vm.event(context, Event::ResponseHeaders(Ending { status, ..ending() }));
        }
    });
    Action::Continue.status()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(context: u32) {
    with_vm((), |vm| {
        if vm.streams.get(&context).is_some_and(|http| http.stream.is_open()) {
            vm.event(context, Event::Log(ending()));
        }
    });
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_done(_context: u32) -> u32 {
    1
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_delete(context: u32) {
    with_vm((), |vm| vm.delete(context));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_receive(_context: u32, token: u32, size: usize) {
    let message = abi::buffer(Buffer::GrpcMessage, size.min(ANSWER_BYTES_MAX)).ok().flatten();
    with_vm((), |vm| vm.answered(token, 0, message.as_deref()));
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_grpc_close(_context: u32, token: u32, status: u32) {
    with_vm((), |vm| vm.answered(token, status, None));
}

impl Action {
    /// The number that a request callback returns: continue, stop iteration, stop all iteration with watermarks.
    const fn status(self) -> u32 {
        match self {
            Self::Continue => 0,
            Self::Pause => 1,
            Self::PauseAll => 4,
        }
    }
}

fn request_body(max: usize) -> Result<Vec<u8>, Unreadable> {
    match abi::buffer(Buffer::RequestBody, max) {
        Ok(body) => Ok(body.unwrap_or_default()),
        Err(HostError(_)) => Err(Unreadable),
    }
}

fn metadata(path: &[String]) -> Result<Option<Vec<u8>>, Unreadable> {
    let mut full = vec!["metadata", "filter_metadata"];
    full.extend(path.iter().map(String::as_str));
    abi::property(&full).map_err(|HostError(_)| Unreadable)
}

fn mode_word() -> ModeWord {
    match abi::property(&MODE_PATH) {
        Ok(Some(word)) => ModeWord::Word(word),
        Ok(None) => ModeWord::Unset,
        Err(HostError(_)) => ModeWord::Unreadable,
    }
}

fn ending() -> Ending {
    let number = |path: &[&str]| {
        let bytes = abi::property(path).ok().flatten()?;
        Some(u64::from_le_bytes(*bytes.first_chunk::<8>()?))
    };
    Ending {
        status: number(&["response", "code"]).and_then(|code| u16::try_from(code).ok()),
        flags: number(&["response", "flags"]).unwrap_or_default(),
        tries: number(&["upstream", "request_attempt_count"]),
    }
}

impl Vm {
    fn create(&mut self, context: u32, root: u32) {
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

    fn delete(&mut self, context: u32) {
        if let Some(token) = self.streams.remove(&context).and_then(|http| http.token) {
            self.services.calls.remove(&token);
        }
        if self.roots.remove(&context).is_some() {
            self.services.forsake(context);
        }
    }

    fn configure(&mut self, root: u32, size: usize) -> Result<(), String> {
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
    fn tick(&mut self, root: u32) {
        if self.roots.last_key_value().is_some_and(|(newest, _)| *newest == root) {
            for void in self.services.voids.tick() {
                self.services.count(Stat::VoidRetried);
                self.services.send_void(root, void);
            }
        }
    }

    fn request_headers(&mut self, context: u32, end: bool) -> Action {
        match abi::headers(Map::RequestHeaders) {
            Ok(headers) => {
                let head = RequestHead { headers, mode: mode_word(), metadata: &metadata };
                self.event(context, Event::RequestHeaders { head, end })
            }
            Err(HostError(_)) => self.event(context, Event::HostFailed),
        }
    }

    fn event(&mut self, context: u32, event: Event<'_>) -> Action {
        let Some(http) = self.streams.get_mut(&context) else {
            return Action::Pause;
        };
        let warned = self.roots.get_mut(&http.root).map(|root| &mut root.warned_mode);
        let plugin = http.stream.plugin();
        let token = &mut http.token;
        let mut hands = Hands { services: &mut self.services, context, root: http.root, plugin, token, warned };
        drive(&mut http.stream, event, &mut |effect| hands.perform(effect).map_err(|HostError(_)| Failed))
    }

    fn answered(&mut self, token: u32, grpc_status: u32, message: Option<&[u8]>) {
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
            Some(Call::Void { void, .. }) => {
                if !matches!(wire::reply(grpc_status, message), Reply::Pass { .. }) {
                    self.services.retry_void(void);
                }
            }
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
