//! Dunning: which notices an unpaid obligation causes, and when. A notice is known by its obligation and its step, and is sent once.
//! Payment ends it, and a pause delays it.

use std::collections::BTreeSet;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::invalid::{ensure, within};
use crate::pause::PausedDays;
use crate::{CycleId, InvalidMember, LineHistory, Obligation};

/// How much weight a notice has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// It is left out where a later step is reached before it could be sent.
    #[default]
    Reminder,
    /// A formal demand. It is always sent.
    Formal,
    /// The last demand before default. It is always sent.
    Final,
}

impl NoticeKind {
    /// The name in documents and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reminder => "reminder",
            Self::Formal => "formal",
            Self::Final => "final",
        }
    }
}

/// Who receives a notice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Recipient {
    Merchant,
    Operators,
}

impl Recipient {
    /// The name in documents and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Merchant => "merchant",
            Self::Operators => "operators",
        }
    }
}

/// One step of the ladder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DunningStep {
    /// Days past due; 0 or less is before or on the due date. No two steps have the same day.
    pub day: i16,
    /// The names of alert channels.
    pub channels: BTreeSet<String>,
    /// The id of the text.
    pub template: String,
    #[serde(default)]
    pub kind: NoticeKind,
    pub recipients: BTreeSet<Recipient>,
}

/// The steps of dunning, by day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Ladder(pub Vec<DunningStep>);

impl Default for Ladder {
    fn default() -> Self {
        use NoticeKind::{Final, Formal, Reminder};
        let step = |(day, kind, template): (i16, NoticeKind, &str)| DunningStep {
            day,
            channels: BTreeSet::from(["email".to_owned()]),
            template: template.to_owned(),
            kind,
            recipients: if day > 0 {
                BTreeSet::from([Recipient::Merchant, Recipient::Operators])
            } else {
                BTreeSet::from([Recipient::Merchant])
            },
        };
        let steps = [
            (-3, Reminder, "payment_due_soon"),
            (0, Reminder, "payment_due_today"),
            (1, Reminder, "payment_overdue"),
            (7, Reminder, "payment_overdue_watch"),
            (14, Reminder, "payment_overdue_watch_second"),
            (30, Formal, "formal_demand"),
            (45, Reminder, "payment_overdue_restricted"),
            (60, Final, "final_demand"),
            (90, Reminder, "default_notice"),
        ];
        Self(steps.map(step).into())
    }
}

impl Ladder {
    /// The most steps.
    pub const STEPS_MAX: usize = 50;
    /// The furthest day from the due date.
    pub const DAY_MAX: i64 = 3_650;
    /// The longest name of a channel or text, in bytes.
    pub const NAME_LEN_MAX: usize = 64;

    /// Checks every step. A ladder without steps sends nothing.
    ///
    /// # Errors
    /// [`InvalidMember`] names the first member that cannot be used.
    pub fn validate(&self) -> Result<(), InvalidMember> {
        let len = self.0.len();
        let problem = format!("has {len} steps: give at most {}", Self::STEPS_MAX);
        ensure(len <= Self::STEPS_MAX, "dunning", problem)?;
        let mut last = None;
        for (number, step) in self.0.iter().enumerate() {
            let member = |name: &str| format!("dunning[{number}].{name}");
            within(member("day"), step.day.into(), -Self::DAY_MAX, Self::DAY_MAX)?;
            let problem = format!("is {}: give days in rising order, each once", step.day);
            ensure(last.is_none_or(|last| last < step.day), member("day"), problem)?;
            ensure(is_name(&step.template), member("template"), "is no name: give 1 to 64 visible ASCII characters")?;
            ensure(!step.channels.is_empty(), member("channels"), "is empty: name a channel, or remove the step")?;
            let are_names = step.channels.iter().all(|name| is_name(name));
            ensure(are_names, member("channels"), "has no name in it: give 1 to 64 visible ASCII characters")?;
            let problem = "is empty: give `merchant`, `operators` or both";
            ensure(!step.recipients.is_empty(), member("recipients"), problem)?;
            last = Some(step.day);
        }
        Ok(())
    }
}

fn is_name(text: &str) -> bool {
    (1..=Ladder::NAME_LEN_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// What makes a notice the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NoticeKey {
    /// The cycle of the obligation.
    pub obligation: CycleId,
    /// The day of the step.
    pub step: i16,
}

/// What was sent, and since when notices are sent at all.
#[derive(Clone, Copy, Debug)]
pub struct DunningState<'a> {
    /// The first day for which notices are sent. Steps that were reached before it are left out; `None` sends nothing.
    pub active_from: Option<Date>,
    pub sent: &'a BTreeSet<NoticeKey>,
}

