//! What is known of a request before its body, and how one value of a header is found in it.

use std::borrow::Cow;

/// The proxy failed to return a part of the request. This is not the same as an absent part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

/// The parts of a request that are known before its body.
pub trait Head {
    /// The method as the client sent it.
    fn method(&self) -> Cow<'_, str>;
    /// The path with the query, as the client sent it.
    fn path(&self) -> &[u8];
    /// The part of the path after the first `?`, up to a fragment.
    fn query(&self) -> &[u8] {
        query(self.path())
    }
    /// Whether any header's name may have so many bytes: asked before all of them are visited. `false` has to be certain, and counts
    /// for names that differ by their case, or by `_` for `-`, too.
    fn may_have(&self, _length: usize) -> bool {
        true
    }
    /// Every header's name and value.
    fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])>;
    /// Whether a value of [`Head::headers`] may be several values, which only [`Head::header`] separates.
    fn joins_values(&self) -> bool {
        false
    }
    /// Every value of a header, by its lower-case name.
    fn header(&self, name: &str) -> Vec<&[u8]> {
        let is_own = |own: &[u8]| own.len() == name.len() && own.eq_ignore_ascii_case(name.as_bytes());
        let own = self.headers().filter(|(own, _)| is_own(own));
        own.map(|(_, value)| value).collect()
    }
    /// Whether this text of the head may contain a character with which the proxy has replaced other bytes.
    fn is_replaced(&self, _text: &[u8]) -> bool {
        false
    }
    /// A string in Envoy's dynamic metadata; `None` where it is not set.
    ///
    /// # Errors
    /// [`Unreadable`] where the proxy did not answer: never treated as absent, or a client could select the next source.
    fn metadata(&self, path: &[String]) -> Result<Option<Cow<'_, [u8]>>, Unreadable>;
}

/// A method and a path, without headers.
impl Head for (&str, &str) {
    fn method(&self) -> Cow<'_, str> {
        Cow::Borrowed(self.0)
    }

    fn path(&self) -> &[u8] {
        self.1.as_bytes()
    }

    fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        std::iter::empty()
    }

    fn metadata(&self, _path: &[String]) -> Result<Option<Cow<'_, [u8]>>, Unreadable> {
        Ok(None)
    }
}

/// Whether gateways that write a header's name as a variable (CGI, WSGI, PHP: upper case, and `_` for every other character than
/// letters and digits) read both names as one.
pub(crate) fn is_same_variable(own: &str, other: &[u8]) -> bool {
    let same = |(own, other): (u8, &u8)| {
        own.eq_ignore_ascii_case(other) || !own.is_ascii_alphanumeric() && !other.is_ascii_alphanumeric()
    };
    own.len() == other.len() && own.bytes().zip(other).all(same)
}

/// The single value of a header. Equal repetitions count as one. Another header that a gateway may read as it is an error.
pub(super) fn single<'a>(head: &'a impl Head, name: &str) -> Result<Option<&'a str>, String> {
    if !head.may_have(name.len()) {
        return Ok(None);
    }
    let [value] = singles(head, [name]);
    value.value(head, name)
}

/// One bit for each length of a name, the last one for all that are longer.
#[inline]
#[must_use]
pub const fn length_bit(length: usize) -> u64 {
    1 << if length < 63 { length } else { 63 }
}

/// The values of several headers, whose names have different lengths, in one pass.
pub(super) fn singles<'a, const N: usize>(head: &'a impl Head, names: [&str; N]) -> [Single<'a>; N] {
    let mut found = [Single::default(); N];
    let wanted = names.iter().fold(0, |wanted, name| wanted | length_bit(name.len()));
    for (other, value) in head.headers() {
        if wanted & length_bit(other.len()) == 0 {
            continue;
        }
        for (name, single) in names.iter().zip(&mut found).filter(|(name, _)| name.len() == other.len()) {
            single.add(name, other, value);
        }
    }
    found
}

/// What was found of one header.
#[derive(Clone, Copy, Default)]
pub(super) struct Single<'a> {
    first: Option<&'a [u8]>,
    differs: bool,
    has_twin: bool,
}

impl<'a> Single<'a> {
    fn add(&mut self, name: &str, other: &[u8], value: &'a [u8]) {
        if quota::is_same(other, name.as_bytes()) || other.eq_ignore_ascii_case(name.as_bytes()) {
            self.differs |= !quota::is_same(self.first.get_or_insert(value), value);
        } else if is_same_variable(name, other) && std::str::from_utf8(other).is_ok() {
            self.has_twin = true;
        }
    }

    pub(super) fn value(self, head: &'a impl Head, name: &str) -> Result<Option<&'a str>, String> {
        self.bytes(head, name)?.map(text).transpose()
    }

    pub(super) fn bytes(self, head: &'a impl Head, name: &str) -> Result<Option<&'a [u8]>, String> {
        let Self { first, mut differs, has_twin } = self;
        if has_twin {
            return Err("is given by another name too, which some gateways take for this one".to_owned());
        }
        let Some(mut first) = first else {
            return Ok(None);
        };
        if head.joins_values() {
            let values = head.header(name);
            first = values.first().copied().unwrap_or_default();
            differs = values.iter().any(|other| *other != first);
        }
        if differs {
            return Err("is given more than once, with different values".to_owned());
        }
        if head.is_replaced(first) {
            return Err(
                "may hold bytes that Envoy has replaced by '!': set encode_raw_headers on its ext_authz".to_owned()
            );
        }
        Ok(Some(first))
    }
}

pub(super) fn text(bytes: &[u8]) -> Result<&str, String> {
    std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())
}

/// The part of a path after the first `?`, up to a fragment.
#[must_use]
pub fn query(path: &[u8]) -> &[u8] {
    // Quicker than the search for the position, which most paths do not have.
    if !path.contains(&b'?') {
        return &[];
    }
    let at = path.iter().position(|byte| *byte == b'?').map_or(path.len(), |at| at.saturating_add(1));
    let query = path.get(at..).unwrap_or_default();
    query.split(|byte| *byte == b'#').next().unwrap_or_default()
}
