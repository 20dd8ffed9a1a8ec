//! Alerts in words, for people: amounts in units of their currency, percentages exact to four places.

use quota::{Currency, LimitName};

use crate::credit::LineAccount;
use crate::marks::Threshold;
use crate::{Level, Subject};

/// `used` as a percentage of `max`, cut off after four places and never above what it is; `None` where `max` is 0.
pub(super) fn percent(used: u64, max: u64) -> Option<String> {
    let parts = (u128::from(used) * 1_000_000).checked_div(u128::from(max))?;
    let text = decimal(parts, 4);
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

/// Usage has reached a threshold of what limits it.
pub(super) fn reached(subject: Subject, currency: &str, threshold: Threshold, used: u64, max: u64) -> String {
    let shown = |value| if subject.is_count() { u64::to_string(&value) } else { amount(value, currency) };
    let share = percent(used, max).map_or_else(String::new, |percent| format!(", {percent} %"));
    let of = format!("{} of {}{share}", shown(used), shown(max));
    let title = subject.limit().map_or("The credit line's exposure", LimitName::title);
    match threshold {
        Threshold::Percent(percent) => format!("{title} has reached {percent} % of its limit: {of}"),
        Threshold::RemainingBelow(least) => format!("{title} leaves less than {} of its limit: {of}", shown(least)),
    }
}

/// An account takes no more charges; without a currency the merchant as a whole.
pub(super) fn suspended(currency: Option<&str>, operator: &str, reason: Option<&str>) -> String {
    let reason = reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    match currency {
        Some(currency) => format!("The {currency} account was suspended by {operator}{reason}"),
        None => format!("The merchant was suspended in all currencies by {operator}{reason}"),
    }
}

/// An order was captured above its hold.
pub(super) fn over_captured(order_no: &str, currency: &str, captured: u64, held: u64) -> String {
    let (captured, held) = (amount(captured, currency), amount(held, currency));
    format!("Captures of order {order_no} went beyond its hold: {captured} of {held}")
}

/// A notice of dunning.
#[derive(Clone, Copy, Debug)]
pub struct Dunning<'a> {
    pub account: LineAccount<'a>,
    /// The cycle of the statement, `YYYYMMDD`.
    pub cycle: i32,
    /// The number of the statement.
    pub number: u32,
    /// What is to be paid, minor units.
    pub amount: u64,
    /// As in `2026-12-14`.
    pub due_on: &'a str,
    /// Days until the due date, on the day of sending; 0 from then on.
    pub days_left: i64,
    /// Days past due on the day of sending; 0 up to the due date.
    pub days_past_due: i64,
    /// The id of the text.
    pub template: &'a str,
    pub level: Level,
}

/// A credit line that risk watches.
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    pub account: LineAccount<'a>,
    /// Since when, `YYYYMMDD`.
    pub since: i32,
    /// As in `watch` or `frozen`.
    pub stage: &'a str,
    pub days_past_due: i64,
    /// What cures the line, minor units.
    pub amount: u64,
}

/// A statement is due soon, today, or past due.
pub(super) fn dunning(notice: &Dunning<'_>) -> String {
    let Dunning { account, number, due_on, days_left, days_past_due, template, .. } = notice;
    let heading = match *template {
        "formal_demand" => "Formal demand. ",
        "final_demand" => "Final demand before default. ",
        "default_notice" => "Notice of default. ",
        _ => "",
    };
    let to_pay = amount(notice.amount, account.currency);
    let due = match (days_past_due, days_left) {
        (1.., _) => format!("was due on {due_on}; {}", past_due(*days_past_due)),
        (_, 1..) => format!("is due on {due_on}, in {}", days(*days_left)),
        _ => format!("is due on {due_on}"),
    };
    format!("{heading}Statement {number} of {} ({}) {due}. To pay: {to_pay}", account.merchant_id, account.currency)
}

/// A credit line has fallen behind.
pub(super) fn watched(line: &Watched<'_>) -> String {
    let Watched { account, stage, days_past_due, .. } = line;
    let past_due = match days_past_due {
        1.. => past_due(*days_past_due),
        _ => "nothing is past due any more".to_owned(),
    };
    let to_pay = amount(line.amount, account.currency);
    let (merchant, currency) = (account.merchant_id, account.currency);
    format!("The credit line of {merchant} ({currency}) is in stage {stage}; {past_due}. To cure it: {to_pay}")
}

fn past_due(number: i64) -> String {
    format!("{} past due", days(number))
}

fn days(number: i64) -> String {
    if number == 1 { "1 day".to_owned() } else { format!("{number} days") }
}

/// As in `1234.50 USD`.
fn amount(minor: u64, currency: &str) -> String {
    let places = Currency::parse(currency).map_or(0, Currency::exponent);
    format!("{} {currency}", decimal(u128::from(minor), usize::from(places)))
}

