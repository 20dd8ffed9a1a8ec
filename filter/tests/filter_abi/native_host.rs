//! Envoy's side of the module ABI for tests: every function that the module uses, over streams that the test holds. An address that
//! the module gets names the host and the stream; nothing is behind it.

#![expect(unsafe_code, reason = "the ABI's functions take and return raw addresses")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::c_void;
use std::rc::Rc;
use std::sync::Weak;

use sluice_filter_native::abi::hooks;
use sluice_filter_native::abi::sys::{self, Buffer, Callbacks, HeaderBuffer};

pub(crate) use crate::answers::GrpcCall;
pub(crate) use crate::answers::HostStream;
use crate::answers::LocalReply;

/// The number of the first configuration.
pub(crate) const ROOT: u32 = 1;

/// Everything that the host knows and has seen.
#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) streams: BTreeMap<u32, HostStream>,
    pub(crate) grpc_calls: Vec<GrpcCall>,
    /// By the module's number of a metric. A name comes once for each configuration.
    pub(crate) metrics: Vec<(String, u64)>,
    pub(crate) logs: Vec<String>,
    /// The clock that never goes back.
    pub(crate) monotonic_ms: u64,
    /// How long the module's thread sleeps, and until when.
    pub(crate) tick_period_ms: u32,
    pub(crate) tick_due_ms: u64,
    /// The chunk of a body that arrives with the running hook.
    pub(crate) received: Vec<u8>,
    /// Streams that another thread wants to reach.
    pub(crate) scheduled: VecDeque<u32>,
    /// Schedulers that were made and not deleted.
    pub(crate) schedulers: usize,
    /// The names of servers that configurations, calls and follow-ups share.
    pub(crate) clusters: Vec<Weak<str>>,
    /// Streams and configurations that are over.
    pub(crate) over: BTreeSet<u32>,
    /// What the module has returned for its streams.
    pub(crate) filters: BTreeMap<u32, *const c_void>,
    /// A stream that is answered or reset ends within the call that does it, as in Envoy where the client has no more to send.
    pub(crate) ends_within: bool,
    /// The next call of the module's thread panics.
    pub(crate) panics: bool,
    /// What the module did that it must not do.
    pub(crate) misuse: Vec<String>,
    /// Bytes that were handed out to the running hook.
    lent: Vec<Box<[u8]>>,
}

thread_local! {
    static HOSTS: RefCell<Vec<Rc<RefCell<Host>>>> = const { RefCell::new(Vec::new()) };
    /// The host whose module is called: the log has no address.
    static CURRENT: RefCell<Option<Rc<RefCell<Host>>>> = const { RefCell::new(None) };
}

type Pointer = *mut c_void;

/// A new host and its number.
pub(crate) fn add(host: Host) -> (Rc<RefCell<Host>>, u32) {
    // SAFETY: the functions below do what the ABI says.
    unsafe { sys::install(CALLBACKS) };
    let host = Rc::new(RefCell::new(host));
    let number = HOSTS.with_borrow_mut(|hosts| {
        hosts.push(Rc::clone(&host));
        hosts.len()
    });
    (host, u32::try_from(number).unwrap())
}

/// The address of a stream or a configuration of a host.
pub(crate) fn address(host: u32, of: u32) -> Pointer {
    std::ptr::without_provenance_mut(usize::try_from((u64::from(host) << 32) | u64::from(of)).unwrap())
}

/// A hook of a host's module begins: what the last one was lent is gone.
pub(crate) fn enter(host: &Rc<RefCell<Host>>) {
    host.borrow_mut().lent.clear();
    CURRENT.set(Some(Rc::clone(host)));
}

fn host(address: Pointer) -> (Rc<RefCell<Host>>, u32) {
    let number = u64::try_from(address.addr()).unwrap();
    let (host, of) = (usize::try_from(number >> 32).unwrap(), u32::try_from(number & 0xffff_ffff).unwrap());
    (HOSTS.with_borrow(|hosts| Rc::clone(&hosts[host - 1])), of)
}

fn with<T>(address: Pointer, act: impl FnOnce(&mut Host, u32) -> T) -> T {
    let (host, of) = host(address);
    let mut host = host.borrow_mut();
    if host.over.contains(&of) {
        host.misuse.push(format!("{of} is used after its end"));
    }
    act(&mut host, of)
}

