//! `/scorecards`: drafts, the champion that decides grades, and how a challenger does beside it. Not for merchants.
//!
//! What an operation does is a function of the caller and its input; the handlers only take it from HTTP.

use axum::extract::State;
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use sluice_credit::Scorecard;
use sluice_policy_source::postgres::PolicyRepository;
use sluice_policy_source::postgres::model::Change;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::admin::openapi::{BodyProblems, NotFound, Problems, Refusals};
use crate::admin::page::{Cursor, Page, PageQuery, TimeId, limit};
use crate::admin::policies::{ChangeRequest, HistoryPlace, by, problem_of, writer};
use crate::admin::problem::Answer;
use crate::admin::{Admin, Caller, Json, Path, Permission, Query};
use sluice_lines::{ChallengerResults, RunRepository, ScorecardRepository, ScorecardRole, ScorecardRow, TrialRun};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(list, put))
        .routes(routes!(get))
        .routes(routes!(activate))
        .routes(routes!(retire))
        .routes(routes!(results))
        .routes(routes!(history))
}

/// Which scorecard.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct CardPath {
    #[param(max_length = 64, example = "standard-1")]
    version: String,
}

/// A scorecard, and why it is written.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct CardRequest {
    /// Its `version` names the draft: a new one, or one that was never in force.
    card: Scorecard,
    /// Kept in the history.
    #[schema(max_length = 1024)]
    reason: Option<String>,
    /// The `revision` that a change was decided on, 0 for a new version; another one refuses it.
    expected_revision: Option<i64>,
}

/// What a scorecard is put in force as, and why.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ActivateRequest {
    /// `champion` decides grades; `challenger` is evaluated beside it, without effect.
    role: ScorecardRole,
    /// Kept in the history.
    #[schema(max_length = 1024)]
    reason: Option<String>,
    /// The `revision` that it was decided on; another one refuses it.
    expected_revision: Option<i64>,
}

/// How a challenger did beside the champion.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(in crate::admin) struct ResultsAnswer {
    pub(in crate::admin) version: String,
    /// Of all its runs.
    #[serde(flatten)]
    pub(in crate::admin) results: ChallengerResults,
    /// A page of its runs, the latest first.
    pub(in crate::admin) items: Vec<TrialRun>,
    /// Asks for the runs after these; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::admin) next_cursor: Option<String>,
}

fn repository(admin: &Admin) -> ScorecardRepository {
    ScorecardRepository::new(admin.pool.clone())
}

/// All scorecards, where the caller may see them.
pub(in crate::admin) async fn list_cards(
    admin: &Admin,
    caller: &Caller,
    query: &PageQuery,
) -> Answer<Page<ScorecardRow>> {
    writer(caller, Permission::CreditRead)?;
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let after = query.cursor.as_deref().map(TimeId::decode).transpose()?.map(|TimeId(at, id)| (at, id));
    let rows = repository(admin).list(after, page_max + 1).await.map_err(problem_of)?;
    // The standard scorecard, which has neither, is the last one of all.
    let place = |row: &ScorecardRow| {
        TimeId(row.created_at.unwrap_or(DateTime::UNIX_EPOCH), row.scorecard_id.unwrap_or(Uuid::nil()))
    };
    Ok(Page::from_rows(rows, page_max, place))
}

/// One scorecard, where the caller may see it.
pub(in crate::admin) async fn get_card(admin: &Admin, caller: &Caller, version: &str) -> Answer<ScorecardRow> {
    writer(caller, Permission::CreditRead)?;
    repository(admin).get(version).await.map_err(problem_of)
}

/// Writes a draft in the caller's name.
pub(in crate::admin) async fn put_card(admin: &Admin, caller: &Caller, request: &CardRequest) -> Answer<ScorecardRow> {
    writer(caller, Permission::CreditWrite)?;
    let by = by(caller, request.reason.as_deref())?;
    repository(admin).put(by, &request.card, request.expected_revision).await.map_err(problem_of)
}

/// Puts a scorecard in force that others wrote.
pub(in crate::admin) async fn activate_card(
    admin: &Admin,
    caller: &Caller,
    version: &str,
    request: &ActivateRequest,
) -> Answer<ScorecardRow> {
    writer(caller, Permission::CreditApprove)?;
    let by = by(caller, request.reason.as_deref())?;
    repository(admin).activate(by, version, request.role, request.expected_revision).await.map_err(problem_of)
}

/// Ends a challenger.
pub(in crate::admin) async fn retire_card(
    admin: &Admin,
    caller: &Caller,
    version: &str,
    request: &ChangeRequest,
) -> Answer<ScorecardRow> {
    writer(caller, Permission::CreditApprove)?;
    repository(admin).retire(request.by(caller)?, version, request.expected_revision).await.map_err(problem_of)
}

