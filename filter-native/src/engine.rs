//! What the module's thread decides: which checks and follow-ups go when and in which call, whose answer an answer is, and when a
//! delay is over. Pure: messages, answers and times come in, calls go out ([`Calls`]), and streams are reached by their links.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Weak};

use filter::batch::{Batch, PendingCheck};
use filter::delays::{Delays, TICK_MS};
use filter::exchange::{Carrier, Exchange, LATE};
use filter::follow_up::{FollowUp, FollowUps};
use filter::machine::NotSentReason;
use filter::stats::Stat;
use filter::wire::{self, Outcome};
use quota::Code;

use crate::abi::{self, Level};
use crate::client::Server;
use crate::link::{Check, Incoming, Link};
use crate::metrics::Metrics;

/// What comes to the thread.
pub enum Message {
    /// A configuration begins. `cluster` names its servers.
    Open { config: u64, cluster: Arc<str>, servers: Vec<Server>, batch_max: usize, metrics: Arc<Metrics> },
    /// A configuration has ended, after its streams.
    Close { config: u64 },
    /// A stream's check.
    Check { config: u64, check: Arc<Check> },
    /// What streams report.
    FollowUps { config: u64, follow_ups: Vec<FollowUp> },
    /// A stream is delayed.
    Delay { config: u64, due_ms: u64, link: Arc<Link> },
    /// A delayed stream has ended.
    NoDelay { due_ms: u64, stream: u32 },
    /// A test wants a panic of the thread.
    #[cfg(feature = "trap")]
    Panic,
    /// A call has ended.
    Answer { token: u32, grpc_status: u32, message: Option<Vec<u8>> },
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open { .. } => "Open",
            Self::Close { .. } => "Close",
            Self::Check { .. } => "Check",
            Self::FollowUps { .. } => "FollowUps",
            Self::Delay { .. } => "Delay",
            Self::NoDelay { .. } => "NoDelay",
            #[cfg(feature = "trap")]
            Self::Panic => "Panic",
            Self::Answer { .. } => "Answer",
        })
    }
}

/// One call to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub token: u32,
    /// Names the servers.
    pub cluster: Arc<str>,
    /// Service and method.
    pub method: [&'static str; 2],
    pub message: Vec<u8>,
    pub timeout_ms: u32,
    /// Longest answer that is read, in bytes.
    pub answer_bytes_max: usize,
}

/// Makes calls. Each ends with one [`Message::Answer`].
pub trait Calls {
    fn call(&mut self, call: Call);
    /// The servers behind a name.
    fn servers(&mut self, cluster: &Arc<str>, servers: Vec<Server>);
}

/// Where nothing is sent.
struct NoCalls;

impl Calls for NoCalls {
    fn call(&mut self, _: Call) {}

    fn servers(&mut self, _: &Arc<str>, _: Vec<Server>) {}
}

/// Everything that waits.
#[derive(Debug, Default)]
pub struct Engine {
    /// By configuration.
    exchanges: BTreeMap<u64, Exchange<Arc<Link>>>,
    shared: Shared,
}

/// What all configurations share.
#[derive(Debug, Default)]
struct Shared {
    /// The configuration of each call, and how many checks and follow-ups it has.
    calls: BTreeMap<u32, (u64, usize)>,
    /// How many of them the gauge shows.
    shown_calls: usize,
    last_token: u32,
    follow_ups: FollowUps,
    /// When follow-ups are looked at next.
    tick_ms: u64,
    delays: Delays<Arc<Link>>,
    /// Every check that may still wait, for the case of a panic.
    checks: Vec<Weak<Check>>,
    checks_kept: usize,
    /// Of the newest configuration.
    metrics: Option<Arc<Metrics>>,
    now_ms: u64,
}

/// An exchange's host during one turn.
struct Host<'a, C> {
    calls: &'a mut C,
    shared: &'a mut Shared,
    config: u64,
    /// The size of the call whose answer is distributed, until a stream has taken it for its metric.
    batch: Option<usize>,
}

impl Shared {
    fn count(&self, stat: Stat) {
        if let Some(metrics) = &self.metrics {
            metrics.count(stat);
        }
    }

    fn retry(&mut self, follow_up: FollowUp) {
        if let Err(lost) = self.follow_ups.retry(follow_up) {
            self.lost(&lost, "not delivered");
        }
    }

