//! Calendar windows in a merchant's own time zone: which day, week, month and year an instant falls into, and when they end. The
//! zone is a parameter: its data can be updated without a new build.

use std::fmt;

use jiff::civil::{Date, DateTime, Time, Weekday};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

use crate::{PerPeriod, Period};

/// The windows of one instant: `YYYYMMDD` of the business date and of its week's first date, `YYYYMM` and `YYYY`. A later window
/// has a larger id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct WindowIds {
    pub ids: PerPeriod<u32>,
    /// When the day begins, and with their first days the week, the month and the year: milliseconds since the epoch.
    pub since_ms: i64,
    /// When the day ends, milliseconds since the epoch.
    pub until_ms: i64,
}

/// A time zone, the hour at which its business day begins, and the day on which its week begins.
#[derive(Clone, PartialEq, Eq)]
pub struct Calendar {
    zone: TimeZone,
    cutoff: Time,
    week_start: Weekday,
}

/// No zone is further ahead of UTC.
const AHEAD_MAX_MS: i64 = 14 * 3_600_000;
/// After this time a window that was over in UTC is over in every calendar.
const OVER_EVERYWHERE_MS: i64 = 72 * 3_600_000;
/// Instants outside of 1971 to 9000 are treated as the nearest one inside, so that every instant has windows.
const FIRST_MS: i64 = 31_536_000_000;
const LAST_MS: i64 = 221_845_392_000_000;

impl Calendar {
    /// A calendar whose days begin at midnight UTC, and its weeks on Mondays (ISO 8601).
    pub const UTC: Self = Self { zone: TimeZone::UTC, cutoff: Time::midnight(), week_start: Weekday::Monday };

    /// Weeks begin on Mondays (ISO 8601). `None` for an hour past 23.
    #[must_use]
    pub fn new(zone: TimeZone, cutoff_hour: u32) -> Option<Self> {
        let cutoff = Time::new(i8::try_from(cutoff_hour).ok()?, 0, 0, 0).ok()?;
        Some(Self { zone, cutoff, week_start: Weekday::Monday })
    }

    /// The same calendar with weeks that begin on another day.
    #[must_use]
    pub fn with_week_start(self, week_start: Weekday) -> Self {
        Self { week_start, ..self }
    }

    /// The same calendar with other data of its zone.
    #[must_use]
    pub const fn with_zone(&self, zone: TimeZone) -> Self {
        Self { zone, cutoff: self.cutoff, week_start: self.week_start }
    }

    /// The zone's IANA name.
    #[must_use]
    pub fn zone_name(&self) -> &str {
        self.zone.iana_name().unwrap_or("unknown")
    }

    /// The hour at which the business day begins.
    #[must_use]
    pub fn cutoff_hour(&self) -> u32 {
        u32::from(self.cutoff.hour().unsigned_abs())
    }

    /// The day on which a week begins.
    #[must_use]
    pub const fn week_start(&self) -> Weekday {
        self.week_start
    }

    /// The windows that `now_ms` (milliseconds since the epoch) falls into.
    ///
    /// Monotone: a later instant never has an earlier window, even where the zone's clock is set back over midnight.
    #[must_use]
    pub fn windows_at(&self, now_ms: i64) -> WindowIds {
        let now = instant(now_ms);
        let local = self.zone.to_datetime(now);
        let mut date = local.saturating_sub(SignedDuration::from_hours(self.cutoff.hour().into())).date();
        let (mut since, mut until) = (self.starts_at(date), self.starts_at(date.saturating_add(1.day())));
        if until.is_some_and(|until| until <= now) {
            date = date.saturating_add(1.day());
            (since, until) = (until, self.starts_at(date.saturating_add(1.day())));
        }
        let into_week = date.weekday().since(self.week_start);
        let day = number(date);
        WindowIds {
            ids: PerPeriod {
                day,
                week: number(date.saturating_sub(i32::from(into_week).days())),
                month: day / 100,
                year: day / 10_000,
            },
            since_ms: since.map_or(FIRST_MS, Timestamp::as_millisecond),
            until_ms: until.map_or(LAST_MS, Timestamp::as_millisecond),
        }
    }