/// The end of a stream's pause, which comes once.
fn decide(stream: Pointer, what: &str, act: impl FnOnce(&mut HostStream)) {
    with(stream, |host, of| {
        let own = host.streams.get_mut(&of).unwrap();
        let problem = match what {
            "resume" if !own.paused => Some("is resumed and not paused"),
            _ if own.reply.is_some() => Some("is answered already"),
            _ if own.reset => Some("is reset already"),
            "resume" | "respond" if own.resumed => Some("is resumed already"),
            _ => None,
        };
        act(own);
        if let Some(problem) = problem {
            host.misuse.push(format!("{what}: {of} {problem}"));
        }
    });
    let ended = with(stream, |host, of| (host.ends_within && what != "resume").then(|| host.filters.remove(&of)));
    if let Some(filter) = ended.flatten() {
        let status = with(stream, |host, of| host.streams[&of].reply.as_ref().map(|reply| reply.status));
        let status = status.and_then(|status| u16::try_from(status).ok());
        with(stream, |host, of| host.streams.get_mut(&of).unwrap().ends(status, 0));
        end(stream, filter);
    }
}

/// The end of a stream, as Envoy orders it.
pub(crate) fn end(stream: Pointer, filter: *const c_void) {
    // SAFETY: the module has returned the filter, and gets it no more.
    unsafe {
        hooks::envoy_dynamic_module_on_http_filter_stream_complete(stream, filter);
        hooks::envoy_dynamic_module_on_http_filter_destroy(filter);
    }
    with(stream, |host, of| host.over.insert(of));
}

impl Host {
    fn lend(&mut self, bytes: &[u8]) -> Buffer {
        let bytes: Box<[u8]> = bytes.into();
        let buffer = Buffer { data: bytes.as_ptr(), length: bytes.len() };
        self.lent.push(bytes);
        buffer
    }

    fn map(&mut self, stream: u32, map: u32) -> Option<&mut Vec<(String, Vec<u8>)>> {
        let stream = self.streams.get_mut(&stream)?;
        match map {
            0 => Some(&mut stream.request_headers),
            1 => Some(&mut stream.request_trailers),
            2 => Some(&mut stream.response_headers),
            _ => None,
        }
    }

    /// A property by the name that the wasm host has for it.
    fn property(&self, stream: u32, name: &str) -> Option<Vec<u8>> {
        self.streams.get(&stream)?.properties.get(name).cloned()
    }

    fn metadata(&self, stream: u32, source: u32, rest: &str) -> Option<Vec<u8>> {
        let place = if source == 0 { "metadata" } else { "xds.route_metadata" };
        self.property(stream, &format!("{place}.filter_metadata.{rest}"))
    }
}

fn bytes(buffer: Buffer) -> Vec<u8> {
    if buffer.data.is_null() || buffer.length == 0 {
        return Vec::new();
    }
    // SAFETY: the module's bytes can be read within the call.
    unsafe { std::slice::from_raw_parts(buffer.data, buffer.length) }.to_vec()
}

fn text(buffer: Buffer) -> String {
    String::from_utf8(bytes(buffer)).unwrap()
}

/// Writes where the module wants a result.
fn put<T>(at: *mut T, value: T) {
    if !at.is_null() {
        // SAFETY: the module's place is writable within the call.
        unsafe { at.write(value) };
    }
}

const CALLBACKS: Callbacks = Callbacks {
    log,
    define_counter: define,
    define_gauge: define,
    define_histogram: define,
    increment_counter,
    set_gauge: record,
    record_histogram: record,
    config_scheduler_new,
    config_scheduler_commit,
    config_scheduler_delete,
    scheduler_new,
    scheduler_commit,
    scheduler_delete,
    header,
    headers_size,
    headers,
    set_header,
    body_size,
    body_chunks_size,
    body_chunks,
    received_is_buffered,
    metadata_text,
    metadata_number,
    metadata_keys_count,
    metadata_keys,
    set_metadata,
    attribute_text,
    attribute_number,
    respond,
    resume,
    reset,
};

unsafe extern "C" fn log(_level: u32, line: Buffer) {
    if let Some(host) = CURRENT.with_borrow(Clone::clone) {
        host.borrow_mut().logs.push(text(line));
    }
}

unsafe extern "C" fn define(config: Pointer, name: Buffer, _: *const Buffer, _: usize, id: *mut usize) -> u32 {
    with(config, |host, _| {
        host.metrics.push((text(name), 0));
        put(id, host.metrics.len() - 1);
        0
    })
}

unsafe extern "C" fn increment_counter(config: Pointer, id: usize, _: *const Buffer, _: usize, by: u64) -> u32 {
    with(config, |host, _| {
        host.metrics[id].1 += by;
        0
    })
}

