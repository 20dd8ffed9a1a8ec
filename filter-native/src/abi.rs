//! Envoy's ABI of dynamic modules, version v0.2.0 (Envoy 1.40), as safe types: a configuration, a stream, and the ways back to
//! Envoy's threads. This module and its two files are the only place with unsafe code: [`sys`] is the ABI as it is written in C,
//! [`hooks`] is what Envoy calls.

#![expect(unsafe_code, reason = "Envoy's functions take and return raw addresses")]

pub mod hooks;
pub mod sys;

use std::borrow::Cow;
use std::marker::PhantomData;
use std::sync::{PoisonError, RwLock};

use crate::client::grpc;
use crate::stream::Then;
pub use sys::{Attribute, Level, Map, Metadata, run_in_batches};
use sys::{Buffer, Callbacks, HeaderBuffer, Pointer, callbacks};

/// The part of a request's body that arrived with the callback.
const RECEIVED_BODY: u32 = 0;
/// The part that was buffered before it.
const BUFFERED_BODY: u32 = 1;
/// A reset that does not invite a retry.
const LOCAL_RESET: u32 = 0;

/// Writes a line to Envoy's log; from any thread.
pub fn log(level: Level, text: &str) {
    match callbacks() {
        // SAFETY: Envoy reads the text within the call.
        Some(callbacks) => unsafe { (callbacks.log)(level as u32, Buffer::of(text.as_bytes())) },
        None => eprintln!("{text}"),
    }
}

/// One configuration of the filter in Envoy, for as long as Envoy has it. Usable from every thread.
#[derive(Debug)]
pub struct ConfigHandle(RwLock<Option<ConfigPointers>>);

#[derive(Debug)]
struct ConfigPointers {
    config: Pointer,
    /// Brings events to the main thread.
    scheduler: Pointer,
}

// SAFETY: Envoy's counters and gauges are shared between threads, its scheduler is made for other threads, and the lock keeps the
// configuration while a call runs.
unsafe impl Send for ConfigPointers {}
// SAFETY: as above.
unsafe impl Sync for ConfigPointers {}

/// Envoy's number of a metric.
#[derive(Clone, Copy, Debug)]
pub struct MetricId(usize);

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl ConfigHandle {
    fn new(config: Pointer) -> Self {
        // SAFETY: the configuration is there within the hook that creates it.
        let scheduler =
            callbacks().map_or(std::ptr::null_mut(), |callbacks| unsafe { (callbacks.config_scheduler_new)(config) });
        Self(RwLock::new(Some(ConfigPointers { config, scheduler })))
    }

    fn with<T>(&self, call: impl FnOnce(&'static Callbacks, &ConfigPointers) -> T) -> Option<T> {
        let pointers = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(call(callbacks()?, pointers.as_ref()?))
    }

    /// Defines a metric; only while the configuration is created.
    #[must_use]
    pub fn define(&self, kind: MetricKind, name: &str) -> Option<MetricId> {
        let mut id = 0;
        let status = self.with(|callbacks, pointers| {
            let define = match kind {
                MetricKind::Counter => callbacks.define_counter,
                MetricKind::Gauge => callbacks.define_gauge,
                MetricKind::Histogram => callbacks.define_histogram,
            };
            // SAFETY: the configuration is there, Envoy reads the name and writes one number within the call; there are no labels.
            unsafe { define(pointers.config, Buffer::of(name.as_bytes()), std::ptr::null(), 0, &raw mut id) }
        })?;
        (status == 0).then_some(MetricId(id))
    }

    pub fn increment(&self, MetricId(id): MetricId, by: u64) {
        self.with(|callbacks, pointers| {
            // SAFETY: the configuration is there, and has defined the counter without labels.
            unsafe { (callbacks.increment_counter)(pointers.config, id, std::ptr::null(), 0, by) }
        });
    }

    pub fn set_gauge(&self, MetricId(id): MetricId, value: u64) {
        self.with(|callbacks, pointers| {
            // SAFETY: the configuration is there, and has defined the gauge without labels.
            unsafe { (callbacks.set_gauge)(pointers.config, id, std::ptr::null(), 0, value) }
        });
    }

    /// Only from a thread of Envoy: its histograms are kept by thread.
    pub fn record(&self, MetricId(id): MetricId, value: u64) {
        self.with(|callbacks, pointers| {
            // SAFETY: the configuration is there, and has defined the histogram without labels.
            unsafe { (callbacks.record_histogram)(pointers.config, id, std::ptr::null(), 0, value) }
        });
    }

    /// Brings an event to the main thread.
    pub fn schedule(&self, event: u64) {
        self.with(|callbacks, pointers| {
            if !pointers.scheduler.is_null() {
                // SAFETY: the scheduler is deleted under the lock's other side only.
                unsafe { (callbacks.config_scheduler_commit)(pointers.scheduler, event) };
            }
        });
    }

    /// Envoy's configuration goes away: nothing is called for it any more.
    fn close(&self) {
        let pointers = self.0.write().unwrap_or_else(PoisonError::into_inner).take();
        if let (Some(pointers), Some(callbacks)) = (pointers, callbacks())
            && !pointers.scheduler.is_null()
        {
            // SAFETY: Envoy made it, and it is used no more.
            unsafe { (callbacks.config_scheduler_delete)(pointers.scheduler) };
        }
    }
}

impl Drop for ConfigHandle {
    fn drop(&mut self) {
        // Where the configuration was refused.
        self.close();
    }
}

/// Brings events of other threads to a stream's worker. Its owner drops it before the stream's end.
#[derive(Debug)]
pub struct Scheduler(Pointer);

// SAFETY: Envoy's scheduler is made to be called from other threads.
unsafe impl Send for Scheduler {}

impl Scheduler {
    /// Has Envoy call the stream's [`Filter::scheduled`].
    pub fn commit(&self) {
        if let Some(callbacks) = callbacks() {
            // SAFETY: the scheduler is deleted when it is dropped, not before.
            unsafe { (callbacks.scheduler_commit)(self.0, 0) };
        }
    }
}

impl Drop for Scheduler {
    fn drop(&mut self) {
        if let Some(callbacks) = callbacks() {
            // SAFETY: Envoy made it, and it is used no more.
            unsafe { (callbacks.scheduler_delete)(self.0) };
        }
    }
}

/// A stream in Envoy, within one callback.
#[derive(Clone, Copy, Debug)]
pub struct StreamHandle<'a> {
    stream: Pointer,
    callbacks: &'static Callbacks,
    callback: PhantomData<&'a ()>,
}

