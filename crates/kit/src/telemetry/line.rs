//! One event as one JSON object: time, level, target and the event's own fields side by side. Every decision is such a line, so
//! it is put together in one buffer of its thread and handed over whole.

use std::cell::RefCell;
use std::fmt::{self, Debug, Write};

use chrono::{DateTime, Utc};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::request::current;
use crate::clock;

/// The field that names a line's trace.
const TRACE_ID: &str = "trace_id";

thread_local! {
    static LINE: RefCell<Line> = RefCell::default();
}

/// Formats events for the log.
#[derive(Clone, Copy, Debug)]
pub(super) struct JsonLine;

impl<S, N> FormatEvent<S, N> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        LINE.with(|line| match line.try_borrow_mut() {
            Ok(mut line) => writer.write_str(line.write(event)),
            // A value that logs while it is formatted.
            Err(_) => writer.write_str(Line::default().write(event)),
        })
    }
}

/// A line. Kept from one event to the next, so that it stays allocated, and with the second of the last one in its format: many
/// lines share it.
#[derive(Debug, Default)]
struct Line {
    text: String,
    second: Option<(i64, String)>,
}

impl Line {
    fn write(&mut self, event: &Event<'_>) -> &str {
        self.text.clear();
        self.text.push_str(r#"{"timestamp":""#);
        self.time(clock::now());
        self.text.push_str(r#"","level":""#);
        self.text.push_str(event.metadata().level().as_str());
        self.text.push('"');
        event.record(self);
        self.trace(event);
        self.string("target", event.metadata().target());
        self.text.push_str("}\n");
        &self.text
    }

    /// Writes a time to the microsecond (RFC 3339).
    fn time(&mut self, at: DateTime<Utc>) {
        let second = at.timestamp();
        if self.second.as_ref().is_none_or(|(own, _)| *own != second) {
            self.second = Some((second, at.format("%Y-%m-%dT%H:%M:%S.").to_string()));
        }
        let shown = self.second.as_ref().map(|(_, shown)| shown.as_str());
        self.text.push_str(shown.unwrap_or_default());
        let micros = at.timestamp_subsec_micros();
        let digit = |place: u32| char::from(b'0' + (micros / place % 10) as u8);
        self.text.extend([100_000, 10_000, 1_000, 100, 10, 1].map(digit));
        self.text.push('Z');
    }

    /// The trace of the current request, where the event does not name one itself.
    fn trace(&mut self, event: &Event<'_>) {
        let Some(trace) = current() else { return };
        if event.metadata().fields().field(TRACE_ID).is_none() {
            self.name(TRACE_ID);
            let _ = write!(self.text, "\"{}\"", trace.id);
        }
    }

    /// Names are Rust's own identifiers, but for a raw one's beginning.
    fn name(&mut self, name: &str) {
        self.text.push_str(",\"");
        self.text.push_str(name.strip_prefix("r#").unwrap_or(name));
        self.text.push_str("\":");
    }

    fn plain(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        // Writing into a string does not fail.
        let _ = write!(self.text, "{value}");
    }

    fn string(&mut self, name: &str, value: &str) {
        self.name(name);
        push_quoted(&mut self.text, value);
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.name(field.name());
        self.text.push('"');
        // Writing into a string does not fail; a value's own failure leaves what it has written.
        let _ = write!(Escaping(&mut self.text), "{value:?}");
        self.text.push('"');
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.string(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field.name(), value);
    }

    fn record_i128(&mut self, field: &Field, value: i128) {
        self.plain(field.name(), value);
    }

    fn record_u128(&mut self, field: &Field, value: u128) {
        self.plain(field.name(), value);
    }

    /// JSON has no notation for what is not a number.
    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field.name(), value);
        } else {
            self.plain(field.name(), "null");
        }
    }
}

/// Escapes what is formatted into it, part by part.
struct Escaping<'a>(&'a mut String);

impl Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        push_escaped(self.0, text);
        Ok(())
    }
}

/// Adds a text as a JSON string.
fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    push_escaped(out, text);
    out.push('"');
}

/// Adds a text as it stands in a JSON string (RFC 8259, section 7). What has to be escaped is one byte each.
fn push_escaped(out: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = rest.bytes().position(|byte| byte < b' ' || byte == b'"' || byte == b'\\') {
        let (plain, special) = rest.split_at(at);
        out.push_str(plain);
        let mut chars = special.chars();
        match chars.next() {
            Some('"') => out.push_str("\\\""),
            Some('\\') => out.push_str("\\\\"),
            Some('\n') => out.push_str("\\n"),
            Some(other) => drop(write!(out, "\\u{:04x}", u32::from(other))),
            None => {}
        }
        rest = chars.as_str();
    }
    out.push_str(rest);
}
