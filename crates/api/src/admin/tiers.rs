//! `/tiers`, `/merchant-tiers` and `/policy-overrides`: which merchants share limits, and which have other limits for a time.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::openapi::{BodyProblems, NotFound, Problems};
use super::page::{Cursor, Page, PageQuery, TimeId, limit};
use super::policies::{ChangeRequest, by, check_filter, problem_of, repository, writer};
use super::problem::Answer;
use super::{Admin, Caller, Json, Path, Permission, Query};
use sluice_policy_source::postgres::ScopeFilter;
use sluice_policy_source::postgres::model::{Binding, BindingInput, Override, OverrideInput, Tier, TierInput};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(list_tiers, create_tier))
        .routes(routes!(get_tier, update_tier, delete_tier))
        .routes(routes!(list_bindings, bind))
        .routes(routes!(unbind))
        .routes(routes!(list_overrides, create_override))
        .routes(routes!(get_override))
        .routes(routes!(approve_override))
        .routes(routes!(revoke_override))
}

/// Tiers, the newest first.
#[utoipa::path(get, path = "/tiers", tag = "tiers", params(PageQuery),
    responses((status = OK, body = Page<Tier>), Problems))]
async fn list_tiers(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Answer<Json<Page<Tier>>> {
    writer(&caller, Permission::PoliciesRead)?;
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let after = query.cursor.as_deref().map(TimeId::decode).transpose()?.map(|TimeId(at, id)| (at, id));
    let rows = repository(&admin).list_tiers(after, page_max + 1).await.map_err(problem_of)?;
    Ok(Json(Page::from_rows(rows, page_max, |tier| TimeId(tier.created_at, tier.tier_id))))
}

/// Make a tier. Its limits are the policies that name it.
#[utoipa::path(post, path = "/tiers", tag = "tiers", request_body = TierInput,
    responses((status = CREATED, body = Tier), Problems, BodyProblems))]
async fn create_tier(
    State(admin): State<Admin>,
    caller: Caller,
    Json(body): Json<TierInput>,
) -> Answer<(StatusCode, Json<Tier>)> {
    writer(&caller, Permission::PoliciesWrite)?;
    Ok((
        StatusCode::CREATED,
        Json(repository(&admin).create_tier(by(&caller, None)?, &body).await.map_err(problem_of)?),
    ))
}

/// One tier.
#[utoipa::path(get, path = "/tiers/{tier_id}", tag = "tiers", params(("tier_id" = Uuid, Path)),
    responses((status = OK, body = Tier), Problems, NotFound))]
async fn get_tier(State(admin): State<Admin>, caller: Caller, Path(tier_id): Path<Uuid>) -> Answer<Json<Tier>> {
    writer(&caller, Permission::PoliciesRead)?;
    Ok(Json(repository(&admin).get_tier(tier_id).await.map_err(problem_of)?))
}

/// The `revision` that a change was decided on.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct RevisionQuery {
    /// Another one refuses the change.
    pub(super) expected_revision: Option<i64>,
}

/// Change a tier.
#[utoipa::path(put, path = "/tiers/{tier_id}", tag = "tiers", params(("tier_id" = Uuid, Path), RevisionQuery),
    request_body = TierInput, responses((status = OK, body = Tier), Problems, BodyProblems, NotFound))]
async fn update_tier(
    State(admin): State<Admin>,
    caller: Caller,
    Path(tier_id): Path<Uuid>,
    Query(query): Query<RevisionQuery>,
    Json(body): Json<TierInput>,
) -> Answer<Json<Tier>> {
    writer(&caller, Permission::PoliciesApprove)?;
    let by = by(&caller, None)?;
    Ok(Json(repository(&admin).update_tier(by, tier_id, &body, query.expected_revision).await.map_err(problem_of)?))
}

/// Remove a tier that no merchant and no policy in force names.
#[utoipa::path(delete, path = "/tiers/{tier_id}", tag = "tiers", params(("tier_id" = Uuid, Path)),
    responses((status = NO_CONTENT), Problems, NotFound,
        (status = CONFLICT, body = super::Problem, content_type = "application/problem+json")))]
async fn delete_tier(State(admin): State<Admin>, caller: Caller, Path(tier_id): Path<Uuid>) -> Answer<StatusCode> {
    writer(&caller, Permission::PoliciesApprove)?;
    repository(&admin).delete_tier(by(&caller, None)?, tier_id).await.map_err(problem_of)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Which merchant's.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ScopeQuery {
    #[param(max_length = 64)]
    merchant_id: Option<String>,
    /// Of one tier only; overrides have none.
    tier_id: Option<Uuid>,
    /// Those in force now only.
    in_force: Option<bool>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// A page's filter, position and length.
type PageRequest = (ScopeFilter, Option<(chrono::DateTime<chrono::Utc>, Uuid)>, i64);

impl ScopeQuery {
    fn read(self, admin: &Admin) -> Answer<PageRequest> {
        let page_max = limit(self.limit, admin.live.current().admin_page_max)?;
        let after = self.cursor.as_deref().map(TimeId::decode).transpose()?.map(|TimeId(at, id)| (at, id));
        check_filter(self.merchant_id.as_deref(), None, None)?;
        let filter = ScopeFilter {
            merchant_id: self.merchant_id,
            tier_id: self.tier_id,
            in_force: self.in_force.unwrap_or_default(),
        };
        Ok((filter, after, page_max))
    }
}

/// Which merchants belong to which tiers, the newest first.
#[utoipa::path(get, path = "/merchant-tiers", tag = "tiers", params(ScopeQuery),
    responses((status = OK, body = Page<Binding>), Problems))]
