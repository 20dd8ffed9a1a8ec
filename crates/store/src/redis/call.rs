//! One call of the script: its keys and arguments for commands of any shards, and its replies.
//!
//! Keys of many shards in one call are nothing to a standalone Redis. A client of Redis Cluster would make a call for the commands
//! of each shard; every command is told its keys by their places, so that any grouping works.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;
use std::sync::atomic::Ordering;

use quota::{Action, AmountMinor, Code, Command, Currency, Record, Reply, Watch, shard_of};
use redis::{Cmd, RedisError, Value};

use super::link::is_wrong_server;
use super::{StoreClock, StoreError, StoreTime, corrupt};
use crate::packed::{self, Places};
use crate::{Notes, context, keys};

/// What the script's own errors begin with.
pub(super) const SCRIPT_ERROR: &str = "SLUICE";
/// Commands of one call that are decided each by itself: some 4 ms of Redis, which serves nobody else meanwhile.
pub(super) const COMMANDS_MAX: usize = 256;
/// What the script replies instead of a record begins with this where a command could not be decided.
const FAILED: u8 = 0;
/// The same where another command of all or none was refused.
const REFUSED: u8 = 1;
/// The same, with the store's time behind it, where the command's windows have not begun by that time.
const NOT_BEGUN: u8 = 2;
/// Bytes of that time.
const TIME_LEN: usize = 8;
/// Redis' own clock counts.
const OWN_TIME: f64 = -1.0;
/// Bytes that a command takes in a call, about: keys, command and context.
const COMMAND_BYTES: usize = 640;

/// The results of a call's commands, unless its reply as a whole could not be read.
pub(super) type Results = Result<Vec<Result<Reply, StoreError>>, StoreError>;

/// A command of a call, with what the journal is told beside it.
pub(super) type Noted<'a> = (&'a Command, &'a Notes);

