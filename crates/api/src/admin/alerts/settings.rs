//! `/merchants/{merchant_id}/settings` and `/operators/settings`: who is notified of which alerts, at which thresholds, and a test
//! of it.

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::now;
use crate::admin::execute::parse_merchant;
use crate::admin::openapi::{BodyProblems, Problems};
use crate::admin::problem::{Answer, Kind, Problem};
use crate::admin::tiers::RevisionQuery;
use crate::admin::{API, Admin, Caller, Json, Path, Permission, Query};
use sluice_alerts::Scope;
use sluice_alerts::notice::Notice;
use sluice_alerts::read::messages::{self, Message, Test};
use sluice_alerts::settings::{self, SaveError, Settings, Stored};
use sluice_kit::clock;

/// How long a test is tried at most: a person waits for it.
const TEST_SECS_MAX: u64 = 600;

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(of_merchant, set_of_merchant))
        .routes(routes!(test_of_merchant))
        .routes(routes!(of_operators, set_of_operators))
        .routes(routes!(test_of_operators))
}

/// The problem that an error is to its caller.
pub(super) fn save_problem(error: SaveError) -> Problem {
    match error {
        SaveError::Invalid(invalid) => Problem::field(invalid.field, invalid.problem),
        SaveError::Revision { .. } => Problem::new(Kind::VersionConflict).detail(error.to_string()),
        SaveError::Database(error) => error.into(),
    }
}

/// Settings of alerts, and their last change.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AlertSettingsAnswer)]
pub(in crate::admin) struct Shown {
    /// Whose: `operators`, or `merchant:` and the id.
    scope: String,
    /// The number of changes; 0 where nothing has been set.
    revision: i64,
    updated_at: Option<DateTime<Utc>>,
    updated_by: Option<String>,
    /// Secrets are shown as masks. What is shown can be sent back: masks keep the secrets.
    settings: Settings,
    /// What may keep channels from working, as a host that is not found now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    warnings: Vec<String>,
}

/// Which channel is tested.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = AlertTest)]
struct TestRequest {
    channel_id: String,
}

/// What a test is answered with.
type Sent = (StatusCode, [(HeaderName, String); 1], Json<Message>);

/// Who is notified of a merchant's alerts, beside the operators.
#[utoipa::path(get, path = "/merchants/{merchant_id}/settings", tag = "alert settings",
    operation_id = "get_merchant_settings", params(("merchant_id" = String, Path)),
    responses((status = OK, body = Shown), Problems))]
async fn of_merchant(State(admin): State<Admin>, caller: Caller, Path(merchant): Path<String>) -> Answer<Json<Shown>> {
    let scope = merchants(&caller, Permission::AlertsRead, &merchant)?;
    show(&admin, scope).await
}

/// Set who is notified of a merchant's alerts, all of it at once.
#[utoipa::path(put, path = "/merchants/{merchant_id}/settings", tag = "alert settings",
    operation_id = "set_merchant_settings", params(("merchant_id" = String, Path), RevisionQuery),
    request_body = Settings, responses((status = OK, body = Shown), Problems, BodyProblems))]
async fn set_of_merchant(
    State(admin): State<Admin>,
    caller: Caller,
    Path(merchant): Path<String>,
    Query(query): Query<RevisionQuery>,
    Json(body): Json<Settings>,
) -> Answer<Json<Shown>> {
    let scope = merchants(&caller, Permission::AlertsConfigure, &merchant)?;
    set(&admin, &caller, scope, body, query.expected_revision).await
}

/// Send a test on one of a merchant's channels. Its message says how that went.
#[utoipa::path(post, path = "/merchants/{merchant_id}/settings/test", tag = "alert settings",
    operation_id = "test_merchant_settings", params(("merchant_id" = String, Path)), request_body = TestRequest,
    responses((status = ACCEPTED, body = Message), Problems, BodyProblems))]
async fn test_of_merchant(
    State(admin): State<Admin>,
    caller: Caller,
    Path(merchant): Path<String>,
    Json(body): Json<TestRequest>,
) -> Answer<Sent> {
    let scope = merchants(&caller, Permission::AlertsConfigure, &merchant)?;
    test(&admin, &caller, &scope, &body.channel_id).await
}

