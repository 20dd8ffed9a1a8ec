//! What the filter reports to the server after a payment's end: that an attempt is voided, or that a capture, refund or void was
//! made. What could not be sent or was not answered waits here for another try. Bounded in number, tries and time.

use std::collections::VecDeque;
use std::sync::Arc;

use quota::Code;

use crate::stats::Stat;
use crate::trust::{Holder, UNREPORTED_MAX, Unreported};
use crate::wire::Reply;

/// Most follow-ups that wait in one worker. One is some 400 bytes.
pub const WAITING_MAX: usize = 4096;
/// Most reports that wait beside them: all that may be unreported.
pub const REPORTS_WAITING_MAX: usize = UNREPORTED_MAX as usize;
/// Most follow-ups resent in one tick, so that a server that is back does not receive all of them at once.
pub const SENT_PER_TICK_MAX: usize = 64;
/// Pause before the second try, in milliseconds; each next one is twice as long.
pub const BACKOFF_MS: u64 = 250;
/// Longest pause between two tries, in milliseconds.
pub const BACKOFF_MS_MAX: u64 = 60_000;
/// Most tries of one follow-up. With the backoff above the last one comes after some 16 minutes.
pub const TRIES_MAX: u32 = 24;
/// Timeout of a follow-up's answer, in milliseconds. No payment waits for it.
pub const TIMEOUT_MS: u32 = 2_000;

/// What a follow-up reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An attempt is voided.
    Void,
    /// The gateway has captured.
    Settle,
    /// The gateway has refunded.
    Refund,
    /// The gateway has voided an authorisation.
    VoidOrder,
    /// It is unknown whether the gateway did what was requested.
    Unknown,
    /// The gateway has made an order's charge. The outcome of an earlier attempt may be unknown.
    Made,
    /// A payment was admitted from a right.
    Report,
    /// A right has ended.
    ReleaseRight,
}

impl Kind {
    /// The word of the contract and of logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Void => proto::extension::ACTION_VOID,
            Self::Settle => proto::extension::ACTION_SETTLE,
            Self::Refund => proto::extension::ACTION_REFUND,
            Self::VoidOrder => proto::extension::ACTION_VOID_ORDER,
            Self::Unknown => proto::extension::ACTION_UNKNOWN,
            Self::Made => proto::extension::ACTION_MADE,
            Self::Report => proto::extension::ACTION_REPORT,
            Self::ReleaseRight => proto::extension::ACTION_RELEASE_RIGHT,
        }
    }

    /// Counts a first try; a payment of a right is counted when it is admitted.
    #[must_use]
    pub const fn sent(self) -> Option<Stat> {
        match self {
            Self::Void => Some(Stat::VoidSent),
            Self::Report | Self::ReleaseRight => None,
            Self::Settle | Self::Refund | Self::VoidOrder | Self::Unknown | Self::Made => Some(Stat::ConfirmSent),
        }
    }

    /// Counts another try.
    #[must_use]
    pub const fn retried(self) -> Stat {
        match self {
            Self::Void => Stat::VoidRetried,
            Self::Report | Self::ReleaseRight => Stat::ReportRetried,
            Self::Settle | Self::Refund | Self::VoidOrder | Self::Unknown | Self::Made => Stat::ConfirmRetried,
        }
    }

    /// Counts one that is given up.
    #[must_use]
    pub const fn lost(self) -> Stat {
        match self {
            Self::Void => Stat::VoidLost,
            Self::Report | Self::ReleaseRight => Stat::ReportLost,
            Self::Settle | Self::Refund | Self::VoidOrder | Self::Unknown | Self::Made => Stat::ConfirmLost,
        }
    }

    /// Whether a code means that this was done, now or before.
    const fn is_done(self, code: Code) -> bool {
        match self {
            Self::Void => {
                matches!(code, Code::Voided | Code::AttemptReleased | Code::Tombstoned | Code::Applied)
            }
            Self::Settle | Self::Refund => matches!(code, Code::Applied),
            Self::VoidOrder => matches!(code, Code::Voided | Code::Applied),
            // Its own attempt's void may have come before it.
            Self::Report => matches!(code, Code::Admitted | Code::AttemptVoided),
            Self::ReleaseRight => matches!(code, Code::Applied),
            // An order that is not charged needs no report.
            Self::Unknown | Self::Made => matches!(code, Code::Applied | Code::OrderUnknown),
        }
    }
}