async fn list_bindings(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<ScopeQuery>,
) -> Answer<Json<Page<Binding>>> {
    writer(&caller, Permission::PoliciesRead)?;
    let (filter, after, page_max) = query.read(&admin)?;
    let rows = repository(&admin).list_bindings(&filter, after, page_max + 1).await.map_err(problem_of)?;
    Ok(Json(Page::from_rows(rows, page_max, |binding| TimeId(binding.created_at, binding.binding_id))))
}

/// Put a merchant into a tier.
#[utoipa::path(post, path = "/merchant-tiers", tag = "tiers", request_body = BindingInput,
    responses((status = CREATED, body = Binding), Problems, BodyProblems, NotFound))]
async fn bind(
    State(admin): State<Admin>,
    caller: Caller,
    Json(body): Json<BindingInput>,
) -> Answer<(StatusCode, Json<Binding>)> {
    writer(&caller, Permission::PoliciesApprove)?;
    Ok((StatusCode::CREATED, Json(repository(&admin).bind(by(&caller, None)?, &body).await.map_err(problem_of)?)))
}

/// Take a merchant out of a tier.
#[utoipa::path(delete, path = "/merchant-tiers/{binding_id}", tag = "tiers", params(("binding_id" = Uuid, Path)),
    responses((status = OK, body = Binding), Problems, NotFound,
        (status = CONFLICT, body = super::Problem, content_type = "application/problem+json")))]
async fn unbind(State(admin): State<Admin>, caller: Caller, Path(binding_id): Path<Uuid>) -> Answer<Json<Binding>> {
    writer(&caller, Permission::PoliciesApprove)?;
    Ok(Json(repository(&admin).unbind(by(&caller, None)?, binding_id).await.map_err(problem_of)?))
}

/// Limits for a time, the newest first.
#[utoipa::path(get, path = "/policy-overrides", tag = "policy-overrides", params(ScopeQuery),
    responses((status = OK, body = Page<Override>), Problems))]
async fn list_overrides(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<ScopeQuery>,
) -> Answer<Json<Page<Override>>> {
    writer(&caller, Permission::PoliciesRead)?;
    let (filter, after, page_max) = query.read(&admin)?;
    let rows = repository(&admin).list_overrides(&filter, after, page_max + 1).await.map_err(problem_of)?;
    Ok(Json(Page::from_rows(rows, page_max, |row| TimeId(row.created_at, row.override_id))))
}

/// Ask for other limits for a merchant for a time. They hold once another person has approved them.
#[utoipa::path(post, path = "/policy-overrides", tag = "policy-overrides", request_body = OverrideInput,
    responses((status = CREATED, body = Override), Problems, BodyProblems))]
async fn create_override(
    State(admin): State<Admin>,
    caller: Caller,
    Json(body): Json<OverrideInput>,
) -> Answer<(StatusCode, Json<Override>)> {
    writer(&caller, Permission::PoliciesWrite)?;
    Ok((
        StatusCode::CREATED,
        Json(repository(&admin).create_override(by(&caller, None)?, &body).await.map_err(problem_of)?),
    ))
}

/// One override.
#[utoipa::path(get, path = "/policy-overrides/{override_id}", tag = "policy-overrides",
    params(("override_id" = Uuid, Path)), responses((status = OK, body = Override), Problems, NotFound))]
async fn get_override(
    State(admin): State<Admin>,
    caller: Caller,
    Path(override_id): Path<Uuid>,
) -> Answer<Json<Override>> {
    writer(&caller, Permission::PoliciesRead)?;
    Ok(Json(repository(&admin).get_override(override_id).await.map_err(problem_of)?))
}

/// Approve limits that another person asked for.
#[utoipa::path(post, path = "/policy-overrides/{override_id}/approve", tag = "policy-overrides",
    params(("override_id" = Uuid, Path)), request_body = ChangeRequest,
    responses((status = OK, body = Override), Problems, BodyProblems, NotFound))]
async fn approve_override(
    State(admin): State<Admin>,
    caller: Caller,
    Path(override_id): Path<Uuid>,
    Json(body): Json<ChangeRequest>,
) -> Answer<Json<Override>> {
    writer(&caller, Permission::PoliciesApprove)?;
    Ok(Json(repository(&admin).approve_override(body.by(&caller)?, override_id).await.map_err(problem_of)?))
}

/// End limits before their time.
#[utoipa::path(post, path = "/policy-overrides/{override_id}/revoke", tag = "policy-overrides",
    params(("override_id" = Uuid, Path)), request_body = ChangeRequest,
    responses((status = OK, body = Override), Problems, BodyProblems, NotFound))]
async fn revoke_override(
    State(admin): State<Admin>,
    caller: Caller,
    Path(override_id): Path<Uuid>,
    Json(body): Json<ChangeRequest>,
) -> Answer<Json<Override>> {
    writer(&caller, Permission::PoliciesApprove)?;
    Ok(Json(repository(&admin).revoke_override(body.by(&caller)?, override_id).await.map_err(problem_of)?))
}
