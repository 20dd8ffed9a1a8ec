//! The events that a stream gets from the proxy, and the effects that it requests.

use std::borrow::Cow;

use proto::header;
use quota::Mode;
use sluice_rules::{Head, Unreadable, length_bit};

use crate::follow_up::FollowUp;
use crate::outcome::Ending;
use crate::stats::Stat;
use crate::wire::{Pair, TRACEPARENT_LEN_MAX};

/// Names and values of headers or trailers, as the host holds them for the time of one event: names in lower case, pseudo headers
/// included, a repeated name once for each value.
pub type Headers<'a> = &'a [(&'a [u8], &'a [u8])];
/// Reads up to so many bytes of the body that the proxy holds.
pub type BodyReader<'a> = &'a dyn Fn(usize) -> Result<Cow<'a, [u8]>, Unreadable>;
/// Reads a string of Envoy's dynamic metadata.
pub type MetadataReader<'a> = &'a dyn Fn(&[String]) -> Result<Option<Vec<u8>>, Unreadable>;

/// The mode in the route's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModeWord<'a> {
    Unset,
    Word(&'a [u8]),
    /// The proxy did not answer.
    Unreadable,
}

/// The head of a request.
pub struct RequestHead<'a> {
    pub headers: Headers<'a>,
    pub mode: ModeWord<'a>,
    pub metadata: MetadataReader<'a>,
}

/// Why a check was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSentReason {
    /// The proxy did not accept it, or too many wait already: known at once.
    AtOnce,
    /// The proxy did not accept it when its turn came.
    NotAccepted,
    /// Its deadline passed while it waited.
    Late,
}

impl NotSentReason {
    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::AtOnce | Self::NotAccepted => "the check could not be sent",
            Self::Late => "the check waited in the queue until its deadline",
        }
    }
}

/// Every value of a header of the gateway's answer; none where no such header is read.
pub type HeaderValues = Result<Vec<Vec<u8>>, Unreadable>;

/// What is read of the headers of the gateway's answer.
#[derive(Debug)]
pub struct AnswerHeaders {
    /// Of the header that [`Stream::amount_header`] names.
    ///
    /// [`Stream::amount_header`]: super::Stream::amount_header
    pub amounts: HeaderValues,
    /// Of the header that [`Stream::outcome_header`] names.
    ///
    /// [`Stream::outcome_header`]: super::Stream::outcome_header
    pub outcomes: HeaderValues,
}

/// Something that happened to a stream.
pub enum Event<'a> {
    RequestHeaders {
        head: RequestHead<'a>,
        end: bool,
    },
    /// `size` bytes are held so far.
    RequestBody {
        size: usize,
        end: bool,
        read: BodyReader<'a>,
    },
    /// Trailers end a request whose body had no end marker.
    RequestTrailers {
        trailers: Result<Headers<'a>, Unreadable>,
        read: BodyReader<'a>,
    },
    /// The server's answer, or the call's failure.
    Reply {
        grpc_status: u32,
        message: Option<&'a [u8]>,
        check_ms: u64,
    },
    /// [`Effect::Check`] failed, or its check was never sent: the server has not seen it.
    NotSent(NotSentReason),
    /// The delay of [`Effect::Delay`] is over.
    DelayOver,
    /// [`Effect::Delay`] failed: too many wait.
    NotDelayed,
    /// The gateway's answer has begun.
    ResponseHeaders {
        ending: Ending,
        headers: AnswerHeaders,
    },
    /// The stream has ended.
    Log(Ending),
    /// [`Effect::StripHeader`], [`Effect::Resume`] or [`Effect::Respond`] failed, or the request could not be read.
    HostFailed,
    /// [`Effect::StripTrailer`] failed.
    TrailersFailed,
}

/// Something that the filter does, in the order given. It borrows from its event what the event has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<'a> {
    /// Removes a header that clients may not send. Failing is [`Event::HostFailed`].
    StripHeader(&'a str),
    /// Removes a trailer that clients may not send. Failing is [`Event::TrailersFailed`].
    StripTrailer(&'a str),
    /// Adds a header about the decision for the gateway. For information: a failure has no effect.
    SetHeader {
        name: Cow<'a, str>,
        value: &'a str,
    },
    /// Sends the check to the server, now or when its turn comes ([`Stream::check_sent`]). Failing is [`Event::NotSent`].
    ///
    /// [`Stream::check_sent`]: super::Stream::check_sent
    Check {
        message: Vec<u8>,
        timeout_ms: u32,
    },
    /// Brings [`Event::DelayOver`] after a time. Failing is [`Event::NotDelayed`].
    Delay {
        delay_ms: u32,
    },
    /// Resumes a paused request. Failing is [`Event::HostFailed`].
    Resume,
    /// Answers the request. Failing is [`Event::HostFailed`].
    Respond {
        status: u32,
        headers: Vec<Pair<'a>>,
        body: Cow<'a, [u8]>,
    },
    /// Ends the stream without an answer. If that fails too, the request stays paused.
    Reset,
    /// Sends a follow-up to the server, now or at a later tick.
    FollowUp(FollowUp),
    /// Writes the filter state, an encoded object.
    Show(Vec<u8>),
    Count(Stat),
    ObserveCheck(u64),
    /// Logs a warning for an operator.
    Warn(String),
    /// Logs that a route names a mode that does not exist.
    WarnMode,
}

/// What a request callback returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    #[default]
    Continue,
    /// Pauses the request and its body. The proxy itself answers 413 to a body above its buffer limit.
    Pause,
}

