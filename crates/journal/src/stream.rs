//! The event streams in Redis: one reader by lease, which reads events in their order and removes those that are stored. Does
//! not decode them.
//!
//! No consumer group: for one reader at a time a group's bookkeeping, and its propagation to the append-only file, cost Redis
//! four times the reading. A second reader would only repeat work: events are removed only by the reader that has stored them,
//! and only after a comparison with what was stored. A comparison of the last entry is not enough: where Redis is emptied
//! between two reads, the second continues in the middle of a new stream. So the entries behind which reads continued are
//! compared too.
//!
//! The connection is the journal's own, because a blocking read delays every command behind it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::convert::Infallible;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, IntoConnectionInfo, Pipeline, ProtocolVersion, RedisError, Script, Value,
};
use thiserror::Error;
use tokio::time::sleep;

use super::reply::{self, Entry, Malformed, Position, StreamId};
use sluice_kit::health::Away;
use sluice_settings::Secret;
use sluice_store::is_wrong_server;
use sluice_store::keys::{self, JOURNAL_LEASE};

/// How long making the connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long any reply may take, a blocking read's wait included.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(4);
/// A lease is renewed so many times in its length, so that one lost try does not lose it.
const RENEWALS_PER_LEASE: u32 = 3;

/// Why the streams could not be read.
#[derive(Debug, Error)]
pub enum StreamError {
    /// Redis cannot be reached, or refuses.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// Redis answered in a form that the command does not have.
    #[error("an unexpected reply: {0}")]
    Reply(&'static str),
}

impl Away for StreamError {
    fn is_away(&self) -> bool {
        match self {
            // Also a server that is not the primary any more: the next connection finds its successor.
            Self::Redis(error) => error.is_io_error() || error.code().is_some_and(is_wrong_server),
            Self::Reply(_) => false,
        }
    }
}

impl From<Malformed> for StreamError {
    fn from(Malformed(what): Malformed) -> Self {
        Self::Reply(what)
    }
}

/// The owner of the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Another reader has the lease.
    Others,
    /// This reader still has it.
    Kept,
    /// This reader has acquired it.
    Taken,
}

/// A possible reader of every shard's stream.
pub struct EventStream {
    connection: MultiplexedConnection,
    reader: String,
    keys: Vec<String>,
    shards: HashMap<Vec<u8>, u16>,
    /// The last entry of each shard that is stored and not removed: the next read continues behind it. Shards without one are
    /// read from their beginning, so that a stream that Redis has lost and restarted is read whole.
    stored_to: BTreeMap<u16, Entry>,
    /// The entries behind which reads of a shard continued since its last removal. As long as the stream has them, the reads
    /// returned all that it had up to the last one.
    continued: BTreeMap<u16, Vec<Entry>>,
    /// Shards whose last read may have returned events of a stream that does not exist any more: those are not recorded.
    lost: BTreeSet<u16>,
    /// Entries stored and not removed.
    stored: usize,
    lease: Script,
    remove: Script,
}

impl std::fmt::Debug for EventStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventStream").field("reader", &self.reader).finish_non_exhaustive()
    }
}

impl EventStream {
    /// Connects; `reader` is a name that no other reader has.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses.
    pub async fn connect(url: &Secret, shards: u16, reader: &str) -> Result<Self, StreamError> {
        let keys: Vec<String> = (0..shards).map(keys::stream).collect();
        let mut connection = connect(url).await?;
        let remove = Script::new(include_str!("remove.lua"));
        // It is called in pipelines, which do not load it.
        remove.load_async(&mut connection).await?;
        Ok(Self {
            connection,
            reader: reader.to_owned(),
            shards: (0..shards).zip(&keys).map(|(shard, key)| (key.clone().into_bytes(), shard)).collect(),
            keys,
            stored_to: BTreeMap::new(),
            continued: BTreeMap::new(),
            lost: BTreeSet::new(),
            stored: 0,
            lease: Script::new(include_str!("lease.lua")),
            remove,
        })
    }

