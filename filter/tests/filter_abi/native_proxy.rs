//! Envoy's worker and the module's thread in one, with a clock of the test's: hooks are called in order, and the engine runs after each.

#![expect(unsafe_code, reason = "the module's hooks take raw addresses")]

use std::cell::{Ref, RefCell, RefMut};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use filter::delays::TICK_MS;
use filter::trust::Holder;
use sluice_filter_native::abi::hooks;
use sluice_filter_native::abi::sys::Buffer;
use sluice_filter_native::client::Server;
use sluice_filter_native::engine::{Call, Calls, Engine, Message};
use sluice_filter_native::thread::{self, Outlet};

use super::host::{self, GrpcCall, Host, HostStream, ROOT};
pub(crate) use crate::answers::*;

/// One worker with the module.
pub(crate) struct Proxy {
    host: Rc<RefCell<Host>>,
    number: u32,
    outlet: Arc<TestOutlet>,
    pub(crate) engine: Engine,
    /// The module's configurations and their addresses, by their numbers here.
    configs: BTreeMap<u32, (*const c_void, u32)>,
    next_config: u32,
    next: u32,
    answered: usize,
    /// Streams whose hooks let the request go on.
    continued: Vec<u32>,
}

/// The addresses of configurations are numbered from here on.
const CONFIGS: u32 = 1_000_000_000;

/// What a request's hook returned.
pub(crate) const CONTINUE: u32 = 0;
pub(crate) const PAUSE: u32 = 1;

/// The way to an engine that the test runs.
#[derive(Debug)]
struct TestOutlet {
    messages: Mutex<VecDeque<Message>>,
    now_ms: Arc<AtomicU64>,
    holder: Arc<Holder>,
}

impl Default for TestOutlet {
    fn default() -> Self {
        let now_ms = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&now_ms);
        let holder = Arc::new(Holder::new(move || Some(clock.load(Ordering::Relaxed))));
        Self { messages: Mutex::default(), now_ms, holder }
    }
}

thread_local! {
    static OUTLET: RefCell<Option<Arc<TestOutlet>>> = const { RefCell::new(None) };
}

impl Outlet for TestOutlet {
    fn now_ms(&self) -> u64 {
        self.now_ms.load(Ordering::Relaxed)
    }

    fn holder(&self) -> Arc<Holder> {
        Arc::clone(&self.holder)
    }

    fn send(&self, message: Message) -> Result<(), Message> {
        self.messages.lock().unwrap().push_back(message);
        Ok(())
    }
}

/// Records calls instead of making them.
struct Recorder<'a>(&'a RefCell<Host>);

impl Calls for Recorder<'_> {
    fn call(&mut self, call: Call) {
        let Call { token, cluster, method: [service, method], message, timeout_ms, .. } = call;
        let cluster = cluster.trim_start_matches("http://").to_owned();
        let path = format!("{service}/{method}");
        let panics = std::mem::take(&mut self.0.borrow_mut().panics);
        assert!(!panics, "a test asks for it");
        self.0.borrow_mut().grpc_calls.push(GrpcCall { token, cluster, path, message, timeout_ms });
    }

    fn servers(&mut self, cluster: &Arc<str>, servers: Vec<Server>) {
        assert!(!servers.is_empty());
        self.0.borrow_mut().clusters.push(Arc::downgrade(cluster));
    }

    fn end_unused(&mut self) {
        self.0.borrow_mut().clusters.retain(|name| name.strong_count() > 0);
    }
}

impl Proxy {
    /// A worker whose module is not configured yet.
    pub(crate) fn new(own: Host) -> Self {
        thread::replace(|| OUTLET.with_borrow(|outlet| outlet.clone().unwrap()));
        let (host, number) = host::add(own);
        let outlet: Arc<TestOutlet> = Arc::default();
        Self {
            host,
            number,
            engine: Engine::new(outlet.holder()),
            outlet,
            configs: BTreeMap::new(),
            next_config: CONFIGS,
            next: ROOT + 1,
            answered: 0,
            continued: Vec::new(),
        }
    }

