//! Changes of settings while the server runs: read from a configuration service or the database ([`follow`]), and made in the
//! database with an audit ([`Repository`]). The settings of the start select one of the two.

mod follow;
mod metrics;
mod repository;
mod service;
mod table;

use serde::Serialize;
use utoipa::ToSchema;

use super::Settings;

pub use follow::{Source, SourceError, follow};
pub use metrics::SettingsMetrics;
pub use repository::{
    AuditEntry, Change, ChangeError, Changed, History, HistoryQuery, Listing, Repository, SETTINGS_FIXED,
};
pub use table::TableError;

/// Where changes of settings come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SettingsChangedIn)]
pub enum ChangedIn {
    /// Nowhere: `ENABLE_CONFIG_CLIENT` is not set.
    Nothing,
    ConfigService,
    Database,
}

impl ChangedIn {
    /// The source that the settings of the start select.
    #[must_use]
    pub const fn of(settings: &Settings) -> Self {
        match (settings.enable_config_client, &settings.config_service_url) {
            (false, _) => Self::Nothing,
            (true, Some(_)) => Self::ConfigService,
            (true, None) => Self::Database,
        }
    }
}
