//! Kinds of windows, and what there is one of for each kind.

/// A kind of window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Period {
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    /// All kinds, shortest first.
    pub const ALL: [Self; 4] = [Self::Day, Self::Week, Self::Month, Self::Year];

    /// The name in journal rows and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// The number of packed values. It is stored and never changes.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Day => 0,
            Self::Month => 1,
            Self::Year => 2,
            Self::Week => 3,
        }
    }

    /// Reads the number of packed values; `None` for an unknown one.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|period| period.number() == number)
    }

    /// Nominal length in seconds, for `RateLimit-Policy` headers; calendar windows differ from it by days or an hour.
    #[must_use]
    pub const fn nominal_secs(self) -> u64 {
        match self {
            Self::Day => 86_400,
            Self::Week => 7 * 86_400,
            Self::Month => 30 * 86_400,
            Self::Year => 365 * 86_400,
        }
    }
}

/// One value for each kind of window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct PerPeriod<T> {
    pub day: T,
    pub week: T,
    pub month: T,
    pub year: T,
}

impl<T> PerPeriod<T> {
    /// The value that a function gives for each kind, shortest first.
    pub fn from_fn(mut value: impl FnMut(Period) -> T) -> Self {
        Self {
            day: value(Period::Day),
            week: value(Period::Week),
            month: value(Period::Month),
            year: value(Period::Year),
        }
    }

    /// The value of one kind.
    #[must_use]
    pub const fn of(&self, period: Period) -> &T {
        match period {
            Period::Day => &self.day,
            Period::Week => &self.week,
            Period::Month => &self.month,
            Period::Year => &self.year,
        }
    }

    /// The value of one kind, to change it.
    #[must_use]
    pub const fn of_mut(&mut self, period: Period) -> &mut T {
        match period {
            Period::Day => &mut self.day,
            Period::Week => &mut self.week,
            Period::Month => &mut self.month,
            Period::Year => &mut self.year,
        }
    }

    /// Other values, made of these.
    #[must_use]
    pub fn map<U>(&self, mut value: impl FnMut(&T) -> U) -> PerPeriod<U> {
        PerPeriod::from_fn(|period| value(self.of(period)))
    }

    /// The kinds and their values, shortest first.
    pub fn iter(&self) -> impl Iterator<Item = (Period, &T)> {
        Period::ALL.into_iter().map(|period| (period, self.of(period)))
    }
}

impl<T: Copy> PerPeriod<T> {
    /// The same value for every kind.
    #[must_use]
    pub const fn all(value: T) -> Self {
        Self { day: value, week: value, month: value, year: value }
    }
}
