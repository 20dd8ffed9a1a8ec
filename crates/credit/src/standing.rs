//! The standing of a credit line on a date: its stage, and how far its limit is cut. It follows from the books, the pauses and the
//! terms, and is stored nowhere.
//!
//! The history is walked day by day. Days past due raise the level at once. A closed cycle that is paid in full by its due date,
//! while nothing is past due, lowers it by one step. After a default the line stays in default for the probation.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use serde::Serialize;
use utoipa::ToSchema;

use crate::day::{days_between, plus_days};
use crate::pause::PausedDays;
use crate::stage_table::Level;
use crate::{BasisPoints, LineHistory, Stage, StageEffect, Terms};

/// Probation begins anew after more days past due than this (EBA/GL/2016/07, 76).
pub const PROBATION_DPD_MAX: i64 = 30;

/// The standing of a line at the end of a day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Standing {
    pub stage: Stage,
    /// 0 where nothing material is past due.
    pub days_past_due: i64,
    /// The most of the limit's base that is in force. 10,000 is no cap.
    pub cap_bp: BasisPoints,
    /// What the stage does besides.
    pub effects: BTreeSet<StageEffect>,
    /// Where the line is in default, since when.
    #[schema(value_type = Option<String>, format = Date)]
    pub in_default_since: Option<Date>,
    /// Where the probation has begun, the first day on which it can be over.
    #[schema(value_type = Option<String>, format = Date)]
    pub probation_until: Option<Date>,
    /// When the line last left default.
    #[schema(value_type = Option<String>, format = Date)]
    pub left_default_on: Option<Date>,
}

/// A day on which the stage or the cap becomes another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct StageChange {
    #[schema(value_type = String, format = Date)]
    pub on: Date,
    pub stage: Stage,
    pub days_past_due: i64,
    pub cap_bp: BasisPoints,
}

/// Days in a row with the same obligations past due: their days past due all grow by one each day, or not at all.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first_day: Date,
    /// The first day after it.
    end: Date,
    days_past_due: i64,
    grows: bool,
}

impl Segment {
    fn days(self) -> impl Iterator<Item = (Date, i64)> {
        let day = move |number| {
            let grown = if self.grows { number } else { 0 };
            (plus_days(self.first_day, number), self.days_past_due.saturating_add(grown))
        };
        (0..days_between(self.first_day, self.end)).map(day)
    }
}

/// The walk's state at the end of a day.
#[derive(Clone, Debug)]
struct Walk<'a> {
    terms: &'a Terms,
    level: Level,
    days_past_due: i64,
    default: Option<OpenDefault>,
    left_default_on: Option<Date>,
    changes: Vec<StageChange>,
}

/// A default that is not over.
#[derive(Clone, Copy, Debug)]
struct OpenDefault {
    since: Date,
    /// The day from which on the probation is counted.
    cured_on: Option<Date>,
}