    fn lost(&self, follow_up: &FollowUp, why: &str) {
        self.count(follow_up.kind.lost());
        let text = format!("sluice: {} is lost ({why}): {}", follow_up.kind.as_str(), follow_up.label);
        abi::log(Level::Error, &text);
    }

    fn keep(&mut self, check: &Arc<Check>) {
        self.checks.push(Arc::downgrade(check));
        if self.checks.len() > self.checks_kept.saturating_mul(2).saturating_add(1024) {
            self.checks.retain(|check| check.strong_count() > 0);
            self.checks_kept = self.checks.len();
        }
    }
}

/// Passes a stream that its check gets no answer.
fn give_up(check: &PendingCheck<Arc<Link>>, now_ms: u64) {
    if !check.answer() {
        return;
    }
    let check_ms = now_ms.saturating_sub(check.started_ms);
    let incoming = if check.is_sent() {
        Incoming::Reply { grpc_status: LATE, message: None, check_ms, batch: None }
    } else if check.is_unsent() {
        Incoming::NotSent(NotSentReason::NotAccepted)
    } else {
        Incoming::NotSent(NotSentReason::Late)
    };
    check.stream.send(incoming);
}

impl<C: Calls> Carrier<Arc<Link>> for Host<'_, C> {
    fn now_ms(&self) -> u64 {
        self.shared.now_ms
    }

    fn call(&mut self, cluster: &Arc<str>, batch: &Batch<Arc<Link>>, timeout_ms: u32) -> Option<u32> {
        let token = self.shared.last_token.wrapping_add(1);
        self.shared.last_token = token;
        self.shared.calls.insert(token, (self.config, batch.len()));
        let mut messages = batch.messages();
        // One check is sent as the standard call.
        let (method, message) = match (messages.next(), messages.next()) {
            (Some(check), None) => (wire::CHECK, check.to_vec()),
            _ => (wire::BATCH_CHECK, wire::batch(batch.messages())),
        };
        let (cluster, answer_bytes_max) = (Arc::clone(cluster), Exchange::<Arc<Link>>::answer_bytes_max(batch.len()));
        self.calls.call(Call { token, cluster, method, message, timeout_ms, answer_bytes_max });
        Some(token)
    }

    fn answer(&mut self, check: &Arc<Check>, outcome: Outcome<'_>) {
        if !check.answer() {
            return;
        }
        let Outcome { grpc_status, response } = outcome;
        let check_ms = self.shared.now_ms.saturating_sub(check.started_ms);
        let batch = self.batch;
        let message = response.map(<[u8]>::to_vec);
        if check.stream.send(Incoming::Reply { grpc_status, message, check_ms, batch }) {
            self.batch = None;
        }
    }

    fn give_up(&mut self, checks: Vec<Arc<Check>>) {
        for check in checks {
            give_up(&check, self.shared.now_ms);
        }
    }

    fn retry(&mut self, follow_up: FollowUp) {
        self.shared.retry(follow_up);
    }

    fn rejected(&mut self, follow_up: &FollowUp, code: Option<Code>) {
        self.shared.lost(follow_up, code.map_or("the server cannot read it", Code::as_str));
    }

    fn count(&mut self, stat: Stat) {
        self.shared.count(stat);
    }
}

impl Engine {
    /// Processes one message. [`Engine::turn`] sends what came of it.
    pub fn receive(&mut self, message: Message, now_ms: u64, calls: &mut impl Calls) {
        let Self { exchanges, shared } = self;
        shared.now_ms = now_ms.max(shared.now_ms);
        match message {
            Message::Open { config, cluster, servers, batch_max, metrics } => {
                calls.servers(&cluster, servers);
                shared.metrics = Some(metrics);
                exchanges.insert(config, Exchange::new(cluster, batch_max));
            }
            Message::Close { config } => self.close(config, calls),
            Message::Check { config, check } => {
                shared.keep(&check);
                let mut host = Host { calls, shared, config, batch: None };
                let queued = exchanges.get_mut(&config).is_some_and(|exchange| exchange.push_check(&mut host, &check));
                if !queued {
                    check.unsent();
                    give_up(&check, now_ms);
                }
            }
            Message::FollowUps { config, follow_ups } => {
                for follow_up in follow_ups {
                    self.shared.count(follow_up.kind.sent());
                    self.submit(config, FollowUp { tries: 1, ..follow_up }, calls);
                }
            }
            Message::Delay { config: _, due_ms, link } => {
                if shared.delays.put(due_ms, link.number, Arc::clone(&link)) {
                    shared.count(Stat::Delayed);
                } else {
                    link.send(Incoming::NotDelayed);
                }
            }
            Message::NoDelay { due_ms, stream } => shared.delays.remove(due_ms, stream),
            #[cfg(feature = "trap")]
            Message::Panic => crate::stream::trap::panic(),
            Message::Answer { token, grpc_status, message } => {
                let Some((config, size)) = shared.calls.remove(&token) else { return };
                let mut host = Host { calls, shared, config, batch: Some(size) };
                if let Some(exchange) = exchanges.get_mut(&config) {
                    exchange.answered(&mut host, token, grpc_status, message.as_deref());
                }
                if let (Some(size), Some(metrics)) = (host.batch, &shared.metrics) {
                    metrics.handle().schedule(u64::try_from(size).unwrap_or(u64::MAX));
                }
            }
        }
    }

