//! The packed values that the Redis script reads and writes; their layout is stated at the head of `lua/decide.lua`.

use quota::{
    Account, Action, Adjust, AmountMinor, AttemptId, Change, Charge, ClosedWindow, Code, Command, Counter, Currency,
    Dry, Hold, HoldTerms, Limits, OnExpiry, Operation, OperationId, OperationKind, Order, OrderFigures, OrderState,
    Origin, Origins, Pace, Period, Record, Refund, Reset, WindowFigures, WindowIds,
};
use thiserror::Error;

/// The format of every packed value so far.
const FORMAT: u8 = 2;
/// In the place of a capture's bound: the money has moved.
const REPORTED: u8 = 255;
/// Flags of an order.
const PINNED: u8 = 1;
const HAS_TAIL: u8 = 2;

/// A value that does not have its format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PackedError {
    #[error("the value ends too early")]
    Short,
    #[error("the value has {0} bytes too many")]
    Long(usize),
    #[error("the format is {0}, not 2")]
    Format(u8),
    #[error("{0} is no code")]
    Code(u8),
    #[error("{0} is no state of an order")]
    State(u8),
    #[error("{0} is no kind of operation")]
    Operation(u8),
    #[error("{0} is no kind of window")]
    Period(u8),
    #[error("the currency is unknown")]
    Currency,
    #[error("a number is not a whole one from 0 to 2^53 - 1")]
    Number,
}

/// The script's argument for a command.
#[must_use]
pub fn command(command: &Command) -> Vec<u8> {
    let WindowIds { day, month, year } = command.windows;
    let mut out = Writer(Vec::with_capacity(192));
    out.bytes(&[op(&command.action), flags(command), refusal(&command.action)]);
    out.bytes(command.currency.code().as_bytes());
    [day, month, year].into_iter().for_each(|id| out.u32(id));
    out.number(command.time_ms());
    out.u32(command.order_ttl_secs);
    out.u32(command.backlog_max);
    out.bytes(&command.attempt.0);
    out.bytes(&command.decision_id);
    out.optional(command.action.amount().map(AmountMinor::get));
    match &command.action {
        Action::Consume(charge) => out.charge(charge, None),
        Action::Hold(charge, terms) => out.charge(charge, Some(terms)),
        Action::Settle(settle) => {
            out.bytes(&settle.id.0);
            out.bytes(&[if settle.reported { REPORTED } else { settle.over_capture_percent }]);
        }
        Action::Refund(refund) | Action::Release(refund) => {
            out.bytes(&refund.id.0);
            out.amount(refund.daily_max);
            out.amount(refund.monthly_max);
        }
        Action::Adjust(adjust) => {
            let change = match adjust.change {
                Change::Add(_) => 1,
                Change::Subtract(_) => 2,
                Change::Set(_) => 3,
            };
            out.bytes(&[adjust.counter.number(), change]);
            out.optional(adjust.expected_version);
        }
        Action::Reset(Reset { day, month, year, expected_version }) => {
            out.bytes(&[u8::from(*day) + 2 * u8::from(*month) + 4 * u8::from(*year)]);
            out.optional(*expected_version);
        }
        Action::VoidAttempt
        | Action::Void
        | Action::Expire
        | Action::Suspend
        | Action::Resume
        | Action::Initialize
        | Action::Roll => {}
    }
    out.0
}

const fn op(action: &Action) -> u8 {
    match action {
        Action::Consume(_) => 1,
        Action::Hold(..) => 2,
        Action::VoidAttempt => 3,
        Action::Void => 4,
        Action::Settle(_) => 5,
        Action::Refund(_) => 6,
        Action::Release(_) => 7,
        Action::Expire => 8,
        Action::Adjust(Adjust { .. }) => 9,
        Action::Reset(_) => 10,
        Action::Suspend => 11,
        Action::Resume => 12,
        Action::Initialize => 13,
        Action::Roll => 14,
    }
}

const fn flags(command: &Command) -> u8 {
    let dry = match command.dry {
        Dry::No => 0,
        Dry::Silent => 1,
        Dry::Noted => 3,
    };
    let more = match &command.action {
        Action::Consume(charge) | Action::Hold(charge, _) if charge.pace.is_some() => 4,
        Action::Settle(settle) if settle.last => 8,
        Action::Refund(Refund { reserve: true, .. }) | Action::Release(Refund { reserve: true, .. }) => 8,
        _ => 0,
    };
    dry + more
}

fn refusal(action: &Action) -> u8 {
    match action {
        Action::Consume(charge) | Action::Hold(charge, _) => charge.refusal.map_or(0, Code::number),
        _ => 0,
    }
}

/// An order as the store keeps it.
#[must_use]
pub fn pack_order(order: &Order) -> Vec<u8> {
    let mut out = Writer(Vec::with_capacity(128));
    let count = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    out.bytes(&[FORMAT, order.state.number(), u8::from(order.pinned) + HAS_TAIL]);
    out.bytes(order.currency.code().as_bytes());
    out.origins(&order.charged_in);
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
        out.origins(&operation.counted);
        out.bytes(&operation.decision_id);
    }
    out.0
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
    let state = reader.state()?;
    let Origins { day, month, year } = reader.origins()?;
    reader.u8()?;
    let hold_until_secs = reader.u32()?;
    let (day, month, year) = (reader.window(day)?, reader.window(month)?, reader.window(year)?);
    let record = Record {
        code,
        replay,
        day,
        month,
        year,
        pending_before: reader.number()?,
        pending_after: reader.number()?,
        amount: reader.number()?,
        wait_ms: reader.number()?,
        order: OrderFigures {
            state,
            hold_until_secs,
            amount: reader.number()?,
            settled: reader.number()?,
            refunded: reader.number()?,
        },
        suspended_at_ms: reader.number()?,
        version: reader.number()?,
    };
    reader.finish(record)
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
        let period = Period::ALL.get(usize::from(number)).copied().ok_or(PackedError::Period(number))?;
        let (id, epoch) = (reader.u32()?, reader.u8()?);
        windows.push(ClosedWindow { period, counter: reader.counter(Origin { id, epoch })? });
    }
    Ok(windows)
}

