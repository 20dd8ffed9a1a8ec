//! Reads a usual body: an object whose wanted members are scalars, and whose keys have no escapes. Whatever else there is, also
//! everything that is refused, is left to the reader that knows the reason. A test compares both.

use std::borrow::Cow;

use super::{Key, Leaf, Node, Scalar};

/// Deepest nesting of a value that is skipped.
const DEPTH_MAX: u8 = 32;
/// Most keys of one object of the rule: one bit each says whether it was there.
const CHILDREN_MAX: usize = 64;

/// The values of the wanted members by slot, or `None` for a body that is not usual.
pub(super) fn read<'a>(root: &Node, slots: usize, body: &'a [u8]) -> Option<Vec<Option<Scalar<'a>>>> {
    let text = std::str::from_utf8(body).ok()?;
    let mut scan = Scan { text, values: vec![None; slots] };
    let end = scan.object(root, expect(body, 0, b'{')?)?;
    (blanks(body, end) == body.len()).then_some(scan.values)
}

/// The body, and what was found. A place in it is handed from one function to the next, each of which returns the place behind what it
/// has read.
struct Scan<'a> {
    text: &'a str,
    values: Vec<Option<Scalar<'a>>>,
}

impl<'a> Scan<'a> {
    /// The members of an object, after its brace.
    fn object(&mut self, node: &Node, at: usize) -> Option<usize> {
        if node.children.len() > CHILDREN_MAX {
            return None;
        }
        let bytes = self.text.as_bytes();
        let mut seen = 0_u64;
        let mut at = blanks(bytes, at);
        if *bytes.get(at)? == b'}' {
            return at.checked_add(1);
        }
        loop {
            let start = expect(bytes, at, b'"')?;
            let end = plain(bytes, start)?;
            let value = blanks(bytes, expect(bytes, one(bytes, end, b'"')?, b':')?);
            at = match node.key(bytes.get(start..end)?) {
                Key::Other => skip(bytes, value, 0)?,
                Key::Folded(_) => return None,
                Key::Child(at) => {
                    let bit = 1_u64.checked_shl(u32::try_from(at).ok()?)?;
                    if seen & bit != 0 {
                        return None;
                    }
                    seen |= bit;
                    self.value(&node.children.get(at)?.node, value)?
                }
            };
            at = blanks(bytes, at);
            match *bytes.get(at)? {
                b',' => at = at.checked_add(1)?,
                b'}' => return at.checked_add(1),
                _ => return None,
            }
        }
    }

    fn value(&mut self, node: &Node, at: usize) -> Option<usize> {
        match &node.leaf {
            None => self.object(node, one(self.text.as_bytes(), at, b'{')?),
            Some(Leaf::Refused(_)) => None,
            Some(Leaf::Read(slot)) => {
                let (scalar, end) = scalar(self.text, at)?;
                *self.values.get_mut(*slot)? = Some(scalar);
                Some(end)
            }
        }
    }
}

fn scalar(text: &str, at: usize) -> Option<(Scalar<'_>, usize)> {
    let bytes = text.as_bytes();
    Some(match *bytes.get(at)? {
        b'"' => {
            let start = at.checked_add(1)?;
            let (end, is_plain) = string(bytes, start)?;
            let text = if is_plain {
                Cow::Borrowed(text.get(start..end.checked_sub(1)?)?)
            } else {
                Cow::Owned(serde_json::from_str(text.get(at..end)?).ok()?)
            };
            (Scalar::Text(text), end)
        }
        b'-' | b'0'..=b'9' => {
            let end = number(bytes, at)?;
            (Scalar::Number(text.get(at..end)?), end)
        }
        b't' => (Scalar::Bool("true"), literal(bytes, at, b"true")?),
        b'f' => (Scalar::Bool("false"), literal(bytes, at, b"false")?),
        b'n' => (Scalar::Null, literal(bytes, at, b"null")?),
        _ => return None,
    })
}

/// Skips a value.
fn skip(bytes: &[u8], at: usize, depth: u8) -> Option<usize> {
    match *bytes.get(at)? {
        b'"' => string(bytes, at.checked_add(1)?).map(|(end, _)| end),
        b'-' | b'0'..=b'9' => number(bytes, at),
        b't' => literal(bytes, at, b"true"),
        b'f' => literal(bytes, at, b"false"),
        b'n' => literal(bytes, at, b"null"),
        b'{' if depth < DEPTH_MAX => nested(bytes, at.checked_add(1)?, depth.saturating_add(1), b'}'),
        b'[' if depth < DEPTH_MAX => nested(bytes, at.checked_add(1)?, depth.saturating_add(1), b']'),
        _ => None,
    }
}

