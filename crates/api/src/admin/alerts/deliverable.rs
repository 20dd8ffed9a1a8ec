//! Whether a channel can work at all, checked before it is stored: mail needs a mail server, and a URL a host that messages may go
//! to. A name that is not found now may be found later, so that is only a warning.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use url::Url;

use crate::admin::problem::{Answer, Problem};
use sluice_alerts::Scope;
use sluice_alerts::egress::{AddressError, EgressPolicy};
use sluice_alerts::settings::{Channel, Settings};

/// How long a name may take to be resolved.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the server can send to.
#[derive(Clone, Debug)]
pub(in crate::admin) struct Deliverable {
    mail: bool,
    operators: EgressPolicy,
    merchants: EgressPolicy,
}

/// What is wrong with a channel.
enum Fault {
    Refused(String),
    Doubted(String),
}

impl Deliverable {
    pub(in crate::admin) fn new(settings: &sluice_settings::Settings) -> Self {
        Self {
            mail: settings.smtp_url.is_some(),
            operators: EgressPolicy::operators(settings.alert_allow_networks.clone()),
            merchants: EgressPolicy::merchants(settings.alert_merchant_networks.clone()),
        }
    }

    /// What may be wrong with the channels, by their fields.
    ///
    /// # Errors
    /// A 400 problem that names the first channel that cannot work.
    pub(super) async fn check(&self, scope: &Scope, settings: &Settings) -> Answer<Vec<String>> {
        let reach = match scope {
            Scope::Operators => &self.operators,
            Scope::Merchant(_) => &self.merchants,
        };
        let faults = join_all(settings.channels.iter().map(|channel| self.fault(reach, channel))).await;
        let mut warnings = Vec::new();
        for (place, fault) in faults.into_iter().enumerate() {
            match fault {
                Some((field, Fault::Refused(why))) => {
                    return Err(Problem::field(format!("channels[{place}].{field}"), why));
                }
                Some((field, Fault::Doubted(why))) => warnings.push(format!("channels[{place}].{field}: {why}")),
                None => {}
            }
        }
        Ok(warnings)
    }

    async fn fault(&self, reach: &EgressPolicy, channel: &Channel) -> Option<(&'static str, Fault)> {
        let Some(url) = channel.url() else {
            let why = "needs a mail server: the server's SLUICE_SMTP_URL and SLUICE_SMTP_FROM are not set";
            return (!self.mail).then(|| ("kind", Fault::Refused(why.to_owned())));
        };
        // What is no URL is refused by its own check.
        let url = Url::parse(url).ok()?;
        let (host, port) = (url.host_str()?, url.port_or_known_default()?);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let fault = match timeout(RESOLVE_TIMEOUT, reach.resolve(host, port)).await {
            Ok(Ok(_)) => return None,
            Ok(Err(error @ AddressError::Internal { .. })) => Fault::Refused(error.to_string()),
            Ok(Err(error @ AddressError::Nowhere(_))) => Fault::Doubted(error.to_string()),
            Ok(Err(AddressError::Unknown(host, _))) => Fault::Doubted(format!("{host} cannot be resolved now")),
            Err(_) => Fault::Doubted(format!("{host} could not be resolved within {} s", RESOLVE_TIMEOUT.as_secs())),
        };
        Some(("url", fault))
    }
}
