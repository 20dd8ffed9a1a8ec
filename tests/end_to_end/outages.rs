//! Redis, Postgres and the server are killed, hang and come back under payments: each payment is answered in its time, no order
//! is counted twice or lost, and the journal has every event once.

use std::time::Duration;

use testkit::books::{books_agree, journal_is_whole, settles_at, voids_done};
use testkit::client::{Payment, Protocol};
use testkit::server::ReadyWhen;
use testkit::stack::{Stack, StackOptions};
use testkit::{Result, Service, wait};

use crate::no_answer::store_unavailable;
use crate::server::pay_until_admitted;
use crate::suite::{Suite, patient, prompt};
use crate::traffic::{PATIENT, PROMPT, Traffic, roomy};

/// The server asks its dependencies once a second.
const SAID_WITHIN: Duration = Duration::from_secs(15);

pub(crate) fn add(suite: &mut Suite) {
    suite.owned("outages::redis_is_killed_and_comes_back", roomy(prompt()), redis_is_killed);
    suite.owned("outages::redis_hangs_and_goes_on", roomy(prompt()), redis_hangs);
    suite.owned("outages::redis_takes_no_writes", prompt(), redis_takes_no_writes);
    suite.owned("outages::f8_a_redis_that_may_evict_is_refused", prompt(), redis_may_evict);
    suite.owned("outages::redis_comes_back_empty", prompt(), redis_comes_back_empty);
    suite.owned("outages::the_backlog_is_full", small_backlog(), the_backlog_is_full);
    suite.owned("outages::postgres_is_killed_and_comes_back", roomy(patient()), postgres_is_killed);
    suite.owned("outages::postgres_hangs_and_goes_on", roomy(patient()), postgres_hangs);
    suite.owned("outages::the_server_is_killed_again_and_again", roomy(prompt()), the_server_is_killed);
    suite.owned("outages::the_server_hangs_again_and_again", roomy(prompt()), the_server_hangs);
    suite.owned("outages::the_server_is_stopped", roomy(prompt()), the_server_is_stopped);
    suite.owned("outages::the_server_starts_alone", roomy(prompt()), the_server_starts_alone);
}

/// Waits until `/ready` says of a dependency that it is there, or that it is not.
pub(crate) fn ready_says(stack: &Stack, dependency: &str, up: bool) -> Result<()> {
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
    let refused = traffic.judge(stack, PROMPT).await?;
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
        // the server gives up before the filter does, and counts why.
        let timeouts = stack.server.metric("sluice_store_errors_total", &["kind=\"timeout\""])?;
        ensure!(timeouts > 0.0, "the server does not count that it waited in vain");
        stack.redis.resume()?;
        ready_says(stack, "redis", true)?;
    }
    traffic.answers(150).await?;
    traffic.judge(stack, PROMPT).await.map(drop)
}

/// A Redis that is full, or that is a replica after a failover, answers and takes no writes: nothing is half done.
async fn redis_takes_no_writes(stack: &mut Stack) -> Result<()> {
    let mut connection = stack.redis.connection().await?;
    let states: [[&[&str]; 2]; 2] = [
        [&["CONFIG", "SET", "maxmemory", "1"], &["CONFIG", "SET", "maxmemory", "0"]],
        [&["REPLICAOF", "127.0.0.1", "1"], &["REPLICAOF", "NO", "ONE"]],
    ];
    let mut charged = 0;
    for (number, [into, out_of]) in states.into_iter().enumerate() {
        let payment = |at: u32| Payment::new("full", &format!("full-{number}-{at}"), 1_000);
        let mut command = redis::cmd(into[0]);
        for protocol in Protocol::BOTH {
            pay_until_admitted(stack, protocol, &payment(0)).await?;
        }
        charged += 1;
        command.arg(&into[1..]).query_async::<()>(&mut connection).await?;
        for (at, protocol) in (1..).zip(Protocol::BOTH) {
            store_unavailable(&stack.send(protocol, payment(at).call()).await?)?;
        }
        settles_at(stack, "full", (charged * 1_000, charged)).await?;
        redis::cmd(out_of[0]).arg(&out_of[1..]).query_async::<()>(&mut connection).await?;
        pay_until_admitted(stack, Protocol::Http1, &payment(1)).await?;
        charged += 1;
        voids_done(stack).await?;
        settles_at(stack, "full", (charged * 1_000, charged)).await?;
    }
    books_agree(stack, "full").await?;
    journal_is_whole(stack).await
}

/// A Redis that may evict keys would reopen limits: nothing is decided on it, and `/ready` says why.
async fn redis_may_evict(stack: &mut Stack) -> Result<()> {
    let mut connection = stack.redis.connection().await?;
    let payment = |at: u32| Payment::new("evicted", &format!("evicted-{at}"), 1_000);
    pay_until_admitted(stack, Protocol::Http1, &payment(0)).await?;
    let mut configure = async |name: &str, value: &str| {
        redis::cmd("CONFIG").arg("SET").arg(name).arg(value).exec_async(&mut connection).await
    };
    configure("maxmemory-policy", "allkeys-lru").await?;
    configure("maxmemory", "1000000000").await?;
    ready_says(stack, "redis", false)?;
    let (_, body) = stack.server.get("/ready")?;
    ensure!(body.contains("maxmemory-policy allkeys-lru") && body.contains("SLUICE_REDIS_ALLOW_EVICTION"), "{body}");
    store_unavailable(&stack.send(Protocol::Http1, payment(1).call()).await?)?;
    configure("maxmemory-policy", "noeviction").await?;
    ready_says(stack, "redis", true)?;
    pay_until_admitted(stack, Protocol::Http2, &payment(1)).await?;
    configure("maxmemory-policy", "volatile-lru").await?;
    ready_says(stack, "redis", false)?;
    stack.server.options().env.insert("SLUICE_REDIS_ALLOW_EVICTION".to_owned(), "true".to_owned());
    stack.server.restart()?;
    pay_until_admitted(stack, Protocol::Http1, &payment(2)).await?;
    stack.server.logged(|line| line.to_string().contains("redis may evict keys, which reopens limits"))?;
    settles_at(stack, "evicted", (3_000, 3)).await
}