/// Makes the call of the script with this hash.
pub(super) fn call(hash: &str, shards: u16, time: &StoreTime, batch: &[Noted<'_>], all_or_none: bool) -> Cmd {
    let keys = Keys::of(shards, batch);
    let parts = 5 + keys.count() + 2 * batch.len() + keys.watches.len();
    let mut call = Cmd::with_capacity(parts, 64 + COMMAND_BYTES * batch.len());
    call.arg("EVALSHA").arg(hash).arg(keys.count());
    let mut part = Vec::with_capacity(COMMAND_BYTES);
    keys.write(&mut call, &mut part);
    let plain_ttl_secs = batch.first().map_or(0, |(command, _)| command.order_ttl_secs);
    part.clear();
    part.push(u8::from(all_or_none));
    [keys.orders.len(), keys.accounts.len(), keys.merchants.len(), keys.streams.len(), keys.watches.len()]
        .into_iter()
        .for_each(|count| part.extend_from_slice(&place(count).to_le_bytes()));
    part.extend_from_slice(&time_of(time, batch).to_le_bytes());
    call.arg(part.as_slice()).arg(plain_ttl_secs);
    for ((command, notes), own) in batch.iter().zip(&keys.places) {
        part.clear();
        packed::command(&mut part, command, keys.places_of(own), plain_ttl_secs);
        call.arg(part.as_slice());
        part.clear();
        context::encode(&mut part, command, notes);
        call.arg(part.as_slice());
    }
    for watch in &keys.watches {
        part.clear();
        packed::watch(&mut part, watch);
        call.arg(part.as_slice());
    }
    call
}

/// The time that the script is to take for Redis' own: [`OWN_TIME`] except in tests.
fn time_of(time: &StoreTime, batch: &[Noted<'_>]) -> f64 {
    match time {
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
    streams: Distinct<u16>,
    /// By what usage is told of, behind the commands.
    watches: Distinct<&'a Watch>,
    /// For each command, counted from 1 within its kind; see [`Keys::places_of`].
    places: Vec<Places>,
    /// Whether a hold may be made or ended.
    expiries: bool,
}

/// Things in the order of their first appearance.
type Distinct<T> = Vec<T>;

impl<'a> Keys<'a> {
    fn of(shards: u16, batch: &[Noted<'a>]) -> Self {
        let mut known = Known::with_capacity(batch.len());
        let mut keys = Self {
            orders: Vec::with_capacity(batch.len()),
            accounts: Vec::with_capacity(batch.len()),
            merchants: Vec::with_capacity(batch.len()),
            streams: Vec::with_capacity(batch.len().min(usize::from(shards))),
            watches: Vec::new(),
            places: Vec::with_capacity(batch.len()),
            expiries: false,
        };
        for (command, _) in batch {
            let shard = shard_of(&command.merchant, shards);
            let merchant = command.merchant.as_str();
            let order = (merchant, command.order_no.as_ref().map_or("", quota::OrderNo::as_str));
            keys.places.push(Places {
                account: if command.action.is_of_merchant() {
                    0
                } else {
                    find(&mut known.accounts, (merchant, command.currency), &mut keys.accounts, (shard, *command))
                },
                order: find(&mut known.orders, order, &mut keys.orders, (shard, *command)),
                merchant: find(&mut known.merchants, merchant, &mut keys.merchants, (shard, *command)),
                stream: find(&mut known.streams, shard, &mut keys.streams, shard),
                watch: command
                    .watch
                    .as_deref()
                    .map_or(0, |watch| find(&mut known.watches, std::ptr::from_ref(watch), &mut keys.watches, watch)),
            });
            keys.expiries |= !matches!(command.action, Action::Consume(_));
        }
        keys
    }

    fn count(&self) -> usize {
        let streams = self.streams.len();
        let values = self.orders.len() + self.accounts.len() + self.merchants.len();
        values + streams + if self.expiries { streams } else { 0 }
    }

    /// A command's places among all keys: orders come first, then accounts, then merchants.
    fn places_of(&self, own: &Places) -> Places {
        let accounts_from = place(self.orders.len());
        let merchants_from = accounts_from.saturating_add(place(self.accounts.len()));
        Places {
            account: if own.account == 0 { 0 } else { own.account.saturating_add(accounts_from) },
            merchant: own.merchant.saturating_add(merchants_from),
            ..*own
        }
    }

    fn write(&self, call: &mut Cmd, part: &mut Vec<u8>) {
        for (shard, command) in &self.orders {
            keys::write_order(part, *shard, &command.merchant, command.order_no.as_ref());
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
        for shard in &self.streams {
            call.arg(keys::stream(*shard));
        }
        if self.expiries {
            for shard in &self.streams {
                call.arg(keys::expiry(*shard));
            }
        }
    }
}

/// Where each key stands, by what it is the key of.
struct Known<'a> {
    orders: HashMap<(&'a str, &'a str), u16>,
    accounts: HashMap<(&'a str, Currency), u16>,
    merchants: HashMap<&'a str, u16>,
    streams: HashMap<u16, u16>,
    /// Payments under one policy share its watch.
    watches: HashMap<*const Watch, u16>,
}

impl Known<'_> {
    fn with_capacity(commands: usize) -> Self {
        Self {
            orders: HashMap::with_capacity(commands),
            accounts: HashMap::with_capacity(commands),
            merchants: HashMap::with_capacity(commands),
            streams: HashMap::with_capacity(commands),
            watches: HashMap::new(),
        }
    }
}

fn find<K: Eq + Hash, T>(known: &mut HashMap<K, u16>, key: K, list: &mut Distinct<T>, item: T) -> u16 {
    match known.entry(key) {
        Entry::Occupied(found) => *found.get(),
        Entry::Vacant(free) => {
            list.push(item);
            *free.insert(place(list.len()))
        }
    }
}

/// A call has far fewer commands than a place can tell apart.
fn place(count: usize) -> u16 {
    u16::try_from(count).unwrap_or(u16::MAX)
}

/// Reads the replies to a call, one for each of its commands.
pub(super) fn replies(value: &Value, batch: &[Noted<'_>], clock: &StoreClock) -> Results {
    let Value::BulkString(bytes) = value else { return Err(corrupt("the script's reply is no string")) };
    let mut rest = bytes.as_slice();
    let mut replies = Vec::with_capacity(batch.len());
    for (command, _) in batch {
        replies.push(reply(&mut rest, command, clock)?);
    }
    if rest.is_empty() { Ok(replies) } else { Err(corrupt(format_args!("{} bytes behind the last reply", rest.len()))) }
}

/// Whether a command failed because its server is not the one to ask. Nothing of the whole call was done then: after a script's
/// first write Redis refuses none of it, so where it refused one it refused all of them.
pub(super) fn is_refused(results: &[Result<Reply, StoreError>]) -> bool {
    let is_refused = |result: &Result<Reply, StoreError>| match result {
        Err(StoreError::Unavailable(why)) => is_wrong_server(code_of(why)),
        Ok(_) | Err(_) => false,
    };
    results.iter().any(is_refused)
}

/// Takes a command's reply off the front; an error by itself where its end cannot be found.
fn reply(rest: &mut &[u8], command: &Command, clock: &StoreClock) -> Result<Result<Reply, StoreError>, StoreError> {
    let event_id = command.decision_id;
    let told = match rest.first() {
        Some(&FAILED) => {
            let why = String::from_utf8_lossy(line(rest)).into_owned();
            line(rest);
            return Ok(Err(failed(why.trim_start_matches('\0'))));
        }
        Some(&NOT_BEGUN) => {
            let (told, behind) = rest.split_at_checked(1 + TIME_LEN).ok_or_else(|| corrupt("a time ends too early"))?;
            let store_ms = told.last_chunk().map_or(0.0, |bytes| f64::from_le_bytes(*bytes));
            // The store's clock was set back, or was not known yet: the next commands have its time.
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
            packed::told_record(record, amount).map_err(corrupt)
        }
    };
    *rest = rest.strip_prefix(b"\n").ok_or_else(|| corrupt("a record does not end where its format does"))?;
    let event_seq = event_seq(line(rest))?;
    Ok(told.map(|(record, told)| Reply { record, decision_id: told.unwrap_or(event_id), event_id, event_seq }))
}

/// Takes what comes before the next line feed off the front, and the line feed.
fn line<'a>(rest: &mut &'a [u8]) -> &'a [u8] {
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
    let (line, behind) = rest.split_at_checked(end).unwrap_or((rest, &[]));
    *rest = behind.get(1..).unwrap_or_default();
    line
}

/// Why a command could not be decided: a value that is not ours, or what Redis refused to write.
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

/// Whether the script itself failed, on a value that has another format than its own. It wrote nothing then.
pub(super) fn is_of_the_script(error: &RedisError) -> bool {
    match error.code() {
        Some(SCRIPT_ERROR) => true,
        // What Redis refuses inside of a script has its own code, and the script's name behind it.
        None | Some("ERR" | "WRONGTYPE") => error.detail().is_some_and(|detail| detail.contains("user_script")),
        Some(_) => false,
    }
}

#[cfg(test)]
mod tests;
