//! The log: one JSON object a line on standard output, times in RFC 3339 (UTC). Beside it traces: [`Trace`] follows the W3C trace
//! context of a payment and an API request, and spans go to a collector where the settings name one.
//!
//! Lines wait in a bounded buffer for a thread of their own: a reader of standard output that stops reading must not
//! make a payment wait. What does not fit is dropped and counted; the journal has every decision nevertheless.

mod buffer;
mod filter;
mod line;
mod metrics;
mod otlp;
mod request;
mod sampler;
pub mod spans;
mod trace;
pub mod tracer;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::DefaultFields;
use tracing_subscriber::fmt::{Formatter, MakeWriter};
use tracing_subscriber::reload::{self, Handle};

use crate::http::HttpUrl;
use crate::metrics::Metrics;
use buffer::Buffer;
use line::JsonLine;
use tracer::Tracer;

pub use filter::LogFilter;
pub use metrics::{LogMetrics, TraceMetrics};
pub use request::{carried, current, within};
pub use sampler::Sampler;
pub use spans::{Delivered, Delivery};
pub use trace::{SpanId, Trace, TraceId, trace_id};

/// The target of a decision's line, for operators to grep. A general level does not switch it off.
pub const DECISION: &str = "sluice::decision";
/// The target of lines about manual changes and refused credentials.
pub const AUDIT: &str = "sluice::audit";

/// How long shutdown waits for the last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

/// Why the log or the export of spans could not be started.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter directive cannot be read.
    #[error("SLUICE_LOG cannot be read: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// No thread for the writer.
    #[error("the log's thread cannot be started: {0}")]
    Thread(#[from] io::Error),
    /// The filter could not be changed.
    #[error("the log's filter cannot be changed: {0}")]
    Reload(#[from] reload::Error),
    /// Another log is already in place.
    #[error("a log is already installed in this process")]
    Installed(#[from] tracing::subscriber::SetGlobalDefaultError),
    /// The exporter of spans cannot work.
    #[error("spans cannot be exported to OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Export(io::Error),
    /// Spans of this process are exported already.
    #[error("spans are exported already in this process")]
    Exported,
}

/// Writes pending lines when it is dropped. `main` keeps it to its end.
#[derive(Debug)]
pub struct LogGuard(Arc<Buffer>);

/// Changes what is logged while the server runs.
#[derive(Clone, Debug)]
pub struct LogControl(Handle<EnvFilter, Formatter<DefaultFields, JsonLine, Lines>>);

impl LogControl {
    /// Replaces the filter.
    ///
    /// # Errors
    /// [`TelemetryError`] where the filter cannot be read or the log is gone; the present filter stays.
    pub fn set(&self, filter: &LogFilter) -> Result<(), TelemetryError> {
        Ok(self.0.reload(env_filter(filter)?)?)
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        if !self.0.flush(FLUSH_TIMEOUT) {
            let _ = writeln!(io::stderr(), "the last log lines could not be written in time");
        }
    }
}

/// A library's target whose warnings say that a connection to Postgres is gone: [`crate::health`] logs an outage once.
const POOL: &str = "sqlx_core::pool";

/// The filter, with the levels of targets that no level for all changes: only a directive that names them does.
fn env_filter(filter: &LogFilter) -> Result<EnvFilter, TelemetryError> {
    let is_off = filter.as_str().split(',').any(|directive| directive.eq_ignore_ascii_case("off"));
    let fixed = [(DECISION, "info"), (AUDIT, "info"), (POOL, if is_off { "off" } else { "error" })];
    let fixed = fixed.into_iter().filter(|(target, _)| !filter.names(target));
    let directives = fixed.map(|(target, level)| format!("{target}={level}"));
    let all: Vec<String> = filter.directives().into_iter().chain(directives).collect();
    Ok(EnvFilter::try_new(all.join(","))?)
}

/// Starts the log on standard output.
///
/// # Errors
/// [`TelemetryError`] where the filter, the thread or the installation fails.
pub fn start(filter: &LogFilter, metrics: &Metrics) -> Result<(LogGuard, LogControl), TelemetryError> {
    let buffer = buffer::start(io::stdout())?;
    let builder = tracing_subscriber::fmt()
        .event_format(JsonLine)
        .with_env_filter(env_filter(filter)?)
        .with_writer(Lines { buffer: Arc::clone(&buffer), metrics: metrics.part() })
        .with_filter_reloading();
    let control = LogControl(builder.reload_handle());
    tracing::subscriber::set_global_default(builder.finish())?;
    Ok((LogGuard(buffer), control))
}

/// Sends pending spans when it is dropped. `main` keeps it to its end.
#[derive(Debug)]
pub struct SpansGuard(#[expect(dead_code, reason = "its drop does the work")] otlp::Guard);

/// Where spans are sent, and which.
#[derive(Clone, Debug)]
pub struct Export<'a> {
    pub collector: &'a HttpUrl,
    pub service_name: &'a str,
    pub sampler: Sampler,
}

/// Starts the export of spans.
///
/// # Errors
/// [`TelemetryError`] where the collector's address or the thread cannot be used. A collector that is away is no error.
pub fn export_spans(export: &Export<'_>, metrics: &Metrics) -> Result<SpansGuard, TelemetryError> {
    let Export { collector, service_name, sampler } = *export;
    let metrics: Arc<TraceMetrics> = metrics.part();
    let (queue, guard) = otlp::start(collector, service_name, Arc::clone(&metrics)).map_err(TelemetryError::Export)?;
    if !tracer::install(Tracer::new(sampler, queue, metrics)) {
        return Err(TelemetryError::Exported);
    }
    Ok(SpansGuard(guard))
}

/// Takes whole lines.
#[derive(Clone, Debug)]
struct Lines {
    buffer: Arc<Buffer>,
    metrics: Arc<LogMetrics>,
}

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.buffer.put(line) {
            self.metrics.lines_dropped.inc();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests;
