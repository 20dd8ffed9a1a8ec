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
use filter::trust::Holder;
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

/// Most calls that are under way. The shipped cluster of the wasm filter has the same bound.
pub const CALLS_MAX: usize = 10_000;

/// Makes calls. Each ends with one [`Message::Answer`].
pub trait Calls {
    fn call(&mut self, call: Call);
    /// The servers behind a name, which is shared by all that may call them.
    fn servers(&mut self, cluster: &Arc<str>, servers: Vec<Server>);
    /// Lets go of the servers that nothing shares the name of any more.
    fn end_unused(&mut self);
}

/// Everything that waits.
#[derive(Debug, Default)]
pub struct Engine {
    /// By their numbers: the newest is the last.
    configurations: BTreeMap<u64, Configuration>,
    shared: Shared,
}

#[derive(Debug)]
struct Configuration {
    exchange: Exchange<Arc<Link>>,
    /// `None` once Envoy has dropped it, and its metrics with it.
    metrics: Option<Arc<Metrics>>,
}

/// A call that is under way.
#[derive(Debug)]
struct Sent {
    config: u64,
    /// How many checks and follow-ups it has.
    size: usize,
    /// For the case of a panic.
    follow_ups: Vec<FollowUp>,
}

/// What all configurations share.
#[derive(Debug, Default)]
struct Shared {
    calls: BTreeMap<u32, Sent>,
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
    /// Follow-ups that are being processed, for the case of a panic.
    in_hand: Vec<FollowUp>,
    /// Streams whose delay is over.
    resuming: Vec<Arc<Link>>,
    /// Of the newest configuration that Envoy has.
    metrics: Option<Arc<Metrics>>,
    /// The rights of the process.
    holder: Option<Arc<Holder>>,
    /// When rights are looked at next.
    rights_ms: u64,
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
        log_lost(follow_up, why);
    }

    /// Resumes the streams whose delay is over. One at a time is taken out, so that a panic leaves the others.
    fn resume(&mut self) {
        while let Some(link) = self.resuming.pop() {
            link.send(Incoming::DelayOver);
        }
    }

    fn show_calls(&mut self) {
        if let Some(metrics) = &self.metrics
            && self.shown_calls != self.calls.len()
        {
            self.shown_calls = self.calls.len();
            metrics.set_calls(self.shown_calls);
        }
    }

    fn keep(&mut self, check: &Arc<Check>) {
        self.checks.push(Arc::downgrade(check));
        if self.checks.len() > self.checks_kept.saturating_mul(2).saturating_add(1024) {
            self.checks.retain(|check| check.strong_count() > 0);
            self.checks_kept = self.checks.len();
        }
    }
}

/// What an exchange leaves behind at a panic. Its checks are known already.
#[derive(Default)]
struct Salvage {
    follow_ups: Vec<FollowUp>,
}

impl Carrier<Arc<Link>> for Salvage {
    fn now_ms(&self) -> u64 {
        0
    }

    fn call(&mut self, _: &Arc<str>, _: &Batch<Arc<Link>>, _: u32) -> Option<u32> {
        None
    }

    fn answer(&mut self, _: &Arc<Check>, _: Outcome<'_>) {}

    fn give_up(&mut self, _: Vec<Arc<Check>>) {}

    fn retry(&mut self, follow_up: FollowUp) {
        self.follow_ups.push(follow_up);
    }

    fn rejected(&mut self, _: &FollowUp, _: Option<Code>) {}

    fn holder(&self) -> Option<&Holder> {
        None
    }

    fn count(&mut self, _: Stat) {}
}

pub(crate) fn log_lost(follow_up: &FollowUp, why: &str) {
    let text = format!("sluice: {} is lost ({why}): {}", follow_up.kind.as_str(), follow_up.label);
    abi::log(Level::Error, &text);
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
        if self.shared.calls.len() >= CALLS_MAX {
            return None;
        }
        let token = self.shared.last_token.wrapping_add(1);
        self.shared.last_token = token;
        let sent = Sent { config: self.config, size: batch.len(), follow_ups: batch.follow_ups.clone() };
        self.shared.calls.insert(token, sent);
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

    fn holder(&self) -> Option<&Holder> {
        self.shared.holder.as_deref()
    }

    fn count(&mut self, stat: Stat) {
        self.shared.count(stat);
    }
}

impl Engine {
    /// With the rights that streams take payments from.
    #[must_use]
    pub fn new(holder: Arc<Holder>) -> Self {
        Self { shared: Shared { holder: Some(holder), ..Shared::default() }, ..Self::default() }
    }

