//! A Redis with a replica that takes its place, as managed services and Sentinel do it: without losing a write that was
//! acknowledged, and without closing a connection by itself.

use std::time::Duration;

use redis::aio::MultiplexedConnection;

use crate::failure::{Failure, Result};
use crate::ports::loopback;
use crate::redis::Redis;
use crate::wait;

/// How long a replica may take to have what its primary has.
const IN_STEP_WITHIN: Duration = Duration::from_secs(20);
/// For how long writes may wait for the replica at most, in milliseconds.
const PAUSE_MS: &str = "10000";

/// Makes one a replica of the other, and waits until it has all of it.
///
/// # Errors
/// When they do not come together.
pub async fn follow(replica: &Redis, primary: &Redis) -> Result<()> {
    let mut connection = replica.connection().await?;
    run(&mut connection, &["REPLICAOF", "127.0.0.1", &primary.port().to_string()]).await?;
    wait::until_async("a replica in step", IN_STEP_WITHIN, || async {
        let state = info(&mut replica.connection().await?, "master_link_status").await?;
        Ok((state == "up").then_some(()))
    })
    .await
}

/// Promotes the replica: writes are held back until it has all of them.
///
/// # Errors
/// When it does not come in step.
pub async fn promote(replica: &Redis, primary: &Redis) -> Result<()> {
    let (mut old, mut new) = (primary.connection().await?, replica.connection().await?);
    run(&mut old, &["CLIENT", "PAUSE", PAUSE_MS, "WRITE"]).await?;
    let written = offset(&mut old, "master_repl_offset").await?;
    wait::until_async("the last writes at the replica", IN_STEP_WITHIN, || async {
        let had = offset(&mut replica.connection().await?, "slave_repl_offset").await?;
        Ok((had >= written).then_some(()))
    })
    .await?;
    run(&mut new, &["REPLICAOF", "NO", "ONE"]).await
}

/// Makes the old primary a replica of its successor. Its connections stay open; what was held back is refused.
///
/// # Errors
/// When it gives no answer.
pub async fn demote(primary: &Redis, successor: &Redis) -> Result<()> {
    let mut connection = primary.connection().await?;
    run(&mut connection, &["REPLICAOF", "127.0.0.1", &successor.port().to_string()]).await?;
    run(&mut connection, &["CLIENT", "UNPAUSE"]).await
}

/// Ends the connections of clients, as Sentinel does after it has demoted a server.
///
/// # Errors
/// When it gives no answer.
pub async fn kill_clients(server: &Redis) -> Result<()> {
    run(&mut server.connection().await?, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await
}

/// Its address.
#[must_use]
pub fn address(server: &Redis) -> std::net::SocketAddr {
    loopback(server.port())
}

async fn run(connection: &mut MultiplexedConnection, words: &[&str]) -> Result<()> {
    let [name, arguments @ ..] = words else { return Err(Failure::new("a command without words")) };
    redis::cmd(name).arg(arguments).exec_async(connection).await?;
    Ok(())
}

async fn info(connection: &mut MultiplexedConnection, name: &str) -> Result<String> {
    let text: String = redis::cmd("INFO").arg("replication").query_async(connection).await?;
    let mut values = text.lines().filter_map(|line| line.split_once(':')).filter(|(key, _)| *key == name);
    Ok(values.next().map(|(_, value)| value.to_owned()).unwrap_or_default())
}

async fn offset(connection: &mut MultiplexedConnection, name: &str) -> Result<u64> {
    Ok(info(connection, name).await?.parse()?)
}
