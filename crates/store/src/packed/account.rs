//! Accounts, merchants, closed windows and threshold levels.

use quota::{
    Account, AmountMinor, ClosedWindow, Counter, Crossing, Merchant, Origin, Period, ThresholdLevels, ThresholdPolicy,
    Thresholds,
};

use super::layout::{MERCHANT_FORMAT, PREVIOUS_FORMAT, PREVIOUS_LIMITS, PREVIOUS_RECORD_FORMAT};
use super::{Format, PackedError, Reader, Writer};

/// Reads an account.
///
/// # Errors
/// [`PackedError`] where the bytes are not one.
pub fn account(bytes: &[u8]) -> Result<Account, PackedError> {
    let mut reader = Reader(bytes);
    let account = reader.account()?;
    reader.finish(account)
}

/// Reads a merchant's own state.
///
/// # Errors
/// [`PackedError`] where the bytes are not one.
pub fn merchant(bytes: &[u8]) -> Result<Merchant, PackedError> {
    let mut reader = Reader::new(bytes, MERCHANT_FORMAT)?;
    // Whether it is suspended is at the head, for the script.
    reader.u8()?;
    let merchant = Merchant { suspended_at_ms: reader.number()?, version: reader.number()? };
    reader.finish(merchant)
}

/// Reads the windows that an event has closed.
///
/// # Errors
/// [`PackedError`] where the bytes are not such windows.
pub fn closed(bytes: &[u8]) -> Result<Vec<ClosedWindow>, PackedError> {
    let mut reader = Reader(bytes);
    let mut windows = Vec::with_capacity(Period::ALL.len());
    while !reader.0.is_empty() {
        let number = reader.u8()?;
        let period = Period::from_number(number).ok_or(PackedError::Period(number))?;
        let (id, epoch) = (reader.u32()?, reader.u8()?);
        let (amount, count, refunded) = (reader.number()?, reader.number()?, reader.number()?);
        windows.push(ClosedWindow { period, counter: Counter { id, epoch, amount, count, refunded } });
    }
    Ok(windows)
}

/// Reads how an event crossed thresholds; `record` is the event's record, whose format it has.
///
/// # Errors
/// [`PackedError`] where the bytes are not that.
pub fn crossing(bytes: &[u8], record: &[u8]) -> Result<Crossing, PackedError> {
    let format = match record.first() {
        Some(&(PREVIOUS_FORMAT | PREVIOUS_RECORD_FORMAT)) => Format::Previous,
        Some(_) | None => Format::Present,
    };
    let mut reader = Reader(bytes);
    let (before, after) = (reader.levels(format)?, reader.levels(format)?);
    let list = reader.u16()?;
    let mut maxima = [AmountMinor::MAX; ThresholdPolicy::LIMITS.len()];
    let limits = match format {
        Format::Present => maxima.len(),
        Format::Previous => PREVIOUS_LIMITS,
    };
    for max in maxima.iter_mut().take(limits) {
        *max = reader.amount()?;
    }
    let count = reader.u8()?;
    let percents = (0..count).map(|_| reader.u16().map(u32::from)).collect::<Result<Vec<_>, _>>()?;
    let thresholds = Thresholds::new(percents).ok().filter(|thresholds| thresholds.list() == list);
    let threshold_policy = ThresholdPolicy::of(maxima, thresholds.ok_or(PackedError::Thresholds)?);
    reader.finish(Crossing { before, after, threshold_policy })
}

/// Appends a threshold policy for the script.
pub fn threshold_policy(out: &mut Vec<u8>, policy: &ThresholdPolicy) {
    let mut out = Writer(out);
    out.u16(policy.thresholds().list());
    policy.maxima().iter().for_each(|max| out.amount(*max));
    let percents = policy.thresholds().percents();
    out.bytes(&[u8::try_from(percents.len()).unwrap_or(u8::MAX)]);
    percents.iter().for_each(|percent| out.u16(*percent));
}

impl Reader<'_> {
    pub(super) fn account(&mut self) -> Result<Account, PackedError> {
        let format = self.format()?;
        let origins = self.charged_in(format)?;
        // Whether it is suspended, and whether anything is pending, is at the head, for the script.
        self.u8()?;
        let levels = self.levels(format)?;
        let windows = origins.map(|Origin { id, epoch }| Counter { id: *id, epoch: *epoch, ..Counter::default() });
        let mut account = Account { windows, levels, ..Account::default() };
        for period in format.periods() {
            let counter = account.windows.of_mut(period);
            counter.amount = self.number()?;
            counter.count = self.number()?;
        }
        account.version = self.number()?;
        for period in format.periods() {
            let counter = account.windows.of_mut(period);
            counter.refunded = self.number()?;
        }
        account.pending = self.number()?;
        account.paced_until_us = self.number()?;
        account.suspended_at_ms = self.number()?;
        Ok(account)
    }

    /// The usage before, in an account that is otherwise as it was after.
    pub(super) fn before(&mut self, after: Account, format: Format) -> Result<Account, PackedError> {
        let mut before = after;
        for period in format.periods() {
            let counter = before.windows.of_mut(period);
            counter.amount = self.number()?;
            counter.count = self.number()?;
            counter.refunded = self.number()?;
        }
        before.pending = self.number()?;
        Ok(before)
    }

    fn levels(&mut self, format: Format) -> Result<ThresholdLevels, PackedError> {
        let packed = match format {
            Format::Present => self.number()?,
            Format::Previous => self.u32()?.into(),
        };
        Ok(ThresholdLevels::unpacked(packed, self.u16()?))
    }
}
