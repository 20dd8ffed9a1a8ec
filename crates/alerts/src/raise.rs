//! Which account alerts the journal's events raise and resolve. Pure: the caller reads the open alerts before, and writes the
//! changes, in the events' transaction.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use quota::{Crossing, LimitName, ThresholdPolicy};
use uuid::Uuid;

use super::marks::{self, Audience, Mark, Marked, Threshold};
use super::own::OwnByMerchant;
use super::projection::Alert;
use super::{Level, Subject, words};
use sluice_journal::event::Event;
use sluice_journal::postgres::{REWOUND, Row};
use sluice_kit::clock;

/// `resolved_by` of alerts that end because usage fell.
pub const SYSTEM: &str = "system";
/// Merchant and currency; the currency is empty for the merchant as a whole.
pub type Account = (String, String);

/// Identifies an alert of an account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, sqlx::FromRow)]
pub struct Key {
    pub subject: String,
    pub threshold: Option<i32>,
    pub remaining_below: Option<i64>,
    /// The threshold is one of the merchant's own.
    pub is_own: bool,
    pub window_id: Option<i32>,
}

/// An alert that is open.
#[derive(Clone, Debug)]
pub struct Open {
    pub alert_id: Uuid,
    pub key: Key,
    pub shard: Option<i32>,
    pub raised_seq: Option<i64>,
    pub raised_at: DateTime<Utc>,
}

/// How an alert has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    pub alert_id: Uuid,
    pub at: DateTime<Utc>,
    pub reason: &'static str,
    pub event_id: Uuid,
}

/// The alerts of the accounts in a batch of events, and the changes that the events cause.
#[derive(Debug, Default)]
pub struct AlertBoard {
    open: HashMap<Account, Vec<Open>>,
    /// Alerts that were resolved by hand and not raised again since.
    silenced: HashSet<(Account, Key)>,
    /// Merchants' own thresholds.
    own: OwnByMerchant,
    raised: Vec<Alert>,
    ended: Vec<End>,
}

/// How an event changes one limit's thresholds.
#[derive(Clone, Copy)]
struct LimitChange {
    limit: LimitName,
    /// Number of thresholds reached, of the current list.
    level: usize,
    /// Number of those that were reached before.
    known: usize,
    list_changed: bool,
}

/// The account whose alerts the event may raise or resolve; `None` if it concerns no alert.
#[must_use]
pub fn account(event: &Event) -> Option<Account> {
    if event.changes_merchant {
        return Some((event.row.merchant_id.clone(), String::new()));
    }
    let concerns = event.changes_account
        && (event.crossing.is_some()
            || !event.closed.windows.is_empty()
            || matches!(event.row.action_type.as_str(), "suspend" | "resume")
            || over_captures(event));
    concerns.then(|| key(&event.row)).flatten()
}

impl AlertBoard {
    /// Starts with the open alerts, those resolved by hand, and the merchants' own thresholds.
    #[must_use]
    pub(crate) fn new(
        open: impl IntoIterator<Item = (Account, Open)>,
        silenced: HashSet<(Account, Key)>,
        own: OwnByMerchant,
    ) -> Self {
        let mut board = Self { silenced, own, ..Self::default() };
        for (account, open) in open {
            board.open.entry(account).or_default().push(open);
        }
        board
    }

    /// Applies an event, later than those before it, to the alerts of thresholds that the store counts, and all others but those
    /// of [`Self::cross_marks`].
    pub fn follow(&mut self, event: &Event) {
        let Some(account) = account(event) else { return };
        self.end(&account, event, |open| {
            let limit = ThresholdPolicy::LIMITS.into_iter().find(|limit| limit.as_str() == open.key.subject)?;
            let window = open.key.window_id;
            let is_over = window < window_of(event, limit) || closes(event, limit, open);
            (window.is_some() && is_over).then_some("window_closed")
        });
        if let Some(crossing) = &event.crossing {
            self.cross(&account, event, crossing);
        }
        match event.row.action_type.as_str() {
            "suspend" | "suspend_merchant" => self.suspend(&account, event),
            "resume" | "resume_merchant" => {
                let suspended = Subject::Suspended.column();
                self.end(&account, event, |open| (open.key.subject == suspended).then_some("resumed"));
            }
            _ => {}
        }
        if over_captures(event) {
            self.over_capture(&account, event);
        }
    }

