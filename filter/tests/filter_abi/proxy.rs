//! The proxy's side of the callbacks: contexts, bodies that are buffered while a request is held, answers to calls.

use std::collections::BTreeMap;

use wasmtime::{Instance, Store, WasmParams, WasmResults};

use super::host::{GrpcCall, Host, HostStream, ROOT, instantiate};
pub(crate) use crate::answers::*;

/// One worker's VM with one configured plugin.
pub(crate) struct Proxy {
    pub(crate) store: Store<Host>,
    instance: Instance,
    next: u32,
    answered: usize,
    /// Streams whose callbacks let the request go on.
    continued: Vec<u32>,
    /// The host call during which the VM broke. Nothing is called after it, and its requests go nowhere, as in Envoy.
    pub(crate) trapped: Option<String>,
    /// The instructions of the module by callback.
    pub(crate) spent: BTreeMap<String, u64>,
}

/// What a request callback returned.
pub(crate) const CONTINUE: u32 = 0;
pub(crate) const PAUSE: u32 = 1;

impl Proxy {
    /// A VM that is not configured yet.
    pub(crate) fn new(host: Host) -> Self {
        let (store, instance) = instantiate(host);
        let mut proxy = Self {
            store,
            instance,
            next: ROOT + 1,
            answered: 0,
            continued: Vec::new(),
            trapped: None,
            spent: BTreeMap::new(),
        };
        proxy.call::<(), ()>(ROOT, "_initialize", ());
        proxy.call::<_, ()>(ROOT, "proxy_on_context_create", (ROOT, 0_u32));
        assert_eq!(proxy.call::<_, u32>(ROOT, "proxy_on_vm_start", (ROOT, 0_u32)), 1);
        proxy
    }

    /// A VM with a configuration that is accepted.
    pub(crate) fn configured(configuration: &serde_json::Value) -> Self {
        let mut proxy = Self::new(Host::default());
        assert!(proxy.configure(configuration), "{:?}", proxy.host().logs);
        proxy
    }

    pub(crate) fn configure(&mut self, configuration: &serde_json::Value) -> bool {
        self.configure_context(ROOT, configuration)
    }

    /// A further configuration in the same VM, under a root context of its own.
    pub(crate) fn configure_root(&mut self, root: u32, configuration: &serde_json::Value) -> bool {
        self.call::<_, ()>(root, "proxy_on_context_create", (root, 0_u32));
        self.configure_context(root, configuration)
    }

    fn configure_context(&mut self, root: u32, configuration: &serde_json::Value) -> bool {
        let text = configuration.to_string().into_bytes();
        let size = u32::try_from(text.len()).unwrap();
        self.host_mut().configuration = text;
        self.call::<_, u32>(root, "proxy_on_configure", (root, size)) == 1
    }

    pub(crate) fn host(&self) -> &Host {
        self.store.data()
    }

    pub(crate) fn host_mut(&mut self) -> &mut Host {
        self.store.data_mut()
    }

    /// Calls the filter as the proxy does: with one context current, and none set by an earlier call. A trap fails the test
    /// unless a host call was made to fail.
    pub(crate) fn call<P: WasmParams, R: WasmResults + Default>(
        &mut self,
        context: u32,
        name: &str,
        arguments: P,
    ) -> R {
        if self.trapped.is_some() {
            return R::default();
        }
        self.host_mut().current = context;
        self.host_mut().effective = None;
        let function = self.instance.get_typed_func::<P, R>(&mut self.store, name).unwrap();
        let before = self.instructions();
        let result = function.call(&mut self.store, arguments);
        *self.spent.entry(name.to_owned()).or_default() += self.instructions() - before;
        match result {
            Ok(result) => result,
            Err(_) if self.host().fail.is_some() => {
                self.trapped = Some(self.host().calls.last().cloned().unwrap_or_default());
                R::default()
            }
            Err(trap) => panic!("{name} trapped: {trap:?}\ncalls: {:#?}", self.host().calls),
        }
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
        self.call::<_, ()>(context, "proxy_on_context_create", (context, root));
        context
    }

    pub(crate) fn stream(&mut self, context: u32) -> &mut HostStream {
        self.host_mut().streams.get_mut(&context).unwrap()
    }

    pub(crate) fn set_mode(&mut self, context: u32, mode: &str) {
        self.stream(context).set_mode(mode);
    }

