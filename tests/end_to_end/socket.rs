//! Decisions by the server's Unix socket, in both hosts of the filter and in Envoy's own.

use std::path::PathBuf;

use testkit::Result;
use testkit::books::{journal_is_whole, settles_at};
use testkit::client::{Payment, Protocol};
use testkit::envoy::EnvoyConfig;
use testkit::process::Service;
use testkit::stack::{Stack, StackOptions};

use crate::suite::{Suite, patient, wait_longer};

const MERCHANT: &str = "by-socket";
const CENTS: u64 = 700;

pub(crate) fn add(suite: &mut Suite) {
    suite.owned("socket::payments_are_decided_by_it", options(), payments);
}

/// One test of a process uses it. A run's own folder may have a longer path than a socket can have.
fn path() -> PathBuf {
    std::env::temp_dir().join(format!("sluice-e2e-{}.sock", std::process::id()))
}

fn options() -> StackOptions {
    let mut options = StackOptions { change: Some(by_socket), ..patient() };
    options.server_env.insert("SLUICE_GRPC_SOCKET".to_owned(), path().display().to_string());
    options
}

fn by_socket(config: &mut EnvoyConfig) -> Result<()> {
    wait_longer(config)?;
    config.set_server_socket(&path())
}

/// Removes the file that a killed server leaves.
struct Removed;

impl Drop for Removed {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(path());
    }
}

async fn payments(stack: &mut Stack) -> Result<()> {
    let _removed = Removed;
    let mut paid = 0;
    for protocol in Protocol::BOTH {
        for route in ["/v1/payments", "/native/v1/payments"] {
            let order = format!("order-{paid}");
            let answer = stack.send(protocol, Payment::new(MERCHANT, &order, CENTS).path(route).call()).await?;
            ensure_eq!(answer.status, 200, "{route}: {}", answer.json());
            paid += 1;
        }
    }
    settles_at(stack, MERCHANT, (paid * CENTS, paid)).await?;
    journal_is_whole(stack).await?;
    ensure!(stack.server.process().stop()?.success(), "the server did not end well");
    ensure!(!path().exists(), "the socket's file is left after the stop");
    // Left by a server that is killed, it is taken over.
    stack.server.restart()?;
    stack.server.kill()?;
    ensure!(path().exists(), "a killed server removed its socket");
    stack.server.restart()?;
    let answer = stack.send(Protocol::Http1, Payment::new(MERCHANT, "afterwards", CENTS).call()).await?;
    ensure_eq!(answer.status, 200, "after a restart: {}", answer.json());
    Ok(())
}