/// The reaction to an event.
#[derive(Debug, Default)]
pub struct Step<'a> {
    pub effects: Vec<Effect<'a>>,
    /// For request callbacks.
    pub action: Action,
    /// Forwarding means [`Effect::Resume`], since no request callback returns now.
    pub(super) resumes: bool,
}

impl<'a> Step<'a> {
    pub(super) fn push(&mut self, effect: Effect<'a>) {
        self.effects.push(effect);
    }

    pub(super) fn go_on(&mut self) {
        if self.resumes {
            self.push(Effect::Resume);
        }
        self.action = Action::Continue;
    }
}

impl ModeWord<'_> {
    /// The mode in force. An unknown mode enforces: a typing error must not switch a limit off.
    pub(super) fn in_force(self, step: &mut Step<'_>, rule_mode: Mode) -> Mode {
        match self {
            Self::Unset => rule_mode,
            Self::Word(word) => std::str::from_utf8(word).ok().and_then(Mode::parse).unwrap_or_else(|| {
                step.push(Effect::Count(Stat::UnknownMode));
                step.push(Effect::WarnMode);
                Mode::Enforce
            }),
            Self::Unreadable => {
                step.push(Effect::Count(Stat::HostFailed));
                Mode::Enforce
            }
        }
    }
}

/// Whether only Sluice may set the name. The first letter is the quicker test.
fn is_own(name: &[u8]) -> bool {
    matches!(name, [b'x' | b'X', ..]) && header::is_own(name)
}

/// The names of headers or trailers that only Sluice may set, each once; also in the spelling of gateways that write names as
/// variables (`X_SLUICE_CODE`).
pub(super) fn own_names(pairs: Headers<'_>) -> Vec<&str> {
    let names = pairs.iter().map(|(name, _)| *name).filter(|name| is_own(name));
    let mut names: Vec<&str> = names.filter_map(|name| std::str::from_utf8(name).ok()).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// A head whose headers were visited once: what every rule asks for is at hand.
pub(super) struct VisitedHead<'h, 'a> {
    head: &'h RequestHead<'a>,
    method: &'a [u8],
    path: &'a [u8],
    query: &'a [u8],
    /// The value of the trace's header, if there is one such header.
    traceparent: Option<&'a [u8]>,
    /// The lengths of the names, one bit each.
    lengths: u64,
    /// Whether a header is among them that only Sluice may set.
    has_own: bool,
}

impl<'h, 'a> VisitedHead<'h, 'a> {
    pub(super) fn new(head: &'h RequestHead<'a>) -> Self {
        let (mut method, mut path, mut trace, mut lengths, mut has_own) = (None, None, None, 0, false);
        for (name, value) in head.headers {
            lengths |= length_bit(name.len());
            has_own |= is_own(name);
            match name.len() {
                5 if path.is_none() && quota::is_same(name, b":path") => path = Some(*value),
                7 if method.is_none() && quota::is_same(name, b":method") => method = Some(*value),
                11 if quota::is_same(name, b"traceparent") => {
                    // A header that comes twice is ignored.
                    trace = Some(if trace.is_none() { Some(*value) } else { None });
                }
                _ => {}
            }
        }
        let path = path.unwrap_or_default();
        let (method, query) = (method.unwrap_or_default(), sluice_rules::query(path));
        Self { head, method, path, query, traceparent: trace.flatten(), lengths, has_own }
    }

    /// The names of headers that only Sluice may set, each once.
    pub(super) fn own_names(&self) -> Vec<&'a str> {
        if self.has_own { own_names(self.head.headers) } else { Vec::new() }
    }

    pub(super) fn traceparent(&self) -> Option<String> {
        let value = self.traceparent?;
        let plain = value.len() <= TRACEPARENT_LEN_MAX && quota::is_visible_ascii(value);
        std::str::from_utf8(value).ok().filter(|_| plain).map(str::to_owned)
    }
}

impl Head for VisitedHead<'_, '_> {
    fn method(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.method)
    }

    fn path(&self) -> &[u8] {
        self.path
    }

    fn query(&self) -> &[u8] {
        self.query
    }

    fn may_have(&self, length: usize) -> bool {
        self.lengths & length_bit(length) != 0
    }

    fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.head.headers.iter().copied()
    }

    fn metadata(&self, path: &[String]) -> Result<Option<Cow<'_, [u8]>>, Unreadable> {
        (self.head.metadata)(path).map(|value| value.map(Cow::Owned))
    }
}

impl std::fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Headers carry secrets.
        f.debug_struct("RequestHead")
            .field("headers", &self.headers.len())
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Event<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::RequestHeaders { .. } => "RequestHeaders",
            Self::RequestBody { .. } => "RequestBody",
            Self::RequestTrailers { .. } => "RequestTrailers",
            Self::Reply { .. } => "Reply",
            Self::NotSent(_) => "NotSent",
            Self::DelayOver => "DelayOver",
            Self::NotDelayed => "NotDelayed",
            Self::ResponseHeaders { .. } => "ResponseHeaders",
            Self::Log(_) => "Log",
            Self::HostFailed => "HostFailed",
            Self::TrailersFailed => "TrailersFailed",
        })
    }
}
