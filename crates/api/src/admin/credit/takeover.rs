//! Lines that are taken over from another system: the statements that were open there.

use axum::extract::State;
use quota::Code;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::books::note;
use super::{LinePath, record};
use crate::admin::execute::{self, Requested};
use crate::admin::openapi::{BodyProblems, NotFound, Problems, Refusals};
use crate::admin::policies::writer;
use crate::admin::problem::{Answer, Kind, Problem};
use crate::admin::{Admin, Caller, Json, Path, Permission};
use sluice_decision::operations::{PostingAnswer, Request};
use sluice_lines::{LineKey, OpenObligation, OpeningError};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(create))
}

/// Statements that were open where the line comes from.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TakeoverRequest {
    /// Each is of a cycle of the line that was over when the line was put in force here.
    #[schema(min_items = 1, max_items = 120)]
    obligations: Vec<OpenObligation>,
    /// For the usage log.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// What was taken over.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(super) struct TakeoverAnswer {
    /// Oldest first.
    obligations: Vec<PostingAnswer>,
}

/// Take over statements that are open in the system that the line comes from. They raise the exposure, above the limit too, and are
/// due, repaid and overdue as those that are made here. Sent again, nothing changes.
#[utoipa::path(post, path = "/credit-lines/{merchant_id}/{currency}/obligations", tag = "credit",
    operation_id = "take_over_obligations", params(LinePath), request_body = TakeoverRequest,
    responses((status = OK, body = TakeoverAnswer), Problems, BodyProblems, NotFound, Refusals))]
async fn create(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Json(body): Json<TakeoverRequest>,
) -> Answer<Json<TakeoverAnswer>> {
    let key = path.allowed(&caller, Permission::CreditPost)?;
    Ok(Json(take_over(&admin, &caller, &key, body).await?))
}

/// Posts each statement, the oldest first, once all are valid.
pub(super) async fn take_over(
    admin: &Admin,
    caller: &Caller,
    key: &LineKey,
    body: TakeoverRequest,
) -> Answer<TakeoverAnswer> {
    writer(caller, Permission::CreditPost)?;
    let reason = note("reason", body.reason)?;
    let openings = record(admin, key).await?.openings(key.1, &body.obligations).map_err(problem)?;
    let mut obligations = Vec::with_capacity(openings.len());
    for opening in openings {
        let request = Request { reason: reason.clone(), ..Request::opening(key, opening) };
        let requested = Requested::numbered(request, Permission::CreditPost);
        obligations.push(PostingAnswer::of(&execute::execute(admin, caller, Ok(requested)).await?));
    }
    Ok(TakeoverAnswer { obligations })
}

fn problem(error: OpeningError) -> Problem {
    let OpeningError { field, problem, is_amount } = error;
    if field.is_empty() {
        Problem::new(Kind::Conflict).detail(problem)
    } else if is_amount {
        Problem::quota(Code::BadAmount).detail(problem).at(field)
    } else {
        Problem::field(field, problem)
    }
}
