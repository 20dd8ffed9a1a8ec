//! Forecast of an account's limits: how many more payments fit, and when each limit will be used up.
//!
//! The burn rate of a limit is the usage of its window divided by the time since the window began; the projection assumes that
//! rate. There is no projection where the window resets first. Early in a window one payment has much weight.

use crate::{AmountMinor, Calendar, LimitKind, LimitName, Limits, Period, Record};

/// The shortest time that a burn rate is computed over.
const ELAPSED_MS_MIN: i64 = 1000;

/// One limit with its remaining quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlook {
    pub limit: LimitName,
    pub max: u64,
    /// Counted after the decision; amounts in minor units.
    pub used: u64,
    pub remaining: u64,
    /// When the window ends, milliseconds since the epoch; `None` where no window resets the limit.
    pub resets_at_ms: Option<i64>,
    /// When the limit will be used up at the burn rate so far; `None` where the window ends first.
    pub exhausted_at_ms: Option<i64>,
}

/// The forecast of a policy's limits for payments of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prediction {
    /// Every limit that the policy sets, in the order of checks.
    pub limits: Vec<Outlook>,
    /// The limit that allows the fewest payments of this size; the first of several.
    pub binding: Option<LimitName>,
    /// How many payments of this size still fit, including the requested one; `None` where no limit bounds them.
    pub fits: Option<u64>,
    /// The earliest projected exhaustion of a limit, milliseconds since the epoch.
    pub exhausted_at_ms: Option<i64>,
}

impl Prediction {
    /// The prediction around the record of a (dry) charge at `now_ms` (milliseconds since the epoch), for payments that count
    /// `counted` against amount limits. `hard` are the limits that no payment exceeds: `limits` themselves, or the ceiling of a policy that throttles payments above them.
    #[must_use]
    pub fn of(record: &Record, counted: u64, limits: &Limits, hard: &Limits, calendar: &Calendar, now_ms: i64) -> Self {
        let set = LimitName::ALL.into_iter().filter(|limit| limit.max(limits) != AmountMinor::MAX.get());
        let outlooks: Vec<Outlook> = set.map(|limit| outlook(limit, record, limits, calendar, now_ms)).collect();
        let fitting = outlooks.iter().filter_map(|outlook| {
            let (before, _) = outlook.limit.used(record);
            fits(outlook.limit, outlook.limit.max(hard).saturating_sub(before), counted)
                .map(|fits| (fits, outlook.limit))
        });
        // The first of the smallest: `min_by_key` keeps the first of equals.
        let least = fitting.min_by_key(|(fits, _)| *fits);
        Self {
            exhausted_at_ms: outlooks.iter().filter_map(|outlook| outlook.exhausted_at_ms).min(),
            limits: outlooks,
            binding: least.map(|(_, limit)| limit),
            fits: least.map(|(fits, _)| fits),
        }
    }
}

/// How many payments fit into the remaining quota; `None` for limits that payments do not count against.
const fn fits(limit: LimitName, remaining: u64, counted: u64) -> Option<u64> {
    match limit.kind() {
        LimitKind::Pending | LimitKind::Refunded(_) => None,
        LimitKind::Count(_) => Some(remaining),
        LimitKind::Amount(_) => remaining.checked_div(counted),
    }
}

fn outlook(limit: LimitName, record: &Record, limits: &Limits, calendar: &Calendar, now_ms: i64) -> Outlook {
    let (before, after) = limit.used(record);
    let max = limit.max(limits);
    let window = limit.period().map(|period| (period, record.of(period).id));
    let resets_at_ms = window.and_then(|(period, id)| calendar.ends_at_ms(period, id));
    let exhausted_at_ms = window
        .and_then(|(period, id)| exhausted_at_ms(period, id, before, max, calendar, now_ms))
        .filter(|at| resets_at_ms.is_some_and(|end| *at < end));
    Outlook { limit, max, used: after, remaining: max.saturating_sub(after), resets_at_ms, exhausted_at_ms }
}

fn exhausted_at_ms(period: Period, id: u32, used: u64, max: u64, calendar: &Calendar, now_ms: i64) -> Option<i64> {
    let elapsed = now_ms.saturating_sub(calendar.begins_at_ms(period, id)?).max(ELAPSED_MS_MIN).unsigned_abs();
    let left = u128::from(max.saturating_sub(used)) * u128::from(elapsed);
    let left_ms = left.checked_div(u128::from(used))?;
    i64::try_from(left_ms).ok().and_then(|left_ms| now_ms.checked_add(left_ms))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Code, WindowLimits, WindowUsage};

    const HOUR_MS: i64 = 3_600_000;

    fn amount(minor: u64) -> AmountMinor {
        AmountMinor::new(minor).unwrap()
    }

    /// A day in which `used` was consumed by `count` charges, before and after a charge of `more`.
    fn record(used: u64, more: u64, count: u64, now_ms: i64) -> Record {
        let ids = Calendar::UTC.windows_at(now_ms);
        let window = |id| WindowUsage {
            id,
            amount_before: used,
            amount_after: used + more,
            count_before: count,
            count_after: count + u64::from(more > 0),
            ..WindowUsage::default()
        };
        Record { windows: ids.ids.map(|id| window(*id)), ..Record::bare(Code::Admitted) }
    }

    #[test]
    fn the_smallest_limit_binds_and_the_burn_rate_goes_on() {
        let day = Calendar::UTC.begins_at_ms(Period::Day, 20_261_121).unwrap();
        let window = |amount_max, count_max| WindowLimits {
            amount: amount(amount_max),
            count: amount(count_max),
            ..WindowLimits::UNLIMITED
        };
        let limits = |amount_max, count_max| Limits::UNLIMITED.with(Period::Day, window(amount_max, count_max));
        let max = AmountMinor::MAX.get();
        // (limits, used, count, size, hours into the day) → (fits, binding, hours until exhaustion)
        let table = [
            (limits(1000, max), 600, 3, 100, 6, Some(4), Some(LimitName::DailyAmount), Some(4)),
            (limits(1000, 5), 600, 3, 100, 6, Some(2), Some(LimitName::DailyCount), Some(4)),
            (limits(1000, max), 100, 1, 100, 12, Some(9), Some(LimitName::DailyAmount), None),
            (limits(1000, max), 0, 0, 100, 12, Some(10), Some(LimitName::DailyAmount), None),
            (limits(1000, max), 1000, 9, 100, 12, Some(0), Some(LimitName::DailyAmount), Some(0)),
            (limits(500, max), 1000, 9, 100, 12, Some(0), Some(LimitName::DailyAmount), Some(0)),
            (limits(max, max), 1000, 9, 100, 12, None, None, None),
            (limits(1000, max), 10, 1, 0, 12, None, None, None),
        ];
        for (row, (limits, used, count, size, hours, fits, binding, exhausted)) in table.into_iter().enumerate() {
            let now_ms = day + hours * HOUR_MS;
            let prediction =
                Prediction::of(&record(used, size, count, now_ms), size, &limits, &limits, &Calendar::UTC, now_ms);
            assert_eq!((prediction.fits, prediction.binding), (fits, binding), "row {row}");
            let left = prediction.exhausted_at_ms.map(|at| (at - now_ms) / HOUR_MS);
            assert_eq!(left, exhausted, "row {row}");
        }
    }
}
