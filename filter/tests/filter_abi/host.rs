//! A host for one instance of the filter: proxy-wasm ABI 0.2.1 as Envoy implements it, with every call recorded, and any one of
//! them made to fail. Calls out belong to the root context and so do their answers; what a call acts on is the effective context.
//! Functions of the ABI that are not here, the SDK imports and the filter never calls: a call would trap.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use wasmtime::{Caller, Config, Engine, Extern, Instance, Linker, Module, OptLevel, Store};

pub(crate) use crate::answers::GrpcCall;
pub(crate) use crate::answers::HostStream;
use crate::answers::LocalReply;

/// The root context of every test's plugin.
pub(crate) const ROOT: u32 = 1;

/// The root contexts of further configurations have numbers from here on.
pub(crate) const FURTHER_ROOTS: u32 = 1_000_000;

/// Everything that the host knows and has seen.
#[derive(Debug, Default)]
pub(crate) struct Host {
    /// Every call as text, in order.
    pub(crate) calls: Vec<String>,
    /// Buffers that the filter allocated for what the host hands out.
    pub(crate) buffers: usize,
    /// Fails the call of this number with this status.
    pub(crate) fail: Option<(usize, u32)>,
    /// Fails calls to the server, all of them, with this status.
    pub(crate) failing_grpc: Option<u32>,
    /// Fails every call after that one, too.
    pub(crate) fail_on: bool,
    pub(crate) configuration: Vec<u8>,
    pub(crate) answer: Vec<u8>,
    pub(crate) current: u32,
    pub(crate) effective: Option<u32>,
    pub(crate) streams: BTreeMap<u32, HostStream>,
    pub(crate) grpc_calls: Vec<GrpcCall>,
    pub(crate) metrics: Vec<(String, u64)>,
    pub(crate) logs: Vec<String>,
    /// The clock that never goes back.
    pub(crate) monotonic_ms: u64,
    /// The period of the root's timer, and when it ticks next.
    pub(crate) tick_period_ms: u32,
    pub(crate) tick_due_ms: u64,
}

type Call<'a> = Caller<'a, Host>;

const OK: u32 = 0;
const NOT_FOUND: u32 = 1;
const BAD_ARGUMENT: u32 = 2;
const UNREADABLE: u32 = 6;

impl HostStream {
    /// The headers (0) or the trailers (1) of the request, or the headers of the response (2).
    fn map(&mut self, map: u32) -> Result<&mut Vec<(String, Vec<u8>)>, u32> {
        match map {
            0 => Ok(&mut self.request_headers),
            1 => Ok(&mut self.request_trailers),
            2 => Ok(&mut self.response_headers),
            _ => Err(BAD_ARGUMENT),
        }
    }
}

impl Host {
    fn context(&self) -> u32 {
        self.effective.unwrap_or(self.current)
    }

    fn stream(&mut self) -> Option<&mut HostStream> {
        let context = self.context();
        self.streams.get_mut(&context)
    }
}

/// Records a call; an error is the status that it is to fail with.
fn enter(call: &mut Call<'_>, text: String) -> Result<(), u32> {
    let host = call.data_mut();
    let number = host.calls.len();
    host.calls.push(text);
    match host.fail {
        Some((failing, status)) if failing == number || (host.fail_on && failing < number) => Err(status),
        _ => Ok(()),
    }
}

fn memory(call: &mut Call<'_>) -> wasmtime::Memory {
    call.get_export("memory").and_then(Extern::into_memory).unwrap()
}

fn bytes(call: &mut Call<'_>, at: u32, size: u32) -> Vec<u8> {
    let memory = memory(call);
    memory.data(&call)[at as usize..][..size as usize].to_vec()
}

fn text(call: &mut Call<'_>, at: u32, size: u32) -> String {
    String::from_utf8(bytes(call, at, size)).unwrap()
}

fn write(call: &mut Call<'_>, at: u32, bytes: &[u8]) {
    let memory = memory(call);
    memory.write(call, at as usize, bytes).unwrap();
}

