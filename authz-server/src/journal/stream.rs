//! The event streams in Redis: reading, taking over and acknowledging entries. Knows nothing of what they say.
//!
//! The connection is the journal's own, because a blocking read holds up every command behind it.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError, Script, Value,
};
use thiserror::Error;

use super::reply::{self, Entry, Malformed, Position};
use crate::settings::Secret;
use crate::store::keys::{self, JOURNAL_GROUP as GROUP};

/// How long a read waits for events. It is also the longest that shutdown waits for a read.
const BLOCK: Duration = Duration::from_millis(500);
/// How long making the connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long any reply may take, a blocking read's wait included.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(4);

/// Why the streams could not be read.
#[derive(Debug, Error)]
pub enum StreamError {
    /// A stream or its group is gone: Redis was emptied or replaced.
    #[error("a stream has no consumer group")]
    NoGroup,
    /// Redis cannot be reached, or refuses.
    #[error("{0}")]
    Redis(RedisError),
    /// Redis answered in a form that the command does not have.
    #[error("an unexpected reply: {0}")]
    Reply(&'static str),
}

impl From<RedisError> for StreamError {
    fn from(error: RedisError) -> Self {
        match error.code() {
            Some("NOGROUP") => Self::NoGroup,
            // XINFO on a stream that does not exist has no code of its own.
            Some("ERR") if error.detail().is_some_and(|detail| detail.contains("no such key")) => Self::NoGroup,
            _ => Self::Redis(error),
        }
    }
}

impl From<Malformed> for StreamError {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Reply(what)
    }
}

/// One consumer of every shard's stream.
pub struct EventStream {
    connection: MultiplexedConnection,
    consumer: String,
    keys: Vec<String>,
    shards: HashMap<Vec<u8>, u16>,
    /// Where the next look for abandoned entries starts, by shard.
    claim_cursors: Vec<String>,
    sweep: Script,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("consumer", &self.consumer).finish_non_exhaustive()
    }
}

impl EventStream {
    /// Connects, and creates streams and groups that do not exist.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses.
    pub async fn connect(url: &Secret, shards: u16, consumer: &str) -> Result<Self, StreamError> {
        let keys: Vec<String> = (0..shards).map(keys::stream).collect();
        let mut stream = Self {
            connection: connect(url).await?,
            consumer: consumer.to_owned(),
            shards: (0..shards).zip(&keys).map(|(shard, key)| (key.clone().into_bytes(), shard)).collect(),
            claim_cursors: vec!["0-0".to_owned(); keys.len()],
            keys,
            sweep: Script::new(include_str!("sweep.lua")),
        };
        stream.create_groups().await?;
        Ok(stream)
    }

    /// Creates the group, and the stream, on every shard that has none. It starts at the stream's beginning.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses.
    pub async fn create_groups(&mut self) -> Result<(), StreamError> {
        let mut pipeline = Pipeline::new();
        for key in &self.keys {
            pipeline.cmd("XGROUP").arg("CREATE").arg(key).arg(GROUP).arg("0").arg("MKSTREAM");
        }
        let replies = self.query(&mut pipeline).await?;
        match replies.into_iter().filter_map(Result::err).find(|error| error.code() != Some("BUSYGROUP")) {
            Some(error) => Err(error.into()),
            None => Ok(()),
        }
    }

    /// Events that no consumer has had: at most `count` of each shard, after waiting half a second at most.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses.
    pub async fn read_new(&mut self, count: usize) -> Result<Vec<Entry>, StreamError> {
        self.read(count, ">").await
    }

    /// Events that this consumer was given and has not acknowledged, the oldest first.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses.
    pub async fn read_own_pending(&mut self, count: usize) -> Result<Vec<Entry>, StreamError> {
        self.read(count, "0").await
    }

    /// Takes over entries that another consumer was given at least `idle` ago and has not acknowledged: at most `count`
    /// of each shard.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses.
    pub async fn claim(&mut self, count: usize, idle: Duration) -> Result<Vec<Entry>, StreamError> {
        let mut pipeline = Pipeline::new();
        for (key, cursor) in self.keys.iter().zip(&self.claim_cursors) {
            let command = pipeline.cmd("XAUTOCLAIM").arg(key).arg(GROUP).arg(&self.consumer);
            command.arg(millis(idle)).arg(cursor).arg("COUNT").arg(count);
        }
        let replies = self.query_all(&mut pipeline).await?;
        let mut found = Vec::new();
        for ((shard, cursor), reply) in (0..).zip(&mut self.claim_cursors).zip(replies) {
            *cursor = reply::claimed(shard, reply, &mut found)?;
        }
        Ok(found)
    }

