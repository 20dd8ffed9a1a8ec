//! Reads encoded messages in place: what is read once needs no copy.

use prost::bytes::Buf;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// The value of a field, as far as our messages have such.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
    Other,
}

/// A field's number and kind; most fit into one byte.
fn key(message: &mut &[u8]) -> Option<(u32, WireType)> {
    match message.split_first() {
        Some((key @ 0x08..=0x7f, rest)) if key & 7 == 2 => {
            *message = rest;
            Some((u32::from(key >> 3), WireType::LengthDelimited))
        }
        Some(_) | None => decode_key(message).ok(),
    }
}

/// A number; most fit into one byte.
fn varint(message: &mut &[u8]) -> Option<u64> {
    match message.split_first() {
        Some((number @ 0..=0x7f, rest)) => {
            *message = rest;
            Some(u64::from(*number))
        }
        Some(_) | None => decode_varint(message).ok(),
    }
}

/// Visits the fields of a message; `None` if the bytes are not a message, or if `field` rejects one of them.
pub(super) fn fields<'a>(mut message: &'a [u8], mut field: impl FnMut(u32, Value<'a>) -> Option<()>) -> Option<()> {
    while message.has_remaining() {
        let (tag, kind) = key(&mut message)?;
        let value = match kind {
            WireType::Varint => Value::Number(varint(&mut message)?),
            WireType::LengthDelimited => {
                let length = usize::try_from(varint(&mut message)?).ok()?;
                let (bytes, rest) = message.split_at_checked(length)?;
                message = rest;
                Value::Bytes(bytes)
            }
            other => {
                skip_field(other, tag, &mut message, DecodeContext::default()).ok()?;
                Value::Other
            }
        };
        field(tag, value)?;
    }
    Some(())
}