/// How a challenger did, with a page of its runs.
pub(in crate::admin) async fn results_of_card(
    admin: &Admin,
    caller: &Caller,
    version: &str,
    query: &PageQuery,
) -> Answer<ResultsAnswer> {
    let card = get_card(admin, caller, version).await?.card;
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let after = query.cursor.as_deref().map(HistoryPlace::decode).transpose()?.map(|HistoryPlace(id)| id);
    let runs = RunRepository::new(admin.pool.clone());
    let results = runs.results(version).await.map_err(problem_of)?;
    let rows = runs.trial_runs(version, after, page_max + 1).await.map_err(problem_of)?;
    let Page { items, next_cursor } = Page::from_rows(rows, page_max, |run| HistoryPlace(run.grade_id));
    Ok(ResultsAnswer { version: card.version, results, items, next_cursor })
}

/// The scorecards, the newest first. The standard one comes with the release, and is in force while no other was activated.
#[utoipa::path(get, path = "/scorecards", tag = "credit", operation_id = "list_scorecards", params(PageQuery),
    responses((status = OK, body = Page<ScorecardRow>), Problems))]
async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<PageQuery>,
) -> Answer<Json<Page<ScorecardRow>>> {
    Ok(Json(list_cards(&admin, &caller, &query).await?))
}

/// One scorecard.
#[utoipa::path(get, path = "/scorecards/{version}", tag = "credit", operation_id = "get_scorecard", params(CardPath),
    responses((status = OK, body = ScorecardRow), Problems, NotFound))]
async fn get(State(admin): State<Admin>, caller: Caller, Path(path): Path<CardPath>) -> Answer<Json<ScorecardRow>> {
    Ok(Json(get_card(&admin, &caller, &path.version).await?))
}

/// Draft a scorecard, or change a draft. One that was in force does not change: draft another version.
#[utoipa::path(put, path = "/scorecards", tag = "credit", operation_id = "put_scorecard", request_body = CardRequest,
    responses((status = OK, body = ScorecardRow), Problems, BodyProblems, Refusals))]
async fn put(State(admin): State<Admin>, caller: Caller, Json(body): Json<CardRequest>) -> Answer<Json<ScorecardRow>> {
    Ok(Json(put_card(&admin, &caller, &body).await?))
}

/// Put a scorecard in force that another person wrote: as the champion, which decides grades from the next run on, or as the
/// challenger beside it. It takes the place of the one that has this role.
#[utoipa::path(post, path = "/scorecards/{version}/activate", tag = "credit", operation_id = "activate_scorecard",
    params(CardPath), request_body = ActivateRequest,
    responses((status = OK, body = ScorecardRow), Problems, BodyProblems, NotFound, Refusals))]
async fn activate(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<CardPath>,
    Json(body): Json<ActivateRequest>,
) -> Answer<Json<ScorecardRow>> {
    Ok(Json(activate_card(&admin, &caller, &path.version, &body).await?))
}

/// End a challenger. What it made of each line stays.
#[utoipa::path(post, path = "/scorecards/{version}/retire", tag = "credit", operation_id = "retire_scorecard",
    params(CardPath), request_body = ChangeRequest,
    responses((status = OK, body = ScorecardRow), Problems, BodyProblems, NotFound, Refusals))]
async fn retire(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<CardPath>,
    Json(body): Json<ChangeRequest>,
) -> Answer<Json<ScorecardRow>> {
    Ok(Json(retire_card(&admin, &caller, &path.version, &body).await?))
}

/// How a challenger did beside the champion: the grades of both, which lines were later past due by more than 30 days, and a page
/// of the runs.
#[utoipa::path(get, path = "/scorecards/{version}/results", tag = "credit", operation_id = "scorecard_results",
    params(CardPath, PageQuery), responses((status = OK, body = ResultsAnswer), Problems, NotFound))]
async fn results(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<CardPath>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<ResultsAnswer>> {
    Ok(Json(results_of_card(&admin, &caller, &path.version, &query).await?))
}

/// Who changed the scorecard, when, why and how. The standard one does not change.
#[utoipa::path(get, path = "/scorecards/{version}/history", tag = "credit", operation_id = "scorecard_history",
    params(CardPath, PageQuery), responses((status = OK, body = Page<Change>), Problems, NotFound))]
async fn history(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<CardPath>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<Page<Change>>> {
    let card = get_card(&admin, &caller, &path.version).await?;
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let after = query.cursor.as_deref().map(HistoryPlace::decode).transpose()?.map(|HistoryPlace(id)| id);
    let changes = PolicyRepository::new(admin.pool.clone(), admin.operations.policies());
    let rows = match card.scorecard_id {
        Some(id) => changes.history(id, after, page_max + 1).await.map_err(problem_of)?,
        None => Vec::new(),
    };
    Ok(Json(Page::from_rows(rows, page_max, |change| HistoryPlace(change.history_id))))
}