    /// The new alerts, with their end where they have one already; and the ends of those that were open before.
    #[must_use]
    pub fn changes(self) -> (Vec<Alert>, Vec<End>) {
        (self.raised, self.ended)
    }

    /// Applies an event to the marks that its usage crosses.
    pub(crate) fn cross_marks(&mut self, account: &Account, event: &Event, marked: &[Marked]) {
        for Marked { subject, max, marks } in marked {
            let (before, after) = marks::used(*subject, &event.record);
            let window_id = subject.limit().and_then(|limit| window_of(event, limit));
            for mark in marks {
                let own = Key::of(*subject, mark, window_id);
                if before < mark.first && mark.first <= after {
                    self.end(account, event, |open| (open.key == own).then_some("counters_lost"));
                    let words = words::reached(*subject, &account.1, mark.threshold, after, *max);
                    let alert = alert(event, *subject, mark.threshold.level(), words);
                    self.raise(account, with_usage(marked_by(alert, *subject, mark, window_id), after, *max));
                } else if after < mark.first && mark.first <= before && !returns_right(event) {
                    self.end(account, event, |open| (open.key == own).then(|| taken_by(&event.row.action_type)));
                }
            }
        }
    }

    fn cross(&mut self, account: &Account, event: &Event, crossing: &Crossing) {
        let Crossing { before, after, threshold_policy } = crossing;
        let list_changed = changes_list(event);
        for ((limit, before), after) in ThresholdPolicy::LIMITS.into_iter().zip(before.by_limit).zip(after.by_limit) {
            if before != after || list_changed {
                let known = if list_changed { 0 } else { usize::from(before) };
                let change = LimitChange { limit, level: usize::from(after), known, list_changed };
                self.apply(account, event, threshold_policy, change);
            }
        }
    }

    fn apply(&mut self, account: &Account, event: &Event, threshold_policy: &ThresholdPolicy, change: LimitChange) {
        let LimitChange { limit, level, known, list_changed } = change;
        let percents = threshold_policy.thresholds().percents();
        let (reached, left) = percents.split_at_checked(level).unwrap_or((percents, &[]));
        let among = |percents: &[u16], threshold| percents.iter().any(|percent| Some(i32::from(*percent)) == threshold);
        let (before, after) = limit.used(&event.record);
        self.end(account, event, |open| {
            let Key { subject, threshold, is_own, .. } = &open.key;
            if *is_own || subject != limit.as_str() || among(reached, *threshold) {
                None
            } else if list_changed && !among(left, *threshold) {
                Some("thresholds_changed")
            } else if after < before {
                Some(taken_by(&event.row.action_type))
            } else {
                Some("limit_raised")
            }
        });
        let mut maxima = threshold_policy.maxima().iter().zip(ThresholdPolicy::LIMITS);
        let max = maxima.find(|(_, of)| *of == limit).map_or(0, |(max, _)| max.get());
        let Some(subject) = Subject::from_column(limit.as_str()) else { return };
        let audience = marks::audience(self.own.get(&account.0).map_or(&[], Vec::as_slice), &account.1, subject);
        for percent in reached.get(known..).unwrap_or_default() {
            let threshold = Threshold::Percent(*percent);
            // The store has found where the mark is.
            let mark = Mark { threshold, audience, first: 0 };
            let own = Key::of(subject, &mark, window_of(event, limit));
            if list_changed {
                // Usage that stays above a threshold raises one alert, whichever list has it.
                if self.silenced.contains(&(account.clone(), own)) {
                    continue;
                }
            } else {
                // Open although usage was below the threshold: Redis lost the counters that raised it.
                self.end(account, event, |open| (open.key == own).then_some("counters_lost"));
            }
            let words = words::reached(subject, &account.1, threshold, after, max);
            let alert = alert(event, subject, threshold.level(), words);
            self.raise(account, with_usage(marked_by(alert, subject, &mark, window_of(event, limit)), after, max));
        }
    }

