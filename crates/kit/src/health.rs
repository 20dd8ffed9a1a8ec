//! The state of the server's dependencies: written by its parts, read by `/ready` and the gauges.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use strum::IntoStaticStr;
use tokio::sync::watch;

use crate::metrics::Metrics;

mod metrics;

pub use metrics::HealthMetrics;

/// A dependency whose state is a gauge. Its word is a label's value, and the name in `/ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(const_into_str, serialize_all = "snake_case")]
pub enum Dependency {
    Redis,
    Postgres,
}

/// Whether something works, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    pub up: bool,
    /// What is wrong, for operators; absent while it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// An error that may mean only that a dependency is away. [`Health`] logs that once for all parts of the server; each part logs
/// its own errors at debug level.
pub trait Away {
    /// Whether it means only that.
    fn is_away(&self) -> bool;
}

/// Logs an error as a warning, or at debug level where it is [`Away`].
#[macro_export]
macro_rules! warn_unless_away {
    ($error:expr, $($rest:tt)+) => {
        if {
            use $crate::health::Away as _;
            $error.is_away()
        } {
            tracing::debug!(error = %$error, $($rest)+)
        } else {
            tracing::warn!(error = %$error, $($rest)+)
        }
    };
}
pub use warn_unless_away;

/// The state of one dependency. The last report counts.
#[derive(Debug)]
pub struct Handle(Mutex<Known>);

#[derive(Debug)]
struct Known {
    state: State,
    /// Since when, where a part has reported.
    since: Option<Instant>,
}

/// The change of a report.
enum Turn {
    /// It is away from now on.
    Away,
    /// It is back, or reachable for the first time, after so long.
    Back(Option<Duration>),
}

impl Handle {
    fn waiting() -> Self {
        let state = State { up: false, detail: Some("not reached yet".to_owned()) };
        Self(Mutex::new(Known { state, since: None }))
    }

    /// The state as last reported.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).state.clone()
    }

    /// Stores the state; returns the change.
    fn set(&self, detail: Option<String>) -> Option<Turn> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let up = detail.is_none();
        let turn = match (up, known.state.up, known.since) {
            (false, true, _) | (false, false, None) => Some(Turn::Away),
            (true, false, since) => Some(Turn::Back(since.map(|since| since.elapsed()))),
            (true, true, _) | (false, false, Some(_)) => None,
        };
        if turn.is_some() {
            known.since = Some(Instant::now());
        }
        known.state = State { up, detail };
        turn
    }
}

/// Where the dependencies are, without secrets, as in `db.internal:5432`.
#[derive(Clone, Debug, Default)]
pub struct Addresses {
    pub redis: String,
    pub postgres: String,
    pub policy_service: String,
}

/// The health of everything a decision or the journal needs.
#[derive(Debug)]
pub struct Health {
    redis: Handle,
    postgres: Handle,
    policy: Handle,
    /// `None` before its first call.
    policy_service: Mutex<Option<Arc<Handle>>>,
    addresses: Addresses,
    backlog: Mutex<Option<State>>,
    draining: watch::Sender<bool>,
    clock: Mutex<Option<State>>,
    metrics: Arc<Metrics>,
    health_metrics: Arc<HealthMetrics>,
}