    /// Acknowledges entries and removes them from their streams. Both in one transaction: an entry that was
    /// acknowledged and stayed would never be looked at again, and count against the backlog for ever.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses; the entries may then be delivered again.
    pub async fn acknowledge<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) -> Result<(), StreamError> {
        let mut ids: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
        for entry in entries {
            ids.entry(entry.shard).or_default().push(&entry.id);
        }
        if ids.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::new();
        pipeline.atomic();
        for (shard, ids) in ids {
            let key = keys::stream(shard);
            pipeline.cmd("XACK").arg(&key).arg(GROUP).arg(&ids).ignore();
            pipeline.cmd("XDEL").arg(&key).arg(&ids).ignore();
        }
        Ok(pipeline.query_async::<()>(&mut self.connection).await?)
    }

    /// Number of events in every shard's stream: those that are not yet known to be in Postgres.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses.
    pub async fn backlog(&mut self) -> Result<Vec<u64>, StreamError> {
        let mut pipeline = Pipeline::new();
        for key in &self.keys {
            pipeline.cmd("XLEN").arg(key);
        }
        Ok(pipeline.query_async(&mut self.connection).await?)
    }

    /// Where every shard's stream and group stand. The order of the three questions matters: what was delivered and is
    /// not pending afterwards was acknowledged.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses.
    pub async fn positions(&mut self) -> Result<Vec<Position>, StreamError> {
        let mut pipeline = Pipeline::new();
        for key in &self.keys {
            pipeline.cmd("XINFO").arg("GROUPS").arg(key);
            pipeline.cmd("XPENDING").arg(key).arg(GROUP);
            pipeline.cmd("XINFO").arg("STREAM").arg(key);
        }
        let replies = self.query_all(&mut pipeline).await?;
        let mut replies = replies.into_iter();
        let mut next = || replies.next().unwrap_or_default();
        let mut positions = Vec::with_capacity(self.keys.len());
        for (shard, _) in (0..).zip(&self.keys) {
            let (groups, pending, info) = (next(), next(), next());
            // Where someone else has added an entry, there is no sequence to check; the rest must not suffer for it.
            let Some(generated) = reply::last_generated(info)? else {
                tracing::error!(shard, "the event stream's last id is not the server's, its sequence is not checked");
                continue;
            };
            let delivered = reply::last_delivered(groups, GROUP)?.ok_or(StreamError::NoGroup)?;
            let pending = reply::first_pending(pending)?;
            let acknowledged = pending.map_or(delivered, |first| delivered.min(first.saturating_sub(1)));
            positions.push(Position { shard, acknowledged, generated });
        }
        Ok(positions)
    }

    /// Removes consumers that were idle for `idle` and have nothing pending: those of processes that ended.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses.
    pub async fn sweep_consumers(&mut self, idle: Duration) -> Result<u64, StreamError> {
        let mut removed = 0;
        for key in &self.keys {
            let mut call = self.sweep.prepare_invoke();
            let count: u64 = call.key(key).arg(GROUP).arg(millis(idle)).invoke_async(&mut self.connection).await?;
            removed += count;
        }
        Ok(removed)
    }

    /// Every command's own reply: a pipeline that fails as a whole would hide the error's code.
    async fn query(&mut self, pipeline: &mut Pipeline) -> Result<Vec<Result<Value, RedisError>>, StreamError> {
        Ok(pipeline.ignore_errors().query_async(&mut self.connection).await?)
    }

    /// Every command's reply, or the first error.
    async fn query_all(&mut self, pipeline: &mut Pipeline) -> Result<Vec<Value>, StreamError> {
        Ok(self.query(pipeline).await?.into_iter().collect::<Result<_, _>>()?)
    }

    async fn read(&mut self, count: usize, from: &str) -> Result<Vec<Entry>, StreamError> {
        let mut command = Cmd::new();
        command.arg("XREADGROUP").arg("GROUP").arg(GROUP).arg(&self.consumer);
        command.arg("COUNT").arg(count).arg("BLOCK").arg(millis(BLOCK)).arg("STREAMS").arg(&self.keys);
        for _ in &self.keys {
            command.arg(from);
        }
        let reply: Value = command.query_async(&mut self.connection).await?;
        Ok(reply::streams(reply, |key| self.shards.get(key).copied())?)
    }
}

async fn connect(url: &Secret) -> Result<MultiplexedConnection, StreamError> {
    let info = url.expose().into_connection_info()?;
    // The replies are read in the shapes of RESP2, whatever the URL asks for.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    let client = Client::open(info.set_redis_settings(settings))?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    Ok(client.get_multiplexed_async_connection_with_config(&config).await?)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
