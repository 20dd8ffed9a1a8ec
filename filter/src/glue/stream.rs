//! One stream: its events in, its effects out.

use std::cell::RefCell;
use std::rc::Rc;

use proto::header;
use proxy_wasm::traits::{Context, HttpContext};
use proxy_wasm::types::{self, BufferType, MapType};
use sluice_rules::Unreadable;

use super::root::Root;
use super::warn;
use super::worker::{Due, Worker};
use crate::abi::{self, HostError};
use crate::batch::Question;
use crate::delays::TICK_MS;
use crate::machine::{Action, AnswerHeaders, Effect, Event, Failed, ModeWord, RequestHead, Stream, Unasked, drive};
use crate::outcome::{Ending, UNKNOWN, UNREACHED};
use crate::record::STATE_NAME;
use crate::stats::Stat;
use crate::wire::{self, Outcome};

/// Where the route's mode is written, as the proxy takes a path.
const MODE_PATH: &str = "xds\0route_metadata\0filter_metadata\0sluice\0mode";

/// The route's name, as the proxy takes a path.
const ROUTE_PATH: &str = "xds\0route_name";

/// One stream, for as long as the proxy knows it.
pub(super) struct Life {
    /// Without a configuration there is no stream, and its requests stay paused: Envoy does not send any.
    stream: Option<Stream>,
    hands: Hands,
}

/// Carries out the effects of one stream.
struct Hands {
    root: Rc<Root>,
    /// The number of the stream's context.
    context: u32,
    question: Option<Rc<Question>>,
    /// Until when the request is held back.
    delayed_until_ms: Option<u64>,
    /// What the gateway's answer began with.
    status: Option<u16>,
}

/// What the SDK holds of a stream.
pub(super) struct Http {
    worker: Rc<Worker>,
    root: Rc<Root>,
    context: u32,
    life: Rc<RefCell<Life>>,
}

impl Http {
    pub(super) fn new(worker: Rc<Worker>, root: Rc<Root>, context: u32) -> Self {
        let stream = root.plugin().and_then(|plugin| Some(Stream::new(plugin, worker.next_attempt()?)));
        let hands = Hands { root: Rc::clone(&root), context, question: None, delayed_until_ms: None, status: None };
        let life = Rc::new(RefCell::new(Life { stream, hands }));
        worker.put_stream(context, Rc::clone(&life));
        Self { worker, root, context, life }
    }

    /// One of the stream's own callbacks.
    fn during<T>(&self, act: impl FnOnce(&mut Life, &Worker) -> T) -> Option<T> {
        let result = self.life.try_borrow_mut().ok().map(|mut life| act(&mut life, &self.worker));
        self.root.finish_stream(&self.worker);
        result
    }

    fn request(&self, act: impl FnOnce(&mut Life, &Worker) -> Action) -> types::Action {
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
        self.request(|life, worker| match abi::headers(MapType::HttpRequestHeaders) {
            Ok(headers) => {
                let head = RequestHead { headers, mode: mode_word(), metadata: &metadata };
                life.event(worker, Event::RequestHeaders { head, end })
            }
            Err(HostError(_)) => life.event(worker, Event::HostFailed),
        })
    }

    fn on_http_request_body(&mut self, size: usize, end: bool) -> types::Action {
        self.request(|life, worker| life.event(worker, Event::RequestBody { size, end, read: &read_body }))
    }

    fn on_http_request_trailers(&mut self, _count: usize) -> types::Action {
        self.request(|life, worker| {
            let trailers = abi::headers(MapType::HttpRequestTrailers).map_err(|HostError(_)| Unreadable);
            life.event(worker, Event::RequestTrailers { trailers, read: &read_body })
        })
    }

    fn on_http_response_headers(&mut self, _count: usize, _end: bool) -> types::Action {
        self.during(Life::response_headers);
        types::Action::Continue
    }

    fn on_log(&mut self) {
        self.during(Life::log);
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        self.worker.remove_stream(self.context);
        // The log has ended it already, unless the proxy left that out.
        if let Ok(mut life) = self.life.try_borrow_mut() {
            life.log(&self.worker);
        }
        self.root.finish_stream(&self.worker);
    }
}

