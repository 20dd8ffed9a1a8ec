//! What the server knows about a command, as the event stream carries it: [`proto::journal::EventContext`], written directly,
//! without building the message first, because every payment has one.

use prost::encoding::{WireType, encode_key, encode_varint};
use quota::{
    Action, AmountMinor, Change, Channel, Command, Mark, OnExpiry, OperationId, OperationNo, OrderNo, PaymentNo, Reset,
    Subject,
};

use super::outcome::{operation_word, resolution_word};
use super::{AuditContext, CreditContext, NO_ATTEMPT};

/// About the bytes that a credit line takes.
const CREDIT_BYTES: usize = 48;

/// Appends the context of a command's event, as protobuf.
pub(super) fn encode(out: &mut Vec<u8>, command: &Command, audit: &AuditContext) {
    let order_no = command.order_no.as_ref();
    let attempt = order_no.map(|_| command.attempt).filter(|attempt| *attempt != NO_ATTEMPT);
    let operation = operation_id(&command.action);
    let hand = ByHand::of(&command.action);
    let trace_id = audit.trace.map(|trace| trace.id.hex());
    let mut message = Message(out);
    message.bytes(1, &command.decision_id);
    message.number(2, command.now_ms.cast_unsigned());
    message.text(3, action_word(&command.action));
    message.text(4, command.merchant.as_str());
    message.text(5, if command.action.is_of_merchant() { "" } else { command.currency.code() });
    message.number(6, command.action.amount().map_or(0, AmountMinor::get));
    message.text(7, order_no.map_or("", OrderNo::as_str));
    message.text(8, command.payment_no.as_ref().map_or("", PaymentNo::as_str));
    message.text(9, command.channel.as_ref().map_or("", Channel::as_str));
    message.bytes(10, attempt.as_ref().map_or(&[], |attempt| &attempt.0));
    message.text(11, &audit.actor);
    message.text(12, &audit.policy_version);
    message.text(13, audit.mode);
    message.bytes(14, trace_id.as_ref().map_or(&[], |digits| digits));
    message.text(15, &audit.reason);
    message.text(16, command.operation_no.as_ref().map_or("", OperationNo::as_str));
    message.bytes(17, operation.as_ref().map_or(&[], |id| &id.0));
    message.text(18, audit.operator_type);
    message.text(19, &audit.remarks);
    message.text(20, &audit.metadata);
    message.text(21, &hand.counter);
    message.text(22, hand.change);
    message.optional(23, hand.expected_version);
    message.text(24, hold_on_expiry(&command.action));
    message.number(25, order_no.map_or(0, |_| u64::from(command.order_ttl_secs)));
    let refusal = audit.refusal.as_ref().and_then(|details| serde_json::to_string(details).ok());
    message.text(30, &refusal.unwrap_or_default());
    if let Some(credit) = &audit.credit {
        let mut inner = Vec::with_capacity(CREDIT_BYTES);
        Message(&mut inner).credit(credit);
        message.message(31, &inner);
    }
    message.number(32, audit.value_day.map_or(0, u64::from));
    message.bytes(33, command.action.right().as_ref().map_or(&[], |right| &right.0));
}

/// Writes fields of a protobuf message one after the other. Empty and zero fields are left out, as in proto3.
struct Message<'a>(&'a mut Vec<u8>);

impl Message<'_> {
    fn credit(&mut self, credit: &CreditContext) {
        let CreditContext { limit, stage, days_past_due, oldest_due_day, amount_to_cure, read_at_ms, thresholds } =
            credit;
        self.number(1, *limit);
        self.text(2, if stage == CreditContext::CURRENT { "" } else { stage });
        self.number(3, u64::from(*days_past_due));
        self.number(4, oldest_due_day.map_or(0, u64::from));
        self.number(5, *amount_to_cure);
        self.number(6, read_at_ms.unwrap_or_default().cast_unsigned());
        let mut percents = Vec::new();
        thresholds.percents().iter().for_each(|percent| encode_varint(u64::from(*percent), &mut percents));
        self.bytes(7, &percents);
    }

    /// A message within the message. It is there even where it is empty.
    fn message(&mut self, tag: u32, inner: &[u8]) {
        encode_key(tag, WireType::LengthDelimited, self.0);
        encode_varint(inner.len() as u64, self.0);
        self.0.extend_from_slice(inner);
    }

    fn bytes(&mut self, tag: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            encode_key(tag, WireType::LengthDelimited, self.0);
            encode_varint(bytes.len() as u64, self.0);
            self.0.extend_from_slice(bytes);
        }
    }

    fn text(&mut self, tag: u32, text: &str) {
        self.bytes(tag, text.as_bytes());
    }

    fn number(&mut self, tag: u32, number: u64) {
        if number != 0 {
            self.optional(tag, Some(number));
        }
    }

    fn optional(&mut self, tag: u32, number: Option<u64>) {
        if let Some(number) = number {
            encode_key(tag, WireType::Varint, self.0);
            encode_varint(number, self.0);
        }
    }
}

/// The action's word. A release that reserves its refund has another word than one that refunds at once.
const fn action_word(action: &Action) -> &'static str {
    if let Action::Release(refund) = action
        && refund.reserve
    {
        return Action::Refund(*refund).as_str();
    }
    action.as_str()
}

const fn operation_id(action: &Action) -> Option<OperationId> {
    if let Action::Settle(settle) = action {
        return Some(settle.id);
    }
    if let Action::Refund(refund) | Action::Release(refund) = action {
        return Some(refund.id);
    }
    if let Action::MarkUnknown(Mark { subject: Subject::Capture(id) | Subject::Refund(id), .. }) = action {
        return Some(*id);
    }
    None
}

const fn hold_on_expiry(action: &Action) -> &'static str {
    let Action::Hold(_, terms) = action else { return "" };
    match terms.on_expiry {
        OnExpiry::Void => "void",
        OnExpiry::Settle => "settle",
    }
}

/// What a manual change concerns, how it changes that, and the account version that it was based on.
#[derive(Default)]
struct ByHand {
    counter: String,
    change: &'static str,
    expected_version: Option<u64>,
}

impl ByHand {
    fn of(action: &Action) -> Self {
        if let Action::Adjust(adjust) = action {
            let change = match adjust.change {
                Change::Add(_) => "add",
                Change::Subtract(_) => "subtract",
                Change::Set(_) => "set",
            };
            let counter = adjust.counter.as_str().to_owned();
            return Self { counter, change, expected_version: adjust.expected_version };
        }
        if let Action::MarkUnknown(mark) = action {
            return Self { change: operation_word(mark.subject), ..Self::default() };
        }
        if let Action::Resolve(resolution) = action {
            return Self { change: resolution_word(*resolution), ..Self::default() };
        }
        if let Action::Reset(reset) = action {
            return Self { counter: reset_windows(reset), change: "", expected_version: reset.expected_version };
        }
        Self::default()
    }
}

fn reset_windows(reset: &Reset) -> String {
    let windows = reset.windows.iter().filter(|(_, reset)| **reset).map(|(period, _)| period.as_str());
    windows.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests;
