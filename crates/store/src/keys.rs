//! The key layout in Redis.
//!
//! A merchant belongs to one shard, and all keys of a shard share the hash tag `{NN}`: one script call may touch an
//! account, an order and the shard's event stream, and Redis Cluster, which places keys by their tag, still spreads shards.

use std::io::Write;

use quota::{Command, Currency, MerchantId, OrderNo, PostingKind, RightId};

/// Holds the number of shards, which never changes in a deployment.
pub const SHARDS: &str = "sluice:shards";
/// The lease of the one journal that reads the event streams: its name, until it expires.
pub const JOURNAL_LEASE: &str = "sluice:journal";

/// The account of (merchant, currency). A merchant id has no `:`, so no two accounts share a key.
#[must_use]
pub fn account(shard: u16, merchant: &MerchantId, currency: Currency) -> String {
    written(|out| write_account(out, shard, merchant, currency))
}

/// Writes the key of [`account`] in place of what `out` held.
pub fn write_account(out: &mut Vec<u8>, shard: u16, merchant: &MerchantId, currency: Currency) {
    write_parts(out, shard, [b":a:", merchant.as_str().as_bytes(), b":", currency.code().as_bytes()]);
}

/// The merchant as a whole, once it was suspended: applies to all its accounts, also to later ones.
#[must_use]
pub fn merchant(shard: u16, merchant: &MerchantId) -> String {
    written(|out| write_merchant(out, shard, merchant))
}

/// Writes the key of [`merchant`] in place of what `out` held.
pub fn write_merchant(out: &mut Vec<u8>, shard: u16, merchant: &MerchantId) {
    write_parts(out, shard, [b":m:", merchant.as_str().as_bytes(), b"", b""]);
}

/// The order of (merchant, order number). A command without an order uses a key that no order has.
#[must_use]
pub fn order(shard: u16, merchant: &MerchantId, order_no: Option<&OrderNo>) -> String {
    written(|out| write_order(out, shard, merchant, order_no))
}

/// Writes the key of [`order`] in place of what `out` held.
pub fn write_order(out: &mut Vec<u8>, shard: u16, merchant: &MerchantId, order_no: Option<&OrderNo>) {
    let order_no = order_no.map_or("", OrderNo::as_str);
    write_parts(out, shard, [b":o:", merchant.as_str().as_bytes(), b":", order_no.as_bytes()]);
}

/// Writes the key of a posting to a credit line in place of what `out` held. Numbers are apart for each kind, and from those of
/// orders.
pub fn write_posting(out: &mut Vec<u8>, shard: u16, merchant: &MerchantId, kind: PostingKind, number: &OrderNo) {
    let kind = format!(":p{}:", kind.number());
    write_parts(out, shard, [kind.as_bytes(), merchant.as_str().as_bytes(), b":", number.as_str().as_bytes()]);
}

/// Writes the key of what a command's number names: an order, or a posting.
pub(crate) fn write_numbered(out: &mut Vec<u8>, shard: u16, command: &Command) {
    match (command.action.posting(), &command.order_no) {
        (Some(kind), Some(number)) => write_posting(out, shard, &command.merchant, kind, number),
        (_, number) => write_order(out, shard, &command.merchant, number.as_ref()),
    }
}

/// Writes the key of a right of an account in place of what `out` held.
pub fn write_right(out: &mut Vec<u8>, shard: u16, merchant: &MerchantId, currency: Currency, right: RightId) {
    write_parts(out, shard, [b":r:", merchant.as_str().as_bytes(), b":", currency.code().as_bytes()]);
    // Writing into memory cannot fail.
    let _ = write!(out, ":{:032x}", u128::from_be_bytes(right.0));
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

/// When the rights of a shard end: a sorted set of `:<merchant>:<currency>:<right>`, as the key of each has it, by milliseconds since
/// the epoch.
#[must_use]
pub fn rights(shard: u16) -> String {
    format!("sluice:{{{shard:02}}}:rx")
}

fn write_parts(out: &mut Vec<u8>, shard: u16, parts: [&[u8]; 4]) {
    out.clear();
    // Writing into memory cannot fail.
    let _ = write!(out, "sluice:{{{shard:02}}}");
    parts.into_iter().for_each(|part| out.extend_from_slice(part));
}

/// Keys are visible ASCII, as the ids that they are made of.
fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut key = Vec::with_capacity(96);
    write(&mut key);
    String::from_utf8(key).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_share_their_shards_tag() {
        let merchant = MerchantId::parse("m-1").unwrap();
        let order_no = OrderNo::parse("a:b").unwrap();
        let currency = Currency::parse("USD").unwrap();
        assert_eq!(account(7, &merchant, currency), "sluice:{07}:a:m-1:USD");
        assert_eq!(super::merchant(7, &merchant), "sluice:{07}:m:m-1");
        assert_eq!(order(63, &merchant, Some(&order_no)), "sluice:{63}:o:m-1:a:b");
        assert_eq!(order(1_024, &merchant, None), "sluice:{1024}:o:m-1:");
        for (kind, key) in PostingKind::ALL.into_iter().zip(["p1", "p2", "p3", "p4", "p5", "p6", "p7"]) {
            let written = written(|out| write_posting(out, 7, &merchant, kind, &order_no));
            assert_eq!(written, format!("sluice:{{07}}:{key}:m-1:a:b"));
        }
        let right = written(|out| write_right(out, 7, &merchant, currency, RightId([0xab; 16])));
        assert_eq!(right, format!("sluice:{{07}}:r:m-1:USD:{}", "ab".repeat(16)));
        assert_eq!([stream(0), expiry(10), rights(3)], ["sluice:{00}:ev", "sluice:{10}:x", "sluice:{03}:rx"]);
    }
}
