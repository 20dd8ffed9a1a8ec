//! One call of the script: its keys and arguments for commands of any shards, and its replies.
//!
//! A standalone Redis accepts keys of many shards in one call. A client of Redis Cluster would make one call per shard; every
//! command names its keys by index, so that any grouping works.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::atomic::Ordering;

use quota::{
    Action, AmountMinor, Code, Command, Currency, PostingKind, Record, Reply, RightId, ThresholdPolicy, shard_of,
};
use redis::{Cmd, RedisError, Value};
use sluice_kit::clock;

use super::link::is_wrong_server;
use super::{StoreClock, StoreError, StoreTime, corrupt};
use crate::packed::flags::{CALL_ALL_OR_NONE, CALL_ROLLING_UPGRADE};
use crate::packed::op::{FAILED, NOT_BEGUN, REFUSED};
use crate::packed::{self, KeyIndexes};
use crate::{AuditContext, context, keys};

/// Prefix of the script's own errors.
pub(super) const SCRIPT_ERROR: &str = "SLUICE";
/// Commands of one call that are decided each by itself: some 4 ms of Redis, which serves no other client meanwhile.
pub(super) const COMMANDS_MAX: usize = 256;
/// Length of the store's time in a reply.
const TIME_LEN: usize = 8;
/// Use Redis' own clock.
const OWN_TIME: f64 = -1.0;
/// Bytes of a command in a call, about: keys, command and context.
const COMMAND_BYTES: usize = 640;

/// The results of a call's commands; an error where the reply as a whole could not be read.
pub(super) type Results = Result<Vec<Result<Reply, StoreError>>, StoreError>;

/// A command of a call, with its audit context.
pub(super) type CommandWithContext<'a> = (&'a Command, &'a AuditContext);

/// How a call decides its commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mode {
    /// All of them, or none where one is refused.
    pub all_or_none: bool,
    /// Values of the previous format keep it.
    pub rolling_upgrade: bool,
}

impl Mode {
    fn number(self) -> u8 {
        let all_or_none = if self.all_or_none { CALL_ALL_OR_NONE } else { 0 };
        all_or_none + if self.rolling_upgrade { CALL_ROLLING_UPGRADE } else { 0 }
    }
}

