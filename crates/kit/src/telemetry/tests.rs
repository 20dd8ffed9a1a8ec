use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use futures_util::FutureExt;

use super::*;

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

/// What is written for the events of `log`.
fn written(log: impl FnOnce()) -> Vec<serde_json::Value> {
    filtered("trace", log)
}

/// The same with a filter.
fn filtered(filter: &str, log: impl FnOnce()) -> Vec<serde_json::Value> {
    let sink = Sink::default();
    let buffer = buffer::start(sink.clone()).unwrap();
    let lines = Lines { buffer: Arc::clone(&buffer), metrics: Arc::default() };
    let filter = env_filter(&LogFilter::parse(filter).unwrap()).unwrap();
    let subscriber =
        tracing_subscriber::fmt().event_format(JsonLine).with_env_filter(filter).with_writer(lines).finish();
    tracing::subscriber::with_default(subscriber, log);
    drop(LogGuard(buffer));
    let text = String::from_utf8(sink.0.lock().unwrap().clone()).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'));
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn lines_are_json_with_rfc_3339_times_and_all_written_when_the_guard_goes() {
    let lines = written(|| (0..100).for_each(|number| tracing::info!(number, "a line")));
    assert_eq!(lines.len(), 100);
    for (number, line) in lines.iter().enumerate() {
        assert_eq!(line["number"], number);
        assert_eq!(line["message"], "a line");
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["target"], module_path!());
        assert!(chrono::DateTime::parse_from_rfc3339(line["timestamp"].as_str().unwrap()).is_ok());
    }
}

#[test]
fn directives_name_crates_and_the_modules_that_they_were() {
    let log = || {
        tracing::debug!(target: "sluice_store::redis", "store");
        tracing::debug!(target: "sluice_journal::drain", "journal");
        tracing::debug!(target: "other", "other");
        tracing::warn!(target: "sqlx_core::pool::connection", "pool");
    };
    for (filter, expected) in [
        ("info,sluice=debug", &["store", "journal"][..]),
        ("info,sluice_store=debug", &["store"]),
        ("info,sluice_journal::drain=debug", &["journal"]),
        ("info,authz_server=debug", &["store", "journal"]),
        ("info,authz_server::journal::drain=debug", &["journal"]),
        ("info,authz_server=debug,authz_server::store=info", &["journal"]),
        ("info,authz_server::storehouse=debug", &[]),
        ("off,sqlx_core::pool=warn", &["pool"]),
        ("debug,authz_server=info", &["other"]),
    ] {
        let lines = filtered(filter, log);
        let names: Vec<&str> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
        assert_eq!(names, expected, "{filter}");
    }
}

#[test]
fn b6_decisions_and_changes_by_hand_are_logged_unless_a_directive_names_them() {
    let all = ["decision", "audit", "error", "info"];
    for (filter, expected) in [
        ("info", &all[..]),
        ("warn", &["decision", "audit", "error"]),
        ("error", &["decision", "audit", "error"]),
        ("off", &["decision", "audit"]),
        ("off,sluice::decision=off", &["audit"]),
        ("warn,sluice::decision=off", &["audit", "error"]),
        ("warn,sluice=error", &["error"]),
        ("info,sluice::audit=warn", &["decision", "error", "info"]),
    ] {
        let lines = filtered(filter, || {
            tracing::info!(target: DECISION, "decision");
            tracing::info!(target: AUDIT, "audit");
            tracing::error!("error");
            tracing::info!("info");
        });
        let messages: Vec<_> = lines.iter().filter_map(|line| line["message"].as_str()).collect();
        assert_eq!(messages, expected, "{filter}");
    }
}

#[test]
fn every_kind_of_value_reads_as_it_was_given() {
    let texts = ["", "plain", "\"quoted\" \\ back", "line\nfeed\r\ttab", "\u{0}\u{1f}\u{7f}", "ünïcode 支付 \u{1F4B3}"];
    let lines = written(|| {
        for text in texts {
            tracing::warn!(text, shown = %text, debugged = ?text, "{text}");
        }
        let none: Option<&str> = None;
        tracing::error!(
            yes = true,
            less = -5_i64,
            more = u64::MAX,
            none,
            half = 0.5,
            not_a_number = f64::NAN,
            r#type = 1
        );
    });
    for (line, text) in lines.iter().zip(texts) {
        assert_eq!(line["text"], text);
        assert_eq!(line["shown"], text);
        assert_eq!(line["debugged"], format!("{text:?}"));
        assert_eq!(line["message"], text);
    }
    let last = lines.last().unwrap();
    let numbers = [&last["yes"], &last["less"], &last["more"], &last["half"], &last["type"]];
    assert_eq!(serde_json::json!(numbers), serde_json::json!([true, -5, u64::MAX, 0.5, 1]));
    assert!(last["not_a_number"].is_null() && last.get("none").is_none());
}

#[test]
fn a_line_of_a_request_names_its_trace_once() {
    let trace = Trace::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
    let lines = written(|| {
        let own = trace_id(Trace::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01"));
        let log = || {
            tracing::info!("plain");
            tracing::info!(trace_id = own.clone(), "with its own");
            tracing::info!(trace_id = trace_id(None), "with none");
        };
        log();
        request::within(trace, async { log() }).now_or_never().unwrap();
    });
    let ids: Vec<_> = lines.iter().map(|line| line.get("trace_id").and_then(|id| id.as_str())).collect();
    let (own, request) = (Some("4bf92f3577b34da6a3ce929d0e0e4736"), Some("0af7651916cd43dd8448eb211c80319c"));
    assert_eq!(ids, [None, own, None, request, own, None]);
}

/// A reader of standard output that does not read until it is released.
struct Stuck(Receiver<()>, Sink);

impl Write for Stuck {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let _ = self.0.recv();
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_reader_that_stops_makes_nobody_wait() {
    let (go_on, stuck): (Sender<()>, _) = channel();
    let sink = Sink::default();
    let buffer = buffer::start(Stuck(stuck, sink.clone())).unwrap();
    let metrics = Arc::<LogMetrics>::default();
    let lines = Lines { buffer: Arc::clone(&buffer), metrics: Arc::clone(&metrics) };
    let line = [vec![b'x'; (1 << 20) - 1], b"\n".to_vec()].concat();
    // More than the writer may have taken and the buffer holds, together.
    for _ in 0..20 {
        (&lines).write_all(&line).unwrap();
    }
    assert!(!buffer.flush(Duration::from_millis(1)), "nothing can be written yet");
    drop(go_on);
    assert!(buffer.flush(Duration::from_secs(60)));
    let kept = sink.0.lock().unwrap().len() / line.len();
    assert!((8..=16).contains(&kept), "{kept}");
    assert_eq!(metrics.lines_dropped.get(), 20 - kept as u64);
}
