//! Orders with their attempts and operations.

use quota::{AttemptId, Hold, OnExpiry, Operation, OperationId, OperationKind, Order, Weight};

use super::layout::ORDER_FORMAT;
use super::{PackedError, Reader, Writer, flags};

/// An order as the store keeps it.
#[must_use]
pub fn pack_order(order: &Order) -> Vec<u8> {
    let mut packed = Vec::with_capacity(128);
    let mut out = Writer(&mut packed);
    let count = |number: usize| u8::try_from(number).unwrap_or(u8::MAX);
    out.bytes(&[ORDER_FORMAT]);
    out.charged_in(&order.charged_in);
    out.bytes(&[order.state.number(), flags_of(order) + flags::ORDER_HAS_TAIL]);
    out.bytes(order.currency.code().as_bytes());
    out.amount(order.amount);
    out.u32(order.expires_at_secs);
    out.bytes(&order.decision_id);
    out.bytes(&[count(order.live.len()), count(order.voided.len()), count(order.operations.len())]);
    order.live.iter().chain(&order.voided).for_each(|attempt| out.bytes(&attempt.0));
    if order.credit_cycle > 0 {
        out.u32(order.credit_cycle);
    }
    if !order.weight.is_amount() {
        out.weight(order.weight);
    }
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

fn flags_of(order: &Order) -> u8 {
    let set = [
        (order.pinned, flags::ORDER_PINNED),
        (order.given_back, flags::ORDER_GIVEN_BACK),
        (order.unknown, flags::ORDER_UNKNOWN),
        (order.made, flags::ORDER_MADE),
        (order.doubted, flags::ORDER_DOUBTED),
        (order.credit_cycle > 0, flags::ORDER_ON_CREDIT),
        (!order.weight.is_amount(), flags::ORDER_WEIGHED),
    ];
    set.into_iter().filter_map(|(is_set, flag)| is_set.then_some(flag)).sum()
}

/// Reads an order.
///
/// # Errors
/// [`PackedError`] where the bytes are not one.
pub fn order(bytes: &[u8]) -> Result<Order, PackedError> {
    let mut reader = Reader::new(bytes, ORDER_FORMAT)?;
    let charged_in = reader.charged_in()?;
    let state = reader.state()?;
    let set = reader.u8()?;
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
        weight: Weight::AMOUNT,
        charged_in,
        state,
        pinned: set & flags::ORDER_PINNED != 0,
        given_back: set & flags::ORDER_GIVEN_BACK != 0,
        unknown: set & flags::ORDER_UNKNOWN != 0,
        made: set & flags::ORDER_MADE != 0,
        doubted: set & flags::ORDER_DOUBTED != 0,
        hold: Hold::default(),
        settled: 0,
        refunded: 0,
        credit_cycle: if set & flags::ORDER_ON_CREDIT == 0 { 0 } else { reader.u32()? },
        live,
        voided,
        operations: Vec::new(),
        decision_id,
        expires_at_secs,
    };
    if set & flags::ORDER_WEIGHED != 0 {
        order.weight = reader.weight()?;
    }
    if set & flags::ORDER_HAS_TAIL != 0 {
        let until_secs = reader.u32()?;
        let on_expiry = if reader.u8()? == 0 { OnExpiry::Void } else { OnExpiry::Settle };
        order.hold = Hold { until_secs, on_expiry };
        order.settled = reader.number()?;
        order.refunded = reader.number()?;
        order.operations = (0..operations).map(|_| reader.operation()).collect::<Result<_, _>>()?;
    }
    reader.finish(order)
}

impl Reader<'_> {
    fn operation(&mut self) -> Result<Operation, PackedError> {
        let number = self.u8()?;
        Ok(Operation {
            kind: OperationKind::from_number(number).ok_or(PackedError::Operation(number))?,
            id: OperationId(self.array()?),
            attempt: AttemptId(self.array()?),
            amount: self.amount()?,
            counted: self.charged_in()?,
            decision_id: self.array()?,
        })
    }
}
