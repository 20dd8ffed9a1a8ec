//! Requests as bytes: [`proto::envoy::CheckRequest`] with `context_extensions` and nothing else, written straight into one
//! buffer. The order of the fields is fixed, so that a repetition is identical.

use std::borrow::Cow;

use prost::encoding::{encode_varint, encoded_len_varint};
use proto::extension;
use quota::AmountMinor;
use sluice_rules::{Action, Request};

use super::Attempt;
use crate::follow_up::Kind;
use crate::outcome::Reason;

/// The check before the gateway is called: a charge and a refund are counted now; a capture, a void and a check are only tried.
/// The rule limits how many repetitions of a charge are admitted.
#[must_use]
pub fn check(action: Action, replays_max: Option<u8>, attempt: &Attempt) -> Vec<u8> {
    let (word, how) = match action {
        Action::Consume => (extension::ACTION_CONSUME, None),
        Action::Hold => (extension::ACTION_HOLD, None),
        Action::Settle => (extension::ACTION_SETTLE, Some((extension::DRY, extension::DRY_SILENT))),
        Action::Refund => (extension::ACTION_REFUND, Some((extension::STAGE, extension::STAGE_RESERVE))),
        Action::Void => (extension::ACTION_VOID_ORDER, Some((extension::DRY, extension::DRY_SILENT))),
        Action::Check => (extension::ACTION_CONSUME, Some((extension::DRY, extension::DRY_JOURNAL))),
    };
    let mut fields = fields(attempt, word);
    fields.extend(how.map(|(name, value)| (name, Cow::Borrowed(value))));
    details(&mut fields, attempt, attempt.request.amount);
    fields.extend(replays_max.map(|max| (extension::REPLAYS_MAX, Cow::Owned(max.to_string()))));
    encode(&fields)
}

/// An attempt's id as the contract writes it: 32 hexadecimal digits.
#[must_use]
pub fn attempt_id(id: u128) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' } else { b'a'.wrapping_sub(10) }.wrapping_add(nibble));
    let digits = id.to_be_bytes().into_iter().flat_map(|byte| [digit(byte.wrapping_shr(4)), digit(byte & 0xf)]);
    let mut text = String::with_capacity(32);
    text.extend(digits);
    text
}

/// Reports what the gateway has done. Without an amount: all that is left.
#[must_use]
pub fn confirm(kind: Kind, attempt: &Attempt, amount: Option<AmountMinor>) -> Vec<u8> {
    let mut fields = fields(attempt, kind.as_str());
    details(&mut fields, attempt, amount);
    encode(&fields)
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
    let mut fields = fields(attempt, Kind::Unknown.as_str());
    fields.extend([(extension::OUTCOME_OF, Cow::Borrowed(of)), (extension::REASON, Cow::Borrowed(reason))]);
    details(&mut fields, attempt, attempt.request.amount);
    encode(&fields)
}

/// Reports that the gateway has made the order's charge.
#[must_use]
pub fn made(attempt: &Attempt) -> Vec<u8> {
    encode(&fields(attempt, Kind::Made.as_str()))
}

/// Requests the void of an attempt.
#[must_use]
pub fn void(attempt: &Attempt, reason: Reason) -> Vec<u8> {
    let mut fields = fields(attempt, Kind::Void.as_str());
    fields.push((extension::REASON, Cow::Borrowed(reason.as_str())));
    encode(&fields)
}

type Fields<'a> = Vec<(&'static str, Cow<'a, str>)>;

/// Most fields of one request.
const FIELDS_MAX: usize = 17;

fn fields<'a>(attempt: &'a Attempt, action: &'static str) -> Fields<'a> {
    let Attempt { id, request, mode, traceparent } = attempt;
    let mut fields: Fields<'a> = Vec::with_capacity(FIELDS_MAX);
    fields.extend([
        (extension::ACTION, Cow::Borrowed(action)),
        (extension::ATTEMPT, Cow::Borrowed(id.as_str())),
        (extension::MERCHANT, Cow::Borrowed(request.merchant.as_str())),
        (extension::CURRENCY, Cow::Borrowed(request.currency.code())),
        (extension::MODE, Cow::Borrowed(mode.as_str())),
    ]);
    put(&mut fields, extension::ORDER_NO, request.order_no.as_ref().map(quota::OrderNo::as_str));
    put(&mut fields, extension::TRACEPARENT, traceparent.as_deref());
    fields
}

fn details<'a>(fields: &mut Fields<'a>, attempt: &'a Attempt, amount: Option<AmountMinor>) {
    let Request { payment_no, channel, operation_no, is_final, .. } = &attempt.request;
    fields.extend(amount.map(|amount| (extension::AMOUNT_MINOR, Cow::Owned(amount.to_string()))));
    put(fields, extension::PAYMENT_NO, payment_no.as_ref().map(quota::PaymentNo::as_str));
    put(fields, extension::CHANNEL, channel.as_ref().map(quota::Channel::as_str));
    put(fields, extension::OPERATION_NO, operation_no.as_ref().map(quota::OperationNo::as_str));
    put(fields, extension::FINAL, (!is_final).then_some(extension::FINAL_NOT));
}

fn put<'a>(fields: &mut Fields<'a>, name: &'static str, value: Option<&'a str>) {
    fields.extend(value.map(|value| (name, Cow::Borrowed(value))));
}

/// The key of a field whose value has a length, for field numbers below 16.
const fn key(number: u8) -> u8 {
    number.wrapping_shl(3) | 2
}

fn encode(fields: &[(&'static str, Cow<'_, str>)]) -> Vec<u8> {
    let entry = |(name, value): &(&str, Cow<'_, str>)| delimited(name.len()).saturating_add(delimited(value.len()));
    let attributes = fields.iter().map(|field| delimited(entry(field))).fold(0, usize::saturating_add);
    let mut bytes = Vec::with_capacity(delimited(attributes));
    // CheckRequest.attributes, AttributeContext.context_extensions, and a map entry's key and value.
    begin(&mut bytes, key(1), attributes);
    for field @ (name, value) in fields {
        begin(&mut bytes, key(10), entry(field));
        text(&mut bytes, key(1), name);
        text(&mut bytes, key(2), value);
    }
    bytes
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

/// The size of a field with its key and its length.
fn delimited(size: usize) -> usize {
    encoded_len_varint(wide(size)).saturating_add(1).saturating_add(size)
}

fn begin(bytes: &mut Vec<u8>, key: u8, size: usize) {
    bytes.push(key);
    encode_varint(wide(size), bytes);
}

fn text(bytes: &mut Vec<u8>, key: u8, text: &str) {
    begin(bytes, key, text.len());
    bytes.extend_from_slice(text.as_bytes());
}