    /// The latest day that has begun at `now_ms` in any calendar: an account in a later day is in a window that has not begun
    /// yet.
    #[must_use]
    pub fn latest_day_at(now_ms: i64) -> u32 {
        Self::UTC.windows_at(now_ms.saturating_add(AHEAD_MAX_MS)).ids.day
    }

    /// The windows before which every window is over at `now_ms` (milliseconds since the epoch), in whatever calendar: a window that
    /// was over in UTC three days ago is over in every zone and with every cut-off, and a week may have begun on any of seven days.
    #[must_use]
    pub fn oldest_open_at(now_ms: i64) -> PerPeriod<u32> {
        let then_ms = now_ms.saturating_sub(OVER_EVERYWHERE_MS);
        let week = Self::UTC.windows_at(then_ms.saturating_sub(6 * 86_400_000)).ids.day;
        PerPeriod { week, ..Self::UTC.windows_at(then_ms).ids }
    }

    /// The first instant of the window `id`, in milliseconds since the epoch; `None` for an id that names no date.
    #[must_use]
    pub fn begins_at_ms(&self, period: Period, id: u32) -> Option<i64> {
        Some(self.starts_at(first_date(period, id)?)?.as_millisecond())
    }

    /// The first instant after the window `id`, in milliseconds since the epoch; `None` for an id that names no date.
    #[must_use]
    pub fn ends_at_ms(&self, period: Period, id: u32) -> Option<i64> {
        let length = match period {
            Period::Day => 1.day(),
            Period::Week => 1.week(),
            Period::Month => 1.month(),
            Period::Year => 1.year(),
        };
        let next = first_date(period, id)?.checked_add(length).ok()?;
        Some(self.starts_at(next)?.as_millisecond())
    }

    /// The earliest instant at which the zone's clock shows the cut-off hour of `date` or later; `None` near the end of all dates.
    fn starts_at(&self, date: Date) -> Option<Timestamp> {
        let wall = date.to_datetime(self.cutoff);
        match self.zone.to_ambiguous_timestamp(wall).offset() {
            AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wall).ok(),
            // The hour occurs twice; the first occurrence is used.
            AmbiguousOffset::Fold { before, after: _ } => before.to_timestamp(wall).ok(),
            AmbiguousOffset::Gap { before, after } => self.end_of_gap(wall, before, after),
        }
    }

    /// Where the clock goes from the offset `before` to `after` and skips `wall`: the instant of the skip, by bisection to the
    /// second.
    fn end_of_gap(&self, wall: DateTime, before: Offset, after: Offset) -> Option<Timestamp> {
        let mut earlier = after.to_timestamp(wall).ok()?.as_second();
        let mut later = before.to_timestamp(wall).ok()?.as_second();
        while later - earlier > 1 {
            let middle = earlier + (later - earlier) / 2;
            if self.zone.to_datetime(Timestamp::from_second(middle).ok()?) < wall {
                earlier = middle;
            } else {
                later = middle;
            }
        }
        Timestamp::from_second(later).ok()
    }
}

/// A date as `YYYYMMDD`.
fn number(date: Date) -> u32 {
    let [month, day] = [date.month(), date.day()].map(|part| u32::from(part.unsigned_abs()));
    (u32::from(date.year().unsigned_abs()) * 100 + month) * 100 + day
}

/// The first date of a window.
fn first_date(period: Period, id: u32) -> Option<Date> {
    let (year, month, day) = match period {
        Period::Day | Period::Week => (id / 10_000, id / 100 % 100, id % 100),
        Period::Month => (id / 100, id % 100, 1),
        Period::Year => (id, 1, 1),
    };
    Date::new(i16::try_from(year).ok()?, i8::try_from(month).ok()?, i8::try_from(day).ok()?).ok()
}

