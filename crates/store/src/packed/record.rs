//! Records of decisions: in replies, and the same bytes in events.

use quota::{
    Account, Code, Counter, CreditRecord, First, OrderState, OrderSummary, PerPeriod, Record, Weighed, WindowUsage,
};

use super::layout::{
    ACCOUNT_FORMAT, BEFORE, CREDIT, CREDIT_BEFORE, CREDIT_FORMAT, FIRST, FULL_CREDIT_FORMAT, FULL_FORMAT,
    PREVIOUS_FORMAT, PREVIOUS_RECORD_FORMAT, RECORD, RECORD_FORMAT, SELDOM, USAGE, WEIGHED, len,
};
use super::{PackedError, Reader, flags};

/// Length of a decision id.
const DECISION_ID_LEN: usize = 16;

/// Reads a decision record; `amount` is the command's, which a plain charge's record leaves out.
///
/// # Errors
/// [`PackedError`] where the bytes are not one.
pub fn record(bytes: &[u8], amount: u64) -> Result<Record, PackedError> {
    record_and_decision(bytes, amount).map(|(record, _)| record)
}

/// Reads a decision record, and the id of the decision that the caller gets where it is another one; see [`record`].
///
/// # Errors
/// [`PackedError`] where the bytes are not one.
pub fn record_and_decision(bytes: &[u8], amount: u64) -> Result<(Record, Option<[u8; DECISION_ID_LEN]>), PackedError> {
    let mut reader = Reader(bytes);
    let record = reader.record(amount)?;
    reader.finish(record)
}

/// Takes a decision record off the front, unread: its length depends on its format and flags alone.
///
/// # Errors
/// [`PackedError`] where the bytes are too few, or of another format.
pub fn take_record<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], PackedError> {
    let len = match **bytes {
        [RECORD_FORMAT | PREVIOUS_RECORD_FORMAT, _, set, ..] => {
            let version = *bytes.get(len(RECORD)).ok_or(PackedError::Short)?;
            let when = |flag: u8, len: usize| if set & flag == 0 { 0 } else { len };
            let credit = if is_on_credit(version) { len(CREDIT_BEFORE) } else { 0 };
            let others = when(flags::RECORD_OTHER_DECISION, DECISION_ID_LEN)
                + when(flags::RECORD_CONFLICTS, len(FIRST))
                + when(flags::RECORD_WEIGHED, len(WEIGHED));
            len(RECORD) + account_len(version)? + when(flags::RECORD_CHANGED, len(BEFORE) + credit) + others
        }
        [] | [RECORD_FORMAT | PREVIOUS_RECORD_FORMAT] | [RECORD_FORMAT | PREVIOUS_RECORD_FORMAT, _] => {
            return Err(PackedError::Short);
        }
        [version, ..] => account_len(version)?,
    };
    let (record, rest) = bytes.split_at_checked(len).ok_or(PackedError::Short)?;
    *bytes = rest;
    Ok(record)
}

const fn is_on_credit(version: u8) -> bool {
    matches!(version, CREDIT_FORMAT | FULL_CREDIT_FORMAT)
}

/// The length of an account by its version.
const fn account_len(version: u8) -> Result<usize, PackedError> {
    match version {
        ACCOUNT_FORMAT => Ok(len(USAGE)),
        FULL_FORMAT | PREVIOUS_FORMAT => Ok(len(USAGE) + len(SELDOM)),
        CREDIT_FORMAT => Ok(len(USAGE) + len(CREDIT)),
        FULL_CREDIT_FORMAT => Ok(len(USAGE) + len(CREDIT) + len(SELDOM)),
        other => Err(PackedError::Format(other)),
    }
}