impl LineHistory<'_> {
    /// The standing at the end of a day.
    #[must_use]
    pub fn standing(&self, date: Date) -> Standing {
        self.walk(date).standing()
    }

    /// The days on which the stage or the cap changed, up to a date.
    #[must_use]
    pub fn stage_changes(&self, until: Date) -> Vec<StageChange> {
        self.walk(until).changes
    }

    /// The days after a date on which the stage or the cap will change if nothing is paid and nothing more is billed.
    #[must_use]
    pub fn next_stage_changes(&self, date: Date) -> Vec<StageChange> {
        let mut changes = self.stage_changes(self.horizon(date));
        changes.retain(|change| change.on > date);
        changes
    }

    /// A day after which no stage changes any more if nothing is paid.
    fn horizon(&self, date: Date) -> Date {
        let last_due = self.obligations.iter().map(|own| own.statement.due_on).max();
        let begin = last_due.map_or(date, |due| due.max(date));
        let days = i64::from(self.terms.default_after_days) + i64::from(self.terms.probation_days);
        plus_days(begin, days.saturating_add(PausedDays::new(self.pauses).total()).saturating_add(2))
    }

    fn walk(&self, until: Date) -> Walk<'_> {
        let mut walk = Walk {
            terms: self.terms,
            level: Level::default(),
            days_past_due: 0,
            default: None,
            left_default_on: None,
            changes: Vec::new(),
        };
        let paid_in_time = self.paid_in_time();
        for (date, days_past_due) in self.daily_days_past_due(until) {
            walk.day(date, days_past_due, paid_in_time.get(&date).copied().unwrap_or(0));
        }
        walk
    }

    /// Days past due at the end of each day, from the first close up to a date.
    pub(crate) fn daily_days_past_due(&self, until: Date) -> impl Iterator<Item = (Date, i64)> {
        self.segments(until).into_iter().flat_map(Segment::days)
    }

    /// How many cycles each day saw paid in full, of those that were by their due date.
    fn paid_in_time(&self) -> BTreeMap<Date, u32> {
        let mut paid = BTreeMap::new();
        for date in self.obligations.iter().filter_map(crate::Obligation::paid_in_time_on) {
            let count: &mut u32 = paid.entry(date).or_default();
            *count = count.saturating_add(1);
        }
        paid
    }

    /// The days from the first close up to a date.
    fn segments(&self, until: Date) -> Vec<Segment> {
        let paused = PausedDays::new(self.pauses);
        let Some(first) = self.obligations.iter().map(|own| own.statement.closed_on).min() else {
            return Vec::new();
        };
        let end = plus_days(until, 1);
        let mut edges: BTreeSet<Date> = paused.edges().collect();
        for own in self.obligations {
            edges.extend([own.statement.closed_on, plus_days(own.statement.due_on, 1)]);
            edges.extend(own.allocations().iter().map(|allocation| allocation.value_on));
        }
        edges.retain(|edge| (first..end).contains(edge));
        edges.insert(first);
        let ends = edges.iter().skip(1).copied().chain([end]);
        let segment = |(first_day, end): (&Date, Date)| {
            let days_past_due = self.days_past_due(*first_day, &paused);
            let grows = days_past_due > 0 && !paused.contain(*first_day);
            Segment { first_day: *first_day, end, days_past_due, grows }
        };
        edges.iter().zip(ends).filter(|(first_day, end)| *first_day < end).map(segment).collect()
    }
}

impl Walk<'_> {
    fn day(&mut self, date: Date, days_past_due: i64, paid_in_time: u32) {
        let before = (self.stage(), self.cap_bp());
        self.days_past_due = days_past_due;
        self.level = self.level.max(self.terms.stages.level_at(days_past_due));
        self.default_on(date);
        if days_past_due == 0 {
            (0..paid_in_time).for_each(|_| self.level = self.terms.stages.step_up(self.level));
        }
        let (stage, cap_bp) = (self.stage(), self.cap_bp());
        if before != (stage, cap_bp) {
            self.changes.push(StageChange { on: date, stage, days_past_due, cap_bp });
        }
    }

    /// Begins, goes on with or ends a default.
    fn default_on(&mut self, date: Date) {
        if self.terms.stages.stage_at(self.days_past_due) == Stage::Defaulted {
            self.default.get_or_insert(OpenDefault { since: date, cured_on: None });
        }
        let Some(default) = &mut self.default else { return };
        if self.days_past_due > PROBATION_DPD_MAX {
            default.cured_on = None;
        } else if self.days_past_due == 0 {
            let cured_on = *default.cured_on.get_or_insert(date);
            if days_between(cured_on, date) >= self.terms.probation_days.into() {
                self.default = None;
                self.left_default_on = Some(date);
            }
        }
    }

    fn stage(&self) -> Stage {
        match self.default {
            Some(_) => Stage::Defaulted,
            None => self.terms.stages.stage_at(self.days_past_due),
        }
    }

    fn cap_bp(&self) -> BasisPoints {
        let stages = &self.terms.stages;
        match self.default {
            Some(_) => stages.cap_bp(stages.default_level()),
            None => stages.cap_bp(self.level),
        }
    }

    fn standing(&self) -> Standing {
        let stage = self.stage();
        let cured_on = self.default.and_then(|default| default.cured_on);
        Standing {
            stage,
            days_past_due: self.days_past_due,
            cap_bp: self.cap_bp(),
            effects: self.terms.stages.effects(stage),
            in_default_since: self.default.map(|default| default.since),
            probation_until: cured_on.map(|cured| plus_days(cured, self.terms.probation_days.into())),
            left_default_on: self.left_default_on,
        }
    }
}
