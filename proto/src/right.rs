//! How the proxy filter asks for a right, and how the server answers.

use quota::{AmountMinor, Share, Weight};

/// The answer to a holder that asked for a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// None is granted now.
    Refused,
    Granted(Grant),
}

/// What a holder may admit from a right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    pub granted: Share,
    /// How long from the request for it on, milliseconds.
    pub ttl_ms: u32,
    /// Smallest and largest amount of one payment.
    pub single_min: AmountMinor,
    pub single_max: AmountMinor,
    /// What the amount of a payment takes of the right.
    pub weight: Weight,
}

const REFUSED: &str = "refused";

impl Answer {
    /// The value of [`crate::header::RIGHT`].
    #[must_use]
    pub fn to_text(&self) -> String {
        let Self::Granted(grant) = self else { return REFUSED.to_owned() };
        let Grant { granted, ttl_ms, single_min, single_max, weight } = grant;
        let (bp, units) = (weight.bp(), weight.units_per_payment());
        let Share { amount, count } = granted;
        format!("{count} {amount} {ttl_ms} {} {} {bp} {}", single_min.get(), single_max.get(), units.get())
    }

    /// Reads the value back; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text == REFUSED {
            return Some(Self::Refused);
        }
        let mut numbers = text.split(' ').map(|number| number.parse::<u64>().ok());
        let mut next = || numbers.next().flatten();
        let granted = Share { count: next()?, amount: next()? };
        let ttl_ms = u32::try_from(next()?).ok()?;
        let (single_min, single_max) = (AmountMinor::new(next()?)?, AmountMinor::new(next()?)?);
        let weight = Weight::of_parts(u32::try_from(next()?).ok()?, AmountMinor::new(next()?)?)?;
        let grant = Grant { granted, ttl_ms, single_min, single_max, weight };
        numbers.next().is_none().then_some(Self::Granted(grant))
    }
}

/// The value of [`crate::extension::RIGHT_WANTED`].
#[must_use]
pub fn wanted_to_text(wanted: Share) -> String {
    format!("{} {}", wanted.count, wanted.amount)
}

/// Reads what a holder wants; `None` for anything else.
#[must_use]
pub fn parse_wanted(text: &str) -> Option<Share> {
    let (count, amount) = text.split_once(' ')?;
    Some(Share { count: count.parse().ok()?, amount: AmountMinor::new(amount.parse().ok()?)?.get() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_as_it_is_written() {
        let amount = |minor| AmountMinor::new(minor).unwrap();
        let grant = Grant {
            granted: Share { amount: 5_000, count: 7 },
            ttl_ms: 2_000,
            single_min: AmountMinor::ZERO,
            single_max: AmountMinor::MAX,
            weight: Weight::AMOUNT,
        };
        let table = [
            (Answer::Refused, "refused"),
            (Answer::Granted(grant), "7 5000 2000 0 9007199254740991 10000 0"),
            (
                Answer::Granted(Grant { weight: Weight::price(amount(3)), ..grant }),
                "7 5000 2000 0 9007199254740991 0 3",
            ),
        ];
        for (answer, text) in table {
            assert_eq!((answer.to_text().as_str(), Answer::parse(text)), (text, Some(answer)));
        }
        let broken = [
            "",
            "none",
            "7 5000 2000 0 1 10000",
            "7 5000 2000 0 1 10000 0 ",
            "7 5000 2000 0 1 10000 0 1",
            "-7 5000 2000 0 1 10000 0",
            "7 5000 4294967296 0 1 10000 0",
            "7 5000 2000 0 9007199254740992 10000 0",
            "7 5000 2000 0 1 1 1",
            "7 5000  2000 0 1 10000 0",
        ];
        for text in broken {
            assert_eq!(Answer::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_wanted_is_read_as_it_is_written() {
        let wanted = Share { amount: 900, count: 4 };
        assert_eq!((wanted_to_text(wanted).as_str(), parse_wanted("4 900")), ("4 900", Some(wanted)));
        for text in ["", "4", "4 ", "4 900 1", "4 9007199254740992", "x 1"] {
            assert_eq!(parse_wanted(text), None, "{text}");
        }
    }
}