impl Health {
    /// Everything is down until its part reports.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self::at(Addresses::default(), metrics)
    }

    /// The same, with the addresses of the dependencies.
    #[must_use]
    pub fn at(addresses: Addresses, metrics: Arc<Metrics>) -> Self {
        let [redis, postgres, policy] = [(); 3].map(|()| Handle::waiting());
        let policy_service = Mutex::default();
        Self {
            redis,
            postgres,
            policy,
            policy_service,
            addresses,
            backlog: Mutex::new(None),
            clock: Mutex::new(None),
            draining: watch::Sender::new(false),
            health_metrics: metrics.part(),
            metrics,
        }
    }

    /// The server's metrics.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Redis answered.
    pub fn redis_up(&self) {
        self.turn(Dependency::Redis, None);
    }

    /// Redis did not answer, or not as expected.
    pub fn redis_down(&self, detail: impl Into<String>) {
        self.turn(Dependency::Redis, Some(detail.into()));
    }

    /// Postgres answered and has the journal's tables.
    pub fn postgres_up(&self) {
        self.turn(Dependency::Postgres, None);
    }

    /// Postgres did not answer, or not as expected.
    pub fn postgres_down(&self, detail: impl Into<String>) {
        let detail = detail.into();
        let address = &self.addresses.postgres;
        self.turn(
            Dependency::Postgres,
            Some(if address.is_empty() { detail } else { format!("postgres at {address}: {detail}") }),
        );
    }

    /// The policy service answered, or failed for this reason.
    pub fn policy_service(&self, problem: Option<String>) {
        let handle = Arc::clone(
            self.policy_service
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get_or_insert_with(|| Arc::new(Handle::waiting())),
        );
        let address = &self.addresses.policy_service;
        let detail = problem.map(|problem| {
            format!("{problem}; payments are decided by its last answers, by other policies and by the default limits")
        });
        log(handle.set(detail.clone()), "policy_service", address, &detail.unwrap_or_default());
    }

    /// A policy document (and rules, where configured) is in force.
    pub fn policy_active(&self) {
        self.policy.set(None);
    }

    /// There is no policy: every decision is a refusal.
    pub fn policy_missing(&self, detail: &str) {
        self.policy.set(Some(detail.to_owned()));
    }

    /// The events that wait for Postgres were counted; `near_bound` describes a shard that is almost full.
    pub fn backlog_counted(&self, near_bound: Option<String>) {
        let state = State { up: near_bound.is_none(), detail: near_bound };
        *self.backlog.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    /// Whether the events that wait for Postgres have room; `None` until they are counted.
    #[must_use]
    pub fn backlog(&self) -> Option<State> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The server is about to stop: it should get no more payments, and decides those that arrive.
    pub fn drain(&self) {
        self.draining.send_replace(true);
    }

    /// Whether the server is about to stop.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.draining.borrow()
    }

    /// Ends when the server is about to stop.
    pub async fn until_draining(&self) {
        // An error means that nothing will change any more, which cannot be while this exists.
        let _ = self.draining.subscribe().wait_for(|draining| *draining).await;
    }

    /// This server's clock was compared with Redis'; `trouble` describes what is wrong with it, with both times.
    pub fn clock_compared(&self, ahead_ms: i64, trouble: Option<String>) {
        self.health_metrics.set_clock_offset_ms(ahead_ms);
        let state = State { up: trouble.is_none(), detail: trouble };
        let was_up = self.clock().is_none_or(|before| before.up);
        let reason = state.detail.as_deref().unwrap_or_default();
        match (was_up, state.up) {
            (true, false) => tracing::error!(reason, "the clock is off: this server neither decides nor sweeps"),
            (false, true) => tracing::info!(ahead_ms, "the clock is right again: this server decides and sweeps"),
            (true, true) | (false, false) => {}
        }
        *self.clock.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    /// Whether this server's clock is close enough to Redis'; `None` until they are compared.
    #[must_use]
    pub fn clock(&self) -> Option<State> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The states as `/ready` shows them.
    #[must_use]
    pub fn states(&self) -> States {
        let not_compared = || State { up: false, detail: Some("not compared with redis' clock yet".to_owned()) };
        let service = self.policy_service.lock().unwrap_or_else(PoisonError::into_inner).clone();
        States {
            redis: self.redis.state(),
            postgres: self.postgres.state(),
            policy: self.policy.state(),
            policy_service: service.map(|handle| handle.state()),
            clock: self.clock().unwrap_or_else(not_compared),
        }
    }

    fn turn(&self, dependency: Dependency, detail: Option<String>) {
        let (handle, address) = match dependency {
            Dependency::Redis => (&self.redis, &self.addresses.redis),
            Dependency::Postgres => (&self.postgres, &self.addresses.postgres),
        };
        let turn = handle.set(detail.clone());
        if turn.is_some() {
            self.health_metrics.set_up(dependency, detail.is_none());
        }
        log(turn, dependency.into_str(), address, &detail.unwrap_or_default());
    }
}

/// The begin and the end of an outage are logged here and nowhere else.
fn log(turn: Option<Turn>, dependency: &'static str, address: &str, reason: &str) {
    match turn {
        Some(Turn::Away) => tracing::error!(dependency, address, reason, "dependency is away"),
        Some(Turn::Back(Some(away))) => {
            tracing::info!(dependency, address, away_ms = away.as_millis(), "dependency is back");
        }
        Some(Turn::Back(None)) => tracing::info!(dependency, address, "dependency is reachable"),
        None => {}
    }
}

/// A snapshot of all states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct States {
    pub redis: State,
    pub postgres: State,
    pub policy: State,
    /// The external policy service, after its first call. Payments are decided without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub policy_service: Option<State>,
    /// This server's clock compared with Redis'.
    pub clock: State,
}

impl States {
    /// Whether payments are decided: they do not need Postgres, its events wait in Redis.
    #[must_use]
    pub const fn decides(&self) -> bool {
        self.redis.up && self.policy.up && self.clock.up
    }

    /// Whether everything is up.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.decides() && self.postgres.up && self.policy_service.as_ref().is_none_or(|service| service.up)
    }
}
