//! The http context: one stream's events in, its effects out.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};

use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{self, BufferType, MapType};
use quota::rule::Unreadable;

use super::worker::Worker;
use super::{answer, warn};
use crate::abi::{self, HostError};
use crate::config::Plugin;
use crate::delays::Timer;
use crate::machine::{Action, Effect, Event, Failed, ModeWord, RequestHead, Stream, drive};
use crate::outcome::{Ending, UNKNOWN, UNREACHED};
use crate::record::STATE_NAME;
use crate::stats::Stat;

/// Where the route's mode is written.
const MODE_PATH: [&str; 5] = ["xds", "route_metadata", "filter_metadata", "sluice", "mode"];

pub(super) struct Http {
    root: Rc<Shared>,
    life: Rc<RefCell<Life>>,
}

/// What the streams of one root context share with it.
pub(super) struct Shared {
    pub(super) id: u32,
    pub(super) worker: Rc<Worker>,
    pub(super) timer: Cell<Timer>,
    /// The log has said that a route names an unknown mode.
    pub(super) warned_mode: Cell<bool>,
}

/// One stream. It is borrowed within one callback only, and the proxy makes no callback within another one.
pub(super) struct Life {
    /// Without a configuration there is no stream, and its requests stay paused: Envoy does not send any.
    stream: Option<Stream>,
    hands: Hands,
}

/// Carries out the effects of one stream.
struct Hands {
    root: Rc<Shared>,
    /// The number of the stream's context.
    context: u32,
    /// Where the tick finds the stream.
    life: Weak<RefCell<Life>>,
    /// The token of the question to the server, and when it was asked.
    asked: Option<(u32, u64)>,
    /// Until when the request is held back.
    delayed_until_ms: Option<u64>,
}

impl Http {
    pub(super) fn new(root: Rc<Shared>, context: u32, plugin: Option<Rc<Plugin>>) -> Self {
        let stream = plugin.and_then(|plugin| Some(Stream::new(plugin, root.worker.next_attempt()?)));
        let life = Rc::new_cyclic(|life| {
            let root = Rc::clone(&root);
            let hands = Hands { root, context, life: Weak::clone(life), asked: None, delayed_until_ms: None };
            RefCell::new(Life { stream, hands })
        });
        Self { root, life }
    }

    fn event(&self, event: Event<'_>) -> types::Action {
        let action = self.with(|life| life.event(event)).unwrap_or(Action::Pause);
        self.root.worker.send_outbox(self.root.id);
        match action {
            Action::Continue => types::Action::Continue,
            Action::Pause => types::Action::Pause,
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Life) -> T) -> Option<T> {
        self.life.try_borrow_mut().ok().map(|mut life| act(&mut life))
    }

    fn asks(&self, question: impl FnOnce(&Stream) -> bool) -> bool {
        self.with(|life| life.stream.as_ref().is_some_and(question)).unwrap_or_default()
    }
}

impl Life {
    /// What is to be told to the server is put into the worker's outbox.
    fn event(&mut self, event: Event<'_>) -> Action {
        let Self { stream: Some(stream), hands } = self else {
            return Action::Pause;
        };
        let plugin = stream.plugin();
        let mut perform = |effect| hands.perform(&plugin, effect).map_err(|HostError(_)| Failed);
        drive(stream, event, &mut perform)
    }

    /// The time of the request has come. Called from a tick, with the stream as the proxy's effective context.
    pub(super) fn delay_over(&mut self) {
        self.hands.delayed_until_ms = None;
        self.event(Event::DelayOver);
    }
}

impl Context for Http {
    fn on_grpc_call_response(&mut self, token: u32, grpc_status: u32, size: usize) {
        let asked = self.with(|life| life.hands.asked.take_if(|(own, _)| *own == token)).flatten();
        let Some((_, since_nanos)) = asked else { return };
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
        // Only a failure ends a charge before the stream ends; but that the gateway has captured, and how much, is read now.
        let failure = status.is_none_or(|status| status >= 400);
        if self.asks(|stream| stream.awaits_capture() || (failure && stream.is_forwarded())) {
            let header = self.with(|life| Some(life.stream.as_ref()?.amount_header()?.to_owned())).flatten();
            let amounts = header.map_or(Ok(Vec::new()), |name| response_values(&name));
            self.event(Event::ResponseHeaders { ending: Ending { status, ..ending() }, amounts });
        }
        types::Action::Continue
    }

    fn on_log(&mut self) {
        if self.asks(Stream::is_open) {
            self.event(Event::Log(ending()));
        }
        self.with(|life| life.hands.let_go());
    }
}

impl Hands {
    fn perform(&mut self, plugin: &Plugin, effect: Effect) -> Result<(), HostError> {
        match effect {
            Effect::StripHeader(name) => abi::remove_header(MapType::HttpRequestHeaders, &name),
            Effect::StripTrailer(name) => abi::remove_header(MapType::HttpRequestTrailers, &name),
            Effect::SetHeader { name, value } => abi::set_request_header(&name, &value),
            Effect::Ask { message, timeout_ms } => self.ask(plugin, &message, timeout_ms),
            Effect::Delay { delay_ms } => self.delay(delay_ms),
            Effect::Resume => abi::resume_request(),
            Effect::Respond { status, headers, body } => abi::respond(status, &headers, &body),
            Effect::Reset => abi::reset_request(),
            Effect::FollowUp(follow_up) => {
                self.root.worker.put(follow_up);
                Ok(())
            }
            Effect::Show(text) => abi::set_state(STATE_NAME, text.as_bytes()),
            Effect::Count(stat) => {
                self.root.worker.count(stat);
                Ok(())
            }
            Effect::ObserveCheck(millis) => {
                self.root.worker.record_check(millis);
                Ok(())
            }
            Effect::Warn(text) => {
                warn(&text);
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

    fn delay(&mut self, delay_ms: u32) -> Result<(), HostError> {
        let Shared { worker, timer, .. } = &*self.root;
        let now_ms = worker.now_ms();
        let due_ms = now_ms.saturating_add(u64::from(delay_ms));
        if !worker.hold_back(due_ms, self.context, Weak::clone(&self.life)) {
            return Err(HostError(0));
        }
        self.delayed_until_ms = Some(due_ms);
        let mut own = timer.get();
        let period = own.hasten(now_ms, worker.next_stream().unwrap_or(due_ms));
        timer.set(own);
        // Where the proxy does not set it, the tick that is set already will come, if late.
        if let Some(period_ms) = period {
            let _ = abi::set_tick_period(period_ms);
        }
        worker.count(Stat::Delayed);
        Ok(())
    }

    /// The stream is over: nobody waits for its time any more.
    fn let_go(&mut self) {
        if let Some(due_ms) = self.delayed_until_ms.take() {
            self.root.worker.let_go(due_ms, self.context);
        }
    }

    fn warn_mode(&self) {
        if !self.root.warned_mode.replace(true) {
            warn("a route's metadata names an unknown mode; it is enforced (modes: enforce, shadow, off)");
        }
    }
}

/// Every value of a header of the gateway's answer.
fn response_values(name: &str) -> Result<Vec<Vec<u8>>, Unreadable> {
    let headers = abi::headers(MapType::HttpResponseHeaders).map_err(|HostError(_)| Unreadable)?;
    let own = headers.into_iter().filter(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()));
    Ok(own.map(|(_, value)| value).collect())
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
