//! The readings of one request path, by a strict gateway and by lenient ones.
//!
//! The only place with the rules by which servers and frameworks fold a path. `path/tests.rs` has the table of which does what.

use std::borrow::Cow;

use crate::params::pairs;

/// Most decoding passes of the lenient reading; no gateway serves a path that still changes after that.
const DECODE_ROUNDS_MAX: usize = 4;

/// Query parameters, in lower case, by which front controllers receive the path: Yii, Drupal, ThinkPHP, Phalcon, OpenCart,
/// WordPress, Kohana and rewrite rules of the web server.
const ROUTE_PARAMETERS: [&str; 8] = ["r", "q", "s", "_url", "route", "rest_route", "kohana_uri", "url"];

/// Endings, in lower case, of files that a web server runs. The rest of the path after such a segment is passed to the script.
const SCRIPTS: [&str; 21] = [
    "php", "php3", "php4", "php5", "php7", "php8", "phtml", "phar", "cgi", "fcgi", "pl", "py", "rb", "wsgi", "asp",
    "aspx", "ashx", "dll", "exe", "cfm", "jsp",
];

/// Room for the segments of most paths.
const SEGMENTS_USUAL: usize = 8;

/// The segments of one request path as strict and as lenient gateways read them.
#[derive(Debug)]
pub(crate) struct Readings<'a> {
    /// Decoded once inside each segment, without empty segments, `.` and `..` resolved.
    pub(super) plain: Vec<Cow<'a, str>>,
    /// The same with `.` and `..` left as segments, as routers read a path that no proxy has normalised. `None` without any.
    pub(super) unresolved: Option<Vec<String>>,
    /// The reading of the most lenient gateway. `None` where it is the same as the plain one.
    pub(super) lenient: Option<Vec<String>>,
    /// Other paths that some gateways read: without the part read as a host, from the query, decoded before it is split, or
    /// as the most lenient one with `.` and `..` left as segments.
    pub(super) instead: Vec<Vec<String>>,
    /// A `%` without two hexadecimal digits, or bytes that are not UTF-8: gateways read them differently.
    pub(super) malformed: bool,
    /// Every gateway reads the plain segments, and none of them has a dot, is an index or a folder of scripts.
    pub(super) is_usual: bool,
}

impl<'a> Readings<'a> {
    /// Reads a request target: a path, with or without a query.
    pub(crate) fn of(target: &'a [u8]) -> Self {
        Self::usual(target).unwrap_or_else(|| Self::every(target))
    }

    /// The readings of a path with which no gateway does anything but split it: without allocations but the list of segments.
    /// `None` for any other path.
    pub(super) fn usual(target: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(target).ok()?;
        let (mut plain, mut start) = (Vec::with_capacity(SEGMENTS_USUAL), 1_usize);
        let mut end = |end: usize| {
            let segment = text.get(start..end)?;
            start = end.wrapping_add(1);
            plain.push(Cow::Borrowed(segment));
            let is_special = match segment.len() {
                0 => true,
                5 => segment.eq_ignore_ascii_case("index"),
                7 => segment.eq_ignore_ascii_case("cgi-bin"),
                _ => false,
            };
            (!is_special).then_some(())
        };
        let (first, rest) = target.split_first()?;
        let mut at = 1_usize;
        for byte in rest {
            match USUAL.get(usize::from(*byte)) {
                Some(Usual::Part) => {}
                Some(Usual::Slash) => end(at)?,
                Some(Usual::End) => break,
                Some(Usual::No) | None => return None,
            }
            at = at.wrapping_add(1);
        }
        end(at)?;
        if *first != b'/' {
            return None;
        }
        Some(Self { plain, unresolved: None, lenient: None, instead: Vec::new(), malformed: false, is_usual: true })
    }

    pub(super) fn every(target: &[u8]) -> Self {
        let (target, absolute) = without_origin(target);
        let (path, query) = split_query(target);
        let mut malformed = false;
        let segments: Vec<String> = path
            .split(|byte| *byte == b'/')
            .map(|segment| {
                let (text, wrong) = plain(segment);
                malformed |= wrong;
                text
            })
            .collect();
        let unresolved =
            has_dots(&segments).then(|| segments.iter().filter(|segment| !segment.is_empty()).cloned().collect());
        let loose = is_curious(path).then(|| loosened(path));
        let mut instead: Vec<_> = loose.iter().filter(|segments| has_dots(segments)).cloned().collect();
        let lenient = loose.map(|segments| resolve(segments.into_iter()));
        let plain = resolve(segments.into_iter());
        let last = lenient.as_ref().unwrap_or(&plain);
        if path.contains(&b'%') {
            instead.push(decoded_first(path));
        }
        if absolute {
            instead.push(last.clone());
        }
        if let ([b'/' | b'\\', b'/' | b'\\', ..], Some((_, rest))) = (path, last.split_first()) {
            instead.push(rest.to_vec());
        }
        if last.last().is_none_or(|segment| is_script(segment)) {
            instead.extend(routed(query));
        }
        // Some gateways read the host as a part of the path.
        let plain = if absolute { Vec::new() } else { plain.into_iter().map(Cow::Owned).collect() };
        Self { plain, unresolved, lenient: lenient.filter(|_| !absolute), instead, malformed, is_usual: false }
    }
}

