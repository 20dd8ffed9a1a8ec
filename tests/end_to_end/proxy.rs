//! Envoy itself is killed, or works with several threads; and the checks of this suite notice what they are there for.

use std::collections::BTreeSet;
use std::time::Duration;

use testkit::books::{books_agree, settles_at};
use testkit::client::{Payment, Protocol, send_once};
use testkit::envoy::Host;
use testkit::stack::{Stack, StackOptions};
use testkit::{Result, Service, wait};

use crate::suite::{Suite, patient};
use crate::traffic::{PATIENT, Traffic, roomy};

pub(crate) fn add(suite: &mut Suite) {
    suite.owned("proxy::is_killed_with_a_payment_at_the_gateway", patient(), is_killed);
    let workers = StackOptions { workers: 3, ..roomy(patient()) };
    suite.owned("proxy::attempts_of_all_workers_differ", workers, attempts_differ);
    suite.owned("proxy::books_that_do_not_agree_are_noticed", patient(), wrong_books_are_noticed);
}

/// The charge of a payment whose proxy died stays, since it is unknown whether it was made; the client's retry is the
/// same payment and counts once.
async fn is_killed(stack: &mut Stack) -> Result<()> {
    let slow = Payment::new("killed", "killed-1", 6_000).gateway("slow-20000");
    let sending = tokio::spawn(send_once(stack.envoy.address(), Protocol::Http1, slow.call()));
    wait::until_async("the payment at the gateway", Duration::from_secs(5), || async {
        Ok((!stack.gateway.seen_order("killed-1").is_empty()).then_some(()))
    })
    .await?;
    stack.envoy.kill()?;
    ensure!(sending.await?.is_err(), "the client got an answer");
    stack.envoy.restart()?;
    settles_at(stack, "killed", (6_000, 1)).await?;
    let answer = stack.send(Protocol::Http2, Payment::new("killed", "killed-1", 6_000).call()).await?;
    ensure_eq!(answer.status, 200, "{}", answer.json());
    settles_at(stack, "killed", (6_000, 1)).await?;
    books_agree(stack, "killed").await.map(drop)
}

async fn attempts_differ(stack: &mut Stack) -> Result<()> {
    let traffic = Traffic::start(stack).await?;
    traffic.answers(1_000).await?;
    traffic.judge(stack, PATIENT).await?;
    let pool = stack.postgres.pool().await?;
    let query = "SELECT attempt::text FROM usage_log WHERE action_type = 'consume'";
    let attempts: Vec<String> = sqlx::query_scalar(query).fetch_all(&pool).await?;
    pool.close().await;
    let distinct: BTreeSet<&String> = attempts.iter().collect();
    ensure_eq!(distinct.len(), attempts.len());
    let workers: BTreeSet<&str> = attempts.iter().filter_map(|attempt| attempt.get(..16)).collect();
    // The native host numbers the attempts of all workers together.
    let expected = if stack.envoy.host() == Host::Native { 1 } else { 2 };
    ensure!(workers.len() >= expected, "only one worker took connections");
    Ok(())
}

/// A lost row, a changed counter and a row that came twice each show in the comparison that all scenarios end with.
async fn wrong_books_are_noticed(stack: &mut Stack) -> Result<()> {
    for number in 1..=3 {
        let answer =
            stack.send(Protocol::Http1, Payment::new("books", &format!("books-{number}"), 1_000).call()).await?;
        ensure_eq!(answer.status, 200);
    }
    books_agree(stack, "books").await?;
    let pool = stack.postgres.pool().await?;
    for change in [
        "UPDATE usage_log SET daily_used_after = daily_used_after + 1 WHERE order_no = 'books-2'",
        "UPDATE usage_log SET daily_used_after = daily_used_after - 1 WHERE order_no = 'books-2'",
        "UPDATE usage_log SET monthly_count_after = 4 WHERE order_no = 'books-3'",
        "UPDATE usage_log SET monthly_count_after = 3 WHERE order_no = 'books-3'",
        "UPDATE usage_log SET seq = seq + 1 WHERE order_no = 'books-3'",
        "UPDATE usage_log SET seq = seq - 1 WHERE order_no = 'books-3'",
        "DELETE FROM usage_log WHERE order_no = 'books-1'",
    ]
    .chunks(2)
    {
        let [wrong, right @ ..] = change else { continue };
        ensure_eq!(sqlx::query(*wrong).execute(&pool).await?.rows_affected(), 1);
        ensure!(books_agree(stack, "books").await.is_err(), "not noticed: {wrong}");
        if let [right] = right {
            sqlx::query(*right).execute(&pool).await?;
            books_agree(stack, "books").await?;
        }
    }
    pool.close().await;
    Ok(())
}
