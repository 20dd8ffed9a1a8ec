//! Objects as bytes: `google.protobuf.Struct` (struct.proto), written straight into one buffer.

use super::sizes::{begin, delimited};

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

/// The members of the filter are some 300 bytes: room for most, so that the buffer does not grow.
const BYTES: usize = 448;

/// The keys of the first and the second field, of `Value.string_value`, and of `DeclarePropertyArguments.schema`.
const FIRST: u8 = 1 << 3 | 2;
const SECOND: u8 = 2 << 3 | 2;
const STRING: u8 = 3 << 3 | 2;
const SCHEMA: u8 = 4 << 3 | 2;

/// Encodes the members that are set, and appends those of another encoded object.
#[must_use]
pub fn structure(members: &[(&str, Option<Member<'_>>)], others: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(others.len().saturating_add(BYTES));
    for (name, value) in members {
        if let Some(value) = value {
            member(&mut bytes, name, *value);
        }
    }
    bytes.extend_from_slice(others);
    bytes
}

/// One entry of `Struct.fields`: its key, and its value as a `Value`. Nearly all lengths fit into one byte.
fn member(bytes: &mut Vec<u8>, name: &str, value: Member<'_>) {
    let size = match value {
        Member::Text(text) => delimited(text.len()),
        Member::Number(_) => 9,
        Member::True => 2,
    };
    let entry = delimited(name.len()).saturating_add(delimited(size));
    match (u8::try_from(entry), u8::try_from(name.len())) {
        (Ok(entry @ 0..=0x7f), Ok(length)) => bytes.extend_from_slice(&[FIRST, entry, FIRST, length]),
        (Ok(_) | Err(_), _) => {
            begin(bytes, FIRST, entry);
            begin(bytes, FIRST, name.len());
        }
    }
    bytes.extend_from_slice(name.as_bytes());
    match value {
        Member::Text(text) => {
            match (u8::try_from(size), u8::try_from(text.len())) {
                (Ok(size @ 0..=0x7f), Ok(length)) => bytes.extend_from_slice(&[SECOND, size, STRING, length]),
                (Ok(_) | Err(_), _) => {
                    begin(bytes, SECOND, size);
                    begin(bytes, STRING, text.len());
                }
            }
            bytes.extend_from_slice(text.as_bytes());
        }
        // number_value, 64 bits; bool_value.
        Member::Number(number) => {
            let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
            bytes.extend_from_slice(&[SECOND, 9, 0x11, a, b, c, d, e, f, g, h]);
        }
        Member::True => bytes.extend_from_slice(&[SECOND, 2, 0x20, 1]),
    }
}

/// Envoy's `DeclarePropertyArguments`: the name, read-only, a message, and its type.
#[must_use]
pub fn declaration(name: &str, message: &str) -> Vec<u8> {
    /// `WasmType.Protobuf`.
    const MESSAGE: u8 = 3;
    let mut bytes = Vec::new();
    begin(&mut bytes, FIRST, name.len());
    bytes.extend_from_slice(name.as_bytes());
    bytes.extend_from_slice(&[0x10, 1, 0x18, MESSAGE]);
    let schema = format!("type.googleapis.com/{message}");
    begin(&mut bytes, SCHEMA, schema.len());
    bytes.extend_from_slice(schema.as_bytes());
    bytes
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