/// The record of a plain charge of `amount` that left the account so.
fn plain(after: &Account, amount: u64) -> Result<Record, PackedError> {
    let charged = |counter: &Counter| {
        let before = counter.amount.checked_sub(amount).zip(counter.count.checked_sub(1));
        let (amount, count) = before.ok_or(PackedError::Number)?;
        Ok(window(&Counter { amount, count, ..*counter }, counter))
    };
    let windows = PerPeriod {
        day: charged(&after.windows.day)?,
        week: charged(&after.windows.week)?,
        month: charged(&after.windows.month)?,
        year: charged(&after.windows.year)?,
    };
    let mut before = *after;
    if let Some(credit) = &mut before.credit {
        credit.exposure = credit.exposure.saturating_sub_unsigned(amount);
        credit.unbilled = credit.unbilled.checked_sub(amount).ok_or(PackedError::Number)?;
    }
    Ok(Record {
        windows,
        credit: CreditRecord::between(&before, after),
        pending_before: after.pending,
        pending_after: after.pending,
        amount,
        order: OrderSummary { state: OrderState::Charged, amount, ..OrderSummary::default() },
        suspended_at_ms: after.suspended_at_ms,
        version: after.version,
        levels: after.levels,
        ..Record::bare(Code::Admitted)
    })
}

const fn window(before: &Counter, after: &Counter) -> WindowUsage {
    WindowUsage {
        id: after.id,
        epoch: after.epoch,
        amount_before: before.amount,
        amount_after: after.amount,
        count_before: before.count,
        count_after: after.count,
        refunded_before: before.refunded,
        refunded_after: after.refunded,
    }
}

impl Reader<'_> {
    fn record(&mut self, amount: u64) -> Result<(Record, Option<[u8; DECISION_ID_LEN]>), PackedError> {
        match self.0.first() {
            Some(&(RECORD_FORMAT | PREVIOUS_RECORD_FORMAT)) => self.full_record(),
            Some(_) => Ok((plain(&self.account()?, amount)?, None)),
            None => Err(PackedError::Short),
        }
    }

    fn full_record(&mut self) -> Result<(Record, Option<[u8; DECISION_ID_LEN]>), PackedError> {
        self.u8()?;
        let number = self.u8()?;
        let code = Code::from_number(number).ok_or(PackedError::Code(number))?;
        let set = self.u8()?;
        let state = self.state()?;
        let hold_until_secs = self.u32()?;
        let (amount, wait_ms) = (self.number()?, self.number()?);
        let (order_amount, settled, refunded) = (self.number()?, self.number()?, self.number()?);
        let after = self.account()?;
        let before = if set & flags::RECORD_CHANGED == 0 { after } else { self.before(after)? };
        let decision_id = if set & flags::RECORD_OTHER_DECISION == 0 { None } else { Some(self.array()?) };
        let first = if set & flags::RECORD_CONFLICTS == 0 { None } else { Some(self.first()?) };
        let weighed = if set & flags::RECORD_WEIGHED == 0 { None } else { Some(self.weighed()?) };
        let record = Record {
            code,
            replay: set & flags::RECORD_REPLAY != 0,
            windows: PerPeriod::from_fn(|period| window(before.of(period), after.of(period))),
            pending_before: before.pending,
            pending_after: after.pending,
            amount,
            weighed,
            wait_ms,
            order: OrderSummary { state, hold_until_secs, amount: order_amount, settled, refunded },
            first,
            was_unknown: set & flags::RECORD_WAS_UNKNOWN != 0,
            suspended_at_ms: after.suspended_at_ms,
            merchant_suspended: set & flags::RECORD_MERCHANT_SUSPENDED != 0,
            version: after.version,
            levels: after.levels,
            credit: CreditRecord::between(&before, &after),
        };
        Ok((record, decision_id))
    }

    fn weighed(&mut self) -> Result<Weighed, PackedError> {
        Ok(Weighed { weight: self.weight()?, counted: self.number()? })
    }

    fn first(&mut self) -> Result<First, PackedError> {
        Ok(First { amount: self.number()?, currency: self.currency()? })
    }
}