/// One report to the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowUp {
    pub kind: Kind,
    /// The cluster that decided the attempt.
    pub cluster: Arc<str>,
    /// The encoded check.
    pub message: Vec<u8>,
    /// Names the attempt in logs, so that a lost one can be found.
    pub label: String,
    /// How often it was sent.
    pub tries: u32,
    /// How long it may wait for others, in milliseconds.
    pub linger_ms: u32,
    /// Of a report: the payment of a right.
    pub unreported: Option<Arc<Unreported>>,
    /// Of a report that asks for another right.
    pub asks: Option<Box<Asks>>,
    /// It is about a payment that was admitted from a right: its report may come later.
    pub follows_report: bool,
}

/// A request for a right that a report has made. It is made once: another one might be granted after the right was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asks {
    /// The right's id.
    pub id: Arc<str>,
    /// The encoded report without it.
    pub without: Vec<u8>,
}

impl FollowUp {
    /// One that goes with the next call.
    #[must_use]
    pub fn new(kind: Kind, cluster: Arc<str>, message: Vec<u8>, label: String) -> Self {
        Self {
            kind,
            cluster,
            message,
            label,
            tries: 0,
            linger_ms: 0,
            unreported: None,
            asks: None,
            follows_report: false,
        }
    }

    /// What an answer means for it.
    #[must_use]
    pub fn acknowledgement(&self, reply: &Reply<'_>) -> Acknowledgement {
        match acknowledgement(self.kind, reply) {
            // The order is not known yet.
            Acknowledgement::Done if self.follows_report && code_of(reply).0 == Some(Code::OrderUnknown) => {
                Acknowledgement::Retry
            }
            acknowledged => acknowledged,
        }
    }

    /// The server has answered it, and will not be sent it again: a payment of a right is reported, and the right that it asked for
    /// is granted or not.
    pub fn answered(&self, holder: Option<&Holder>, reply: &Reply<'_>) {
        if let Some(unreported) = &self.unreported {
            unreported.acknowledge();
        }
        if let (Some(holder), Some(asks)) = (holder, &self.asks) {
            holder.answered(&asks.id, reply.right());
        }
    }
}

/// Follow-ups on their way to another try.
#[derive(Debug, Default)]
pub struct FollowUps {
    /// The time of the last tick.
    now_ms: u64,
    waiting: VecDeque<(u64, FollowUp)>,
    /// How many of them are reports, which take no room from the others.
    reports: usize,
}

impl FollowUps {
    /// Takes a follow-up whose try failed. `Err` returns one that is lost: tried too often, or the queue is full.
    ///
    /// # Errors
    /// The follow-up that will not be tried again.
    pub fn retry(&mut self, mut follow_up: FollowUp) -> Result<(), FollowUp> {
        let is_report = follow_up.kind == Kind::Report;
        let others = self.waiting.len().saturating_sub(self.reports);
        let is_full = match follow_up.kind {
            Kind::Report => self.reports >= REPORTS_WAITING_MAX,
            // What is not returned stays counted: it must not crowd out a void.
            Kind::ReleaseRight => others >= WAITING_MAX.div_euclid(4),
            Kind::Void | Kind::Settle | Kind::Refund | Kind::VoidOrder | Kind::Unknown | Kind::Made => {
                others >= WAITING_MAX
            }
        };
        if follow_up.tries >= TRIES_MAX || is_full {
            return Err(follow_up);
        }
        self.reports = self.reports.saturating_add(usize::from(is_report));
        if let Some(Asks { without, .. }) = follow_up.asks.take().map(|asks| *asks) {
            follow_up.message = without;
        }
        let due = self.now_ms.saturating_add(backoff_ms(follow_up.tries));
        self.waiting.push_back((due, follow_up));
        Ok(())
    }

