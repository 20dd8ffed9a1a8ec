//! Objects as bytes: `google.protobuf.Struct` (struct.proto), written straight into one buffer.

use prost::encoding::{encode_varint, encoded_len_varint};

/// A member's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Member<'a> {
    Text(&'a str),
    Number(f64),
    True,
}

/// A number. Every amount is exact, and so is every time that a stream can take.
#[must_use]
pub fn number(value: u64) -> Member<'static> {
    Member::Number(value as f64)
}

/// An object of an access log is some 400 bytes: room for most, so that the buffer does not grow.
const BYTES: usize = 512;

/// Encodes the members that are set, and appends those of another encoded object.
#[must_use]
pub fn structure(members: &[(&str, Option<Member<'_>>)], others: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(BYTES);
    for (name, value) in members {
        if let Some(value) = value {
            member(&mut bytes, name, *value);
        }
    }
    bytes.extend_from_slice(others);
    bytes
}

/// One entry of `Struct.fields`: its key, and its value as a `Value`.
fn member(bytes: &mut Vec<u8>, name: &str, value: Member<'_>) {
    let size = match value {
        Member::Text(text) => delimited(text.len()),
        Member::Number(_) => 9,
        Member::True => 2,
    };
    begin(bytes, 1, delimited(name.len()).saturating_add(delimited(size)));
    begin(bytes, 1, name.len());
    bytes.extend_from_slice(name.as_bytes());
    begin(bytes, 2, size);
    match value {
        Member::Text(text) => {
            begin(bytes, 3, text.len());
            bytes.extend_from_slice(text.as_bytes());
        }
        // number_value, 64 bits; bool_value.
        Member::Number(number) => {
            bytes.push(0x11);
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        Member::True => bytes.extend_from_slice(&[0x20, 1]),
    }
}

/// Envoy's `DeclarePropertyArguments`: the name, read-only, a message, and its type.
#[must_use]
pub fn declaration(name: &str, message: &str) -> Vec<u8> {
    /// `WasmType.Protobuf`.
    const MESSAGE: u8 = 3;
    let mut bytes = Vec::new();
    begin(&mut bytes, 1, name.len());
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&[0x10, 1, 0x18, MESSAGE]);
    let schema = format!("type.googleapis.com/{message}");
    begin(&mut bytes, 4, schema.len());
    bytes.extend_from_slice(schema.as_bytes());
    bytes
}

fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

/// The size of a field below 16 with its key and its length.
fn delimited(size: usize) -> usize {
    encoded_len_varint(wide(size)).saturating_add(1).saturating_add(size)
}

fn begin(bytes: &mut Vec<u8>, field: u8, size: usize) {
    bytes.push(field.wrapping_shl(3) | 2);
    encode_varint(wide(size), bytes);
}

/// The members as texts, for tests.
#[cfg(test)]
pub(crate) fn members(bytes: &[u8]) -> Vec<(String, String)> {
    use super::fields::{Value, fields};
    let mut members = Vec::new();
    let read = fields(bytes, |_, entry| {
        let Value::Bytes(entry) = entry else { return None };
        let (mut name, mut text) = (String::new(), String::new());
        fields(entry, |tag, value| {
            match (tag, value) {
                (1, Value::Bytes(key)) => name = String::from_utf8(key.to_vec()).ok()?,
                (2, Value::Bytes([0x11, number @ ..])) => {
                    text = f64::from_le_bytes(number.try_into().ok()?).to_string()
                }
                (2, Value::Bytes([0x20, 1])) => text = "true".to_owned(),
                (2, Value::Bytes(value)) => {
                    fields(value, |_, value| {
                        let Value::Bytes(value) = value else { return None };
                        text = String::from_utf8(value.to_vec()).ok()?;
                        Some(())
                    })?;
                }
                _ => return None,
            }
            Some(())
        })?;
        members.push((name, text));
        Some(())
    });
    assert!(read.is_some(), "not an object: {bytes:?}");
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_written_in_order_and_what_is_not_known_is_left_out() {
        let long = "x".repeat(300);
        let own = [
            ("a", Some(Member::Text(&long))),
            ("b", None),
            ("c", Some(number((1 << 53) - 1))),
            ("d", Some(Member::True)),
        ];
        let others = structure(&[("e", Some(Member::Text("")))], &[]);
        let read = members(&structure(&own, &others));
        let expected = [("a", long.as_str()), ("c", "9007199254740991"), ("d", "true"), ("e", "")];
        assert_eq!(read, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
