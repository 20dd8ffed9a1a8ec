//! Applies every change of the policies in Postgres: after a notification, and by reading again in case one was missed.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use sluice_kit::shutdown::Shutdown;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::time::timeout;
use tracing::{debug, error, info};

use super::load::{LoadError, Rows};
use crate::metrics::Source;
use crate::{Policies, compile_off_thread};
use sluice_kit::database::{self, notifications::Notifications};
use sluice_kit::health::warn_unless_away;
use sluice_settings::Secret;

/// The channel that the tables' triggers notify.
const CHANNEL: &str = "sluice_policy";
/// How long a reading may take, its connection included.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How often the tables are read again without a notification.
const READ_INTERVAL: Duration = Duration::from_secs(30);
/// How long after a failure Postgres is tried again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Postgres cancels a statement before we drop the connection.
const SESSION: [(&str, &str); 1] = [("statement_timeout", "8s")];

/// The policies in Postgres.
#[derive(Debug)]
pub struct PolicyListener {
    options: PgConnectOptions,
    /// For the listener alone, which needs a pool to connect again by.
    pool: PgPool,
    connection: Option<PgConnection>,
    /// By the last read: whether Postgres could be read, and its rows used. Only a change is logged.
    well: bool,
    /// The digest of the last read.
    digest: Option<u64>,
}

impl PolicyListener {
    /// Takes the address; connects when first used.
    ///
    /// # Errors
    /// [`sqlx::Error`] for a URL that cannot be read.
    pub fn new(url: &Secret) -> Result<Self, sqlx::Error> {
        let options = PgConnectOptions::from_str(url.expose())?
            .application_name("sluice-policies")
            .options(SESSION)
            .disable_statement_logging();
        Ok(Self { options, pool: database::pool(url, 1)?, connection: None, well: true, digest: None })
    }

    /// Reads what is in force.
    ///
    /// # Errors
    /// [`LoadError`] where Postgres is away or a row cannot be read.
    pub async fn read(&mut self) -> Result<Rows, LoadError> {
        // A connection counts as sound only after a reading that came to its end.
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => match timeout(READ_TIMEOUT, PgConnection::connect_with(&self.options)).await {
                Ok(connection) => connection?,
                Err(_) => return Err(LoadError::Sql(sqlx::Error::PoolTimedOut)),
            },
        };
        match timeout(READ_TIMEOUT, Rows::read(&mut connection)).await {
            Ok(Ok(rows)) => {
                self.connection = Some(connection);
                Ok(rows)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => Err(LoadError::Sql(sqlx::Error::PoolTimedOut)),
        }
    }

    /// Keeps `policies` equal to Postgres until `shutdown` is `true`. A set with an error changes nothing.
    pub async fn run(mut self, policies: Arc<Policies>, mut shutdown: Shutdown) {
        let _ = shutdown.until(self.follow(&policies)).await;
        if let Some(connection) = self.connection.take() {
            // The stop does not wait: a connection that cannot be closed in time is dropped.
            let _ = timeout(RETRY_INTERVAL, connection.close()).await;
        }
    }

    async fn follow(&mut self, policies: &Arc<Policies>) {
        loop {
            let notifications = Notifications::listen(&self.pool, CHANNEL).await;
            // Changes before the listener existed were not notified.
            let taken = self.take_over(policies).await;
            match notifications {
                Ok(notifications) if taken => self.follow_notifications(notifications, policies).await,
                Ok(_) => {}
                Err(error) => self.turn(Err(LoadError::Sql(error)), policies).await,
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    }

    /// Reads after every notification, until Postgres is gone.
    async fn follow_notifications(&mut self, mut notifications: Notifications, policies: &Arc<Policies>) {
        loop {
            // Read also where none came: in case one was missed.
            if let Err(error) = notifications.within(READ_INTERVAL).await {
                return debug!(%error, "postgres notifications ended, listening again");
            }
            if !self.take_over(policies).await {
                return;
            }
        }
    }

    /// Reads and applies; false where Postgres could not be read.
    async fn take_over(&mut self, policies: &Arc<Policies>) -> bool {
        let read = self.read().await;
        let reached = !matches!(read, Err(LoadError::Sql(_)));
        if let Ok(rows) = &read
            && self.well
            && self.digest == Some(rows.digest())
        {
            policies.source_read(Source::Postgres, true);
            return true;
        }
        self.turn(read, policies).await;
        reached
    }

    async fn turn(&mut self, read: Result<Rows, LoadError>, policies: &Arc<Policies>) {
        let digest = read.as_ref().ok().map(Rows::digest);
        let taken = match read {
            Ok(rows) => {
                let policies = Arc::clone(policies);
                compile_off_thread(move || policies.replace_rows(rows)).await.map_err(LoadError::Policy)
            }
            Err(error) => Err(error),
        };
        let well = taken.is_ok();
        match taken {
            Ok(()) if !self.well => info!("policies of postgres are in force again"),
            Ok(()) => {}
            Err(LoadError::Sql(error)) => {
                policies.source_read(Source::Postgres, false);
                if self.well {
                    warn_unless_away!(error, "policies of postgres cannot be read, the last ones stay in force");
                }
            }
            Err(error @ (LoadError::Row { .. } | LoadError::Policy(_))) => {
                policies.source_read(Source::Postgres, false);
                if self.well || self.digest != digest {
                    error!(%error, "policies of postgres refused, the last ones stay in force");
                }
            }
        }
        self.well = well;
        self.digest = digest;
    }
}