    /// Returns the follow-ups that are due, each counted as one more try. `now_ms` is of a monotonic clock.
    pub fn due(&mut self, now_ms: u64) -> Vec<FollowUp> {
        self.now_ms = now_ms;
        let mut due = Vec::new();
        let mut later = VecDeque::with_capacity(self.waiting.len());
        for (at, follow_up) in self.waiting.drain(..) {
            if at <= now_ms && due.len() < SENT_PER_TICK_MAX {
                due.push(FollowUp { tries: follow_up.tries.saturating_add(1), ..follow_up });
            } else {
                later.push_back((at, follow_up));
            }
        }
        self.waiting = later;
        let reports = due.iter().filter(|follow_up| follow_up.kind == Kind::Report).count();
        self.reports = self.reports.saturating_sub(reports);
        due
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

/// What an answer means for its follow-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// It is done.
    Done,
    /// It has to be sent again.
    Retry,
    /// The server will never accept it; the code is the reason, if there is one.
    Rejected(Option<Code>),
}

/// Reads the answer to a follow-up. Only its own decision acknowledges it, and a permanent refusal ends it: on shadow routes such
/// a refusal comes as a pass.
#[must_use]
pub fn acknowledgement(kind: Kind, reply: &Reply<'_>) -> Acknowledgement {
    let (code, status) = code_of(reply);
    match (code, code.map_or(status, |code| u32::from(code.http_status()))) {
        (Some(code), _) if kind.is_done(code) => Acknowledgement::Done,
        // The payment is forwarded: only an order that does not take it ends its report. A server of the release before cannot read it.
        (Some(Code::IdempotencyConflict | Code::OrderClosed), _) if kind == Kind::Report => {
            Acknowledgement::Rejected(code)
        }
        (_, _) if matches!(kind, Kind::Report | Kind::ReleaseRight) => Acknowledgement::Retry,
        (Some(_), 400..=428 | 430..=499) | (None, 400) => Acknowledgement::Rejected(code),
        (_, _) => Acknowledgement::Retry,
    }
}

/// The code and the status of an answer; no status without an answer.
fn code_of(reply: &Reply<'_>) -> (Option<Code>, u32) {
    match reply {
        Reply::Pass { code, .. } => (Some(*code), u32::from(code.http_status())),
        Reply::Refuse { code, status, .. } => (*code, *status),
        Reply::None(_) => (None, 0),
    }
}

/// The pause after so many tries.
fn backoff_ms(tries: u32) -> u64 {
    let times = 1_u64.checked_shl(tries.saturating_sub(1)).unwrap_or(u64::MAX);
    BACKOFF_MS.saturating_mul(times).min(BACKOFF_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::NoAnswer;

    fn follow_up(tries: u32) -> FollowUp {
        FollowUp { tries, ..FollowUp::new(Kind::Void, "c".into(), vec![1], "l".to_owned()) }
    }

    #[test]
    fn only_its_own_decision_says_that_a_follow_up_was_heard() {
        use Code::{Applied, AttemptReleased, Tombstoned, Voided};
        let pass = |code| Reply::Pass { code, headers: Vec::new(), delay_ms: 0, decided: &[] };
        let refuse = |code, status| Reply::Refuse { code, status, headers: Vec::new(), body: &[], decided: &[] };
        let table: [(Kind, &[Code]); 6] = [
            (Kind::Void, &[Voided, AttemptReleased, Tombstoned, Applied]),
            (Kind::Settle, &[Applied]),
            (Kind::Refund, &[Applied]),
            (Kind::VoidOrder, &[Voided, Applied]),
            (Kind::Unknown, &[Applied, Code::OrderUnknown]),
            (Kind::Made, &[Applied, Code::OrderUnknown]),
        ];
        for (kind, done) in table {
            for code in Code::ALL {
                let status = code.http_status();
                let expected = match status {
                    _ if done.contains(&code) => Acknowledgement::Done,
                    200 | 429 | 500.. => Acknowledgement::Retry,
                    _ => Acknowledgement::Rejected(Some(code)),
                };
                assert_eq!(acknowledgement(kind, &pass(code)), expected, "{kind:?} {code:?}");
                let refused = acknowledgement(kind, &refuse(Some(code), u32::from(status)));
                assert_eq!(refused, expected, "{kind:?} {code:?} refused");
            }
            for code in [Code::OrderClosed, Code::OrderFull, Code::IdempotencyConflict] {
                assert_eq!(
                    acknowledgement(kind, &refuse(Some(code), 409)),
                    Acknowledgement::Rejected(Some(code)),
                    "{kind:?}"
                );
            }
            for (status, expected) in [
                (400, Acknowledgement::Rejected(None)),
                (403, Acknowledgement::Retry),
                (429, Acknowledgement::Retry),
                (503, Acknowledgement::Retry),
            ] {
                assert_eq!(acknowledgement(kind, &refuse(None, status)), expected, "{status}");
            }
            assert_eq!(acknowledgement(kind, &Reply::None(NoAnswer::unavailable("away"))), Acknowledgement::Retry);
        }
    }

    /// The payment is forwarded: its report ends only with an order that has it or does not take it.
    #[test]
    fn a_report_is_sent_until_its_order_is_decided() {
        for code in Code::ALL {
            let expected = match code {
                Code::Admitted | Code::AttemptVoided => Acknowledgement::Done,
                Code::IdempotencyConflict | Code::OrderClosed => Acknowledgement::Rejected(Some(code)),
                _ => Acknowledgement::Retry,
            };
            let reply = Reply::Refuse {
                code: Some(code),
                status: u32::from(code.http_status()),
                headers: Vec::new(),
                body: &[],
                decided: &[],
            };
            assert_eq!(acknowledgement(Kind::Report, &reply), expected, "{code:?}");
        }
        let unreadable = Reply::Refuse { code: None, status: 400, headers: Vec::new(), body: &[], decided: &[] };
        for kind in [Kind::Report, Kind::ReleaseRight] {
            assert_eq!(acknowledgement(kind, &unreadable), Acknowledgement::Retry, "a server of the release before");
        }
        // What is known of a payment may come before its report.
        let unknown_order = Reply::Pass { code: Code::OrderUnknown, headers: Vec::new(), delay_ms: 0, decided: &[] };
        for (follows_report, expected) in [(false, Acknowledgement::Done), (true, Acknowledgement::Retry)] {
            let own = FollowUp::new(Kind::Unknown, "c".into(), vec![1], "l".to_owned());
            assert_eq!(FollowUp { follows_report, ..own }.acknowledgement(&unknown_order), expected);
        }
    }

    #[test]
    fn a_report_asks_once_and_takes_no_room_from_others() {
        let mut queue = FollowUps::default();
        let of = |kind| FollowUp { tries: 1, ..FollowUp::new(kind, "c".into(), vec![1], "l".to_owned()) };
        let asks = Some(Box::new(Asks { id: "r".into(), without: vec![2] }));
        queue.retry(FollowUp { asks, ..of(Kind::Report) }).unwrap();
        let again = queue.due(BACKOFF_MS).pop().unwrap();
        assert_eq!((again.asks, again.message), (None, vec![2]));
        for _ in 0..REPORTS_WAITING_MAX {
            queue.retry(of(Kind::Report)).unwrap();
        }
        assert!(queue.retry(of(Kind::Report)).is_err());
        for _ in 0..WAITING_MAX / 4 {
            queue.retry(of(Kind::ReleaseRight)).unwrap();
        }
        assert!(queue.retry(of(Kind::ReleaseRight)).is_err());
        for _ in 0..WAITING_MAX / 4 * 3 {
            queue.retry(of(Kind::Void)).unwrap();
        }
        assert!(queue.retry(of(Kind::Void)).is_err());
        let due = queue.due(2 * BACKOFF_MS + 1).len();
        queue.retry(of(Kind::Report)).unwrap_or_else(|_| panic!("{due} have made room"));
    }

    #[test]
    fn the_pause_doubles_up_to_a_minute() {
        let pauses: Vec<u64> = [0, 1, 2, 3, 8, 9, 63, 64, 65, u32::MAX].into_iter().map(backoff_ms).collect();
        assert_eq!(pauses, [250, 250, 500, 1000, 32_000, 60_000, 60_000, 60_000, 60_000, 60_000]);
    }

    #[test]
    fn a_follow_up_is_tried_a_bounded_number_of_times() {
        let mut queue = FollowUps::default();
        let mut waiting = follow_up(1);
        let mut now_ms = 0_u64;
        loop {
            let tries = waiting.tries;
            if let Err(lost) = queue.retry(waiting) {
                assert_eq!(lost.tries, TRIES_MAX);
                break;
            }
            waiting = loop {
                now_ms += 250;
                if let Some(due) = queue.due(now_ms).pop() {
                    break due;
                }
            };
            assert_eq!(waiting.tries, tries + 1);
        }
        assert_eq!(now_ms / 60_000, 16);
    }

    #[test]
    fn the_queue_and_the_tick_are_bounded() {
        let mut queue = FollowUps::default();
        for _ in 0..WAITING_MAX {
            queue.retry(follow_up(1)).unwrap();
        }
        assert!(queue.retry(follow_up(1)).is_err());
        assert_eq!(queue.due(BACKOFF_MS).len(), SENT_PER_TICK_MAX);
        assert_eq!(queue.len(), WAITING_MAX - SENT_PER_TICK_MAX);
        assert!(!queue.is_empty());
    }
}
