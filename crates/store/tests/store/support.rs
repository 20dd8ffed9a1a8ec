//! Stores of the suite, and what it reads beside them.

use std::time::Duration;

use quota::Command;
use sluice_settings::Secret;
use sluice_store::{AuditContext, RedisStore, RedisStoreConfig, SCRIPT, Store, StoreTime};

pub(crate) const SHARDS: u16 = 4;

/// `url` ends with a slash; a database's number follows it.
fn client(url: &str, database: usize) -> redis::Client {
    redis::Client::open(format!("{url}{database}")).unwrap()
}

fn config(url: String, shards: u16, timeout_ms: u64) -> RedisStoreConfig {
    RedisStoreConfig { url: Secret::new(url), shards, timeout: Duration::from_millis(timeout_ms) }
}

pub(crate) fn open_with(url: &str, shards: u16, timeout_ms: u64) -> RedisStore {
    RedisStore::open(&config(url.to_owned(), shards, timeout_ms)).unwrap().with_time(StoreTime::OfCommands)
}

/// A store whose time is that of the commands.
pub(crate) fn open_with_script(url: &str, database: usize, script: &str) -> RedisStore {
    let store = RedisStore::open_with_script(&config(format!("{url}{database}"), SHARDS, 30_000), script).unwrap();
    store.with_time(StoreTime::OfCommands)
}

pub(crate) fn open(url: &str, database: usize) -> RedisStore {
    open_with_script(url, database, SCRIPT)
}

pub(crate) async fn connect(url: &str, database: usize) -> redis::aio::MultiplexedConnection {
    // Reading a whole stream takes its time in a debug build.
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
    client(url, database).get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

pub(crate) async fn flush(url: &str, database: usize) {
    redis::cmd("FLUSHDB").exec_async(&mut connect(url, database).await).await.unwrap();
}

/// Waits until the store answers again.
pub(crate) async fn until_answered(store: &RedisStore, command: &Command) {
    let answered = async || Ok(store.apply(command, &AuditContext::default()).await.ok());
    testkit::wait::until_async("an answer", Duration::from_secs(20), answered).await.unwrap();
}
