//! The rate limit of messages for one scope, merchant and type of alert over a sliding period, decided in Redis.

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

/// The key of the limit.
#[derive(Clone, Copy, Debug)]
pub struct Counted<'a> {
    /// The scope whose settings name the channel.
    pub scope: &'a str,
    /// Empty for what concerns operators only.
    pub merchant: &'a str,
    pub alert_type: &'a str,
}

/// A message to be sent: one change of an alert, on one channel.
#[derive(Clone, Copy, Debug)]
pub struct Notification<'a> {
    pub alert: Uuid,
    pub change: Change,
    pub channel: &'a str,
}

/// So many changes of alerts in any such period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    pub notifications_max: u64,
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

/// Redis did not answer.
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

/// The rate limiter. Its connection belongs to the runtime that it was opened in.
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

    /// Requests one message. A message that was granted before is granted again.
    ///
    /// # Errors
    /// [`RateError`] where Redis does not answer.
    pub async fn take(
        &self,
        counted: Counted<'_>,
        notification: Notification<'_>,
        bound: Bound,
        now_ms: i64,
    ) -> Result<Allowance, RateError> {
        let mut call = self.script.key(counted.key());
        call.arg(now_ms).arg(millis(bound.period)).arg(bound.notifications_max);
        call.arg(notification.name()).arg(notification.channel);
        let call = &call;
        let take = self.link.repeat(|mut connection| async move { call.invoke_async(&mut connection).await });
        match self.bounded(take).await? {
            0 => Ok(Allowance::Granted),
            until_ms => Ok(Allowance::Held { until_ms }),
        }
    }

    /// Returns the grant of a message that was not sent.
    ///
    /// # Errors
    /// [`RateError`] where Redis does not answer.
    pub async fn give_back(&self, counted: Counted<'_>, notification: Notification<'_>) -> Result<(), RateError> {
        let member = format!("{} {}", notification.name(), notification.channel);
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

impl Notification<'_> {
    fn name(&self) -> String {
        format!("{}:{}", self.alert, self.change.into_str())
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
