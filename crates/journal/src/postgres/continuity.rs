//! Whether an account's changes are consecutive. Each change raises its version by one, so that a gap in the versions shows
//! that Redis has lost the account (evicted or deleted, or an older state was restored): its counters restarted, and with them
//! its limits.
//!
//! The last change of each account is cached as the events are stored; otherwise it is read from `quota_account`.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use lru::LruCache;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::Row;
use super::accounts::Key;
use crate::event::Event;

/// Accounts whose last change is cached; the one that changed longest ago is dropped, and read again.
const ACCOUNTS_MAX: usize = 100_000;
/// A gap between two changes is examined where their numbers are this far apart at most.
const GAP_NUMBERS_MAX: i64 = 100_000;

/// An account's last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Last {
    shard: i32,
    seq: i64,
    version: i64,
}

/// An account that Redis has lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostAccount {
    pub merchant_id: String,
    pub currency: String,
    pub shard: i32,
    /// The number of the event that shows it.
    pub seq: i64,
    pub expected_version: i64,
    pub found_version: i64,
}

/// The last changes.
#[derive(Debug)]
pub(super) struct Continuity(LruCache<Key, Last>);

impl Default for Continuity {
    fn default() -> Self {
        Self(LruCache::new(NonZeroUsize::new(ACCOUNTS_MAX).unwrap_or(NonZeroUsize::MIN)))
    }
}

impl Continuity {
    /// Finds the accounts of new events that do not follow, and records them. `new` names the events that were not stored
    /// before; without it all of them are new.
    pub(super) async fn check(
        &self,
        connection: &mut PgConnection,
        events: &[Event],
        new: Option<&HashSet<Uuid>>,
    ) -> Result<Vec<LostAccount>, sqlx::Error> {
        let mut known = self.read(connection, events).await?;
        let mut lost = Vec::new();
        for row in changes(events) {
            let (key, change) = of(row);
            let last = key.as_ref().and_then(|key| known.insert(key.clone(), change));
            if new.is_some_and(|new| !new.contains(&row.event_id)) {
                continue;
            }
            let Some((last, (merchant_id, currency))) = last.zip(key) else { continue };
            if !follows(last, change) && is_loss(connection, last, change).await? {
                let (expected_version, found_version) = (last.version.saturating_add(1), change.version);
                let Last { shard, seq, .. } = change;
                lost.push(LostAccount { merchant_id, currency, shard, seq, expected_version, found_version });
            }
        }
        record(connection, &lost).await?;
        Ok(lost)
    }

    /// Caches the changes of events that are committed.
    pub(super) fn note(&mut self, events: &[Event]) {
        for (key, change) in changes(events).map(of) {
            if let Some(key) = key {
                self.0.put(key, change);
            }
        }
    }

    /// The last known changes of the accounts of these events.
    async fn read(&self, connection: &mut PgConnection, events: &[Event]) -> Result<HashMap<Key, Last>, sqlx::Error> {
        let keys: HashSet<Key> = changes(events).filter_map(|row| of(row).0).collect();
        let (mut known, mut unknown) = (HashMap::with_capacity(keys.len()), Vec::new());
        for key in keys {
            match self.0.peek(&key) {
                Some(last) => drop(known.insert(key, *last)),
                None => unknown.push(key),
            }
        }
        if !unknown.is_empty() {
            let (merchants, currencies): (Vec<String>, Vec<String>) = unknown.into_iter().unzip();
            let statement = "SELECT merchant_id, currency, shard, seq, version FROM quota_account \
                JOIN UNNEST($1::text[], $2::text[]) AS wanted (merchant_id, currency) USING (merchant_id, currency)";
            let query = sqlx::query_as(statement).bind(merchants).bind(currencies);
            let rows: Vec<(String, String, i32, i64, i64)> = query.fetch_all(connection).await?;
            known.extend(
                rows.into_iter().map(|(merchant, currency, shard, seq, version)| {
                    ((merchant, currency), Last { shard, seq, version })
                }),
            );
        }
        Ok(known)
    }
}

fn changes(events: &[Event]) -> impl Iterator<Item = &Row> {
    events.iter().filter(|event| event.changes_account).map(|event| &event.row)
}

fn of(row: &Row) -> (Option<Key>, Last) {
    let key = row.currency.clone().map(|currency| (row.merchant_id.clone(), currency));
    (key, Last { shard: row.shard, seq: row.seq, version: row.account_version })
}

/// Whether a change may follow the last one. For another shard, or for numbers that Redis reused, versions prove nothing: the
/// check of the sequence covers those.
const fn follows(last: Last, change: Last) -> bool {
    change.shard != last.shard || change.seq <= last.seq || change.version == last.version.saturating_add(1)
}

/// A skipped version is a loss only where no event is missing or set aside in between: the change may be that event's.
async fn is_loss(connection: &mut PgConnection, last: Last, change: Last) -> Result<bool, sqlx::Error> {
    if change.version <= last.version {
        return Ok(true);
    }
    let between = change.seq - last.seq - 1;
    if between > GAP_NUMBERS_MAX {
        return Ok(false);
    }
    let statement = "SELECT count(DISTINCT seq) FROM usage_log WHERE shard = $1 AND seq > $2 AND seq < $3";
    let query = sqlx::query_scalar(statement).bind(change.shard).bind(last.seq).bind(change.seq);
    let present: i64 = query.fetch_one(connection).await?;
    Ok(present == between)
}

async fn record(connection: &mut PgConnection, lost: &[LostAccount]) -> Result<(), sqlx::Error> {
    for LostAccount { merchant_id, currency, shard, seq, expected_version, found_version } in lost {
        let statement = "INSERT INTO journal_anomaly \
            (shard, kind, first_seq, last_seq, merchant_id, currency, expected_version, found_version) \
            VALUES ($1, 'account_lost', $2, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING";
        let query = sqlx::query(statement).bind(shard).bind(seq).bind(merchant_id).bind(currency);
        query.bind(expected_version).bind(found_version).execute(&mut *connection).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// F8: which changes follow the last one, version 7 with the number 40 of shard 2.
    #[test]
    fn f8_a_version_that_does_not_follow() {
        let last = Last { shard: 2, seq: 40, version: 7 };
        let table = [
            ((2, 41, 8), true),
            ((2, 99, 8), true),
            ((2, 41, 1), false),
            ((2, 41, 7), false),
            ((2, 41, 9), false),
            // Reused numbers, and another shard's.
            ((2, 40, 1), true),
            ((2, 3, 1), true),
            ((1, 41, 1), true),
        ];
        for ((shard, seq, version), expected) in table {
            assert_eq!(follows(last, Last { shard, seq, version }), expected, "{shard} {seq} {version}");
        }
    }
}
