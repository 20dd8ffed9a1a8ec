//! The decision server of a run: it decides each order by its number, checks what it is asked against it, and fails whole calls
//! where it is set to.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use proto::batch::ALONE;
use proto::envoy::check_response::HttpResponse;
use proto::envoy::{CheckResponse, DeniedHttpResponse, HttpStatus, RpcStatus};
use proto::{extension, header};
use quota::Code;
use tokio::sync::watch;

use super::ledger::{Given, Ledger};
use super::order::{Decision, Order, Unusable};
use super::orders::Orders;
use testkit::fake::{Asked, Call, Method, Reply, Script, Verdict, allowing, options};

/// gRPC's RESOURCE_EXHAUSTED; any but 0 refuses.
const REFUSED: i32 = 8;
/// gRPC's statuses of a call that was lost.
const INTERNAL: u32 = 13;
const UNAVAILABLE: u32 = 14;
/// Of every hundred calls so many fail as a whole, where calls fail.
const FAULTY_PERCENT: u64 = 12;
/// Later than any payment of a run whose calls fail waits, and sooner than the filter gives up a void.
const LATE: Duration = Duration::from_millis(1_500);
/// Later than anything waits.
const TOO_LATE: Duration = Duration::from_millis(2_500);
/// Sooner than any deadline.
const SLOW: Duration = Duration::from_millis(30);
/// How long it takes to decide what has to be asked alone.
const ALONE_MIN: Duration = Duration::from_millis(30);
const ALONE_MAX: Duration = Duration::from_millis(200);

/// What becomes of a whole call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    Slow,
    /// It is answered, and the connection takes no more.
    GoAway,
    Status(u32),
    Garbage,
    HalfFrame,
    /// An answer of the other kind.
    OtherKind,
    NoResults,
    TooFew,
    TooMany,
    Late,
    TooLate,
    Never,
    HangUp,
    NoGrpc,
}

impl Fault {
    /// By the number of a call.
    fn of(number: u64) -> Self {
        let draw = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        if draw % 100 >= FAULTY_PERCENT {
            return Self::None;
        }
        match (draw / 100) % 15 {
            0 => Self::Slow,
            1 => Self::GoAway,
            2 => Self::Status(14),
            3 => Self::Status(4),
            4 => Self::Garbage,
            5 => Self::HalfFrame,
            6 => Self::OtherKind,
            7 => Self::NoResults,
            8 => Self::TooFew,
            9 => Self::TooMany,
            10 => Self::Late,
            11 => Self::TooLate,
            12 => Self::Never,
            13 => Self::HangUp,
            _ => Self::NoGrpc,
        }
    }

    /// Whether the proxy gets what the server means to say. A lone question cannot be answered too much.
    fn is_delivered(self, method: Method) -> bool {
        match self {
            Self::None | Self::Slow | Self::GoAway => true,
            Self::TooMany => method == Method::Check,
            Self::Status(_)
            | Self::Garbage
            | Self::HalfFrame
            | Self::OtherKind
            | Self::NoResults
            | Self::TooFew
            | Self::Late
            | Self::TooLate
            | Self::Never
            | Self::HangUp
            | Self::NoGrpc => false,
        }
    }
}

/// Decides.
#[derive(Debug)]
pub(super) struct Decider {
    orders: Orders,
    ledger: Arc<Ledger>,
    /// Calls fail by their numbers.
    faulty: AtomicBool,
    /// Every second call is never answered, as where one of two servers hangs.
    pub(super) loses_half: AtomicBool,
    /// Batches are answered with their results in the wrong order: what a run must notice.
    pub(super) shuffles: AtomicBool,
    /// While it is shut, calls are taken and not answered.
    gate: watch::Sender<bool>,
}

impl Decider {
    pub(super) fn new(orders: Orders, ledger: Arc<Ledger>) -> Self {
        Self {
            orders,
            ledger,
            faulty: AtomicBool::default(),
            loses_half: AtomicBool::default(),
            shuffles: AtomicBool::default(),
            gate: watch::Sender::new(true),
        }
    }

    pub(super) fn set_faulty(&self, faulty: bool) {
        self.faulty.store(faulty, Ordering::Relaxed);
    }

    /// Shuts the gate, or opens it.
    pub(super) fn hold(&self, hold: bool) {
        self.gate.send_replace(!hold);
    }

    fn fault(&self, number: u64) -> Fault {
        match (self.faulty.load(Ordering::Relaxed), self.loses_half.load(Ordering::Relaxed)) {
            (true, _) => Fault::of(number),
            (false, true) if number % 2 == 1 => Fault::Never,
            (false, _) => Fault::None,
        }
    }

