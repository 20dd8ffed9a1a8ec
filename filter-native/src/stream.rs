//! One stream on its worker: Envoy's callbacks in, the machine's effects out. What resumes or ends the stream is returned and done
//! last ([`Then`]).
//!
//! The check of a stream is sent by another thread. So the stream first gives its check up, and learns by that whether it was sent:
//! what happens to the payment afterwards is decided with certainty.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use filter::follow_up::FollowUp;
use filter::machine::{Action, AnswerHeaders, Effect, Event, Failed, ModeWord, RequestHead, Stream, drive};
use filter::outcome::{Ending, EndingReader, UNKNOWN};
use filter::wire;
use proto::{PROBLEM_CONTENT_TYPE, header};
use quota::Code;
use sluice_rules::Unreadable;

use crate::abi::{self, Attribute, HeaderCopy, Level, Map, Metadata, StreamHandle};
use crate::config::{Config, next_attempt};
use crate::engine::{Message, log_lost};
use crate::link::{Check, Incoming, Link};

/// Where the access log finds the decision in the stream's dynamic metadata: where Envoy's own ext_authz puts the server's, so that one
/// format shows both. A module cannot write a filter state that a log shows as an object.
const DECISION_NAMESPACE: &str = "envoy.filters.http.ext_authz";

/// What a hook returns, and what Envoy does at its end.
#[derive(Debug)]
pub struct Reaction {
    /// The request goes on.
    pub goes_on: bool,
    pub then: Then,
}

/// What ends a hook.
#[derive(Debug)]
pub enum Then {
    Nothing,
    /// Resumes a paused request.
    Resume,
    /// Ends the stream without an answer.
    Reset,
    /// Answers the request. `details` is what an access log shows as the reason of the answer.
    Respond {
        status: u32,
        details: String,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
}

impl Reaction {
    const ON: Self = Self { goes_on: true, then: Then::Nothing };

    /// The answer where nothing of the stream can be trusted.
    #[must_use]
    pub fn unavailable() -> Self {
        let code = Code::AuthzUnavailable;
        let headers = vec![
            ("content-type".to_owned(), PROBLEM_CONTENT_TYPE.to_owned()),
            (header::CODE.to_owned(), code.as_str().to_owned()),
            (header::RETRY_AFTER.to_owned(), "1".to_owned()),
        ];
        let details = details(Some(code.as_str()));
        Self { goes_on: false, then: Then::Respond { status: 503, details, headers, body: Vec::new() } }
    }
}

/// One stream.
#[derive(Debug)]
pub struct Filter {
    /// `None` where no attempt id could be made: its requests are answered 503.
    stream: Option<Stream>,
    actions: Actions,
}

/// Carries out the effects of one stream.
#[derive(Debug)]
struct Actions {
    config: Arc<Config>,
    /// The way back, once something was given to the thread.
    link: Option<Arc<Link>>,
    check: Option<Arc<Check>>,
    /// Until when the request is delayed.
    delayed_until_ms: Option<u64>,
    /// The status of the gateway's answer.
    status: Option<u16>,
    /// The gateway's answer has begun, or the stream has ended: the proxy cannot answer any more.
    closed: bool,
    follow_ups: Vec<FollowUp>,
    then: Then,
}

impl Filter {
    #[must_use]
    pub fn new(config: Arc<Config>) -> Self {
        let stream = next_attempt().map(|attempt| Stream::new(Arc::clone(&config.plugin), attempt));
        let actions = Actions {
            config,
            link: None,
            check: None,
            delayed_until_ms: None,
            status: None,
            closed: false,
            follow_ups: Vec::new(),
            then: Then::Nothing,
        };
        Self { stream, actions }
    }

    pub fn request_headers(&mut self, envoy: StreamHandle<'_>, end: bool) -> Reaction {
        #[cfg(feature = "trap")]
        trap::request(&envoy, &*self.actions.config.outlet);
        let Some(headers) = envoy.headers(Map::RequestHeaders) else { return self.event(envoy, Event::HostFailed) };
        let (headers, mode) = (headers.pairs(), mode(&envoy));
        let mode = mode.as_deref().map_or(ModeWord::Unset, ModeWord::Word);
        let head = RequestHead { headers: &headers, mode, metadata: &|path: &[String]| metadata(&envoy, path) };
        self.event(envoy, Event::RequestHeaders { head, end })
    }

    pub fn request_body(&mut self, envoy: StreamHandle<'_>, end: bool) -> Reaction {
        let read = |max: usize| Ok(envoy.body(max));
        self.event(envoy, Event::RequestBody { size: envoy.body_size(), end, read: &read })
    }

