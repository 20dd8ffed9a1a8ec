//! Rights whose time is moved: tests do not wait for it.

use std::ops::Range;

use quota::{Currency, MerchantId, ReleaseRight, RightId, shard_of};
use sluice_store::keys;

use crate::books::SHARDS;
use crate::failure::{Failure, Result};
use crate::redis::Redis;

/// Where a stored right has its end, as a double.
const END: Range<usize> = 57..65;
/// More than a command's time may lag behind the store's.
const LAG_MS: f64 = 120_000.0;

/// Moves the end of a right in USD into the past, so that no payment of it can be reported any more.
///
/// # Errors
/// When there is no such right, or Redis does not answer.
pub async fn ended_long_ago(redis: &Redis, merchant: &str, right_id: &str) -> Result<()> {
    let id = u128::from_str_radix(&right_id.replace('-', ""), 16)?;
    let (merchant, right) = (MerchantId::parse(merchant)?, RightId(id.to_be_bytes()));
    let mut key = Vec::new();
    keys::write_right(&mut key, shard_of(&merchant, SHARDS), &merchant, Currency::parse("USD")?, right);
    let mut connection = redis.connection().await?;
    let mut value: Vec<u8> = ::redis::cmd("GET").arg(&key).query_async(&mut connection).await?;
    let end = value.get_mut(END).ok_or_else(|| Failure::new("there is no such right"))?;
    let until_ms = f64::from_le_bytes(<[u8; 8]>::try_from(&*end)?) - ReleaseRight::REPORTED_WITHIN_MS as f64 - LAG_MS;
    end.copy_from_slice(&until_ms.to_le_bytes());
    ::redis::cmd("SET").arg(&key).arg(value).exec_async(&mut connection).await?;
    Ok(())
}
