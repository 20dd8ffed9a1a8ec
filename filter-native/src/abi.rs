//! Envoy's ABI of dynamic modules, version v0.2.0 (Envoy 1.40): the callbacks that the filter uses, as safe functions, and the
//! hooks that Envoy calls. The only file with unsafe code.
//!
//! Envoy loads a module whatever its ABI is, and only logs a difference. So the callbacks are looked up by name when the module is
//! loaded, and a module that misses one refuses to be loaded.
//!
//! What Envoy does within a callback that ends or resumes a stream may call the module again for the same stream, and destroy it.
//! So a hook first lets the stream decide, and does this ([`Then`]) last, when nothing of the stream is borrowed any more.

#![expect(unsafe_code, reason = "Envoy's functions take and return raw addresses")]

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use crate::config::Config;
use crate::stream::{Filter, Reaction, Then};

/// The version of the ABI that this file declares.
const VERSION: &CStr = c"v0.2.0";
/// The first release of Envoy with that version.
const ENVOY: &str = "1.40";

/// Bytes of Envoy or of the module, for as long as the callback says.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    pub data: *const u8,
    pub length: usize,
}

impl Buffer {
    const EMPTY: Self = Self { data: std::ptr::null(), length: 0 };

    fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), length: bytes.len() }
    }

    /// # Safety
    /// The buffer is empty, or its bytes can be read, for the time given.
    unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.data.is_null() || self.length == 0 {
            return &[];
        }
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }

    /// # Safety
    /// The buffer is empty, or its bytes can be read.
    unsafe fn copy(self) -> Vec<u8> {
        // SAFETY: as above.
        unsafe { self.bytes() }.to_vec()
    }
}

/// A header of Envoy or of the module.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct HeaderBuffer {
    pub name: Buffer,
    pub value: Buffer,
}

/// A map of headers.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Map {
    RequestHeaders = 0,
    RequestTrailers = 1,
    ResponseHeaders = 2,
}

/// Where metadata is.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metadata {
    Dynamic = 0,
    Route = 1,
}

/// What is known of a stream.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attribute {
    ResponseCode = 15,
    ResponseFlags = 17,
    UpstreamAddress = 41,
    RequestAttemptCount = 53,
    RouteName = 61,
}

/// A level of Envoy's log.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Info = 2,
    Warn = 3,
    Error = 4,
}

/// The part of a request's body that arrived with the callback.
const RECEIVED_BODY: u32 = 0;
/// The part that was buffered before it.
const BUFFERED_BODY: u32 = 1;
/// A reset that does not invite a retry.
const LOCAL_RESET: u32 = 0;
/// What a hook returns to stop the request, and to buffer its body.
const STOP: u32 = 1;

type Pointer = *mut c_void;

