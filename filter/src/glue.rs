//! The functions that the proxy calls, and the reading of what it hands out. Translates only: every decision is in `machine`
//! and `voids`, and what is kept between the calls is in `vm`.
//!
//! A worker is one thread and the proxy does not call back while it serves a call of the filter. Should it ever, the state is
//! found borrowed and the callback answers as if the host had failed: requests stay paused.

#![expect(unsafe_code, reason = "functions are exported under the ABI's names")]

mod vm;

use std::cell::RefCell;

use quota::rule::Unreadable;

use crate::abi::{self, Buffer, HostError, Level, Map};
use crate::machine::{Action, Event, ModeWord, Stream};
use crate::outcome::{Ending, UNKNOWN, UNREACHED};
use vm::Vm;

/// Longest answer of the server that is read, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;
/// Where the route's mode is written.
const MODE_PATH: [&str; 5] = ["xds", "route_metadata", "filter_metadata", "sluice", "mode"];

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
    let status: Option<u16> = status.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
    // Only a failure settles a charge before the stream ends.
    if status.is_none_or(|status| status >= 400) {
        with_vm((), |vm| {
            if vm.stream(context).is_some_and(Stream::is_charged) {
                vm.event(context, Event::ResponseHeaders(Ending { status, ..ending() }));
            }
        });
    }
    Action::Continue.status()
}

#[unsafe(no_mangle)]
extern "C" fn proxy_on_log(context: u32) {
    with_vm((), |vm| {
        if vm.stream(context).is_some_and(Stream::is_open) {
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
    // Flags that cannot be read could have said that the outcome is unknown.
    let flags = number(&["response", "flags"]).unwrap_or(UNKNOWN);
    Ending {
        status: number(&["response", "code"]).and_then(|code| u16::try_from(code).ok()),
        flags,
        // Each property costs a call into the proxy, and only these flags ask for this one.
        tries: if flags & UNREACHED == 0 { None } else { number(&["upstream", "request_attempt_count"]) },
    }
}
