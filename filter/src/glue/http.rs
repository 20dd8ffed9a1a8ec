//! The http context: one stream's events in, its effects out.

use std::cell::Cell;
use std::rc::Rc;

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{self, BufferType, LogLevel, MapType};
use quota::rule::Unreadable;

use super::answer;
use super::worker::Worker;
use crate::abi::{self, HostError};
use crate::config::Plugin;
use crate::machine::{Action, Effect, Event, Failed, ModeWord, RequestHead, Stream, drive};
use crate::outcome::{Ending, UNKNOWN, UNREACHED};
use crate::record::STATE_NAME;

/// Where the route's mode is written.
const MODE_PATH: [&str; 5] = ["xds", "route_metadata", "filter_metadata", "sluice", "mode"];

pub(super) struct Http {
    root: u32,
    /// Without a configuration there is no stream, and its requests stay paused: Envoy does not send any.
    stream: Option<Stream>,
    hands: Hands,
}

/// Carries out the effects of one stream.
struct Hands {
    worker: Rc<Worker>,
    warned_mode: Rc<Cell<bool>>,
    /// The token of the question to the server, and when it was asked.
    asked: Option<(u32, u64)>,
}

impl Http {
    pub(super) fn new(root: u32, worker: Rc<Worker>, plugin: Option<Rc<Plugin>>, warned_mode: Rc<Cell<bool>>) -> Self {
        let stream = plugin.and_then(|plugin| Some(Stream::new(plugin, worker.next_attempt()?)));
        Self { root, stream, hands: Hands { worker, warned_mode, asked: None } }
    }

    fn event(&mut self, event: Event<'_>) -> types::Action {
        let Self { stream: Some(stream), hands, .. } = self else {
            return types::Action::Pause;
        };
        let plugin = stream.plugin();
        let mut perform = |effect| hands.perform(&plugin, effect).map_err(|HostError(_)| Failed);
        let action = drive(stream, event, &mut perform);
        self.hands.worker.send_outbox(self.root);
        match action {
            Action::Continue => types::Action::Continue,
            Action::Pause => types::Action::Pause,
        }
    }
}

impl Context for Http {
    fn on_grpc_call_response(&mut self, token: u32, grpc_status: u32, size: usize) {
        let Some((_, since_nanos)) = self.hands.asked.take_if(|(own, _)| *own == token) else {
            return;
        };
        let message = answer(grpc_status, size);
        let check_ms = abi::now_nanos().saturating_sub(since_nanos).checked_div(1_000_000).unwrap_or_default();
        self.event(Event::Reply { grpc_status, message: message.as_deref(), check_ms });
    }
}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _count: usize, end: bool) -> types::Action {
        match abi::headers(MapType::HttpRequestHeaders) {
            Ok(headers) => {
                let head = RequestHead { headers, mode: mode_word(), metadata: &metadata };
                self.event(Event::RequestHeaders { head, end })
            }
            Err(HostError(_)) => self.event(Event::HostFailed),
        }
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> types::Action {
        self.event(Event::RequestBody { size, end, read: &request_body })
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> types::Action {
        let trailers = abi::headers(MapType::HttpRequestTrailers).map_err(|HostError(_)| Unreadable);
        self.event(Event::RequestTrailers { trailers, read: &request_body })
    }

    fn on_http_response_headers(&mut self, _count: usize, _end: bool) -> types::Action {
        let status = abi::header(MapType::HttpResponseHeaders, ":status").ok().flatten();
        let status: Option<u16> = status.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        // Only a failure settles a charge before the stream ends.
        let failure = status.is_none_or(|status| status >= 400);
        if failure && self.stream.as_ref().is_some_and(Stream::is_charged) {
            self.event(Event::ResponseHeaders(Ending { status, ..ending() }));
        }
        types::Action::Continue
    }

    fn on_log(&mut self) {
        if self.stream.as_ref().is_some_and(Stream::is_open) {
            self.event(Event::Log(ending()));
        }
    }
}

impl Hands {
    fn perform(&mut self, plugin: &Plugin, effect: Effect) -> Result<(), HostError> {
        match effect {
            Effect::StripHeader(name) => abi::remove_header(MapType::HttpRequestHeaders, &name),
            Effect::StripTrailer(name) => abi::remove_header(MapType::HttpRequestTrailers, &name),
            Effect::SetHeader { name, value } => abi::set_request_header(&name, &value),
            Effect::Ask { message, timeout_ms } => self.ask(plugin, &message, timeout_ms),
            Effect::Resume => abi::resume_request(),
            Effect::Respond { status, headers, body } => abi::respond(status, &headers, &body),
            Effect::Reset => abi::reset_request(),
            Effect::Void(void) => {
                self.worker.put(void);
                Ok(())
            }
            Effect::Show(text) => abi::set_state(STATE_NAME, text.as_bytes()),
            Effect::Count(stat) => {
                self.worker.count(stat);
                Ok(())
            }
            Effect::ObserveCheck(millis) => {
                self.worker.record_check(millis);
                Ok(())
            }
            Effect::WarnMode => {
                self.warn_mode();
                Ok(())
            }
        }
    }

    /// The SDK holds this stream active: the answer will come here.
    fn ask(&mut self, plugin: &Plugin, message: &[u8], timeout_ms: u32) -> Result<(), HostError> {
        let since_nanos = abi::now_nanos();
        let token = abi::grpc_call(&plugin.cluster, message, timeout_ms)?;
        self.asked = Some((token, since_nanos));
        Ok(())
    }

    fn warn_mode(&self) {
        if !self.warned_mode.replace(true) {
            abi::log(
                LogLevel::Warn,
                "sluice: a route's metadata names an unknown mode; it is enforced (modes: enforce, shadow, off)",
            );
        }
    }
}

fn request_body(max: usize) -> Result<Vec<u8>, Unreadable> {
    match abi::buffer(BufferType::HttpRequestBody, max) {
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
