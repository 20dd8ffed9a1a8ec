//! Requests as bytes: [`proto::envoy::CheckRequest`] with `context_extensions` and nothing else, written straight into one
//! buffer. The order of the fields is fixed, so that a repetition is identical.

use prost::encoding::encode_varint;
use proto::{extension, right};
use quota::{AmountMinor, Share};
use sluice_rules::{Action, Request};

use super::Attempt;
use super::sizes::{begin, delimited, entry, wide};
use crate::follow_up::Kind;
use crate::outcome::Reason;

/// What comes before the value of an entry.
#[derive(Clone, Copy)]
struct Entry(&'static [u8]);

/// The bytes of the key and the size of a value.
const VALUE_KEYS: usize = 2;

/// A constant name of the contract.
macro_rules! entry {
    ($name:ident) => {
        Entry(const { &entry::<{ extension::$name.len() + 6 }, VALUE_KEYS>(key(10), extension::$name, [key(2), 0]) })
    };
}

/// The check before the gateway is called: a charge and a refund are counted now; a capture, a void and a check are only tried.
/// The rule limits how many repetitions of a charge are admitted.
#[must_use]
pub fn check(action: Action, replays_max: Option<u8>, attempt: &Attempt, wanted: Option<Share>) -> Vec<u8> {
    let (word, how) = match action {
        Action::Consume => (extension::ACTION_CONSUME, None),
        Action::Hold => (extension::ACTION_HOLD, None),
        Action::Settle => (extension::ACTION_SETTLE, Some((entry!(DRY), extension::DRY_SILENT))),
        Action::Refund => (extension::ACTION_REFUND, Some((entry!(STAGE), extension::STAGE_RESERVE))),
        Action::Void => (extension::ACTION_VOID_ORDER, Some((entry!(DRY), extension::DRY_SILENT))),
        Action::Check => (extension::ACTION_CONSUME, Some((entry!(DRY), extension::DRY_JOURNAL))),
    };
    let mut message = Message::new(attempt, word);
    if let Some((name, value)) = how {
        message.put(name, value);
    }
    message.details(attempt, attempt.request.amount);
    if let Some(max) = replays_max {
        message.put_number(entry!(REPLAYS_MAX), u64::from(max));
    }
    message.wanted(wanted);
    message.finish()
}

/// Reports a payment that was admitted from a right, and asks for another one.
#[must_use]
pub fn report(attempt: &Attempt, right: &str, wanted: Option<Share>) -> Vec<u8> {
    let mut message = Message::new(attempt, extension::ACTION_REPORT);
    message.put(entry!(RIGHT), right);
    message.details(attempt, attempt.request.amount);
    message.wanted(wanted);
    message.finish()
}

/// Ends the right that an attempt has asked for.
#[must_use]
pub fn release_right(attempt: &Attempt) -> Vec<u8> {
    let mut message = Message::new(attempt, extension::ACTION_RELEASE_RIGHT);
    message.put(entry!(RIGHT), &attempt.id);
    message.finish()
}

/// An attempt's id as the contract writes it: 32 hexadecimal digits.
#[must_use]
pub fn attempt_id(id: u128) -> String {
    let part = |shift: u32| u32::try_from(id.wrapping_shr(shift) & u128::from(u32::MAX)).unwrap_or_default();
    let digits = [96, 64, 32, 0].map(|shift| hexadecimal(part(shift)));
    std::str::from_utf8(digits.as_flattened()).unwrap_or_default().to_owned()
}

/// The eight hexadecimal digits of a number, all at once: one half byte in each byte.
const fn hexadecimal(number: u32) -> [u8; 8] {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    let wide = number as u64;
    let wide = (wide | wide << 16) & 0x0000_ffff_0000_ffff;
    let wide = (wide | wide << 8) & 0x00ff_00ff_00ff_00ff;
    let halves = (wide | wide << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    // 1 for each that is ten or more.
    let letters = halves.wrapping_add(ONES.wrapping_mul(6)) >> 4 & ONES;
    let digits = halves.wrapping_add(ONES.wrapping_mul(b'0' as u64));
    digits.wrapping_add(letters.wrapping_mul((b'a' - b'9' - 1) as u64)).to_be_bytes()
}

/// Reports what the gateway has done. Without an amount: all that is left.
#[must_use]
pub fn confirm(kind: Kind, attempt: &Attempt, amount: Option<AmountMinor>) -> Vec<u8> {
    let mut message = Message::new(attempt, kind.as_str());
    message.details(attempt, amount);
    message.finish()
}

/// Reports that the outcome of an attempt is unknown.
#[must_use]
pub fn unknown(action: Action, attempt: &Attempt, reason: &str) -> Vec<u8> {
    let of = match action {
        Action::Consume | Action::Check => extension::ACTION_CONSUME,
        Action::Hold => extension::ACTION_HOLD,
        Action::Settle => extension::ACTION_SETTLE,
        Action::Refund => extension::ACTION_REFUND,
        Action::Void => extension::ACTION_VOID_ORDER,
    };
    let mut message = Message::new(attempt, Kind::Unknown.as_str());
    message.put(entry!(OUTCOME_OF), of);
    message.put(entry!(REASON), reason);
    message.details(attempt, attempt.request.amount);
    message.finish()
}

/// Reports that the gateway has made the order's charge.
#[must_use]
pub fn made(attempt: &Attempt) -> Vec<u8> {
    Message::new(attempt, Kind::Made.as_str()).finish()
}

/// Requests the void of an attempt.
#[must_use]
pub fn void(attempt: &Attempt, reason: Reason) -> Vec<u8> {
    let mut message = Message::new(attempt, Kind::Void.as_str());
    message.put(entry!(REASON), reason.as_str());
    message.finish()
}

/// Room for most requests.
const BYTES: usize = 384;

/// One request while it is written: `CheckRequest.attributes`, which is `AttributeContext.context_extensions` and nothing else.
struct Message(Vec<u8>);

impl Message {
    /// The fields of every request.
    fn new(attempt: &Attempt, action: &str) -> Self {
        let Attempt { id, request, mode, traceparent } = attempt;
        let mut bytes = Vec::with_capacity(BYTES);
        // The length is known at the end.
        bytes.extend_from_slice(&[key(1), 0, 0]);
        let mut message = Self(bytes);
        message.put(entry!(ACTION), action);
        message.put(entry!(ATTEMPT), id);
        message.put(entry!(MERCHANT), request.merchant.as_str());
        message.put(entry!(CURRENCY), request.currency.code());
        message.put(entry!(MODE), mode.as_str());
        message.put_some(entry!(ORDER_NO), request.order_no.as_ref().map(quota::OrderNo::as_str));
        message.put_some(entry!(TRACEPARENT), traceparent.as_deref());
        message
    }

    fn details(&mut self, attempt: &Attempt, amount: Option<AmountMinor>) {
        let Request { payment_no, channel, operation_no, is_final, .. } = &attempt.request;
        if let Some(amount) = amount {
            self.put_number(entry!(AMOUNT_MINOR), amount.get());
        }
        self.put_some(entry!(PAYMENT_NO), payment_no.as_ref().map(quota::PaymentNo::as_str));
        self.put_some(entry!(CHANNEL), channel.as_ref().map(quota::Channel::as_str));
        self.put_some(entry!(OPERATION_NO), operation_no.as_ref().map(quota::OperationNo::as_str));
        self.put_some(entry!(FINAL), (!is_final).then_some(extension::FINAL_NOT));
    }

    fn wanted(&mut self, wanted: Option<Share>) {
        if let Some(wanted) = wanted {
            self.put(entry!(RIGHT_WANTED), right::wanted_to_text(wanted));
        }
    }

    fn put_some(&mut self, name: Entry, value: Option<&str>) {
        if let Some(value) = value {
            self.put(name, value);
        }
    }

    fn put_number(&mut self, name: Entry, value: u64) {
        self.put(name, decimal(value, &mut [0; 20]));
    }

    /// One entry of the map.
    fn put(&mut self, entry: Entry, value: impl AsRef<[u8]>) {
        self.put_bytes(entry, value.as_ref());
    }

    fn put_bytes(&mut self, Entry(entry): Entry, value: &[u8]) {
        let Self(bytes) = self;
        let (size, start) = (entry.len().saturating_sub(2).saturating_add(value.len()), bytes.len());
        // Nearly all lengths fit into one byte.
        match (u8::try_from(size), u8::try_from(value.len())) {
            (Ok(size @ 0..=0x7f), Ok(length)) => {
                bytes.extend_from_slice(entry);
                if let Some([_, own, .., last]) = bytes.get_mut(start..) {
                    (*own, *last) = (size, length);
                }
            }
            (_, _) => {
                let name = entry.get(4..entry.len().saturating_sub(VALUE_KEYS)).unwrap_or_default();
                begin(bytes, key(10), delimited(name.len()).saturating_add(delimited(value.len())));
                begin(bytes, key(1), name.len());
                bytes.extend_from_slice(name);
                begin(bytes, key(2), value.len());
            }
        }
        bytes.extend_from_slice(value);
    }

    fn finish(self) -> Vec<u8> {
        let Self(mut bytes) = self;
        let size = bytes.len().saturating_sub(3);
        // Two bytes are the shortest form of the length of every request that has an attempt.
        match bytes.get_mut(1..3) {
            Some([low, high]) if (0x80..0x4000).contains(&size) => {
                let [first, second] = [size & 0x7f | 0x80, size.wrapping_shr(7)];
                (*low, *high) = (u8::try_from(first).unwrap_or_default(), u8::try_from(second).unwrap_or_default());
            }
            Some(_) | None => {
                let mut length = Vec::new();
                encode_varint(wide(size), &mut length);
                drop(bytes.splice(1..3, length));
            }
        }
        bytes
    }
}

/// The decimal digits of a number.
fn decimal(mut number: u64, digits: &mut [u8; 20]) -> &[u8] {
    let mut start = digits.len();
    for digit in digits.iter_mut().rev() {
        *digit = b'0'.wrapping_add(u8::try_from(number % 10).unwrap_or_default());
        number /= 10;
        start = start.saturating_sub(1);
        if number == 0 {
            break;
        }
    }
    digits.get(start..).unwrap_or_default()
}

/// The key of a field whose value has a length, for field numbers below 16.
const fn key(number: u8) -> u8 {
    number.wrapping_shl(3) | 2
}
