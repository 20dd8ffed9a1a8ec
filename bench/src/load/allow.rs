//! A server that always allows: what native ext_authz costs when deciding costs nothing.

use std::net::SocketAddr;

use envoy_types::pb::envoy::service::auth::v3::authorization_server::{Authorization, AuthorizationServer};
use envoy_types::pb::envoy::service::auth::v3::{CheckRequest, CheckResponse};
use tonic::transport::Server;
use tonic::{Request, Response, Status};

use testkit::Result;

struct AlwaysAllow;

#[tonic::async_trait]
impl Authorization for AlwaysAllow {
    async fn check(&self, _request: Request<CheckRequest>) -> std::result::Result<Response<CheckResponse>, Status> {
        Ok(Response::new(CheckResponse::default()))
    }
}

/// Serves until the process ends, on one thread, which is the fastest way on a small machine.
///
/// # Errors
/// When the address cannot be bound.
pub fn serve_always_allow(address: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = Server::builder().tcp_nodelay(true).add_service(AuthorizationServer::new(AlwaysAllow));
    runtime.block_on(server.serve(address))?;
    Ok(())
}