macro_rules! callbacks {
    ($($(#[$doc:meta])* $field:ident: $symbol:literal ($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// Envoy's functions.
        #[derive(Clone, Copy)]
        pub struct Callbacks {
            $($(#[$doc])* pub $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Callbacks {
            /// Looks the functions up in the process.
            ///
            /// # Errors
            /// The name of one that is missing.
            fn resolve() -> Result<Self, &'static str> {
                Ok(Self {
                    $($field: {
                        let address = symbol($symbol);
                        if address.is_null() {
                            return Err($symbol.to_str().unwrap_or_default());
                        }
                        // SAFETY: the ABI gives the function of that name this type.
                        unsafe {
                            std::mem::transmute::<Pointer, unsafe extern "C" fn($($argument),*) $(-> $result)?>(address)
                        }
                    },)*
                })
            }
        }
    };
}

callbacks! {
    log: c"envoy_dynamic_module_callback_log" (u32, Buffer);
    concurrency: c"envoy_dynamic_module_callback_get_concurrency" () -> u32;
    define_counter: c"envoy_dynamic_module_callback_http_filter_config_define_counter"
        (Pointer, Buffer, *const Buffer, usize, *mut usize) -> u32;
    define_gauge: c"envoy_dynamic_module_callback_http_filter_config_define_gauge"
        (Pointer, Buffer, *const Buffer, usize, *mut usize) -> u32;
    define_histogram: c"envoy_dynamic_module_callback_http_filter_config_define_histogram"
        (Pointer, Buffer, *const Buffer, usize, *mut usize) -> u32;
    increment_counter: c"envoy_dynamic_module_callback_http_filter_config_increment_counter"
        (Pointer, usize, *const Buffer, usize, u64) -> u32;
    set_gauge: c"envoy_dynamic_module_callback_http_filter_config_set_gauge"
        (Pointer, usize, *const Buffer, usize, u64) -> u32;
    record_histogram: c"envoy_dynamic_module_callback_http_filter_config_record_histogram_value"
        (Pointer, usize, *const Buffer, usize, u64) -> u32;
    config_scheduler_new: c"envoy_dynamic_module_callback_http_filter_config_scheduler_new" (Pointer) -> Pointer;
    config_scheduler_commit: c"envoy_dynamic_module_callback_http_filter_config_scheduler_commit" (Pointer, u64);
    config_scheduler_delete: c"envoy_dynamic_module_callback_http_filter_config_scheduler_delete" (Pointer);
    scheduler_new: c"envoy_dynamic_module_callback_http_filter_scheduler_new" (Pointer) -> Pointer;
    scheduler_commit: c"envoy_dynamic_module_callback_http_filter_scheduler_commit" (Pointer, u64);
    scheduler_delete: c"envoy_dynamic_module_callback_http_filter_scheduler_delete" (Pointer);
    header: c"envoy_dynamic_module_callback_http_get_header"
        (Pointer, u32, Buffer, *mut Buffer, usize, *mut usize) -> bool;
    headers_size: c"envoy_dynamic_module_callback_http_get_headers_size" (Pointer, u32) -> usize;
    headers: c"envoy_dynamic_module_callback_http_get_headers" (Pointer, u32, *mut HeaderBuffer) -> bool;
    set_header: c"envoy_dynamic_module_callback_http_set_header" (Pointer, u32, Buffer, Buffer) -> bool;
    body_size: c"envoy_dynamic_module_callback_http_get_body_size" (Pointer, u32) -> usize;
    body_chunks_size: c"envoy_dynamic_module_callback_http_get_body_chunks_size" (Pointer, u32) -> usize;
    body_chunks: c"envoy_dynamic_module_callback_http_get_body_chunks" (Pointer, u32, *mut Buffer) -> bool;
    received_is_buffered: c"envoy_dynamic_module_callback_http_received_buffered_request_body" (Pointer) -> bool;
    metadata_text: c"envoy_dynamic_module_callback_http_get_metadata_string"
        (Pointer, u32, Buffer, Buffer, *mut Buffer) -> bool;
    metadata_number: c"envoy_dynamic_module_callback_http_get_metadata_number"
        (Pointer, u32, Buffer, Buffer, *mut f64) -> bool;
    metadata_keys_count: c"envoy_dynamic_module_callback_http_get_metadata_keys_count" (Pointer, u32, Buffer) -> usize;
    metadata_keys: c"envoy_dynamic_module_callback_http_get_metadata_keys"
        (Pointer, u32, Buffer, *mut Buffer) -> bool;
    set_metadata: c"envoy_dynamic_module_callback_http_set_dynamic_metadata_struct" (Pointer, Buffer, Buffer);
    attribute_text: c"envoy_dynamic_module_callback_http_filter_get_attribute_string"
        (Pointer, u32, *mut Buffer) -> bool;
    attribute_number: c"envoy_dynamic_module_callback_http_filter_get_attribute_int" (Pointer, u32, *mut u64) -> bool;
    respond: c"envoy_dynamic_module_callback_http_send_response"
        (Pointer, u32, *const HeaderBuffer, usize, Buffer, Buffer);
    resume: c"envoy_dynamic_module_callback_http_filter_continue_decoding" (Pointer);
    reset: c"envoy_dynamic_module_callback_http_filter_reset_stream" (Pointer, u32, Buffer);
}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Callbacks")
    }
}

unsafe extern "C" {
    fn dlsym(handle: Pointer, name: *const c_char) -> Pointer;
    fn dladdr(address: *const c_void, info: *mut DlInfo) -> c_int;
    fn dlopen(file: *const c_char, flags: c_int) -> Pointer;
    #[cfg(target_os = "linux")]
    fn sched_setscheduler(process: c_int, policy: c_int, priority: *const c_int) -> c_int;
}

/// What the dynamic linker knows of an address.
#[repr(C)]
struct DlInfo {
    file: *const c_char,
    base: Pointer,
    symbol: *const c_char,
    address: Pointer,
}

/// Every module of the process.
#[cfg(target_os = "macos")]
const RTLD_DEFAULT: Pointer = std::ptr::without_provenance_mut(usize::MAX - 1);
#[cfg(not(target_os = "macos"))]
const RTLD_DEFAULT: Pointer = std::ptr::null_mut();
/// Resolves functions when they are called, opens what is loaded already, and never unloads it.
#[cfg(target_os = "macos")]
const STAY: c_int = 0x1 | 0x10 | 0x80;
#[cfg(not(target_os = "macos"))]
const STAY: c_int = 0x1 | 0x4 | 0x1000;

static CALLBACKS: OnceLock<Callbacks> = OnceLock::new();

/// The address of a function in the process; null where there is none.
fn symbol(name: &CStr) -> Pointer {
    // SAFETY: the name ends with a zero byte.
    unsafe { dlsym(RTLD_DEFAULT, name.as_ptr()) }
}

/// Puts the functions of a test's host in the place of Envoy's. The first host of a process stays.
///
/// # Safety
/// The functions do what the ABI says.
pub unsafe fn install(callbacks: Callbacks) {
    let _ = CALLBACKS.set(callbacks);
}

fn callbacks() -> Option<&'static Callbacks> {
    CALLBACKS.get()
}

