//! What the proxy tells a stream, and what a stream asks of the proxy.

use std::borrow::Cow;

use proto::header;
use quota::Mode;
use sluice_rules::{Head, Unreadable};

use crate::follow_up::FollowUp;
use crate::outcome::Ending;
use crate::stats::Stat;
use crate::wire::TRACEPARENT_LEN_MAX;

/// Reads up to so many bytes of the body that the proxy holds.
pub type BodyReader<'a> = &'a dyn Fn(usize) -> Result<Vec<u8>, Unreadable>;
/// Reads a string of Envoy's dynamic metadata.
pub type MetadataReader<'a> = &'a dyn Fn(&[String]) -> Result<Option<Vec<u8>>, Unreadable>;

/// The word in the route's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModeWord {
    Unset,
    Word(Vec<u8>),
    /// The proxy did not answer.
    Unreadable,
}

/// The head of a request.
pub struct RequestHead<'a> {
    /// Names in lower case, pseudo headers included.
    pub headers: Vec<(Vec<u8>, Vec<u8>)>,
    pub mode: ModeWord,
    pub metadata: MetadataReader<'a>,
}

/// Why a question never went out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unasked {
    /// The proxy did not take it, or too many wait already: said while it was being asked.
    AtOnce,
    /// The proxy did not take it when its turn came.
    NotTaken,
    /// Its time was over while it waited.
    Late,
}

impl Unasked {
    pub(super) const fn why(self) -> &'static str {
        match self {
            Self::AtOnce | Self::NotTaken => "the question could not be sent",
            Self::Late => "the question waited for all of its time",
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
    /// Trailers end a request whose body never said so.
    RequestTrailers {
        trailers: Result<Vec<(Vec<u8>, Vec<u8>)>, Unreadable>,
        read: BodyReader<'a>,
    },
    /// The server's answer, or the call's failure.
    Reply {
        grpc_status: u32,
        message: Option<&'a [u8]>,
        check_ms: u64,
    },
    /// [`Effect::Ask`] failed, or its question never went out: the server has not seen it.
    NotAsked(Unasked),
    /// The time of [`Effect::Delay`] is over.
    DelayOver,
    /// [`Effect::Delay`] failed: too many wait.
    NotDelayed,
    /// The gateway's answer has begun.
    ResponseHeaders {
        ending: Ending,
        headers: AnswerHeaders,
    },
    /// The stream is over.
    Log(Ending),
    /// [`Effect::StripHeader`], [`Effect::Resume`] or [`Effect::Respond`] failed, or the request could not be read.
    HostFailed,
    /// [`Effect::StripTrailer`] failed.
    TrailersFailed,
}

/// Something that the filter does, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Removes a header that clients may not send. Failing is [`Event::HostFailed`].
    StripHeader(String),
    /// Removes a trailer that clients may not send. Failing is [`Event::TrailersFailed`].
    StripTrailer(String),
    /// Tells the gateway about the decision. For information: failing is of no consequence.
    SetHeader {
        name: String,
        value: String,
    },
    /// Asks the server, now or when its turn comes ([`Stream::asked`]). Failing is [`Event::NotAsked`].
    ///
    /// [`Stream::asked`]: super::Stream::asked
    Ask {
        message: Vec<u8>,
        timeout_ms: u32,
    },
    /// Brings [`Event::DelayOver`] after a time. Failing is [`Event::NotDelayed`].
    Delay {
        delay_ms: u32,
    },
    /// Lets a paused request go on. Failing is [`Event::HostFailed`].
    Resume,
    /// Answers the request. Failing is [`Event::HostFailed`].
    Respond {
        status: u32,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
    },
    /// Ends the stream without an answer. If that fails too, the request stays paused.
    Reset,
    /// Tells the server something, now or at a later tick.
    FollowUp(FollowUp),
    /// Writes the filter state, an encoded object.
    Show(Vec<u8>),
    Count(Stat),
    ObserveCheck(u64),
    /// Logs what somebody has to look at.
    Warn(String),
    /// Logs that a route names a mode that does not exist.
    WarnMode,
}

/// What a request callback returns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Action {
    #[default]
    Continue,
    /// Holds the request, and what comes of its body with it. More than the proxy's buffer limit it answers 413 itself.
    Pause,
}

/// The answer to an event.
#[derive(Debug, Default)]
pub struct Step {
    pub effects: Vec<Effect>,
    /// For request callbacks.
    pub action: Action,
    /// Going on means [`Effect::Resume`], since no request callback returns now.
    pub(super) resumes: bool,
}

impl Step {
    pub(super) fn push(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(super) fn go_on(&mut self) {
        if self.resumes {
            self.push(Effect::Resume);
        }
        self.action = Action::Continue;
    }
}

impl ModeWord {
    /// The mode in force. A word that is no mode enforces: a typing error must not switch a limit off.
    pub(super) fn in_force(&self, step: &mut Step, rule_mode: Mode) -> Mode {
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

/// Those names of headers or trailers that only Sluice may set, each once; also as gateways take them for the same that write
/// names as variables (`X_SLUICE_CODE`).
pub(super) fn own_names(pairs: &[(Vec<u8>, Vec<u8>)]) -> Vec<String> {
    let names = pairs.iter().filter_map(|(name, _)| std::str::from_utf8(name).ok());
    let mut names: Vec<String> = names.filter(|name| header::is_own(name)).map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl RequestHead<'_> {
    pub(super) fn traceparent(&self) -> Option<String> {
        let mut values = self.headers.iter().filter(|(name, _)| name == b"traceparent").map(|(_, value)| value);
        // A header that comes twice says nothing.
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let text = std::str::from_utf8(value).ok()?;
        let plain = text.len() <= TRACEPARENT_LEN_MAX && text.bytes().all(|byte| byte.is_ascii_graphic());
        plain.then(|| text.to_owned())
    }

    fn first(&self, name: &str) -> Option<&[u8]> {
        self.headers.iter().find(|(own, _)| own == name.as_bytes()).map(|(_, value)| value.as_slice())
    }
}

impl Head for RequestHead<'_> {
    fn method(&self) -> Cow<'_, str> {
        self.first(":method").map_or(Cow::Borrowed(""), String::from_utf8_lossy)
    }

    fn path(&self) -> &[u8] {
        self.first(":path").unwrap_or_default()
    }

    fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }

    fn metadata(&self, path: &[String]) -> Result<Option<Cow<'_, [u8]>>, Unreadable> {
        (self.metadata)(path).map(|value| value.map(Cow::Owned))
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
            Self::NotAsked(_) => "NotAsked",
            Self::DelayOver => "DelayOver",
            Self::NotDelayed => "NotDelayed",
            Self::ResponseHeaders { .. } => "ResponseHeaders",
            Self::Log(_) => "Log",
            Self::HostFailed => "HostFailed",
            Self::TrailersFailed => "TrailersFailed",
        })
    }
}
