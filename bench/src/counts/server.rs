//! The server under callgrind, with a real Redis and Postgres behind it: from the bytes of a check to those of its answer.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use prost::Message;
use proto::batch::BatchCheckRequest;
use proto::batch::batch_authorization_client::BatchAuthorizationClient;
use proto::envoy::CheckResponse;
use proto::envoy::check_response::HttpResponse;
use proto::header;
use testkit::callgrind::Callgrind;
use testkit::dirs::RunDir;
use testkit::postgres::Postgres;
use testkit::redis::Redis;
use testkit::server::{Server, ServerOptions};
use testkit::{Failure, Result, api, tools};
use tonic::transport::Channel;

use super::{BATCH, Payments, PerPayment, ensure_admitted};

/// What the decision thread does once a second, whatever is paid.
const PROBE: &str = "run::checks::probe";
/// Payments alone, and batches.
const ALONE: usize = 200;
const BATCHES: usize = 30;
/// Before it is counted: connections and accounts exist, and buffers have grown.
const WARM_UP_BATCHES: usize = 5;
const WARM_UP_ALONE: usize = 10;

pub(super) async fn count(callgrind: &Callgrind, program: &Path) -> Result<PerPayment> {
    let dir = RunDir::new("counts-server")?;
    let redis = Redis::start_program(tools::valkey_server()?, Arc::clone(&dir))?;
    let postgres = Postgres::start_in(Arc::clone(&dir), false)?;
    let counted = callgrind.wrap(program, &[], &dir)?.except(PROBE);
    let env = environment(&dir, &redis, &postgres)?;
    let options = ServerOptions { program: counted.program.clone(), env, ..ServerOptions::default() };
    let server = Server::start_in(dir, options)?;
    let mut counter = counted.counter(server.pid())?;
    let mut client = Client::connect(&server).await?;
    client.together(WARM_UP_BATCHES).await?;
    client.alone(WARM_UP_ALONE).await?;
    let alone = counter.count(async || client.alone(ALONE).await).await?;
    let batched = counter.count(async || client.together(BATCHES).await).await?;
    Ok(PerPayment { alone: alone / ALONE as u64, batched: batched / (BATCHES * BATCH) as u64 })
}

fn environment(dir: &RunDir, redis: &Redis, postgres: &Postgres) -> Result<BTreeMap<String, String>> {
    let policies = dir.join("policies.yaml");
    fs::write(&policies, Payments::policies())?;
    let variables = [
        ("REDIS_URL", redis.url()),
        ("DATABASE_URL", postgres.url()),
        ("SLUICE_POLICY_FILE", policies.display().to_string()),
        ("JWT_SECRET", api::secret().to_owned()),
        // A call takes milliseconds under callgrind.
        ("SLUICE_REDIS_TIMEOUT_MS", "8000".to_owned()),
        ("SLUICE_CHECK_TIMEOUT_MS", "9000".to_owned()),
    ];
    Ok(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// A proxy's connection.
struct Client {
    channel: Channel,
    payments: Payments,
}

impl Client {
    async fn connect(server: &Server) -> Result<Self> {
        let channel = Channel::from_shared(format!("http://{}", server.grpc_address()))?.connect().await?;
        Ok(Self { channel, payments: Payments::new() })
    }

    async fn alone(&mut self, count: usize) -> Result<()> {
        let mut client = AuthorizationClient::new(self.channel.clone());
        for _ in 0..count {
            let check = CheckRequest::decode(self.payments.check().encode_to_vec().as_slice())?;
            let answer = client.check(check).await?.into_inner();
            ensure_admitted(&code(&CheckResponse::decode(answer.encode_to_vec().as_slice())?)?)?;
        }
        Ok(())
    }

    async fn together(&mut self, batches: usize) -> Result<()> {
        let mut client = BatchAuthorizationClient::new(self.channel.clone());
        for _ in 0..batches {
            let checks = (0..BATCH).map(|_| self.payments.check().into()).collect();
            for result in client.batch_check(BatchCheckRequest { checks }).await?.into_inner().results {
                let response = result.response.ok_or_else(|| Failure::new("a result without an answer"))?;
                ensure_admitted(&code(&response)?)?;
            }
        }
        Ok(())
    }
}

fn code(response: &CheckResponse) -> Result<String> {
    let headers = match response.http_response.as_ref() {
        Some(HttpResponse::OkResponse(admitted)) => &admitted.headers,
        Some(HttpResponse::DeniedResponse(denied)) => &denied.headers,
        None => return Err(Failure::new("an answer without a response")),
    };
    let code = headers.iter().filter_map(|option| option.header.as_ref()).find(|pair| pair.key == header::CODE);
    code.map(|pair| pair.value.clone()).ok_or_else(|| Failure::new("an answer without a code"))
}