/// The headers of a map in one piece.
#[derive(Debug)]
pub struct HeaderCopy {
    bytes: Vec<u8>,
    /// Where each name ends, and each value.
    ends: Vec<(usize, usize)>,
}

impl HeaderCopy {
    /// The names and values.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&[u8], &[u8])> {
        let mut start = 0;
        let pairs = self.ends.iter().map(|(name_end, end)| {
            let pair = (&self.bytes.get(start..*name_end), &self.bytes.get(*name_end..*end));
            start = *end;
            (pair.0.unwrap_or_default(), pair.1.unwrap_or_default())
        });
        pairs.collect()
    }
}

impl<'a> StreamHandle<'a> {
    fn new(stream: Pointer) -> Option<Self> {
        Some(Self { stream, callbacks: callbacks()?, callback: PhantomData })
    }

    /// Every header of a map, copied: Envoy's own bytes may go when a header is set or removed. `None` where there is no such map.
    #[must_use]
    pub fn headers(&self, map: Map) -> Option<HeaderCopy> {
        // SAFETY: the stream is there within the callback.
        let count = unsafe { (self.callbacks.headers_size)(self.stream, map as u32) };
        let mut headers = vec![HeaderBuffer { name: Buffer::EMPTY, value: Buffer::EMPTY }; count];
        // SAFETY: there is room for all headers.
        if !unsafe { (self.callbacks.headers)(self.stream, map as u32, headers.as_mut_ptr()) } {
            return None;
        }
        let size = |header: &HeaderBuffer| header.name.length.saturating_add(header.value.length);
        let bytes = Vec::with_capacity(headers.iter().map(size).fold(0, usize::saturating_add));
        let mut copy = HeaderCopy { bytes, ends: Vec::with_capacity(headers.len()) };
        for HeaderBuffer { name, value } in headers {
            // SAFETY: the map was not changed since.
            unsafe {
                copy.bytes.extend_from_slice(name.bytes());
                let end = copy.bytes.len();
                copy.bytes.extend_from_slice(value.bytes());
                copy.ends.push((end, copy.bytes.len()));
            }
        }
        Some(copy)
    }

