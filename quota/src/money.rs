//! Money: whole minor units beside an ISO 4217 currency, read from text and never through a float.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// An amount in minor units (cents for USD, yen for JPY), from 0 to 2^53 − 1.
///
/// The bound is the largest integer range that a double holds exactly: numbers in the Redis script are doubles.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct AmountMinor(u64);

impl AmountMinor {
    /// The largest amount, 2^53 − 1.
    pub const MAX: Self = Self((1 << 53) - 1);
    /// No money.
    pub const ZERO: Self = Self(0);

    /// `None` above [`AmountMinor::MAX`].
    #[must_use]
    pub const fn new(minor: u64) -> Option<Self> {
        if minor <= Self::MAX.0 { Some(Self(minor)) } else { None }
    }

    /// The number of minor units.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Reads an amount as a payment request writes it: digits with at most one decimal point, no sign, no exponent, no
    /// blanks. `Unit::Minor` takes whole minor units; `Unit::Major` takes as many decimals as the currency has.
    ///
    /// # Errors
    /// [`AmountError`] names the rule that the text breaks.
    pub fn parse(text: &str, unit: Unit, currency: Currency, allow_zero: bool) -> Result<Self, AmountError> {
        let amount = match unit {
            Unit::Minor => parse_minor(text),
            Unit::Major => parse_major(text, currency),
        }?;
        if amount == Self::ZERO && !allow_zero {
            return Err(AmountError::Zero);
        }
        Ok(amount)
    }
}

impl fmt::Display for AmountMinor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u64> for AmountMinor {
    type Error = AmountError;

    fn try_from(minor: u64) -> Result<Self, Self::Error> {
        Self::new(minor).ok_or(AmountError::TooLarge)
    }
}

impl From<AmountMinor> for u64 {
    fn from(amount: AmountMinor) -> Self {
        amount.0
    }
}

/// Whether a request writes amounts in minor units (`1050`) or in major ones (`10.50`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    Minor,
    Major,
}

/// Why a text is not an amount. The messages are safe to show to the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum AmountError {
    #[error("the amount is not a plain decimal number")]
    Malformed,
    #[error("the amount is negative")]
    Negative,
    #[error("the amount is zero")]
    Zero,
    #[error("the amount has more decimals than its currency")]
    OverPrecise,
    #[error("the amount is larger than 9007199254740991 minor units")]
    TooLarge,
}

fn parse_minor(text: &str) -> Result<AmountMinor, AmountError> {
    match check_digits(text)? {
        0 => text.parse().ok().and_then(AmountMinor::new).ok_or(AmountError::TooLarge),
        _ => Err(AmountError::OverPrecise),
    }
}

fn parse_major(text: &str, currency: Currency) -> Result<AmountMinor, AmountError> {
    let decimals = check_digits(text)?;
    if decimals > currency.exponent() as usize {
        return Err(AmountError::OverPrecise);
    }
    let mut value = Decimal::from_str_exact(text).map_err(|_| AmountError::TooLarge)?;
    let scale = i64::from(currency.exponent()) - i64::from(value.scale());
    let factor =
        u32::try_from(scale).ok().and_then(|power| 10_u64.checked_pow(power)).ok_or(AmountError::OverPrecise)?;
    value.set_scale(0).map_err(|_| AmountError::TooLarge)?;
    let minor = value.checked_mul(Decimal::from(factor)).ok_or(AmountError::TooLarge)?;
    u64::try_from(minor).ok().and_then(AmountMinor::new).ok_or(AmountError::TooLarge)
}

/// Counts the decimals of `digits[.digits]`; everything else is refused before any arithmetic.
fn check_digits(text: &str) -> Result<usize, AmountError> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, decimals) = match digits.split_once('.') {
        Some((_, "")) => return Err(AmountError::Malformed),
        Some(parts) => parts,
        None => (digits, ""),
    };
    let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(decimals) {
        return Err(AmountError::Malformed);
    }
    if negative { Err(AmountError::Negative) } else { Ok(decimals.len()) }
}

/// An ISO 4217 currency in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Currency(iso_currency::Currency);

/// The text is not an ISO 4217 alphabetic code.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the currency is not an ISO 4217 alphabetic code of a currency with minor units")]
pub struct CurrencyError;

/// Every currency in the order of the codes, each with its code as a number: the library compares one code after the other.
static BY_CODE: LazyLock<Vec<(u32, Currency)>> = LazyLock::new(|| {
    let numbered = |currency: Currency| Some((code_number(currency.code())?, currency));
    let mut currencies: Vec<_> = Currency::all().filter_map(numbered).collect();
    currencies.sort_unstable_by_key(|(number, _)| *number);
    currencies
});