    pub fn request_trailers(&mut self, envoy: StreamHandle<'_>) -> Reaction {
        // What fails from here on may void the attempt: a void of one that never arrives only leaves a tombstone.
        if let (Some(stream), Some(_)) = (&mut self.stream, &self.actions.check) {
            stream.check_sent();
        }
        let trailers = envoy.headers(Map::RequestTrailers);
        let trailers = trailers.as_ref().map(HeaderCopy::pairs);
        let trailers = trailers.as_deref().ok_or(Unreadable);
        let read = |max: usize| Ok(envoy.body(max));
        self.event(envoy, Event::RequestTrailers { trailers, read: &read })
    }

    pub fn response_headers(&mut self, envoy: StreamHandle<'_>) -> Reaction {
        self.actions.closed = true;
        #[cfg(feature = "trap")]
        trap::answer(&envoy);
        let Some(stream) = self.stream.as_ref().filter(|stream| stream.is_forwarded()) else { return Reaction::ON };
        let status = envoy.header_values(Map::ResponseHeaders, ":status");
        let status: Option<u16> = status.first().and_then(|text| std::str::from_utf8(text).ok()?.parse().ok());
        self.actions.status = status.filter(|status| *status >= 200);
        // Only a failure ends a charge before the stream ends; but the outcome that the gateway reports, and the captured amount,
        // are read now.
        let failure = status.is_none_or(|status| status >= 400);
        if !failure && !stream.awaits_answer() {
            return Reaction::ON;
        }
        let values =
            |name: Option<&str>| Ok(name.map_or_else(Vec::new, |name| envoy.header_values(Map::ResponseHeaders, name)));
        let headers =
            AnswerHeaders { amounts: values(stream.amount_header()), outcomes: values(stream.outcome_header()) };
        let read = Ending::read(&EnvoyEnding(envoy), status, stream.outcome_header().is_some());
        self.event(envoy, Event::ResponseHeaders { ending: Ending { status, ..read }, headers });
        Reaction::ON
    }

    /// The end of the stream, before its access log.
    pub fn complete(&mut self, envoy: StreamHandle<'_>) -> Reaction {
        self.actions.closed = true;
        self.end(Some(envoy));
        Reaction { goes_on: true, then: Then::Nothing }
    }

    /// What the module's thread has for the stream.
    pub fn scheduled(&mut self, envoy: StreamHandle<'_>) -> Reaction {
        let mut reaction = Reaction::ON;
        for incoming in self.actions.link.as_ref().map_or_else(Vec::new, |link| link.receive()) {
            // One of them resumes or ends the stream at most: a stream has one check, and then at most one delay.
            match self.incoming(envoy, incoming) {
                Reaction { then: Then::Nothing, .. } => {}
                other => reaction = other,
            }
        }
        reaction
    }

    fn incoming(&mut self, envoy: StreamHandle<'_>, incoming: Incoming) -> Reaction {
        match incoming {
            Incoming::Reply { grpc_status, message, check_ms, batch } => {
                if let Some(size) = batch {
                    self.actions.config.metrics.record_batch(u64::try_from(size).unwrap_or(u64::MAX));
                }
                self.give_up_check();
                self.event(envoy, Event::Reply { grpc_status, message: message.as_deref(), check_ms })
            }
            Incoming::NotSent(why) => {
                self.give_up_check();
                self.event(envoy, Event::NotSent(why))
            }
            Incoming::DelayOver => {
                self.actions.delayed_until_ms = None;
                self.event(envoy, Event::DelayOver)
            }
            Incoming::NotDelayed => {
                self.actions.delayed_until_ms = None;
                self.event(envoy, Event::NotDelayed)
            }
        }
    }

    /// The machine has panicked. It is asked once more for what to do, which voids what may have been charged and was not passed on;
    /// a second panic is answered 503 without it.
    pub fn panicked(&mut self, envoy: StreamHandle<'_>) -> Reaction {
        self.actions.config.metrics.count_panic();
        self.give_up_check();
        if self.actions.closed {
            return Reaction::ON;
        }
        // The gateway may have a request that was passed on: it is reset, and its outcome judged at the stream's end.
        let reaction = self.event(envoy, Event::TrailersFailed);
        match reaction.then {
            Then::Respond { .. } | Then::Reset => reaction,
            Then::Nothing | Then::Resume => Reaction::unavailable(),
        }
    }

    /// No stream waits for the check any more. If it was sent, the machine knows from now on.
    fn give_up_check(&mut self) {
        if let (Some(check), Some(stream)) = (self.actions.check.take(), &mut self.stream)
            && check.over()
        {
            stream.check_sent();
        }
    }