    /// Takes the lease where it is free, or extends it for so long from now.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses.
    pub async fn lead(&mut self, lease: Duration) -> Result<Lease, StreamError> {
        match self.call_lease(millis(lease).max(1)).await? {
            0 => Ok(Lease::Others),
            1 => Ok(Lease::Kept),
            2 => Ok(Lease::Taken),
            _ => Err(StreamError::Reply("lease")),
        }
    }

    /// Keeps the lease until the future is dropped. A try that fails is left to the next one: a lost lease costs no more than
    /// repeated work.
    pub async fn keep_leading(&mut self, lease: Duration) -> Infallible {
        loop {
            sleep(renewal(lease)).await;
            if let Err(error) = self.lead(lease).await {
                tracing::debug!(%error, "journal lease cannot be renewed");
            }
        }
    }

    /// Releases the lease, where this reader has it.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses; the lease then ends by itself.
    pub async fn resign(&mut self) -> Result<(), StreamError> {
        self.call_lease(0).await.map(drop)
    }

    async fn call_lease(&mut self, lease_ms: u64) -> Result<u8, StreamError> {
        let mut call = self.lease.prepare_invoke();
        let call = call.key(JOURNAL_LEASE).arg(&self.reader).arg(lease_ms);
        Ok(call.invoke_async(&mut self.connection).await?)
    }

    /// The next events of every shard behind those recorded as stored, in their order: `entries_max` at most, or one of each
    /// shard where that is more. Waits for the first one for as long as given.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses.
    pub async fn read(&mut self, entries_max: usize, wait: Duration) -> Result<Vec<Entry>, StreamError> {
        let mut found = Vec::new();
        let mut shards: Vec<u16> = self.all_shards().collect();
        let mut behind = self.stored_to.clone();
        self.lost.clear();
        let mut wait = Some(wait);
        while !shards.is_empty() && (found.is_empty() || found.len() < entries_max) {
            let count = (entries_max.saturating_sub(found.len()) / shards.len()).max(1);
            let entries = self.read_shards(&shards, &behind, count, wait.take()).await?;
            shards.clear();
            for shard in entries.chunk_by(|one, next| one.shard == next.shard) {
                let Some(last) = shard.last() else { continue };
                if let Some(before) = behind.insert(last.shard, last.clone()) {
                    self.continued.entry(last.shard).or_default().push(before);
                }
                // A shard that returned as many as requested may well have more.
                if shard.len() >= count {
                    shards.push(last.shard);
                }
            }
            found.extend(entries);
        }
        Ok(found)
    }

    fn all_shards(&self) -> impl Iterator<Item = u16> + use<> {
        0..u16::try_from(self.keys.len()).unwrap_or(u16::MAX)
    }

    async fn read_shards(
        &mut self,
        shards: &[u16],
        behind: &BTreeMap<u16, Entry>,
        count: usize,
        wait: Option<Duration>,
    ) -> Result<Vec<Entry>, StreamError> {
        let mut command = Cmd::new();
        command.arg("XREAD").arg("COUNT").arg(count);
        if let Some(wait) = wait {
            command.arg("BLOCK").arg(millis(wait).max(1));
        }
        command.arg("STREAMS");
        for shard in shards {
            command.arg(self.keys.get(usize::from(*shard)));
        }
        for shard in shards {
            command.arg(behind.get(shard).map_or_else(StreamId::default, |entry| entry.id).to_string());
        }
        let reply: Value = command.query_async(&mut self.connection).await?;
        Ok(reply::streams(reply, |key| self.shards.get(key).copied())?)
    }