/// Writes a line to Envoy's log; from any thread.
pub fn log(level: Level, text: &str) {
    match callbacks() {
        // SAFETY: Envoy reads the text within the call.
        Some(callbacks) => unsafe { (callbacks.log)(level as u32, Buffer::of(text.as_bytes())) },
        None => eprintln!("{text}"),
    }
}

/// The number of Envoy's workers.
#[must_use]
pub fn concurrency() -> u32 {
    // SAFETY: no argument is passed.
    callbacks().map_or(1, |callbacks| unsafe { (callbacks.concurrency)() })
}

/// Keeps the module in the process: its thread runs on when Envoy drops the last configuration.
fn stay_loaded() {
    let mut info = DlInfo {
        file: std::ptr::null(),
        base: std::ptr::null_mut(),
        symbol: std::ptr::null(),
        address: std::ptr::null_mut(),
    };
    let own: extern "C" fn() -> *const c_char = envoy_dynamic_module_on_program_init;
    // SAFETY: the linker writes one structure within the call; the file's name is its own and stays.
    unsafe {
        if dladdr(own as *const c_void, &raw mut info) != 0 && !info.file.is_null() {
            dlopen(info.file, STAY);
        }
    }
}

/// Lets this thread wait for its turn instead of interrupting the thread that wakes it: a worker on the same core first reads all
/// requests that are there, and their checks share a call. Where the system does not allow it, nothing changes.
pub fn run_in_batches() {
    #[cfg(target_os = "linux")]
    {
        /// The policy for threads that work in batches.
        const SCHED_BATCH: c_int = 3;
        let priority: c_int = 0;
        // SAFETY: the system reads one number within the call; 0 is this thread.
        unsafe { sched_setscheduler(0, SCHED_BATCH, &raw const priority) };
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
                let headers: Vec<HeaderBuffer> = headers.iter().map(header).collect();
                let (body, details) = (Buffer::of(&body), Buffer::of(details.as_bytes()));
                // SAFETY: Envoy reads the headers, the body and the details within the call.
                unsafe {
                    (self.callbacks.respond)(self.stream, status, headers.as_ptr(), headers.len(), body, details);
                }
            }
        }
    }
}

