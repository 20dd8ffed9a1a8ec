//! What an account did before a day, from the usage log, and its disputes: what scorecards know of its behaviour.

use std::collections::HashMap;

use jiff::Span;
use jiff::civil::Date;
use serde::Deserialize;
use sluice_credit::Behaviour;
use sqlx::PgExecutor;

use crate::{LineKey, id_of};

/// The most rows of a merchant in the usage log that are looked at, the latest: a reading stays below the timeout of statements
/// however much the merchant does.
const ROWS_MAX: i64 = 100_000;
/// The days that disputes and downgrades are counted in.
pub(crate) const YEAR_DAYS: i64 = 365;
/// Days by which a business day may be off the day in UTC, either way.
const BUSINESS_DAY_SLACK: i64 = 2;

/// Rows by the index of merchants; the time, which the business day follows, leaves other partitions out.
const STATEMENT: &str = "\
    WITH recent AS MATERIALIZED ( \
        SELECT at, currency, action_type, code, success, replay, reason, amount, channel, daily_window FROM usage_log \
        WHERE merchant_id = $1 AND at >= $3::timestamp AT TIME ZONE 'UTC' AND at < $4::timestamp AT TIME ZONE 'UTC' \
        ORDER BY at DESC LIMIT $7 \
    ), of_line AS ( \
        SELECT * FROM recent WHERE currency = $2 AND NOT replay AND daily_window >= $5 AND daily_window < $6 \
    ), admitted AS ( \
        SELECT * FROM of_line WHERE action_type IN ('consume', 'hold') AND success \
    ) \
    SELECT jsonb_build_object( \
        'rows', (SELECT count(*) FROM recent), \
        'first_day', (SELECT min(daily_window) FROM recent), \
        'charges', count(*) FILTER (WHERE action_type IN ('consume', 'hold')), \
        'refused', count(*) FILTER (WHERE action_type IN ('consume', 'hold') AND NOT success), \
        'holds', count(*) FILTER (WHERE action_type = 'hold' AND success), \
        'expired_holds', count(*) FILTER (WHERE action_type = 'expire' AND code = 'VOIDED'), \
        'gateway_failed', count(*) FILTER (WHERE action_type = 'void' AND code = 'VOIDED' \
            AND reason IN ('upstream_4xx', 'upstream_5xx', 'upstream_not_made', 'upstream_unreached')), \
        'hours', (SELECT coalesce(jsonb_agg(amount), '[]') FROM ( \
            SELECT least(sum(amount), 9223372036854775807) AS amount FROM admitted \
            GROUP BY extract(hour FROM at AT TIME ZONE 'UTC')) AS hour), \
        'days', (SELECT coalesce(jsonb_agg(jsonb_build_array(daily_window, amount, channels)), '[]') FROM ( \
            SELECT daily_window, least(sum(amount), 9223372036854775807) AS amount, count(DISTINCT channel) AS channels \
            FROM admitted GROUP BY daily_window) AS day), \
        'disputes', (SELECT count(*) FROM credit_dispute \
            WHERE merchant_id = $1 AND currency = $2 AND opened_on > $8::date AND opened_on <= $9::date) \
    )::text FROM of_line";

/// What was read.
#[derive(Clone, Debug, Default, Deserialize)]
pub(crate) struct Activity {
    /// Rows of the merchant, of any currency and action.
    rows: i64,
    /// The business day of the earliest one, `YYYYMMDD`.
    first_day: Option<u32>,
    charges: i64,
    refused: i64,
    holds: i64,
    expired_holds: i64,
    gateway_failed: i64,
    hours: Vec<i64>,
    /// Each day with what was admitted, and by how many channels.
    days: Vec<(u32, i64, i64)>,
    pub(crate) disputes: i64,
}

impl Activity {
    /// Reads what an account did in the days before `on`, but none before its line was opened.
    ///
    /// # Errors
    /// [`sqlx::Error`]
    pub(crate) async fn read(
        database: impl PgExecutor<'_>,
        (merchant, currency): &LineKey,
        opened_on: Date,
        on: Date,
    ) -> Result<Self, sqlx::Error> {
        let first = first_day(opened_on, on);
        let query = sqlx::query_scalar(STATEMENT).bind(merchant.as_str()).bind(currency.code());
        let query = query.bind(plus_days(first, -BUSINESS_DAY_SLACK).to_string());
        let query = query.bind(plus_days(on, BUSINESS_DAY_SLACK).to_string());
        let query = query.bind(id_of(first).cast_signed()).bind(id_of(on).cast_signed()).bind(ROWS_MAX);
        let query = query.bind(plus_days(on, -YEAR_DAYS).to_string()).bind(on.to_string());
        let text: String = query.fetch_one(database).await?;
        serde_json::from_str(&text).map_err(|error| sqlx::Error::Decode(error.into()))
    }

    /// The behaviour in the days before `on`. Where there are more rows than are looked at, the earliest day is not whole, and
    /// its amount is not one of a day.
    pub(crate) fn behaviour(&self, opened_on: Date, on: Date) -> Behaviour {
        let earliest = self.first_day.filter(|_| self.rows >= ROWS_MAX);
        let amounts: HashMap<u32, i64> = self.days.iter().map(|(day, amount, _)| (*day, *amount)).collect();
        let days = first_day(opened_on, on).series(Span::new().days(1)).take_while(|day| *day < on).map(id_of);
        let whole = days.filter(|day| earliest.is_none_or(|earliest| *day > earliest));
        Behaviour {
            charges: self.charges,
            refused: self.refused,
            gateway_failed: self.gateway_failed,
            holds: self.holds,
            expired_holds: self.expired_holds,
            hours: self.hours.clone(),
            days: whole.map(|day| amounts.get(&day).copied().unwrap_or_default()).collect(),
            channels: self.days.iter().map(|(_, _, channels)| *channels).max().unwrap_or_default(),
        }
    }
}

fn first_day(opened_on: Date, on: Date) -> Date {
    plus_days(on, -Behaviour::LOOK_BACK_DAYS).max(opened_on)
}

pub(crate) fn plus_days(date: Date, days: i64) -> Date {
    date.saturating_add(Span::new().days(days))
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    /// Days without a charge count; of days before the opening, and of one that was not read whole, there is no amount.
    #[test]
    fn a_day_without_a_charge_is_a_day() {
        let days = vec![(20_270_104, 50, 2), (20_270_102, 70, 1)];
        let activity = Activity { rows: 9, first_day: Some(20_270_102), days, ..Activity::default() };
        let cut = Activity { rows: ROWS_MAX, ..activity.clone() };
        let table = [
            (&activity, date(2027, 1, 1), date(2027, 1, 6), vec![0, 70, 0, 50, 0]),
            (&activity, date(2027, 1, 3), date(2027, 1, 5), vec![0, 50]),
            (&activity, date(2027, 1, 6), date(2027, 1, 6), vec![]),
            (&cut, date(2027, 1, 1), date(2027, 1, 6), vec![0, 50, 0]),
        ];
        for (activity, opened_on, on, expected) in table {
            let found = activity.behaviour(opened_on, on);
            assert_eq!((found.days, found.channels), (expected, 2), "{opened_on} {on}");
        }
        let long = activity.behaviour(date(2020, 1, 1), date(2027, 1, 6)).days;
        assert_eq!((long.len(), long.iter().sum::<i64>()), (90, 120));
    }
}