    /// Records entries of the last read as stored, for [`EventStream::remove_stored`]. Skips those of a shard whose stream
    /// turned out to be another one since.
    pub fn note_stored<'a>(&mut self, entries: impl Iterator<Item = &'a Entry>) {
        let mut last: BTreeMap<u16, &Entry> = BTreeMap::new();
        for entry in entries.filter(|entry| !self.lost.contains(&entry.shard)) {
            self.stored += 1;
            let newest = last.entry(entry.shard).or_insert(entry);
            if newest.id < entry.id {
                *newest = entry;
            }
        }
        self.stored_to.extend(last.into_iter().map(|(shard, entry)| (shard, entry.clone())));
    }

    /// Drops what is recorded as stored: every shard is read from its beginning next.
    pub fn forget_stored(&mut self) {
        self.stored_to.clear();
        self.continued.clear();
        self.lost.extend(self.all_shards());
        self.stored = 0;
    }

    /// How many entries are stored and not removed.
    #[must_use]
    pub const fn stored(&self) -> usize {
        self.stored
    }

    /// Removes what is recorded as stored. Returns the shards whose stream is not the one that was read: another reader has
    /// removed the events before, or Redis has lost them. Those are read from their beginning next.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses; the entries may then be read again.
    pub async fn remove_stored(&mut self) -> Result<Vec<u16>, StreamError> {
        if self.stored_to.is_empty() {
            return Ok(Vec::new());
        }
        let mut pipeline = Pipeline::new();
        for (shard, last) in &self.stored_to {
            let mut call = self.remove.key(keys::stream(*shard));
            call.arg(last.id.next().to_string());
            for Entry { id, fields, .. } in self.continued.get(shard).into_iter().flatten().chain([last]) {
                call.arg(id.to_string()).arg(fields.len()).arg(fields);
            }
            pipeline.invoke_script(&call);
        }
        let removed: Vec<bool> = pipeline.query_async(&mut self.connection).await?;
        let shards = std::mem::take(&mut self.stored_to).into_keys();
        self.stored = 0;
        let mut lost = Vec::new();
        for (shard, removed) in shards.zip(removed) {
            self.continued.remove(&shard);
            if !removed {
                lost.push(shard);
            }
        }
        self.lost.extend(&lost);
        Ok(lost)
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

    /// The position of every shard's sequence: what was removed, and what was assigned.
    ///
    /// # Errors
    /// [`StreamError`] where Redis cannot be reached or refuses.
    pub async fn positions(&mut self) -> Result<Vec<Position>, StreamError> {
        let mut pipeline = Pipeline::new();
        for key in &self.keys {
            pipeline.cmd("XINFO").arg("STREAM").arg(key);
        }
        let replies: Vec<Result<Value, RedisError>> =
            pipeline.ignore_errors().query_async(&mut self.connection).await?;
        let mut positions = Vec::with_capacity(self.keys.len());
        for (shard, reply) in (0..).zip(replies) {
            let position = match reply {
                Ok(info) => reply::position(shard, info)?,
                // A shard that has never had an event, or a Redis that was emptied.
                Err(error) if is_no_such_key(&error) => Some(Position { shard, removed: 0, generated: 0 }),
                Err(error) => return Err(error.into()),
            };
            // Where another writer has added an entry, there is no sequence to check; the other shards are checked all the
            // same.
            match position {
                Some(position) => positions.push(position),
                None => {
                    tracing::error!(shard, "the event stream's ids are not the server's, its sequence is not checked")
                }
            }
        }
        Ok(positions)
    }
}

/// How long after acquiring or renewing a lease it has to be renewed.
pub(super) fn renewal(lease: Duration) -> Duration {
    lease / RENEWALS_PER_LEASE
}

/// `XINFO` on a stream that does not exist has no code of its own.
fn is_no_such_key(error: &RedisError) -> bool {
    error.detail().is_some_and(|detail| detail.contains("no such key"))
}

async fn connect(url: &Secret) -> Result<MultiplexedConnection, StreamError> {
    let info = url.expose().into_connection_info()?;
    // The replies are read in the shapes of RESP2, whatever the URL requests.
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