/// Hands bytes out in memory of the filter's own allocation.
fn give(call: &mut Call<'_>, bytes: &[u8], data: u32, size: u32) -> u32 {
    let length = u32::try_from(bytes.len()).unwrap();
    let address = if bytes.is_empty() {
        0
    } else {
        call.data_mut().buffers += 1;
        let allocate = call.get_export("proxy_on_memory_allocate").and_then(Extern::into_func).unwrap();
        allocate.typed::<u32, u32>(&call).unwrap().call(&mut *call, length).unwrap()
    };
    write(call, address, bytes);
    write(call, data, &address.to_le_bytes());
    write(call, size, &length.to_le_bytes());
    OK
}

fn pairs(call: &mut Call<'_>, at: u32, size: u32) -> Vec<(String, String)> {
    let bytes = bytes(call, at, size);
    let decoded = filter::wire::decode_pairs(&bytes).unwrap();
    let string = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    decoded.into_iter().map(|(name, value)| (string(name), string(value))).collect()
}

/// `f!(linker, name, |call, args…| body)`: a function of the host whose body is a `Result<u32, u32>`.
macro_rules! f {
    ($linker:ident, $name:literal, |$call:ident $(, $arg:ident : $kind:ty)*| $body:block) => {
        $linker
            .func_wrap("env", $name, |mut call: Call<'_> $(, $arg: $kind)*| -> u32 {
                let $call = &mut call;
                let result: Result<u32, u32> = (|| $body)();
                result.unwrap_or_else(|status| status)
            })
            .unwrap();
    };
}

fn link(linker: &mut Linker<Host>) {
    f!(linker, "proxy_log", |c, level: u32, at: u32, size: u32| {
        let line = text(c, at, size);
        enter(c, format!("log {level}"))?;
        c.data_mut().logs.push(line);
        Ok(OK)
    });
    f!(linker, "proxy_set_tick_period_milliseconds", |c, period: u32| {
        enter(c, format!("tick_period {period}"))?;
        let host = c.data_mut();
        host.tick_period_ms = period;
        host.tick_due_ms = host.monotonic_ms + u64::from(period);
        Ok(OK)
    });
    f!(linker, "proxy_set_effective_context", |c, context: u32| {
        enter(c, format!("effective {context}"))?;
        let known = context == ROOT || context >= FURTHER_ROOTS || c.data().streams.contains_key(&context);
        c.data_mut().effective = Some(context).filter(|_| known);
        if known { Ok(OK) } else { Err(BAD_ARGUMENT) }
    });
    f!(linker, "proxy_get_buffer_bytes", |c, kind: u32, start: u32, max: u32, data: u32, size: u32| {
        enter(c, format!("buffer {kind}"))?;
        let host = c.data_mut();
        let held = match kind {
            0 => host.stream().ok_or(BAD_ARGUMENT)?.body.clone(),
            5 => host.answer.clone(),
            7 => host.configuration.clone(),
            _ => return Err(BAD_ARGUMENT),
        };
        let part: Vec<u8> = held.into_iter().skip(start as usize).take(max as usize).collect();
        Ok(give(c, &part, data, size))
    });
    link_headers(linker);
    link_stream(linker);
    link_metrics(linker);
    link_wasi(linker);
}

fn link_headers(linker: &mut Linker<Host>) {
    f!(linker, "proxy_get_header_map_pairs", |c, map: u32, data: u32, size: u32| {
        enter(c, format!("headers {map}"))?;
        let headers = c.data_mut().stream().ok_or(BAD_ARGUMENT)?.map(map)?.clone();
        let mut encoded = u32::try_from(headers.len()).unwrap().to_le_bytes().to_vec();
        for length in headers.iter().flat_map(|(name, value)| [name.len(), value.len()]) {
            encoded.extend(u32::try_from(length).unwrap().to_le_bytes());
        }
        for (name, value) in &headers {
            encoded.extend([name.as_bytes(), &[0], value, &[0]].concat());
        }
        Ok(give(c, &encoded, data, size))
    });
    f!(linker, "proxy_get_header_map_value", |c, map: u32, key: u32, key_size: u32, data: u32, size: u32| {
        let name = text(c, key, key_size);
        enter(c, format!("header {map} {name}"))?;
        let status = c.data_mut().stream().ok_or(BAD_ARGUMENT)?.response_status.clone().ok_or(NOT_FOUND)?;
        Ok(give(c, status.as_bytes(), data, size))
    });
    f!(linker, "proxy_remove_header_map_value", |c, map: u32, key: u32, key_size: u32| {
        let name = text(c, key, key_size);
        enter(c, format!("remove {map} {name}"))?;
        c.data_mut().stream().ok_or(BAD_ARGUMENT)?.map(map)?.retain(|(own, _)| *own != name);
        Ok(OK)
    });
    f!(linker, "proxy_replace_header_map_value", |c, map: u32, key: u32, key_size: u32, at: u32, size: u32| {
        let (name, value) = (text(c, key, key_size), text(c, at, size));
        enter(c, format!("set {map} {name}: {value}"))?;
        let headers = c.data_mut().stream().ok_or(BAD_ARGUMENT)?.map(map)?;
        headers.retain(|(own, _)| *own != name);
        headers.push((name, value.into_bytes()));
        Ok(OK)
    });
}