/// Three bytes as one number.
fn code_number(code: &str) -> Option<u32> {
    let [first, second, third] = *code.as_bytes() else { return None };
    Some(u32::from_be_bytes([0, first, second, third]))
}

impl Currency {
    /// Takes the three capital letters of ISO 4217; codes without minor units (precious metals, test codes) are refused.
    ///
    /// # Errors
    /// [`CurrencyError`] for every other text.
    pub fn parse(code: &str) -> Result<Self, CurrencyError> {
        let number = code_number(code).ok_or(CurrencyError)?;
        let found = BY_CODE.binary_search_by_key(&number, |(number, _)| *number);
        found.ok().and_then(|at| BY_CODE.get(at)).map(|(_, currency)| *currency).ok_or(CurrencyError)
    }

    /// ISO 4217's code for "no currency", used for a command about a whole merchant. It has no minor units, so no payment can
    /// use it.
    pub const NONE: Self = Self(iso_currency::Currency::XXX);

    /// Every currency.
    pub fn all() -> impl Iterator<Item = Self> {
        <iso_currency::Currency as iso_currency::IntoEnumIterator>::iter()
            .filter(|currency| currency.exponent().is_some())
            .map(Self)
    }

    /// The three letters.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.0.code()
    }

    /// Decimals of the major unit: 2 for USD, 0 for JPY, 3 for KWD.
    #[must_use]
    pub fn exponent(self) -> u16 {
        self.0.exponent().unwrap_or_default()
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

impl FromStr for Currency {
    type Err = CurrencyError;

    fn from_str(code: &str) -> Result<Self, Self::Err> {
        Self::parse(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_strictly() {
        use AmountError::{Malformed, Negative, OverPrecise, TooLarge, Zero};
        use Unit::{Major, Minor};
        let table: &[(&str, Unit, &str, Result<u64, AmountError>)] = &[
            ("1050", Minor, "USD", Ok(1050)),
            ("007", Minor, "USD", Ok(7)),
            ("10.50", Major, "USD", Ok(1050)),
            ("10.5", Major, "USD", Ok(1050)),
            ("10", Major, "USD", Ok(1000)),
            ("10", Major, "JPY", Ok(10)),
            ("10.0", Major, "JPY", Err(OverPrecise)),
            ("1.234", Major, "KWD", Ok(1234)),
            ("1.234", Major, "USD", Err(OverPrecise)),
            ("10.50", Minor, "USD", Err(OverPrecise)),
            ("0", Minor, "USD", Err(Zero)),
            ("0.00", Major, "USD", Err(Zero)),
            ("-1", Minor, "USD", Err(Negative)),
            ("-0.01", Major, "USD", Err(Negative)),
            ("--1", Minor, "USD", Err(Malformed)),
            ("+1", Minor, "USD", Err(Malformed)),
            ("1e2", Minor, "USD", Err(Malformed)),
            (" 1", Minor, "USD", Err(Malformed)),
            ("1_000", Minor, "USD", Err(Malformed)),
            ("1_0.00", Major, "USD", Err(Malformed)),
            ("1.", Major, "USD", Err(Malformed)),
            (".5", Major, "USD", Err(Malformed)),
            ("", Minor, "USD", Err(Malformed)),
            ("١", Minor, "USD", Err(Malformed)),
            ("9007199254740991", Minor, "USD", Ok(9_007_199_254_740_991)),
            ("9007199254740992", Minor, "USD", Err(TooLarge)),
            ("90071992547409.91", Major, "USD", Ok(9_007_199_254_740_991)),
            ("90071992547409.92", Major, "USD", Err(TooLarge)),
            ("99999999999999999999999999999999999999999", Minor, "USD", Err(TooLarge)),
            ("99999999999999999999999999999999999999999", Major, "USD", Err(TooLarge)),
        ];
        for (text, unit, currency, expected) in table {
            let currency = Currency::parse(currency).unwrap();
            let got = AmountMinor::parse(text, *unit, currency, false).map(AmountMinor::get);
            assert_eq!(got, *expected, "{text:?} {unit:?} {currency}");
        }
        let usd = Currency::parse("USD").unwrap();
        assert_eq!(AmountMinor::parse("0", Minor, usd, true), Ok(AmountMinor::ZERO));
    }

    #[test]
    fn currencies_are_iso_4217_with_minor_units() {
        for (code, exponent) in
            [("USD", Some(2)), ("JPY", Some(0)), ("KWD", Some(3)), ("usd", None), ("XAU", None), ("", None)]
        {
            assert_eq!(Currency::parse(code).ok().map(Currency::exponent), exponent, "{code:?}");
        }
    }
}
