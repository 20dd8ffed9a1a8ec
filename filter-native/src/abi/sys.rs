//! Envoy's ABI of dynamic modules as it is written in C: the version, the types, and the functions of Envoy that the filter uses.
//!
//! Envoy loads a module whatever its ABI is, and only logs a difference. So the functions are looked up by name when the module is
//! loaded, and a module that misses one refuses to be loaded.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

/// The version of the ABI that this file declares.
pub(super) const VERSION: &CStr = c"v0.2.0";

/// Bytes of Envoy or of the module, for as long as the callback says.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    pub data: *const u8,
    pub length: usize,
}

impl Buffer {
    pub(super) const EMPTY: Self = Self { data: std::ptr::null(), length: 0 };

    pub(super) fn of(bytes: &[u8]) -> Self {
        Self { data: bytes.as_ptr(), length: bytes.len() }
    }

    /// # Safety
    /// The buffer is empty, or its bytes can be read, for the time given.
    pub(super) unsafe fn bytes<'a>(self) -> &'a [u8] {
        if self.data.is_null() || self.length == 0 {
            return &[];
        }
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(self.data, self.length) }
    }

    /// # Safety
    /// The buffer is empty, or its bytes can be read.
    pub(super) unsafe fn copy(self) -> Vec<u8> {
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

pub(super) type Pointer = *mut c_void;

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
            pub(super) fn resolve() -> Result<Self, &'static str> {
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
pub(super) fn symbol(name: &CStr) -> Pointer {
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

pub(super) fn callbacks() -> Option<&'static Callbacks> {
    CALLBACKS.get()
}

/// Keeps the module in the process: its thread runs on when Envoy drops the last configuration. `own`: one of its functions.
pub(super) fn stay_loaded(own: extern "C" fn() -> *const c_char) {
    let mut info = DlInfo {
        file: std::ptr::null(),
        base: std::ptr::null_mut(),
        symbol: std::ptr::null(),
        address: std::ptr::null_mut(),
    };
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
