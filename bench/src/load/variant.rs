//! What payments go through: the filter chains that are compared, as changes to the shipped configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::ValueEnum;
use serde::Serialize;
use serde_json::{Value, json};

use testkit::Result;
use testkit::build::{self, NativeModule};
use testkit::envoy::{EnvoyConfig, Host};

/// The largest body that a study sends must be read by the filter.
const BODY_BYTES_MAX: u32 = 512 * 1024;
/// The rule that the load's payments match.
const RULE: &str = "payments";
/// How long reports of trusted payments wait for each other: the filter's default.
const REPORT_MS: u32 = 10;

/// One way for payments.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub enum Variant {
    /// Envoy without a filter.
    Envoy,
    /// The filter reads the charge and asks no server.
    ParseOnly,
    /// The same as a dynamic module.
    ParseOnlyNativeHost,
    /// Envoy's own ext_authz filter and a server that always allows.
    NativeAllow,
    /// The filter, the server, Redis, and the journal draining to Postgres.
    Sluice,
    /// The same with the filter as a dynamic module.
    SluiceNativeHost,
    /// As [`Variant::Sluice`] with a call for each payment (`batch_max: 1`).
    #[value(name = "sluice_unbatched")]
    Unbatched,
    /// As [`Variant::Sluice`] with payments admitted from rights where these are granted (`trust`).
    Trusted,
    /// The same with the filter as a dynamic module.
    TrustedNativeHost,
}

impl Variant {
    /// In the order of the report.
    pub const ALL: [Self; 9] = [
        Self::Envoy,
        Self::ParseOnly,
        Self::ParseOnlyNativeHost,
        Self::NativeAllow,
        Self::Sluice,
        Self::SluiceNativeHost,
        Self::Unbatched,
        Self::Trusted,
        Self::TrustedNativeHost,
    ];

    /// The name in figures.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Envoy => "envoy",
            Self::ParseOnly => "parse_only",
            Self::ParseOnlyNativeHost => "parse_only_native_host",
            Self::NativeAllow => "native_allow",
            Self::Sluice => "sluice",
            Self::SluiceNativeHost => "sluice_native_host",
            Self::Unbatched => "sluice_unbatched",
            Self::Trusted => "trusted",
            Self::TrustedNativeHost => "trusted_native_host",
        }
    }

    /// Whether payments are decided and charged.
    #[must_use]
    pub const fn charges(self) -> bool {
        match self {
            Self::Sluice | Self::SluiceNativeHost | Self::Unbatched | Self::Trusted | Self::TrustedNativeHost => true,
            Self::Envoy | Self::ParseOnly | Self::ParseOnlyNativeHost | Self::NativeAllow => false,
        }
    }

    /// Whether payments may be admitted from rights.
    #[must_use]
    pub const fn trusts(self) -> bool {
        match self {
            Self::Trusted | Self::TrustedNativeHost => true,
            Self::Envoy
            | Self::ParseOnly
            | Self::ParseOnlyNativeHost
            | Self::NativeAllow
            | Self::Sluice
            | Self::SluiceNativeHost
            | Self::Unbatched => false,
        }
    }

    const fn host(self) -> Host {
        match self {
            Self::ParseOnlyNativeHost | Self::SluiceNativeHost | Self::TrustedNativeHost => Host::Native,
            Self::Envoy | Self::ParseOnly | Self::NativeAllow | Self::Sluice | Self::Unbatched | Self::Trusted => {
                Host::Wasm
            }
        }
    }

    /// The filter's file. A wasm module is always the shipped, optimised one.
    fn filter(self, release: bool) -> Result<PathBuf> {
        match self {
            Self::ParseOnly => build::filter_wasm_parse_only(),
            Self::ParseOnlyNativeHost => build::filter_native(NativeModule::ParseOnly, release),
            Self::SluiceNativeHost | Self::TrustedNativeHost => build::filter_native(NativeModule::Shipped, release),
            Self::Envoy | Self::NativeAllow | Self::Sluice | Self::Unbatched | Self::Trusted => build::filter_wasm(),
        }
    }

    /// The shipped configuration, changed as far as the variant needs.
    pub(super) fn config(
        self,
        workers: u32,
        release: bool,
        gateway: SocketAddr,
        decider: SocketAddr,
    ) -> Result<EnvoyConfig> {
        let patience = Patience::of(release);
        let mut config = EnvoyConfig::of(self.host(), &self.filter(release)?)?.with_workers(workers);
        config.set_routes(ROUTES);
        config.set_cluster("gateway", gateway)?;
        config.set_cluster("sluice_authz", decider)?;
        match self {
            Self::ParseOnly
            | Self::ParseOnlyNativeHost
            | Self::Sluice
            | Self::SluiceNativeHost
            | Self::Unbatched
            | Self::Trusted
            | Self::TrustedNativeHost => {
                let plugin = self.plugin(config.plugin()?, patience);
                config.set_plugin(&plugin)?;
            }
            Self::Envoy => config.remove_http_filter("sluice")?,
            Self::NativeAllow => {
                config.remove_health_checks("sluice_authz")?;
                config.remove_http_filter("sluice")?;
                let ext_authz = config.http_filter("envoy.filters.http.ext_authz")?;
                ext_authz["disabled"] = false.into();
                ext_authz["typed_config"]["grpc_service"]["timeout"] = patience.envoy().into();
                // The peer at its best: it is not even shown the body.
                ext_authz["typed_config"]["with_request_body"] = serde_yaml_ng::Value::Null;
            }
        }
        Ok(config)
    }

    /// The filter's configuration, changed as far as the variant needs.
    fn plugin(self, mut plugin: Value, patience: Patience) -> Value {
        if self == Self::Unbatched {
            plugin["batch_max"] = 1.into();
        }
        for rule in plugin["rules"].as_array_mut().into_iter().flatten() {
            rule["body_bytes_max"] = BODY_BYTES_MAX.into();
            if patience == Patience::Long {
                rule["timeout_ms"] = LONG_MS[2].into();
            }
            if self.trusts() && rule["name"] == RULE {
                rule["trust"] = json!({"report_ms": REPORT_MS});
            }
        }
        plugin
    }
}