    pub(crate) fn headers(&mut self, context: u32, end: bool) -> u32 {
        let count = u32::try_from(self.stream(context).request_headers.len()).unwrap();
        let action = self.call(context, "proxy_on_request_headers", (context, count, u32::from(end)));
        self.noted(context, action)
    }

    /// A chunk arrives; what is held counts with it.
    pub(crate) fn body(&mut self, context: u32, chunk: &[u8], end: bool) -> u32 {
        self.stream(context).body.extend(chunk);
        let size = u32::try_from(self.stream(context).body.len()).unwrap();
        let action = self.call(context, "proxy_on_request_body", (context, size, u32::from(end)));
        if action == CONTINUE {
            self.stream(context).body.clear();
        }
        self.noted(context, action)
    }

    pub(crate) fn trailers(&mut self, context: u32) -> u32 {
        let count = u32::try_from(self.stream(context).request_trailers.len()).unwrap();
        let action = self.call(context, "proxy_on_request_trailers", (context, count));
        self.noted(context, action)
    }

    fn noted(&mut self, context: u32, action: u32) -> u32 {
        if self.trapped.is_some() {
            return PAUSE;
        }
        if action == CONTINUE && self.stream(context).reply.is_none() {
            self.continued.push(context);
        }
        action
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

    /// Answers a call; the answer comes to the root context.
    pub(crate) fn answer(&mut self, token: u32, answer: &Answer) {
        self.answer_to(ROOT, token, answer);
    }

    pub(crate) fn answer_to(&mut self, root: u32, token: u32, answer: &Answer) {
        match answer {
            Answer::Bytes(bytes) => {
                self.host_mut().answer.clone_from(bytes);
                let size = u32::try_from(bytes.len()).unwrap();
                self.call::<_, ()>(root, "proxy_on_grpc_receive", (root, token, size));
            }
            Answer::Failed(status) => self.call::<_, ()>(root, "proxy_on_grpc_close", (root, token, *status)),
        }
    }

    pub(crate) fn response_headers(&mut self, context: u32, status: u16, flags: u64) {
        self.stream(context).response_status = Some(status.to_string());
        self.stream(context).ends(Some(status), flags);
        self.call::<_, u32>(context, "proxy_on_response_headers", (context, 1_u32, 0_u32));
    }

    /// The stream ends: log, done, delete, as Envoy orders them.
    pub(crate) fn close(&mut self, context: u32, status: Option<u16>, flags: u64) {
        self.stream(context).ends(status, flags);
        self.call::<_, ()>(context, "proxy_on_log", (context,));
        self.call::<_, u32>(context, "proxy_on_done", (context,));
        self.call::<_, ()>(context, "proxy_on_delete", (context,));
    }

    /// The timer's period passes, and it ticks.
    pub(crate) fn tick(&mut self) {
        let host = self.host_mut();
        host.monotonic_ms += u64::from(host.tick_period_ms);
        self.call::<_, ()>(ROOT, "proxy_on_tick", (ROOT,));
    }

    /// Time passes until the timer ticks, which begins its period when it is set.
    pub(crate) fn tick_when_due(&mut self) {
        let host = self.host_mut();
        host.monotonic_ms = host.monotonic_ms.max(host.tick_due_ms);
        host.tick_due_ms = host.monotonic_ms + u64::from(host.tick_period_ms);
        self.call::<_, ()>(ROOT, "proxy_on_tick", (ROOT,));
    }

    /// Instructions of the module since it began.
    pub(crate) fn instructions(&self) -> u64 {
        u64::MAX - self.store.get_fuel().unwrap()
    }

    /// Bytes of the module's memory.
    pub(crate) fn memory_bytes(&mut self) -> usize {
        self.instance.get_memory(&mut self.store, "memory").unwrap().data_size(&self.store)
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        self.host().metrics.iter().find(|(own, _)| own == name).map_or(0, |(_, value)| *value)
    }

    /// Ends a stream with what it was answered, or else a success of the gateway, and gives its filter state.
    pub(crate) fn ended(&mut self, context: u32) -> serde_json::Value {
        let status = self.stream(context).status();
        self.close(context, status, 0);
        self.state(context)
    }

    /// The filter state as JSON, once the stream is over.
    pub(crate) fn state(&mut self, context: u32) -> serde_json::Value {
        self.stream(context).shown()
    }
}
