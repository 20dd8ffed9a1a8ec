//! Lists come in pages: at most `limit` items and an opaque cursor for the next ones.

use std::ops::RangeInclusive;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, Datelike, Utc};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::problem::{Answer, Problem};

/// Items on a page if the caller names no limit.
const LIMIT_DEFAULT: u64 = 50;
/// Longest cursor that is read, in bytes.
const CURSOR_LEN_MAX: usize = 512;

/// The parameters of every list.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct PageQuery {
    /// Where to go on: `next_cursor` of the page before.
    pub cursor: Option<String>,
    /// Most items to answer with; 50 by default, SLUICE_ADMIN_PAGE_MAX at most.
    #[param(minimum = 1)]
    pub limit: Option<u64>,
}

/// One page of a list.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Asks for the items after these; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of the `limit + 1` rows that were queried: the last one only shows that there are more.
    #[must_use]
    pub fn from_rows<C: Cursor>(mut items: Vec<T>, limit: i64, cursor: impl FnOnce(&T) -> C) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next_cursor = items.last().filter(|_| more).map(|last| cursor(last).encode());
        Self { items, next_cursor }
    }
}

/// A position in a list: the sort key of the last returned item.
pub trait Cursor: Serialize + for<'de> Deserialize<'de> {
    /// The text that the caller sends back: base64url of the key as JSON.
    #[must_use]
    fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Whether an item can have this key: Postgres must be able to store it.
    #[must_use]
    fn is_possible(&self) -> bool {
        true
    }

    /// Reads it back.
    ///
    /// # Errors
    /// A problem with the field `cursor`.
    fn decode(text: &str) -> Answer<Self> {
        let bytes = if text.len() > CURSOR_LEN_MAX { None } else { BASE64_URL_SAFE_NO_PAD.decode(text).ok() };
        let place = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        place
            .filter(Self::is_possible)
            .ok_or_else(|| Problem::field("cursor", "this is no cursor of this list; give back next_cursor as it was"))
    }
}

/// The position in a list that is ordered by time and then id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimeId(
    /// To the microsecond, as Postgres keeps it.
    #[serde(with = "chrono::serde::ts_microseconds")]
    pub DateTime<Utc>,
    pub Uuid,
);

impl Cursor for TimeId {
    fn is_possible(&self) -> bool {
        YEARS.contains(&self.0.year())
    }
}

/// Years that a time may be in: RFC 3339 has no others, and Postgres stores them all.
const YEARS: RangeInclusive<i32> = 1..=9999;

/// Checks that a time can be stored and shown.
///
/// # Errors
/// A problem with the field.
pub fn check_time(field: &'static str, at: Option<DateTime<Utc>>) -> Answer<()> {
    match at {
        Some(at) if !YEARS.contains(&at.year()) => Err(Problem::field(field, "must be in the years 1 to 9999")),
        Some(_) | None => Ok(()),
    }
}

/// How many rows a page may have.
///
/// # Errors
/// A problem with the field `limit` for 0 and for more than `limit_max`.
pub fn limit(requested: Option<u64>, limit_max: u64) -> Answer<i64> {
    let limit = requested.unwrap_or(LIMIT_DEFAULT.min(limit_max));
    if limit == 0 || limit > limit_max {
        return Err(Problem::field("limit", format!("must be from 1 to {limit_max}")));
    }
    Ok(i64::try_from(limit).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_read_back_and_anything_else_is_refused() {
        let at = DateTime::from_timestamp_micros(1_795_139_200_123_456).unwrap();
        let place = TimeId(at, Uuid::from_u128(7));
        assert_eq!(TimeId::decode(&place.encode()).unwrap(), place);
        let late = TimeId(DateTime::from_timestamp(253_402_300_800, 0).unwrap(), Uuid::nil()).encode();
        let early = TimeId(DateTime::from_timestamp(-62_135_596_801, 0).unwrap(), Uuid::nil()).encode();
        for text in
            ["", "!", &late, &early, "bm8", "AAAA", &"A".repeat(CURSOR_LEN_MAX + 1), &format!("{}=", place.encode())]
        {
            let problem = serde_json::to_value(TimeId::decode(text).unwrap_err()).unwrap();
            assert_eq!(problem["field"], "cursor", "{text}");
        }
    }

    #[test]
    fn pages_end_where_the_rows_do() {
        let cursor = |id: &u128| TimeId(DateTime::UNIX_EPOCH, Uuid::from_u128(*id));
        for (rows, items, more) in [(0, 0, false), (1, 1, false), (2, 2, false), (3, 2, true)] {
            let page = Page::from_rows((0..rows).collect(), 2, cursor);
            assert_eq!((page.items.len(), page.next_cursor.is_some()), (items, more), "{rows} rows");
        }
        let next = Page::from_rows(vec![4_u128, 5, 6], 2, cursor).next_cursor.unwrap();
        assert_eq!(TimeId::decode(&next).unwrap(), cursor(&5));
    }

    #[test]
    fn times_have_four_digits_of_years() {
        for (text, good) in [
            ("0001-01-01T00:00:00Z", true),
            ("9999-12-31T23:59:59Z", true),
            ("0000-12-31T23:59:59Z", false),
            ("+10000-01-01T00:00:00Z", false),
            ("-0001-01-01T00:00:00Z", false),
        ] {
            assert_eq!(check_time("from", Some(text.parse().unwrap())).is_ok(), good, "{text}");
        }
    }

    #[test]
    fn limits_are_bounded() {
        for (requested, limit_max, expected) in [
            (None, 200, Some(50)),
            (None, 10, Some(10)),
            (Some(200), 200, Some(200)),
            (Some(201), 200, None),
            (Some(0), 200, None),
        ] {
            assert_eq!(limit(requested, limit_max).ok(), expected, "{requested:?}");
        }
    }
}
