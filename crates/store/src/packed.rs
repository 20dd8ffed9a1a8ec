//! The packed values that the Redis script reads and writes. What their fields mean is stated at the head of `lua/call.lua`.

mod command;
pub(crate) mod layout;
pub(crate) mod op;

use quota::{
    Account, AmountMinor, AttemptId, ClosedWindow, Code, Counter, Crossing, Currency, First, Hold, Merchant, OnExpiry,
    Operation, OperationId, OperationKind, Order, OrderState, OrderSummary, Origin, Origins, PerPeriod, Period, Record,
    ThresholdLevels, ThresholdPolicy, Thresholds, WindowUsage,
};
use thiserror::Error;

pub use command::{KeyIndexes, command, is_plain};
use layout::{
    ACCOUNT, BEFORE, FIRST, FORMAT, MERCHANT_FORMAT, PREVIOUS_ACCOUNT, PREVIOUS_BEFORE, PREVIOUS_FORMAT,
    PREVIOUS_RECORD_FORMAT, RECORD, RECORD_FORMAT, len,
};

/// The limits that had thresholds in the previous format.
const PREVIOUS_LIMITS: usize = 7;
/// Length of a decision id.
const DECISION_ID_LEN: usize = 16;
/// Flags of an order.
const PINNED: u8 = 1;
const HAS_TAIL: u8 = 2;
const GIVEN_BACK: u8 = 4;
const UNKNOWN: u8 = 8;
const MADE: u8 = 16;
const DOUBTED: u8 = 32;
/// Flags of a record.
const REPLAY: u8 = 1;
const CHANGED: u8 = 2;
const OTHER_DECISION: u8 = 4;
const MERCHANT_SUSPENDED: u8 = 8;
const CONFLICTS: u8 = 16;
const WAS_UNKNOWN: u8 = 32;

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
    #[error("the currency is unknown")]
    Currency,
    #[error("a number is not an integer from 0 to 2^53 - 1")]
    Number,
}

/// An order as the store keeps it.
#[must_use]
pub fn pack_order(order: &Order) -> Vec<u8> {
    let mut packed = Vec::with_capacity(128);
    let mut out = Writer(&mut packed);
    let count = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    out.bytes(&[FORMAT]);
    out.charged_in(&order.charged_in);
    out.bytes(&[order.state.number(), flags(order) + HAS_TAIL]);
    out.bytes(order.currency.code().as_bytes());
    out.amount(order.amount);
    out.u32(order.expires_at_secs);
    out.bytes(&order.decision_id);
    out.bytes(&[count(order.live.len()), count(order.voided.len()), count(order.operations.len())]);
    order.live.iter().chain(&order.voided).for_each(|attempt| out.bytes(&attempt.0));
    out.u32(order.hold.until_secs);
    out.bytes(&[u8::from(order.hold.on_expiry == OnExpiry::Settle)]);
    out.number(order.settled);
    out.number(order.refunded);
    for operation in &order.operations {
        out.bytes(&[operation.kind.number()]);
        out.bytes(&operation.id.0);
        out.bytes(&operation.attempt.0);
        out.amount(operation.amount);
        out.charged_in(&operation.counted);
        out.bytes(&operation.decision_id);
    }
    packed
}

fn flags(order: &Order) -> u8 {
    let set = [
        (order.pinned, PINNED),
        (order.given_back, GIVEN_BACK),
        (order.unknown, UNKNOWN),
        (order.made, MADE),
        (order.doubted, DOUBTED),
    ];
    set.into_iter().filter_map(|(is_set, flag)| is_set.then_some(flag)).sum()
}

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
    let full = |flags: u8, account: &str, before: &str| {
        let before = if flags & CHANGED == 0 { 0 } else { len(before) };
        let decision_id = if flags & OTHER_DECISION == 0 { 0 } else { DECISION_ID_LEN };
        let first = if flags & CONFLICTS == 0 { 0 } else { len(FIRST) };
        len(RECORD) + len(account) + before + decision_id + first
    };
    let len = match **bytes {
        [FORMAT, ..] => len(ACCOUNT),
        [PREVIOUS_FORMAT, ..] => len(PREVIOUS_ACCOUNT),
        [RECORD_FORMAT, _, flags, ..] => full(flags, ACCOUNT, BEFORE),
        [PREVIOUS_RECORD_FORMAT, _, flags, ..] => full(flags, PREVIOUS_ACCOUNT, PREVIOUS_BEFORE),
        [] | [RECORD_FORMAT | PREVIOUS_RECORD_FORMAT] | [RECORD_FORMAT | PREVIOUS_RECORD_FORMAT, _] => {
            return Err(PackedError::Short);
        }
        [other, ..] => return Err(PackedError::Format(other)),
    };
    let (record, rest) = bytes.split_at_checked(len).ok_or(PackedError::Short)?;
    *bytes = rest;
    Ok(record)
}