    /// Processes one message. [`Engine::turn`] sends what came of it.
    pub fn receive(&mut self, message: Message, now_ms: u64, calls: &mut impl Calls) {
        self.shared.now_ms = now_ms.max(self.shared.now_ms);
        match message {
            Message::Open { config, cluster, servers, batch_max, metrics } => {
                calls.servers(&cluster, servers);
                let exchange = Exchange::new(cluster, batch_max);
                self.configurations.insert(config, Configuration { exchange, metrics: Some(metrics) });
                self.choose_metrics();
            }
            Message::Close { config } => {
                if let Some(closed) = self.configurations.get_mut(&config) {
                    closed.metrics = None;
                    self.choose_metrics();
                }
            }
            Message::Check { config, check } => self.check(config, &check, calls),
            Message::FollowUps { config, follow_ups } => {
                self.shared.in_hand.clone_from(&follow_ups);
                for follow_up in follow_ups {
                    if let Some(stat) = follow_up.kind.sent() {
                        self.shared.count(stat);
                    }
                    self.submit(config, FollowUp { tries: 1, ..follow_up }, calls);
                }
                self.shared.in_hand.clear();
            }
            Message::Delay { config: _, due_ms, link } => {
                if self.shared.delays.put(due_ms, link.number, Arc::clone(&link)) {
                    self.shared.count(Stat::Delayed);
                } else {
                    link.send(Incoming::NotDelayed);
                }
            }
            Message::NoDelay { due_ms, stream } => self.shared.delays.remove(due_ms, stream),
            #[cfg(feature = "trap")]
            Message::Panic => crate::stream::trap::panic(),
            Message::Answer { token, grpc_status, message } => {
                self.answer(token, grpc_status, message.as_deref(), calls);
            }
        }
    }

    /// The thread counts where Envoy still has the metrics.
    fn choose_metrics(&mut self) {
        let newest = self.configurations.values().rev().find_map(|own| own.metrics.as_ref());
        self.shared.metrics = newest.map(Arc::clone);
    }

    fn check(&mut self, config: u64, check: &Arc<Check>, calls: &mut impl Calls) {
        let Self { configurations, shared } = self;
        shared.keep(check);
        let now_ms = shared.now_ms;
        let mut host = Host { calls, shared, config, batch: None };
        let queued = configurations.get_mut(&config).is_some_and(|own| own.exchange.push_check(&mut host, check));
        if !queued {
            check.unsent();
            give_up(check, now_ms);
        }
    }

    fn answer(&mut self, token: u32, grpc_status: u32, message: Option<&[u8]>, calls: &mut impl Calls) {
        let Self { configurations, shared } = self;
        let Some(Sent { config, size, follow_ups }) = shared.calls.remove(&token) else { return };
        shared.in_hand = follow_ups;
        let mut host = Host { calls, shared, config, batch: Some(size) };
        if let Some(own) = configurations.get_mut(&config) {
            own.exchange.answered(&mut host, token, grpc_status, message);
        }
        if let (Some(size), Some(metrics)) = (host.batch, &shared.metrics) {
            metrics.handle().schedule(u64::try_from(size).unwrap_or(u64::MAX));
        }
        shared.in_hand.clear();
    }

    /// Sends a follow-up under a configuration, or under the newest if that one is gone.
    fn submit(&mut self, config: u64, follow_up: FollowUp, calls: &mut impl Calls) {
        let Self { configurations, shared } = self;
        let config = if configurations.contains_key(&config) { Some(config) } else { newest(configurations) };
        match config.and_then(|config| Some((config, configurations.get_mut(&config)?))) {
            Some((config, own)) => {
                own.exchange.push_follow_up(&mut Host { calls, shared, config, batch: None }, follow_up);
            }
            None => shared.retry(follow_up),
        }
    }

    /// Ends the configurations that Envoy has dropped. The last one stays while follow-ups wait: they are sent under it.
    fn end_closed(&mut self, calls: &mut impl Calls) {
        let Self { configurations, shared } = self;
        let newest = newest(configurations);
        let is_closed = |(config, own): (&u64, &Configuration)| own.metrics.is_none().then_some(*config);
        // In their order: what an older one leaves waits for the newest.
        for config in configurations.iter().filter_map(is_closed).collect::<Vec<_>>() {
            let has_rights = shared.holder.as_ref().is_some_and(|holder| !holder.is_empty());
            let is_queued = configurations.get(&config).is_some_and(|own| !own.exchange.has_no_follow_ups());
            let is_called = shared.calls.values().any(|sent| sent.config == config);
            let waits = has_rights || is_queued || is_called || !shared.follow_ups.is_empty();
            if newest == Some(config) && waits {
                continue;
            }
            if let Some(mut own) = configurations.remove(&config) {
                own.exchange.end(&mut Host { calls, shared, config, batch: None });
            }
        }
        calls.end_unused();
    }

