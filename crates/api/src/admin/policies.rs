//! `/limit-policies`: drafts, their approval by another person, what is active, and who changed what.

use axum::extract::State;
use axum::http::StatusCode;
use chrono::DateTime;
use quota::{Channel, Currency, MerchantId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::openapi::{BodyProblems, NotFound, Problems, Refusals};
use super::page::{Cursor, Page, TimeId, limit};
use super::problem::{Answer, Kind, Problem};
use super::{Admin, Caller, Json, Path, Permission, Query};
use sluice_kit::database::change::{By, ChangeError};
use sluice_policy_source::EffectivePolicy;
use sluice_policy_source::postgres::model::{Change, LimitPolicy, PolicyInput, PolicyState, PolicyStatus};
use sluice_policy_source::postgres::{PolicyFilter, PolicyRepository};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(effective))
        .routes(routes!(get, update, delete))
        .routes(routes!(approve))
        .routes(routes!(activate))
        .routes(routes!(deactivate))
        .routes(routes!(history))
}

/// The problem that an error is to its caller.
pub(super) fn problem_of(error: ChangeError) -> Problem {
    match error {
        ChangeError::NotFound(_) => Problem::new(Kind::NotFound).detail(error.to_string()),
        ChangeError::Conflict(detail) => Problem::new(Kind::Conflict).detail(detail),
        ChangeError::Invalid { field, problem } => Problem::field(field, problem),
        ChangeError::FourEyes => Problem::new(Kind::Forbidden).detail(error.to_string()),
        ChangeError::Database(error) => error.into(),
    }
}

pub(super) fn repository(admin: &Admin) -> PolicyRepository {
    PolicyRepository::new(admin.pool.clone(), admin.operations.policies())
}

/// Why a change is made, and the state that it was decided on.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeRequest {
    /// Kept in the history.
    #[schema(max_length = 1024)]
    pub reason: Option<String>,
    /// The `revision` that the change was decided on; another one refuses it.
    pub expected_revision: Option<i64>,
}

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 1024;

impl ChangeRequest {
    pub(super) fn by<'a>(&'a self, caller: &'a Caller) -> Answer<By<'a>> {
        by(caller, self.reason.as_deref())
    }
}

/// The actor of a change, with a reason that Postgres can store.
pub(super) fn by<'a>(caller: &'a Caller, reason: Option<&'a str>) -> Answer<By<'a>> {
    match reason {
        Some(reason) if reason.len() > REASON_BYTES_MAX || reason.contains('\0') => {
            Err(Problem::field("reason", format!("must have at most {REASON_BYTES_MAX} bytes, and no NUL character")))
        }
        reason => Ok(By { actor: &caller.subject, reason }),
    }
}

/// A policy, and why it is written.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PolicyRequest {
    policy: PolicyInput,
    #[schema(max_length = 1024)]
    reason: Option<String>,
    /// The `revision` that a change was decided on; another one refuses it. Not for a new policy.
    expected_revision: Option<i64>,
}

/// Which policies are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[param(max_length = 64)]
    merchant_id: Option<String>,
    tier_id: Option<Uuid>,
    channel: Option<String>,
    currency: Option<String>,
    status: Option<PolicyStatus>,
    state: Option<PolicyState>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// Policies, the newest first.
#[utoipa::path(get, path = "/limit-policies", tag = "limit-policies",
    operation_id = "list_limit_policies", params(ListQuery),
    responses((status = OK, body = Page<LimitPolicy>), Problems))]
async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<LimitPolicy>>> {
    caller.require(Permission::PoliciesRead)?;
    caller.require_all_merchants()?;
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let after = query.cursor.as_deref().map(TimeId::decode).transpose()?.map(|TimeId(at, id)| (at, id));
    check_filter(query.merchant_id.as_deref(), query.channel.as_deref(), query.currency.as_deref())?;
    let filter = PolicyFilter {
        policy_id: None,
        merchant_id: query.merchant_id,
        tier_id: query.tier_id,
        channel: query.channel,
        currency: query.currency,
        status: query.status,
        state: query.state,
    };
    let rows = repository(&admin).list(&filter, after, page_max + 1).await.map_err(problem_of)?;
    Ok(Json(Page::from_rows(rows, page_max, |policy| TimeId(policy.created_at, policy.policy_id))))
}