    /// Every value of a header. None where the header is not there, or the map is not.
    #[must_use]
    pub fn header_values(&self, map: Map, name: &str) -> Vec<Vec<u8>> {
        let mut values = Vec::new();
        let mut count = 1;
        while values.len() < count {
            let mut value = Buffer::EMPTY;
            // SAFETY: Envoy reads the name and writes a buffer and a number within the call; the bytes stay until the map is changed.
            let value = unsafe {
                let (name, index) = (Buffer::of(name.as_bytes()), values.len());
                let found =
                    (self.callbacks.header)(self.stream, map as u32, name, &raw mut value, index, &raw mut count);
                if !found || values.len() >= count {
                    break;
                }
                value.copy()
            };
            values.push(value);
        }
        values
    }

    /// Removes every header of that name. `false` if Envoy does not.
    #[must_use]
    pub fn remove_header(&self, map: Map, name: &str) -> bool {
        // SAFETY: Envoy reads the name within the call; no value means to remove the header.
        unsafe { (self.callbacks.set_header)(self.stream, map as u32, Buffer::of(name.as_bytes()), Buffer::EMPTY) }
    }

    /// Sets a header of the request. `false` if Envoy does not.
    #[must_use]
    pub fn set_request_header(&self, name: &str, value: &str) -> bool {
        // An empty value has an address as well: without one Envoy would remove the header.
        let (name, value) = (Buffer::of(name.as_bytes()), Buffer::of(value.as_bytes()));
        // SAFETY: Envoy reads both within the call.
        unsafe { (self.callbacks.set_header)(self.stream, Map::RequestHeaders as u32, name, value) }
    }