unsafe extern "C" fn record(config: Pointer, id: usize, _: *const Buffer, _: usize, value: u64) -> u32 {
    with(config, |host, _| {
        host.metrics[id].1 = value;
        0
    })
}

unsafe extern "C" fn config_scheduler_new(config: Pointer) -> Pointer {
    with(config, |host, _| host.schedulers += 1);
    config
}

unsafe extern "C" fn config_scheduler_commit(scheduler: Pointer, _event: u64) {
    with(scheduler, |_, _| ());
}

unsafe extern "C" fn config_scheduler_delete(scheduler: Pointer) {
    with(scheduler, |host, _| host.schedulers -= 1);
}

unsafe extern "C" fn scheduler_new(stream: Pointer) -> Pointer {
    with(stream, |host, _| host.schedulers += 1);
    stream
}

unsafe extern "C" fn scheduler_commit(scheduler: Pointer, _event: u64) {
    with(scheduler, |host, stream| {
        host.scheduled.push_back(stream);
    });
}

unsafe extern "C" fn scheduler_delete(scheduler: Pointer) {
    with(scheduler, |host, _| host.schedulers -= 1);
}

unsafe extern "C" fn header(
    stream: Pointer,
    map: u32,
    name: Buffer,
    value: *mut Buffer,
    index: usize,
    count: *mut usize,
) -> bool {
    with(stream, |host, of| {
        let name = text(name);
        let values: Vec<Vec<u8>> = match (map, name.as_str()) {
            (2, ":status") => {
                host.streams[&of].response_status.iter().map(|status| status.clone().into_bytes()).collect()
            }
            _ => {
                let headers = host.map(of, map).map(std::mem::take).unwrap_or_default();
                let own = headers.iter().filter(|(own, _)| own.eq_ignore_ascii_case(&name));
                let own = own.map(|(_, value)| value.clone()).collect();
                *host.map(of, map).unwrap() = headers;
                own
            }
        };
        put(count, values.len());
        let found = values.get(index).map(|value| host.lend(value));
        put(value, found.unwrap_or(Buffer { data: std::ptr::null(), length: 0 }));
        found.is_some()
    })
}

unsafe extern "C" fn headers_size(stream: Pointer, map: u32) -> usize {
    with(stream, |host, of| host.map(of, map).map_or(0, |headers| headers.len()))
}

unsafe extern "C" fn headers(stream: Pointer, map: u32, at: *mut HeaderBuffer) -> bool {
    with(stream, |host, of| {
        let Some(own) = host.map(of, map).cloned() else { return false };
        for (index, (name, value)) in own.iter().enumerate() {
            let header = HeaderBuffer { name: host.lend(name.as_bytes()), value: host.lend(value) };
            // SAFETY: the module has made room for as many headers as there are.
            put(unsafe { at.add(index) }, header);
        }
        true
    })
}

unsafe extern "C" fn set_header(stream: Pointer, map: u32, name: Buffer, value: Buffer) -> bool {
    let removes = value.data.is_null();
    with(stream, |host, of| {
        let (name, value) = (text(name), bytes(value));
        let Some(headers) = host.map(of, map) else { return false };
        headers.retain(|(own, _)| *own != name);
        if !removes {
            headers.push((name, value));
        }
        // What was lent of the map may be gone: it is overwritten, so that a module that still reads it notices.
        host.lent.iter_mut().for_each(|bytes| bytes.fill(b'?'));
        true
    })
}

/// The chunk that arrives (0), or what was buffered before (1).
fn part(host: &Host, of: u32, part: u32) -> Vec<u8> {
    if part == 0 { host.received.clone() } else { host.streams[&of].body.clone() }
}

unsafe extern "C" fn body_size(stream: Pointer, which: u32) -> usize {
    with(stream, |host, of| part(host, of, which).len())
}

/// In pieces of this size.
const CHUNK: usize = 400;

unsafe extern "C" fn body_chunks_size(stream: Pointer, which: u32) -> usize {
    with(stream, |host, of| part(host, of, which).len().div_ceil(CHUNK))
}

unsafe extern "C" fn body_chunks(stream: Pointer, which: u32, at: *mut Buffer) -> bool {
    with(stream, |host, of| {
        for (index, chunk) in part(host, of, which).chunks(CHUNK).enumerate() {
            let chunk = host.lend(chunk);
            // SAFETY: the module has made room for as many chunks as there are.
            put(unsafe { at.add(index) }, chunk);
        }
        true
    })
}

unsafe extern "C" fn received_is_buffered(_stream: Pointer) -> bool {
    false
}

