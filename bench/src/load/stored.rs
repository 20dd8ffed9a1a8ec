//! What the stores hold: bytes of an account and of an order in Redis, and accounts that exist before they are measured.

use quota::{Currency, MerchantId};
use redis::aio::MultiplexedConnection;
use serde::Serialize;
use serde_json::json;
use sluice_store::keys;

use super::merchants::{LOAD, TEMPLATE};
use super::plan::Payers;
use super::rig::{Rig, SHARDS};
use testkit::api;
use testkit::client::{Call, Protocol, send_once};
use testkit::{Failure, Result};

/// Bytes in Redis.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Memory {
    pub account_bytes: f64,
    pub order_bytes: f64,
}

/// Keys looked at for the memory figures.
const SCANNED_KEYS: u32 = 20_000;
/// Accounts written in one go.
const CHUNK: usize = 10_000;

/// What Redis spends on one account and on one order, as its own `MEMORY USAGE` counts it; `None` where no merchant of the ordinary
/// load was charged, as in most studies.
pub(super) async fn memory(rig: &mut Rig) -> Result<Option<Memory>> {
    let account_bytes = average_bytes(&mut rig.connection, &format!("sluice:*:a:{}*", LOAD.prefix)).await?;
    let order_bytes = average_bytes(&mut rig.connection, &format!("sluice:*:o:{}*", LOAD.prefix)).await?;
    Ok(account_bytes.zip(order_bytes).map(|(account_bytes, order_bytes)| Memory { account_bytes, order_bytes }))
}

async fn average_bytes(connection: &mut MultiplexedConnection, pattern: &str) -> Result<Option<f64>> {
    let (mut cursor, mut count, mut bytes) = (0_u64, 0_u64, 0_u64);
    loop {
        let mut scan = redis::cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCANNED_KEYS);
        let (next, keys): (u64, Vec<String>) = scan.query_async(connection).await?;
        let mut usage = redis::pipe();
        for key in &keys {
            usage.cmd("MEMORY").arg("USAGE").arg(key);
        }
        if !keys.is_empty() {
            let each: Vec<u64> = usage.query_async(connection).await?;
            count += each.len() as u64;
            bytes += each.iter().sum::<u64>();
        }
        cursor = next;
        if cursor == 0 || count >= u64::from(SCANNED_KEYS) {
            break;
        }
    }
    Ok((count > 0).then(|| bytes as f64 / count as f64))
}

/// Makes the first `count` merchants of the load known, in Redis and in Postgres, without charging them: copies of one that the
/// API has initialized. What is measured then is payments of merchants that exist.
pub(super) async fn preload(rig: &mut Rig, count: u32) -> Result<()> {
    if rig.preloaded >= count {
        return Ok(());
    }
    let template = Payers::name(TEMPLATE.prefix, 0);
    initialize(rig, &template).await?;
    let usd = Currency::parse("USD")?;
    let value: Option<Vec<u8>> =
        redis::cmd("GET").arg(account_key(&template, usd)?).query_async(&mut rig.connection).await?;
    let value = value.ok_or_else(|| Failure::new("the initialized account is not in Redis"))?;
    let names: Vec<String> = (rig.preloaded..count).map(|number| Payers::name(LOAD.prefix, number as usize)).collect();
    let pool = rig.postgres.pool().await?;
    for some in names.chunks(CHUNK) {
        let mut sets = redis::pipe();
        for name in some {
            sets.cmd("SET").arg(account_key(name, usd)?).arg(&value[..]).arg("NX").ignore();
        }
        sets.query_async::<()>(&mut rig.connection).await?;
        let shards = some.iter().map(|name| Ok(i32::from(shard(name)?))).collect::<Result<Vec<i32>>>()?;
        sqlx::query(
            "INSERT INTO quota_account SELECT (jsonb_populate_record(known, \
             jsonb_build_object('merchant_id', fresh.name, 'shard', fresh.shard, 'seq', 0))).* \
             FROM quota_account AS known, unnest($1::text[], $2::integer[]) AS fresh (name, shard) \
             WHERE known.merchant_id = $3 ON CONFLICT DO NOTHING",
        )
        .bind(some)
        .bind(&shards)
        .bind(&template)
        .execute(&pool)
        .await?;
    }
    // What Postgres has to write down for this is no cost of the payments that follow.
    sqlx::raw_sql("CHECKPOINT").execute(&pool).await?;
    sqlx::raw_sql("VACUUM ANALYZE quota_account").execute(&pool).await?;
    rig.preloaded = count;
    Ok(())
}

async fn initialize(rig: &Rig, merchant: &str) -> Result<()> {
    let claims = json!({"sub": "load", "role": "admin", "exp": api::EXPIRES_AT_SECS});
    let token = api::sign(api::secret(), &claims)?;
    let body = json!({"merchant_id": merchant, "currency": "USD"}).to_string();
    let call = Call::post_json(&format!("{}/quotas/initialize", api::ROOT), body);
    let call = call.header("authorization", &format!("Bearer {token}"));
    let answer = send_once(rig.server.admin_address(), Protocol::Http1, call).await?;
    // An account that is there already, as in the second study of a run, is as good.
    if answer.status != 200 && answer.status != 409 {
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        return Err(Failure::new(format!("initializing {merchant}: {} {body}", answer.status)));
    }
    rig.drained().await
}

fn shard(merchant: &str) -> Result<u16> {
    Ok(quota::shard_of(&MerchantId::parse(merchant)?, SHARDS))
}

fn account_key(merchant: &str, currency: Currency) -> Result<String> {
    Ok(keys::account(shard(merchant)?, &MerchantId::parse(merchant)?, currency))
}