    /// What has to be asked alone is what would hold up others.
    async fn take_its_time(&self, asked: &Asked) {
        let name = asked.get(extension::ORDER_NO).map(String::as_str).unwrap_or_default();
        let order = self.orders.number_of(name).map(|number| self.orders.order(number));
        if let Some(order) = order.filter(|order| order.alone) {
            let spread = u64::try_from((ALONE_MAX - ALONE_MIN).as_millis()).unwrap_or_default();
            tokio::time::sleep(ALONE_MIN + Duration::from_millis(order.number * 37 % (spread + 1))).await;
        }
    }

    /// Whether the call that asked for an order may have been lost: then the filter asks once more about the same attempt.
    fn may_be_lost(&self, order: &Order) -> bool {
        let fails = matches!(order.decision, Decision::Unusable(Unusable::Status(INTERNAL | UNAVAILABLE)));
        let loses = self.faulty.load(Ordering::Relaxed) || self.loses_half.load(Ordering::Relaxed);
        fails || loses || !*self.gate.borrow()
    }

    async fn pass_gate(&self) {
        // It is shut for good where the server is gone, and so is the call.
        let _ = self.gate.subscribe().wait_for(|open| *open).await;
    }

    fn verdict(&self, method: Method, fault: Fault, asked: &Asked) -> Verdict {
        let field = |name: &str| asked.get(name).map(String::as_str).unwrap_or_default();
        let Some(order) = self.orders.number_of(field(extension::ORDER_NO)).map(|number| self.orders.order(number))
        else {
            self.ledger.strange(format!("the server was asked {asked:?}"));
            return Verdict::Status(3);
        };
        if order.alone && method == Method::BatchCheck {
            return Verdict::Status(ALONE);
        }
        let delivered = fault.is_delivered(method);
        // No payment waits for these, so they are waited for longer.
        let delivered_later = delivered || fault == Fault::Late;
        match field(extension::ACTION) {
            extension::ACTION_VOID => self.follow_up(&order, asked, delivered_later, Code::Voided),
            extension::ACTION_SETTLE => self.follow_up(&order, asked, delivered_later, Code::Applied),
            extension::ACTION_UNKNOWN | extension::ACTION_MADE => self.report(&order, asked),
            _ => self.decide(&order, asked, delivered),
        }
    }

    fn decide(&self, order: &Order, asked: &Asked, delivered: bool) -> Verdict {
        let field = |name: &str| asked.get(name).map(String::as_str).unwrap_or_default();
        let amount = order.amount.to_string();
        let fields = [extension::MERCHANT, extension::AMOUNT_MINOR, extension::ACTION, extension::MODE].map(field);
        if fields != [&order.merchant(), &amount, order.route.action(), order.route.mode()] {
            self.ledger.strange(format!("{order}: the server was asked {asked:?}"));
        }
        let given = match order.decision {
            Decision::Refused(_) if delivered => Given::Refusal,
            Decision::Admitted | Decision::Replayed | Decision::Delayed(_) | Decision::Contested if delivered => {
                Given::Admission
            }
            _ => Given::Nothing,
        };
        let attempt = field(extension::ATTEMPT);
        let sound = self.ledger.with(order.number, |page| {
            page.given = given;
            page.asked += 1;
            if page.asked == 1 {
                attempt.clone_into(&mut page.attempt);
            }
            page.asked == 1 || (page.asked == 2 && page.attempt == attempt && self.may_be_lost(order))
        });
        if sound != Some(true) {
            self.ledger.strange(format!("{order}: the server was asked again: {asked:?}"));
        }
        answer(order)
    }

    /// What the filter says of an outcome concerns the attempt that was asked for.
    fn report(&self, order: &Order, asked: &Asked) -> Verdict {
        let attempt = asked.get(extension::ATTEMPT).map(String::as_str).unwrap_or_default();
        let known = self.ledger.with(order.number, |page| page.attempt.is_empty() || page.attempt == attempt);
        if known != Some(true) {
            self.ledger.strange(format!("{order}: the server was sent {asked:?}"));
        }
        Verdict::Response(allowing(&[(header::CODE, Code::Applied.as_str())]))
    }

    fn follow_up(&self, order: &Order, asked: &Asked, delivered: bool, code: Code) -> Verdict {
        let attempt = asked.get(extension::ATTEMPT).map(String::as_str).unwrap_or_default();
        let strange = self.ledger.with(order.number, |page| {
            // Where the server was never asked about the attempt, it receives it for the first time.
            if page.attempt.is_empty() {
                attempt.clone_into(&mut page.attempt);
            }
            match code {
                _ if !delivered => {}
                Code::Voided => page.voids += 1,
                _ => page.settles += 1,
            }
            let amount = asked.get(extension::AMOUNT_MINOR).map(String::as_str);
            page.attempt != attempt || (code == Code::Applied && amount != Some(&order.amount.to_string()))
        });
        if strange != Some(false) {
            self.ledger.strange(format!("{order}: the server was sent {asked:?}"));
        }
        Verdict::Response(allowing(&[(header::CODE, code.as_str())]))
    }
}

