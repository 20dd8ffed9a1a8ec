//! Opens the configured sources, and keeps them up to date. A server without any policy does not start.

use std::sync::Arc;
use std::time::Duration;

use sluice_kit::shutdown::Shutdown;
use sluice_policy::PolicyError;
use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tracing::{debug, error, warn};

use super::Policies;
use super::file::{FileSource, SourceError};
use super::metrics::{PolicyMetrics, Source};
use super::postgres::{LoadError, PolicyListener, Rows};
use super::service::{Cell, PolicyFetcher, PolicyService};
use crate::zones::metrics::ZoneMetrics;
use crate::zones::{Zones, ZonesError};
use sluice_kit::health::Health;
use sluice_kit::http::HttpError;
use sluice_settings::{Live, Settings};

/// How long the start waits for the policies in Postgres where there are others; a server starts without Postgres.
const FIRST_READING_MAX: Duration = Duration::from_secs(3);
/// How long it waits where they are the only ones.
const ONLY_READING_MAX: Duration = Duration::from_secs(30);
/// How often zones in use are read again.
const ZONES_INTERVAL: Duration = Duration::from_secs(1);
/// How often it retries meanwhile.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Why a server does not start.
#[derive(Debug, Error)]
pub enum PolicyStartError {
    #[error(transparent)]
    File(#[from] SourceError),
    #[error(transparent)]
    Zones(#[from] ZonesError),
    #[error(transparent)]
    Service(#[from] HttpError),
    #[error("the address of postgres cannot be read: {0}")]
    Address(#[from] sqlx::Error),
    #[error("the policies in postgres: {0}")]
    Postgres(#[from] PolicyError),
    #[error(
        "nothing would be enforced: set SLUICE_POLICY_FILE or POLICY_SERVICE_URL, or activate a policy in postgres ({postgres})"
    )]
    NothingEnforced { postgres: String },
}

/// What keeps the policies up to date. It belongs to the runtime that it was opened on.
#[derive(Debug)]
pub struct Sources {
    file: Option<(FileSource, String)>,
    listener: PolicyListener,
    service: Option<(PolicyFetcher, mpsc::Receiver<Arc<Cell>>)>,
    live: Live,
}

/// Reads every source that the settings name.
///
/// # Errors
/// [`PolicyStartError`] names what to fix: a file that cannot be used, or no policy at all.
pub async fn open(
    settings: &Settings,
    live: &Live,
    health: &Arc<Health>,
) -> Result<(Arc<Policies>, Sources), PolicyStartError> {
    let zones = Arc::new(Zones::open(settings.tzdir.as_deref())?);
    zones.log();
    let file = settings.policy_file.as_deref().map(|path| FileSource::new(path, Arc::clone(&zones)));
    let (set, file) = match file {
        Some(file) => {
            let (set, text) = file.load()?;
            (Some(set), Some((file, text)))
        }
        None => (None, None),
    };
    let service = match &settings.policy_service_url {
        Some(url) => {
            let (service, new) = PolicyService::new(Arc::clone(&zones), health.metrics());
            let fetcher = PolicyFetcher::new(Arc::clone(&service), url.as_str())?.reporting(Arc::clone(health));
            Some((fetcher, service, new))
        }
        None => None,
    };
    let mut listener = PolicyListener::new(&settings.postgres_url())?;
    let others = set.is_some() || service.is_some();
    let address = settings.addresses().postgres;
    // Where no setting names a Postgres either, there is nothing to wait for.
    let patience = if others || settings.named().is_empty() { FIRST_READING_MAX } else { ONLY_READING_MAX };
    let reading = first_reading(&mut listener, others, patience).await;
    let found = match &reading {
        Ok(_) => format!("postgres at {address} has none"),
        Err(error) => format!("postgres at {address}: {error}"),
    };
    let rows = reading.ok();
    let of_service = service.as_ref().map(|(_, service, _)| Arc::clone(service));
    let of_sources =
        |set, rows| Policies::of_sources(set, rows, of_service.clone(), Arc::clone(&zones), Arc::clone(health));
    let policies = match of_sources(set.clone(), rows) {
        // The file is valid by itself, so the rows are at fault: the file is enforced, and the error is logged.
        Err(error) if others => {
            error!(%error, "policies of postgres refused, the others are in force");
            health.metrics().part::<PolicyMetrics>().read(Source::Postgres, false);
            of_sources(set, None)
        }
        other => other,
    };
    let policies = policies?;
    health.metrics().part::<ZoneMetrics>().set(&zones.data());
    if !policies.any() {
        return Err(PolicyStartError::NothingEnforced { postgres: found });
    }
    let service = service.map(|(fetcher, _, new)| (fetcher, new));
    Ok((Arc::new(policies), Sources { file, listener, service, live: live.clone() }))
}

impl Sources {
    /// Follows every source's changes until `stopped` is `true`.
    pub fn spawn(self, policies: &Arc<Policies>, stopped: &Shutdown) {
        let Self { file, listener, service, live } = self;
        if let Some((file, text)) = file {
            tokio::spawn(file.watch(text, Arc::clone(policies), stopped.clone()));
        }
        tokio::spawn(listener.run(Arc::clone(policies), stopped.clone()));
        tokio::spawn(follow_zones(Arc::clone(policies), stopped.clone()));
        if let Some((fetcher, new)) = service {
            let interval = move || Duration::from_secs(live.current().policy_refresh_secs);
            tokio::spawn(fetcher.run(new, interval, stopped.clone()));
        }
    }
}

/// Applies renewed zone data until `stopped` is `true`.
async fn follow_zones(policies: Arc<Policies>, mut stopped: Shutdown) {
    let mut ticks = tokio::time::interval(ZONES_INTERVAL);
    loop {
        tokio::select! {
            () = stopped.requested() => return,
            _ = ticks.tick() => {}
        }
        let policies = Arc::clone(&policies);
        // Files are read and many policies compiled: not on the thread that answers the API.
        match tokio::task::spawn_blocking(move || policies.renew_zones()).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => error!(%error, "renewed time zone data refused, the policies in force stay"),
            Err(error) => error!(%error, "renewed time zone data could not be read"),
        }
    }
}

/// The policies in Postgres at the start, or why they are not available in time.
async fn first_reading(listener: &mut PolicyListener, others: bool, patience: Duration) -> Result<Rows, String> {
    let end = Instant::now() + patience;
    let mut waits = false;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let error = match timeout(left, listener.read()).await {
            Ok(Ok(rows)) => return Ok(rows),
            Ok(Err(error @ LoadError::Sql(_))) if !others && !left.is_zero() => {
                if !std::mem::replace(&mut waits, true) {
                    let wait_secs = patience.as_secs();
                    warn!(%error, wait_secs, "waiting for the policies of postgres, no others are configured");
                }
                sleep(RETRY_INTERVAL).await;
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        // Where there are others, Postgres itself is reported as away.
        debug!(error, "policies of postgres cannot be read at the start");
        return Err(error);
    }
}
