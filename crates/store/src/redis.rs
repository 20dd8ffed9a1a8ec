//! The store in Redis or Valkey: one script call decides and applies commands. Only this module and the journal's event stream
//! use Redis.
//!
//! This file has the store's parts and how its calls are bounded. [`link`] has the connection, [`decide`] and [`call`] the
//! script's calls, [`read`] and [`holds`] what is read, [`retention`] what a Redis says about itself.

mod call;
mod decide;
mod holds;
mod link;
mod read;
mod retention;
mod rights;

use std::sync::Arc;
use std::time::Duration;

use quota::{MerchantId, shard_of};
use redis::aio::ConnectionManager;
use redis::{Cmd, FromRedisValue, RedisError, Script};
use tokio::time::timeout;

pub use self::holds::{DueHold, DueHolds};
pub use self::link::is_wrong_server;
pub use self::link::{Failovers, RedisLink};
pub use self::retention::Verified;
use self::retention::Warned;
pub use self::rights::{OutstandingRight, OutstandingRights};
use super::script::{self, SCRIPT};
use super::{RedisMetrics, Store, StoreClock, StoreError, StoreTime};
use sluice_settings::{Live, Secret};

/// The address of Redis and the bound of its calls.
#[derive(Clone, Debug)]
pub struct RedisStoreConfig {
    /// As in `redis://127.0.0.1:6379/0`.
    pub url: Secret,
    pub shards: u16,
    /// Bound of every call, connecting included; see [`RedisStore::following`].
    pub timeout: Duration,
}

/// Accounts, orders and events in Redis.
#[derive(Debug)]
pub struct RedisStore {
    link: RedisLink,
    script: Script,
    shards: u16,
    timeout: Duration,
    /// The settings that give the bound instead, where it may change.
    live: Option<Live>,
    /// Whether values of the previous format keep it; see [`RedisStore::in_rolling_upgrade`].
    rolling_upgrade: bool,
    verified: Verified,
    warned: Warned,
    time: StoreTime,
    metrics: Arc<RedisMetrics>,
}

impl RedisStore {
    /// Prepares the store, inside of the runtime that will use it; the connection is made by the first call, and made again
    /// whenever it is lost.
    ///
    /// # Errors
    /// [`StoreError`] for an address that cannot be used.
    pub fn open(config: &RedisStoreConfig) -> Result<Self, StoreError> {
        Self::open_sharing(config, SCRIPT, Verified::default())
    }

    /// [`RedisStore::open`] for a Redis that other stores use too: findings of one apply to all.
    ///
    /// # Errors
    /// [`StoreError`] for an address that cannot be used.
    pub fn open_shared(config: &RedisStoreConfig, verified: Verified) -> Result<Self, StoreError> {
        Self::open_sharing(config, SCRIPT, verified)
    }

    /// [`RedisStore::open`] with another script than [`SCRIPT`]: the store suite shows that it notices wrong ones.
    ///
    /// # Errors
    /// [`StoreError`] for an address that cannot be used.
    pub fn open_with_script(config: &RedisStoreConfig, script: &str) -> Result<Self, StoreError> {
        Self::open_sharing(config, script, Verified::default())
    }

    fn open_sharing(config: &RedisStoreConfig, script: &str, verified: Verified) -> Result<Self, StoreError> {
        let link = RedisLink::open(&config.url, config.timeout, verified.failovers())
            .map_err(|error| StoreError::Unavailable(format!("the address of redis cannot be used: {error}")))?;
        Ok(Self {
            link,
            script: Script::new(&script::complete(script)),
            shards: config.shards,
            timeout: config.timeout,
            live: None,
            rolling_upgrade: false,
            verified,
            warned: Warned::default(),
            time: StoreTime::Own,
            metrics: Arc::default(),
        })
    }

    /// Bounds every call by the settings at that time. Making a connection keeps the initial bound as well.
    #[must_use]
    pub fn following(mut self, live: Live) -> Self {
        self.live = Some(live);
        self
    }

    /// As if servers of the release before were running beside this one: values that have their format keep it. The settings say
    /// the same while the server runs.
    #[must_use]
    pub fn in_rolling_upgrade(mut self) -> Self {
        self.rolling_upgrade = true;
        self
    }

    /// For tests, which move time: decides with this as the store's clock.
    #[must_use]
    pub fn with_time(mut self, time: StoreTime) -> Self {
        self.time = time;
        self
    }

    /// Counts calls with those of other stores.
    #[must_use]
    pub fn measured(mut self, metrics: Arc<RedisMetrics>) -> Self {
        self.metrics = metrics;
        self
    }

    /// What is wrong with this server's clock compared with the store's, and what to do; `None` where nothing is, or before the
    /// first comparison.
    #[must_use]
    pub fn clock_trouble(&self) -> Option<String> {
        let skew_ms_max = self.live.as_ref().map(|live| live.current().clock_skew_ms_max);
        self.verified.clock.trouble(skew_ms_max)
    }

    /// The known state of the store's clock.
    #[must_use]
    pub const fn clock(&self) -> &StoreClock {
        &self.verified.clock
    }

    fn shard(&self, merchant: &MerchantId) -> u16 {
        shard_of(merchant, self.shards)
    }

    /// One command that may be sent twice.
    async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, StoreError> {
        let call = |mut connection: ConnectionManager| async move { command.query_async(&mut connection).await };
        self.bounded(self.link.repeat(call)).await
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, RedisError>>) -> Result<T, StoreError> {
        let limit = Store::timeout(self);
        match timeout(limit, call).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) if call::is_of_the_script(&error) => Err(corrupt(error)),
            Ok(Err(error)) if !error.is_timeout() => Err(self.unavailable(&error)),
            Ok(Err(_)) | Err(_) => {
                self.link.silent();
                Err(StoreError::Timeout { after_ms: limit.as_millis() })
            }
        }
    }

    fn unavailable(&self, error: &RedisError) -> StoreError {
        StoreError::Unavailable(format!("redis at {}: {error}", self.link.address()))
    }
}

fn corrupt(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(what.to_string())
}
