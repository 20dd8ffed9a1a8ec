//! Grades of lines: how each came about, and overrides by two persons.

use axum::extract::State;
use axum::http::StatusCode;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sluice_credit::{Grade, StatementTerms};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{LinePath, record, today};
use crate::admin::openapi::{BodyProblems, NotFound, Problems, Refusals};
use crate::admin::policies::{by, problem_of, writer};
use crate::admin::problem::Answer;
use crate::admin::{Admin, Caller, Json, Path, Permission};
use sluice_lines::{GradeRow, NextRun, OverrideRepository, RunRepository};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(grade, request)).routes(routes!(approve))
}

/// Decisions about a grade that an answer has at most: the latest.
const DECISIONS_MAX: i64 = 100;

/// The grade of a line, and how it came about.
#[derive(Debug, Serialize, ToSchema)]
struct GradeAnswer {
    /// In force today.
    grade: Grade,
    /// What the line was opened with, or the scorecard decided.
    decided: Grade,
    /// The override that is in force.
    overridden: Option<GradeRow>,
    /// What a statement is made by that closes today: the line's terms, or those of the grade.
    statement_terms: Option<StatementTerms>,
    /// The latest decisions, the newest first: what the line was opened with, runs of the scorecard, overrides.
    decisions: Vec<GradeRow>,
    /// When the scorecard runs next if nothing is paid; none where the line is closed.
    next_run: Option<NextRun>,
}

/// The grade of a line, with the runs of the scorecard and the overrides that led to it.
#[utoipa::path(get, path = "/credit-lines/{merchant_id}/{currency}/grade", tag = "credit", operation_id = "get_grade",
    params(LinePath), responses((status = OK, body = GradeAnswer), Problems, NotFound))]
async fn grade(State(admin): State<Admin>, caller: Caller, Path(path): Path<LinePath>) -> Answer<Json<GradeAnswer>> {
    let key = path.allowed(&caller, Permission::CreditRead)?;
    let record = record(&admin, &key).await?;
    let date = today(&admin, (&key.0, key.1)).await?;
    let grade = record.grade(date);
    let decided = record.decided_grade().map_or(grade, |decided| decided.grade);
    let in_force = |row: &&GradeRow| row.override_on(date).is_some();
    let shown = |row: GradeRow| if caller.merchant.is_some() { row.for_merchant() } else { Some(row) };
    let overridden = record.grades.iter().rev().find(in_force).cloned().and_then(shown);
    let runs = RunRepository::new(admin.pool.clone());
    let decisions = runs.decisions(&key, DECISIONS_MAX).await.map_err(problem_of)?;
    let decisions = decisions.into_iter().filter_map(shown).collect();
    let (statement_terms, next_run) = (record.statement_terms(date), record.next_run(date));
    Ok(Json(GradeAnswer { grade, decided, overridden, statement_terms, decisions, next_run }))
}

fn overrides(admin: &Admin) -> OverrideRepository {
    OverrideRepository::new(admin.pool.clone())
}

/// Another grade until a day.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct GradeRequest {
    grade: Grade,
    /// Why.
    #[schema(example = "audited accounts of 2026", max_length = 1024)]
    reason: String,
    /// The last day on which it is in force.
    #[schema(value_type = String, format = Date)]
    expires_on: Date,
}

/// Ask for another grade until a day. It is in force once another person has approved it.
#[utoipa::path(post, path = "/credit-lines/{merchant_id}/{currency}/grade", tag = "credit", operation_id = "request_grade",
    params(LinePath), request_body = GradeRequest,
    responses((status = CREATED, body = GradeRow), Problems, BodyProblems, NotFound))]
async fn request(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Json(body): Json<GradeRequest>,
) -> Answer<(StatusCode, Json<GradeRow>)> {
    writer(&caller, Permission::CreditWrite)?;
    let key = path.allowed(&caller, Permission::CreditWrite)?;
    let today = today(&admin, (&key.0, key.1)).await?;
    let by = by(&caller, Some(&body.reason))?;
    let asked = overrides(&admin).request(by, &key, body.grade, body.expires_on, today).await;
    Ok((StatusCode::CREATED, Json(asked.map_err(problem_of)?)))
}

/// Why a grade is approved.
#[derive(Clone, Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ApprovalRequest {
    /// Kept in the history.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// Which override.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct GradePath {
    #[param(max_length = 64, example = "merchant-001")]
    merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[param(example = "USD")]
    currency: String,
    /// As the request for it was answered.
    grade_id: i64,
}

/// Approve another grade that another person asked for.
#[utoipa::path(post, path = "/credit-lines/{merchant_id}/{currency}/grade/{grade_id}/approve", tag = "credit",
    operation_id = "approve_grade", params(GradePath), request_body = ApprovalRequest,
    responses((status = OK, body = GradeRow), Problems, BodyProblems, NotFound, Refusals))]
async fn approve(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<GradePath>,
    Json(body): Json<ApprovalRequest>,
) -> Answer<Json<GradeRow>> {
    let GradePath { merchant_id, currency, grade_id } = path;
    writer(&caller, Permission::CreditApprove)?;
    let key = LinePath { merchant_id, currency }.allowed(&caller, Permission::CreditApprove)?;
    let today = today(&admin, (&key.0, key.1)).await?;
    let approved = overrides(&admin).approve(by(&caller, body.reason.as_deref())?, &key, grade_id, today).await;
    Ok(Json(approved.map_err(problem_of)?))
}
