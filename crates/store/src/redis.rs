//! The store in Redis or Valkey: one script call decides and applies commands. Only this module and the journal's event stream
//! use Redis.

mod call;
mod link;

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use prost::Message;
use proto::journal::EventContext;
use quota::{Account, Action, Command, Currency, Merchant, MerchantId, Order, OrderNo, Reply, shard_of};
use redis::aio::ConnectionManager;
use redis::streams::StreamRangeReply;
use redis::{Cmd, ErrorKind, FromRedisValue, RedisError, Script, ServerErrorKind, Value};
use tokio::time::{Instant, timeout};
use tracing::warn;

use self::call::{COMMANDS_MAX, CommandWithContext, Mode, Results};
pub use self::link::is_wrong_server;
pub use self::link::{Failovers, RedisLink};
use super::packed::{self, PackedError};
use super::script::{self, SCRIPT};
use super::{AuditContext, RedisMetrics, Store, StoreClock, StoreError, StoreTime, Use, keys};
use sluice_kit::clock;
use sluice_kit::telemetry::spans::{self, ScriptCall};
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

/// Warnings that were logged: each once.
#[derive(Debug, Default)]
struct Warned {
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

/// What stores of one Redis know and share: whether its number of shards is ours, and its clock. Where one of them finds
/// another number, or a clock that is too far from ours, none decides.
#[derive(Clone, Debug, Default)]
pub struct Verified {
    shards: Arc<AtomicBool>,
    /// Redis may evict keys, and is not allowed to.
    evicts: Arc<AtomicBool>,
    /// If one of them is led to another server, all of them follow.
    failovers: Failovers,
    clock: StoreClock,
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
        self.verified.clock.compare(secs.saturating_mul(1000).saturating_add(us / 1000), sent_ms);
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

    /// The account as it is stored: windows that are over are still in it.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn account(&self, merchant: &MerchantId, currency: Currency) -> Result<Option<Account>, StoreError> {
        self.read(keys::account(self.shard(merchant), merchant, currency), packed::account).await
    }

    /// The account as it is stored, and its merchant's own state, by one read.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn account_of_merchant(
        &self,
        merchant: &MerchantId,
        currency: Currency,
    ) -> Result<(Option<Account>, Merchant), StoreError> {
        let (accounts, state) = self.accounts_of(merchant, &[currency]).await?;
        Ok((accounts.into_iter().next().map(|(_, account)| account), state))
    }

    /// All accounts of a merchant as they are stored, and the merchant's own state, by one read of every currency's key.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn accounts(&self, merchant: &MerchantId) -> Result<(Vec<(Currency, Account)>, Merchant), StoreError> {
        self.accounts_of(merchant, &Currency::all().collect::<Vec<_>>()).await
    }

    async fn accounts_of(
        &self,
        merchant: &MerchantId,
        currencies: &[Currency],
    ) -> Result<(Vec<(Currency, Account)>, Merchant), StoreError> {
        let shard = self.shard(merchant);
        let accounts = currencies.iter().map(|currency| keys::account(shard, merchant, *currency));
        let keys: Vec<String> = accounts.chain([keys::merchant(shard, merchant)]).collect();
        let mut values: Vec<Option<Vec<u8>>> = self.query(&Cmd::mget(keys)).await?;
        let state = values.pop().flatten().as_deref().map(packed::merchant).transpose().map_err(corrupt)?;
        let found = currencies.iter().zip(values).filter_map(|(currency, value)| Some((*currency, value?)));
        let account = |(currency, value): (_, Vec<u8>)| packed::account(&value).map(|account| (currency, account));
        let accounts = found.map(account).collect::<Result<_, _>>().map_err(corrupt)?;
        Ok((accounts, state.unwrap_or_default()))
    }

    /// The merchant's own state: whether it is suspended as a whole. `None` where it never was.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn merchant(&self, merchant: &MerchantId) -> Result<Option<Merchant>, StoreError> {
        self.read(keys::merchant(self.shard(merchant), merchant), packed::merchant).await
    }

    /// The order as it is stored.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn order(&self, merchant: &MerchantId, order_no: &OrderNo) -> Result<Option<Order>, StoreError> {
        self.read(keys::order(self.shard(merchant), merchant, Some(order_no)), packed::order).await
    }

    async fn read<T>(&self, key: String, decode: fn(&[u8]) -> Result<T, PackedError>) -> Result<Option<T>, StoreError> {
        let began = Instant::now();
        let bytes: Result<Option<Vec<u8>>, StoreError> = self.query(&Cmd::get(key)).await;
        self.metrics.took(Use::Read, began.elapsed());
        let bytes = bytes?;
        bytes.as_deref().map(decode).transpose().map_err(corrupt)
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

/// An expired hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueHold {
    pub merchant: MerchantId,
    pub currency: Currency,
    pub order_no: OrderNo,
    /// When it ended, seconds since the epoch.
    pub until_secs: u32,
}

