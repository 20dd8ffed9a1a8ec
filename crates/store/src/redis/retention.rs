//! What a Redis says about itself before anything is decided on it: its number of shards, its clock, and how it keeps its data.
//! Findings of one store apply to all stores that share them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::Cmd;
use tracing::warn;

use super::{Failovers, RedisStore};
use crate::{StoreClock, StoreError, keys};
use sluice_kit::clock;

/// What stores of one Redis know and share: whether its number of shards is ours, and its clock. Where one of them finds
/// another number, or a clock that is too far from ours, none decides.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    pub(super) shards: Arc<AtomicBool>,
    /// Redis may evict keys, and is not allowed to.
    pub(super) evicts: Arc<AtomicBool>,
    /// If one of them is led to another server, all of them follow.
    failovers: Failovers,
    pub(super) clock: StoreClock,
}

/// Warnings that were logged: each once.
#[derive(Debug, Default)]
pub(super) struct Warned {
    unknown: AtomicBool,
    volatile: AtomicBool,
    evicts: AtomicBool,
}

/// What Redis reports about how it keeps its data.
#[derive(Debug, PartialEq, Eq)]
struct Retention {
    /// The policy by which it may evict keys.
    evicts: Option<String>,
    is_durable: bool,
}

impl Verified {
    /// The failovers that users of this Redis found.
    #[must_use]
    pub fn failovers(&self) -> Failovers {
        self.failovers.clone()
    }

    /// The known state of Redis' clock.
    #[must_use]
    pub const fn clock(&self) -> &StoreClock {
        &self.clock
    }
}

impl Retention {
    fn of(info: &str) -> Self {
        let value = |name: &str| {
            let mut lines = info.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
        };
        let is_bounded = value("maxmemory").is_some_and(|bytes| bytes != "0");
        let policy = value("maxmemory_policy").filter(|policy| is_bounded && *policy != "noeviction");
        Self { evicts: policy.map(str::to_owned), is_durable: value("aof_enabled") != Some("0") }
    }
}

impl RedisStore {
    /// Compares the number of shards with the one recorded in Redis, and records it where there is none. Compares this server's
    /// clock with Redis'.
    ///
    /// # Errors
    /// [`StoreError::Shards`] where they differ: keys would be looked up in the wrong place, so nothing is decided.
    pub async fn verify(&self) -> Result<(), StoreError> {
        let call = self.link.repeat(|mut connection| async move {
            let _: bool = Cmd::set_nx(keys::SHARDS, self.shards).query_async(&mut connection).await?;
            Cmd::get(keys::SHARDS).query_async::<u16>(&mut connection).await
        });
        let result = match self.bounded(call).await {
            Ok(stored) if stored == self.shards => Ok(()),
            Ok(stored) => Err(StoreError::Shards { stored, configured: self.shards }),
            Err(error) => return Err(error),
        };
        self.compare_clocks().await?;
        self.verified.shards.store(result.is_ok(), Ordering::Relaxed);
        result
    }

    /// Compares this server's clock with Redis'.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer.
    pub async fn compare_clocks(&self) -> Result<(), StoreError> {
        let sent_ms = clock::now_ms();
        let (secs, us): (i64, i64) = self.query(&redis::cmd("TIME")).await?;
        let store_ms = secs.saturating_mul(1000).saturating_add(us / 1000).saturating_add(clock::store_shift_ms());
        self.verified.clock.compare(store_ms, sent_ms);
        Ok(())
    }

    /// The number of shards recorded in Redis, without recording any; `None` before the first server's start.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn recorded_shards(&self) -> Result<Option<u16>, StoreError> {
        self.query(&Cmd::get(keys::SHARDS)).await
    }

    /// Queries whether Redis may evict keys, and whether it has an append-only file. Eviction loses usage and reopens limits:
    /// unless `allow_eviction`, no store that shares this state decides on such a Redis.
    ///
    /// # Errors
    /// [`StoreError`] where eviction is possible and not allowed.
    pub async fn check_retention(&self, allow_eviction: bool) -> Result<(), StoreError> {
        let info: Result<String, StoreError> = self.query(redis::cmd("INFO").arg("memory").arg("persistence")).await;
        let Ok(info) = info else {
            self.warn_once(&self.warned.unknown, "redis does not report whether it may evict keys (INFO is refused)");
            return Ok(());
        };
        let retention = Retention::of(&info);
        if !retention.is_durable {
            let why = "redis has no append-only file: after a restart its data may be long out of date";
            self.warn_once(&self.warned.volatile, why);
        }
        let refused = retention.evicts.as_ref().filter(|_| !allow_eviction);
        self.verified.evicts.store(refused.is_some(), Ordering::Relaxed);
        match (&retention.evicts, refused) {
            (_, Some(policy)) => Err(self.evicts(policy)),
            (Some(_), None) => {
                self.warn_once(&self.warned.evicts, "redis may evict keys, which reopens limits: allowed by settings");
                Ok(())
            }
            (None, None) => Ok(()),
        }
    }

    fn evicts(&self, policy: &str) -> StoreError {
        StoreError::Unavailable(format!(
            "redis at {} may evict keys (maxmemory-policy {policy}), which would reopen limits: set it to noeviction, or \
             SLUICE_REDIS_ALLOW_EVICTION=true",
            self.link.address()
        ))
    }

    fn warn_once(&self, warned: &AtomicBool, message: &'static str) {
        if !warned.swap(true, Ordering::Relaxed) {
            warn!(address = self.link.address(), "{message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F8: what Redis and Valkey report about themselves.
    #[test]
    fn f8_a_redis_that_may_evict_is_known_by_what_it_says() {
        let info = |maxmemory: &str, policy: &str, aof: &str| {
            format!(
                "# Memory\r\nused_memory:1\r\nmaxmemory:{maxmemory}\r\nmaxmemory_policy:{policy}\r\n\r\n# Persistence\r\naof_enabled:{aof}\r\n"
            )
        };
        let table = [
            (info("0", "noeviction", "1"), None, true),
            (info("0", "allkeys-lru", "1"), None, true),
            (info("1000000", "noeviction", "0"), None, false),
            (info("1000000", "allkeys-lru", "1"), Some("allkeys-lru"), true),
            (info("1000000", "volatile-ttl", "1"), Some("volatile-ttl"), true),
            (String::new(), None, true),
        ];
        for (info, evicts, is_durable) in table {
            assert_eq!(Retention::of(&info), Retention { evicts: evicts.map(str::to_owned), is_durable }, "{info}");
        }
    }
}
