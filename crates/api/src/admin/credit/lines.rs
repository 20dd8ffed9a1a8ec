//! Credit lines: drafts, their approval by another person, what is in force, and how a line stands today.

use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use sluice_policy_source::postgres::PolicyRepository;
use sluice_policy_source::postgres::model::Change;
use tracing::warn;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{LinePath, never_in_force, patch, record, repository, today};
use crate::admin::execute::{actor, no_decision, parse_currency, parse_merchant};
use crate::admin::openapi::{BodyProblems, NotFound, Problems, Refusals};
use crate::admin::page::{Cursor, Page, PageQuery, TimeId, limit};
use crate::admin::policies::{ChangeRequest, HistoryPlace, by, problem_of, writer};
use crate::admin::problem::Answer;
use crate::admin::{Admin, Caller, Json, Path, Permission, Query};
use sluice_lines::{CreditLine, LineFilter, LineInput, LineKey, LineRecord, LineState, LineToday, LineUsage, LineView};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(get, update))
        .routes(routes!(approve))
        .routes(routes!(activate))
        .routes(routes!(close))
        .routes(routes!(history))
}

/// Which lines are listed.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    #[param(max_length = 64)]
    merchant_id: Option<String>,
    currency: Option<String>,
    state: Option<LineState>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// Credit lines, the newest first, each in its latest version; for a merchant in the latest one that was in force.
#[utoipa::path(get, path = "/credit-lines", tag = "credit", operation_id = "list_credit_lines", params(ListQuery),
    responses((status = OK, body = Page<CreditLine>), Problems))]
async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Answer<Json<Page<CreditLine>>> {
    caller.require(Permission::CreditRead)?;
    let merchant = caller.narrow(query.merchant_id.as_deref().map(parse_merchant).transpose()?)?;
    let currency = query.currency.as_deref().map(parse_currency).transpose()?;
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let after = query.cursor.as_deref().map(TimeId::decode).transpose()?.map(|TimeId(at, id)| (at, id));
    let filter = LineFilter {
        merchant_id: merchant.map(|merchant| merchant.to_string()),
        currency: currency.map(|currency| currency.to_string()),
        state: query.state,
        was_in_force: caller.merchant.is_some(),
    };
    let rows = repository(&admin).list(&filter, after, page_max + 1).await.map_err(problem_of)?;
    let mut page = Page::from_rows(rows, page_max, |line: &CreditLine| TimeId(line.created_at, line.line_id));
    if caller.merchant.is_some() {
        page.items = page.items.into_iter().map(CreditLine::for_merchant).collect();
    }
    Ok(Json(page))
}

/// A credit line, and why it is drafted.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LineRequest {
    line: LineInput,
    /// Kept in the history.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// Draft a credit line for an account. It is in force once another person has approved it and it was activated.
#[utoipa::path(post, path = "/credit-lines", tag = "credit", operation_id = "create_credit_line",
    request_body = LineRequest, responses((status = CREATED, body = CreditLine), Problems, BodyProblems, Refusals))]
async fn create(
    State(admin): State<Admin>,
    caller: Caller,
    Json(body): Json<LineRequest>,
) -> Answer<(StatusCode, Json<CreditLine>)> {
    writer(&caller, Permission::CreditWrite)?;
    let key = (parse_merchant(&body.line.merchant_id)?, parse_currency(&body.line.currency)?);
    let today = today(&admin, (&key.0, key.1)).await?;
    let by = by(&caller, body.reason.as_deref())?;
    Ok((StatusCode::CREATED, Json(repository(&admin).create(by, &body.line, today).await.map_err(problem_of)?)))
}

/// One credit line: its terms, what it comes to today, and what will follow if nothing is paid. A merchant reads what is or was in
/// force, without remarks and names.
#[utoipa::path(get, path = "/credit-lines/{merchant_id}/{currency}", tag = "credit", operation_id = "get_credit_line",
    params(LinePath), responses((status = OK, body = LineView), Problems, NotFound))]
async fn get(State(admin): State<Admin>, caller: Caller, Path(path): Path<LinePath>) -> Answer<Json<LineView>> {
    let key = path.allowed(&caller, Permission::CreditRead)?;
    let latest = repository(&admin).get(&key).await.map_err(problem_of)?;
    let record = repository(&admin).record(&key).await.map_err(problem_of)?;
    let today = if record.line().is_some() { line_today(&admin, &key, &record).await? } else { None };
    let view = LineView::of(latest, &record, today);
    match caller.merchant {
        Some(_) => view.for_merchant().map(Json).ok_or_else(never_in_force),
        None => Ok(Json(view)),
    }
}

async fn line_today(admin: &Admin, key: &LineKey, record: &LineRecord) -> Answer<Option<LineToday>> {
    let date = today(admin, (&key.0, key.1)).await?;
    let found = admin.operations.store().redis().account_of_merchant(&key.0, key.1).await;
    let (account, _) = found.map_err(|error| no_decision(&error))?;
    Ok(LineToday::of(record, &admin.operations.lines().bands(), LineUsage::of(account.as_ref()), date))
}

