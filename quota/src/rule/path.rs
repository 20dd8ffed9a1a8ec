//! Path templates, and the two readings of a request's path that keep a payment from slipping past its rule.

use std::borrow::Cow;

/// How often the lenient reading decodes at most; what still changes after that is no path that a gateway serves.
const DECODE_ROUNDS_MAX: usize = 4;

/// What a template's `{name}` segments held, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Captures(Vec<(String, String)>);

impl Captures {
    /// The decoded segment, or `None` for a name that the template does not have.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }
}

/// A path with captures, as in `/v1/merchants/{merchant}/payments`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Template(Vec<Segment>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    Capture(String),
}

/// Whether a template is meant by a path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Match {
    No,
    Yes(Captures),
    Ambiguous,
}

impl Template {
    pub(super) fn parse(text: &str, segments_max: usize) -> Result<Self, String> {
        let rest = text.strip_prefix('/').ok_or("must start with '/'")?;
        let segments: Vec<Segment> =
            if rest.is_empty() { Vec::new() } else { rest.split('/').map(segment).collect::<Result<_, _>>()? };
        if segments.len() > segments_max {
            return Err(format!("has {} segments, at most {segments_max} are taken", segments.len()));
        }
        let template = Self(segments);
        let names: Vec<&str> = template.names().collect();
        match names.iter().enumerate().find(|(at, name)| names.iter().take(*at).any(|other| other == *name)) {
            Some((_, name)) => Err(format!("captures {{{name}}} twice")),
            None => Ok(template),
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|segment| match segment {
            Segment::Capture(name) => Some(name.as_str()),
            Segment::Literal(_) => None,
        })
    }

    pub(super) fn matches(&self, readings: &Readings) -> Match {
        let plain = self.captures(&readings.plain);
        let lenient = readings.lenient.as_ref().map_or_else(|| plain.clone(), |segments| self.captures(segments));
        match (plain, lenient) {
            (None, None) => Match::No,
            (Some(plain), Some(lenient)) if plain == lenient && !readings.malformed => Match::Yes(plain),
            (Some(_), _) | (None, Some(_)) => Match::Ambiguous,
        }
    }

    fn captures(&self, segments: &[String]) -> Option<Captures> {
        if segments.len() != self.0.len() {
            return None;
        }
        let mut captures = Vec::new();
        for (own, given) in self.0.iter().zip(segments) {
            match own {
                Segment::Literal(literal) if literal.eq_ignore_ascii_case(given) => {}
                Segment::Literal(_) => return None,
                Segment::Capture(name) => captures.push((name.clone(), given.clone())),
            }
        }
        Some(Captures(captures))
    }
}

fn segment(text: &str) -> Result<Segment, String> {
    if let Some(name) = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        let named = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        return if named {
            Ok(Segment::Capture(name.to_owned()))
        } else {
            Err(format!("capture {text:?} must be named by letters, digits and '_'"))
        };
    }
    let plain = |byte: u8| byte.is_ascii_graphic() && !b"%;\\?#{}".contains(&byte);
    match text {
        "" => Err("has an empty segment; write it without a doubled or trailing '/'".to_owned()),
        "." | ".." => Err("must not hold '.' or '..'".to_owned()),
        _ if text.bytes().all(plain) => Ok(Segment::Literal(text.to_owned())),
        _ => Err(format!("segment {text:?} must be visible ASCII without % ; \\ ? # {{ }}")),
    }
}

/// The segments of one request path as a strict and as a lenient gateway see them.
#[derive(Debug)]
pub(super) struct Readings {
    plain: Vec<String>,
    /// `None` where it is the same as the plain one.
    lenient: Option<Vec<String>>,
    /// A `%` without two hexadecimal digits: gateways differ about it.
    malformed: bool,
}

impl Readings {
    pub(super) fn of(path: &str) -> Self {
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let plain = resolve(path.split('/').map(|segment| decode(segment).0));
        let curious = path.contains(['%', ';', '\\']);
        Self { plain, lenient: curious.then(|| lenient(path)), malformed: decode(path).1 }
    }
}

fn lenient(path: &str) -> Vec<String> {
    let mut text = path.to_owned();
    for _ in 0..DECODE_ROUNDS_MAX {
        let next = decode(&text).0.into_owned();
        if next == text {
            break;
        }
        text = next;
    }
    let without_parameters = |segment: &str| Cow::Owned(segment.split(';').next().unwrap_or_default().to_owned());
    resolve(text.split(['/', '\\']).map(without_parameters))
}

fn resolve<'a>(segments: impl Iterator<Item = Cow<'a, str>>) -> Vec<String> {
    let mut resolved = Vec::new();
    for segment in segments {
        match segment.as_ref() {
            "" | "." => {}
            ".." => {
                resolved.pop();
            }
            _ => resolved.push(segment.into_owned()),
        }
    }
    resolved
}

/// Decodes percent escapes once; the flag says that one was malformed and left as it is.
fn decode(text: &str) -> (Cow<'_, str>, bool) {
    if !text.contains('%') {
        return (Cow::Borrowed(text), false);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut malformed = false;
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        match (first, escape(tail)) {
            (b'%', Some((byte, after))) => {
                bytes.push(byte);
                rest = after;
            }
            (_, _) => {
                malformed |= first == b'%';
                bytes.push(first);
                rest = tail;
            }
        }
    }
    (Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()), malformed)
}

fn escape(tail: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = tail.split_first_chunk::<2>()?;
    let [high, low] = digits.map(|digit| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok()));
    Some(((high? << 4) | low?, after))
}