impl Script for Decider {
    async fn reply(&self, call: Call) -> Reply {
        let Call { number, method, questions } = call;
        self.ledger.called(questions.len());
        let fault = self.fault(number);
        let mut verdicts: Vec<Verdict> = questions.iter().map(|asked| self.verdict(method, fault, asked)).collect();
        self.pass_gate().await;
        if let (Method::Check, [asked]) = (method, &*questions) {
            self.take_its_time(asked).await;
        }
        if self.shuffles.load(Ordering::Relaxed) {
            verdicts.rotate_left(1);
        }
        match fault {
            Fault::None => Reply::Verdicts(verdicts),
            Fault::Slow => {
                tokio::time::sleep(SLOW).await;
                Reply::Verdicts(verdicts)
            }
            Fault::GoAway => Reply::GoAway(verdicts),
            Fault::Status(status) => Reply::Status(status),
            Fault::Garbage => Reply::Frame { bytes: Bytes::from_static(b"\xff\xff\xff\xff\xff"), length: 5 },
            Fault::HalfFrame => Reply::Frame { bytes: Bytes::from_static(b"\x0a"), length: 50 },
            Fault::OtherKind => other_kind(method),
            Fault::NoResults => Reply::Verdicts(Vec::new()),
            Fault::TooFew => {
                verdicts.pop();
                Reply::Verdicts(verdicts)
            }
            Fault::TooMany => {
                verdicts.extend(verdicts.last().cloned());
                Reply::Verdicts(verdicts)
            }
            Fault::Late => {
                tokio::time::sleep(LATE).await;
                Reply::Verdicts(verdicts)
            }
            Fault::TooLate => {
                tokio::time::sleep(TOO_LATE).await;
                Reply::Verdicts(verdicts)
            }
            Fault::Never => std::future::pending().await,
            Fault::HangUp => Reply::HangUp,
            Fault::NoGrpc => Reply::NoGrpc,
        }
    }
}

/// The message of a check in answer to a batch, and the other way round. Either reads as something.
fn other_kind(method: Method) -> Reply {
    use prost::Message;
    let admitted = allowing(&[(header::CODE, "ADMITTED")]);
    let bytes = match method {
        Method::BatchCheck => admitted.encode_to_vec(),
        Method::Check => {
            let result = proto::batch::BatchCheckResult { grpc_status: 0, response: Some(admitted) };
            proto::batch::BatchCheckResponse { results: vec![result] }.encode_to_vec()
        }
    };
    let length = u32::try_from(bytes.len()).unwrap_or_default();
    Reply::Frame { bytes: bytes.into(), length }
}

/// What the order's number says.
fn answer(order: &Order) -> Verdict {
    let id = order.decision_id();
    let admitting = |more: &[(&str, &str)]| {
        let own = [(header::CODE, Code::Admitted.as_str()), (header::DECISION_ID, &*id)];
        Verdict::Response(allowing(&[&own, more].concat()))
    };
    match order.decision {
        Decision::Admitted | Decision::Contested => admitting(&[]),
        Decision::Replayed => admitting(&[(header::REPLAY, "true")]),
        Decision::Delayed(millis) => admitting(&[(header::DELAY_MS, &millis.to_string())]),
        // Shadow routes are notified of a refusal by an answer that allows.
        Decision::Refused(code) if order.route.mode() == "shadow" => {
            Verdict::Response(allowing(&[(header::CODE, code.as_str()), (header::DECISION_ID, &id)]))
        }
        Decision::Refused(code) => Verdict::Response(refusing(order, code)),
        Decision::Unusable(Unusable::Status(status)) => Verdict::Status(status),
        Decision::Unusable(Unusable::Store) => Verdict::Response(refusing(order, Code::StoreUnavailable)),
        Decision::Unusable(Unusable::Empty) => Verdict::Response(CheckResponse::default()),
        Decision::Unusable(Unusable::NoCode) => Verdict::Response(allowing(&[])),
        Decision::Unusable(Unusable::Contradicts) => {
            let refusal = refusing(order, Code::DailyAmount);
            Verdict::Response(CheckResponse { status: Some(RpcStatus::default()), ..refusal })
        }
    }
}

fn refusing(order: &Order, code: Code) -> CheckResponse {
    let id = order.decision_id();
    let denied = DeniedHttpResponse {
        status: Some(HttpStatus { code: i32::from(code.http_status()) }),
        headers: options(&[
            (header::CODE, code.as_str()),
            (header::DECISION_ID, &id),
            ("content-type", proto::PROBLEM_CONTENT_TYPE),
        ]),
        body: order.problem(code).to_json(),
    };
    CheckResponse {
        status: Some(RpcStatus { code: REFUSED, message: code.as_str().to_owned() }),
        http_response: Some(HttpResponse::DeniedResponse(denied)),
        ..CheckResponse::default()
    }
}