/// What a byte of a usual path is.
#[derive(Clone, Copy)]
enum Usual {
    /// No gateway decodes it, drops it or takes it for another one.
    Part,
    Slash,
    /// The query or the fragment begins.
    End,
    No,
}

/// What each byte is.
static USUAL: [Usual; 256] = {
    let mut table = [Usual::No; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = match byte as u8 {
            b'/' => Usual::Slash,
            b'?' | b'#' => Usual::End,
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => Usual::Part,
            b'-' | b'_' | b'~' | b':' | b'@' | b'$' | b'&' | b'+' | b'=' | b',' => Usual::Part,
            _ => Usual::No,
        };
        byte += 1;
    }
    table
};

/// The target without scheme and host, and whether it had any: `http://host/v1/payments`.
fn without_origin(target: &[u8]) -> (&[u8], bool) {
    let scheme = target.iter().take_while(|byte| byte.is_ascii_alphanumeric()).count();
    let rest = target.get(scheme..).and_then(|rest| rest.strip_prefix(b"://")).filter(|_| scheme > 0);
    match rest {
        None => (target, false),
        Some(rest) => {
            let host = rest.iter().take_while(|byte| !b"/\\?#".contains(byte)).count();
            (rest.get(host..).unwrap_or_default(), true)
        }
    }
}

fn split_query(target: &[u8]) -> (&[u8], &[u8]) {
    let end = |text: &[u8], ends: &[u8]| text.iter().position(|byte| ends.contains(byte)).unwrap_or(text.len());
    let path = target.get(..end(target, b"?#")).unwrap_or_default();
    let query = target.get(path.len()..).and_then(|rest| rest.strip_prefix(b"?")).unwrap_or_default();
    (path, query.get(..end(query, b"#")).unwrap_or_default())
}

/// Whether the lenient reading may differ from the plain one.
fn is_curious(path: &[u8]) -> bool {
    let strange = |byte: &u8| matches!(byte, b'%' | b';' | b'\\' | b'(') || !byte.is_ascii_graphic();
    path.iter().any(strange) || path.ends_with(b".") || path.windows(2).any(|pair| pair == b"./")
}

/// The paths that a front controller receives in its query: by a parameter, or as the whole query.
fn routed(query: &[u8]) -> Vec<Vec<String>> {
    let is_path = |name: &str, value: &str| {
        name.starts_with('/') && value.is_empty() || ROUTE_PARAMETERS.iter().any(|own| own.eq_ignore_ascii_case(name))
    };
    let pairs = pairs(query).filter(|(name, value)| is_path(name, value));
    pairs.map(|(name, value)| lenient(if value.is_empty() { name.as_bytes() } else { value.as_bytes() })).collect()
}

/// Whether a web server may run the file of this segment, and pass it the rest of the path.
pub(super) fn is_script(segment: &str) -> bool {
    let ending = segment.rsplit_once('.').map(|(_, ending)| ending);
    segment.eq_ignore_ascii_case("index")
        || ending.is_some_and(|ending| SCRIPTS.iter().any(|own| own.eq_ignore_ascii_case(ending)))
}

/// Decodes a segment once; the flag is true where gateways read it in different ways.
fn plain(segment: &[u8]) -> (String, bool) {
    let (bytes, malformed) = decode(segment, false);
    match String::from_utf8(bytes.into_owned()) {
        Ok(text) => (text, malformed),
        Err(error) => (String::from_utf8_lossy(error.as_bytes()).into_owned(), true),
    }
}

fn lenient(path: &[u8]) -> Vec<String> {
    resolve(loosened(path).into_iter())
}

