//! Tiny peers that count in a real Redis: one that reads and then writes, as limiters do that are not exact, and an exact
//! one. They show that the rig counts over-admissions rightly.

use std::net::SocketAddr;
use std::time::Duration;

use clap::ValueEnum;
use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_response::Code;
use envoy_types::pb::envoy::service::ratelimit::v3::rate_limit_service_server::{
    RateLimitService, RateLimitServiceServer,
};
use envoy_types::pb::envoy::service::ratelimit::v3::{RateLimitRequest, RateLimitResponse};
use envoy_types::pb::google::rpc::Status as RpcStatus;
use redis::aio::MultiplexedConnection;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use super::super::merchants::RACE;
use testkit::Result;

/// The way to the store and back of a peer that stands in another place. It is longer than a payment takes otherwise, so that all
/// connections of a race are between reading and writing when it reaches its limit.
const DISTANCE: Duration = Duration::from_millis(20);
/// gRPC's code for a refusal by policy.
const PERMISSION_DENIED: i32 = 7;

/// How a peer counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Counting {
    /// Looks whether there is room, and counts afterwards.
    ReadThenWrite,
    /// Counts and looks in one step.
    Atomic,
}

struct Counter {
    connection: MultiplexedConnection,
    counting: Counting,
    limit: u64,
}

impl Counter {
    async fn open(redis_url: &str, counting: Counting, limit: u64) -> Result<Self> {
        let connection = redis::Client::open(redis_url)?.get_multiplexed_async_connection().await?;
        Ok(Self { connection, counting, limit })
    }

    /// Whether one more payment of this merchant is admitted. Only the race's merchant has a limit.
    async fn admits(&self, merchant: &str) -> std::result::Result<bool, Status> {
        let limited = merchant.starts_with(RACE.prefix);
        let away = |error: redis::RedisError| Status::unavailable(error.to_string());
        let mut connection = self.connection.clone();
        if limited && self.counting == Counting::ReadThenWrite {
            let used: Option<u64> = redis::cmd("GET").arg(merchant).query_async(&mut connection).await.map_err(away)?;
            if used.unwrap_or(0) >= self.limit {
                return Ok(false);
            }
            tokio::time::sleep(DISTANCE).await;
        }
        let used: u64 = redis::cmd("INCR").arg(merchant).query_async(&mut connection).await.map_err(away)?;
        Ok(!limited || self.counting == Counting::ReadThenWrite || used <= self.limit)
    }
}

#[tonic::async_trait]
impl RateLimitService for Counter {
    async fn should_rate_limit(
        &self,
        request: Request<RateLimitRequest>,
    ) -> std::result::Result<Response<RateLimitResponse>, Status> {
        let request = request.into_inner();
        let entries = request.descriptors.iter().flat_map(|descriptor| &descriptor.entries);
        let merchant = entries.into_iter().find(|entry| entry.key == "merchant").map(|entry| entry.value.as_str());
        let merchant = merchant.ok_or_else(|| Status::invalid_argument("no entry names the merchant"))?;
        let code = if self.admits(merchant).await? { Code::Ok } else { Code::OverLimit };
        Ok(Response::new(RateLimitResponse { overall_code: code.into(), ..RateLimitResponse::default() }))
    }
}

#[tonic::async_trait]
impl Authorization for Counter {
    async fn check(&self, request: Request<CheckRequest>) -> std::result::Result<Response<CheckResponse>, Status> {
        let attributes = request.into_inner().attributes;
        let http = attributes.and_then(|attributes| attributes.request?.http);
        let merchant = http.and_then(|http| http.headers.get("x-merchant-id").cloned());
        let merchant = merchant.ok_or_else(|| Status::invalid_argument("no header names the merchant"))?;
        let code = if self.admits(&merchant).await? { 0 } else { PERMISSION_DENIED };
        let status = Some(RpcStatus { code, ..RpcStatus::default() });
        Ok(Response::new(CheckResponse { status, ..CheckResponse::default() }))
    }
}

/// A ratelimit service that serves until the process ends.
///
/// # Errors
/// When Redis is away or the address cannot be bound.
pub fn serve_rls(listen: SocketAddr, redis_url: &str, counting: Counting, limit: u64) -> Result<()> {
    runtime()?.block_on(async {
        let counter = Counter::open(redis_url, counting, limit).await?;
        let service = RateLimitServiceServer::new(counter);
        Ok(Server::builder().tcp_nodelay(true).add_service(service).serve(listen).await?)
    })
}

/// An ext_authz server that serves until the process ends.
///
/// # Errors
/// When Redis is away or the address cannot be bound.
pub fn serve_ext_authz(listen: SocketAddr, redis_url: &str, counting: Counting, limit: u64) -> Result<()> {
    runtime()?.block_on(async {
        let counter = Counter::open(redis_url, counting, limit).await?;
        let service = AuthorizationServer::new(counter);
        Ok(Server::builder().tcp_nodelay(true).add_service(service).serve(listen).await?)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_all().build()?)
}