    /// A worker with a configuration that is accepted.
    pub(crate) fn configured(configuration: &serde_json::Value) -> Self {
        let mut proxy = Self::new(Host::default());
        assert!(proxy.configure(configuration), "{:?}", proxy.host().logs);
        proxy
    }

    pub(crate) fn configure(&mut self, configuration: &serde_json::Value) -> bool {
        self.configure_root(ROOT, configuration)
    }

    /// A further configuration, or one in the place of another.
    pub(crate) fn configure_root(&mut self, root: u32, configuration: &serde_json::Value) -> bool {
        let text = configuration.to_string();
        OUTLET.set(Some(Arc::clone(&self.outlet)));
        host::enter(&self.host);
        let buffer = |text: &str| Buffer { data: text.as_ptr(), length: text.len() };
        let of = self.next_config;
        self.next_config += 1;
        // SAFETY: the address names a configuration of the host, and the texts can be read.
        let config = unsafe {
            let address = host::address(self.number, of);
            hooks::envoy_dynamic_module_on_http_filter_config_new(address, buffer("sluice"), buffer(&text))
        };
        if config.is_null() {
            self.host_mut().over.insert(of);
            return false;
        }
        if let Some(before) = self.configs.insert(root, (config, of)) {
            self.destroy(before);
        }
        self.run();
        true
    }

    /// Envoy drops a configuration.
    pub(crate) fn drop_root(&mut self, root: u32) {
        self.drop_roots(&[root]);
    }

    /// Envoy drops several before the thread wakes.
    pub(crate) fn drop_roots(&mut self, roots: &[u32]) {
        host::enter(&self.host);
        for root in roots {
            let config = self.configs.remove(root).unwrap();
            self.destroy(config);
        }
        self.run();
    }

    fn destroy(&mut self, (config, of): (*const c_void, u32)) {
        // SAFETY: the module has returned it, and gets it no more.
        unsafe { hooks::envoy_dynamic_module_on_http_filter_config_destroy(config) };
        self.host_mut().over.insert(of);
    }