/// Runs a hook of a stream; a panic fails the stream closed.
fn hook(stream: Pointer, filter: *const c_void, run: impl FnOnce(&mut Filter, StreamHandle<'_>) -> Reaction) -> u32 {
    let Some(handle) = StreamHandle::new(stream) else { return STOP };
    let filter = filter.cast_mut().cast::<Filter>();
    let reaction = {
        // SAFETY: `envoy_dynamic_module_on_http_filter_new` made it, Envoy runs one hook of a stream at a time on its worker, and
        // calls none from the functions that a stream uses while it is borrowed here.
        let Some(filter) = (unsafe { filter.as_mut() }) else { return STOP };
        catch_unwind(AssertUnwindSafe(|| run(filter, handle))).unwrap_or_else(|_| {
            catch_unwind(AssertUnwindSafe(|| filter.panicked(handle))).unwrap_or_else(|_| Reaction::unavailable())
        })
    };
    handle.perform(reaction.then);
    if reaction.goes_on { 0 } else { STOP }
}

fn quietly(run: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(run));
}

/// Loads the module: Envoy's functions are looked up, and a panic is logged where it happens.
#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_program_init() -> *const c_char {
    let resolved = Callbacks::resolve();
    if let Ok(callbacks) = resolved {
        // SAFETY: they are Envoy's own.
        unsafe { install(callbacks) };
    }
    match resolved {
        _ if callbacks().is_some() => {
            quietly(|| {
                stay_loaded();
                std::panic::set_hook(Box::new(|info| {
                    log(Level::Error, &format!("sluice: the filter panicked: {info}"))
                }));
            });
            VERSION.as_ptr()
        }
        Ok(_) => std::ptr::null(),
        Err(missing) => {
            let text = format!(
                "sluice: this Envoy cannot run the native filter: it has no function {missing}. The filter needs the module ABI \
                 {} of Envoy {ENVOY} or newer: run such an Envoy, or use the wasm filter (envoy/envoy.yaml)",
                VERSION.to_str().unwrap_or_default(),
            );
            let log = symbol(c"envoy_dynamic_module_callback_log");
            if log.is_null() {
                eprintln!("{text}");
            } else {
                // SAFETY: the ABI gives the function of that name this type.
                let log = unsafe { std::mem::transmute::<Pointer, unsafe extern "C" fn(u32, Buffer)>(log) };
                // SAFETY: Envoy reads the text within the call.
                unsafe { log(Level::Error as u32, Buffer::of(text.as_bytes())) };
            }
            std::ptr::null()
        }
    }
}

/// A configuration; null refuses it, and Envoy keeps the one before.
///
/// # Safety
/// Envoy calls it with a configuration of its own and two texts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_new(
    config: Pointer,
    _name: Buffer,
    text: Buffer,
) -> *const c_void {
    let configured = catch_unwind(|| {
        // SAFETY: Envoy's text can be read within the call.
        let text = unsafe { text.copy() };
        let handle = ConfigHandle::new(config);
        let configured = Config::new(handle, &text);
        if let Err(problem) = &configured {
            log(Level::Error, &format!("sluice: plugin configuration is refused: {problem}"));
        }
        configured.ok()
    });
    configured.ok().flatten().map_or(std::ptr::null(), |config| Arc::into_raw(config).cast())
}

/// The end of a configuration, after that of its streams.
///
/// # Safety
/// The configuration is one that the module returned, and is used no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_destroy(config: *const c_void) {
    if !config.is_null() {
        // SAFETY: as above.
        let config = unsafe { Arc::from_raw(config.cast::<Config>()) };
        config.handle().close();
        quietly(|| config.end());
    }
}

/// Something that the module's thread wants from the main thread.
///
/// # Safety
/// The configuration is one that the module returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_config_scheduled(
    _envoy: Pointer,
    config: *const c_void,
    event: u64,
) {
    // SAFETY: as above.
    if let Some(config) = unsafe { config.cast::<Config>().as_ref() } {
        quietly(|| config.scheduled(event));
    }
}

/// A new stream; null closes it.
///
/// # Safety
/// The configuration is one that the module returned.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_new(
    config: *const c_void,
    _stream: Pointer,
) -> *const c_void {
    if config.is_null() {
        return std::ptr::null();
    }
    // SAFETY: as above; Envoy keeps its own share of the configuration.
    let config = unsafe {
        Arc::increment_strong_count(config.cast::<Config>());
        Arc::from_raw(config.cast::<Config>())
    };
    catch_unwind(AssertUnwindSafe(|| Box::into_raw(Box::new(Filter::new(config)))))
        .map_or(std::ptr::null(), |filter| filter.cast_const().cast())
}