    fn suspend(&mut self, account: &Account, event: &Event) {
        let currency = event.row.currency.as_deref();
        let words = words::suspended(currency, &event.row.operator_id, event.row.reason.as_deref());
        self.raise(account, alert(event, Subject::Suspended, Level::Critical, words));
    }

    fn over_capture(&mut self, account: &Account, event: &Event) {
        let (captured, held) = (event.record.order.settled, event.record.order.amount);
        let order_no = event.row.order_no.as_deref().unwrap_or_default();
        let words = words::over_captured(order_no, &account.1, captured, held);
        // Each over-capture raises its own alert, whatever is open.
        self.raised.push(with_usage(alert(event, Subject::OverCapture, Level::Warning, words), captured, held));
    }

    /// Raises an alert, unless the same one is open.
    fn raise(&mut self, account: &Account, alert: Alert) {
        let open = self.open.entry(account.clone()).or_default();
        let key = alert.key();
        if open.iter().any(|open| open.key == key) {
            return;
        }
        open.push(Open {
            alert_id: alert.alert_id,
            key,
            shard: Some(alert.shard),
            raised_seq: Some(alert.raised_seq),
            raised_at: alert.raised_at,
        });
        self.raised.push(alert);
    }

    /// Resolves the alerts that the event has a reason to resolve, except those raised after it.
    fn end(&mut self, account: &Account, event: &Event, reason: impl Fn(&Open) -> Option<&'static str>) {
        let Some(open) = self.open.get_mut(account) else { return };
        let mut ended = Vec::new();
        open.retain(|open| {
            let reason = reason(open).filter(|_| !is_later(open, &event.row));
            ended.extend(reason.map(|reason| End {
                alert_id: open.alert_id,
                at: event.row.at,
                reason,
                event_id: event.row.event_id,
            }));
            reason.is_none()
        });
        for end in ended {
            match self.raised.iter_mut().rev().find(|alert| alert.alert_id == end.alert_id) {
                Some(alert) => {
                    alert.resolved_at = Some(end.at.max(alert.raised_at));
                    alert.resolved_by = Some(SYSTEM);
                    alert.resolve_reason = Some(end.reason);
                    alert.resolve_event_id = Some(end.event_id);
                }
                None => self.ended.push(end),
            }
        }
    }
}

impl Key {
    /// That of an alert of a mark.
    pub(crate) fn of(subject: Subject, mark: &Mark, window_id: Option<i32>) -> Self {
        Self {
            subject: subject.column().to_owned(),
            threshold: mark.threshold.percent(),
            remaining_below: mark.threshold.remaining_below(),
            is_own: mark.audience == Audience::Merchant,
            window_id,
        }
    }

    /// Whether it is the same threshold of the same limit, in whichever window.
    pub(crate) fn is_threshold_of(&self, other: &Self) -> bool {
        Self { window_id: other.window_id, ..self.clone() } == *other
    }
}

impl Alert {
    pub(crate) fn key(&self) -> Key {
        Key {
            subject: self.subject.to_owned(),
            threshold: self.threshold,
            remaining_below: self.remaining_below,
            is_own: self.is_own,
            window_id: self.window_id,
        }
    }
}

/// Whether the account's levels before the event were counted with another list of thresholds.
#[must_use]
pub fn changes_list(event: &Event) -> bool {
    let lists =
        event.crossing.as_ref().map(|crossing| (crossing.before.list, crossing.threshold_policy.thresholds().list()));
    lists.is_some_and(|(before, after)| before != 0 && before != after)
}

/// Whether a later event raised the alert. Sequence numbers that Redis assigns again after a loss are smaller, but later.
fn is_later(open: &Open, row: &Row) -> bool {
    open.shard == Some(row.shard)
        && open.raised_seq.is_some_and(|seq| seq > row.seq)
        && row.at <= open.raised_at + REWOUND
}

fn over_captures(event: &Event) -> bool {
    event.row.action_type == "settle" && event.record.is_over_captured()
}