impl fmt::Debug for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{:02}:00 {:?}", self.zone_name(), self.cutoff_hour(), self.week_start)
    }
}

fn instant(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms.clamp(FIRST_MS, LAST_MS)).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zones::zone;

    fn calendar(name: &str, cutoff_hour: u32) -> Calendar {
        Calendar::new(zone(name), cutoff_hour).unwrap()
    }

    fn ms(utc: &str) -> i64 {
        utc.parse::<Timestamp>().unwrap().as_millisecond()
    }

    /// windows follow the merchant's zone through 23- and 25-hour days, leap days and skipped dates.
    #[test]
    fn q5_windows_follow_the_zone() {
        let table = [
            // zone, cut-off, instant, day
            ("UTC", 0, "2026-11-21T23:59:59.999Z", 20261121),
            ("UTC", 0, "2026-11-22T00:00:00Z", 20261122),
            ("UTC", 6, "2026-11-22T05:59:59Z", 20261121),
            ("UTC", 6, "2026-01-01T05:59:59Z", 20251231),
            ("UTC", 6, "2026-01-01T06:00:00Z", 20260101),
            ("Asia/Shanghai", 0, "2026-11-21T15:59:59Z", 20261121),
            ("Asia/Shanghai", 0, "2026-11-21T16:00:00Z", 20261122),
            // 23 hours: clocks go from 02:00 to 03:00.
            ("America/New_York", 0, "2026-03-08T04:59:59Z", 20260307),
            ("America/New_York", 0, "2026-03-08T05:00:00Z", 20260308),
            ("America/New_York", 0, "2026-03-09T03:59:59Z", 20260308),
            ("America/New_York", 0, "2026-03-09T04:00:00Z", 20260309),
            // The cut-off hour itself is skipped: the day begins at the skip.
            ("America/New_York", 2, "2026-03-08T06:59:59Z", 20260307),
            ("America/New_York", 2, "2026-03-08T07:00:00Z", 20260308),
            // 25 hours; the cut-off hour comes twice and counts the first time.
            ("America/New_York", 1, "2026-11-01T04:59:59Z", 20261031),
            ("America/New_York", 1, "2026-11-01T05:00:00Z", 20261101),
            ("America/New_York", 1, "2026-11-01T06:00:00Z", 20261101),
            ("America/New_York", 0, "2026-11-02T04:59:59Z", 20261101),
            ("America/New_York", 0, "2026-11-02T05:00:00Z", 20261102),
            // Midnight itself is skipped.
            ("America/Sao_Paulo", 0, "2018-11-04T02:59:59Z", 20181103),
            ("America/Sao_Paulo", 0, "2018-11-04T03:00:00Z", 20181104),
            // Set back over midnight: the new day, once begun, goes on.
            ("America/St_Johns", 0, "2006-10-29T02:30:30Z", 20061029),
            ("America/St_Johns", 0, "2006-10-29T02:31:30Z", 20061029),
            // A date that never was.
            ("Pacific/Apia", 0, "2011-12-30T09:59:59Z", 20111229),
            ("Pacific/Apia", 0, "2011-12-30T10:00:00Z", 20111231),
            // With a cut-off, the hours from the skip to the cut-off are a short business day of that date.
            ("Pacific/Apia", 6, "2011-12-30T09:59:59Z", 20111229),
            ("Pacific/Apia", 6, "2011-12-30T10:00:00Z", 20111230),
            ("Pacific/Apia", 6, "2011-12-30T15:59:59Z", 20111230),
            ("Pacific/Apia", 6, "2011-12-30T16:00:00Z", 20111231),
            // Leap days, with and without a cut-off, and a year that has none.
            ("UTC", 0, "2028-02-29T12:00:00Z", 20280229),
            ("UTC", 6, "2028-03-01T05:59:59Z", 20280229),
            ("UTC", 6, "2028-03-01T06:00:00Z", 20280301),
            ("UTC", 6, "2027-03-01T05:59:59Z", 20270228),
            ("Asia/Shanghai", 0, "2028-02-29T16:00:00Z", 20280301),
            // Months and years end with the business day, not with the calendar's.
            ("Asia/Shanghai", 4, "2026-10-31T19:59:59Z", 20261031),
            ("Asia/Shanghai", 4, "2026-10-31T20:00:00Z", 20261101),
            ("America/New_York", 23, "2027-01-01T03:59:59Z", 20261230),
            ("America/New_York", 23, "2027-01-01T04:00:00Z", 20261231),
            ("America/New_York", 23, "2027-01-02T04:00:00Z", 20270101),
        ];
        for (zone, cutoff, at, day) in table {
            let ids = calendar(zone, cutoff).windows_at(ms(at)).ids;
            assert_eq!((ids.day, ids.month, ids.year), (day, day / 100, day / 10_000), "{zone} {cutoff} {at}");
        }
    }

    #[test]
    fn q5_windows_end_where_the_next_begins() {
        let table = [
            ("UTC", 0, Period::Day, 20280228, "2028-02-29T00:00:00Z"),
            ("UTC", 6, Period::Month, 202612, "2027-01-01T06:00:00Z"),
            ("UTC", 0, Period::Year, 2026, "2027-01-01T00:00:00Z"),
            ("America/New_York", 0, Period::Day, 20260308, "2026-03-09T04:00:00Z"),
            ("America/New_York", 2, Period::Day, 20260307, "2026-03-08T07:00:00Z"),
            ("Pacific/Apia", 0, Period::Day, 20111229, "2011-12-30T10:00:00Z"),
            ("Asia/Kolkata", 0, Period::Month, 202610, "2026-10-31T18:30:00Z"),
        ];
        for (zone, cutoff, period, id, end) in table {
            assert_eq!(calendar(zone, cutoff).ends_at_ms(period, id), Some(ms(end)), "{zone} {period:?} {id}");
        }
        assert_eq!(Calendar::UTC.ends_at_ms(Period::Day, 20261301), None);
    }

    /// Weeks are those of ISO 8601 unless the calendar says otherwise; they run through the ends of months and years.
    #[test]
    fn q5_weeks_begin_on_the_calendars_day() {
        use Weekday::{Friday, Monday, Saturday, Sunday};
        let table = [
            // zone, cut-off, first day, instant, week, its end
            ("UTC", 0, Monday, "2026-11-22T23:59:59.999Z", 20261116, "2026-11-23T00:00:00Z"),
            ("UTC", 0, Monday, "2026-11-23T00:00:00Z", 20261123, "2026-11-30T00:00:00Z"),
            ("UTC", 0, Sunday, "2026-11-22T00:00:00Z", 20261122, "2026-11-29T00:00:00Z"),
            ("UTC", 0, Sunday, "2026-11-21T23:59:59Z", 20261115, "2026-11-22T00:00:00Z"),
            ("UTC", 0, Saturday, "2026-11-21T00:00:00Z", 20261121, "2026-11-28T00:00:00Z"),
            ("UTC", 0, Friday, "2026-11-21T00:00:00Z", 20261120, "2026-11-27T00:00:00Z"),
            // The last week of a year, and its only week of 53, by the year's last days.
            ("UTC", 0, Monday, "2027-01-01T12:00:00Z", 20261228, "2027-01-04T00:00:00Z"),
            ("UTC", 6, Monday, "2027-01-04T05:59:59Z", 20261228, "2027-01-04T06:00:00Z"),
            // A week with a leap day, one of 167 hours and one of 169.
            ("UTC", 0, Monday, "2028-03-01T00:00:00Z", 20280228, "2028-03-06T00:00:00Z"),
            ("America/New_York", 0, Monday, "2026-03-08T12:00:00Z", 20260302, "2026-03-09T04:00:00Z"),
            ("America/New_York", 0, Monday, "2026-11-01T12:00:00Z", 20261026, "2026-11-02T05:00:00Z"),
            ("Asia/Shanghai", 4, Sunday, "2026-11-21T20:00:00Z", 20261122, "2026-11-28T20:00:00Z"),
            // The date that never was falls into a week as any other.
            ("Pacific/Apia", 0, Monday, "2011-12-30T10:00:00Z", 20111226, "2012-01-01T10:00:00Z"),
        ];
        for (zone, cutoff, first, at, week, end) in table {
            let calendar = calendar(zone, cutoff).with_week_start(first);
            assert_eq!(calendar.windows_at(ms(at)).ids.week, week, "{zone} {cutoff} {first:?} {at}");
            assert_eq!(calendar.ends_at_ms(Period::Week, week), Some(ms(end)), "{zone} {cutoff} {first:?} {at}");
            assert!(calendar.begins_at_ms(Period::Week, week).unwrap() <= ms(at), "{zone} {cutoff} {first:?} {at}");
        }
    }

    /// F6: zone data of 2025 had these days begin an hour off.
    #[test]
    fn f6_days_begin_by_the_zone_data_of_today() {
        let table = [
            // British Columbia stays at UTC-7, Morocco at UTC.
            ("America/Vancouver", 20261129, "2026-11-29T07:00:00Z", 24),
            ("America/Vancouver", 20270115, "2027-01-15T07:00:00Z", 24),
            ("Africa/Casablanca", 20261129, "2026-11-29T00:00:00Z", 24),
            // Neighbours that still change their clocks.
            ("America/Los_Angeles", 20261101, "2026-11-01T07:00:00Z", 25),
            ("America/Los_Angeles", 20261129, "2026-11-29T08:00:00Z", 24),
            ("Europe/Madrid", 20270328, "2027-03-27T23:00:00Z", 23),
            ("Etc/GMT+8", 20261129, "2026-11-29T08:00:00Z", 24),
            ("UTC", 20261129, "2026-11-29T00:00:00Z", 24),
        ];
        for (zone, day, begins, hours) in table {
            let calendar = calendar(zone, 0);
            let (begin, end) = (calendar.begins_at_ms(Period::Day, day), calendar.ends_at_ms(Period::Day, day));
            assert_eq!(begin, Some(ms(begins)), "{zone} {day}");
            assert_eq!(end.unwrap() - begin.unwrap(), hours * 3_600_000, "{zone} {day}");
        }
    }

    /// How long a day is, from its first instant to its last.
    #[test]
    fn q5_days_have_23_24_and_25_hours() {
        let table = [
            // zone, cut-off, the day before, the day, hours
            ("America/New_York", 0, 20260307, 20260308, 23.0),
            ("America/New_York", 0, 20261031, 20261101, 25.0),
            ("America/New_York", 0, 20261101, 20261102, 24.0),
            // With a cut-off the hour belongs to the business day in which the clock is changed.
            ("America/New_York", 6, 20260306, 20260307, 23.0),
            ("America/New_York", 6, 20260307, 20260308, 24.0),
            ("America/New_York", 6, 20261030, 20261031, 25.0),
            ("Europe/Berlin", 0, 20260328, 20260329, 23.0),
            ("Europe/Berlin", 0, 20261024, 20261025, 25.0),
            ("Australia/Lord_Howe", 0, 20261003, 20261004, 23.5),
            ("Australia/Lord_Howe", 0, 20260404, 20260405, 24.5),
            ("America/Sao_Paulo", 0, 20181103, 20181104, 23.0),
            ("UTC", 0, 20280228, 20280229, 24.0),
            // The day after the date that never was follows the day before it.
            ("Pacific/Apia", 0, 20111229, 20111231, 24.0),
        ];
        for (zone, cutoff, before, day, hours) in table {
            let calendar = calendar(zone, cutoff);
            let end = |id| calendar.ends_at_ms(Period::Day, id).unwrap();
            assert_eq!((end(day) - end(before)) as f64 / 3_600_000.0, hours, "{zone} {cutoff} {day}");
            assert_eq!(calendar.windows_at(end(before)).ids.day, day, "{zone} {cutoff} {day}");
            assert_eq!(calendar.windows_at(end(day) - 1).ids.day, day, "{zone} {cutoff} {day}");
        }
    }

    /// Every month of a leap year and the one after it, in its zone and with its cut-off.
    #[test]
    fn q5_months_and_years_end_with_their_last_day() {
        for (zone, cutoff) in [("UTC", 0), ("Asia/Shanghai", 4), ("America/New_York", 23), ("Australia/Lord_Howe", 2)] {
            let calendar = calendar(zone, cutoff);
            for (year, february) in [(2028, 29), (2029, 28)] {
                let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
                for (month, days) in (1..).zip(lengths) {
                    let id = year * 100 + month;
                    let end = calendar.ends_at_ms(Period::Month, id);
                    assert_eq!(end, calendar.ends_at_ms(Period::Day, id * 100 + days), "{zone} {cutoff} {id}");
                }
                let end = calendar.ends_at_ms(Period::Year, year);
                assert_eq!(end, calendar.ends_at_ms(Period::Month, year * 100 + 12), "{zone} {cutoff} {year}");
            }
        }
    }

    /// No open window of any calendar is older than the oldest open one, and soon every one that is over is.
    #[test]
    fn windows_that_are_over_everywhere_are_over() {
        let starts = [Weekday::Monday, Weekday::Wednesday, Weekday::Saturday, Weekday::Sunday];
        for (zone, cutoff) in [("UTC", 0), ("Pacific/Kiritimati", 0), ("Pacific/Pago_Pago", 23)] {
            for start in starts {
                let calendar = calendar(zone, cutoff).with_week_start(start);
                for day in 0..40 {
                    let now = ms("2026-11-20T07:00:00Z") + day * 86_400_000;
                    let oldest = Calendar::oldest_open_at(now);
                    for (period, id) in calendar.windows_at(now).ids.iter() {
                        assert!(*oldest.of(period) <= *id, "{zone} {cutoff} {start:?} {period:?} {day}");
                    }
                    let later = Calendar::oldest_open_at(now + 12 * 86_400_000);
                    let ids = calendar.windows_at(now).ids;
                    assert!(later.day > ids.day && later.week > ids.week || start != Weekday::Monday, "{zone} {day}");
                }
            }
        }
    }

    #[test]
    fn every_instant_has_windows() {
        for at in [i64::MIN, 0, i64::MAX] {
            assert!(Calendar::UTC.windows_at(at).ids.day > 0, "{at}");
        }
    }

    /// Walks every half hour of years with odd transitions: ids never go back, and each window ends when its id changes.
    #[test]
    fn q5_windows_are_monotone() {
        for (zone, year) in [
            ("America/St_Johns", 2006),
            ("Pacific/Apia", 2011),
            ("America/Sao_Paulo", 2018),
            ("Australia/Lord_Howe", 2026),
        ] {
            for cutoff in [0, 2, 23] {
                let calendar = calendar(zone, cutoff);
                let start = ms(&format!("{year}-01-01T00:00:30Z"));
                let mut last = calendar.windows_at(start);
                for step in 1..(366 * 48) {
                    let at = start + step * 1_800_000;
                    let ids = calendar.windows_at(at);
                    assert!((ids.since_ms..ids.until_ms).contains(&at), "{zone} {cutoff} {at}: {ids:?}");
                    assert!(ids.ids.day == last.ids.day || last.until_ms <= ids.since_ms, "{zone} {cutoff} {at}");
                    for period in Period::ALL {
                        let (id, before) = (*ids.ids.of(period), *last.ids.of(period));
                        assert!(id >= before, "{zone} {cutoff} {at} {period:?}");
                        let ended = calendar.ends_at_ms(period, before).unwrap() <= at;
                        assert_eq!(id > before, ended, "{zone} {cutoff} {at} {period:?}");
                    }
                    last = ids;
                }
            }
        }
    }
}
