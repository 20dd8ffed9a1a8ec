//! Where messages must not go: addresses inside the operator's network, whatever name resolves to them.
//!
//! A name is resolved once. Every address is checked, and the connection goes to one of them: nothing is resolved twice.

use std::net::SocketAddr;

use thiserror::Error;
use tracing::warn;

use sluice_kit::http::Networks;

/// Where messages of one kind of settings may go: to the public internet, and to networks that are named.
#[derive(Clone, Debug)]
pub struct EgressPolicy {
    networks: Networks,
    /// The setting that names them.
    setting: &'static str,
}

/// Why nothing is sent to a host. The channel's owner may read it, so it does not reveal what a name resolves to.
#[derive(Debug, Error)]
pub enum AddressError {
    #[error("{0} cannot be resolved: {1}")]
    Unknown(String, std::io::Error),
    #[error("{0} has no address")]
    Nowhere(String),
    #[error("{host} is not on the public internet: allow its address by {setting}")]
    Internal { host: String, setting: &'static str },
}

impl EgressPolicy {
    /// The policy for operators' channels.
    #[must_use]
    pub const fn operators(networks: Networks) -> Self {
        Self { networks, setting: "SLUICE_ALERT_ALLOW_NETWORKS" }
    }

    /// The policy for merchants' channels.
    #[must_use]
    pub const fn merchants(networks: Networks) -> Self {
        Self { networks, setting: "SLUICE_ALERT_MERCHANT_NETWORKS" }
    }

    /// The addresses of a host, all of which are permitted.
    ///
    /// # Errors
    /// [`AddressError`]; one forbidden address is enough.
    pub async fn resolve(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, AddressError> {
        let found = tokio::net::lookup_host((host, port)).await;
        let found: Vec<SocketAddr> = found.map_err(|error| AddressError::Unknown(host.to_owned(), error))?.collect();
        if let Some(refused) = found.iter().find(|address| !self.networks.permit(address.ip())) {
            let (address, setting) = (refused.ip(), self.setting);
            warn!(host, %address, setting, "alert not sent: its address is not on the public internet");
            return Err(AddressError::Internal { host: host.to_owned(), setting });
        }
        if found.is_empty() { Err(AddressError::Nowhere(host.to_owned())) } else { Ok(found) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_is_what_it_resolves_to() {
        let nothing = EgressPolicy::operators(Networks::default());
        // The last ones are what inet_aton takes for 127.0.0.1.
        for host in ["localhost", "127.0.0.1", "::1", "0", "127.1", "2130706433", "0x7f000001", "017700000001"] {
            assert!(nothing.resolve(host, 80).await.is_err(), "{host}");
        }
        let loopback = EgressPolicy::operators(Networks::parse("127.0.0.0/8,::1/128").unwrap());
        let found = loopback.resolve("localhost", 80).await.unwrap();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        let public = nothing.resolve("192.0.1.1", 81).await.unwrap();
        assert_eq!(public, ["192.0.1.1:81".parse().unwrap()]);
        // A merchant does not learn what a name of the operators' network resolves to.
        let refused =
            EgressPolicy::merchants(Networks::default()).resolve("localhost", 80).await.unwrap_err().to_string();
        assert_eq!(
            refused,
            "localhost is not on the public internet: allow its address by SLUICE_ALERT_MERCHANT_NETWORKS"
        );
    }
}