    pub(crate) fn host(&self) -> Ref<'_, Host> {
        self.host.borrow()
    }

    pub(crate) fn host_mut(&mut self) -> RefMut<'_, Host> {
        self.host.borrow_mut()
    }

    /// The engine and the scheduled streams, until nothing is left to do at this time.
    pub(crate) fn run(&mut self) {
        let now_ms = self.host().monotonic_ms;
        self.outlet.now_ms.store(now_ms, Ordering::Relaxed);
        self.turn(now_ms);
        loop {
            let scheduled = self.host.borrow_mut().scheduled.pop_front();
            if let Some(context) = scheduled {
                if let Some(filter) = self.filter(context) {
                    host::enter(&self.host);
                    // SAFETY: the filter is the stream's.
                    unsafe {
                        let stream = host::address(self.number, context);
                        hooks::envoy_dynamic_module_on_http_filter_scheduled(stream, filter, 0);
                    }
                }
            } else if self.outlet.messages.lock().unwrap().is_empty() {
                break;
            } else {
                self.turn(now_ms);
            }
        }
        assert!(self.host().misuse.is_empty(), "{:?}", self.host().misuse);
        let due_ms = self.engine.next_due_ms().unwrap_or(u64::MAX).min(now_ms + u64::from(TICK_MS));
        let mut host = self.host.borrow_mut();
        host.tick_due_ms = due_ms.max(now_ms + 1);
        host.tick_period_ms = u32::try_from(host.tick_due_ms - now_ms).unwrap();
    }

    /// What the module's thread does when it wakes.
    fn turn(&mut self, now_ms: u64) {
        let host = Rc::clone(&self.host);
        let mut calls = Recorder(&host);
        loop {
            let message = self.outlet.messages.lock().unwrap().pop_front();
            let Some(message) = message else { break };
            self.caught(|engine| engine.receive(message, now_ms, &mut calls));
        }
        self.caught(|engine| engine.turn(now_ms, &mut calls));
    }

    /// A panic of the thread is caught, and the engine goes on.
    fn caught(&mut self, act: impl FnOnce(&mut Engine)) {
        if catch_unwind(AssertUnwindSafe(|| act(&mut self.engine))).is_err() {
            self.engine.recover();
        }
    }

    /// A hook of a stream, and what comes of it.
    fn hook<T>(&mut self, context: u32, hook: impl FnOnce(*mut c_void, *const c_void) -> T) -> T {
        let result = self.hook_alone(context, hook);
        self.run();
        result
    }

    fn hook_alone<T>(&mut self, context: u32, hook: impl FnOnce(*mut c_void, *const c_void) -> T) -> T {
        let now_ms = self.host().monotonic_ms;
        self.outlet.now_ms.store(now_ms, Ordering::Relaxed);
        host::enter(&self.host);
        let filter = self.filter(context).unwrap();
        hook(host::address(self.number, context), filter)
    }

    /// What the module has for a stream that is not over.
    pub(crate) fn filter(&self, context: u32) -> Option<*const c_void> {
        self.host().filters.get(&context).copied()
    }

    /// A hook of the request, which lets it go on or pauses it.
    fn request_hook(&mut self, context: u32, hook: impl FnOnce(*mut c_void, *const c_void) -> u32) -> u32 {
        self.stream(context).paused = false;
        let action = self.hook_alone(context, hook);
        self.stream(context).paused = action == PAUSE;
        self.run();
        action
    }

    /// A new stream whose route says nothing of a mode.
    pub(crate) fn open(&mut self, headers: &[(&str, &str)]) -> u32 {
        self.open_under(ROOT, headers)
    }

    /// A new stream of one of several configurations.
    pub(crate) fn open_under(&mut self, root: u32, headers: &[(&str, &str)]) -> u32 {
        let context = self.next;
        self.next += 1;
        self.host_mut().streams.insert(context, HostStream::of(headers));
        host::enter(&self.host);
        // SAFETY: the module has returned the configuration.
        let filter = unsafe {
            hooks::envoy_dynamic_module_on_http_filter_new(self.configs[&root].0, host::address(self.number, context))
        };
        assert!(!filter.is_null());
        self.host_mut().filters.insert(context, filter);
        context
    }

    pub(crate) fn stream(&mut self, context: u32) -> RefMut<'_, HostStream> {
        RefMut::map(self.host.borrow_mut(), |host| host.streams.get_mut(&context).unwrap())
    }

    pub(crate) fn set_mode(&mut self, context: u32, mode: &str) {
        self.stream(context).set_mode(mode);
    }

    pub(crate) fn headers(&mut self, context: u32, end: bool) -> u32 {
        // SAFETY: the filter is the stream's.
        let action = self.request_hook(context, |stream, filter| unsafe {
            hooks::envoy_dynamic_module_on_http_filter_request_headers(stream, filter, end)
        });
        self.noted(context, action)
    }

    /// A chunk arrives; what is held counts with it.
    pub(crate) fn body(&mut self, context: u32, chunk: &[u8], end: bool) -> u32 {
        self.host_mut().received = chunk.to_vec();
        // SAFETY: the filter is the stream's.
        let action = self.request_hook(context, |stream, filter| unsafe {
            hooks::envoy_dynamic_module_on_http_filter_request_body(stream, filter, end)
        });
        self.host_mut().received.clear();
        let mut stream = self.stream(context);
        if action == CONTINUE {
            stream.body.clear();
        } else {
            stream.body.extend(chunk);
        }
        drop(stream);
        self.noted(context, action)
    }

    pub(crate) fn trailers(&mut self, context: u32) -> u32 {
        // SAFETY: the filter is the stream's.
        let action = self.request_hook(context, |stream, filter| unsafe {
            hooks::envoy_dynamic_module_on_http_filter_request_trailers(stream, filter)
        });
        self.noted(context, action)
    }

    fn noted(&mut self, context: u32, action: u32) -> u32 {
        let stream = self.stream(context);
        let (replied, resumed) = (stream.reply.is_some(), stream.resumed);
        drop(stream);
        if action == CONTINUE && !replied {
            self.continued.push(context);
        }
        // What the thread decides at once resumes the request, where the wasm host lets it go on.
        if resumed { CONTINUE } else { action }
    }

    /// Whether anything of the request can have gone to the gateway.
    pub(crate) fn reached_gateway(&mut self, context: u32) -> bool {
        self.continued.contains(&context) || self.stream(context).resumed
    }

    /// The calls that were made since this was last asked.
    pub(crate) fn new_calls(&mut self) -> Vec<GrpcCall> {
        let calls = self.host().grpc_calls[self.answered..].to_vec();
        self.answered += calls.len();
        calls
    }

    /// The one call that was made since this was last asked.
    pub(crate) fn one_call(&mut self) -> GrpcCall {
        one_call(self.new_calls())
    }

    /// Answers a call.
    pub(crate) fn answer(&mut self, token: u32, answer: &Answer) {
        let (grpc_status, message) = match answer {
            Answer::Bytes(bytes) => (0, Some(bytes.clone())),
            Answer::Failed(status) => (*status, None),
        };
        let _ = self.outlet.send(Message::Answer { token, grpc_status, message });
        self.run();
    }

    pub(crate) fn answer_to(&mut self, _root: u32, token: u32, answer: &Answer) {
        self.answer(token, answer);
    }

    pub(crate) fn response_headers(&mut self, context: u32, status: u16, flags: u64) {
        self.stream(context).response_status = Some(status.to_string());
        self.stream(context).ends(Some(status), flags);
        // Envoy does not show a module its own answer.
        if self.stream(context).reply.is_none() {
            // SAFETY: the filter is the stream's.
            self.hook(context, |stream, filter| unsafe {
                hooks::envoy_dynamic_module_on_http_filter_response_headers(stream, filter, false)
            });
        }
    }

    /// The stream ends, as Envoy orders it.
    pub(crate) fn close(&mut self, context: u32, status: Option<u16>, flags: u64) {
        self.stream(context).ends(status, flags);
        let now_ms = self.host().monotonic_ms;
        self.outlet.now_ms.store(now_ms, Ordering::Relaxed);
        host::enter(&self.host);
        let filter = self.host_mut().filters.remove(&context).unwrap();
        host::end(host::address(self.number, context), filter);
        self.run();
    }

    /// Envoy destroys every stream without its end.
    pub(crate) fn drop_streams(&mut self) {
        host::enter(&self.host);
        let filters = std::mem::take(&mut self.host_mut().filters);
        for (context, filter) in filters {
            // SAFETY: the module has returned the filter, and gets it no more.
            unsafe { hooks::envoy_dynamic_module_on_http_filter_destroy(filter) };
            self.host_mut().over.insert(context);
        }
        self.run();
    }

    /// So much time passes as the thread sleeps, and it wakes.
    pub(crate) fn tick(&mut self) {
        let period_ms = u64::from(self.host().tick_period_ms);
        self.host_mut().monotonic_ms += period_ms;
        self.run();
    }

    /// Time passes until the thread wakes.
    pub(crate) fn tick_when_due(&mut self) {
        let due_ms = self.host().tick_due_ms;
        let mut host = self.host_mut();
        host.monotonic_ms = host.monotonic_ms.max(due_ms);
        drop(host);
        self.run();
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        self.host().metrics.iter().filter(|(own, _)| own == name).map(|(_, value)| *value).sum()
    }

    /// Ends a stream with what it was answered, or else a success of the gateway, and gives what the access log shows.
    pub(crate) fn ended(&mut self, context: u32) -> serde_json::Value {
        let status = self.stream(context).status();
        self.close(context, status, 0);
        self.state(context)
    }

    /// What the access log shows, once the stream is over.
    pub(crate) fn state(&mut self, context: u32) -> serde_json::Value {
        self.stream(context).shown()
    }
}

impl Drop for Proxy {
    /// Nothing of the module is left behind.
    fn drop(&mut self) {
        host::enter(&self.host);
        let filters = std::mem::take(&mut self.host_mut().filters);
        for filter in filters.into_values() {
            // SAFETY: the module has returned the filter, and gets it no more.
            unsafe { hooks::envoy_dynamic_module_on_http_filter_destroy(filter) };
        }
        for config in std::mem::take(&mut self.configs).into_values() {
            self.destroy(config);
        }
        if !std::thread::panicking() {
            assert_eq!(self.host().schedulers, 0, "each way back to a worker is given back");
        }
    }
}