/// A whole number of parts of ten to the power of `places`.
fn decimal(parts: u128, places: usize) -> String {
    let digits = format!("{parts:0width$}", width = places + 1);
    match digits.split_at_checked(digits.len() - places) {
        Some((whole, part)) if !part.is_empty() => format!("{whole}.{part}"),
        Some(_) | None => digits,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_cut_off_and_have_no_bound() {
        const MAX: u64 = (1 << 53) - 1;
        for (used, max, text) in [
            (80, 100, Some("80")),
            (800, 1_000, Some("80")),
            (1, 3, Some("33.3333")),
            (2, 3, Some("66.6666")),
            (999_999_999, 1_000_000_000, Some("99.9999")),
            (0, 7, Some("0")),
            (15, 10, Some("150")),
            (1_005, 1_000, Some("100.5")),
            (MAX, 1, Some("900719925474099100")),
            (1, MAX, Some("0")),
            (5, 0, None),
        ] {
            assert_eq!(percent(used, max).as_deref(), text, "{used} of {max}");
        }
    }

    #[test]
    fn amounts_are_in_units_of_their_currency() {
        for (minor, currency, text) in [
            (123_450, "USD", "1234.50 USD"),
            (5, "USD", "0.05 USD"),
            (0, "USD", "0.00 USD"),
            (123_450, "JPY", "123450 JPY"),
            (1_234, "KWD", "1.234 KWD"),
            (9, "XXQ", "9 XXQ"),
        ] {
            assert_eq!(amount(minor, currency), text);
        }
    }

    #[test]
    fn credit_is_put_in_words() {
        let account = LineAccount { merchant_id: "merchant-001", currency: "USD" };
        let notice = |days_left, days_past_due, template| {
            dunning(&Dunning {
                account,
                cycle: 20_261_101,
                number: 3,
                amount: 12_000,
                due_on: "2026-12-14",
                days_left,
                days_past_due,
                template,
                level: Level::Warning,
            })
        };
        let line = |days_past_due| {
            watched(&Watched { account, since: 20_261_220, stage: "watch", days_past_due, amount: 12_000 })
        };
        let texts = [
            notice(3, 0, "payment_due_soon"),
            notice(0, 0, "payment_due_today"),
            notice(0, 1, "payment_overdue"),
            notice(0, 7, "a text of their own"),
            notice(0, 30, "formal_demand"),
            notice(0, 60, "final_demand"),
            notice(0, 90, "default_notice"),
            line(7),
            line(0),
        ];
        assert_eq!(
            texts,
            [
                "Statement 3 of merchant-001 (USD) is due on 2026-12-14, in 3 days. To pay: 120.00 USD",
                "Statement 3 of merchant-001 (USD) is due on 2026-12-14. To pay: 120.00 USD",
                "Statement 3 of merchant-001 (USD) was due on 2026-12-14; 1 day past due. To pay: 120.00 USD",
                "Statement 3 of merchant-001 (USD) was due on 2026-12-14; 7 days past due. To pay: 120.00 USD",
                "Formal demand. Statement 3 of merchant-001 (USD) was due on 2026-12-14; 30 days past due. To pay: 120.00 USD",
                "Final demand before default. Statement 3 of merchant-001 (USD) was due on 2026-12-14; 60 days past due. \
                 To pay: 120.00 USD",
                "Notice of default. Statement 3 of merchant-001 (USD) was due on 2026-12-14; 90 days past due. To pay: 120.00 USD",
                "The credit line of merchant-001 (USD) is in stage watch; 7 days past due. To cure it: 120.00 USD",
                "The credit line of merchant-001 (USD) is in stage watch; nothing is past due any more. To cure it: 120.00 USD",
            ]
        );
    }

    #[test]
    fn alerts_are_put_in_words() {
        let texts = [
            reached(Subject::Daily, "USD", Threshold::Percent(80), 85_000, 100_000),
            reached(Subject::MonthlyCount, "USD", Threshold::Percent(100), 12, 12),
            reached(Subject::Pending, "JPY", Threshold::Percent(80), 5, 0),
            reached(Subject::MonthlyCount, "USD", Threshold::RemainingBelow(3), 10, 12),
            reached(Subject::CreditUtilisation, "USD", Threshold::RemainingBelow(20_000), 85_000, 100_000),
            suspended(Some("USD"), "admin:ann", Some("fraud")),
            suspended(None, "admin:ann", Some("fraud")),
            over_captured("o-1", "USD", 120, 100),
        ];
        assert_eq!(
            texts,
            [
                "The day's amount has reached 80 % of its limit: 850.00 USD of 1000.00 USD, 85 %",
                "The month's number of payments has reached 100 % of its limit: 12 of 12, 100 %",
                "The pending amount has reached 80 % of its limit: 5 JPY of 0 JPY",
                "The month's number of payments leaves less than 3 of its limit: 10 of 12, 83.3333 %",
                "The credit line's exposure leaves less than 200.00 USD of its limit: 850.00 USD of 1000.00 USD, 85 %",
                "The USD account was suspended by admin:ann: fraud",
                "The merchant was suspended in all currencies by admin:ann: fraud",
                "Captures of order o-1 went beyond its hold: 1.20 USD of 1.00 USD",
            ]
        );
    }
}