fn link_stream(linker: &mut Linker<Host>) {
    f!(linker, "proxy_get_property", |c, at: u32, path_size: u32, data: u32, size: u32| {
        let path = text(c, at, path_size).replace('\0', ".");
        enter(c, format!("property {path}"))?;
        let value = c.data_mut().stream().ok_or(BAD_ARGUMENT)?.properties.get(&path).cloned().ok_or(NOT_FOUND)?;
        Ok(give(c, &value, data, size))
    });
    f!(linker, "proxy_set_property", |c, at: u32, path_size: u32, value: u32, size: u32| {
        let (name, value) = (text(c, at, path_size), bytes(c, value, size));
        enter(c, format!("state {name}"))?;
        c.data_mut().stream().ok_or(BAD_ARGUMENT)?.state = Some(value);
        Ok(OK)
    });
    f!(linker, "proxy_call_foreign_function", |c,
                                               at: u32,
                                               name_size: u32,
                                               _arguments: u32,
                                               _arguments_size: u32,
                                               _data: u32,
                                               _size: u32| {
        let name = text(c, at, name_size);
        enter(c, format!("foreign {name}"))?;
        Ok(OK)
    });
    f!(linker, "proxy_continue_stream", |c, kind: u32| {
        enter(c, format!("resume {kind}"))?;
        // Envoy says success for the root context, and does nothing: a test that expects a resumed request will notice.
        if let Some(stream) = c.data_mut().stream() {
            stream.resumed = true;
        }
        Ok(OK)
    });
    f!(linker, "proxy_close_stream", |c, kind: u32| {
        enter(c, format!("reset {kind}"))?;
        c.data_mut().stream().ok_or(BAD_ARGUMENT)?.reset = true;
        Ok(OK)
    });
    f!(linker, "proxy_send_local_response", |c,
                                             status: u32,
                                             _details: u32,
                                             _details_size: u32,
                                             body: u32,
                                             body_size: u32,
                                             headers: u32,
                                             headers_size: u32,
                                             _grpc: i32| {
        let reply = LocalReply { status, headers: pairs(c, headers, headers_size), body: text(c, body, body_size) };
        enter(c, format!("respond {status}"))?;
        if let Some(stream) = c.data_mut().stream() {
            stream.reply = Some(reply);
        }
        Ok(OK)
    });
    f!(linker, "proxy_grpc_call", |c,
                                   cluster: u32,
                                   cluster_size: u32,
                                   service: u32,
                                   service_size: u32,
                                   method: u32,
                                   method_size: u32,
                                   _metadata: u32,
                                   _metadata_size: u32,
                                   message: u32,
                                   message_size: u32,
                                   timeout_ms: u32,
                                   token: u32| {
        let cluster = text(c, cluster, cluster_size);
        let path = format!("{}/{}", text(c, service, service_size), text(c, method, method_size));
        let message = bytes(c, message, message_size);
        enter(c, format!("grpc {cluster} {} {timeout_ms}", path.rsplit('/').next().unwrap_or_default()))?;
        let host = c.data_mut();
        host.failing_grpc.map_or(Ok(()), Err)?;
        let number = u32::try_from(host.grpc_calls.len()).unwrap() + 1;
        host.grpc_calls.push(GrpcCall { token: number, cluster, path, message, timeout_ms });
        write(c, token, &number.to_le_bytes());
        Ok(OK)
    });
}

