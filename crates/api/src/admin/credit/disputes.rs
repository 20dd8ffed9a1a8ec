//! Disputes of payers against a merchant's charges: an input of scorecards.

use axum::extract::State;
use axum::http::StatusCode;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{LinePath, record, today};
use crate::admin::openapi::{BodyProblems, NotFound, Problems, Refusals};
use crate::admin::page::{Cursor, Page, PageQuery, limit};
use crate::admin::policies::{HistoryPlace, by, problem_of, writer};
use crate::admin::problem::Answer;
use crate::admin::{Admin, Caller, Json, Path, Permission, Query};
use sluice_lines::{DisputeInput, DisputeRepository, DisputeRow};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(disputes, dispute))
}

fn repository(admin: &Admin) -> DisputeRepository {
    DisputeRepository::new(admin.pool.clone())
}

/// Record a dispute of a payer. The scorecard's next run counts it; the same number is recorded once.
#[utoipa::path(post, path = "/credit-lines/{merchant_id}/{currency}/disputes", tag = "credit",
    operation_id = "record_dispute", params(LinePath), request_body = DisputeInput,
    responses((status = CREATED, body = DisputeRow), Problems, BodyProblems, NotFound, Refusals))]
async fn dispute(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Json(body): Json<DisputeInput>,
) -> Answer<(StatusCode, Json<DisputeRow>)> {
    // A merchant does not decide what is known of it.
    writer(&caller, Permission::CreditPost)?;
    let key = path.allowed(&caller, Permission::CreditPost)?;
    record(&admin, &key).await?;
    let today = today(&admin, (&key.0, key.1)).await?;
    let recorded = repository(&admin).record(by(&caller, None)?, &key, &body, today).await;
    Ok((StatusCode::CREATED, Json(recorded.map_err(problem_of)?)))
}

/// The disputes of a line, the latest first.
#[utoipa::path(get, path = "/credit-lines/{merchant_id}/{currency}/disputes", tag = "credit",
    operation_id = "list_disputes", params(LinePath, PageQuery),
    responses((status = OK, body = Page<DisputeRow>), Problems, NotFound))]
async fn disputes(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<Page<DisputeRow>>> {
    let key = path.allowed(&caller, Permission::CreditRead)?;
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let after = query.cursor.as_deref().map(HistoryPlace::decode).transpose()?.map(|HistoryPlace(id)| id);
    let mut rows = repository(&admin).list(&key, after, page_max + 1).await.map_err(problem_of)?;
    if caller.merchant.is_some() {
        rows = rows.into_iter().map(DisputeRow::for_merchant).collect();
    }
    Ok(Json(Page::from_rows(rows, page_max, |row| HistoryPlace(row.dispute_id))))
}
