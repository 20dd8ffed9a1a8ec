//! The log: one JSON object a line on standard output, times in RFC 3339 (UTC).
//!
//! Lines go through a bounded queue to a thread of their own: a reader of standard output that stops reading must not
//! make a payment wait. What does not fit is dropped and counted; the journal has every decision nevertheless.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use thiserror::Error;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Format, Json, JsonFields};
use tracing_subscriber::reload::{self, Handle};
use tracing_subscriber::{EnvFilter, fmt};

use crate::metrics::Metrics;
use crate::settings::LogFilter;

/// Lines that may wait to be written: some seconds of decisions at full load, about 8 MB.
const QUEUED_LINES_MAX: usize = 16_384;
/// How long shutdown waits for the queue to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Size of the write buffer: several lines go out in one system call.
const BUFFER_BYTES: usize = 64 * 1024;

/// Why the log could not be started.
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
}

/// Writes what is still queued when it is dropped. `main` keeps it to its end.
#[derive(Debug)]
pub struct LogGuard(SyncSender<Message>);

/// Changes what is logged while the server runs.
#[derive(Clone, Debug)]
pub struct LogControl(Handle<EnvFilter, fmt::Formatter<JsonFields, Format<Json>, Queue>>);

impl LogControl {
    /// Puts the filter in the place of the present one.
    ///
    /// # Errors
    /// [`TelemetryError`] where the filter cannot be read or the log is gone; the present filter stays.
    pub fn set(&self, filter: &LogFilter) -> Result<(), TelemetryError> {
        Ok(self.0.reload(EnvFilter::try_new(filter.as_str())?)?)
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let (done, written) = sync_channel(1);
        // The channel has room again as soon as the writer makes progress; a stuck writer is not waited for.
        if self.0.try_send(Message::Flush(done)).is_ok()
            && matches!(written.recv_timeout(FLUSH_TIMEOUT), Err(RecvTimeoutError::Timeout))
        {
            let _ = writeln!(io::stderr(), "the last log lines could not be written in time");
        }
    }
}

/// Starts the log on standard output.
///
/// # Errors
/// [`TelemetryError`] where the filter, the thread or the installation fails.
pub fn start(filter: &LogFilter, metrics: Arc<Metrics>) -> Result<(LogGuard, LogControl), TelemetryError> {
    let queue = start_writer(io::stdout())?;
    let builder = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_span_list(false)
        .with_env_filter(EnvFilter::try_new(filter.as_str())?)
        .with_writer(Queue { lines: queue.clone(), metrics })
        .with_filter_reloading();
    let control = LogControl(builder.reload_handle());
    tracing::subscriber::set_global_default(builder.finish())?;
    Ok((LogGuard(queue), control))
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Flush(SyncSender<()>),
}

#[derive(Clone, Debug)]
struct Queue {
    lines: SyncSender<Message>,
    metrics: Arc<Metrics>,
}

impl Write for &Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Message::Line(line.to_vec())).is_err() {
            self.metrics.log_line_dropped();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

fn start_writer(target: impl Write + Send + 'static) -> io::Result<SyncSender<Message>> {
    let (queue, lines) = sync_channel(QUEUED_LINES_MAX);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write_lines(target, &lines))?;
    Ok(queue)
}

/// Writes lines until the queue is closed, and flushes whenever it runs empty. A target that refuses (a closed pipe) is
/// tried again with the next line: the process does not end for want of a reader.
fn write_lines(target: impl Write, lines: &Receiver<Message>) {
    let mut out = io::BufWriter::with_capacity(BUFFER_BYTES, target);
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => {
                    let _ = out.write_all(&line);
                }
                Message::Flush(done) => {
                    let _ = out.flush();
                    let _ = done.try_send(());
                }
            }
            next = lines.try_recv().ok();
        }
        let _ = out.flush();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_json_with_rfc_3339_times_and_all_written_when_the_guard_goes() {
        let sink = Sink::default();
        let lines = start_writer(sink.clone()).unwrap();
        let queue = Queue { lines: lines.clone(), metrics: Arc::new(Metrics::new()) };
        let subscriber = tracing_subscriber::fmt().json().flatten_event(true).with_writer(queue).finish();
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..100 {
                tracing::info!(number, "a line");
            }
        });
        drop(LogGuard(lines));
        let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.lines().count(), 100);
        for (number, line) in text.lines().enumerate() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["number"], number);
            assert_eq!(line["message"], "a line");
            assert!(chrono::DateTime::parse_from_rfc3339(line["timestamp"].as_str().unwrap()).is_ok());
        }
    }

    #[test]
    fn a_reader_that_stops_makes_nobody_wait() {
        let (lines, _kept_unread) = sync_channel(1);
        let metrics = Arc::new(Metrics::new());
        let queue = Queue { lines, metrics: Arc::clone(&metrics) };
        for _ in 0..3 {
            (&queue).write_all(b"x\n").unwrap();
        }
        assert!(metrics.encode().contains("log_lines_dropped_total 2"));
    }
}