/// The window whose usage counts against the limit.
fn window_of(event: &Event, limit: LimitName) -> Option<i32> {
    limit.period().and_then(|period| i32::try_from(event.record.of(period).id).ok())
}

/// Whether the event closes the alert's window. The window's id may be a later one: an account that was ahead returns to the
/// current windows with its usage and its alerts.
fn closes(event: &Event, limit: LimitName, open: &Open) -> bool {
    let closed = event.closed.windows.iter().any(|closed| Some(closed.period) == limit.period());
    closed && open.raised_seq != Some(event.row.seq)
}

/// Whether it is a right that is returned, as every second or so: the next one would raise the same alert again.
fn returns_right(event: &Event) -> bool {
    event.row.action_type == "release_right"
}

/// The `resolve_reason` for usage that fell below a threshold.
fn taken_by(action: &str) -> &'static str {
    match action {
        "refund" | "reserve_refund" => "refund",
        // An unknown outcome resolved as not made is returned like a void.
        "void" | "resolve" => "void",
        "release" => "release",
        "settle" => "settle",
        "expire" => "expire",
        "reset" => "reset",
        "repayment" => "repayment",
        "write_off" => "write_off",
        "transfer_in" => "transfer_in",
        "transfer_out" => "transfer_out",
        "release_right" => "right_returned",
        // Nothing else lowers usage.
        _ => "adjust",
    }
}

/// The account of a row.
pub(crate) fn key(row: &Row) -> Option<Account> {
    Some((row.merchant_id.clone(), row.currency.clone()?))
}

/// The state of an account, or of a merchant as a whole, after a change.
pub(crate) struct ChangedState<'a> {
    pub merchant_id: &'a str,
    pub currency: Option<&'a str>,
    pub shard: i32,
    /// The number of the change among those of its shard.
    pub seq: i64,
    pub at: DateTime<Utc>,
}

impl ChangedState<'_> {
    /// An alert of it, without threshold, usage and event.
    pub(crate) fn alert(&self, subject: Subject, level: Level, message: String) -> Alert {
        Alert {
            alert_id: Uuid::from_bytes(clock::decision_id()),
            merchant_id: self.merchant_id.to_owned(),
            currency: self.currency.map(str::to_owned),
            subject: subject.column(),
            threshold: None,
            alert_type: subject.word().to_owned(),
            alert_level: level.into_str(),
            window_id: None,
            current_used: None,
            max: None,
            usage_percent: None,
            message,
            policy_version: None,
            event_id: None,
            shard: self.shard,
            raised_seq: self.seq,
            trace_id: None,
            raised_at: self.at,
            resolved_at: None,
            resolved_by: None,
            resolve_reason: None,
            resolve_event_id: None,
            remaining_below: None,
            is_own: false,
            recipient: None,
        }
    }
}

/// An alert of the event's account or merchant, without usage.
fn alert(event: &Event, subject: Subject, level: Level, message: String) -> Alert {
    let Row { merchant_id, currency, shard, seq, at, .. } = &event.row;
    let state = ChangedState { merchant_id, currency: currency.as_deref(), shard: *shard, seq: *seq, at: *at };
    Alert {
        policy_version: event.row.policy_version.clone(),
        event_id: Some(event.row.event_id),
        trace_id: event.row.trace_id.clone(),
        ..state.alert(subject, level, message)
    }
}

/// The alert as that of a mark.
pub(crate) fn marked_by(alert: Alert, subject: Subject, mark: &Mark, window_id: Option<i32>) -> Alert {
    let Mark { threshold, audience, .. } = mark;
    Alert {
        threshold: threshold.percent(),
        remaining_below: threshold.remaining_below(),
        alert_type: threshold.alert_type(subject),
        window_id,
        is_own: *audience == Audience::Merchant,
        recipient: match audience {
            Audience::Both => None,
            Audience::Operators => Some("operators"),
            Audience::Merchant => Some("merchant"),
        },
        ..alert
    }
}

pub(crate) fn with_usage(alert: Alert, used: u64, max: u64) -> Alert {
    let signed = |value| i64::try_from(value).ok();
    Alert { current_used: signed(used), max: signed(max), usage_percent: words::percent(used, max), ..alert }
}