/// Some of a shard's due holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueHolds {
    pub holds: Vec<DueHold>,
    /// Members of the set that were read, including those that are no holds: fewer than requested are the last ones.
    pub members: usize,
}

impl DueHold {
    /// Reads a member of the sorted set, `<merchant>:<currency>:<order_no>`.
    fn parse(member: &str, until_secs: u32) -> Option<Self> {
        let mut parts = member.splitn(3, ':');
        Some(Self {
            merchant: MerchantId::parse(parts.next()?).ok()?,
            currency: Currency::parse(parts.next()?).ok()?,
            order_no: OrderNo::parse(parts.next()?).ok()?,
            until_secs,
        })
    }
}

impl RedisStore {
    /// Holds of a shard that ended at `now_secs` (seconds since the epoch) or before, the oldest first: those in `range`. A
    /// member that is not a hold is skipped, so that it keeps no hold from ending.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer.
    pub async fn due_holds(&self, shard: u16, now_secs: u64, range: Range<usize>) -> Result<DueHolds, StoreError> {
        let [offset, count] = [range.start, range.len()].map(|number| isize::try_from(number).unwrap_or(isize::MAX));
        let due = Cmd::zrangebyscore_limit_withscores(keys::expiry(shard), "-inf", now_secs, offset, count);
        let members: Vec<(Vec<u8>, Value)> = self.query(&due).await?;
        let found = members.len();
        let holds: Vec<DueHold> =
            members.into_iter().filter_map(|(member, until)| self.hold(shard, &member, until)).collect();
        if holds.len() < found {
            warn!(shard, members = found - holds.len(), "the set of open holds has members that are not holds");
        }
        Ok(DueHolds { holds, members: found })
    }

    /// A member as a hold; `None` where its merchant belongs to another shard.
    fn hold(&self, shard: u16, member: &[u8], until: Value) -> Option<DueHold> {
        let hold = DueHold::parse(str::from_utf8(member).ok()?, redis::from_redis_value(until).ok()?)?;
        (self.shard(&hold.merchant) == shard).then_some(hold)
    }

    /// The context of the oldest event of a merchant's shard that waits for the journal: all older ones are in Postgres.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer or contains an unexpected value.
    pub async fn oldest_waiting(&self, merchant: &MerchantId) -> Result<Option<EventContext>, StoreError> {
        let key = keys::stream(self.shard(merchant));
        let found: StreamRangeReply = self.query(&Cmd::xrange_count(key, "-", "+", 1)).await?;
        let Some(entry) = found.ids.into_iter().next() else { return Ok(None) };
        let context: Option<Vec<u8>> = entry.get("c");
        let context = context.ok_or_else(|| corrupt("an event without a context"))?;
        EventContext::decode(context.as_slice()).map(Some).map_err(corrupt)
    }
}

impl Store for RedisStore {
    fn timeout(&self) -> Duration {
        self.live.as_ref().map_or(self.timeout, |live| live.current().redis_timeout())
    }

    fn now_ms(&self) -> i64 {
        self.verified.clock.now_ms()
    }

    async fn apply(&self, command: &Command, audit: &AuditContext) -> Result<Reply, StoreError> {
        let replies = self.run(&[(command, audit)], false).await;
        replies.and_then(|replies| replies.into_iter().next().unwrap_or_else(|| Err(corrupt("no reply"))))
    }

    async fn apply_each(&self, batch: &[(Command, AuditContext)]) -> Vec<Result<Reply, StoreError>> {
        let mut results = Vec::with_capacity(batch.len());
        for part in batch.chunks(COMMANDS_MAX) {
            let part: Vec<CommandWithContext<'_>> = part.iter().map(|(command, audit)| (command, audit)).collect();
            match self.run(&part, false).await {
                Ok(replies) => results.extend(replies),
                Err(error) => results.extend(part.iter().map(|_| Err(error.clone()))),
            }
        }
        results
    }

    async fn apply_all(&self, batch: &[(Command, AuditContext)]) -> Result<Vec<Reply>, StoreError> {
        let batch: Vec<CommandWithContext<'_>> = batch.iter().map(|(command, audit)| (command, audit)).collect();
        self.run(&batch, true).await?.into_iter().collect()
    }
}

