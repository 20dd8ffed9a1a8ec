//! REST and gRPC at once on one account: exactly the limit is admitted.

use std::sync::atomic::{AtomicU64, Ordering};

use proto::quota_v1::GetAccountRequest;
use serde_json::json;
use testkit::api::{Api, Caller};
use testkit::{Failure, Result};
use tokio::task::JoinSet;
use tonic::Code;

use crate::bench::{self, ask, consume, usd};
use crate::refusals::reason;

/// Half of them by REST, half by gRPC.
const CLIENTS: u64 = 64;
/// Payments of each.
const PAYMENTS: u64 = 4;
const AMOUNT: i64 = 100;
/// The limit of the merchant `race`.
const LIMIT: i64 = 5000;

async fn by_grpc(mut client: bench::Client, order_no: String) -> Result<bool> {
    match ask(&mut client, consume("race", &order_no, AMOUNT)).await {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::ResourceExhausted && reason(&status) == "DAILY_AMOUNT" => Ok(false),
        Err(status) => Err(Failure::new(format!("{status:?}"))),
    }
}

async fn by_rest(caller: Caller, order_no: String) -> Result<bool> {
    let body = json!({"merchant_id": "race", "currency": "USD", "order_no": order_no, "amount": AMOUNT});
    let answer = caller.post("/quotas/consume", &body).await?;
    match (answer.status, answer.json()["code"].as_str()) {
        (200, Some("ADMITTED")) => Ok(true),
        (429, Some("DAILY_AMOUNT")) => Ok(false),
        other => Err(Failure::new(format!("{other:?}"))),
    }
}

async fn race(api: &Api) -> Result<u64> {
    let operator = api.operator()?;
    let admitted = std::sync::Arc::new(AtomicU64::new(0));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        let (caller, admitted) = (operator.clone(), std::sync::Arc::clone(&admitted));
        let grpc = if number % 2 == 0 { Some(bench::client(api, &operator).await?) } else { None };
        clients.spawn(async move {
            for payment in 0..PAYMENTS {
                let order_no = format!("{number}-{payment}");
                let fits = match &grpc {
                    Some(client) => by_grpc(client.clone(), order_no).await?,
                    None => by_rest(caller.clone(), order_no).await?,
                };
                admitted.fetch_add(u64::from(fits), Ordering::Relaxed);
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(ended) = clients.join_next().await {
        ended??;
    }
    Ok(admitted.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_what_fits_is_admitted_over_both() -> Result<()> {
    let api = bench::start(&[])?;
    let admitted = race(&api).await?;
    assert_eq!(i64::try_from(admitted)? * AMOUNT, LIMIT);
    let mut client = bench::client(&api, &api.operator()?).await?;
    let asked = GetAccountRequest { merchant_id: "race".to_owned(), currency: usd() };
    let counters = client.get_account(asked).await?.into_inner().counters.unwrap_or_default();
    assert_eq!((counters.daily_used, counters.transactions_today), (LIMIT, LIMIT / AMOUNT));
    // Everybody's second run is a replay or the same refusal.
    assert_eq!(race(&api).await?, admitted);
    Ok(())
}
