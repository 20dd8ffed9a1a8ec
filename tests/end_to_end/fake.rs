//! An Envoy that asks a decision server which answers wrongly, late or never, as it is set, and remembers what it was
//! asked.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use proto::envoy::check_response::HttpResponse;
use proto::envoy::{CheckResponse, DeniedHttpResponse, HttpStatus, RpcStatus};
use proto::{extension, header};
use testkit::client::{Answer, Call, Protocol, send_once};
use testkit::dirs::RunDir;
use testkit::envoy::{Envoy, EnvoyConfig, Host};
use testkit::fake::{self, Asked, FakeServer, Reply, Script, Speaks, Verdict};
use testkit::gateway::Gateway;
use testkit::stack::StackOptions;
use testkit::{Failure, Result};
use tokio::sync::watch;

/// What the server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Says {
    /// As a sound server: every charge is admitted, every void is taken.
    Admitted,
    /// A whole frame whose bytes are no message.
    Garbage,
    /// A frame that promises more bytes than come.
    HalfFrame,
    /// An answer with nothing in it.
    Nothing,
    /// It allows and names no code.
    NoCode,
    /// It allows and names a code that does not exist.
    UnknownCode,
    /// It allows with the code of a refusal.
    AllowsRefusal,
    /// It allows by its status and refuses by its body.
    Contradicts,
    /// The call fails with this status.
    Status(u32),
    /// The question fails with this status: in a batch, whose call succeeds, each by itself.
    Fails(u32),
    /// A batch is answered less than it asked, a lone question not at all.
    TooFew,
    /// It answers as a web server does that knows no gRPC.
    NoGrpc,
    /// It reads the question and says nothing.
    Silent,
    /// It ends the connection instead of answering.
    HangsUp,
    /// It ends each connection at once.
    Shuts,
    /// It speaks HTTP/1.1 only.
    Http1,
}

/// Says the same to everybody until it is set otherwise, and remembers what it was asked.
pub(crate) struct Saying {
    says: watch::Sender<Says>,
    asked: Mutex<Vec<Vec<Asked>>>,
}

impl Script for Saying {
    async fn reply(&self, call: fake::Call) -> Reply {
        let says = *self.says.borrow();
        let own = |asked: &Asked| verdict(says, asked);
        let mut verdicts: Vec<Verdict> = call.questions.iter().map(own).collect();
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).push(call.questions);
        match says {
            Says::Garbage => Reply::Frame { bytes: Bytes::from_static(b"\xff\xff\xff\xff\xff"), length: 5 },
            Says::HalfFrame => Reply::Frame { bytes: Bytes::from_static(b"\x0a"), length: 50 },
            Says::Status(status) => Reply::Status(status),
            Says::NoGrpc => Reply::NoGrpc,
            Says::Silent | Says::Http1 | Says::Shuts => std::future::pending().await,
            Says::HangsUp => Reply::HangUp,
            Says::TooFew => {
                verdicts.pop();
                Reply::Verdicts(verdicts)
            }
            Says::Admitted
            | Says::Nothing
            | Says::NoCode
            | Says::UnknownCode
            | Says::AllowsRefusal
            | Says::Contradicts
            | Says::Fails(_) => Reply::Verdicts(verdicts),
        }
    }
}

/// What one question is answered, where its call is answered at all.
fn verdict(says: Says, asked: &Asked) -> Verdict {
    let code = |code: &str| Verdict::Response(fake::allowing(&[(header::CODE, code)]));
    match says {
        Says::Nothing => Verdict::Response(CheckResponse::default()),
        Says::NoCode => Verdict::Response(fake::allowing(&[])),
        Says::UnknownCode => code("SURE"),
        Says::AllowsRefusal => code("DAILY_AMOUNT"),
        Says::Contradicts => Verdict::Response(contradicting()),
        Says::Fails(status) => Verdict::Status(status),
        Says::Admitted
        | Says::Garbage
        | Says::HalfFrame
        | Says::Status(_)
        | Says::TooFew
        | Says::NoGrpc
        | Says::Silent
        | Says::HangsUp
        | Says::Shuts
        | Says::Http1 => {
            let voids = asked.get(extension::ACTION).is_some_and(|action| action == extension::ACTION_VOID);
            code(if voids { "VOIDED" } else { "ADMITTED" })
        }
    }
}

