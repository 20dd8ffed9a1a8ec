//! One stream: its events in, its effects out.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use proto::header;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{self, BufferType, MapType};
use sluice_rules::Unreadable;

use super::root::Root;
use super::warn;
use super::worker::{Due, Worker};
use crate::abi::{self, HostError};
use crate::batch::PendingCheck;
use crate::delays::TICK_MS;
use crate::machine::{
    Action, AnswerHeaders, Effect, Event, Failed, ModeWord, NotSentReason, RequestHead, Stream, drive,
};
use crate::outcome::{Ending, EndingReader};
use crate::record::STATE_NAME;
use crate::stats::Stat;
use crate::wire::{self, Outcome};

/// The property path of the route's mode.
const MODE_PATH: &str = "xds\0route_metadata\0filter_metadata\0sluice\0mode";

/// The property path of the route's name.
const ROUTE_PATH: &str = "xds\0route_name";

/// One stream, for as long as the proxy keeps it.
pub(super) struct StreamContext {
    /// Without a configuration there is no stream, and its requests stay paused: Envoy does not send any.
    stream: Option<Stream>,
    actions: HostActions,
}

/// Carries out the effects of one stream.
struct HostActions {
    root: Rc<Root>,
    /// The number of the stream's context.
    context: u32,
    check: Option<Arc<PendingCheck>>,
    /// Until when the request is delayed.
    delayed_until_ms: Option<u64>,
    /// The status of the gateway's answer.
    status: Option<u16>,
}

/// What the SDK holds of a stream.
pub(super) struct Http {
    worker: Rc<Worker>,
    root: Rc<Root>,
    context: u32,
    shared: Rc<RefCell<StreamContext>>,
}

impl Http {
    pub(super) fn new(worker: Rc<Worker>, root: Rc<Root>, context: u32) -> Self {
        let stream = root.plugin().and_then(|plugin| Some(Stream::new(plugin, worker.next_attempt()?)));
        let actions =
            HostActions { root: Rc::clone(&root), context, check: None, delayed_until_ms: None, status: None };
        let shared = Rc::new(RefCell::new(StreamContext { stream, actions }));
        worker.put_stream(context, Rc::clone(&shared));
        Self { worker, root, context, shared }
    }

    /// One of the stream's own callbacks.
    fn during<T>(&self, act: impl FnOnce(&mut StreamContext, &Worker) -> T) -> Option<T> {
        let result = self.shared.try_borrow_mut().ok().map(|mut shared| act(&mut shared, &self.worker));
        self.root.finish_stream(&self.worker);
        result
    }

    fn request(&self, act: impl FnOnce(&mut StreamContext, &Worker) -> Action) -> types::Action {
        match self.during(act) {
            Some(Action::Continue) => types::Action::Continue,
            Some(Action::Pause) | None => types::Action::Pause,
        }
    }
}

impl Context for Http {}

