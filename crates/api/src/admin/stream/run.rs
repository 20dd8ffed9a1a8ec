//! One stream: its events, and its end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use axum::response::sse::Event;
use futures_util::stream;
use serde::Serialize;
use sluice_kit::shutdown::Shutdown;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::permits::StreamPermit;
use crate::admin::{Admin, Caller};
use sluice_alerts::read::Alert;
use sluice_kit::telemetry::{self, trace_id};
use sluice_live::{Change, Item, Reader, Wake};

/// How long a stream that has sent everything waits before it reads again: if there was nothing, unless an alert wakes it; and at
/// least.
const READ_INTERVAL: Duration = Duration::from_secs(1);
const REST: Duration = Duration::from_millis(250);
/// How often a stream that has found nothing so far sends its position.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// The reconnection time that is sent to clients.
const RECONNECT: Duration = Duration::from_secs(2);

/// An open stream.
pub(super) struct Stream {
    admin: Admin,
    caller: Caller,
    /// The caller's credentials, which are checked again with each heartbeat.
    credentials: HeaderMap,
    reader: Reader,
    /// Read, and not yet taken by the client.
    items: VecDeque<Item>,
    beat_at: Instant,
    /// When the position was last sent to the client.
    stood_at: Instant,
    /// How long to wait before the next reading.
    rest: Duration,
    state: State,
    _permit: StreamPermit,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    New,
    Open,
    Ended,
}

/// The last event.
#[derive(Serialize)]
struct Ended<'a> {
    /// As in a problem, or `STOPPING`.
    code: &'static str,
    detail: &'a str,
}

#[derive(Serialize)]
struct AlertChange<'a> {
    change: &'a str,
    changed_at: chrono::DateTime<chrono::Utc>,
    alert: &'a Alert,
}

impl Stream {
    pub(super) fn new(
        admin: &Admin,
        caller: Caller,
        headers: &HeaderMap,
        reader: Reader,
        permit: StreamPermit,
    ) -> Self {
        let shown = headers.get(header::AUTHORIZATION).cloned();
        let credentials = shown.map(|value| (header::AUTHORIZATION, value)).into_iter().collect();
        let stood_at = Instant::now();
        let beat_at = stood_at + heartbeat(admin);
        let (admin, items, rest) = (admin.clone(), VecDeque::new(), Duration::ZERO);
        Self { admin, caller, credentials, reader, items, beat_at, stood_at, rest, state: State::New, _permit: permit }
    }

    /// Its events, until the server stops. A task of its own makes them, one ahead of the client: so the stream ends in time if a
    /// client reads nothing, also if its connection requests nothing.
    pub(super) fn until(self, wake: Wake, stopping: Shutdown) -> impl stream::Stream<Item = Result<Event, Infallible>> {
        let (sender, mut receiver) = mpsc::channel(1);
        tokio::spawn(telemetry::carried(self.send_events(sender, wake, stopping)));
        stream::poll_fn(move |context| receiver.poll_recv(context).map(|event| event.map(Ok)))
    }

    async fn send_events(mut self, events: mpsc::Sender<Event>, mut wake: Wake, mut stopping: Shutdown) {
        loop {
            let event = tokio::select! {
                event = self.next(&mut wake, &mut stopping) => event,
                () = events.closed() => return,
            };
            let Some(event) = event else { return };
            if let Err(error) = events.send_timeout(event, patience(&self.admin)).await {
                let trace_id = trace_id(telemetry::current());
                debug!(%error, trace_id, "live stream closed: client does not read");
                return;
            }
        }
    }

    async fn next(&mut self, wake: &mut Wake, stopping: &mut Shutdown) -> Option<Event> {
        match self.state {
            State::New => {
                self.state = State::Open;
                return Some(self.standing().retry(RECONNECT));
            }
            State::Open => {}
            State::Ended => return None,
        }
        loop {
            if stopping.is_requested() {
                return Some(self.end("STOPPING", "the server stops: connect again with the last id"));
            }
            if Instant::now() >= self.beat_at {
                if let Some(end) = self.check_credentials().await {
                    return Some(end);
                }
                self.beat_at = Instant::now() + heartbeat(&self.admin);
                if self.items.is_empty() {
                    return Some(self.standing());
                }
            }
            if let Some(item) = self.items.pop_front() {
                self.admin.stream_metrics.stream_events.inc();
                return Some(event(&item));
            }
            if !self.rest.is_zero() {
                self.wait(wake, stopping).await;
                continue;
            }
            match self.reader.read().await {
                Ok((items, true)) if items.is_empty() => {
                    if self.stood_at.elapsed() >= PROGRESS_INTERVAL {
                        return Some(self.standing());
                    }
                }
                Ok((items, more)) => {
                    if !more {
                        self.rest = if items.is_empty() { READ_INTERVAL } else { REST };
                    }
                    self.items.extend(items);
                }
                Err(error) => {
                    let trace_id = trace_id(telemetry::current());
                    warn!(%error, trace_id, "live stream cannot be read");
                    return Some(self.end("DATABASE_UNAVAILABLE", "connect again with the last id"));
                }
            }
        }
    }

    /// Waits until there may be something to send, or a heartbeat is due.
    async fn wait(&mut self, wake: &mut Wake, stopping: &mut Shutdown) {
        let most = std::mem::take(&mut self.rest).min(self.beat_at.saturating_duration_since(Instant::now()));
        let rest = async {
            tokio::time::sleep(REST).await;
            wake.within(most.saturating_sub(REST)).await;
        };
        tokio::select! {
            () = rest => {}
            () = stopping.requested() => {}
        }
    }

    /// The last event if the token has expired or was revoked, or belongs to another caller by now.
    async fn check_credentials(&mut self) -> Option<Event> {
        match self.admin.auth.authenticate(&self.credentials).await {
            Ok(caller) if caller == self.caller => None,
            Ok(_) => Some(self.end("FORBIDDEN", "the token's rights have changed: connect again")),
            Err(problem) => Some(self.end(problem.code(), "the token does not open the stream any more")),
        }
    }

    /// With the id of its position, unless items up to there are not sent yet.
    fn end(&mut self, code: &'static str, detail: &str) -> Event {
        debug!(code, trace_id = trace_id(telemetry::current()), "live stream ended");
        self.state = State::Ended;
        let event = json("ended", &Ended { code, detail });
        if self.items.is_empty() { event.id(self.reader.cursor().encode()) } else { event }
    }

    /// An id alone: clients store it and fire no event.
    fn standing(&mut self) -> Event {
        self.stood_at = Instant::now();
        Event::default().id(self.reader.cursor().encode())
    }
}

fn heartbeat(admin: &Admin) -> Duration {
    Duration::from_secs(admin.live.current().stream_heartbeat_secs)
}

/// How long a client may leave an event unread, and a stream may send nothing at all.
pub(super) fn patience(admin: &Admin) -> Duration {
    2 * heartbeat(admin)
}

fn event(Item { change, place }: &Item) -> Event {
    let event = match change {
        Change::Alert { change, changed_at, alert } => {
            json("alert", &AlertChange { change, changed_at: *changed_at, alert })
        }
        Change::Decision(row) => json("decision", row),
        Change::CreditLine(change) => json("credit_line", change),
    };
    event.id(place.encode())
}

/// Our own types always are JSON.
fn json(name: &str, data: &impl Serialize) -> Event {
    let event = Event::default().event(name);
    event.json_data(data).unwrap_or_else(|_| Event::default().event(name).data("{}"))
}
