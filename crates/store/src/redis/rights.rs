//! Rights by the time they end: one sorted set a shard, which the script keeps.

use std::ops::Range;

use quota::{Currency, MerchantId, Right, RightId};
use redis::Cmd;
use tracing::warn;

use super::RedisStore;
use crate::{StoreError, keys, packed};

/// A right that has not ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutstandingRight {
    pub merchant: MerchantId,
    pub currency: Currency,
    pub id: RightId,
    pub right: Right,
}

/// Some of a shard's rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutstandingRights {
    pub rights: Vec<OutstandingRight>,
    /// Members of the set that were read, including those that are no rights: fewer than requested are the last ones.
    pub members: usize,
}

/// What a member of the sorted set names, `:<merchant>:<currency>:<right>`.
fn named(member: &str) -> Option<(MerchantId, Currency, RightId)> {
    let mut parts = member.strip_prefix(':')?.splitn(3, ':');
    let merchant = MerchantId::parse(parts.next()?).ok()?;
    let currency = Currency::parse(parts.next()?).ok()?;
    let id = u128::from_str_radix(parts.next()?, 16).ok()?;
    Some((merchant, currency, RightId(id.to_be_bytes())))
}

impl RedisStore {
    /// Rights of a shard, those that end first coming first: the ones in `range`. What is listed and is no right, or cannot be read, is
    /// skipped.
    ///
    /// # Errors
    /// [`StoreError`] where Redis gives no answer.
    pub async fn rights(&self, shard: u16, range: Range<usize>) -> Result<OutstandingRights, StoreError> {
        let [from, last] = [range.start, range.end].map(|place| isize::try_from(place).unwrap_or(isize::MAX));
        let listed: Vec<Vec<u8>> = self.query(&Cmd::zrange(keys::rights(shard), from, last.saturating_sub(1))).await?;
        let names: Vec<_> = listed.iter().filter_map(|member| named(str::from_utf8(member).ok()?)).collect();
        let names: Vec<_> = names.into_iter().filter(|(merchant, ..)| self.shard(merchant) == shard).collect();
        if names.len() < listed.len() {
            warn!(shard, members = listed.len() - names.len(), "the set of rights has members that are not rights");
        }
        let key = |(merchant, currency, right): &(MerchantId, Currency, RightId)| {
            let mut key = Vec::new();
            keys::write_right(&mut key, shard, merchant, *currency, *right);
            key
        };
        let values: Vec<Option<Vec<u8>>> = if names.is_empty() {
            Vec::new()
        } else {
            self.query(&Cmd::mget(names.iter().map(key).collect::<Vec<_>>())).await?
        };
        let rights = names.into_iter().zip(values).filter_map(|(name, value)| Some((name, value?)));
        let read = |((merchant, currency, id), value): ((MerchantId, Currency, RightId), Vec<u8>)| {
            let right = packed::right(&value);
            let right = right.inspect_err(|error| warn!(%merchant, %currency, %error, "a right cannot be read"));
            Some(OutstandingRight { merchant, currency, id, right: right.ok()? })
        };
        Ok(OutstandingRights { rights: rights.filter_map(read).collect(), members: listed.len() })
    }
}