/// Checks whether a filter could match anything at all, so that a typing error is not answered with an empty list.
pub(super) fn check_filter(merchant_id: Option<&str>, channel: Option<&str>, currency: Option<&str>) -> Answer<()> {
    let wrong = |field: &'static str, error: &dyn std::fmt::Display| Problem::field(field, error.to_string());
    merchant_id.map(MerchantId::parse).transpose().map_err(|error| wrong("merchant_id", &error))?;
    channel.map(Channel::parse).transpose().map_err(|error| wrong("channel", &error))?;
    currency.map(Currency::parse).transpose().map_err(|error| wrong("currency", &error))?;
    Ok(())
}

/// Draft a policy. It holds once another person has approved it and it was activated.
#[utoipa::path(post, path = "/limit-policies", tag = "limit-policies",
    operation_id = "create_limit_policy", request_body = PolicyRequest,
    responses((status = CREATED, body = LimitPolicy), Problems, BodyProblems, NotFound))]
async fn create(
    State(admin): State<Admin>,
    caller: Caller,
    Json(body): Json<PolicyRequest>,
) -> Answer<(StatusCode, Json<LimitPolicy>)> {
    writer(&caller, Permission::PoliciesWrite)?;
    let policy =
        repository(&admin).create(by(&caller, body.reason.as_deref())?, &body.policy).await.map_err(problem_of)?;
    Ok((StatusCode::CREATED, Json(policy)))
}

pub(super) fn writer(caller: &Caller, permission: Permission) -> Answer<()> {
    caller.require(permission)?;
    caller.require_all_merchants()
}

/// For which payment the policy is asked.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct EffectiveQuery {
    #[param(max_length = 64)]
    merchant_id: String,
    /// ISO 4217 code; USD where none is given.
    currency: Option<String>,
    /// The policy for all channels where none is given.
    #[param(max_length = 32)]
    channel: Option<String>,
}

/// The currency of a request that names none.
const CURRENCY_DEFAULT: &str = "USD";

/// The policy in force for a merchant now.
#[utoipa::path(get, path = "/limit-policies/effective", tag = "limit-policies",
    operation_id = "effective_limit_policy", params(EffectiveQuery),
    responses((status = OK, body = EffectivePolicy), Problems, NotFound))]
async fn effective(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<EffectiveQuery>,
) -> Answer<Json<EffectivePolicy>> {
    caller.require(Permission::QuotasRead)?;
    let refused = |field: &'static str| move |error: &dyn std::fmt::Display| Problem::field(field, error.to_string());
    let merchant = MerchantId::parse(&query.merchant_id).map_err(|error| refused("merchant_id")(&error))?;
    let currency = Currency::parse(query.currency.as_deref().unwrap_or(CURRENCY_DEFAULT))
        .map_err(|error| refused("currency")(&error))?;
    let channel =
        query.channel.as_deref().map(Channel::parse).transpose().map_err(|error| refused("channel")(&error))?;
    caller.may_see(&merchant)?;
    let now_ms = admin.operations.clock().now_ms();
    let policy = admin.operations.policies().effective(&merchant, currency, channel.as_ref(), now_ms).await;
    let policy = policy.ok_or_else(|| Problem::new(Kind::NotFound).detail("no policy is in force for the merchant"))?;
    let at = DateTime::from_timestamp_millis(now_ms).unwrap_or_default();
    Ok(Json(EffectivePolicy::new(&merchant, currency, channel.as_ref(), &policy, at)))
}

/// Which version of a policy is asked for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct VersionQuery {
    /// The latest where none is given.
    version: Option<i32>,
}

/// One policy.
#[utoipa::path(get, path = "/limit-policies/{policy_id}", tag = "limit-policies",
    operation_id = "get_limit_policy", params(("policy_id" = Uuid, Path), VersionQuery), responses((status = OK, body = LimitPolicy), Problems, NotFound))]
async fn get(
    State(admin): State<Admin>,
    caller: Caller,
    Path(policy_id): Path<Uuid>,
    Query(query): Query<VersionQuery>,
) -> Answer<Json<LimitPolicy>> {
    writer(&caller, Permission::PoliciesRead)?;
    Ok(Json(repository(&admin).get(policy_id, query.version).await.map_err(problem_of)?))
}

/// Change a draft, or draft the next version of a policy. What is active stays until that one is activated.
#[utoipa::path(put, path = "/limit-policies/{policy_id}", tag = "limit-policies",
    operation_id = "update_limit_policy", params(("policy_id" = Uuid, Path)),
    request_body = PolicyRequest, responses((status = OK, body = LimitPolicy), Problems, BodyProblems, NotFound))]