    /// Sends a follow-up under a configuration, or under the newest if that one is gone.
    fn submit(&mut self, config: u64, follow_up: FollowUp, calls: &mut impl Calls) {
        let Self { exchanges, shared } = self;
        let config = if exchanges.contains_key(&config) { config } else { newest(exchanges).unwrap_or(config) };
        match exchanges.get_mut(&config) {
            Some(exchange) => exchange.push_follow_up(&mut Host { calls, shared, config, batch: None }, follow_up),
            None => shared.retry(follow_up),
        }
    }

    /// The last configuration stays: its follow-ups are still sent.
    fn close(&mut self, config: u64, calls: &mut impl Calls) {
        let Self { exchanges, shared } = self;
        if newest(exchanges) != Some(config)
            && let Some(mut exchange) = exchanges.remove(&config)
        {
            exchange.end(&mut Host { calls, shared, config, batch: None });
        }
    }

    /// Does what is due.
    pub fn turn(&mut self, now_ms: u64, calls: &mut impl Calls) {
        self.shared.now_ms = now_ms.max(self.shared.now_ms);
        let now_ms = self.shared.now_ms;
        if self.shared.follow_ups.is_empty() || self.shared.tick_ms <= now_ms {
            self.shared.tick_ms = now_ms.saturating_add(u64::from(TICK_MS));
            for follow_up in self.shared.follow_ups.due(now_ms) {
                self.shared.count(follow_up.kind.retried());
                self.submit(newest(&self.exchanges).unwrap_or_default(), follow_up, calls);
            }
        }
        for (_, link) in self.shared.delays.due(now_ms) {
            link.send(Incoming::DelayOver);
        }
        let Self { exchanges, shared } = self;
        for (config, exchange) in exchanges {
            let mut host = Host { calls, shared, config: *config, batch: None };
            if exchange.next_due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
                exchange.expire(&mut host);
            }
            exchange.send(&mut host);
        }
        if shared.shown_calls != shared.calls.len()
            && let Some(metrics) = &shared.metrics
        {
            shared.shown_calls = shared.calls.len();
            metrics.set_calls(shared.shown_calls);
        }
    }

    /// When [`Engine::turn`] has something to do if nothing comes before.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        let Shared { follow_ups, tick_ms, delays, .. } = &self.shared;
        let tick_ms = (!follow_ups.is_empty()).then_some(*tick_ms);
        let exchanges = self.exchanges.values().filter_map(Exchange::next_due_ms);
        exchanges.chain(tick_ms).chain(delays.next()).min()
    }

    /// After a panic: every check that waits gets no answer, and what else waits is kept. Calls in flight are forgotten.
    pub fn recover(&mut self) {
        if let Some(metrics) = &self.shared.metrics {
            metrics.count_panic();
        }
        for check in std::mem::take(&mut self.shared.checks).iter().filter_map(Weak::upgrade) {
            give_up(&check, self.shared.now_ms);
        }
        self.shared.calls.clear();
        let Self { exchanges, shared } = self;
        for (config, exchange) in exchanges {
            let mut before = std::mem::replace(exchange, exchange.renewed());
            before.end(&mut Host { calls: &mut NoCalls, shared, config: *config, batch: None });
        }
    }
}

fn newest(exchanges: &BTreeMap<u64, Exchange<Arc<Link>>>) -> Option<u64> {
    exchanges.last_key_value().map(|(config, _)| *config)
}