/// Skips an object or an array, after its brace or bracket.
fn nested(bytes: &[u8], at: usize, depth: u8, end: u8) -> Option<usize> {
    let mut at = blanks(bytes, at);
    if *bytes.get(at)? == end {
        return at.checked_add(1);
    }
    loop {
        if end == b'}' {
            let (key, _) = string(bytes, expect(bytes, at, b'"')?)?;
            at = expect(bytes, key, b':')?;
        }
        at = blanks(bytes, skip(bytes, blanks(bytes, at), depth)?);
        match *bytes.get(at)? {
            b',' => at = at.checked_add(1)?,
            byte if byte == end => return at.checked_add(1),
            _ => return None,
        }
    }
}

/// The place of the next byte that is not blank.
#[inline]
fn blanks(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).copied().is_some_and(is_blank) {
        at = at.wrapping_add(1);
    }
    at
}

/// After blanks and this byte.
#[inline]
fn expect(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    one(bytes, blanks(bytes, at), byte)
}

/// After this byte.
#[inline]
fn one(bytes: &[u8], at: usize, byte: u8) -> Option<usize> {
    if *bytes.get(at)? == byte { at.checked_add(1) } else { None }
}

fn literal(bytes: &[u8], at: usize, text: &[u8]) -> Option<usize> {
    let end = at.checked_add(text.len())?;
    (bytes.get(at..end)? == text).then_some(end)
}

/// A number, as RFC 8259 writes it.
fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let mut at = one(bytes, at, b'-').unwrap_or(at);
    at = match *bytes.get(at)? {
        b'0' => at.checked_add(1)?,
        b'1'..=b'9' => digits(bytes, at),
        _ => return None,
    };
    if let Some(decimals) = one(bytes, at, b'.') {
        at = some_digits(bytes, decimals)?;
    }
    if let Some(exponent) = one(bytes, at, b'e').or_else(|| one(bytes, at, b'E')) {
        let sign = one(bytes, exponent, b'+').or_else(|| one(bytes, exponent, b'-'));
        at = some_digits(bytes, sign.unwrap_or(exponent))?;
    }
    Some(at)
}

/// One digit or more.
fn some_digits(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at)?.is_ascii_digit().then(|| digits(bytes, at))
}

fn digits(bytes: &[u8], mut at: usize) -> usize {
    while bytes.get(at).is_some_and(u8::is_ascii_digit) {
        at = at.wrapping_add(1);
    }
    at
}

/// The rest of a string, with the quote that ends it. Whether it has no escape.
#[inline]
fn string(bytes: &[u8], at: usize) -> Option<(usize, bool)> {
    let end = plain(bytes, at)?;
    match *bytes.get(end)? {
        b'"' => Some((end.checked_add(1)?, true)),
        b'\\' => escaped(bytes, end).map(|end| (end, false)),
        _ => None,
    }
}

/// The rest of a string from its first escape on.
fn escaped(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *bytes.get(at)? {
            b'"' => return at.checked_add(1),
            b'\\' => at = escape(bytes, at.checked_add(1)?)?,
            _ => return None,
        }
        at = plain(bytes, at)?;
    }
}

fn escape(bytes: &[u8], at: usize) -> Option<usize> {
    let next = at.checked_add(1)?;
    match *bytes.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(next),
        b'u' => {
            let end = next.checked_add(4)?;
            bytes.get(next..end)?.iter().all(u8::is_ascii_hexdigit).then_some(end)
        }
        _ => None,
    }
}

/// The place of the next quote, backslash or control character.
#[inline]
fn plain(bytes: &[u8], mut at: usize) -> Option<usize> {
    while let Some(chunk) = bytes.get(at..).and_then(<[u8]>::first_chunk::<8>) {
        let special = specials(u64::from_le_bytes(*chunk));
        if special != 0 {
            return at.checked_add((special.trailing_zeros() / 8) as usize);
        }
        at = at.wrapping_add(8);
    }
    while !matches!(bytes.get(at)?, b'"' | b'\\' | 0..=0x1f) {
        at = at.wrapping_add(1);
    }
    Some(at)
}

/// Nearly every byte needs the first comparison only.
const fn is_blank(byte: u8) -> bool {
    byte <= b' ' && matches!(byte, b' ' | b'\n' | b'\t' | b'\r')
}

/// Of eight bytes, the first of which is the lowest: the highest bit of the first quote, backslash or control character is the
/// lowest one that is set.
const fn specials(bytes: u64) -> u64 {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    // A byte that is zero borrows, which sets its highest bit; those above it may be wrong.
    let quotes = (bytes ^ (ONES * b'"' as u64)).wrapping_sub(ONES);
    let backslashes = (bytes ^ (ONES * b'\\' as u64)).wrapping_sub(ONES);
    let controls = bytes.wrapping_sub(ONES * 0x20);
    (quotes | backslashes | controls) & !bytes & (ONES << 7)
}
