//! A Redis that another server has numbered otherwise: no thread decides on it.

use std::time::Duration;

use proto::extension::ACTION_CONSUME;
use serde_json::json;
use sluice_store::keys;
use testkit::api::{Api, expect};
use testkit::{Result, wait};
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::checks::{check, codes, connect};

const POLICIES: &str = "version: shards\ndefault: {timezone: UTC, single_max: 1000000}\n";
/// So many that each of two threads has some of them.
const CONNECTIONS: usize = 24;
const SERVICES: [&str; 3] = ["", "envoy.service.auth.v3.Authorization", "sluice.authz.v1.BatchAuthorization"];
/// The server asks Redis once a second.
const SAID_WITHIN: Duration = Duration::from_secs(10);

/// Waits until the server as a whole, and each service by its name, have this status.
async fn health_is(channel: &Channel, expected: ServingStatus) -> Result<()> {
    for service in SERVICES {
        wait::until_async(&format!("health of {service:?} being {expected:?}"), SAID_WITHIN, || async {
            let request = HealthCheckRequest { service: service.to_owned() };
            let answer = HealthClient::new(channel.clone()).check(request).await?.into_inner();
            Ok((answer.status() == expected).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Every connection charges an order of its own.
async fn all_receive(channels: &[Channel], round: &str, code: &str) -> Result<()> {
    for (number, channel) in channels.iter().enumerate() {
        let charge = check(ACTION_CONSUME, &format!("{round}-{number}"));
        assert_eq!(codes(channel, vec![charge]).await?, [code], "{round}, connection {number}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_thread_decides_on_another_number_of_shards() -> Result<()> {
    let api = Api::start(POLICIES, &[("SLUICE_GRPC_THREADS", "2"), ("SLUICE_SHARDS", "64")])?;
    let address = format!("http://{}", api.server.grpc_address());
    let mut channels = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        channels.push(connect(&address).await?);
    }
    let health = connect(&address).await?;
    health_is(&health, ServingStatus::Serving).await?;
    all_receive(&channels, "before", "ADMITTED").await?;
    let caller = api.operator()?;
    let charge = |order_no: &str| json!({"merchant_id": "m", "order_no": order_no, "amount": 100, "currency": "USD"});
    expect(&caller.post("/quotas/consume", &charge("api-before")).await?, 200, &json!({"code": "ADMITTED"}));

    let mut redis = api.redis.connection().await?;
    let mut emptied = redis::pipe();
    emptied.atomic().cmd("FLUSHALL").ignore().cmd("SET").arg(keys::SHARDS).arg(32).ignore();
    let () = emptied.query_async(&mut redis).await?;
    health_is(&health, ServingStatus::NotServing).await?;
    all_receive(&channels, "meanwhile", "STORE_UNAVAILABLE").await?;
    let refused = caller.post("/quotas/consume", &charge("api-meanwhile")).await?;
    expect(&refused, 503, &json!({"code": "STORE_UNAVAILABLE"}));
    let found: Vec<String> = redis::cmd("KEYS").arg("sluice:{*").query_async(&mut redis).await?;
    assert_eq!(found, Vec::<String>::new());

    let () = redis::cmd("SET").arg(keys::SHARDS).arg(64).query_async(&mut redis).await?;
    health_is(&health, ServingStatus::Serving).await?;
    all_receive(&channels, "after", "ADMITTED").await?;
    expect(&caller.post("/quotas/consume", &charge("api-after")).await?, 200, &json!({"code": "ADMITTED"}));
    Ok(())
}