impl RedisStore {
    /// Sends all commands in one call; returns a result for each.
    async fn run(
        &self,
        batch: &[CommandWithContext<'_>],
        all_or_none: bool,
    ) -> Result<Vec<Result<Reply, StoreError>>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if !self.verified.shards.load(Ordering::Relaxed) {
            self.verify().await?;
        }
        if self.verified.evicts.load(Ordering::Relaxed) {
            let why = format!("redis at {} may evict keys, nothing is decided on it", self.link.address());
            return Err(StoreError::Unavailable(why));
        }
        if let Some(trouble) = self.clock_trouble() {
            return Err(StoreError::Clock(trouble));
        }
        let (call, began) = (ScriptCall::begin(), Instant::now());
        let results = self.bounded(self.call_script(batch, all_or_none)).await.and_then(|results| results);
        self.metrics.took(Use::Decide, began.elapsed());
        let trace = |(index, (command, audit)): (usize, &CommandWithContext<'_>)| {
            let reply = results.as_ref().ok().and_then(|results| results.get(index)?.as_ref().ok());
            spans::under(audit.trace, reply.map_or(command.decision_id, |reply| reply.event_id))
        };
        call.end(
            batch.iter().enumerate().map(trace),
            results.as_ref().err().map(|error| error as &dyn std::fmt::Display),
        );
        results
    }

    /// Calls the script, once more where the connection was lost.
    ///
    /// Sending again is safe where a repetition is recognised by its attempt or operation. The second call's event has an
    /// id of its own, so it is never mistaken for the first one's. Other commands are not sent again: whether they were applied
    /// is unknown.
    async fn call_script(&self, batch: &[CommandWithContext<'_>], all_or_none: bool) -> Result<Results, RedisError> {
        let error = match self.invoke(batch, all_or_none).await {
            Err(error) if link::is_lost(&error) => error,
            result => return result,
        };
        let again = |(command, _): &&CommandWithContext<'_>| is_repeatable(&command.action);
        let repeated: Vec<&CommandWithContext<'_>> = batch.iter().filter(again).collect();
        if repeated.is_empty() || (all_or_none && repeated.len() < batch.len()) {
            return Err(error);
        }
        let renamed: Vec<Command> = repeated.iter().map(|(command, _)| renamed(command)).collect();
        let repeated: Vec<CommandWithContext<'_>> =
            renamed.iter().zip(repeated).map(|(command, (_, audit))| (command, *audit)).collect();
        let results = self.invoke(&repeated, all_or_none).await?;
        Ok(results.map(|replies| {
            let mut replies = replies.into_iter();
            let reply = |command: &CommandWithContext<'_>| {
                let result = if again(&command) { replies.next() } else { None };
                result.unwrap_or_else(|| Err(self.unavailable(&error)))
            };
            batch.iter().map(reply).collect()
        }))
    }

    /// Calls the script on the primary. A server that is not the primary any more has applied nothing, so all commands are sent
    /// again on a new connection.
    async fn invoke(&self, batch: &[CommandWithContext<'_>], all_or_none: bool) -> Result<Results, RedisError> {
        let rolling_upgrade =
            self.rolling_upgrade || self.live.as_ref().is_some_and(|live| live.current().rolling_upgrade);
        let mode = Mode { all_or_none, rolling_upgrade };
        let call = &call::call(self.script.get_hash(), self.shards, &self.time, batch, mode);
        let invoke = |mut connection: ConnectionManager| async move {
            let value = match call.query_async(&mut connection).await {
                // Redis was restarted, or does not have the script yet.
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    self.script.load_async(&mut connection).await?;
                    call.query_async(&mut connection).await?
                }
                result => result?,
            };
            Ok(call::replies(&value, batch, self.clock()))
        };
        let is_refused = |result: &Result<Results, RedisError>| match result {
            Ok(results) => results.as_ref().is_ok_and(|results| call::is_refused(results)),
            Err(_) => link::is_refused(result),
        };
        self.link.call(invoke, is_refused).await
    }
}

/// Whether the command may be sent twice although the first call may have applied it.
const fn is_repeatable(action: &Action) -> bool {
    !matches!(action, Action::Adjust(_) | Action::Reset(_))
}

fn renamed(command: &Command) -> Command {
    Command { decision_id: clock::decision_id(), ..command.clone() }
}

fn corrupt(what: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt(what.to_string())
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
