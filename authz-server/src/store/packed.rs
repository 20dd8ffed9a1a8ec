//! The packed values that the Redis script reads and writes; their layout is stated at the head of `lua/decide.lua`.

use quota::{
    Account, Action, AmountMinor, AttemptId, Code, Command, Counter, Currency, Limits, Order, Record, WindowFigures,
    WindowIds,
};
use thiserror::Error;

/// The format of every packed value so far.
const FORMAT: u8 = 1;

/// A value that does not have its format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PackedError {
    #[error("the value ends too early")]
    Short,
    #[error("the value has {0} bytes too many")]
    Long(usize),
    #[error("the format is {0}, not 1")]
    Format(u8),
    #[error("{0} is no code")]
    Code(u8),
    #[error("the currency is unknown")]
    Currency,
    #[error("a number is not a whole one from 0 to 2^53 - 1")]
    Number,
}

/// The script's first argument.
#[must_use]
pub fn command(command: &Command) -> Vec<u8> {
    let (op, refusal, amount, limits) = match &command.action {
        Action::Consume(consume) => (1, consume.refusal.map_or(0, Code::number), consume.amount, consume.limits),
        Action::Void => (2, 0, AmountMinor::ZERO, Limits::UNLIMITED),
    };
    let now_secs =
        u32::try_from(command.now_ms.div_euclid(1000)).unwrap_or(if command.now_ms < 0 { 0 } else { u32::MAX });
    let WindowIds { day, month, year } = command.windows;
    let mut out = Vec::with_capacity(128);
    out.extend_from_slice(&[op, refusal]);
    out.extend_from_slice(command.currency.code().as_bytes());
    for number in [day, month, year, now_secs, command.order_ttl_secs, command.backlog_max] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&command.attempt.0);
    out.extend_from_slice(&command.decision_id);
    let Limits { day, month, year } = limits;
    let maxima = [day.count, month.count, year.count, day.amount, month.amount, year.amount];
    for amount in std::iter::once(amount).chain(maxima) {
        // Exact: an amount is below 2^53.
        out.extend_from_slice(&(amount.get() as f64).to_le_bytes());
    }
    out
}

/// Reads a decision record.
///
/// # Errors
/// [`PackedError`] where the bytes are not one.
pub fn record(bytes: &[u8]) -> Result<Record, PackedError> {
    let mut reader = Reader::new(bytes)?;
    let number = reader.u8()?;
    let code = Code::from_number(number).ok_or(PackedError::Code(number))?;
    let replay = reader.u8()? & 1 == 1;
    reader.u8()?;
    let ids = reader.window_ids()?;
    let mut window = |id| {
        let amount_before = reader.number()?;
        let amount_after = reader.number()?;
        let count_before = reader.number()?;
        let count_after = reader.number()?;
        Ok(WindowFigures { id, amount_before, amount_after, count_before, count_after })
    };
    let (day, month, year) = (window(ids.day)?, window(ids.month)?, window(ids.year)?);
    let version = reader.number()?;
    reader.finish(Record { code, replay, day, month, year, version })
}

/// Reads an account.
///
/// # Errors
/// [`PackedError`] where the bytes are not one.
pub fn account(bytes: &[u8]) -> Result<Account, PackedError> {
    let mut reader = Reader::new(bytes)?;
    let ids = reader.window_ids()?;
    let mut counter = |id| Ok(Counter { id, amount: reader.number()?, count: reader.number()? });
    let (day, month, year) = (counter(ids.day)?, counter(ids.month)?, counter(ids.year)?);
    let version = reader.number()?;
    reader.finish(Account { day, month, year, version })
}

/// Reads an order.
///
/// # Errors
/// [`PackedError`] where the bytes are not one.
pub fn order(bytes: &[u8]) -> Result<Order, PackedError> {
    let mut reader = Reader::new(bytes)?;
    let flags = reader.u8()?;
    let letters = reader.array::<3>()?;
    let currency = std::str::from_utf8(&letters).ok().and_then(|code| Currency::parse(code).ok());
    let windows = reader.window_ids()?;
    let amount = AmountMinor::new(reader.number()?).ok_or(PackedError::Number)?;
    let expires_at_secs = reader.u32()?;
    let decision_id = reader.array()?;
    let (live, voided) = (reader.u8()?, reader.u8()?);
    let mut attempts = |number| (0..number).map(|_| reader.array().map(AttemptId)).collect::<Result<Vec<_>, _>>();
    let (live, voided) = (attempts(live)?, attempts(voided)?);
    reader.finish(Order {
        currency: currency.ok_or(PackedError::Currency)?,
        amount,
        windows,
        charged: flags & 1 == 1,
        pinned: flags & 2 == 2,
        live,
        voided,
        decision_id,
        expires_at_secs,
    })
}

/// Takes fields off the front, after the format byte.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn new(bytes: &'a [u8]) -> Result<Self, PackedError> {
        let mut reader = Self(bytes);
        match reader.u8()? {
            FORMAT => Ok(reader),
            other => Err(PackedError::Format(other)),
        }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], PackedError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(PackedError::Short)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, PackedError> {
        self.array::<1>().map(|[byte]| byte)
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

    fn window_ids(&mut self) -> Result<WindowIds, PackedError> {
        Ok(WindowIds { day: self.u32()?, month: self.u32()?, year: self.u32()? })
    }

    fn finish<T>(self, value: T) -> Result<T, PackedError> {
        if self.0.is_empty() { Ok(value) } else { Err(PackedError::Long(self.0.len())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_packed_is_refused() {
        let number = |value: f64| value.to_le_bytes();
        let account_with = |value: f64| {
            let mut bytes = vec![FORMAT];
            bytes.extend_from_slice(&[0; 12]);
            (0..7).for_each(|_| bytes.extend_from_slice(&number(value)));
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
        assert_eq!(account(&[2]), Err(PackedError::Format(2)));
        assert_eq!(record(&[1, 99, 0, 0]), Err(PackedError::Code(99)));
        assert_eq!(account(&[]), Err(PackedError::Short));
    }
}