/// Brings a stream the answer to its question. Called from a root's callback.
pub(super) fn answer(worker: &Worker, question: &Rc<Question>, outcome: Outcome<'_>) {
    let check_ms = worker.latest_ms().saturating_sub(question.asked_ms);
    resolve(worker, question, |life| {
        let Outcome { grpc_status, response } = outcome;
        life.event(worker, Event::Reply { grpc_status, message: response, check_ms });
    });
}

/// Brings a stream word that its question never went out.
pub(super) fn not_asked(worker: &Worker, question: &Rc<Question>) {
    let why = if question.is_unsent() { Unasked::NotTaken } else { Unasked::Late };
    resolve(worker, question, |life| {
        life.event(worker, Event::NotAsked(why));
    });
}

/// The time of a request has come. Called from a tick.
pub(super) fn delay_over(worker: &Worker, context: u32) {
    let done = effective(worker, context, |life| {
        life.hands.delayed_until_ms = None;
        life.event(worker, Event::DelayOver);
    });
    if !done {
        worker.see_to(worker.latest_ms().saturating_add(u64::from(TICK_MS)), context, Due::Delay);
    }
}

fn resolve(worker: &Worker, question: &Rc<Question>, act: impl FnOnce(&mut Life)) {
    if question.is_over() {
        return;
    }
    let done = effective(worker, question.stream, |life| {
        act(life);
        question.over();
        life.hands.question = None;
    });
    if !done {
        let later_ms = worker.latest_ms().saturating_add(u64::from(TICK_MS));
        worker.see_to(later_ms, question.stream, Due::NoAnswer(Rc::clone(question)));
    }
}

/// Acts on a stream from outside of its own callbacks. `false` where the proxy does not let us at it now.
fn effective(worker: &Worker, context: u32, act: impl FnOnce(&mut Life)) -> bool {
    let Some(life) = worker.stream(context) else { return true };
    match (life.try_borrow_mut(), abi::set_effective_context(context)) {
        (Ok(mut life), Ok(())) => {
            act(&mut life);
            true
        }
        (Err(_), _) | (_, Err(HostError(_))) => false,
    }
}

impl Life {
    /// What is to be told to the server is put into the worker's outbox.
    fn event(&mut self, worker: &Worker, event: Event<'_>) -> Action {
        let Self { stream: Some(stream), hands } = self else {
            return Action::Pause;
        };
        if hands.question.as_ref().is_some_and(|question| question.is_sent()) {
            stream.asked();
        }
        drive(stream, event, &mut |effect| hands.perform(worker, effect))
    }

    fn response_headers(&mut self, worker: &Worker) {
        if !self.stream.as_ref().is_some_and(Stream::is_forwarded) {
            return;
        }
        let status = abi::header(MapType::HttpResponseHeaders, ":status").ok().flatten();
        let status: Option<u16> = status.and_then(|text| std::str::from_utf8(&text).ok()?.parse().ok());
        self.hands.status = status.filter(|status| *status >= 200);
        // Only a failure ends a charge before the stream ends; but what the gateway says of the outcome, and how much it has
        // captured, is read now.
        let failure = status.is_none_or(|status| status >= 400);
        let Some(stream) = self.stream.as_ref().filter(|stream| failure || stream.awaits_answer()) else { return };
        let values = |name: Option<&str>| name.map_or(Ok(Vec::new()), response_values);
        let headers =
            AnswerHeaders { amounts: values(stream.amount_header()), outcomes: values(stream.outcome_header()) };
        let ending = Ending { status, ..ending(status, stream.outcome_header().is_some()) };
        self.event(worker, Event::ResponseHeaders { ending, headers });
    }

    fn log(&mut self, worker: &Worker) {
        if let Some(stream) = self.stream.as_ref().filter(|stream| stream.awaits_log()) {
            // The end of a stream that never went on says nothing more.
            let ending = if stream.is_forwarded() {
                ending(self.hands.status, stream.outcome_header().is_some())
            } else {
                Ending::default()
            };
            self.event(worker, Event::Log(ending));
        }
        self.hands.let_go(worker);
    }
}