unsafe extern "C" fn metadata_text(
    stream: Pointer,
    source: u32,
    namespace: Buffer,
    key: Buffer,
    value: *mut Buffer,
) -> bool {
    with(stream, |host, of| {
        let found = host.metadata(of, source, &format!("{}.{}", text(namespace), text(key)));
        let found = found.map(|found| host.lend(&found));
        found.inspect(|found| put(value, *found)).is_some()
    })
}

/// Numbers are named with a `#` before them.
unsafe extern "C" fn metadata_number(
    stream: Pointer,
    source: u32,
    namespace: Buffer,
    key: Buffer,
    value: *mut f64,
) -> bool {
    with(stream, |host, of| {
        let found = host.metadata(of, source, &format!("#{}.{}", text(namespace), text(key)));
        let found = found.and_then(|found| String::from_utf8(found).unwrap().parse().ok());
        found.inspect(|found| put(value, *found)).is_some()
    })
}

fn keys(host: &Host, of: u32, source: u32, namespace: &str) -> Vec<String> {
    let place = if source == 0 { "metadata" } else { "xds.route_metadata" };
    let prefixes = ["", "#", "?"].map(|kind| format!("{place}.filter_metadata.{kind}{namespace}."));
    let names = host.streams[&of].properties.keys();
    names
        .filter_map(|name| prefixes.iter().find_map(|prefix| name.strip_prefix(prefix.as_str())))
        .map(str::to_owned)
        .collect()
}

unsafe extern "C" fn metadata_keys_count(stream: Pointer, source: u32, namespace: Buffer) -> usize {
    with(stream, |host, of| keys(host, of, source, &text(namespace)).len())
}

unsafe extern "C" fn metadata_keys(stream: Pointer, source: u32, namespace: Buffer, at: *mut Buffer) -> bool {
    with(stream, |host, of| {
        for (index, key) in keys(host, of, source, &text(namespace)).iter().enumerate() {
            let key = host.lend(key.as_bytes());
            // SAFETY: the module has made room for as many keys as there are.
            put(unsafe { at.add(index) }, key);
        }
        true
    })
}

unsafe extern "C" fn set_metadata(stream: Pointer, namespace: Buffer, object: Buffer) {
    assert_eq!(text(namespace), "envoy.filters.http.ext_authz");
    with(stream, |host, of| host.streams.get_mut(&of).unwrap().state = Some(bytes(object)));
}

unsafe extern "C" fn attribute_text(stream: Pointer, attribute: u32, value: *mut Buffer) -> bool {
    let name = match attribute {
        41 => "upstream.address",
        61 => "xds.route_name",
        other => panic!("attribute {other}"),
    };
    with(stream, |host, of| {
        let found = host.property(of, name).map(|found| host.lend(&found));
        found.inspect(|found| put(value, *found)).is_some()
    })
}

unsafe extern "C" fn attribute_number(stream: Pointer, attribute: u32, value: *mut u64) -> bool {
    let name = match attribute {
        15 => "response.code",
        17 => "response.flags",
        53 => "upstream.request_attempt_count",
        other => panic!("attribute {other}"),
    };
    with(stream, |host, of| {
        let found = host.property(of, name).map(|found| u64::from_le_bytes(found.try_into().unwrap()));
        // Envoy says 0 where it has not counted.
        let found = if attribute == 53 { Some(found.unwrap_or(0)) } else { found };
        found.inspect(|found| put(value, *found)).is_some()
    })
}

unsafe extern "C" fn respond(
    stream: Pointer,
    status: u32,
    headers: *const HeaderBuffer,
    count: usize,
    body: Buffer,
    _details: Buffer,
) {
    // SAFETY: the module's headers can be read within the call.
    let headers = unsafe { std::slice::from_raw_parts(headers, count) };
    let headers = headers.iter().map(|header| (text(header.name), text(header.value))).collect();
    let reply = LocalReply { status, headers, body: text(body) };
    decide(stream, "respond", |own| {
        let is_grpc =
            |(name, value): &(String, Vec<u8>)| name == "content-type" && value.starts_with(b"application/grpc");
        let mut reply = reply;
        // As Envoy does it for a module.
        if own.request_headers.iter().any(is_grpc) && !reply.headers.iter().any(|(name, _)| name == "grpc-status") {
            reply.headers.push(("grpc-status".into(), "0".into()));
        }
        own.reply = Some(reply);
    });
}

unsafe extern "C" fn resume(stream: Pointer) {
    decide(stream, "resume", |own| own.resumed = true);
}

unsafe extern "C" fn reset(stream: Pointer, _reason: u32, _details: Buffer) {
    decide(stream, "reset", |own| own.reset = true);
}