/// Which operators are notified of which alerts, of all merchants and their own.
#[utoipa::path(get, path = "/operators/settings", tag = "alert settings", operation_id = "get_operators_settings",
    responses((status = OK, body = Shown), Problems))]
async fn of_operators(State(admin): State<Admin>, caller: Caller) -> Answer<Json<Shown>> {
    let scope = operators(&caller, Permission::AlertsRead)?;
    show(&admin, scope).await
}

/// Set which operators are notified of which alerts, all of it at once.
#[utoipa::path(put, path = "/operators/settings", tag = "alert settings", operation_id = "set_operators_settings",
    params(RevisionQuery), request_body = Settings,
    responses((status = OK, body = Shown), Problems, BodyProblems))]
async fn set_of_operators(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<RevisionQuery>,
    Json(body): Json<Settings>,
) -> Answer<Json<Shown>> {
    let scope = operators(&caller, Permission::AlertsConfigure)?;
    set(&admin, &caller, scope, body, query.expected_revision).await
}

/// Send a test on one of the operators' channels. Its message says how that went.
#[utoipa::path(post, path = "/operators/settings/test", tag = "alert settings",
    operation_id = "test_operators_settings", request_body = TestRequest,
    responses((status = ACCEPTED, body = Message), Problems, BodyProblems))]
async fn test_of_operators(State(admin): State<Admin>, caller: Caller, Json(body): Json<TestRequest>) -> Answer<Sent> {
    let scope = operators(&caller, Permission::AlertsConfigure)?;
    test(&admin, &caller, &scope, &body.channel_id).await
}

fn merchants(caller: &Caller, permission: Permission, merchant: &str) -> Answer<Scope> {
    caller.require(permission)?;
    let merchant = parse_merchant(merchant)?;
    caller.may_see(&merchant)?;
    Ok(Scope::Merchant(merchant))
}

fn operators(caller: &Caller, permission: Permission) -> Answer<Scope> {
    caller.require(permission)?;
    caller.require_all_merchants()?;
    Ok(Scope::Operators)
}

async fn show(admin: &Admin, scope: Scope) -> Answer<Json<Shown>> {
    shown(admin, &scope).await.map(Json)
}

/// The settings of a scope.
pub(in crate::admin) async fn shown(admin: &Admin, scope: &Scope) -> Answer<Shown> {
    Ok(Shown::of(scope, settings::load(&admin.pool, scope).await?))
}

async fn set(
    admin: &Admin,
    caller: &Caller,
    scope: Scope,
    body: Settings,
    expected: Option<i64>,
) -> Answer<Json<Shown>> {
    let warnings = admin.deliverable.check(&scope, &body).await?;
    let stored =
        settings::save(&admin.pool, &scope, body, expected, caller.subject.as_str()).await.map_err(save_problem)?;
    Ok(Json(Shown { warnings, ..Shown::of(&scope, stored) }))
}

async fn test(admin: &Admin, caller: &Caller, scope: &Scope, channel_id: &str) -> Answer<Sent> {
    let stored = settings::load(&admin.pool, scope).await?;
    let no_channel = || Problem::field("channel_id", "must be the id of a channel of these settings");
    let channel = stored.settings.channel(channel_id).ok_or_else(no_channel)?;
    let actor = caller.subject.as_str();
    let made = messages::test(
        &admin.pool,
        Test {
            id: Uuid::from_bytes(clock::decision_id()),
            scope,
            channel,
            body: &Notice::test(channel_id, actor, now()).json(),
            actor,
            give_up_secs: admin.live.current().alert_give_up_secs.min(TEST_SECS_MAX),
        },
    )
    .await
    .map_err(super::messages::send_problem)?;
    let location = format!("{API}/alerts/messages/{}", made.message_id);
    Ok((StatusCode::ACCEPTED, [(header::LOCATION, location)], Json(made)))
}

impl Shown {
    fn of(scope: &Scope, stored: Stored) -> Self {
        let Stored { settings, revision, updated_at, updated_by } = stored;
        Self { scope: scope.text(), revision, updated_at, updated_by, settings, warnings: Vec::new() }
    }
}
