//! Orders that Redis has forgotten and Postgres has, asked for together with others.

use std::time::Duration;

use proto::batch::{ALONE, BatchCheckResult};
use proto::extension::{ACTION_CONSUME, ACTION_HOLD, ACTION_SETTLE, ACTION_VOID_ORDER};
use quota::{MerchantId, OrderNo, shard_of};
use redis::aio::MultiplexedConnection;
use serde_json::json;
use sluice_store::keys;
use testkit::api::{Api, expect};
use testkit::{Failure, Result, wait};

use crate::checks::{ask_alone, ask_together, check, codes, connect};

const POLICIES: &str = "version: recall\ndefault: {timezone: UTC, single_max: 1000000}\n";
const SHARDS: u16 = 64;
const STORED_WITHIN: Duration = Duration::from_secs(20);

fn key(order_no: &str) -> Result<String> {
    let merchant = MerchantId::parse("m")?;
    Ok(keys::order(shard_of(&merchant, SHARDS), &merchant, Some(&OrderNo::parse(order_no)?)))
}

async fn wait_until_stored(redis: &MultiplexedConnection) -> Result<()> {
    wait::until_async("an empty stream", STORED_WITHIN, || {
        let mut redis = redis.clone();
        async move {
            let stream = keys::stream(shard_of(&MerchantId::parse("m")?, SHARDS));
            let waiting: u64 = redis::cmd("XLEN").arg(stream).query_async(&mut redis).await?;
            Ok((waiting == 0).then_some(()))
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forgotten_order_is_answered_alone_and_decided_by_a_check_of_its_own() -> Result<()> {
    let api = Api::start(POLICIES, &[("SLUICE_SHARDS", &SHARDS.to_string())])?;
    let channel = connect(&format!("http://{}", api.server.grpc_address())).await?;
    let mut redis = api.redis.connection().await?;
    let orders = ["voided", "captured", "known"];
    let holds = orders.map(|order_no| check(ACTION_HOLD, order_no)).to_vec();
    assert_eq!(codes(&channel, holds).await?, ["ADMITTED"; 3]);
    wait_until_stored(&redis).await?;
    let forgotten = [key("voided")?, key("captured")?];
    let gone: usize = redis::cmd("DEL").arg(&forgotten).query_async(&mut redis).await?;
    assert_eq!(gone, 2);

    let (void, capture) = (check(ACTION_VOID_ORDER, "voided"), check(ACTION_SETTLE, "captured"));
    let mixed = vec![void.clone(), check(ACTION_CONSUME, "new"), capture.clone(), check(ACTION_SETTLE, "known")];
    let results = ask_together(&channel, mixed).await?;
    let alone = BatchCheckResult { grpc_status: ALONE, response: None };
    let are_alone: Vec<bool> = results.iter().map(|result| *result == alone).collect();
    assert_eq!(are_alone, [true, false, true, false], "{results:?}");
    let known: usize = redis::cmd("EXISTS").arg(&forgotten).query_async(&mut redis).await?;
    assert_eq!(known, 0, "a check that is to be asked alone was decided");
    let caller = api.operator()?;
    let account = async |used: u64, pending: u64| {
        let answer = caller.get("/quotas/merchant/m").await?;
        expect(&answer, 200, &json!({"accounts": [{"yearly_used": used, "pending_amount": pending}]}));
        Ok::<_, Failure>(())
    };
    account(400, 200).await?;

    wait_until_stored(&redis).await?;
    assert_eq!(ask_alone(&channel, &void).await?, "VOIDED");
    wait_until_stored(&redis).await?;
    assert_eq!(ask_alone(&channel, &capture).await?, "APPLIED");
    // Redis has lost what it should still have known, so that nothing returns into the windows.
    account(400, 0).await?;
    Ok(())
}
