//! Open holds by the time they end: one sorted set a shard, which the script keeps.

use std::ops::Range;

use quota::{Currency, MerchantId, OrderNo};
use redis::{Cmd, Value};
use tracing::warn;

use super::RedisStore;
use crate::{StoreError, keys};

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
}
