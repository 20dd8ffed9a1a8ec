//! The proxy's functions (proxy-wasm ABI 0.2.1) as total functions: every status other than success is an error value, where
//! the SDK's wrappers panic on statuses that they do not list. Calls out are the exception ([`grpc_call`]): the SDK has to
//! know their tokens.
//!
//! The only module with imports of its own from the host, and beside [`pool`](crate::pool) the only one that touches raw memory.

#![expect(unsafe_code, reason = "the host's functions take and return raw addresses")]

use std::time::Duration;

use proxy_wasm::hostcalls::dispatch_grpc_call;
use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType, Status, StreamType};

use crate::wire::Pair;

/// The host's status for something that does not exist.
const NOT_FOUND: u32 = Status::NotFound as u32;

/// A host's status other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostError(pub(crate) u32);

mod raw {
    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub(super) fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
    }

    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub(super) fn proxy_log(level: u32, text: *const u8, size: usize) -> u32;
        pub(super) fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub(super) fn proxy_set_effective_context(context: u32) -> u32;
        pub(super) fn proxy_get_buffer_bytes(
            kind: u32,
            start: usize,
            max: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_get_header_map_pairs(kind: u32, data: *mut *mut u8, size: *mut usize) -> u32;
        pub(super) fn proxy_get_header_map_value(
            kind: u32,
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_remove_header_map_value(kind: u32, key: *const u8, key_size: usize) -> u32;
        pub(super) fn proxy_replace_header_map_value(
            kind: u32,
            key: *const u8,
            key_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub(super) fn proxy_get_property(
            path: *const u8,
            path_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_set_property(path: *const u8, path_size: usize, value: *const u8, value_size: usize)
        -> u32;
        pub(super) fn proxy_continue_stream(kind: u32) -> u32;
        pub(super) fn proxy_close_stream(kind: u32) -> u32;
        pub(super) fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub(super) fn proxy_call_foreign_function(
            name: *const u8,
            name_size: usize,
            arguments: *const u8,
            arguments_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_define_metric(kind: u32, name: *const u8, name_size: usize, id: *mut u32) -> u32;
        pub(super) fn proxy_record_metric(id: u32, value: u64) -> u32;
        pub(super) fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    }
}

fn check(status: u32) -> Result<(), HostError> {
    if status == 0 { Ok(()) } else { Err(HostError(status)) }
}

/// Calls a function of the host that hands out bytes by address and size.
fn take(call: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, HostError> {
    let mut data: *mut u8 = std::ptr::null_mut();
    let mut size: usize = 0;
    let status = call(&raw mut data, &raw mut size);
    if data.is_null() || size == 0 {
        return check(status).map(|()| Vec::new());
    }
    // SAFETY: the host had the memory from the SDK's `proxy_on_memory_allocate`, which hands out a boxed slice of this very
    // size, and has filled it. It would prefer an exported `malloc`, which the module must not have.
    let bytes = unsafe { Vec::from_raw_parts(data, size, size) };
    check(status).map(|()| bytes)
}

fn optional(result: Result<Vec<u8>, HostError>) -> Result<Option<Vec<u8>>, HostError> {
    match result {
        Ok(bytes) => Ok(Some(bytes)),
        Err(HostError(NOT_FOUND)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes a line to the proxy's log. A failure cannot be reported anywhere.
pub(crate) fn log(level: LogLevel, text: &str) {
    // SAFETY: the host reads `text` within the call.
    unsafe { raw::proxy_log(level as u32, text.as_ptr(), text.len()) };
}

/// Milliseconds of the proxy's monotonic clock, or `None` if the proxy does not return it.
pub(crate) fn monotonic_ms() -> Option<u64> {
    /// WASI's number of that clock.
    const MONOTONIC: u32 = 1;
    let mut nanos = 0;
    // SAFETY: the host writes one number within the call.
    match unsafe { raw::clock_time_get(MONOTONIC, 0, &raw mut nanos) } {
        0 => nanos.checked_div(1_000_000),
        _ => None,
    }
}

/// Makes the following calls act on this context's stream, until the callback ends.
pub(crate) fn set_effective_context(context: u32) -> Result<(), HostError> {
    // SAFETY: a number is passed.
    check(unsafe { raw::proxy_set_effective_context(context) })
}

/// Sets the period of the timer of the effective context's configuration, and restarts it.
pub(crate) fn set_tick_period(period_ms: u32) -> Result<(), HostError> {
    // SAFETY: a number is passed.
    check(unsafe { raw::proxy_set_tick_period_milliseconds(period_ms) })
}

/// Reads up to `max` bytes of a buffer.
pub(crate) fn buffer(buffer: BufferType, max: usize) -> Result<Option<Vec<u8>>, HostError> {
    // SAFETY: the host writes an address and a size within the call.
    optional(take(|data, size| unsafe { raw::proxy_get_buffer_bytes(buffer as u32, 0, max, data, size) }))
}

/// Every header, as [`decode_pairs`](crate::wire::decode_pairs) reads them.
pub(crate) fn header_map(map: MapType) -> Result<Vec<u8>, HostError> {
    // SAFETY: the host writes an address and a size within the call.
    take(|data, size| unsafe { raw::proxy_get_header_map_pairs(map as u32, data, size) })
}

pub(crate) fn header(map: MapType, name: &str) -> Result<Option<Vec<u8>>, HostError> {
    // SAFETY: the host reads `name` and writes an address and a size within the call.
    optional(take(|data, size| unsafe {
        raw::proxy_get_header_map_value(map as u32, name.as_ptr(), name.len(), data, size)
    }))
}

pub(crate) fn remove_header(map: MapType, name: &str) -> Result<(), HostError> {
    // SAFETY: the host reads `name` within the call.
    check(unsafe { raw::proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

pub(crate) fn set_request_header(name: &str, value: &str) -> Result<(), HostError> {
    let map = MapType::HttpRequestHeaders as u32;
    // SAFETY: the host reads `name` and `value` within the call.
    check(unsafe { raw::proxy_replace_header_map_value(map, name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

/// A property by its path, whose parts a zero byte separates; `None` where it is not set.
pub(crate) fn property(path: &str) -> Result<Option<Vec<u8>>, HostError> {
    // SAFETY: the host reads `path` and writes an address and a size within the call.
    optional(take(|data, size| unsafe { raw::proxy_get_property(path.as_ptr(), path.len(), data, size) }))
}

/// Declares that the filter state of that name is an encoded message of this type, so that an access log can show its members.
/// The proxy takes it from a root context, once for each.
pub(crate) fn declare_state(name: &str, message: &str) -> Result<(), HostError> {
    const FUNCTION: &str = "declare_property";
    let arguments = crate::wire::declaration(name, message);
    // SAFETY: the host reads the name and the arguments within the call, and writes an address and a size.
    take(|data, size| unsafe {
        raw::proxy_call_foreign_function(
            FUNCTION.as_ptr(),
            FUNCTION.len(),
            arguments.as_ptr(),
            arguments.len(),
            data,
            size,
        )
    })
    .map(drop)
}

/// Sets the stream's filter state of that name.
pub(crate) fn set_state(name: &str, value: &[u8]) -> Result<(), HostError> {
    // SAFETY: the host reads `name` and `value` within the call.
    check(unsafe { raw::proxy_set_property(name.as_ptr(), name.len(), value.as_ptr(), value.len()) })
}

pub(crate) fn resume_request() -> Result<(), HostError> {
    // SAFETY: a number is passed.
    check(unsafe { raw::proxy_continue_stream(StreamType::HttpRequest as u32) })
}

pub(crate) fn reset_request() -> Result<(), HostError> {
    // SAFETY: a number is passed.
    check(unsafe { raw::proxy_close_stream(StreamType::HttpRequest as u32) })
}

/// Answers the request. `details` is what an access log shows as the reason of the answer.
pub(crate) fn respond(status: u32, details: &str, headers: &[Pair<'_>], body: &[u8]) -> Result<(), HostError> {
    let headers = crate::wire::encode_pairs(headers);
    // SAFETY: the host reads the details, the body and the headers within the call; no gRPC status is set.
    check(unsafe {
        raw::proxy_send_local_response(
            status,
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            -1,
        )
    })
}

/// Starts a call of a service's method and returns its token. The SDK delivers the answer to the context that is active now.
pub(crate) fn grpc_call(
    cluster: &str,
    [service, method]: [&str; 2],
    message: &[u8],
    timeout_ms: u32,
) -> Result<u32, HostError> {
    let timeout = Duration::from_millis(u64::from(timeout_ms));
    let call = dispatch_grpc_call(cluster, service, method, Vec::new(), Some(message), timeout);
    call.map_err(|status| HostError(status as u32))
}

pub(crate) fn define_metric(kind: MetricType, name: &str) -> Result<u32, HostError> {
    let mut id = 0;
    // SAFETY: the host reads `name` and writes one number within the call.
    check(unsafe { raw::proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

pub(crate) fn record_metric(id: u32, value: u64) -> Result<(), HostError> {
    // SAFETY: numbers are passed.
    check(unsafe { raw::proxy_record_metric(id, value) })
}

pub(crate) fn increment_metric(id: u32, by: u32) -> Result<(), HostError> {
    // SAFETY: numbers are passed.
    check(unsafe { raw::proxy_increment_metric(id, i64::from(by)) })
}
