//! W3C Trace Context: the trace and the span in which something happens.

use std::fmt;

use tracing::field::{self, DisplayValue};

/// A trace's id, not all zero. It shows as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId([u8; 16]);

/// A span's id, not all zero. It shows as 16 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId([u8; 8]);

/// A span in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trace {
    pub id: TraceId,
    pub span: SpanId,
    /// `None` for the first span of a trace, and for one of another program.
    pub parent: Option<SpanId>,
    pub sampled: bool,
}

/// The trace id as the value of a log line's field; no field without a trace.
#[must_use]
pub fn trace_id(trace: Option<Trace>) -> Option<DisplayValue<TraceId>> {
    trace.map(|trace| field::display(trace.id))
}

impl TraceId {
    /// Takes 16 bytes; `None` for zeros.
    #[must_use]
    pub fn new(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Reads 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        decode(text).and_then(Self::new)
    }

    #[must_use]
    pub const fn bytes(self) -> [u8; 16] {
        self.0
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn hex(self) -> [u8; 32] {
        let mut text = [0; 32];
        encode(&self.0, &mut text);
        text
    }
}

impl SpanId {
    /// Takes 8 bytes; `None` for zeros.
    #[must_use]
    pub fn new(bytes: [u8; 8]) -> Option<Self> {
        (bytes != [0; 8]).then_some(Self(bytes))
    }

    /// Reads 16 lower-case hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        decode(text).and_then(Self::new)
    }

    /// The span of a decision: the last half of its id, so that the event's id gives its span.
    #[must_use]
    pub fn of_decision(id: [u8; 16]) -> Option<Self> {
        let [.., a, b, c, d, e, f, g, h] = id;
        Self::new([a, b, c, d, e, f, g, h])
    }

    #[must_use]
    pub const fn bytes(self) -> [u8; 8] {
        self.0
    }
}

impl Trace {
    /// Reads the header `traceparent` (W3C Trace Context, section 3.2). A later version is read as far as this one goes.
    #[must_use]
    pub fn parse(traceparent: &str) -> Option<Self> {
        // Every member has its length.
        let [version] = decode(traceparent.get(..2)?)?;
        let id = TraceId::parse(traceparent.get(3..35)?)?;
        let span = SpanId::parse(traceparent.get(36..52)?)?;
        let [flags] = decode(traceparent.get(53..55)?)?;
        let is_dash = |at: usize| traceparent.as_bytes().get(at) == Some(&b'-');
        let ends = traceparent.len() == 55 || (version != 0 && is_dash(55));
        let fits = version != 0xff && ends && [2, 35, 52].into_iter().all(is_dash);
        fits.then_some(Self { id, span, parent: None, sampled: flags & 1 == 1 })
    }

    /// The header that passes this span on to another program.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.id, self.span, u8::from(self.sampled))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show(&self.hex(), f)
    }
}

impl fmt::Debug for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 16];
        encode(&self.0, &mut text);
        show(&text, f)
    }
}

impl fmt::Debug for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn show(digits: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    f.write_str(str::from_utf8(digits).map_err(|_| fmt::Error)?)
}

/// Writes two digits for each byte.
fn encode(bytes: &[u8], text: &mut [u8]) {
    let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
    for (pair, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *pair = [digit(byte >> 4), digit(byte & 0xf)];
    }
}

/// Reads so many bytes of lower-case digits, and no others.
fn decode<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |text: u8| match text {
        b'0'..=b'9' => Some(text - b'0'),
        b'a'..=b'f' => Some(text - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let &[high, low] = digits else { return None };
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn a_traceparent_is_read_as_the_standard_has_it() {
        for (text, sampled) in [
            (format!("00-{ID}-{SPAN}-01"), Some(true)),
            (format!("00-{ID}-{SPAN}-00"), Some(false)),
            (format!("00-{ID}-{SPAN}-03"), Some(true)),
            (format!("00-{ID}-{SPAN}-fe"), Some(false)),
            (format!("cc-{ID}-{SPAN}-01"), Some(true)),
            (format!("cc-{ID}-{SPAN}-01-what-comes-later"), Some(true)),
            (format!("00-{ID}-{SPAN}-01-what-comes-later"), None),
            (format!("00-{ID}-{SPAN}-01-"), None),
            (format!("cc-{ID}-{SPAN}-01.what"), None),
            (format!("ff-{ID}-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", ID.to_uppercase()), None),
            (format!("00-{ID}-{}-01", SPAN.to_uppercase()), None),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{ID}-{}-01", "0".repeat(16)), None),
            (format!("00-{ID}0-{SPAN}-01"), None),
            (format!("00-{ID}-{SPAN}-1"), None),
            (format!("00-{ID}-{SPAN}-0g"), None),
            (format!("0-{ID}-{SPAN}-01"), None),
            (format!("00-{ID}-{SPAN}"), None),
            (format!(" 00-{ID}-{SPAN}-01"), None),
            (format!("00-{}é-{SPAN}-01", &ID[2..]), None),
            (String::new(), None),
        ] {
            let trace = Trace::parse(&text);
            assert_eq!(trace.map(|trace| trace.sampled), sampled, "{text}");
            if let Some(trace) = trace {
                let flags = if trace.sampled { "01" } else { "00" };
                assert_eq!(trace.traceparent(), format!("00-{ID}-{SPAN}-{flags}"));
                assert_eq!((trace.id.to_string(), trace.span.to_string()), (ID.to_owned(), SPAN.to_owned()));
            }
        }
    }

    #[test]
    fn a_decision_names_its_span() {
        let mut id = [7; 16];
        id[8..].copy_from_slice(&[0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
        assert_eq!(SpanId::of_decision(id).unwrap().to_string(), SPAN);
        assert_eq!(SpanId::of_decision([0; 16]), None);
    }
}