/// A Redis that has lost what it acknowledged: payments go on from zero, the rows of before stay, and the journal says
/// that numbers were given twice.
async fn redis_comes_back_empty(stack: &mut Stack) -> Result<()> {
    let payment = |number: u32| Payment::new("emptied", &format!("emptied-{number}"), 1_000);
    for number in 0..5 {
        pay_until_admitted(stack, Protocol::Http1, &payment(number)).await?;
    }
    ensure_eq!(books_agree(stack, "emptied").await?.len(), 5);
    stack.redis.restart_empty()?;
    for number in 5..8 {
        pay_until_admitted(stack, Protocol::Http2, &payment(number)).await?;
    }
    voids_done(stack).await?;
    settles_at(stack, "emptied", (3_000, 3)).await?;
    let pool = stack.postgres.pool().await?;
    let query = "SELECT (SELECT count(*) FROM usage_log WHERE code = 'ADMITTED'), \
                 (SELECT count(*) FROM journal_anomaly WHERE kind = 'rewound')";
    let found = wait::until_async("the rewound numbers in the journal", SAID_WITHIN, || async {
        let (rows, rewound): (i64, i64) = sqlx::query_as(query).fetch_one(&pool).await?;
        Ok((rows == 8 && rewound > 0).then_some(()))
    });
    found.await?;
    pool.close().await;
    Ok(())
}

/// The smallest bound of events that may wait for the journal.
const BACKLOG: u64 = 1_000;

fn small_backlog() -> StackOptions {
    let mut options = roomy(patient());
    options.server_env.insert("SLUICE_BACKLOG_EVENTS_MAX".to_owned(), BACKLOG.to_string());
    options
}

/// With Postgres away for too long, payments are refused rather than charged without a journal; voids are not.
async fn the_backlog_is_full(stack: &mut Stack) -> Result<()> {
    stack.postgres.kill()?;
    ready_says(stack, "postgres", false)?;
    let mut client = stack.client(Protocol::Http1).await?;
    for number in 0..BACKLOG {
        let payment = Payment::new("roomy", &format!("roomy-{number}"), 100);
        ensure_eq!(client.send(payment.call()).await?.status, 200, "payment {number}");
    }
    let late = Payment::new("roomy", "roomy-late", 100);
    let answer = client.send(late.call()).await?;
    ensure_eq!((answer.status, answer.code().as_str()), (503, "BACKLOG_FULL"));
    ensure_eq!(answer.header("retry-after"), Some("1"));
    ensure!(stack.gateway.seen_order("roomy-late").is_empty(), "the gateway saw it");
    stack.postgres.restart()?;
    pay_until_admitted(stack, Protocol::Http1, &late).await?;
    settles_at(stack, "roomy", (100 * (BACKLOG + 1), BACKLOG + 1)).await?;
    ensure_eq!(books_agree(stack, "roomy").await?.len() as u64, BACKLOG + 1);
    journal_is_whole(stack).await
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
    ensure_eq!(traffic.judge(stack, PATIENT).await?, 0, "payments were refused");
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
    ensure_eq!(traffic.judge(stack, PATIENT).await?, 0, "payments were refused");
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
    let refused = traffic.judge(stack, PROMPT).await?;
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
    traffic.judge(stack, PROMPT).await.map(drop)
}

/// On SIGTERM the server ends by itself, and the journal finishes the batch that it holds.
async fn the_server_is_stopped(stack: &mut Stack) -> Result<()> {
    let traffic = Traffic::start(stack).await?;
    traffic.answers(500).await?;
    // A caller that holds a connection with half a request does not hold up the end.
    let mut idle = std::net::TcpStream::connect(stack.server.admin_address())?;
    std::io::Write::write_all(&mut idle, b"GET /health HT")?;
    let status = stack.server.process().stop()?;
    ensure!(status.success(), "the server ended with {status}");
    ensure_eq!(testkit::books::unacknowledged(stack).await?, 0, "events read and not stored");
    traffic.refusals(10).await?;
    stack.server.restart()?;
    traffic.answers(200).await?;
    traffic.judge(stack, PROMPT).await?;
    ensure!(
        stack.server.log_lines().iter().any(|line| line.to_string().contains("journal stopped")),
        "no word of the end"
    );
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
    store_unavailable(&answer)?;
    stack.redis.restart()?;
    ready_says(stack, "redis", true)?;
    pay_until_admitted(stack, Protocol::Http2, &payment).await?;
    stack.postgres.restart()?;
    ready_says(stack, "postgres", true)?;
    settles_at(stack, "alone", (6_000, 1)).await?;
    books_agree(stack, "alone").await?;
    journal_is_whole(stack).await
}
