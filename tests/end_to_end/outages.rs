//! Redis, Postgres and the server are killed, hang and come back under payments: each payment is answered in its time, no order
//! is counted twice or lost, and the journal has every event once.

use std::time::Duration;

use e2e::client::{Payment, Protocol};
use e2e::server::ReadyWhen;
use e2e::stack::Stack;
use e2e::{Result, Service, wait};

use crate::books::{books_agree, journal_is_whole, settles_at};
use crate::server::pay_until_admitted;
use crate::suite::Suite;
use crate::traffic::{Traffic, roomy};

/// The server asks its dependencies once a second.
const SAID_WITHIN: Duration = Duration::from_secs(15);

pub(crate) fn add(suite: &mut Suite) {
    suite.owned("outages::redis_is_killed_and_comes_back", roomy(), redis_is_killed);
    suite.owned("outages::redis_hangs_and_goes_on", roomy(), redis_hangs);
    suite.owned("outages::postgres_is_killed_and_comes_back", roomy(), postgres_is_killed);
    suite.owned("outages::postgres_hangs_and_goes_on", roomy(), postgres_hangs);
    suite.owned("outages::the_server_is_killed_again_and_again", roomy(), the_server_is_killed);
    suite.owned("outages::the_server_hangs_again_and_again", roomy(), the_server_hangs);
    suite.owned("outages::the_server_is_stopped", roomy(), the_server_is_stopped);
    suite.owned("outages::the_server_starts_alone", roomy(), the_server_starts_alone);
}

/// Waits until `/ready` says of a dependency that it is there, or that it is not.
fn ready_says(stack: &Stack, dependency: &str, up: bool) -> Result<()> {
    wait::until(&format!("/ready saying that {dependency} is up: {up}"), SAID_WITHIN, || {
        let (status, body) = stack.server.get("/ready")?;
        let body: serde_json::Value = serde_json::from_str(&body)?;
        let said = body["dependencies"][dependency]["up"] == up;
        ensure!(!said || up || status == 503, "/ready answers {status} without {dependency}");
        let decides = body["dependencies"]["redis"]["up"] == true;
        ensure_eq!(body["payments"], if decides { "decided" } else { "not decided" }, "{body}");
        Ok(said.then_some(()))
    })
}

/// A killed Redis loses nothing that it has acknowledged where it writes before it answers.
async fn redis_is_killed(stack: &mut Stack) -> Result<()> {
    let traffic = Traffic::start(stack).await?;
    for _ in 0..2 {
        let mut connection = stack.redis.connection().await?;
        let mut written_first = redis::cmd("CONFIG");
        written_first.arg(&["SET", "appendfsync", "always"]);
        written_first.query_async::<()>(&mut connection).await?;
        traffic.answers(150).await?;
        stack.redis.kill()?;
        traffic.refusals(20).await?;
        ready_says(stack, "redis", false)?;
        stack.redis.restart()?;
        ready_says(stack, "redis", true)?;
    }
    traffic.answers(150).await?;
    let refused = traffic.judge(stack).await?;
    ensure!(refused >= 40, "only {refused} payments were refused");
    Ok(())
}

/// A Redis that hangs does with its commands what it likes, later: what it charges then is returned.
async fn redis_hangs(stack: &mut Stack) -> Result<()> {
    let traffic = Traffic::start(stack).await?;
    for _ in 0..2 {
        traffic.answers(150).await?;
        stack.redis.pause()?;
        traffic.refusals(20).await?;
        ready_says(stack, "redis", false)?;
        stack.redis.resume()?;
        ready_says(stack, "redis", true)?;
    }
    traffic.answers(150).await?;
    traffic.judge(stack).await.map(drop)
}

/// Payments need no Postgres: none is refused while it is away, and nothing is missing afterwards.
async fn postgres_is_killed(stack: &mut Stack) -> Result<()> {
    let traffic = Traffic::start(stack).await?;
    for _ in 0..2 {
        traffic.answers(200).await?;
        stack.postgres.kill()?;
        ready_says(stack, "postgres", false)?;
        traffic.answers(400).await?;
        stack.postgres.restart()?;
        traffic.answers(100).await?;
    }
    ready_says(stack, "postgres", true)?;
    ensure_eq!(traffic.judge(stack).await?, 0, "payments were refused");
    Ok(())
}

async fn postgres_hangs(stack: &mut Stack) -> Result<()> {
    let traffic = Traffic::start(stack).await?;
    traffic.answers(200).await?;
    stack.postgres.pause()?;
    traffic.answers(400).await?;
    ready_says(stack, "postgres", false)?;
    stack.postgres.resume()?;
    ready_says(stack, "postgres", true)?;
    traffic.answers(100).await?;
    ensure_eq!(traffic.judge(stack).await?, 0, "payments were refused");
    Ok(())
}

/// The server dies in the middle of its work. What it had charged without saying so is returned, and the events that it had
/// read and not stored are stored by its successor.
async fn the_server_is_killed(stack: &mut Stack) -> Result<()> {
    let traffic = Traffic::start(stack).await?;
    for _ in 0..4 {
        traffic.answers(300).await?;
        stack.server.kill()?;
        traffic.refusals(10).await?;
        stack.server.restart()?;
    }
    traffic.answers(300).await?;
    let refused = traffic.judge(stack).await?;
    ensure!(refused >= 40, "only {refused} payments were refused");
    Ok(())
}

async fn the_server_hangs(stack: &mut Stack) -> Result<()> {
    let traffic = Traffic::start(stack).await?;
    for _ in 0..3 {
        traffic.answers(300).await?;
        stack.server.pause()?;
        traffic.refusals(16).await?;
        stack.server.resume()?;
    }
    traffic.answers(300).await?;
    traffic.judge(stack).await.map(drop)
}

/// On SIGTERM the server ends by itself, and the journal finishes the batch that it holds.
async fn the_server_is_stopped(stack: &mut Stack) -> Result<()> {
    let traffic = Traffic::start(stack).await?;
    traffic.answers(500).await?;
    let status = stack.server.process().stop()?;
    ensure!(status.success(), "the server ended with {status}");
    ensure_eq!(crate::books::unacknowledged(stack).await?, 0, "events read and not stored");
    traffic.refusals(10).await?;
    stack.server.restart()?;
    traffic.answers(200).await?;
    traffic.judge(stack).await?;
    ensure!(stack.server.log_lines().iter().any(|line| line.to_string().contains("journal stopped")), "no word of the end");
    Ok(())
}

/// Started without Redis and Postgres, the server stays up, says what it lacks, and works as soon as they are there.
async fn the_server_starts_alone(stack: &mut Stack) -> Result<()> {
    stack.server.stop()?;
    stack.postgres.kill()?;
    stack.redis.kill()?;
    stack.server.options().ready_when = ReadyWhen::Healthy;
    stack.server.restart()?;
    ready_says(stack, "redis", false)?;
    ready_says(stack, "postgres", false)?;
    let payment = Payment::new("alone", "alone-1", 6_000);
    let answer = stack.send(Protocol::Http1, payment.call()).await?;
    ensure_eq!((answer.status, answer.code().as_str()), (503, "AUTHZ_UNAVAILABLE"));
    stack.redis.restart()?;
    ready_says(stack, "redis", true)?;
    pay_until_admitted(stack, Protocol::Http2, &payment).await?;
    stack.postgres.restart()?;
    ready_says(stack, "postgres", true)?;
    settles_at(stack, "alone", (6_000, 1)).await?;
    books_agree(stack, "alone").await?;
    journal_is_whole(stack).await
}