fn link_metrics(linker: &mut Linker<Host>) {
    f!(linker, "proxy_define_metric", |c, kind: u32, name: u32, size: u32, id: u32| {
        let name = text(c, name, size);
        enter(c, format!("define {kind} {name}"))?;
        let metrics = &mut c.data_mut().metrics;
        metrics.push((name, 0));
        let number = u32::try_from(metrics.len()).unwrap();
        write(c, id, &number.to_le_bytes());
        Ok(OK)
    });
    f!(linker, "proxy_record_metric", |c, id: u32, value: u64| {
        let name = metric(c, id)?.0.clone();
        enter(c, format!("record {name} {value}"))?;
        metric(c, id)?.1 = value;
        Ok(OK)
    });
    f!(linker, "proxy_increment_metric", |c, id: u32, offset: i64| {
        let name = metric(c, id)?.0.clone();
        enter(c, format!("count {name} {offset}"))?;
        metric(c, id)?.1 += offset.unsigned_abs();
        Ok(OK)
    });
}

fn metric<'a>(call: &'a mut Call<'_>, id: u32) -> Result<&'a mut (String, u64), u32> {
    call.data_mut().metrics.get_mut((id as usize).wrapping_sub(1)).ok_or(NOT_FOUND)
}

fn link_wasi(linker: &mut Linker<Host>) {
    const WASI: &str = "wasi_snapshot_preview1";
    linker
        .func_wrap(WASI, "random_get", |mut call: Call<'_>, at: u32, size: u32| -> u32 {
            if enter(&mut call, "random".into()).is_err() {
                return UNREADABLE;
            }
            write(&mut call, at, &vec![0x5a; size as usize]);
            OK
        })
        .unwrap();
    linker
        .func_wrap(WASI, "clock_time_get", |mut call: Call<'_>, clock: u32, _precision: u64, at: u32| -> u32 {
            if enter(&mut call, format!("clock {clock}")).is_err() {
                return UNREADABLE;
            }
            let nanos = call.data().monotonic_ms * 1_000_000;
            write(&mut call, at, &nanos.to_le_bytes());
            OK
        })
        .unwrap();
    linker
        .func_wrap(WASI, "environ_sizes_get", |mut call: Call<'_>, count: u32, size: u32| -> u32 {
            write(&mut call, count, &[0; 4]);
            write(&mut call, size, &[0; 4]);
            OK
        })
        .unwrap();
    linker.func_wrap(WASI, "environ_get", |_: Call<'_>, _: u32, _: u32| -> u32 { OK }).unwrap();
    // A panic's message comes this way: the trap that follows fails the test.
    linker.func_wrap(WASI, "fd_write", |_: Call<'_>, _: u32, _: u32, _: u32, _: u32| -> u32 { BAD_ARGUMENT }).unwrap();
    linker
        .func_wrap(WASI, "proc_exit", |_: Call<'_>, code: u32| -> () { panic!("the filter exited with {code}") })
        .unwrap();
}

/// The module, compiled once for all tests.
fn module() -> &'static Module {
    static MODULE: OnceLock<Module> = OnceLock::new();
    MODULE.get_or_init(|| {
        let path = testkit::build::filter_wasm().unwrap();
        let mut config = Config::new();
        config.cranelift_opt_level(OptLevel::None).consume_fuel(true);
        Module::from_file(&Engine::new(&config).unwrap(), path).unwrap()
    })
}

/// A fresh instance of the filter in a fresh host.
pub(crate) fn instantiate(host: Host) -> (Store<Host>, Instance) {
    let module = module();
    let mut linker = Linker::new(module.engine());
    link(&mut linker);
    linker.define_unknown_imports_as_traps(module).unwrap();
    let mut store = Store::new(module.engine(), host);
    store.set_fuel(u64::MAX).unwrap();
    let instance = linker.instantiate(&mut store, module).unwrap();
    (store, instance)
}
