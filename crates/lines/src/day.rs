//! A credit line on a day: what decisions need of it.

use jiff::civil::Date;
use quota::{AmountMinor, Channel, Code, CreditTerms, Thresholds};
use sluice_credit::{
    Band, CreditCheck, CreditRefusal, Cycle, CycleId, EffectiveLimit, Grade, Overdue, StageEffect, Standing, Terms,
};

/// A credit line on a day.
#[derive(Clone, Debug)]
pub struct CreditDay {
    pub date: Date,
    /// The billing cycle that contains the day.
    pub cycle: Cycle,
    pub terms: Terms,
    pub grade: Grade,
    pub band: Band,
    pub limit: EffectiveLimit,
    pub standing: Standing,
    pub overdue: Overdue,
    /// The line is closed, or has expired.
    pub is_over: bool,
}

impl CreditDay {
    /// The part that a command is decided by.
    #[must_use]
    pub fn command_terms(&self) -> CreditTerms {
        let amount = |minor: i64| AmountMinor::new(minor.max(0).unsigned_abs()).unwrap_or(AmountMinor::MAX);
        CreditTerms {
            cycle: CycleId::of(self.cycle.first_day).0,
            limit: amount(self.limit.limit),
            uncapped_limit: amount(self.limit.uncapped.max(self.limit.limit)),
        }
    }

    /// Percentages of the limit at which usage is reported: those of the grade.
    #[must_use]
    pub fn thresholds(&self) -> Thresholds {
        Thresholds::new(self.band.threshold_percents.iter().copied()).unwrap_or(Thresholds::DEFAULT)
    }

    /// Whether the stage is one of those in which no limit rises.
    #[must_use]
    pub fn is_past_due(&self) -> bool {
        self.standing.effects.contains(&StageEffect::NoIncrease)
    }

    /// What the line still takes with this exposure.
    #[must_use]
    pub const fn available(&self, exposure: i64) -> i64 {
        if self.is_over { 0 } else { self.limit.available(exposure) }
    }

    /// Why a charge is refused whatever its amount.
    #[must_use]
    pub fn refuses(&self, channel: Option<&Channel>) -> Option<Code> {
        if self.is_over {
            return Some(Code::CreditFrozen);
        }
        let check = CreditCheck { terms: &self.terms, standing: &self.standing, band: &self.band, limit: self.limit };
        check.restriction(channel.map(Channel::as_str)).map(|refusal| match refusal {
            CreditRefusal::Frozen => Code::CreditFrozen,
            CreditRefusal::Channel => Code::CreditChannel,
            CreditRefusal::Restricted => Code::CreditRestricted,
            CreditRefusal::Exhausted => Code::CreditExhausted,
        })
    }
}

/// The day of an id (`YYYYMMDD`); `None` for a number that is no date.
#[must_use]
pub fn day_of(id: u32) -> Option<Date> {
    let part = |number: u32| i8::try_from(number % 100).ok();
    Date::new(i16::try_from(id / 10_000).ok()?, part(id / 100)?, part(id)?).ok()
}

/// The id of a day, `YYYYMMDD`.
#[must_use]
pub fn id_of(day: Date) -> u32 {
    CycleId::of(day).0
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn days_are_read() {
        assert_eq!([20_261_130, 20_280_229].map(day_of), [Some(date(2026, 11, 30)), Some(date(2028, 2, 29))]);
        assert_eq!([0, 1, 20_261_301, 20_270_229, u32::MAX].map(day_of), [None; 5]);
        assert_eq!(id_of(date(2028, 2, 29)), 20_280_229);
    }
}
