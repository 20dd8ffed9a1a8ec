//! F2: the server at the other end of a connection is not the one to ask any more.

use std::sync::Arc;

use quota::{Action, Adjust, AmountMinor, Change, Code, Command, CounterName, Period};
use sluice_settings::Secret;
use sluice_store::{AuditContext, RedisStore, RedisStoreConfig, Store, StoreError, Verified, keys};
use testkit::failover::{address, demote, follow, kill_clients, promote};
use testkit::forward::Forwarder;
use testkit::redis::Redis;

use crate::apart::{charged, command, each};
use crate::support::SHARDS;

/// Two servers behind an address that leads to the first.
struct Pair {
    old: Redis,
    new: Redis,
    forwarder: Forwarder,
}

impl Pair {
    async fn start() -> Self {
        let (old, new, forwarder) = (Redis::start().unwrap(), Redis::start().unwrap(), Forwarder::start().unwrap());
        forwarder.lead_to(address(&old));
        follow(&new, &old).await.unwrap();
        Self { old, new, forwarder }
    }

    fn store(&self, verified: Verified) -> RedisStore {
        let url = Secret::new(format!("redis://{}/", self.forwarder.address()));
        let config = RedisStoreConfig { url, shards: SHARDS, timeout: std::time::Duration::from_secs(20) };
        RedisStore::open_shared(&config, verified).unwrap()
    }

    /// The successor takes over; connections to the old one stay.
    async fn fail_over(&self) {
        promote(&self.new, &self.old).await.unwrap();
        self.forwarder.lead_to(address(&self.new));
        demote(&self.old, &self.new).await.unwrap();
    }
}

async fn configure(server: &Redis, words: &[&str]) {
    let mut connection = server.connection().await.unwrap();
    redis::cmd(words[0]).arg(&words[1..]).exec_async(&mut connection).await.unwrap();
}

fn adjust(number: u8) -> Command {
    let change = Change::Add(AmountMinor::new(5).unwrap());
    let adjust = Adjust { counter: CounterName::Amount(Period::Day), change, expected_version: None };
    Command { order_no: None, action: Action::Adjust(adjust), ..command("m-1", number) }
}

/// Every command is answered by the successor and done once, also what may not be asked twice where an answer was lost: a server
/// that is not the primary has done nothing.
#[tokio::test]
async fn f2_commands_follow_a_demoted_primary() {
    let pair = Pair::start().await;
    let store = pair.store(Verified::default());
    assert!(each(&store, &[command("m-1", 1)]).await.iter().all(Result::is_ok));
    pair.fail_over().await;
    let results = each(&store, &[adjust(2), command("m-1", 3)]).await;
    let codes: Vec<_> = results.iter().map(|result| result.as_ref().map(|reply| reply.record.code)).collect();
    assert_eq!(codes, [Ok(Code::Applied), Ok(Code::Admitted)], "{results:?}");
    assert_eq!(charged(&store, &command("m-1", 1)).await, 1 + 5 + 3);

    // All or none of them, which the script refuses as a whole.
    let verified = Verified::default();
    let store = pair.store(verified.clone());
    store.verify().await.unwrap();
    let back = Pair { old: pair.new, new: pair.old, forwarder: pair.forwarder };
    back.fail_over().await;
    let batch = [adjust(4), command("m-1", 6)].map(|command| Arc::new((command, AuditContext::default())));
    let replies = store.apply_all(&batch).await.unwrap();
    assert_eq!(replies.iter().map(|reply| reply.record.code).collect::<Vec<_>>(), [Code::Applied, Code::Admitted]);
    assert_eq!(charged(&store, &command("m-1", 1)).await, 1 + 5 + 3 + 5 + 6);
}