    fn event(&mut self, envoy: StreamHandle<'_>, event: Event<'_>) -> Reaction {
        let Self { stream: Some(stream), actions } = self else { return Reaction::unavailable() };
        let action = drive(stream, event, &mut |effect| actions.perform(Some(envoy), effect));
        actions.send_follow_ups();
        let then = std::mem::replace(&mut actions.then, Then::Nothing);
        Reaction { goes_on: action == Action::Continue, then }
    }

    fn end(&mut self, envoy: Option<StreamHandle<'_>>) {
        self.give_up_check();
        if let Self { stream: Some(stream), actions } = self
            && stream.awaits_log()
        {
            // The end of a stream that was never forwarded adds nothing.
            let ending = match envoy {
                _ if !stream.is_forwarded() => Ending::default(),
                Some(envoy) => Ending::read(&EnvoyEnding(envoy), actions.status, stream.outcome_header().is_some()),
                None => Ending { status: actions.status, flags: UNKNOWN, tries: None },
            };
            drive(stream, Event::Log(ending), &mut |effect| actions.perform(envoy, effect));
            actions.send_follow_ups();
        }
        if let Some(link) = self.actions.link.take() {
            link.close();
            if let Some(due_ms) = self.actions.delayed_until_ms.take() {
                let _ = self.actions.config.outlet.send(Message::NoDelay { due_ms, stream: link.number });
            }
        }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // The log has ended it already, unless Envoy left that out.
        self.end(None);
    }
}

impl Actions {
    fn perform(&mut self, envoy: Option<StreamHandle<'_>>, effect: Effect<'_>) -> Result<(), Failed> {
        let on = |done: bool| if done { Ok(()) } else { Err(Failed) };
        match (effect, envoy) {
            (Effect::StripHeader(name), Some(envoy)) => on(envoy.remove_header(Map::RequestHeaders, name))?,
            (Effect::StripTrailer(name), Some(envoy)) => on(envoy.remove_header(Map::RequestTrailers, name))?,
            (Effect::SetHeader { name, value }, Some(envoy)) => on(envoy.set_request_header(&name, value))?,
            (Effect::Check { message, timeout_ms }, Some(envoy)) => self.send_check(&envoy, message, timeout_ms)?,
            (Effect::Delay { delay_ms }, Some(envoy)) => self.delay(&envoy, delay_ms)?,
            (Effect::Resume, Some(_)) => self.then = Then::Resume,
            (Effect::Respond { status, headers, body }, Some(_)) => {
                let details = details(wire::value(&headers, header::CODE));
                let headers = headers.into_iter().map(|(name, value)| (name.into_owned(), value.to_owned())).collect();
                self.then = Then::Respond { status, details, headers, body: body.into_owned() };
            }
            (Effect::Reset, Some(_)) => self.then = Then::Reset,
            (Effect::Show(object), Some(envoy)) => envoy.set_metadata(DECISION_NAMESPACE, &object),
            (Effect::WarnMode, Some(envoy)) => self.warn_mode(&envoy),
            (Effect::FollowUp(follow_up), _) => self.follow_ups.push(follow_up),
            (Effect::Count(stat), _) => self.config.metrics.count(stat),
            (Effect::ObserveCheck(millis), _) => self.config.metrics.record_check(millis),
            (Effect::Warn(text), _) => warn(&text),
            // Without a stream in Envoy there is nothing to show and nothing to resume.
            (
                Effect::StripHeader(_)
                | Effect::StripTrailer(_)
                | Effect::SetHeader { .. }
                | Effect::Check { .. }
                | Effect::Delay { .. }
                | Effect::Resume
                | Effect::Respond { .. }
                | Effect::Reset
                | Effect::Show(_)
                | Effect::WarnMode,
                None,
            ) => {}
        }
        Ok(())
    }

    fn link(&mut self, envoy: &StreamHandle<'_>) -> Result<Arc<Link>, Failed> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        if let Some(link) = &self.link {
            return Ok(Arc::clone(link));
        }
        let link = Link::new(NEXT.fetch_add(1, Ordering::Relaxed), envoy.scheduler().ok_or(Failed)?);
        self.link = Some(Arc::clone(&link));
        Ok(link)
    }

    fn send_check(&mut self, envoy: &StreamHandle<'_>, message: Vec<u8>, timeout_ms: u32) -> Result<(), Failed> {
        let (link, outlet) = (self.link(envoy)?, &self.config.outlet);
        let check = Check::new(link, message, outlet.now_ms(), timeout_ms);
        outlet.send(Message::Check { config: self.config.id, check: Arc::clone(&check) }).map_err(|_| Failed)?;
        self.check = Some(check);
        Ok(())
    }

