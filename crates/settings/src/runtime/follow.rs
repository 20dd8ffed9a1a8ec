//! Keeps the settings in force up to date: queries the configuration service at intervals, or listens to the database and also
//! reads it at intervals. A failed or invalid reading changes nothing; the last good values stay.

use std::sync::Arc;
use std::time::Duration;

use sluice_kit::shutdown::Shutdown;
use sqlx::PgPool;
use thiserror::Error;
use tokio::sync::oneshot;
use tracing::{debug, error, info, warn};

use super::metrics::{SettingsFailure, SettingsMetrics};
use super::service;
use super::table::{self, By, TableError};
use crate::live::{Changed, Layer, Live};
use crate::{HttpUrl, Settings, SettingsError};
use sluice_kit::database::{self, notifications::Notifications};
use sluice_kit::http::{Client, HttpError};

/// How long the configuration service may take.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(3);
/// When the database is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// One connection listens, the other reads.
const CONNECTIONS_MAX: u32 = 2;
/// The actor of a change without an author.
const SERVICE_ACTOR: &str = "config_service";

/// Why there is no source of changes.
#[derive(Debug, Error)]
pub enum SourceError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// Where changes come from.
#[derive(Debug)]
pub enum Source {
    /// The configuration service; what it changes is recorded in the database.
    Service { client: Box<Client>, url: HttpUrl, audit: PgPool },
    /// The database.
    Database { pool: PgPool },
}

impl Source {
    /// The source that the settings name, if any. Must be called on the runtime that follows it.
    ///
    /// # Errors
    /// [`SourceError`] where a client cannot be made.
    pub fn of(settings: &Settings) -> Result<Option<Self>, SourceError> {
        if !settings.enable_config_client {
            return Ok(None);
        }
        let pool = database::pool(&settings.postgres_url(), CONNECTIONS_MAX)?;
        Ok(Some(match &settings.config_service_url {
            Some(url) => {
                Self::Service { client: Box::new(Client::new(SERVICE_TIMEOUT)?), url: url.clone(), audit: pool }
            }
            None => Self::Database { pool },
        }))
    }

    const fn name(&self) -> &'static str {
        match self {
            Self::Service { .. } => "config_service",
            Self::Database { .. } => "database",
        }
    }
}

/// Follows the source until the stop. `first` is notified when the first reading is over, whatever its result.
pub async fn follow(
    source: Source,
    refresh: Duration,
    live: Live,
    metrics: Arc<SettingsMetrics>,
    stopped: Shutdown,
    first: oneshot::Sender<()>,
) {
    let name = source.name();
    let mut follower = Follower { name, refresh, live, metrics, stopped, first: Some(first), logged: None };
    match source {
        Source::Service { client, url, audit } => follower.service(&client, &url, &audit).await,
        Source::Database { pool } => follower.database(&pool).await,
    }
}

/// Counts a change, and records that the settings are up to date.
pub(super) fn report_applied(live: &Live, metrics: &SettingsMetrics, changed: &[Changed]) {
    live.set_good(true);
    metrics.read(changed.len() as u64, live.version());
}

/// Why a reading failed.
#[derive(Debug, Error)]
enum ReadError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Table(#[from] TableError),
    #[error("the connection that listens for changes was lost")]
    Lost,
    #[error(transparent)]
    Refused(#[from] SettingsError),
}

impl ReadError {
    const fn kind(&self) -> SettingsFailure {
        match self {
            Self::Http(HttpError::Body { .. } | HttpError::TooLarge { .. }) | Self::Refused(_) => {
                SettingsFailure::Refused
            }
            Self::Http(_) | Self::Table(_) | Self::Lost => SettingsFailure::Away,
        }
    }
}

struct Follower {
    name: &'static str,
    refresh: Duration,
    live: Live,
    metrics: Arc<SettingsMetrics>,
    stopped: Shutdown,
    first: Option<oneshot::Sender<()>>,
    /// The failure that is logged already.
    logged: Option<String>,
}

impl Follower {
    async fn service(&mut self, client: &Client, url: &HttpUrl, audit: &PgPool) {
        while !self.stopped.is_requested() {
            match service::fetch(client, url).await {
                Ok(layer) => {
                    let changed = self.apply(layer);
                    self.record(audit, url, &changed).await;
                }
                Err(error) => self.failed(&error.into()),
            }
            self.stopped.pause(self.refresh).await;
        }
    }

    async fn database(&mut self, pool: &PgPool) {
        while !self.stopped.is_requested() {
            if let Err(error) = self.listen(pool).await {
                self.failed(&error);
            }
            self.stopped.pause(RETRY_INTERVAL.min(self.refresh)).await;
        }
    }

    /// Works on one listening connection until the stop or until it fails.
    async fn listen(&mut self, pool: &PgPool) -> Result<(), ReadError> {
        // First listen, then read: otherwise a change in between would be seen at the next interval only.
        let mut notifications = table::within(Notifications::listen(pool, table::CHANNEL)).await?;
        loop {
            self.read(pool).await?;
            match self.stopped.until(notifications.within(self.refresh)).await {
                None => return Ok(()),
                Some(notified) => notified.map(drop).map_err(|_| ReadError::Lost)?,
            }
        }
    }

    async fn read(&mut self, pool: &PgPool) -> Result<(), ReadError> {
        let live = self.live.clone();
        let _turn = live.turn().await;
        let layer = table::within(async {
            let mut connection = pool.acquire().await?;
            table::read(&mut connection).await
        })
        .await?;
        self.apply(layer);
        Ok(())
    }

    /// Applies what was read, or reports why not.
    fn apply(&mut self, layer: Layer) -> Vec<Changed> {
        match self.live.apply(layer) {
            Ok(changed) => {
                report_applied(&self.live, &self.metrics, &changed);
                if self.logged.take().is_some() {
                    info!(source = self.name, "settings are up to date again");
                }
                for Changed { key, old, new } in &changed {
                    let version = self.live.version();
                    info!(key, old_value = old, new_value = new, source = self.name, version, "a setting changed");
                }
                self.finish_first();
                changed
            }
            Err(error) => {
                self.failed(&error.into());
                Vec::new()
            }
        }
    }

    fn failed(&mut self, error: &ReadError) {
        self.live.set_good(false);
        let kind = error.kind();
        self.metrics.failed(kind);
        let reason = error.to_string();
        let source = self.name;
        if self.logged.as_ref() == Some(&reason) {
            debug!(source, reason, "settings still cannot be read");
        } else {
            match kind {
                SettingsFailure::Away => warn!(source, reason, "settings cannot be read, the last good values stay"),
                SettingsFailure::Refused => error!(source, reason, "settings are refused, the last good values stay"),
            }
            self.logged = Some(reason);
        }
        self.finish_first();
    }

    /// Records what the service changed. The log has it as well, so Postgres being away loses no more than the row.
    async fn record(&self, audit: &PgPool, url: &HttpUrl, changed: &[Changed]) {
        if changed.is_empty() {
            return;
        }
        let by = By { actor: SERVICE_ACTOR, reason: url.as_str() };
        let written = table::within(async {
            let mut connection = audit.acquire().await?;
            table::audit_service(&mut connection, changed, by).await
        });
        if let Err(error) = written.await {
            warn!(%error, changes = changed.len(), "changes of the configuration service could not be recorded");
        }
    }

    fn finish_first(&mut self) {
        if let Some(first) = self.first.take() {
            // The receiver may be gone.
            let _ = first.send(());
        }
    }
}