/// A notice to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Notice {
    pub key: NoticeKey,
    /// When the step is reached.
    #[schema(value_type = String, format = Date)]
    pub on: Date,
    #[schema(value_type = String, format = Date)]
    pub due_on: Date,
    /// What is unpaid of the minimum.
    pub amount: i64,
    /// Days past due on the day of sending; 0 up to the due date.
    pub days_past_due: i64,
    pub step: DunningStep,
}

impl LineHistory<'_> {
    /// The notices to be sent on a date: those of reached steps that were not sent, oldest obligation first. None in a pause.
    #[must_use]
    pub fn notices_due(&self, date: Date, state: DunningState<'_>) -> Vec<Notice> {
        let paused = PausedDays::new(self.pauses);
        if paused.contain(date) {
            return Vec::new();
        }
        let is_past_due = self.days_past_due(date, &paused) > 0;
        let billed = self.obligations.iter().filter(|own| own.statement.closed_on <= date);
        billed.flat_map(|own| self.notices_of(own, date, is_past_due, &paused, state)).collect()
    }

    /// The notices that will be sent from a date on, each with its day, if nothing is paid and nothing more is billed.
    #[must_use]
    pub fn dunning_calendar(&self, date: Date, state: DunningState<'_>) -> Vec<Notice> {
        let paused = PausedDays::new(self.pauses);
        let mut sent = state.sent.clone();
        let mut calendar = Vec::new();
        for day in self.step_days(date, &paused) {
            for notice in self.notices_due(day, DunningState { sent: &sent, ..state }) {
                sent.insert(notice.key);
                calendar.push(Notice { on: day, ..notice });
            }
        }
        calendar
    }

    /// Days from a date on when a notice may become due: that date, days of steps, ends of pauses, and the first days on which
    /// something is past due.
    fn step_days(&self, date: Date, paused: &PausedDays) -> BTreeSet<Date> {
        let of_step = |own: &Obligation, step: &DunningStep| paused.day_of(own.statement.due_on, step.day.into());
        let steps =
            self.obligations.iter().flat_map(|own| self.terms.dunning.0.iter().map(move |step| of_step(own, step)));
        let past_due = self.obligations.iter().map(|own| paused.day_of(own.statement.due_on, 1));
        let closed = self.obligations.iter().map(|own| own.statement.closed_on);
        let days = steps.chain(past_due).chain(closed).chain(paused.edges());
        days.chain([date]).filter(|day| *day >= date).collect()
    }

    fn notices_of(
        &self,
        own: &Obligation,
        date: Date,
        is_past_due: bool,
        paused: &PausedDays,
        state: DunningState<'_>,
    ) -> Vec<Notice> {
        let amount = own.minimum_unpaid_on(date);
        let Some(active_from) = state.active_from.filter(|_| amount > 0) else { return Vec::new() };
        let due_on = own.statement.due_on;
        let first = active_from.max(own.statement.closed_on);
        let reached = self.reached_steps(due_on, date, is_past_due, paused);
        let last = reached.last().map(|(_, step)| step.day);
        let is_sent =
            |on: Date, step: &DunningStep| on >= first && (step.kind != NoticeKind::Reminder || last == Some(step.day));
        let notice = |(on, step): (Date, &DunningStep)| {
            let key = NoticeKey { obligation: own.statement.cycle, step: step.day };
            let days_past_due = paused.days_past_due(due_on, date);
            Notice { key, on, due_on, amount, days_past_due, step: step.clone() }
        };
        let notices = reached.into_iter().filter(|(on, step)| is_sent(*on, step)).map(notice);
        notices.filter(|notice| !state.sent.contains(&notice.key)).collect()
    }

    /// The steps that something due on a date has reached, each with its day. After the due date what is past due must be material.
    fn reached_steps(
        &self,
        due_on: Date,
        date: Date,
        is_past_due: bool,
        paused: &PausedDays,
    ) -> Vec<(Date, &DunningStep)> {
        let steps = self.terms.dunning.0.iter().filter(|step| step.day <= 0 || is_past_due);
        let days = steps.map(|step| (paused.day_of(due_on, step.day.into()), step));
        days.filter(|(on, _)| *on <= date).collect()
    }
}
