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
    if !is_ascii(body) {
        std::str::from_utf8(body).ok()?;
    }
    let mut scan = Scan { body, rest: body, values: vec![None; slots] };
    scan.blanks();
    scan.expect(b'{')?;
    scan.object(root)?;
    scan.blanks();
    scan.rest.is_empty().then_some(scan.values)
}

struct Scan<'a> {
    body: &'a [u8],
    rest: &'a [u8],
    values: Vec<Option<Scalar<'a>>>,
}

impl<'a> Scan<'a> {
    fn blanks(&mut self) {
        while let [b' ' | b'\n' | b'\t' | b'\r', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.next()? == byte).then_some(())
    }

    fn takes(&mut self, byte: u8) -> bool {
        match self.rest.split_first() {
            Some((first, rest)) if *first == byte => {
                self.rest = rest;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The bytes from where this much was left.
    fn since(&self, left: usize) -> Option<&'a [u8]> {
        let end = self.body.len();
        self.body.get(end.checked_sub(left)?..end.checked_sub(self.rest.len())?)
    }

    /// The members of an object, after its brace.
    fn object(&mut self, node: &Node) -> Option<()> {
        if node.children.len() > CHILDREN_MAX {
            return None;
        }
        let mut seen = 0_u64;
        self.blanks();
        if self.takes(b'}') {
            return Some(());
        }
        loop {
            let key = self.key()?;
            match node.key(key) {
                Key::Other => self.skip(0)?,
                Key::Folded(_) => return None,
                Key::Child(at) => {
                    let bit = 1_u64.checked_shl(u32::try_from(at).ok()?)?;
                    if seen & bit != 0 {
                        return None;
                    }
                    seen |= bit;
                    self.value(&node.children.get(at)?.node)?;
                }
            }
            if !self.has_more(b'}')? {
                return Some(());
            }
        }
    }

    /// A member's key, and what comes before its value.
    fn key(&mut self) -> Option<&'a [u8]> {
        self.expect(b'"')?;
        let left = self.rest.len();
        if !self.string()? {
            return None;
        }
        let key = self.since(left)?;
        self.blanks();
        self.expect(b':')?;
        self.blanks();
        key.strip_suffix(b"\"")
    }

    /// Whether another member follows.
    fn has_more(&mut self, end: u8) -> Option<bool> {
        self.blanks();
        match self.next()? {
            b',' => {
                self.blanks();
                Some(true)
            }
            byte if byte == end => Some(false),
            _ => None,
        }
    }

    fn value(&mut self, node: &Node) -> Option<()> {
        match &node.leaf {
            None => {
                self.expect(b'{')?;
                self.object(node)
            }
            Some(Leaf::Refused(_)) => None,
            Some(Leaf::Read(slot)) => {
                let scalar = self.scalar()?;
                *self.values.get_mut(*slot)? = Some(scalar);
                Some(())
            }
        }
    }

    fn scalar(&mut self) -> Option<Scalar<'a>> {
        let left = self.rest.len();
        match self.rest.first()? {
            b'"' => {
                self.next()?;
                let is_plain = self.string()?;
                let quoted = self.since(left)?;
                let text = if is_plain {
                    Cow::Borrowed(text(quoted.strip_prefix(b"\"")?.strip_suffix(b"\"")?)?)
                } else {
                    Cow::Owned(serde_json::from_slice(quoted).ok()?)
                };
                Some(Scalar::Text(text))
            }
            b'-' | b'0'..=b'9' => {
                self.number()?;
                self.since(left).and_then(text).map(Scalar::Number)
            }
            b't' => self.literal(b"true").map(|()| Scalar::Bool("true")),
            b'f' => self.literal(b"false").map(|()| Scalar::Bool("false")),
            b'n' => self.literal(b"null").map(|()| Scalar::Null),
            _ => None,
        }
    }

    /// Skips a value.
    fn skip(&mut self, depth: u8) -> Option<()> {
        match self.rest.first()? {
            b'"' => {
                self.next()?;
                self.string().map(drop)
            }
            b'-' | b'0'..=b'9' => self.number(),
            b't' => self.literal(b"true"),
            b'f' => self.literal(b"false"),
            b'n' => self.literal(b"null"),
            b'{' | b'[' if depth < DEPTH_MAX => self.nested(depth.saturating_add(1)),
            _ => None,
        }
    }

    fn nested(&mut self, depth: u8) -> Option<()> {
        let is_object = self.next()? == b'{';
        let end = if is_object { b'}' } else { b']' };
        self.blanks();
        if self.takes(end) {
            return Some(());
        }
        loop {
            if is_object {
                self.key_of_any()?;
            }
            self.skip(depth)?;
            if !self.has_more(end)? {
                return Some(());
            }
        }
    }

    fn key_of_any(&mut self) -> Option<()> {
        self.expect(b'"')?;
        self.string()?;
        self.blanks();
        self.expect(b':')?;
        self.blanks();
        Some(())
    }

    fn literal(&mut self, text: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(text)?;
        Some(())
    }

    /// A number, as RFC 8259 writes it.
    fn number(&mut self) -> Option<()> {
        self.takes(b'-');
        match self.next()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.takes(b'.') {
            self.digit()?;
        }
        if self.takes(b'e') || self.takes(b'E') {
            if !self.takes(b'+') {
                self.takes(b'-');
            }
            self.digit()?;
        }
        Some(())
    }

    /// One digit or more.
    fn digit(&mut self) -> Option<()> {
        let is_digit = self.next()?.is_ascii_digit();
        self.digits();
        is_digit.then_some(())
    }

    fn digits(&mut self) {
        while let [b'0'..=b'9', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// The rest of a string, with the quote that ends it. Whether it has no escape.
    fn string(&mut self) -> Option<bool> {
        let mut is_plain = true;
        loop {
            while let Some((chunk, rest)) = self.rest.split_first_chunk::<8>() {
                let plain = plain_bytes(u64::from_le_bytes(*chunk));
                if plain < 8 {
                    self.rest = self.rest.get(plain..)?;
                    break;
                }
                self.rest = rest;
            }
            match self.next()? {
                b'"' => return Some(is_plain),
                b'\\' => {
                    is_plain = false;
                    self.escape()?;
                }
                0..=0x1f => return None,
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Option<()> {
        match self.next()? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(()),
            b'u' => {
                let (digits, rest) = self.rest.split_first_chunk::<4>()?;
                self.rest = rest;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())
            }
            _ => None,
        }
    }
}

/// A part of the body as text. Its ends are ASCII characters.
fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// Eight bytes at a time: a body is longer than what the library's search is made for.
fn is_ascii(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<8>();
    let all = chunks.iter().fold(0, |all, chunk| all | u64::from_le_bytes(*chunk));
    all & (u64::from_ne_bytes([1; 8]) << 7) == 0 && rest.is_ascii()
}

/// How many of eight bytes come before a quote, a backslash or a control character: the first byte is the lowest.
const fn plain_bytes(bytes: u64) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    /// The highest bit of each byte that is zero; bytes above a zero byte may be wrong.
    const fn zeros(bytes: u64) -> u64 {
        bytes.wrapping_sub(ONES) & !bytes
    }
    let quotes = zeros(bytes ^ (ONES * b'"' as u64));
    let backslashes = zeros(bytes ^ (ONES * b'\\' as u64));
    let controls = bytes.wrapping_sub(ONES * 0x20) & !bytes;
    (((quotes | backslashes | controls) & (ONES << 7)).trailing_zeros() / 8) as usize
}
