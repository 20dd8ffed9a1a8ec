//! The key layout in Redis.
//!
//! A merchant belongs to one shard, and all keys of a shard share the hash tag `{NN}`: one script call may touch an
//! account, an order and the shard's event stream, and Redis Cluster, which places keys by their tag, still spreads shards.

use quota::{Currency, MerchantId, OrderNo};

/// Holds the number of shards, which a deployment never changes.
pub const SHARDS: &str = "sluice:shards";
/// The consumer group that carries events to Postgres.
pub const JOURNAL_GROUP: &str = "journal";

/// The account of (merchant, currency). A merchant id has no `:`, so no two accounts share a key.
#[must_use]
pub fn account(shard: u16, merchant: &MerchantId, currency: Currency) -> String {
    format!("sluice:{{{shard:02}}}:a:{merchant}:{currency}")
}

/// The order of (merchant, order number). A command about no order has the key that no order has.
#[must_use]
pub fn order(shard: u16, merchant: &MerchantId, order_no: Option<&OrderNo>) -> String {
    let order_no = order_no.map_or("", OrderNo::as_str);
    format!("sluice:{{{shard:02}}}:o:{merchant}:{order_no}")
}

/// The events of a shard that wait for the journal.
#[must_use]
pub fn stream(shard: u16) -> String {
    format!("sluice:{{{shard:02}}}:ev")
}

/// When the open holds of a shard end: a sorted set of `<merchant>:<currency>:<order_no>` by seconds since the epoch.
#[must_use]
pub fn expiry(shard: u16) -> String {
    format!("sluice:{{{shard:02}}}:x")
}