/// # Safety
/// The filter is one that the module returned, of this stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_headers(
    stream: Pointer,
    filter: *const c_void,
    end: bool,
) -> u32 {
    hook(stream, filter, |filter, handle| filter.request_headers(handle, end))
}

/// # Safety
/// The filter is one that the module returned, of this stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_body(
    stream: Pointer,
    filter: *const c_void,
    end: bool,
) -> u32 {
    hook(stream, filter, |filter, handle| filter.request_body(handle, end))
}

/// # Safety
/// The filter is one that the module returned, of this stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_request_trailers(
    stream: Pointer,
    filter: *const c_void,
) -> u32 {
    hook(stream, filter, Filter::request_trailers)
}

/// # Safety
/// The filter is one that the module returned, of this stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_response_headers(
    stream: Pointer,
    filter: *const c_void,
    _end: bool,
) -> u32 {
    hook(stream, filter, Filter::response_headers)
}

/// The answer's body goes through.
#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_response_body(
    _stream: Pointer,
    _filter: *const c_void,
    _end: bool,
) -> u32 {
    0
}

/// The answer's trailers go through.
#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_response_trailers(
    _stream: Pointer,
    _filter: *const c_void,
) -> u32 {
    0
}

/// The stream has ended; its access log is written afterwards.
///
/// # Safety
/// The filter is one that the module returned, of this stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_stream_complete(stream: Pointer, filter: *const c_void) {
    hook(stream, filter, Filter::complete);
}

/// Something that the module's thread has for the stream.
///
/// # Safety
/// The filter is one that the module returned, of this stream.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_scheduled(
    stream: Pointer,
    filter: *const c_void,
    _event: u64,
) {
    hook(stream, filter, Filter::scheduled);
}

/// The stream is gone.
///
/// # Safety
/// The filter is one that the module returned, and is used no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn envoy_dynamic_module_on_http_filter_destroy(filter: *const c_void) {
    if !filter.is_null() {
        // SAFETY: as above.
        let filter = unsafe { Box::from_raw(filter.cast_mut().cast::<Filter>()) };
        quietly(|| drop(filter));
    }
}

/// A configuration of a route: there is none, so it is refused.
#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_new(
    _name: Buffer,
    _text: Buffer,
) -> *const c_void {
    log(
        Level::Error,
        "sluice: a route has no configuration of its own: set its mode in the route's metadata, or disable the filter",
    );
    std::ptr::null()
}

/// The end of a configuration of a route.
#[unsafe(no_mangle)]
pub extern "C" fn envoy_dynamic_module_on_http_filter_per_route_config_destroy(_config: *const c_void) {}

macro_rules! unused {
    ($($name:ident ($($argument:ty),*);)*) => {
        $(
            /// Envoy requires it; nothing of the filter causes it.
            #[unsafe(no_mangle)]
            pub extern "C" fn $name($(_: $argument),*) {}
        )*
    };
}

unused! {
    envoy_dynamic_module_on_http_filter_http_callout_done
        (Pointer, *const c_void, u64, u32, Pointer, usize, Pointer, usize);
    envoy_dynamic_module_on_http_filter_http_stream_headers (Pointer, *const c_void, u64, Pointer, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_data (Pointer, *const c_void, u64, *const c_void, usize, bool);
    envoy_dynamic_module_on_http_filter_http_stream_trailers (Pointer, *const c_void, u64, Pointer, usize);
    envoy_dynamic_module_on_http_filter_http_stream_complete (Pointer, *const c_void, u64);
    envoy_dynamic_module_on_http_filter_http_stream_reset (Pointer, *const c_void, u64, u32);
    envoy_dynamic_module_on_http_filter_downstream_above_write_buffer_high_watermark (Pointer, *const c_void);
    envoy_dynamic_module_on_http_filter_downstream_below_write_buffer_low_watermark (Pointer, *const c_void);
}
