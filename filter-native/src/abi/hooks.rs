//! The hooks that Envoy calls. Each is caught: a panic fails its stream closed.
//!
//! What Envoy does within a callback that ends or resumes a stream may call the module again for the same stream, and destroy it.
//! So a hook first lets the stream decide, and does this ([`Then`](crate::stream::Then)) last, when nothing of the stream is borrowed
//! any more.

use std::ffi::{c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::sys::{self, Buffer, Callbacks, Pointer, symbol};
use super::{ConfigHandle, Level, StreamHandle, log};
use crate::config::Config;
use crate::stream::{Filter, Reaction};

/// The first release of Envoy with the ABI's version.
const ENVOY: &str = "1.40";
/// What a hook returns to stop the request, and to buffer its body.
const STOP: u32 = 1;

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
        unsafe { sys::install(callbacks) };
    }
    match resolved {
        _ if sys::callbacks().is_some() => {
            quietly(|| {
                sys::stay_loaded(envoy_dynamic_module_on_program_init);
                std::panic::set_hook(Box::new(|info| {
                    log(Level::Error, &format!("sluice: the filter panicked: {info}"))
                }));
            });
            sys::VERSION.as_ptr()
        }
        Ok(_) => std::ptr::null(),
        Err(missing) => {
            let text = format!(
                "sluice: this Envoy cannot run the native filter: it has no function {missing}. The filter needs the module ABI \
                 {} of Envoy {ENVOY} or newer: run such an Envoy, or use the wasm filter (envoy/envoy.yaml)",
                sys::VERSION.to_str().unwrap_or_default(),
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
        quietly(|| Config::end(config));
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
