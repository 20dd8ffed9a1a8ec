//! `/settings`: every setting with its value and source, changes at run time, and who made them.

use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::openapi::{BodyProblems, Problems};
use super::page::{Cursor, Page, limit};
use super::policies::{HistoryPlace, writer};
use super::problem::{Answer, Kind, Problem};
use super::{Admin, Caller, Json, Permission, Query};
use sluice_settings::runtime::{AuditEntry, Change, ChangeError, Changed, HistoryQuery, Listing, TableError};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(list, change)).routes(routes!(history))
}

/// The problem that an error is to its caller.
pub(super) fn table_problem(error: TableError) -> Problem {
    match error {
        TableError::Sql(error) => error.into(),
        error => Problem::internal("settings", &error),
    }
}

/// The problem that an error is to its caller.
pub(super) fn change_problem(error: ChangeError) -> Problem {
    let problem = match error {
        ChangeError::Database(error) => return table_problem(error),
        ChangeError::Invalid { field, problem } => return Problem::field(field, problem),
        ChangeError::Version { .. } => Problem::new(Kind::VersionConflict),
        ChangeError::Fixed | ChangeError::Elsewhere => Problem::new(Kind::Conflict),
    };
    problem.detail(error.to_string())
}

/// Every setting with the value in force and where it comes from. Secrets are not shown.
#[utoipa::path(get, path = "/settings", tag = "settings",
    operation_id = "list_settings", responses((status = OK, body = Listing), Problems))]
async fn list(State(admin): State<Admin>, caller: Caller) -> Answer<Json<Listing>> {
    writer(&caller, Permission::SettingsRead)?;
    Ok(Json(admin.settings.list()))
}

/// Change settings while the server runs: all of the request or nothing, on every server.
#[utoipa::path(patch, path = "/settings", tag = "settings",
    operation_id = "change_settings", request_body = Change,
    responses((status = OK, body = Changed), Problems, BodyProblems))]
async fn change(State(admin): State<Admin>, caller: Caller, Json(body): Json<Change>) -> Answer<Json<Changed>> {
    writer(&caller, Permission::SettingsWrite)?;
    Ok(Json(admin.settings.change(caller.subject.as_str(), body).await.map_err(change_problem)?))
}

/// Which changes are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct SettingsHistoryQuery {
    /// One setting only.
    key: Option<String>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// Longest key of a setting in a filter.
const KEY_LEN_MAX: usize = 64;

/// Whether the text has the form of a key; settings of earlier versions have a history, too.
fn is_key(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    (1..=KEY_LEN_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

/// Who changed which setting, the newest first.
#[utoipa::path(get, path = "/settings/history", tag = "settings",
    operation_id = "settings_history", params(SettingsHistoryQuery),
    responses((status = OK, body = Page<AuditEntry>), Problems))]
async fn history(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<SettingsHistoryQuery>,
) -> Answer<Json<Page<AuditEntry>>> {
    writer(&caller, Permission::SettingsRead)?;
    if query.key.as_deref().is_some_and(|key| !is_key(key)) {
        return Err(Problem::field("key", "must be a setting's key, as in admin_page_max"));
    }
    let limit = limit(query.limit, admin.live.current().admin_page_max)?;
    let before = query.cursor.as_deref().map(HistoryPlace::decode).transpose()?.map(|HistoryPlace(id)| id);
    let limit = u32::try_from(limit).unwrap_or(u32::MAX);
    let found = admin.settings.history(HistoryQuery { key: query.key, before, limit }).await.map_err(table_problem)?;
    Ok(Json(Page { items: found.items, next_cursor: found.next.map(|id| HistoryPlace(id).encode()) }))
}