/// Builds the call of the script with this hash.
pub(super) fn call(hash: &str, shards: u16, time: &StoreTime, batch: &[CommandWithContext<'_>], mode: Mode) -> Cmd {
    let keys = Keys::of(shards, batch);
    let parts = 5 + keys.count() + 2 * batch.len() + keys.threshold_policies.len();
    let mut call = Cmd::with_capacity(parts, 64 + COMMAND_BYTES * batch.len());
    call.arg("EVALSHA").arg(hash).arg(keys.count());
    let mut part = Vec::with_capacity(COMMAND_BYTES);
    keys.write(&mut call, &mut part);
    let plain_ttl_secs = batch.first().map_or(0, |(command, _)| command.order_ttl_secs);
    part.clear();
    part.push(mode.number());
    // For the script a right is one more value, as a merchant is.
    let others = keys.merchants.len() + keys.rights.len();
    [keys.orders.len(), keys.accounts.len(), others, keys.streams.len(), keys.threshold_policies.len()]
        .into_iter()
        .for_each(|count| part.extend_from_slice(&index(count).to_le_bytes()));
    part.extend_from_slice(&time_of(time, batch).to_le_bytes());
    call.arg(part.as_slice()).arg(plain_ttl_secs);
    for ((command, audit), own) in batch.iter().zip(&keys.indexes) {
        part.clear();
        packed::command(&mut part, command, keys.indexes_of(own), plain_ttl_secs);
        call.arg(part.as_slice());
        part.clear();
        context::encode(&mut part, command, audit);
        call.arg(part.as_slice());
    }
    for policy in &keys.threshold_policies {
        part.clear();
        packed::threshold_policy(&mut part, policy);
        call.arg(part.as_slice());
    }
    call
}

/// The store's time for the script: [`OWN_TIME`] except in tests.
fn time_of(time: &StoreTime, batch: &[CommandWithContext<'_>]) -> f64 {
    match time {
        StoreTime::Own if clock::store_shift_ms() != 0 => clock::now_ms().max(0) as f64,
        StoreTime::Own => OWN_TIME,
        StoreTime::OfCommands => {
            let latest = batch.iter().map(|(command, _)| command.now_ms.max(command.windows.since_ms)).max();
            latest.unwrap_or_default().max(0) as f64
        }
        StoreTime::At(now_ms) => now_ms.load(Ordering::SeqCst).max(0) as f64,
    }
}

/// The keys of a call, each once.
struct Keys<'a> {
    orders: Distinct<(u16, &'a Command)>,
    accounts: Distinct<(u16, &'a Command)>,
    merchants: Distinct<(u16, &'a Command)>,
    rights: Distinct<(u16, &'a Command, RightId)>,
    streams: Distinct<u16>,
    /// The threshold policies, behind the commands.
    threshold_policies: Distinct<&'a ThresholdPolicy>,
    /// The key indexes of each command, from 1 within their kind; see [`Keys::indexes_of`].
    indexes: Vec<KeyIndexes>,
    /// Whether a hold may be made or ended.
    expiries: bool,
}

/// Items in the order of their first appearance.
type Distinct<T> = Vec<T>;

impl<'a> Keys<'a> {
    fn of(shards: u16, batch: &[CommandWithContext<'a>]) -> Self {
        let mut known = Known::with_capacity(batch.len());
        let mut keys = Self {
            orders: Vec::with_capacity(batch.len()),
            accounts: Vec::with_capacity(batch.len()),
            merchants: Vec::with_capacity(batch.len()),
            rights: Vec::new(),
            streams: Vec::with_capacity(batch.len().min(usize::from(shards))),
            threshold_policies: Vec::new(),
            indexes: Vec::with_capacity(batch.len()),
            expiries: false,
        };
        for (command, _) in batch {
            let shard = shard_of(&command.merchant, shards);
            let merchant = command.merchant.as_str();
            let number = command.order_no.as_ref().map_or("", quota::OrderNo::as_str);
            let order = (merchant, command.action.posting(), number);
            keys.indexes.push(KeyIndexes {
                account: if command.action.is_of_merchant() {
                    0
                } else {
                    find(&mut known.accounts, (merchant, command.currency), &mut keys.accounts, (shard, *command))
                },
                order: find(&mut known.orders, order, &mut keys.orders, (shard, *command)),
                merchant: find(&mut known.merchants, merchant, &mut keys.merchants, (shard, *command)),
                stream: find(&mut known.streams, shard, &mut keys.streams, shard),
                right: command.action.right().map_or(0, |right| {
                    let key = (merchant, command.currency, right);
                    find(&mut known.rights, key, &mut keys.rights, (shard, *command, right))
                }),
                threshold_policy: command.threshold_policy.as_deref().map_or(0, |policy| {
                    let key = std::ptr::from_ref(policy);
                    find(&mut known.threshold_policies, key, &mut keys.threshold_policies, policy)
                }),
            });
            keys.expiries |= !matches!(command.action, Action::Consume(_));
        }
        keys
    }

    fn count(&self) -> usize {
        let streams = self.streams.len();
        let values = self.orders.len() + self.accounts.len() + self.merchants.len() + self.rights.len();
        let of_rights = if self.rights.is_empty() { 0 } else { streams };
        values + streams + of_rights + if self.has_expiries() { streams } else { 0 }
    }

    /// Those of rights come behind those of holds.
    const fn has_expiries(&self) -> bool {
        self.expiries || !self.rights.is_empty()
    }

    /// A command's indexes among all keys: orders come first, then accounts, merchants and rights.
    fn indexes_of(&self, own: &KeyIndexes) -> KeyIndexes {
        let accounts_from = index(self.orders.len());
        let merchants_from = accounts_from.saturating_add(index(self.accounts.len()));
        let rights_from = merchants_from.saturating_add(index(self.merchants.len()));
        let among = |own: u16, from: u16| if own == 0 { 0 } else { own.saturating_add(from) };
        KeyIndexes {
            account: among(own.account, accounts_from),
            merchant: own.merchant.saturating_add(merchants_from),
            right: among(own.right, rights_from),
            ..*own
        }
    }

    fn write(&self, call: &mut Cmd, part: &mut Vec<u8>) {
        for (shard, command) in &self.orders {
            keys::write_numbered(part, *shard, command);
            call.arg(part.as_slice());
        }
        for (shard, command) in &self.accounts {
            keys::write_account(part, *shard, &command.merchant, command.currency);
            call.arg(part.as_slice());
        }
        for (shard, command) in &self.merchants {
            keys::write_merchant(part, *shard, &command.merchant);
            call.arg(part.as_slice());
        }
        for (shard, command, right) in &self.rights {
            keys::write_right(part, *shard, &command.merchant, command.currency, *right);
            call.arg(part.as_slice());
        }
        for shard in &self.streams {
            call.arg(keys::stream(*shard));
        }
        if self.has_expiries() {
            for shard in &self.streams {
                call.arg(keys::expiry(*shard));
            }
        }
        if !self.rights.is_empty() {
            for shard in &self.streams {
                call.arg(keys::rights(*shard));
            }
        }
    }
}

/// The index of each key, by what it is the key of.
struct Known<'a> {
    orders: Indexes<(&'a str, Option<PostingKind>, &'a str)>,
    accounts: Indexes<(&'a str, Currency)>,
    merchants: Indexes<&'a str>,
    rights: Indexes<(&'a str, Currency, RightId)>,
    streams: Indexes<u16>,
    /// Payments under one policy share its threshold policy.
    threshold_policies: Indexes<*const ThresholdPolicy>,
}

type Indexes<K> = HashMap<K, u16, BuildHasherDefault<QuickHasher>>;

/// Mixes eight bytes at a time (as rustc's own tables do). Keys that are made to collide cost a call's few commands little, so that
/// it need not resist that.
#[derive(Default)]
struct QuickHasher(u64);

impl QuickHasher {
    fn mix(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(5) ^ word).wrapping_mul(0x517c_c1b7_2722_0a95);
    }
}

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        let (chunks, rest) = bytes.as_chunks::<8>();
        chunks.iter().for_each(|chunk| self.mix(u64::from_le_bytes(*chunk)));
        self.mix(rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
    }

    fn write_u8(&mut self, number: u8) {
        self.mix(number.into());
    }

    fn write_u16(&mut self, number: u16) {
        self.mix(number.into());
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }

    fn finish(&self) -> u64 {
        // Tables take the highest bits and the lowest ones.
        self.0.rotate_left(26)
    }
}

impl Known<'_> {
    fn with_capacity(commands: usize) -> Self {
        Self {
            orders: sized(commands),
            accounts: sized(commands),
            merchants: sized(commands),
            rights: Indexes::default(),
            streams: sized(commands),
            threshold_policies: Indexes::default(),
        }
    }
}

fn sized<K>(commands: usize) -> Indexes<K> {
    Indexes::with_capacity_and_hasher(commands, BuildHasherDefault::default())
}

fn find<K: Eq + Hash, T>(known: &mut Indexes<K>, key: K, list: &mut Distinct<T>, item: T) -> u16 {
    match known.entry(key) {
        Entry::Occupied(found) => *found.get(),
        Entry::Vacant(free) => {
            list.push(item);
            *free.insert(index(list.len()))
        }
    }
}

/// A call has far fewer commands than an index can count.
fn index(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// Reads the replies to a call, one for each of its commands.
pub(super) fn replies(value: &Value, batch: &[CommandWithContext<'_>], clock: &StoreClock) -> Results {
    let Value::BulkString(bytes) = value else { return Err(corrupt("the script's reply is no string")) };
    let mut rest = bytes.as_slice();
    let mut replies = Vec::with_capacity(batch.len());
    for (command, _) in batch {
        replies.push(reply(&mut rest, command, clock)?);
    }
    if rest.is_empty() { Ok(replies) } else { Err(corrupt(format_args!("{} bytes behind the last reply", rest.len()))) }
}

/// Whether a command failed because its server is not the primary. Nothing of the whole call was applied then: after a script's
/// first write Redis refuses none of it, so where it refused one it refused all of them.
pub(super) fn is_refused(results: &[Result<Reply, StoreError>]) -> bool {
    let is_refused = |result: &Result<Reply, StoreError>| match result {
        Err(StoreError::Unavailable(why)) => is_wrong_server(code_of(why)),
        Ok(_) | Err(_) => false,
    };
    results.iter().any(is_refused)
}

/// Takes a command's reply off the front; the outer error where its end cannot be found.
fn reply(rest: &mut &[u8], command: &Command, clock: &StoreClock) -> Result<Result<Reply, StoreError>, StoreError> {
    let event_id = command.decision_id;
    let result = match rest.first() {
        Some(&FAILED) => {
            let why = String::from_utf8_lossy(line(rest)).into_owned();
            line(rest);
            return Ok(Err(failed(why.trim_start_matches('\0'))));
        }
        Some(&NOT_BEGUN) => {
            let (reply, behind) =
                rest.split_at_checked(1 + TIME_LEN).ok_or_else(|| corrupt("a time ends too early"))?;
            let store_ms = reply.last_chunk().map_or(0.0, |bytes| f64::from_le_bytes(*bytes));
            // The store's clock was set back, or was not known yet: the next commands carry this time.
            clock.set(store_ms as i64);
            *rest = behind;
            Err(StoreError::NotBegun)
        }
        Some(&REFUSED) => {
            *rest = rest.get(1..).unwrap_or_default();
            Ok((Record::bare(Code::BatchRefused), None))
        }
        _ => {
            let amount = command.action.amount().map_or(0, AmountMinor::get);
            let record = packed::take_record(rest).map_err(corrupt)?;
            packed::record_and_decision(record, amount).map_err(corrupt)
        }
    };
    *rest = rest.strip_prefix(b"\n").ok_or_else(|| corrupt("a record does not end where its format does"))?;
    let event_seq = event_seq(line(rest))?;
    Ok(result.map(|(record, decision)| Reply {
        record,
        decision_id: decision.unwrap_or(event_id),
        event_id,
        event_seq,
    }))
}

/// Takes what comes before the next line feed off the front, and the line feed.
fn line<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (line, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
    *rest = behind.get(1..).unwrap_or_default();
    line
}

/// Why a command could not be decided: a value that is not ours, or a write that Redis refused.
fn failed(why: &str) -> StoreError {
    if matches!(code_of(why), SCRIPT_ERROR | "WRONGTYPE" | "ERR") {
        StoreError::Corrupt(why.to_owned())
    } else {
        StoreError::Unavailable(why.to_owned())
    }
}

fn code_of(why: &str) -> &str {
    why.split_whitespace().next().unwrap_or_default()
}

/// The number of an event is the second part of its stream id, `0-<number>`.
fn event_seq(stream_id: &[u8]) -> Result<Option<u64>, StoreError> {
    if stream_id.is_empty() {
        return Ok(None);
    }
    let number = stream_id.strip_prefix(b"0-").and_then(|number| str::from_utf8(number).ok());
    let number = number.and_then(|number| number.parse().ok());
    number.map(Some).ok_or_else(|| corrupt(format_args!("event id {}", stream_id.escape_ascii())))
}

/// Whether the script itself failed, on a value of another format. It wrote nothing then.
pub(super) fn is_of_the_script(error: &RedisError) -> bool {
    match error.code() {
        Some(SCRIPT_ERROR) => true,
        // An error that Redis raises inside of a script has its own code, followed by the script's name.
        None | Some("ERR" | "WRONGTYPE") => error.detail().is_some_and(|detail| detail.contains("user_script")),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests;
