//! One stream: what it sends next, and when it ends.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use axum::response::sse::Event;
use futures_util::stream;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::seats::Seat;
use crate::admin::{Admin, Caller};
use crate::alert::read::Alert;
use crate::live::{Change, Item, Reader, Wake};

/// How long a stream that has told everything waits before it looks again, unless an alert wakes it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a client is asked to wait before it connects again.
const RECONNECT: Duration = Duration::from_secs(2);

/// An open stream.
pub(super) struct Stream {
    admin: Admin,
    caller: Caller,
    /// The caller's credentials, which are looked at again with each heartbeat.
    credentials: HeaderMap,
    reader: Reader,
    /// Read, and not yet taken by the client.
    items: VecDeque<Item>,
    beat_at: Instant,
    state: State,
    _seat: Seat,
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
    pub(super) fn new(admin: &Admin, caller: Caller, headers: &HeaderMap, reader: Reader, seat: Seat) -> Self {
        let shown = headers.get(header::AUTHORIZATION).cloned();
        let credentials = shown.map(|value| (header::AUTHORIZATION, value)).into_iter().collect();
        let beat_at = Instant::now() + heartbeat(admin);
        let (admin, items) = (admin.clone(), VecDeque::new());
        Self { admin, caller, credentials, reader, items, beat_at, state: State::New, _seat: seat }
    }

    /// Its events, until the server stops.
    pub(super) fn until(
        self,
        wake: Wake,
        stopping: watch::Receiver<bool>,
    ) -> impl stream::Stream<Item = Result<Event, Infallible>> {
        stream::unfold((self, wake, stopping), |(mut open, mut wake, mut stopping)| async move {
            let event = open.next(&mut wake, &mut stopping).await?;
            Some((Ok(event), (open, wake, stopping)))
        })
    }

    async fn next(&mut self, wake: &mut Wake, stopping: &mut watch::Receiver<bool>) -> Option<Event> {
        match self.state {
            State::New => {
                self.state = State::Open;
                return Some(self.standing().retry(RECONNECT));
            }
            State::Open => {}
            State::Ended => return None,
        }
        loop {
            if *stopping.borrow() {
                return Some(self.end("STOPPING", "the server stops: connect again with the last id"));
            }
            if Instant::now() >= self.beat_at {
                if let Some(end) = self.look_at_credentials().await {
                    return Some(end);
                }
                self.beat_at = Instant::now() + heartbeat(&self.admin);
                if self.items.is_empty() {
                    return Some(self.standing());
                }
            }
            if let Some(item) = self.items.pop_front() {
                self.admin.metrics.live.stream_events.inc();
                return Some(event(&item));
            }
            match self.reader.read().await {
                Ok((items, more)) => {
                    let nothing = items.is_empty() && !more;
                    self.items.extend(items);
                    if nothing {
                        self.wait(wake, stopping).await;
                    }
                }
                Err(error) => {
                    warn!(%error, "a live stream cannot be read on");
                    return Some(self.end("DATABASE_UNAVAILABLE", "connect again with the last id"));
                }
            }
        }
    }

    /// Until there may be something to tell, or a heartbeat is due.
    async fn wait(&self, wake: &mut Wake, stopping: &mut watch::Receiver<bool>) {
        let time = LOOK_INTERVAL.min(self.beat_at.saturating_duration_since(Instant::now()));
        tokio::select! {
            () = wake.within(time) => {}
            _ = stopping.wait_for(|stop| *stop) => {}
        }
    }

    /// The last event where the token has run out or was revoked, or means somebody else by now.
    async fn look_at_credentials(&mut self) -> Option<Event> {
        match self.admin.auth.authenticate(&self.credentials).await {
            Ok(caller) if caller == self.caller => None,
            Ok(_) => Some(self.end("FORBIDDEN", "the token's rights have changed: connect again")),
            Err(problem) => Some(self.end(problem.code(), "the token does not open the stream any more")),
        }
    }

    fn end(&mut self, code: &'static str, detail: &str) -> Event {
        debug!(code, "a live stream ended");
        self.state = State::Ended;
        self.items.clear();
        json("ended", &Ended { code, detail })
    }

    /// An id alone: clients remember it and tell nobody.
    fn standing(&self) -> Event {
        Event::default().id(self.reader.place().encode())
    }
}

fn heartbeat(admin: &Admin) -> Duration {
    Duration::from_secs(admin.live.current().stream_heartbeat_secs)
}

fn event(Item { change, place }: &Item) -> Event {
    let event = match change {
        Change::Alert { change, changed_at, alert } => {
            json("alert", &AlertChange { change, changed_at: *changed_at, alert })
        }
        Change::Decision(row) => json("decision", row),
    };
    event.id(place.encode())
}

/// Our own types always are JSON.
fn json(name: &str, data: &impl Serialize) -> Event {
    let event = Event::default().event(name);
    event.json_data(data).unwrap_or_else(|_| Event::default().event(name).data("{}"))
}
