//! Objects as bytes: `google.protobuf.Struct` (struct.proto), written straight into one buffer.

use super::sizes::{begin, delimited};

/// The members of the filter are some 300 bytes: room for most, so that the buffer does not grow.
const BYTES: usize = 448;

/// The keys of the first and the second field, of `Value.string_value`, and of `DeclarePropertyArguments.schema`.
const FIRST: u8 = 1 << 3 | 2;
const SECOND: u8 = 2 << 3 | 2;
const STRING: u8 = 3 << 3 | 2;
const SCHEMA: u8 = 4 << 3 | 2;

/// The name of a member: what comes before the text of an entry of `Struct.fields` whose value is one.
#[derive(Clone, Copy, Debug)]
pub struct Name(&'static [u8]);

impl Name {
    /// `entry` is of [`name!`].
    #[must_use]
    pub const fn new(entry: &'static [u8]) -> Self {
        Self(entry)
    }
}

/// A constant name of a member.
macro_rules! name {
    ($name:literal) => {
        $crate::wire::structure::Name::new(const { &$crate::wire::structure::entry::<{ $name.len() + 8 }>($name) })
    };
}
pub(crate) use name;

pub(crate) const fn entry<const N: usize>(name: &str) -> [u8; N] {
    super::sizes::entry::<N, TEXT_KEYS>(FIRST, name, [SECOND, 0, STRING, 0])
}

/// The bytes of the keys and sizes of a text.
const TEXT_KEYS: usize = 4;

/// An object while it is encoded.
#[derive(Debug)]
pub struct Structure(Vec<u8>);

impl Structure {
    /// One without members; `others` bytes are to come by [`Structure::finish`].
    #[must_use]
    pub fn new(others: usize) -> Self {
        Self(Vec::with_capacity(others.saturating_add(BYTES)))
    }

    /// Appends a text, if there is one.
    #[inline]
    pub fn text(&mut self, name: Name, value: Option<&str>) {
        if let Some(value) = value {
            text(&mut self.0, name, value);
        }
    }

    /// Appends a number, if there is one. Every amount is exact, and so is every time that a stream can take.
    #[inline]
    pub fn number(&mut self, name: Name, value: Option<u64>) {
        if let Some(value) = value {
            let [a, b, c, d, e, f, g, h] = (value as f64).to_le_bytes();
            // number_value, 64 bits.
            fixed(&mut self.0, name, &[SECOND, 9, 0x11, a, b, c, d, e, f, g, h]);
        }
    }

    /// Appends `true`, or nothing.
    #[inline]
    pub fn flag(&mut self, name: Name, value: bool) {
        if value {
            // bool_value.
            fixed(&mut self.0, name, &[SECOND, 2, 0x20, 1]);
        }
    }

    /// Appends the members of another encoded object.
    #[must_use]
    pub fn finish(self, others: &[u8]) -> Vec<u8> {
        let Self(mut bytes) = self;
        bytes.extend_from_slice(others);
        bytes
    }
}

/// An entry of `Struct.fields` whose value is a text.
fn text(bytes: &mut Vec<u8>, Name(entry): Name, text: &str) {
    let (size, start) = (entry.len().saturating_sub(2).saturating_add(text.len()), bytes.len());
    match (u8::try_from(size), u8::try_from(text.len())) {
        (Ok(size @ 0..=0x7f), Ok(length)) => {
            bytes.extend_from_slice(entry);
            if let Some([_, own, .., value, _, text]) = bytes.get_mut(start..) {
                (*own, *value, *text) = (size, length.wrapping_add(2), length);
            }
        }
        (_, _) => {
            let name = entry.get(4..entry.len().saturating_sub(TEXT_KEYS)).unwrap_or_default();
            let size = delimited(text.len());
            begin(bytes, FIRST, delimited(name.len()).saturating_add(delimited(size)));
            begin(bytes, FIRST, name.len());
            bytes.extend_from_slice(name);
            begin(bytes, SECOND, size);
            begin(bytes, STRING, text.len());
        }
    }
    bytes.extend_from_slice(text.as_bytes());
}

/// An entry of `Struct.fields` whose value is short.
fn fixed(bytes: &mut Vec<u8>, Name(entry): Name, value: &[u8]) {
    let (named, start) = (entry.len().saturating_sub(TEXT_KEYS), bytes.len());
    bytes.extend_from_slice(entry.get(..named).unwrap_or_default());
    let size = named.saturating_sub(2).saturating_add(value.len());
    if let Some([_, own, ..]) = bytes.get_mut(start..) {
        *own = u8::try_from(size).unwrap_or_default();
    }
    bytes.extend_from_slice(value);
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
        let mut others = Structure::new(0);
        others.text(name!("f"), Some(""));
        let mut own = Structure::new(0);
        own.text(name!("a"), Some(&long));
        own.text(name!("b"), None);
        own.number(name!("c"), Some((1 << 53) - 1));
        own.flag(name!("d"), true);
        own.flag(name!("e"), false);
        let read = members(&own.finish(&others.finish(&[])));
        let expected = [("a", long.as_str()), ("c", "9007199254740991"), ("d", "true"), ("f", "")];
        assert_eq!(read, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
    }
}