/// The record of a plain charge of `amount` that left the account so; an account of the previous format has no week.
fn plain(after: &Account, amount: u64, has_week: bool) -> Result<Record, PackedError> {
    let charged = |counter: &Counter| {
        let before = counter.amount.checked_sub(amount).zip(counter.count.checked_sub(1));
        let (amount, count) = before.ok_or(PackedError::Number)?;
        Ok(window(&Counter { amount, count, ..*counter }, counter))
    };
    let windows = PerPeriod {
        day: charged(&after.windows.day)?,
        week: if has_week { charged(&after.windows.week)? } else { WindowUsage::default() },
        month: charged(&after.windows.month)?,
        year: charged(&after.windows.year)?,
    };
    Ok(Record {
        windows,
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

/// Reads an order.
///
/// # Errors
/// [`PackedError`] where the bytes are not one.
pub fn order(bytes: &[u8]) -> Result<Order, PackedError> {
    let mut reader = Reader(bytes);
    let format = reader.format()?;
    let charged_in = reader.charged_in(format)?;
    let state = reader.state()?;
    let flags = reader.u8()?;
    let currency = reader.currency()?;
    let amount = reader.amount()?;
    let expires_at_secs = reader.u32()?;
    let decision_id = reader.array()?;
    let (live, voided, operations) = (reader.u8()?, reader.u8()?, reader.u8()?);
    let mut attempts = |number| (0..number).map(|_| reader.array().map(AttemptId)).collect::<Result<Vec<_>, _>>();
    let (live, voided) = (attempts(live)?, attempts(voided)?);
    let mut order = Order {
        currency,
        amount,
        charged_in,
        state,
        pinned: flags & PINNED != 0,
        given_back: flags & GIVEN_BACK != 0,
        unknown: flags & UNKNOWN != 0,
        made: flags & MADE != 0,
        doubted: flags & DOUBTED != 0,
        hold: Hold::default(),
        settled: 0,
        refunded: 0,
        live,
        voided,
        operations: Vec::new(),
        decision_id,
        expires_at_secs,
    };
    if flags & HAS_TAIL != 0 {
        let until_secs = reader.u32()?;
        let on_expiry = if reader.u8()? == 0 { OnExpiry::Void } else { OnExpiry::Settle };
        order.hold = Hold { until_secs, on_expiry };
        order.settled = reader.number()?;
        order.refunded = reader.number()?;
        order.operations = (0..operations).map(|_| reader.operation(format)).collect::<Result<_, _>>()?;
    }
    reader.finish(order)
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

    /// The day determines month and year, see [`Reader::charged_in`].
    fn charged_in(&mut self, origins: &Origins) {
        let Origins { day, week, month, year } = origins;
        self.u32(day.id);
        self.u32(week.id);
        self.bytes(&[day.epoch, week.epoch, month.epoch, year.epoch]);
    }
}

/// The format of a value: the present one, or the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Present,
    Previous,
}

impl Format {
    /// The windows that an account of this format has, in their order.
    fn periods(self) -> impl Iterator<Item = Period> {
        Period::ALL.into_iter().filter(move |period| self == Self::Present || *period != Period::Week)
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

    fn levels(&mut self, format: Format) -> Result<ThresholdLevels, PackedError> {
        let packed = match format {
            Format::Present => self.number()?,
            Format::Previous => self.u32()?.into(),
        };
        Ok(ThresholdLevels::unpacked(packed, self.u16()?))
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

    /// The month and year of a charge are those of its day. In the previous format it has no week.
    fn charged_in(&mut self, format: Format) -> Result<Origins, PackedError> {
        let day = self.u32()?;
        let week = match format {
            Format::Present => self.u32()?,
            Format::Previous => 0,
        };
        let [of_day, of_week, of_month, of_year] = match format {
            Format::Present => self.array()?,
            Format::Previous => {
                let [of_day, of_month, of_year] = self.array()?;
                [of_day, 0, of_month, of_year]
            }
        };
        Ok(Origins {
            day: Origin { id: day, epoch: of_day },
            week: Origin { id: week, epoch: of_week },
            month: Origin { id: day / 100, epoch: of_month },
            year: Origin { id: day / 10_000, epoch: of_year },
        })
    }

    /// The version byte of an account or order.
    fn format(&mut self) -> Result<Format, PackedError> {
        match self.u8()? {
            FORMAT => Ok(Format::Present),
            PREVIOUS_FORMAT => Ok(Format::Previous),
            other => Err(PackedError::Format(other)),
        }
    }

    fn record(&mut self, amount: u64) -> Result<(Record, Option<[u8; DECISION_ID_LEN]>), PackedError> {
        match self.0.first() {
            Some(&FORMAT) => Ok((plain(&self.account()?, amount, true)?, None)),
            Some(&PREVIOUS_FORMAT) => Ok((plain(&self.account()?, amount, false)?, None)),
            Some(&RECORD_FORMAT) => self.full_record(Format::Present),
            Some(&PREVIOUS_RECORD_FORMAT) => self.full_record(Format::Previous),
            Some(&other) => Err(PackedError::Format(other)),
            None => Err(PackedError::Short),
        }
    }

    fn full_record(&mut self, format: Format) -> Result<(Record, Option<[u8; DECISION_ID_LEN]>), PackedError> {
        self.u8()?;
        let number = self.u8()?;
        let code = Code::from_number(number).ok_or(PackedError::Code(number))?;
        let flags = self.u8()?;
        let state = self.state()?;
        let hold_until_secs = self.u32()?;
        let (amount, wait_ms) = (self.number()?, self.number()?);
        let (order_amount, settled, refunded) = (self.number()?, self.number()?, self.number()?);
        let after = self.account()?;
        let before = if flags & CHANGED == 0 { after } else { self.before(after, format)? };
        let decision_id = if flags & OTHER_DECISION == 0 { None } else { Some(self.array()?) };
        let first = if flags & CONFLICTS == 0 { None } else { Some(self.first()?) };
        let record = Record {
            code,
            replay: flags & REPLAY != 0,
            windows: PerPeriod::from_fn(|period| window(before.of(period), after.of(period))),
            pending_before: before.pending,
            pending_after: after.pending,
            amount,
            wait_ms,
            order: OrderSummary { state, hold_until_secs, amount: order_amount, settled, refunded },
            first,
            was_unknown: flags & WAS_UNKNOWN != 0,
            suspended_at_ms: after.suspended_at_ms,
            merchant_suspended: flags & MERCHANT_SUSPENDED != 0,
            version: after.version,
            levels: after.levels,
        };
        Ok((record, decision_id))
    }

    fn first(&mut self) -> Result<First, PackedError> {
        Ok(First { amount: self.number()?, currency: self.currency()? })
    }

    fn currency(&mut self) -> Result<Currency, PackedError> {
        let letters = self.array::<3>()?;
        let currency = std::str::from_utf8(&letters).ok().and_then(|code| Currency::parse(code).ok());
        currency.ok_or(PackedError::Currency)
    }

    fn account(&mut self) -> Result<Account, PackedError> {
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
    fn before(&mut self, after: Account, format: Format) -> Result<Account, PackedError> {
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

    fn operation(&mut self, format: Format) -> Result<Operation, PackedError> {
        let number = self.u8()?;
        Ok(Operation {
            kind: OperationKind::from_number(number).ok_or(PackedError::Operation(number))?,
            id: OperationId(self.array()?),
            attempt: AttemptId(self.array()?),
            amount: self.amount()?,
            counted: self.charged_in(format)?,
            decision_id: self.array()?,
        })
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
        assert_eq!(record(&[9, 0, 0, 0], 0), Err(PackedError::Format(9)));
        assert_eq!([account(&[]), account(&[FORMAT])], [Err(PackedError::Short), Err(PackedError::Short)]);
        assert_eq!(record(&[], 0), Err(PackedError::Short));
    }
}