/// The segments that the most lenient gateway reads, including `.` and `..`.
fn loosened(path: &[u8]) -> Vec<String> {
    let mut bytes = Cow::Borrowed(path);
    for _ in 0..DECODE_ROUNDS_MAX {
        let next = shortest(&decode(&bytes, true).0);
        if next == *bytes {
            break;
        }
        bytes = Cow::Owned(next);
    }
    let text: String = String::from_utf8_lossy(&bytes).chars().map(narrow).collect();
    let path = text.split(['\0', '?', '#']).next().unwrap_or_default();
    let segments = path.split(['/', '\\']).map(without_ornaments);
    segments.filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

/// The segments of a path that is decoded once before it is split, as WSGI and others pass it.
fn decoded_first(path: &[u8]) -> Vec<String> {
    let (bytes, _) = decode(path, false);
    let text = String::from_utf8_lossy(&bytes);
    text.split('/').filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

/// A segment without `;` parameters, without blanks, control characters and invalid UTF-8 around it, and without dots at its
/// end. ASP.NET's `(S(session))` becomes empty.
fn without_ornaments(segment: &str) -> &str {
    let blank = |letter: char| letter.is_whitespace() || letter.is_control() || letter == char::REPLACEMENT_CHARACTER;
    let segment = segment.split(';').next().unwrap_or_default().trim_matches(blank);
    match segment {
        "." | ".." => segment,
        _ if segment.starts_with('(') && segment.ends_with("))") => "",
        _ => segment.trim_end_matches(|letter| letter == '.' || blank(letter)),
    }
}

/// The ASCII character that a wide or look-alike one is folded onto by normalisation (NFKC) or by comparing without case.
fn narrow(letter: char) -> char {
    match letter {
        '\u{ff01}'..='\u{ff5e}' => u32::from(letter).checked_sub(0xfee0).and_then(char::from_u32).unwrap_or(letter),
        '\u{17f}' => 's',
        '\u{212a}' => 'k',
        '\u{130}' | '\u{131}' => 'i',
        '\u{2024}' => '.',
        _ => letter,
    }
}

fn has_dots(segments: &[String]) -> bool {
    segments.iter().any(|segment| matches!(segment.as_str(), "." | ".."))
}

fn resolve(segments: impl Iterator<Item = String>) -> Vec<String> {
    let mut resolved = Vec::new();
    for segment in segments {
        match segment.as_str() {
            "" | "." => {}
            ".." => {
                resolved.pop();
            }
            _ => resolved.push(segment),
        }
    }
    resolved
}

/// Decodes percent escapes once, and IIS' `%uXXXX` if `wide`; the flag is true where one was malformed and left as it is.
fn decode(text: &[u8], wide: bool) -> (Cow<'_, [u8]>, bool) {
    if !text.contains(&b'%') {
        return (Cow::Borrowed(text), false);
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut malformed = false;
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        if first != b'%' {
            bytes.push(first);
            rest = tail;
        } else if let Some((byte, after)) = escape(tail) {
            bytes.push(byte);
            rest = after;
        } else if let Some((letter, after)) = wide_escape(tail).filter(|_| wide) {
            bytes.extend(letter.encode_utf8(&mut [0; 4]).bytes());
            rest = after;
        } else {
            malformed = true;
            bytes.push(first);
            rest = tail;
        }
    }
    (Cow::Owned(bytes), malformed)
}

fn escape(tail: &[u8]) -> Option<(u8, &[u8])> {
    let (digits, after) = tail.split_first_chunk::<2>()?;
    let [high, low] = digits.map(digit);
    Some((u8::try_from((high? << 4) | low?).ok()?, after))
}

fn wide_escape(tail: &[u8]) -> Option<(char, &[u8])> {
    let (digits, after) = tail.strip_prefix(b"u").or_else(|| tail.strip_prefix(b"U"))?.split_first_chunk::<4>()?;
    let number = digits.iter().try_fold(0, |number, byte| Some((number << 4) | digit(*byte)?))?;
    Some((char::from_u32(number)?, after))
}

fn digit(byte: u8) -> Option<u32> {
    char::from(byte).to_digit(16)
}

/// Replaces overlong UTF-8 of an ASCII character by the character, as old decoders do: `C0 AF` is a slash.
fn shortest(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        let (byte, after) = match rest {
            [0xc0 | 0xc1, next @ 0x80..=0xbf, after @ ..] => (((first & 1) << 6) | (next & 0x3f), after),
            [0xe0, second @ (0x80 | 0x81), third @ 0x80..=0xbf, after @ ..]
            | [0xf0, 0x80, second @ (0x80 | 0x81), third @ 0x80..=0xbf, after @ ..] => {
                (((second & 1) << 6) | (third & 0x3f), after)
            }
            _ => (first, tail),
        };
        out.push(byte);
        rest = after;
    }
    out
}