/// Changes of a credit line, and why.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct LinePatch {
    /// The members that change, as in a new line; null removes one, and an object as `terms` changes its own members (RFC 7396). What
    /// is no member of a line is refused, whatever its value.
    #[schema(value_type = Object)]
    line: serde_json::Map<String, serde_json::Value>,
    /// Kept in the history.
    #[schema(max_length = 1024)]
    reason: Option<String>,
    /// The `revision` that the change was decided on; another one refuses it.
    expected_revision: Option<i64>,
}

/// Change a draft, or draft the next version of a line. What is in force stays until that one is activated.
#[utoipa::path(patch, path = "/credit-lines/{merchant_id}/{currency}", tag = "credit", operation_id = "update_credit_line",
    params(LinePath), request_body = LinePatch,
    responses((status = OK, body = CreditLine), Problems, BodyProblems, NotFound, Refusals))]
async fn update(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Json(body): Json<LinePatch>,
) -> Answer<Json<CreditLine>> {
    writer(&caller, Permission::CreditWrite)?;
    let key = path.allowed(&caller, Permission::CreditWrite)?;
    patch::check(&body.line)?;
    let today = today(&admin, (&key.0, key.1)).await?;
    let by = by(&caller, body.reason.as_deref())?;
    let updated = repository(&admin).update(by, &key, body.line, body.expected_revision, today).await;
    Ok(Json(updated.map_err(problem_of)?))
}

/// Approve a draft that another person wrote.
#[utoipa::path(post, path = "/credit-lines/{merchant_id}/{currency}/approve", tag = "credit",
    operation_id = "approve_credit_line", params(LinePath), request_body = ChangeRequest,
    responses((status = OK, body = CreditLine), Problems, BodyProblems, NotFound, Refusals))]
async fn approve(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Json(body): Json<ChangeRequest>,
) -> Answer<Json<CreditLine>> {
    writer(&caller, Permission::CreditApprove)?;
    let key = path.allowed(&caller, Permission::CreditApprove)?;
    let approved = repository(&admin).approve(body.by(&caller)?, &key, body.expected_revision).await;
    Ok(Json(approved.map_err(problem_of)?))
}

/// Put an approved line in force. Every server has it within a second.
#[utoipa::path(post, path = "/credit-lines/{merchant_id}/{currency}/activate", tag = "credit",
    operation_id = "activate_credit_line", params(LinePath), request_body = ChangeRequest,
    responses((status = OK, body = CreditLine), Problems, BodyProblems, NotFound, Refusals))]
async fn activate(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Json(body): Json<ChangeRequest>,
) -> Answer<Json<CreditLine>> {
    writer(&caller, Permission::CreditApprove)?;
    let key = path.allowed(&caller, Permission::CreditApprove)?;
    let (today, bands) = (today(&admin, (&key.0, key.1)).await?, admin.operations.lines().bands());
    let lines = repository(&admin);
    let activated = lines.activate(body.by(&caller)?, &key, body.expected_revision, &bands, today).await;
    let activated = activated.map_err(problem_of)?;
    let record = record(&admin, &key).await?;
    if let Some(day) = record.on(&record.books().0, &bands, today)
        && let Err(error) = admin.operations.open_line(&actor(&caller), &key.0, key.1, day).await
    {
        let (merchant, currency) = key;
        warn!(%merchant, %currency, %error, "the store keeps the exposure of a new credit line from the next payment on");
    }
    Ok(Json(activated))
}

/// End a credit line: it takes no new payments, and what is owed stays owed. A draft is withdrawn.
#[utoipa::path(post, path = "/credit-lines/{merchant_id}/{currency}/close", tag = "credit",
    operation_id = "close_credit_line", params(LinePath), request_body = ChangeRequest,
    responses((status = OK, body = CreditLine), Problems, BodyProblems, NotFound, Refusals))]
async fn close(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Json(body): Json<ChangeRequest>,
) -> Answer<Json<CreditLine>> {
    writer(&caller, Permission::CreditApprove)?;
    let key = path.allowed(&caller, Permission::CreditApprove)?;
    let today = today(&admin, (&key.0, key.1)).await?;
    let closed = repository(&admin).close(body.by(&caller)?, &key, body.expected_revision, today).await;
    Ok(Json(closed.map_err(problem_of)?))
}

/// Who changed the line, when, why and how.
#[utoipa::path(get, path = "/credit-lines/{merchant_id}/{currency}/history", tag = "credit",
    operation_id = "credit_line_history", params(LinePath, PageQuery),
    responses((status = OK, body = Page<Change>), Problems, NotFound))]
async fn history(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<Page<Change>>> {
    writer(&caller, Permission::CreditRead)?;
    let key = path.allowed(&caller, Permission::CreditRead)?;
    let line = repository(&admin).get(&key).await.map_err(problem_of)?;
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let after = query.cursor.as_deref().map(HistoryPlace::decode).transpose()?.map(|HistoryPlace(id)| id);
    let changes = PolicyRepository::new(admin.pool.clone(), admin.operations.policies());
    let rows = changes.history(line.line_id, after, page_max + 1).await.map_err(problem_of)?;
    Ok(Json(Page::from_rows(rows, page_max, |change| HistoryPlace(change.history_id))))
}
