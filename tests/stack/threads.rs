//! Decisions on several threads: one port, one truth.

use std::collections::HashMap;
use std::fs;
use std::process::Command;

use e2e::stack::{Stack, StackOptions};
use e2e::{Service, build};
use proto::batch::batch_authorization_client::BatchAuthorizationClient;
use proto::batch::{BatchCheckRequest, CHECKS_MAX};
use proto::envoy::check_response::HttpResponse;
use proto::envoy::{AttributeContext, CheckRequest};
use proto::extension;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::Outcome;

/// Payments that the merchant has room for.
const ROOM: usize = 100;
const THREADS: usize = 3;
const CONNECTIONS: usize = 12;

const POLICIES: &str = "version: threads\ndefault: {timezone: UTC, yearly_count: 100}\n";

fn check(order_no: &str) -> CheckRequest {
    let extensions = [
        (extension::ACTION, "consume"),
        (extension::MERCHANT, "m"),
        (extension::AMOUNT_MINOR, "100"),
        (extension::CURRENCY, "USD"),
        (extension::ORDER_NO, order_no),
        (extension::ATTEMPT, order_no),
        (extension::MODE, "enforce"),
    ];
    let context_extensions: HashMap<_, _> =
        extensions.map(|(key, value)| (key.to_owned(), value.to_owned())).into_iter().collect();
    CheckRequest { attributes: Some(AttributeContext { context_extensions }) }
}

/// Sends a full batch over a connection of its own; gives how many were admitted.
async fn charge(address: String, connection: usize) -> e2e::Result<usize> {
    let channel = Channel::from_shared(address)?.connect().await?;
    let checks: Vec<_> = (0..CHECKS_MAX).map(|number| check(&format!("o-{connection}-{number}"))).collect();
    let request = BatchCheckRequest { checks };
    let answer = BatchAuthorizationClient::new(channel).batch_check(request).await?;
    let results = answer.into_inner().results;
    assert_eq!(results.len(), CHECKS_MAX);
    let passed = results.into_iter().filter_map(|result| result.response?.http_response);
    Ok(passed.filter(|response| matches!(response, HttpResponse::OkResponse(_))).count())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_threads_share_a_port_and_no_second_server_does() -> Outcome {
    let server_env = [("SLUICE_GRPC_THREADS".to_owned(), THREADS.to_string())].into();
    let options = StackOptions { policies: Some(POLICIES.to_owned()), server_env, ..StackOptions::default() };
    let mut stack = Stack::start(&options)?;
    let tasks = fs::read_dir(format!("/proc/{}/task", stack.server.pid()))?;
    let names =
        tasks.map(|task| Ok(fs::read_to_string(task?.path().join("comm"))?)).collect::<e2e::Result<Vec<_>>>()?;
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
        let output = second.env("JWT_SECRET", "0".repeat(32)).output()?;
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(!output.status.success() && text.contains("cannot be bound"), "{threads}: {text}");
    }
    stack.server.stop()?;
    Ok(())
}