/// What each server says that is not to be asked, and that the successor is asked instead.
#[tokio::test]
async fn f2_every_reply_that_means_another_server() {
    let states: [(&str, &[&[&str]], &[&[&str]]); 3] = [
        ("READONLY", &[&["REPLICAOF", "127.0.0.1", "1"]], &[&["REPLICAOF", "NO", "ONE"]]),
        (
            "MASTERDOWN",
            &[&["CONFIG", "SET", "replica-serve-stale-data", "no"], &["REPLICAOF", "127.0.0.1", "1"]],
            &[&["REPLICAOF", "NO", "ONE"], &["CONFIG", "SET", "replica-serve-stale-data", "yes"]],
        ),
        (
            "NOREPLICAS",
            &[&["CONFIG", "SET", "min-replicas-to-write", "5"]],
            &[&["CONFIG", "SET", "min-replicas-to-write", "0"]],
        ),
    ];
    let pair = Pair::start().await;
    configure(&pair.new, &["REPLICAOF", "NO", "ONE"]).await;
    for (number, (name, into, out_of)) in (1..).zip(states) {
        pair.forwarder.lead_to(address(&pair.old));
        let store = pair.store(Verified::default());
        store.verify().await.unwrap();
        for words in into {
            configure(&pair.old, words).await;
        }
        // No other server yet: nothing is done, and the answer states that the store is unavailable.
        let result = store.apply(&command("m-1", number), &AuditContext::default()).await;
        assert!(
            matches!(&result, Err(StoreError::Unavailable(why)) if why.to_uppercase().contains(name)),
            "{name}: {result:?}"
        );
        pair.forwarder.lead_to(address(&pair.new));
        let answered = async || Ok(store.apply(&command("m-1", number), &AuditContext::default()).await.ok());
        let reply = testkit::wait::until_async(name, std::time::Duration::from_secs(2), answered).await.unwrap();
        assert_eq!((reply.record.code, reply.record.replay), (Code::Admitted, false), "{name}");
        for words in out_of {
            configure(&pair.old, words).await;
        }
    }
    assert_eq!(charged(&pair.store(Verified::default()), &command("m-1", 1)).await, 1 + 2 + 3);
}

/// Reads are answered by a demoted server too, with what it had: the store that notices moves all that share what is known.
#[tokio::test]
async fn f2_who_only_reads_follows_too() {
    let pair = Pair::start().await;
    let verified = Verified::default();
    let (reads, probes) = (pair.store(verified.clone()), pair.store(verified));
    let first = command("m-1", 1);
    assert!(each(&probes, std::slice::from_ref(&first)).await.iter().all(Result::is_ok));
    assert_eq!(charged(&reads, &first).await, 1);
    pair.fail_over().await;
    // The old one does not follow its successor: what it has is out of date.
    configure(&pair.old, &["REPLICAOF", "127.0.0.1", "1"]).await;
    probes.verify().await.unwrap();
    assert!(each(&probes, &[command("m-1", 2)]).await.iter().all(Result::is_ok));
    assert_eq!(charged(&reads, &first).await, 1 + 2);
}

/// As Sentinel does it: the old primary is a replica by the time that its clients' connections are closed, and the address leads to
/// it a little longer.
#[tokio::test]
async fn f2_clients_killed_by_sentinel_find_the_successor() {
    let pair = Pair::start().await;
    let store = pair.store(Verified::default());
    assert!(each(&store, &[command("m-1", 1)]).await.iter().all(Result::is_ok));
    promote(&pair.new, &pair.old).await.unwrap();
    demote(&pair.old, &pair.new).await.unwrap();
    kill_clients(&pair.old).await.unwrap();
    let refused = store.apply(&command("m-1", 2), &AuditContext::default()).await;
    assert!(matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("READONLY")), "{refused:?}");
    pair.forwarder.lead_to(address(&pair.new));
    let answered = async || Ok(store.apply(&command("m-1", 2), &AuditContext::default()).await.ok());
    let reply = testkit::wait::until_async("an answer", std::time::Duration::from_secs(2), answered).await.unwrap();
    assert_eq!((reply.record.code, reply.record.replay), (Code::Admitted, false));
    kill_clients(&pair.new).await.unwrap();
    // A lost connection costs a read nothing.
    assert_eq!(charged(&store, &command("m-1", 1)).await, 1 + 2);
}

/// A server that is gone without a word: its connection has only silence, and is replaced.
#[tokio::test]
async fn f2_a_silent_connection_is_replaced() {
    let pair = Pair::start().await;
    let url = Secret::new(format!("redis://{}/", pair.forwarder.address()));
    let timeout = std::time::Duration::from_millis(300);
    let store = RedisStore::open(&RedisStoreConfig { url, shards: SHARDS, timeout }).unwrap();
    let first = command("m-1", 1);
    crate::support::until_answered(&store, &first).await;
    configure(&pair.new, &["REPLICAOF", "NO", "ONE"]).await;
    let mut pair = pair;
    testkit::Service::pause(&mut pair.old).unwrap();
    pair.forwarder.lead_to(address(&pair.new));
    crate::support::until_answered(&store, &command("m-1", 2)).await;
    let held: u64 = {
        let mut connection = pair.new.connection().await.unwrap();
        redis::cmd("EXISTS").arg(keys::SHARDS).query_async(&mut connection).await.unwrap()
    };
    assert_eq!(held, 1);
}