    fn delay(&mut self, envoy: &StreamHandle<'_>, delay_ms: u32) -> Result<(), Failed> {
        let (link, outlet) = (self.link(envoy)?, &self.config.outlet);
        let due_ms = outlet.now_ms().saturating_add(u64::from(delay_ms));
        outlet.send(Message::Delay { config: self.config.id, due_ms, link }).map_err(|_| Failed)?;
        self.delayed_until_ms = Some(due_ms);
        Ok(())
    }

    fn send_follow_ups(&mut self) {
        if !self.follow_ups.is_empty() {
            let follow_ups = std::mem::take(&mut self.follow_ups);
            let message = Message::FollowUps { config: self.config.id, follow_ups };
            if let Err(Message::FollowUps { follow_ups, .. }) = self.config.outlet.send(message) {
                for follow_up in follow_ups {
                    self.config.metrics.count(follow_up.kind.lost());
                    log_lost(&follow_up, "too much waits for the filter's thread");
                }
            }
        }
    }

    /// Once for each route: every request of it would log the same.
    fn warn_mode(&self, envoy: &StreamHandle<'_>) {
        let route = envoy.text(Attribute::RouteName).unwrap_or_default();
        let route = String::from_utf8_lossy(&route).into_owned();
        let warning = format!(
            "route {route:?}: metadata sluice.mode is an unknown mode, so the route is enforced; write enforce, shadow or off"
        );
        if self.config.is_new_route(route) {
            warn(&warning);
        }
    }
}

fn details(code: Option<&str>) -> String {
    format!("sluice_{}", code.unwrap_or("refused").to_ascii_lowercase())
}

fn warn(text: &str) {
    abi::log(Level::Warn, &format!("sluice: {text}"));
}

/// What the route's metadata says. A value that is no text is an unknown mode.
fn mode(envoy: &StreamHandle<'_>) -> Option<Vec<u8>> {
    const NAMESPACE: &str = "sluice";
    const KEY: &str = "mode";
    if !envoy.has_metadata(Metadata::Route, NAMESPACE, KEY) {
        return None;
    }
    Some(envoy.metadata_text(Metadata::Route, NAMESPACE, KEY).unwrap_or_default())
}

/// A value of dynamic metadata: a text as it is, a number as its eight bytes, as the wasm filter gets both. Other values cannot be
/// read.
fn metadata(envoy: &StreamHandle<'_>, path: &[String]) -> Result<Option<Vec<u8>>, Unreadable> {
    let [namespace, key] = path else { return Err(Unreadable) };
    if !envoy.has_metadata(Metadata::Dynamic, namespace, key) {
        return Ok(None);
    }
    let text = envoy.metadata_text(Metadata::Dynamic, namespace, key);
    let value = text.or_else(|| {
        let number = envoy.metadata_number(Metadata::Dynamic, namespace, key)?;
        Some(number.to_le_bytes().to_vec())
    });
    value.map(Some).ok_or(Unreadable)
}

struct EnvoyEnding<'a>(StreamHandle<'a>);

impl EndingReader for EnvoyEnding<'_> {
    fn flags(&self) -> Option<u64> {
        self.0.number(Attribute::ResponseFlags)
    }

    fn code(&self) -> Option<u16> {
        self.0.number(Attribute::ResponseCode).and_then(|code| u16::try_from(code).ok())
    }

    /// Envoy counts from its first choice of a host on: without a count and without a host it has not tried.
    fn tries(&self) -> Option<u64> {
        match self.0.number(Attribute::RequestAttemptCount) {
            Some(tries @ 1..) => Some(tries),
            Some(0) | None => self.0.text(Attribute::UpstreamAddress).is_none().then_some(0),
        }
    }
}

/// Where a test wants a panic: the request's header `x-trap` says `request`, `answer` or `thread`.
#[cfg(feature = "trap")]
pub(crate) mod trap {
    use crate::abi::{Map, StreamHandle};
    use crate::engine::Message;
    use crate::thread::Outlet;

    pub(super) fn request(envoy: &StreamHandle<'_>, outlet: &dyn Outlet) {
        match wanted(envoy).as_slice() {
            b"request" => panic(),
            b"thread" => drop(outlet.send(Message::Panic)),
            _ => {}
        }
    }

    pub(super) fn answer(envoy: &StreamHandle<'_>) {
        if wanted(envoy) == b"answer" {
            panic();
        }
    }

    #[expect(clippy::panic, reason = "what a panic costs is tested")]
    pub(crate) fn panic() {
        panic!("a test asks for it");
    }

    fn wanted(envoy: &StreamHandle<'_>) -> Vec<u8> {
        envoy.header_values(Map::RequestHeaders, "x-trap").pop().unwrap_or_default()
    }
}