fn contradicting() -> CheckResponse {
    let denied = DeniedHttpResponse { status: Some(HttpStatus { code: 403 }), ..DeniedHttpResponse::default() };
    CheckResponse {
        status: Some(RpcStatus::default()),
        http_response: Some(HttpResponse::DeniedResponse(denied)),
        ..CheckResponse::default()
    }
}

/// The server that is asked.
pub(crate) struct Server(FakeServer<Saying>);

impl Server {
    fn start() -> Result<Self> {
        let saying = Saying { says: watch::Sender::new(Says::Admitted), asked: Mutex::default() };
        Ok(Self(FakeServer::start(saying)?))
    }

    /// Changes the answers; open connections end, so that the next question meets the change.
    pub(crate) fn says(&self, says: Says) {
        self.0.script().says.send_replace(says);
        self.0.speaks(match says {
            Says::Http1 => Speaks::Http1,
            Says::Shuts => Speaks::Nothing,
            _ => Speaks::Http2,
        });
    }

    /// Every call so far, in order, each with its questions.
    pub(crate) fn calls(&self) -> Vec<Vec<Asked>> {
        self.0.script().asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything it was asked so far, in order.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.calls().concat()
    }

    /// The attempts that were to be charged, or taken back, so far.
    pub(crate) fn attempts(&self, action: &str) -> Vec<String> {
        let of_action = |asked: &Asked| asked.get(extension::ACTION).is_some_and(|own| own == action);
        let asked = self.asked().into_iter().filter(of_action);
        asked.filter_map(|mut asked| asked.remove(extension::ATTEMPT)).collect()
    }
}

/// Envoy with the shipped configuration and a lenient route, in front of a gateway, that asks a fake server.
pub(crate) struct Rig {
    pub(crate) envoy: Envoy,
    pub(crate) gateway: Gateway,
    pub(crate) server: Server,
    dir: Arc<RunDir>,
}

/// The path of the rule whose payments go on when the server gives no answer.
pub(crate) const LENIENT: &str = "/v1/lenient/payments";

impl Rig {
    /// `change` may change the configuration further.
    pub(crate) fn start(change: impl FnOnce(&mut EnvoyConfig) -> Result<()>) -> Result<Self> {
        let dir = RunDir::new("rig")?;
        let (gateway, server) = (Gateway::start()?, Server::start()?);
        let mut config = EnvoyConfig::for_host(Host::chosen()?)?;
        config.set_cluster("gateway", gateway.address())?;
        config.set_cluster("sluice_authz", server.0.address())?;
        config.set_plugin(&lenient_plugin()?)?;
        change(&mut config)?;
        let envoy = Envoy::start_in(Arc::clone(&dir), config).inspect_err(|_| dir.keep())?;
        Ok(Self { envoy, gateway, server, dir })
    }

    pub(crate) async fn send(&self, protocol: Protocol, call: Call) -> Result<Answer> {
        send_once(self.envoy.address(), protocol, call).await
    }

    /// Keeps the logs where a scenario fails.
    pub(crate) fn keep(&self) {
        self.dir.keep();
    }
}

/// The shipped plugin configuration with one more rule, whose `on_error` is `allow`.
pub(crate) fn lenient_plugin() -> Result<serde_json::Value> {
    let mut plugin = StackOptions::shipped_plugin()?;
    let rules = plugin.get_mut("rules").and_then(serde_json::Value::as_array_mut);
    let rules = rules.ok_or_else(|| Failure::new("the shipped configuration has no rules"))?;
    let mut rule = rules.first().cloned().ok_or_else(|| Failure::new("the shipped configuration has no rule"))?;
    rule["name"] = "lenient-payments".into();
    rule["match"]["path"] = LENIENT.into();
    rule["on_error"] = "allow".into();
    rules.push(rule);
    Ok(plugin)
}