    /// Does what is due.
    pub fn turn(&mut self, now_ms: u64, calls: &mut impl Calls) {
        self.shared.now_ms = now_ms.max(self.shared.now_ms);
        let now_ms = self.shared.now_ms;
        if self.shared.follow_ups.is_empty() || self.shared.tick_ms <= now_ms {
            self.shared.tick_ms = now_ms.saturating_add(u64::from(TICK_MS));
            let due = self.shared.follow_ups.due(now_ms);
            self.shared.in_hand.clone_from(&due);
            for follow_up in due {
                self.shared.count(follow_up.kind.retried());
                self.submit(newest(&self.configurations).unwrap_or_default(), follow_up, calls);
            }
            self.shared.in_hand.clear();
        }
        self.return_rights(calls);
        let Self { configurations, shared } = self;
        shared.resuming = shared.delays.due(now_ms).into_iter().rev().map(|(_, link)| link).collect();
        shared.resume();
        for (config, own) in configurations {
            let mut host = Host { calls, shared, config: *config, batch: None };
            if own.exchange.next_due_ms(now_ms).is_some_and(|due_ms| due_ms <= now_ms) {
                own.exchange.expire(&mut host);
            }
            own.exchange.send(&mut host);
        }
        self.end_closed(calls);
        self.shared.show_calls();
    }

    /// Sends what is due about rights, with the follow-ups of the newest configuration.
    fn return_rights(&mut self, calls: &mut impl Calls) {
        let Some(holder) = self.shared.holder.clone().filter(|_| self.shared.rights_ms <= self.shared.now_ms) else {
            return;
        };
        self.shared.rights_ms = self.shared.now_ms.saturating_add(u64::from(TICK_MS));
        for follow_up in holder.due() {
            self.submit(newest(&self.configurations).unwrap_or_default(), FollowUp { tries: 1, ..follow_up }, calls);
        }
    }

    /// When [`Engine::turn`] has something to do if nothing comes before.
    #[must_use]
    pub fn next_due_ms(&self) -> Option<u64> {
        let Shared { follow_ups, tick_ms, delays, holder, rights_ms, now_ms, .. } = &self.shared;
        let tick_ms = (!follow_ups.is_empty()).then_some(*tick_ms);
        let rights_ms = holder.as_ref().is_some_and(|holder| !holder.is_empty()).then_some(*rights_ms);
        let exchanges = self.configurations.values().filter_map(|own| own.exchange.next_due_ms(*now_ms));
        exchanges.chain(tick_ms).chain(rights_ms).chain(delays.next()).min()
    }

    /// After a panic: every check that waits gets no answer, and what else waits is kept. Calls under way are forgotten, and their
    /// follow-ups are sent again: the server counts each once.
    pub fn recover(&mut self) {
        let Self { configurations, shared } = self;
        if let Some(metrics) = &shared.metrics {
            metrics.count_panic();
        }
        for check in std::mem::take(&mut shared.checks).iter().filter_map(Weak::upgrade) {
            give_up(&check, shared.now_ms);
        }
        shared.resume();
        let mut salvage = Salvage { follow_ups: std::mem::take(&mut shared.in_hand) };
        salvage.follow_ups.extend(std::mem::take(&mut shared.calls).into_values().flat_map(|sent| sent.follow_ups));
        for own in configurations.values_mut() {
            let renewed = own.exchange.renewed();
            std::mem::replace(&mut own.exchange, renewed).end(&mut salvage);
        }
        // One that was under way is known twice.
        let mut follow_ups = salvage.follow_ups;
        follow_ups.sort_by(|one, other| one.message.cmp(&other.message));
        follow_ups.dedup_by(|one, other| one.message == other.message);
        follow_ups.into_iter().for_each(|follow_up| shared.retry(follow_up));
    }

    /// The same configurations without anything that waits: what is left where [`Engine::recover`] panics as well. The numbers of calls
    /// go on, so that a late answer meets no other call.
    #[must_use]
    pub fn emptied(&self) -> Self {
        let Shared { last_token, metrics, holder, now_ms, .. } = &self.shared;
        let emptied =
            |own: &Configuration| Configuration { exchange: own.exchange.renewed(), metrics: own.metrics.clone() };
        Self {
            configurations: self.configurations.iter().map(|(config, own)| (*config, emptied(own))).collect(),
            shared: Shared {
                last_token: *last_token,
                metrics: metrics.clone(),
                holder: holder.clone(),
                now_ms: *now_ms,
                ..Shared::default()
            },
        }
    }
}

/// The newest configuration that Envoy has, or else that it had.
fn newest(configurations: &BTreeMap<u64, Configuration>) -> Option<u64> {
    let live = configurations.iter().rev().find(|(_, own)| own.metrics.is_some());
    live.or_else(|| configurations.last_key_value()).map(|(config, _)| *config)
}