impl HttpContext for Http {
    fn on_http_request_headers(&mut self, _count: usize, end: bool) -> types::Action {
        #[cfg(feature = "trap")]
        if matches!(abi::header(MapType::HttpRequestHeaders, "x-trap"), Ok(Some(_))) {
            core::arch::wasm32::unreachable()
        }
        self.request(|shared, worker| {
            let map = abi::header_map(MapType::HttpRequestHeaders);
            let Some(headers) = map.as_deref().ok().and_then(wire::decode_pairs) else {
                return shared.event(worker, Event::HostFailed);
            };
            let mode = abi::property(MODE_PATH);
            let head = RequestHead { headers: &headers, mode: mode_word(&mode), metadata: &metadata };
            shared.event(worker, Event::RequestHeaders { head, end })
        })
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> types::Action {
        self.request(|shared, worker| {
            shared.event(worker, Event::RequestBody { size, end, read: &|max| read_body(max) })
        })
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> types::Action {
        self.request(|shared, worker| {
            let map = abi::header_map(MapType::HttpRequestTrailers);
            let trailers = map.as_deref().ok().and_then(wire::decode_pairs);
            let trailers = trailers.as_deref().ok_or(Unreadable);
            shared.event(worker, Event::RequestTrailers { trailers, read: &|max| read_body(max) })
        })
    }

    fn on_http_response_headers(&mut self, _count: usize, _end: bool) -> types::Action {
        self.during(StreamContext::response_headers);
        types::Action::Continue
    }

    fn on_log(&mut self) {
        self.during(StreamContext::log);
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.worker.remove_stream(self.context);
        // The log has ended it already, unless the proxy left that out.
        if let Ok(mut shared) = self.shared.try_borrow_mut() {
            shared.log(&self.worker);
        }
        self.root.finish_stream(&self.worker);
    }
}

/// Passes a stream the answer to its check. Called from a root's callback.
pub(super) fn answer(worker: &Worker, check: &Arc<PendingCheck>, outcome: Outcome<'_>) {
    let check_ms = worker.latest_ms().saturating_sub(check.started_ms);
    resolve(worker, check, |shared| {
        let Outcome { grpc_status, response } = outcome;
        shared.event(worker, Event::Reply { grpc_status, message: response, check_ms });
    });
}

/// Notifies a stream that its check was never sent.
pub(super) fn not_sent(worker: &Worker, check: &Arc<PendingCheck>) {
    let why = if check.is_unsent() { NotSentReason::NotAccepted } else { NotSentReason::Late };
    resolve(worker, check, |shared| {
        shared.event(worker, Event::NotSent(why));
    });
}

/// A request's delay is over. Called from a tick.
pub(super) fn delay_over(worker: &Worker, context: u32) {
    let done = effective(worker, context, |shared| {
        shared.actions.delayed_until_ms = None;
        shared.event(worker, Event::DelayOver);
    });
    if !done {
        worker.defer(worker.latest_ms().saturating_add(u64::from(TICK_MS)), context, Due::Delay);
    }
}

fn resolve(worker: &Worker, check: &Arc<PendingCheck>, act: impl FnOnce(&mut StreamContext)) {
    if check.is_over() {
        return;
    }
    let done = effective(worker, check.stream, |shared| {
        act(shared);
        check.over();
        shared.actions.check = None;
    });
    if !done {
        let later_ms = worker.latest_ms().saturating_add(u64::from(TICK_MS));
        worker.defer(later_ms, check.stream, Due::NoAnswer(Arc::clone(check)));
    }
}

/// Acts on a stream from outside of its own callbacks. `false` if the proxy does not allow that now.
fn effective(worker: &Worker, context: u32, act: impl FnOnce(&mut StreamContext)) -> bool {
    let Some(shared) = worker.stream(context) else { return true };
    match (shared.try_borrow_mut(), abi::set_effective_context(context)) {
        (Ok(mut shared), Ok(())) => {
            act(&mut shared);
            true
        }
        (Err(_), _) | (_, Err(HostError(_))) => false,
    }
}

impl StreamContext {
    /// Follow-ups are put into the worker's outbox.
    fn event(&mut self, worker: &Worker, event: Event<'_>) -> Action {
        let Self { stream: Some(stream), actions } = self else {
            return Action::Pause;
        };
        if actions.check.as_ref().is_some_and(|check| check.is_sent()) {
            stream.check_sent();
        }
        drive(stream, event, &mut |effect| actions.perform(worker, effect))
    }

    fn response_headers(&mut self, worker: &Worker) {
        if !self.stream.as_ref().is_some_and(Stream::is_forwarded) {
            return;
        }
        let status = abi::header(MapType::HttpResponseHeaders, ":status").ok().flatten();
        let status: Option<u16> = status.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        self.actions.status = status.filter(|status| *status >= 200);
        // Only a failure ends a charge before the stream ends; but the outcome that the gateway reports, and the captured amount,
        // are read now.
        let failure = status.is_none_or(|status| status >= 400);
        let Some(stream) = self.stream.as_ref().filter(|stream| failure || stream.awaits_answer()) else { return };
        let values = |name: Option<&str>| name.map_or(Ok(Vec::new()), response_values);
        let headers =
            AnswerHeaders { amounts: values(stream.amount_header()), outcomes: values(stream.outcome_header()) };
        let ending = Ending { status, ..Ending::read(&Properties, status, stream.outcome_header().is_some()) };
        self.event(worker, Event::ResponseHeaders { ending, headers });
    }

    fn log(&mut self, worker: &Worker) {
        if let Some(stream) = self.stream.as_ref().filter(|stream| stream.awaits_log()) {
            // The end of a stream that was never forwarded adds nothing.
            let ending = if stream.is_forwarded() {
                Ending::read(&Properties, self.actions.status, stream.outcome_header().is_some())
            } else {
                Ending::default()
            };
            self.event(worker, Event::Log(ending));
        }
        self.actions.cancel(worker);
    }
}

impl HostActions {
    fn perform(&mut self, worker: &Worker, effect: Effect<'_>) -> Result<(), Failed> {
        let done = match effect {
            Effect::StripHeader(name) => abi::remove_header(MapType::HttpRequestHeaders, name),
            Effect::StripTrailer(name) => abi::remove_header(MapType::HttpRequestTrailers, name),
            Effect::SetHeader { name, value } => abi::set_request_header(&name, value),
            Effect::Check { message, timeout_ms } => self.send_check(worker, message, timeout_ms),
            Effect::Delay { delay_ms } => self.delay(worker, delay_ms),
            Effect::Resume => abi::resume_request(),
            Effect::Respond { status, headers, body } => {
                let code = wire::value(&headers, header::CODE).unwrap_or("refused").to_ascii_lowercase();
                abi::respond(status, &format!("sluice_{code}"), &headers, &body)
            }
            Effect::Reset => abi::reset_request(),
            Effect::Show(object) => abi::set_state(STATE_NAME, &object),
            Effect::FollowUp(follow_up) => {
                worker.put(follow_up);
                Ok(())
            }
            Effect::Count(stat) => {
                worker.metrics.count(stat);
                Ok(())
            }
            Effect::ObserveCheck(millis) => {
                worker.metrics.record_check(millis);
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
        };
        done.map_err(|HostError(_)| Failed)
    }

    fn send_check(&mut self, worker: &Worker, message: Vec<u8>, timeout_ms: u32) -> Result<(), HostError> {
        let check = PendingCheck::new(self.context, message, worker.now_ms(), timeout_ms);
        self.root.submit_check(worker, &check)?;
        self.check = Some(check);
        Ok(())
    }

    fn delay(&mut self, worker: &Worker, delay_ms: u32) -> Result<(), HostError> {
        let due_ms = worker.now_ms().saturating_add(u64::from(delay_ms));
        if !worker.delay(due_ms, self.context) {
            return Err(HostError(0));
        }
        self.delayed_until_ms = Some(due_ms);
        self.root.schedule_tick(worker, due_ms);
        worker.metrics.count(Stat::Delayed);
        Ok(())
    }

    /// The stream has ended: its delay and its check are cancelled.
    fn cancel(&mut self, worker: &Worker) {
        if let Some(due_ms) = self.delayed_until_ms.take() {
            worker.cancel(due_ms, self.context);
        }
        if let Some(check) = self.check.take() {
            check.over();
        }
    }

    /// Once for each route: every request of it would log the same.
    fn warn_mode(&self) {
        let route = abi::property(ROUTE_PATH).ok().flatten().unwrap_or_default();
        let route = String::from_utf8_lossy(&route).into_owned();
        let warning = format!(
            "route {route:?}: metadata sluice.mode is an unknown mode, so the route is enforced; write enforce, shadow or off"
        );
        if self.root.is_new_route(route) {
            warn(&warning);
        }
    }
}

/// Every value of a header of the gateway's answer.
fn response_values(name: &str) -> Result<Vec<Vec<u8>>, Unreadable> {
    let map = abi::header_map(MapType::HttpResponseHeaders).map_err(|HostError(_)| Unreadable)?;
    let headers = wire::decode_pairs(&map).ok_or(Unreadable)?;
    let own = headers.into_iter().filter(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()));
    Ok(own.map(|(_, value)| value.to_vec()).collect())
}

fn read_body(max: usize) -> Result<Cow<'static, [u8]>, Unreadable> {
    match abi::buffer(BufferType::HttpRequestBody, max) {
        Ok(body) => Ok(Cow::Owned(body.unwrap_or_default())),
        Err(HostError(_)) => Err(Unreadable),
    }
}

fn metadata(path: &[String]) -> Result<Option<Vec<u8>>, Unreadable> {
    let full = format!("metadata\0filter_metadata\0{}", path.join("\0"));
    abi::property(&full).map_err(|HostError(_)| Unreadable)
}

fn mode_word(property: &Result<Option<Vec<u8>>, HostError>) -> ModeWord<'_> {
    match property {
        Ok(Some(word)) => ModeWord::Word(word),
        Ok(None) => ModeWord::Unset,
        Err(HostError(_)) => ModeWord::Unreadable,
    }
}

/// What the proxy's properties say of the stream's end.
struct Properties;

impl EndingReader for Properties {
    fn flags(&self) -> Option<u64> {
        number("response\0flags").ok().flatten()
    }

    fn code(&self) -> Option<u16> {
        number("response\0code").ok().flatten().and_then(|code| u16::try_from(code).ok())
    }

    /// The proxy counts from its first choice of a host on: without a count and without a host it has not tried.
    fn tries(&self) -> Option<u64> {
        match number("upstream\0request_attempt_count") {
            Ok(Some(tries)) => Some(tries),
            Ok(None) => match abi::property("upstream\0address") {
                Ok(None) => Some(0),
                Ok(Some(_)) | Err(HostError(_)) => None,
            },
            Err(HostError(_)) => None,
        }
    }
}

/// A number among the proxy's properties; `Err` where it is there and cannot be read.
fn number(path: &str) -> Result<Option<u64>, HostError> {
    let Some(bytes) = abi::property(path)? else { return Ok(None) };
    bytes.first_chunk::<8>().map(|chunk| Some(u64::from_le_bytes(*chunk))).ok_or(HostError(0))
}