async fn update(
    State(admin): State<Admin>,
    caller: Caller,
    Path(policy_id): Path<Uuid>,
    Json(body): Json<PolicyRequest>,
) -> Answer<Json<LimitPolicy>> {
    writer(&caller, Permission::PoliciesWrite)?;
    let by = by(&caller, body.reason.as_deref())?;
    Ok(Json(repository(&admin).update(by, policy_id, &body.policy, body.expected_revision).await.map_err(problem_of)?))
}

/// Take a policy out of force for good. Its history stays.
#[utoipa::path(delete, path = "/limit-policies/{policy_id}", tag = "limit-policies",
    operation_id = "delete_limit_policy", params(("policy_id" = Uuid, Path)),
    responses((status = OK, body = LimitPolicy), Problems, NotFound, Refusals))]
async fn delete(State(admin): State<Admin>, caller: Caller, Path(policy_id): Path<Uuid>) -> Answer<Json<LimitPolicy>> {
    writer(&caller, Permission::PoliciesApprove)?;
    Ok(Json(repository(&admin).delete(by(&caller, None)?, policy_id).await.map_err(problem_of)?))
}

/// Approve a draft that another person wrote.
#[utoipa::path(post, path = "/limit-policies/{policy_id}/approve", tag = "limit-policies",
    operation_id = "approve_limit_policy", params(("policy_id" = Uuid, Path)), request_body = ChangeRequest,
    responses((status = OK, body = LimitPolicy), Problems, BodyProblems, NotFound))]
async fn approve(
    State(admin): State<Admin>,
    caller: Caller,
    Path(policy_id): Path<Uuid>,
    Json(body): Json<ChangeRequest>,
) -> Answer<Json<LimitPolicy>> {
    writer(&caller, Permission::PoliciesApprove)?;
    Ok(Json(
        repository(&admin).approve(body.by(&caller)?, policy_id, body.expected_revision).await.map_err(problem_of)?,
    ))
}

/// Put an approved policy in force. Every server has it within a second.
#[utoipa::path(post, path = "/limit-policies/{policy_id}/activate", tag = "limit-policies",
    operation_id = "activate_limit_policy", params(("policy_id" = Uuid, Path)), request_body = ChangeRequest,
    responses((status = OK, body = LimitPolicy), Problems, BodyProblems, NotFound))]
async fn activate(
    State(admin): State<Admin>,
    caller: Caller,
    Path(policy_id): Path<Uuid>,
    Json(body): Json<ChangeRequest>,
) -> Answer<Json<LimitPolicy>> {
    writer(&caller, Permission::PoliciesApprove)?;
    Ok(Json(
        repository(&admin).activate(body.by(&caller)?, policy_id, body.expected_revision).await.map_err(problem_of)?,
    ))
}

/// Take a policy out of force.
#[utoipa::path(post, path = "/limit-policies/{policy_id}/deactivate", tag = "limit-policies",
    operation_id = "deactivate_limit_policy", params(("policy_id" = Uuid, Path)), request_body = ChangeRequest,
    responses((status = OK, body = LimitPolicy), Problems, BodyProblems, NotFound))]
async fn deactivate(
    State(admin): State<Admin>,
    caller: Caller,
    Path(policy_id): Path<Uuid>,
    Json(body): Json<ChangeRequest>,
) -> Answer<Json<LimitPolicy>> {
    writer(&caller, Permission::PoliciesApprove)?;
    Ok(Json(repository(&admin).deactivate(body.by(&caller)?, policy_id).await.map_err(problem_of)?))
}

/// The position in a history.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HistoryPlace(pub i64);

impl Cursor for HistoryPlace {}

/// Who changed the policy, when, why and how.
#[utoipa::path(get, path = "/limit-policies/{policy_id}/history", tag = "limit-policies",
    operation_id = "limit_policy_history", params(("policy_id" = Uuid, Path), super::page::PageQuery),
    responses((status = OK, body = Page<Change>), Problems))]
async fn history(
    State(admin): State<Admin>,
    caller: Caller,
    Path(policy_id): Path<Uuid>,
    Query(query): Query<super::page::PageQuery>,
) -> Answer<Json<Page<Change>>> {
    writer(&caller, Permission::PoliciesRead)?;
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let after = query.cursor.as_deref().map(HistoryPlace::decode).transpose()?.map(|HistoryPlace(id)| id);
    let rows = repository(&admin).history(policy_id, after, page_max + 1).await.map_err(problem_of)?;
    Ok(Json(Page::from_rows(rows, page_max, |change| HistoryPlace(change.history_id))))
}
