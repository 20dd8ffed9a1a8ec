//! Envoy's own filters in front of a peer, in the place of Sluice's.

use std::net::SocketAddr;

use serde_yaml_ng::Value;

use super::super::variant::{Patience, ROUTES};
use super::spec::Kind;
use testkit::Result;
use testkit::build;
use testkit::envoy::EnvoyConfig;

/// Asks an RLS for the domain `sluice`; no answer is a refusal, as for Sluice.
const RATELIMIT: &str = r#"
name: envoy.filters.http.ratelimit
typed_config:
  "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
  domain: sluice
  timeout: {timeout}
  failure_mode_deny: true
  rate_limit_service:
    transport_api_version: V3
    grpc_service: {envoy_grpc: {cluster_name: sluice_authz}}
"#;
/// One descriptor with one entry: `merchant`, with the merchant's name.
const RATE_LIMITS: &str =
    "rate_limits: [{actions: [{request_headers: {header_name: x-merchant-id, descriptor_key: merchant}}]}]";

/// The shipped configuration with the peer in the place of Sluice's server.
pub(super) fn of(kind: Kind, patience: Patience, gateway: SocketAddr, peer: SocketAddr) -> Result<EnvoyConfig> {
    let mut config = EnvoyConfig::shipped(&build::filter_wasm()?)?;
    config.set_routes(ROUTES);
    config.set_cluster("gateway", gateway)?;
    config.set_cluster("sluice_authz", peer)?;
    config.remove_health_checks("sluice_authz")?;
    match kind {
        Kind::Rls => {
            *config.http_filter("sluice")? =
                serde_yaml_ng::from_str(&RATELIMIT.replace("{timeout}", &patience.envoy()))?;
            config.set_routes(&ROUTES.replace("timeout: 15s", &format!("timeout: 15s, {RATE_LIMITS}")));
        }
        Kind::ExtAuthz => {
            config.remove_http_filter("sluice")?;
            let ext_authz = config.http_filter("envoy.filters.http.ext_authz")?;
            ext_authz["disabled"] = Value::Bool(false);
            ext_authz["typed_config"]["grpc_service"]["timeout"] = patience.envoy().into();
            // Other servers read the headers where Envoy writes them by itself.
            ext_authz["typed_config"]["encode_raw_headers"] = Value::Bool(false);
        }
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_routes_name_the_merchant() {
        let routes = ROUTES.replace("timeout: 15s", &format!("timeout: 15s, {RATE_LIMITS}"));
        let routes: Value = serde_yaml_ng::from_str(&routes).unwrap();
        let route = &routes["resources"][0]["virtual_hosts"][0]["routes"][0]["route"];
        assert_eq!(route["rate_limits"][0]["actions"][0]["request_headers"]["descriptor_key"], "merchant");
    }
}
