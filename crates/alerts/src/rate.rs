//! How many messages one audience gets about one merchant and type of alert in a sliding period, decided in Redis.

use std::time::Duration;

use redis::{Cmd, RedisError, Script};
use thiserror::Error;
use tokio::time::timeout;
use uuid::Uuid;

use super::notice::Change;
use sluice_kit::health::Away;
use sluice_settings::Secret;
use sluice_store::{Failovers, RedisLink};

const SCRIPT: &str = include_str!("rate.lua");

/// What the bound is counted by.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// Whose settings name the channel.
    pub scope: &'a str,
    /// Empty for what concerns operators only.
    pub merchant: &'a str,
    pub alert_type: &'a str,
}

/// A message that asks to be sent.
#[derive(Clone, Copy, Debug)]
pub struct Telling<'a> {
    pub alert: Uuid,
    pub change: Change,
    pub channel: &'a str,
}

/// So many tellings in any such period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    pub tellings_max: u64,
    pub period: Duration,
}

/// Whether a message may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// It may, and is counted.
    Granted,
    /// Not before that time, milliseconds since the epoch.
    Held { until_ms: i64 },
}

/// Redis gave no answer.
#[derive(Debug, Error)]
pub enum RateError {
    #[error("redis: {0}")]
    Redis(#[from] RedisError),
    #[error("redis gave no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl Away for RateError {
    fn is_away(&self) -> bool {
        match self {
            Self::Redis(error) => error.is_io_error(),
            Self::Timeout(_) => true,
        }
    }
}

/// The counts. Its connection belongs to the runtime that it was opened in.
#[derive(Clone, Debug)]
pub struct Rate {
    link: RedisLink,
    script: Script,
    timeout: Duration,
}

impl Rate {
    /// Prepares the connection, which is made when it is first used; `timeout` bounds every call.
    ///
    /// # Errors
    /// [`RateError`] for an address that cannot be used.
    pub fn open(url: &Secret, timeout: Duration) -> Result<Self, RateError> {
        let link = RedisLink::open(url, timeout, Failovers::default())?;
        Ok(Self { link, script: Script::new(SCRIPT), timeout })
    }

    /// Asks for one message. What was granted before is granted again.
    ///
    /// # Errors
    /// [`RateError`] where Redis gives no answer.
    pub async fn take(
        &self,
        counted: Counted<'_>,
        telling: Telling<'_>,
        bound: Bound,
        now_ms: i64,
    ) -> Result<Allowance, RateError> {
        let mut call = self.script.key(counted.key());
        call.arg(now_ms).arg(millis(bound.period)).arg(bound.tellings_max);
        call.arg(telling.name()).arg(telling.channel);
        let call = &call;
        let take = self.link.repeat(|mut connection| async move { call.invoke_async(&mut connection).await });
        match self.bounded(take).await? {
            0 => Ok(Allowance::Granted),
            until_ms => Ok(Allowance::Held { until_ms }),
        }
    }

    /// The message was not sent after all, and does not count.
    ///
    /// # Errors
    /// [`RateError`] where Redis gives no answer.
    pub async fn give_back(&self, counted: Counted<'_>, telling: Telling<'_>) -> Result<(), RateError> {
        let member = format!("{} {}", telling.name(), telling.channel);
        let remove = &Cmd::zrem(counted.key(), member);
        let remove = self.link.repeat(|mut connection| async move { remove.query_async(&mut connection).await });
        self.bounded::<i64>(remove).await.map(drop)
    }

    async fn bounded<T>(&self, call: impl Future<Output = Result<T, RedisError>>) -> Result<T, RateError> {
        match timeout(self.timeout, call).await {
            Ok(result) => Ok(result?),
            Err(_) => {
                self.link.silent();
                Err(RateError::Timeout(self.timeout))
            }
        }
    }
}

impl Counted<'_> {
    fn key(&self) -> String {
        format!("sluice:alerts:{}|{}|{}", self.scope, self.merchant, self.alert_type)
    }
}

impl Telling<'_> {
    fn name(&self) -> String {
        format!("{}:{}", self.alert, self.change.as_str())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
