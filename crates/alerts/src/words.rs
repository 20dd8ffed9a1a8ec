//! Alerts in words, for people: amounts in units of their currency, percentages exact to four places.

use quota::{Currency, LimitName};

/// `used` as a percentage of `max`, cut off after four places and never above what it is; `None` where `max` is 0.
pub(super) fn percent(used: u64, max: u64) -> Option<String> {
    let parts = (u128::from(used) * 1_000_000).checked_div(u128::from(max))?;
    let text = decimal(parts, 4);
    Some(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

/// Usage of a limit has reached a threshold.
pub(super) fn reached(limit: LimitName, currency: &str, threshold: u16, used: u64, max: u64) -> String {
    let shown = |value| if limit.is_count() { u64::to_string(&value) } else { amount(value, currency) };
    let share = percent(used, max).map_or_else(String::new, |percent| format!(", {percent} %"));
    format!("{} has reached {threshold} % of its limit: {} of {}{share}", limit.title(), shown(used), shown(max))
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
    fn alerts_are_put_in_words() {
        let texts = [
            reached(LimitName::DailyAmount, "USD", 80, 85_000, 100_000),
            reached(LimitName::MonthlyCount, "USD", 100, 12, 12),
            reached(LimitName::PendingAmount, "JPY", 80, 5, 0),
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
                "The USD account was suspended by admin:ann: fraud",
                "The merchant was suspended in all currencies by admin:ann: fraud",
                "Captures of order o-1 went beyond its hold: 1.20 USD of 1.00 USD",
            ]
        );
    }
}
