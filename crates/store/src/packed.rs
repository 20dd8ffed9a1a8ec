//! The packed values that the Redis script reads and writes. What their fields mean is stated at the head of `lua/call.lua`.
//!
//! This file has what all of them are made of: fields, one after the other.

mod account;
mod command;
pub(crate) mod flags;
pub(crate) mod layout;
pub(crate) mod op;
mod order;
mod record;
mod right;

use quota::{AmountMinor, Currency, OrderState, Origin, Origins, Weight};
use thiserror::Error;

pub use account::{Closed, account, closed, crossing, merchant, threshold_policy};
pub use command::{KeyIndexes, command, is_plain};
pub use order::{order, pack_order};
pub use record::{record, record_and_decision, take_record};
pub use right::{counted_in, right};

/// A value that does not have its format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PackedError {
    #[error("the value ends too early")]
    Short,
    #[error("the value has {0} bytes too many")]
    Long(usize),
    #[error("the format {0} is not known")]
    Format(u8),
    #[error("{0} is not a code")]
    Code(u8),
    #[error("{0} is not a state of an order")]
    State(u8),
    #[error("{0} is not a kind of operation")]
    Operation(u8),
    #[error("{0} is not a kind of window")]
    Period(u8),
    #[error("the thresholds are not valid")]
    Thresholds,
    #[error("the weight is not valid")]
    Weight,
    #[error("the currency is unknown")]
    Currency,
    #[error("a number is not an integer from 0 to 2^53 - 1")]
    Number,
}

/// Puts fields one after the other, little endian; numbers as doubles, which hold them exactly.
struct Writer<'a>(&'a mut Vec<u8>);

impl Writer<'_> {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn u16(&mut self, number: u16) {
        self.bytes(&number.to_le_bytes());
    }

    fn u32(&mut self, number: u32) {
        self.bytes(&number.to_le_bytes());
    }

    fn number(&mut self, number: u64) {
        self.bytes(&(number as f64).to_le_bytes());
    }

    fn amount(&mut self, amount: AmountMinor) {
        self.number(amount.get());
    }

    fn optional(&mut self, number: Option<u64>) {
        match number {
            Some(number) => self.number(number),
            None => self.bytes(&(-1.0_f64).to_le_bytes()),
        }
    }

    fn weight(&mut self, weight: Weight) {
        self.u32(weight.bp());
        self.amount(weight.units_per_payment());
    }

    /// The day determines month and year, see [`Reader::charged_in`].
    fn charged_in(&mut self, origins: &Origins) {
        let Origins { day, week, month, year } = origins;
        self.u32(day.id);
        self.u32(week.id);
        self.bytes(&[day.epoch, week.epoch, month.epoch, year.epoch]);
    }
}

/// Takes fields off the front, after the format byte.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8], format: u8) -> Result<Self, PackedError> {
        let mut reader = Self(bytes);
        let found = reader.u8()?;
        if found == format { Ok(reader) } else { Err(PackedError::Format(found)) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PackedError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(PackedError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, PackedError> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, PackedError> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, PackedError> {
        self.array().map(u32::from_le_bytes)
    }

    /// A double that holds a whole number.
    fn number(&mut self) -> Result<u64, PackedError> {
        let value = self.array().map(f64::from_le_bytes)?;
        if value.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&value) {
            Ok(value as u64)
        } else {
            Err(PackedError::Number)
        }
    }

    fn amount(&mut self) -> Result<AmountMinor, PackedError> {
        AmountMinor::new(self.number()?).ok_or(PackedError::Number)
    }

    fn state(&mut self) -> Result<OrderState, PackedError> {
        let number = self.u8()?;
        OrderState::from_number(number).ok_or(PackedError::State(number))
    }

    fn currency(&mut self) -> Result<Currency, PackedError> {
        let letters = self.array::<3>()?;
        let currency = std::str::from_utf8(&letters).ok().and_then(|code| Currency::parse(code).ok());
        currency.ok_or(PackedError::Currency)
    }

    fn weight(&mut self) -> Result<Weight, PackedError> {
        Weight::of_parts(self.u32()?, self.amount()?).ok_or(PackedError::Weight)
    }

    /// A double that holds a whole number, which may be below zero.
    fn signed(&mut self) -> Result<i64, PackedError> {
        let value = self.array().map(f64::from_le_bytes)?;
        if value.fract() == 0.0 && value.abs() < 9_007_199_254_740_992.0 {
            Ok(value as i64)
        } else {
            Err(PackedError::Number)
        }
    }

    /// The month and year of a charge are those of its day.
    fn charged_in(&mut self) -> Result<Origins, PackedError> {
        let (day, week) = (self.u32()?, self.u32()?);
        let [of_day, of_week, of_month, of_year] = self.array()?;
        Ok(Origins {
            day: Origin { id: day, epoch: of_day },
            week: Origin { id: week, epoch: of_week },
            month: Origin { id: day / 100, epoch: of_month },
            year: Origin { id: day / 10_000, epoch: of_year },
        })
    }

    fn finish<T>(self, value: T) -> Result<T, PackedError> {
        if self.0.is_empty() { Ok(value) } else { Err(PackedError::Long(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::layout::{FULL_FORMAT, RECORD_FORMAT};
    use super::*;

    #[test]
    fn what_is_not_packed_is_refused() {
        let number = |value: f64| value.to_le_bytes();
        let account_with = |value: f64| {
            let mut bytes = vec![FULL_FORMAT];
            bytes.extend_from_slice(&[0; 23]);
            (0..16).for_each(|_| bytes.extend_from_slice(&number(value)));
            bytes
        };
        assert!(account(&account_with(9_007_199_254_740_991.0)).is_ok());
        for bad in [-1.0, 0.5, 9_007_199_254_740_992.0, f64::NAN, f64::INFINITY] {
            assert_eq!(account(&account_with(bad)), Err(PackedError::Number), "{bad}");
        }
        let mut long = account_with(0.0);
        long.push(0);
        assert_eq!(account(&long), Err(PackedError::Long(1)));
        assert_eq!(account(&long[..20]), Err(PackedError::Short));
        assert_eq!(account(&[1]), Err(PackedError::Format(1)));
        assert_eq!(record(&[RECORD_FORMAT, 99, 0, 0], 0), Err(PackedError::Code(99)));
        assert_eq!(record(&[5, 0, 0, 0], 0), Err(PackedError::Format(5)));
        assert_eq!([account(&[]), account(&[FULL_FORMAT])], [Err(PackedError::Short), Err(PackedError::Short)]);
        assert_eq!(record(&[], 0), Err(PackedError::Short));
    }
}
