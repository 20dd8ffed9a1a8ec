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

/// Visits the fields of a message; `None` if the bytes are not a message, or if `field` rejects one of them.
pub(super) fn fields<'a>(mut message: &'a [u8], mut field: impl FnMut(u32, Value<'a>) -> Option<()>) -> Option<()> {
    while message.has_remaining() {
        let (tag, kind) = decode_key(&mut message).ok()?;
        let value = match kind {
            WireType::Varint => Value::Number(decode_varint(&mut message).ok()?),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut message).ok()?).ok()?;
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
