//! What a server's operations work with, for one command: the store, and the operations on it.

use std::sync::Arc;
use std::time::Duration;

use sluice_decision::decider::Decider;
use sluice_decision::operations::Operations;
use sluice_journal::HistoryStore;
use sluice_kit::database::PgPool;
use sluice_kit::health::Health;
use sluice_kit::metrics::Metrics;
use sluice_kit::shutdown::{self, Stop};
use sluice_lines::{Follower, LineKey};
use sluice_settings::{Live, Settings};
use sluice_store::{RedisStore, RedisStoreConfig, StoreError};

use super::CliError;

/// How long a person waits for Redis; payments wait much less.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same for the credit lines.
const FIRST_LINES_MAX: Duration = Duration::from_secs(5);

/// The store that the settings name.
pub(super) async fn store(settings: &Settings) -> Result<RedisStore, CliError> {
    let config = RedisStoreConfig { url: settings.redis_url(), shards: settings.shards, timeout: TIMEOUT };
    let store = RedisStore::open(&config)?;
    // Keys would be looked for in the wrong place.
    let (configured, recorded) = (settings.shards, store.recorded_shards().await?);
    if let Some(stored) = recorded.filter(|stored| *stored != configured) {
        return Err(StoreError::Shards { stored, configured }.into());
    }
    Ok(store)
}

/// The operations, and what keeps the credit lines up to date until it is dropped. The given lines are known from the start.
pub(super) async fn open(
    settings: &Settings,
    pool: &PgPool,
    lines_of: &[LineKey],
) -> Result<(Operations, Stop), CliError> {
    let metrics = Arc::new(Metrics::new());
    let live = Live::fixed(settings);
    let health = Arc::new(Health::new(Arc::clone(&metrics)));
    let (policies, _sources) = sluice_policy_source::open(settings, &live, &health).await?;
    let store = Arc::new(HistoryStore::new(Arc::new(store(settings).await?), pool.clone()));
    let (lines, follower) = Follower::open(&settings.postgres_url(), &metrics)?;
    follower.first_reading_of(lines_of, FIRST_LINES_MAX).await;
    let (stop, stopped) = shutdown::channel();
    tokio::spawn(follower.run(stopped));
    Ok((Operations::new(Decider::new(store, policies, lines, live, &metrics)), stop))
}
