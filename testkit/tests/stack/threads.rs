//! Decisions on several threads: one port, one truth.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use proto::batch::CHECKS_MAX;
use proto::extension::ACTION_CONSUME;
use testkit::stack::{Stack, StackOptions};
use testkit::{Service, build};
use tokio::task::JoinSet;

use super::Outcome;
use crate::checks::{check, codes, connect};

/// Payments that the merchant has room for.
const ROOM: usize = 100;
const THREADS: usize = 3;
const CONNECTIONS: usize = 12;

const POLICIES: &str = "version: threads\ndefault: {timezone: UTC, yearly_count: 100}\n";

/// Sends a full batch over a connection of its own; gives how many were admitted.
async fn charge(address: String, connection: usize) -> testkit::Result<usize> {
    let order_no = |number| format!("o-{connection}-{number}");
    let checks = (0..CHECKS_MAX).map(|number| check(ACTION_CONSUME, &order_no(number))).collect();
    let codes = codes(&connect(&address).await?, checks).await?;
    Ok(codes.iter().filter(|code| *code == "ADMITTED").count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_threads_share_a_port_and_no_second_server_does() -> Outcome {
    // What is counted here is room, not time: full batches may queue up for one account.
    let server_env =
        [("SLUICE_GRPC_THREADS", THREADS), ("SLUICE_REDIS_TIMEOUT_MS", 5_000), ("SLUICE_CHECK_TIMEOUT_MS", 10_000)];
    let server_env = server_env.map(|(name, value)| (name.to_owned(), value.to_string())).into();
    let options = StackOptions { policies: Some(POLICIES.to_owned()), server_env, ..StackOptions::default() };
    let mut stack = Stack::start(&options)?;
    let tasks = fs::read_dir(format!("/proc/{}/task", stack.server.pid()))?;
    let names =
        tasks.map(|task| Ok(fs::read_to_string(task?.path().join("comm"))?)).collect::<testkit::Result<Vec<_>>>()?;
    assert_eq!(names.iter().filter(|name| name.starts_with("decide-")).count(), THREADS - 1, "{names:?}");

    let address = stack.addresses().grpc;
    let mut charges = JoinSet::new();
    for connection in 0..CONNECTIONS {
        charges.spawn(charge(address.clone(), connection));
    }
    let mut admitted = 0;
    while let Some(ended) = charges.join_next().await {
        admitted += ended??;
    }
    assert_eq!(admitted, ROOM);

    let port = stack.server.grpc_address().port().to_string();
    for threads in ["1", "3"] {
        let mut second = Command::new(build::server_bin(false)?);
        second.env_clear().env("PORT", "0").env("GRPC_PORT", &port).env("SLUICE_BIND", "127.0.0.1");
        second.env("SLUICE_GRPC_THREADS", threads).env("REDIS_URL", stack.redis.url());
        second.env("DATABASE_URL", stack.postgres.url());
        second.env("SLUICE_POLICY_FILE", stack.server.options_env("SLUICE_POLICY_FILE").unwrap_or_default());
        let output = second.env("JWT_SECRET", testkit::api::secret()).output()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(!output.status.success() && text.contains("cannot be bound"), "{threads}: {text}");
    }
    stack.server.stop()?;
    // What holds for all threads is said once.
    let mut warnings = BTreeMap::new();
    for line in stack.server.log_lines() {
        let text = line.to_string();
        if text.contains("works through the proxy filter only") {
            *warnings.entry(line["rule"].as_str().map(str::to_owned)).or_insert(0) += 1;
        }
    }
    assert!(!warnings.is_empty() && warnings.values().all(|count| *count == 1), "{warnings:?}");
    Ok(())
}