/// Reads an account.
///
/// # Errors
/// [`PackedError`] where the bytes are not one.
pub fn account(bytes: &[u8]) -> Result<Account, PackedError> {
    let mut reader = Reader::new(bytes)?;
    let Origins { day, month, year } = reader.origins()?;
    let account = Account {
        day: reader.counter(day)?,
        month: reader.counter(month)?,
        year: reader.counter(year)?,
        pending: reader.number()?,
        paced_until_us: reader.number()?,
        suspended_at_ms: reader.number()?,
        version: reader.number()?,
    };
    reader.finish(account)
}

/// Reads an order.
///
/// # Errors
/// [`PackedError`] where the bytes are not one.
pub fn order(bytes: &[u8]) -> Result<Order, PackedError> {
    let mut reader = Reader::new(bytes)?;
    let state = reader.state()?;
    let flags = reader.u8()?;
    let letters = reader.array::<3>()?;
    let currency = std::str::from_utf8(&letters).ok().and_then(|code| Currency::parse(code).ok());
    let charged_in = reader.origins()?;
    let amount = reader.amount()?;
    let expires_at_secs = reader.u32()?;
    let decision_id = reader.array()?;
    let (live, voided, operations) = (reader.u8()?, reader.u8()?, reader.u8()?);
    let mut attempts = |number| (0..number).map(|_| reader.array().map(AttemptId)).collect::<Result<Vec<_>, _>>();
    let (live, voided) = (attempts(live)?, attempts(voided)?);
    let mut order = Order {
        currency: currency.ok_or(PackedError::Currency)?,
        amount,
        charged_in,
        state,
        pinned: flags & PINNED != 0,
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
        order.operations = (0..operations).map(|_| reader.operation()).collect::<Result<_, _>>()?;
    }
    reader.finish(order)
}

/// Puts fields one after the other, little endian; numbers as doubles, which hold them exactly.
struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
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

    fn origins(&mut self, origins: &Origins) {
        let Origins { day, month, year } = origins;
        [day, month, year].into_iter().for_each(|origin| self.u32(origin.id));
        self.bytes(&[day.epoch, month.epoch, year.epoch]);
    }

    fn windows(&mut self, limits: &Limits) {
        let Limits { day, month, year, .. } = limits;
        let maxima = [day.count, month.count, year.count, day.amount, month.amount, year.amount];
        maxima.into_iter().for_each(|max| self.amount(max));
    }

    fn charge(&mut self, charge: &Charge, hold: Option<&HoldTerms>) {
        self.windows(&charge.limits);
        self.amount(charge.limits.pending);
        if let Some(terms) = hold {
            self.u32(terms.lifetime_secs);
            self.bytes(&[u8::from(terms.on_expiry == OnExpiry::Settle)]);
        }
        if let Some(Pace { interval_us, tolerance_us, delay_ms_max, ceiling }) = &charge.pace {
            [u64::from(*interval_us), *tolerance_us, u64::from(*delay_ms_max)]
                .into_iter()
                .for_each(|us| self.number(us));
            self.windows(ceiling);
        }
    }
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

    fn amount(&mut self) -> Result<AmountMinor, PackedError> {
        AmountMinor::new(self.number()?).ok_or(PackedError::Number)
    }

    fn state(&mut self) -> Result<OrderState, PackedError> {
        let number = self.u8()?;
        OrderState::from_number(number).ok_or(PackedError::State(number))
    }

    fn origins(&mut self) -> Result<Origins, PackedError> {
        let ids = [self.u32()?, self.u32()?, self.u32()?];
        let epochs = self.array::<3>()?;
        let [day, month, year] = std::array::from_fn(|at| {
            let id = ids.get(at).copied().unwrap_or_default();
            Origin { id, epoch: epochs.get(at).copied().unwrap_or_default() }
        });
        Ok(Origins { day, month, year })
    }

    fn counter(&mut self, Origin { id, epoch }: Origin) -> Result<Counter, PackedError> {
        Ok(Counter { id, epoch, amount: self.number()?, count: self.number()?, refunded: self.number()? })
    }

    fn window(&mut self, Origin { id, epoch }: Origin) -> Result<WindowFigures, PackedError> {
        Ok(WindowFigures {
            id,
            epoch,
            amount_before: self.number()?,
            amount_after: self.number()?,
            count_before: self.number()?,
            count_after: self.number()?,
            refunded_before: self.number()?,
            refunded_after: self.number()?,
        })
    }

    fn operation(&mut self) -> Result<Operation, PackedError> {
        let number = self.u8()?;
        Ok(Operation {
            kind: OperationKind::from_number(number).ok_or(PackedError::Operation(number))?,
            id: OperationId(self.array()?),
            attempt: AttemptId(self.array()?),
            amount: self.amount()?,
            counted: self.origins()?,
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
            bytes.extend_from_slice(&[0; 15]);
            (0..13).for_each(|_| bytes.extend_from_slice(&number(value)));
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
        assert_eq!(record(&[FORMAT, 99, 0, 0]), Err(PackedError::Code(99)));
        assert_eq!(account(&[]), Err(PackedError::Short));
    }
}