impl Hands {
    fn perform(&mut self, worker: &Worker, effect: Effect) -> Result<(), Failed> {
        let done = match effect {
            Effect::StripHeader(name) => abi::remove_header(MapType::HttpRequestHeaders, &name),
            Effect::StripTrailer(name) => abi::remove_header(MapType::HttpRequestTrailers, &name),
            Effect::SetHeader { name, value } => abi::set_request_header(&name, &value),
            Effect::Ask { message, timeout_ms } => self.ask(worker, message, timeout_ms),
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
                worker.figures.count(stat);
                Ok(())
            }
            Effect::ObserveCheck(millis) => {
                worker.figures.record_check(millis);
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

    fn ask(&mut self, worker: &Worker, message: Vec<u8>, timeout_ms: u32) -> Result<(), HostError> {
        let question = Question::new(self.context, message, worker.now_ms(), timeout_ms);
        self.root.ask(worker, &question)?;
        self.question = Some(question);
        Ok(())
    }

    fn delay(&mut self, worker: &Worker, delay_ms: u32) -> Result<(), HostError> {
        let due_ms = worker.now_ms().saturating_add(u64::from(delay_ms));
        if !worker.hold_back(due_ms, self.context) {
            return Err(HostError(0));
        }
        self.delayed_until_ms = Some(due_ms);
        self.root.hasten(worker, due_ms);
        worker.figures.count(Stat::Delayed);
        Ok(())
    }

    /// The stream is over: nobody waits for its time or its answer any more.
    fn let_go(&mut self, worker: &Worker) {
        if let Some(due_ms) = self.delayed_until_ms.take() {
            worker.let_go(due_ms, self.context);
        }
        if let Some(question) = self.question.take() {
            question.over();
        }
    }

    /// Once for each route: every request of it would say the same.
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
    let headers = abi::headers(MapType::HttpResponseHeaders).map_err(|HostError(_)| Unreadable)?;
    let own = headers.into_iter().filter(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()));
    Ok(own.map(|(_, value)| value).collect())
}

fn read_body(max: usize) -> Result<Vec<u8>, Unreadable> {
    match abi::buffer(BufferType::HttpRequestBody, max) {
        Ok(body) => Ok(body.unwrap_or_default()),
        Err(HostError(_)) => Err(Unreadable),
    }
}

fn metadata(path: &[String]) -> Result<Option<Vec<u8>>, Unreadable> {
    let full = format!("metadata\0filter_metadata\0{}", path.join("\0"));
    abi::property(&full).map_err(|HostError(_)| Unreadable)
}

fn mode_word() -> ModeWord {
    match abi::property(MODE_PATH) {
        Ok(Some(word)) => ModeWord::Word(word),
        Ok(None) => ModeWord::Unset,
        Err(HostError(_)) => ModeWord::Unreadable,
    }
}

/// How the stream ended. The status that the gateway's answer began with is its word, whatever was made of it on the way. A
/// success is one whatever came before it, unless the gateway says the outcome itself: `says`.
fn ending(status: Option<u16>, says: bool) -> Ending {
    // Flags that cannot be read could have said that the outcome is unknown.
    let flags = number("response\0flags").ok().flatten().unwrap_or(UNKNOWN);
    let code = || number("response\0code").ok().flatten().and_then(|code| u16::try_from(code).ok());
    let ending = Ending { status: status.or_else(code), flags, tries: None };
    // Each property costs a call into the proxy, and only what may be a refusal asks for these.
    let refuses = says || !ending.is_success() || flags & UNREACHED != 0;
    Ending { tries: if refuses { tries() } else { None }, ..ending }
}

/// How often the proxy tried the gateway. It counts from its first choice of a host on: without a count and without a host it
/// has not tried. `None` where it does not say.
fn tries() -> Option<u64> {
    match number("upstream\0request_attempt_count") {
        Ok(Some(tries)) => Some(tries),
        Ok(None) => match abi::property("upstream\0address") {
            Ok(None) => Some(0),
            Ok(Some(_)) | Err(HostError(_)) => None,
        },
        Err(HostError(_)) => None,
    }
}

/// A number among the proxy's properties; `Err` where it is there and cannot be read.
fn number(path: &str) -> Result<Option<u64>, HostError> {
    let Some(bytes) = abi::property(path)? else { return Ok(None) };
    bytes.first_chunk::<8>().map(|chunk| Some(u64::from_le_bytes(*chunk))).ok_or(HostError(0))
}