/// Every path goes to the gateway through whatever filters there are.
pub(super) const ROUTES: &str = r#"
resources:
  - "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
    name: payments
    virtual_hosts:
      - {name: payments, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: gateway, timeout: 15s}}]}
"#;

/// How long a payment waits for its decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Patience {
    /// The deadlines that are shipped.
    Shipped,
    /// A server that is not optimised, on a machine that builds meanwhile, answers too: for the rig's own tests.
    Long,
}

/// Milliseconds that Redis, a check and a rule have where patience is long.
const LONG_MS: [u32; 3] = [8_000, 9_000, 10_000];

impl Patience {
    pub(super) const fn of(release: bool) -> Self {
        if release { Self::Shipped } else { Self::Long }
    }

    /// The deadline of Envoy's own filters, as shipped or as long as a rule's.
    pub(super) fn envoy(self) -> String {
        match self {
            Self::Shipped => "0.5s".to_owned(),
            Self::Long => format!("{}s", LONG_MS[2] / 1_000),
        }
    }

    /// The server's deadlines.
    pub(super) fn server_env(self) -> Vec<(&'static str, String)> {
        match self {
            Self::Shipped => Vec::new(),
            Self::Long => vec![
                ("SLUICE_REDIS_TIMEOUT_MS", LONG_MS[0].to_string()),
                ("SLUICE_CHECK_TIMEOUT_MS", LONG_MS[1].to_string()),
            ],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use testkit::dirs::workspace;

    use super::*;

    #[test]
    fn only_the_rule_of_the_load_is_trusted_and_only_where_its_variant_says_so() {
        let shipped: Value =
            serde_json::from_str(&fs::read_to_string(workspace().join("envoy/rules.json")).unwrap()).unwrap();
        for variant in Variant::ALL {
            let plugin = variant.plugin(shipped.clone(), Patience::Shipped);
            let rules = plugin["rules"].as_array().unwrap();
            let trusted: Vec<&Value> = rules.iter().filter(|rule| rule.get("trust").is_some()).collect();
            let paths: Vec<&Value> = trusted.iter().map(|rule| &rule["match"]["path"]).collect();
            let expected: &[&str] = if variant.trusts() { &["/v1/payments"] } else { &[] };
            assert_eq!(paths, expected, "{}", variant.name());
            assert!(!variant.trusts() || variant.charges(), "{}", variant.name());
        }
    }
}
