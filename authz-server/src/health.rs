//! What the parts of the server know about their dependencies: written by the parts, read by `/ready` and the gauges.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use crate::metrics::{Dependency, Metrics};

/// Whether something works, and if not, why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct State {
    pub up: bool,
    /// What is wrong, for operators; absent while it works.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// The state of one dependency. The last report counts.
#[derive(Debug)]
pub struct Handle(Mutex<State>);

impl Handle {
    fn waiting() -> Self {
        Self(Mutex::new(State { up: false, detail: Some("not reached yet".to_owned()) }))
    }

    /// The state as last reported.
    #[must_use]
    pub fn state(&self) -> State {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Stores the state; true where it changed between up and down.
    fn set(&self, up: bool, detail: Option<String>) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turned = state.up != up;
        *state = State { up, detail };
        turned
    }
}

/// The health of everything a decision or the journal needs.
#[derive(Debug)]
pub struct Health {
    redis: Handle,
    postgres: Handle,
    policy: Handle,
    backlog: Mutex<Option<State>>,
    metrics: Arc<Metrics>,
}

impl Health {
    /// Everything is down until its part reports.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let [redis, postgres, policy] = [(); 3].map(|()| Handle::waiting());
        Self { redis, postgres, policy, backlog: Mutex::new(None), metrics }
    }

    /// The figures beside the states.
    #[must_use]
    pub const fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Redis answered.
    pub fn redis_up(&self) {
        self.turn(Dependency::Redis, &self.redis, None);
    }

    /// Redis did not answer, or not as it should.
    pub fn redis_down(&self, detail: impl Into<String>) {
        self.turn(Dependency::Redis, &self.redis, Some(detail.into()));
    }

    /// Postgres answered and has the journal's tables.
    pub fn postgres_up(&self) {
        self.turn(Dependency::Postgres, &self.postgres, None);
    }

    /// Postgres did not answer, or not as it should.
    pub fn postgres_down(&self, detail: impl Into<String>) {
        self.turn(Dependency::Postgres, &self.postgres, Some(detail.into()));
    }

    /// A policy document (and rules, where configured) is in force.
    pub fn policy_active(&self, version: &str) {
        self.policy.set(true, None);
        self.metrics.set_policy(Some(version));
    }

    /// There is no policy: nothing is decided but refusals.
    pub fn policy_missing(&self, detail: &str) {
        self.policy.set(false, Some(detail.to_owned()));
        self.metrics.set_policy(None);
    }

    /// The events that wait for Postgres were counted; `near_bound` says where a shard has hardly room for more.
    pub fn backlog_counted(&self, near_bound: Option<String>) {
        let state = State { up: near_bound.is_none(), detail: near_bound };
        *self.backlog.lock().unwrap_or_else(PoisonError::into_inner) = Some(state);
    }

    /// Whether the events that wait for Postgres have room; `None` until they are counted.
    #[must_use]
    pub fn backlog(&self) -> Option<State> {
        self.backlog.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The three states as `/ready` shows them.
    #[must_use]
    pub fn states(&self) -> States {
        States { redis: self.redis.state(), postgres: self.postgres.state(), policy: self.policy.state() }
    }

    fn turn(&self, dependency: Dependency, handle: &Handle, detail: Option<String>) {
        let up = detail.is_none();
        let name = dependency.as_str();
        let reason = detail.clone().unwrap_or_default();
        if handle.set(up, detail) {
            self.metrics.set_up(dependency, up);
            match up {
                true => tracing::info!(dependency = name, "dependency is reachable"),
                false => tracing::error!(dependency = name, reason, "dependency is not reachable"),
            }
        }
    }
}

/// A snapshot of all states.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct States {
    pub redis: State,
    pub postgres: State,
    pub policy: State,
}

impl States {
    /// Whether payments are decided: Postgres is not needed for that, its events wait in Redis.
    #[must_use]
    pub const fn decides(&self) -> bool {
        self.redis.up && self.policy.up
    }

    /// Whether nothing is missing.
    #[must_use]
    pub const fn complete(&self) -> bool {
        self.decides() && self.postgres.up
    }
}