    /// The parts of the body in their order. What another filter has buffered arrives as what is received.
    fn body_parts(&self) -> &'static [u32] {
        // SAFETY: the stream is there within the callback.
        if unsafe { (self.callbacks.received_is_buffered)(self.stream) } {
            &[RECEIVED_BODY]
        } else {
            &[BUFFERED_BODY, RECEIVED_BODY]
        }
    }

    /// The size of the body so far, in bytes.
    #[must_use]
    pub fn body_size(&self) -> usize {
        // SAFETY: the stream is there within the callback.
        let size = |part: &u32| unsafe { (self.callbacks.body_size)(self.stream, *part) };
        self.body_parts().iter().map(size).fold(0, usize::saturating_add)
    }

    /// Up to `max` bytes of the body so far. Nothing here changes it, so a body in one piece is lent.
    #[must_use]
    pub fn body(&self, max: usize) -> Cow<'a, [u8]> {
        let mut body = Cow::Borrowed::<[u8]>(&[]);
        for part in self.body_parts() {
            // SAFETY: the stream is there within the callback.
            let count = unsafe { (self.callbacks.body_chunks_size)(self.stream, *part) };
            let mut chunks = vec![Buffer::EMPTY; count];
            // SAFETY: there is room for all chunks.
            if count == 0 || !unsafe { (self.callbacks.body_chunks)(self.stream, *part, chunks.as_mut_ptr()) } {
                continue;
            }
            for chunk in chunks {
                let length = chunk.length.min(max.saturating_sub(body.len()));
                // SAFETY: Envoy keeps the bytes until the end of the callback, or until the body is changed.
                let bytes: &'a [u8] = unsafe { Buffer { length, ..chunk }.bytes() };
                if body.is_empty() {
                    body = Cow::Borrowed(bytes);
                } else if !bytes.is_empty() {
                    body.to_mut().extend_from_slice(bytes);
                }
            }
        }
        body
    }

    /// A string of metadata.
    #[must_use]
    pub fn metadata_text(&self, source: Metadata, namespace: &str, key: &str) -> Option<Vec<u8>> {
        let mut value = Buffer::EMPTY;
        let (namespace, key) = (Buffer::of(namespace.as_bytes()), Buffer::of(key.as_bytes()));
        // SAFETY: Envoy reads the names and writes a buffer within the call; its bytes stay until the metadata is changed.
        unsafe {
            (self.callbacks.metadata_text)(self.stream, source as u32, namespace, key, &raw mut value)
                .then(|| value.copy())
        }
    }

    /// A number of metadata.
    #[must_use]
    pub fn metadata_number(&self, source: Metadata, namespace: &str, key: &str) -> Option<f64> {
        let mut value = 0.0;
        let (namespace, key) = (Buffer::of(namespace.as_bytes()), Buffer::of(key.as_bytes()));
        // SAFETY: Envoy reads the names and writes a number within the call.
        unsafe { (self.callbacks.metadata_number)(self.stream, source as u32, namespace, key, &raw mut value) }
            .then_some(value)
    }

    /// Whether metadata has a value of any kind under a key.
    #[must_use]
    pub fn has_metadata(&self, source: Metadata, namespace: &str, key: &str) -> bool {
        let namespace = Buffer::of(namespace.as_bytes());
        // SAFETY: Envoy reads the name within the call.
        let count = unsafe { (self.callbacks.metadata_keys_count)(self.stream, source as u32, namespace) };
        let mut keys = vec![Buffer::EMPTY; count];
        // SAFETY: there is room for all keys; their bytes stay until the metadata is changed.
        count > 0
            && unsafe {
                (self.callbacks.metadata_keys)(self.stream, source as u32, namespace, keys.as_mut_ptr())
                    && keys.into_iter().any(|own| own.copy() == key.as_bytes())
            }
    }

    /// Sets a namespace of the stream's dynamic metadata to an encoded `google.protobuf.Struct`.
    pub fn set_metadata(&self, namespace: &str, object: &[u8]) {
        // SAFETY: Envoy reads both within the call.
        unsafe { (self.callbacks.set_metadata)(self.stream, Buffer::of(namespace.as_bytes()), Buffer::of(object)) };
    }

    /// A text about the stream.
    #[must_use]
    pub fn text(&self, attribute: Attribute) -> Option<Vec<u8>> {
        let mut value = Buffer::EMPTY;
        // SAFETY: Envoy writes a buffer within the call; its bytes stay until the end of the callback.
        unsafe { (self.callbacks.attribute_text)(self.stream, attribute as u32, &raw mut value).then(|| value.copy()) }
    }

    /// A number about the stream.
    #[must_use]
    pub fn number(&self, attribute: Attribute) -> Option<u64> {
        let mut value = 0;
        // SAFETY: Envoy writes a number within the call.
        unsafe { (self.callbacks.attribute_number)(self.stream, attribute as u32, &raw mut value) }.then_some(value)
    }

    /// A way back to the stream's worker.
    #[must_use]
    pub fn scheduler(&self) -> Option<Scheduler> {
        // SAFETY: the stream is there within the callback.
        let scheduler = unsafe { (self.callbacks.scheduler_new)(self.stream) };
        (!scheduler.is_null()).then_some(Scheduler(scheduler))
    }

    /// Whether Envoy takes the request for a gRPC request.
    fn is_grpc(&self) -> bool {
        let types = self.header_values(Map::RequestHeaders, "content-type");
        types.first().is_some_and(|own| own.starts_with(b"application/grpc"))
    }

    /// The last act of a hook: Envoy may call the module for this stream again, and destroy it.
    fn perform(self, then: Then) {
        match then {
            Then::Nothing => {}
            // SAFETY: the stream is there within the callback, and nothing of the module's is borrowed.
            Then::Resume => unsafe { (self.callbacks.resume)(self.stream) },
            // SAFETY: as above.
            Then::Reset => unsafe { (self.callbacks.reset)(self.stream, LOCAL_RESET, Buffer::of(b"sluice_reset")) },
            Then::Respond { status, details, headers, body } => {
                let header = |(name, value): &(String, String)| HeaderBuffer {
                    name: Buffer::of(name.as_bytes()),
                    value: Buffer::of(value.as_bytes()),
                };
                let mut headers: Vec<HeaderBuffer> = headers.iter().map(header).collect();
                // Without one Envoy answers a gRPC request with `grpc-status: 0`, a success, where it answers for a module.
                let grpc_status = u16::try_from(status).map_or(grpc::UNKNOWN, grpc::status_of).to_string();
                if self.is_grpc() {
                    headers.push(HeaderBuffer {
                        name: Buffer::of(b"grpc-status"),
                        value: Buffer::of(grpc_status.as_bytes()),
                    });
                }
                let (body, details) = (Buffer::of(&body), Buffer::of(details.as_bytes()));
                // SAFETY: Envoy reads the headers, the body and the details within the call.
                unsafe {
                    (self.callbacks.respond)(self.stream, status, headers.as_ptr(), headers.len(), body, details);
                }
            }
        }
    }
}
