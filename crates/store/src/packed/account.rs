//! Accounts, merchants, closed windows and threshold levels.

use quota::{
    Account, AmountMinor, ClosedCycle, ClosedWindow, Counter, CreditUsage, Crossing, Merchant, Origin, Period,
    ThresholdLevels, ThresholdPolicy, Thresholds,
};

use super::layout::{
    ACCOUNT_FORMAT, BILLING_CYCLE, CREDIT_FORMAT, FULL_CREDIT_FORMAT, FULL_FORMAT, MERCHANT_FORMAT, PREVIOUS_FORMAT,
};
use super::{PackedError, Reader, Writer};

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

/// What an event has closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closed {
    pub windows: Vec<ClosedWindow>,
    /// The billing cycle of its credit line.
    pub cycle: Option<ClosedCycle>,
}

/// Reads the windows and the billing cycle that an event has closed.
///
/// # Errors
/// [`PackedError`] where the bytes are not such windows.
pub fn closed(bytes: &[u8]) -> Result<Closed, PackedError> {
    let mut reader = Reader(bytes);
    let mut closed = Closed { windows: Vec::with_capacity(Period::ALL.len()), cycle: None };
    while !reader.0.is_empty() {
        let (number, id, epoch) = (reader.u8()?, reader.u32()?, reader.u8()?);
        let (amount, count, refunded) = (reader.number()?, reader.number()?, reader.number()?);
        if number == BILLING_CYCLE {
            closed.cycle = Some(ClosedCycle { cycle: id, amount });
            continue;
        }
        let period = Period::from_number(number).ok_or(PackedError::Period(number))?;
        closed.windows.push(ClosedWindow { period, counter: Counter { id, epoch, amount, count, refunded } });
    }
    Ok(closed)
}

/// Reads how an event crossed thresholds.
///
/// # Errors
/// [`PackedError`] where the bytes are not that.
pub fn crossing(bytes: &[u8]) -> Result<Crossing, PackedError> {
    let mut reader = Reader(bytes);
    let (before, after) = (reader.levels()?, reader.levels()?);
    let list = reader.u16()?;
    let mut maxima = [AmountMinor::MAX; ThresholdPolicy::LIMITS.len()];
    for max in &mut maxima {
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
        let version = self.u8()?;
        let (has_seldom, has_credit) = match version {
            ACCOUNT_FORMAT => (false, false),
            FULL_FORMAT | PREVIOUS_FORMAT => (true, false),
            CREDIT_FORMAT => (false, true),
            FULL_CREDIT_FORMAT => (true, true),
            other => return Err(PackedError::Format(other)),
        };
        let origins = self.charged_in()?;
        // Whether it is suspended, and whether anything is pending, is at the head, for the script.
        self.u8()?;
        let levels = self.levels()?;
        let windows = origins.map(|Origin { id, epoch }| Counter { id: *id, epoch: *epoch, ..Counter::default() });
        let mut account = Account { windows, levels, ..Account::default() };
        for period in Period::ALL {
            let counter = account.windows.of_mut(period);
            counter.amount = self.number()?;
            counter.count = self.number()?;
        }
        account.version = self.number()?;
        if has_credit {
            account.credit = Some(self.credit()?);
        }
        if has_seldom {
            self.seldom(&mut account)?;
        }
        Ok(account)
    }

    fn seldom(&mut self, account: &mut Account) -> Result<(), PackedError> {
        for period in Period::ALL {
            account.windows.of_mut(period).refunded = self.number()?;
        }
        account.pending = self.number()?;
        account.paced_until_us = self.number()?;
        account.suspended_at_ms = self.number()?;
        Ok(())
    }

    fn credit(&mut self) -> Result<CreditUsage, PackedError> {
        Ok(CreditUsage { cycle: self.u32()?, exposure: self.signed()?, unbilled: self.number()? })
    }

    /// The usage before, in an account that is otherwise as it was after.
    pub(super) fn before(&mut self, after: Account) -> Result<Account, PackedError> {
        let mut before = after;
        for period in Period::ALL {
            let counter = before.windows.of_mut(period);
            counter.amount = self.number()?;
            counter.count = self.number()?;
            counter.refunded = self.number()?;
        }
        before.pending = self.number()?;
        if let Some(credit) = &mut before.credit {
            credit.exposure = self.signed()?;
            credit.unbilled = self.number()?;
        }
        Ok(before)
    }

    fn levels(&mut self) -> Result<ThresholdLevels, PackedError> {
        Ok(ThresholdLevels::unpacked(self.number()?, self.u16()?))
    }
}
