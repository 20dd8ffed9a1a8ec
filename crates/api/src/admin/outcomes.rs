//! `/outcomes`: unknown outcomes at the gateway, and resolving them by hand.

use axum::extract::State;
use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use super::execute::{self, parse_currency, parse_merchant};
use super::openapi::{BodyProblems, NotFound, Problems, Refusals};
use super::page::{self, Cursor, Page, TimeId};
use super::problem::{Answer, Problem};
use super::{Admin, Caller, Json, Path, Permission, Query};
use sluice_decision::operations::OperationAnswer;
use sluice_journal::outcomes::read::{self, Filter, UnknownOutcome, Verdict};
use sluice_store::REMARKS_BYTES_MAX;

/// Longest age in a filter, in seconds: ten years.
const AGE_SECS_MAX: u64 = 315_360_000;

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(unknown)).routes(routes!(resolve))
}

/// Which outcomes to list, the oldest first.
#[derive(Clone, Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct OutcomeQuery {
    #[param(max_length = 64, example = "merchant-001")]
    merchant_id: Option<String>,
    /// ISO 4217 alphabetic code.
    #[param(example = "USD")]
    currency: Option<String>,
    #[param(inline)]
    operation: Option<Operation>,
    /// Only those that are this old at least.
    #[param(maximum = 315_360_000, example = 3600)]
    older_than_secs: Option<u64>,
    /// Those that are resolved as well; only open ones by default.
    resolved: Option<bool>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// What the gateway was asked for.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema, IntoStaticStr)]
#[strum(const_into_str, serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
enum Operation {
    Consume,
    Hold,
    Settle,
    Refund,
    Void,
}

/// What became of an outcome.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ResolveRequest {
    outcome: Verdict,
    /// Why, as in what the gateway says of the order; kept with the outcome and in the usage log.
    #[schema(max_length = 1024, example = "the gateway's report of 20 November has no such order")]
    reason: String,
}

/// An outcome that was resolved, and what was done for it.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct ResolvedOutcome {
    outcome: UnknownOutcome,
    /// Absent where nothing had to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<OperationAnswer>,
}

/// Payments, captures, refunds and voids whose outcome at the gateway is unknown, some seconds behind. Their quota is kept until
/// the gateway's later word or a person resolves them.
#[utoipa::path(get, path = "/outcomes/unknown", tag = "outcomes", operation_id = "unknown_outcomes", params(OutcomeQuery),
    responses((status = OK, body = Page<UnknownOutcome>), Problems))]
async fn unknown(
    State(admin): State<Admin>,
    caller: Caller,
    Query(query): Query<OutcomeQuery>,
) -> Answer<Json<Page<UnknownOutcome>>> {
    caller.require(Permission::QuotasRead)?;
    let older_than_secs = match query.older_than_secs {
        Some(secs) if secs > AGE_SECS_MAX => {
            return Err(Problem::field("older_than_secs", format!("must be at most {AGE_SECS_MAX}")));
        }
        secs => secs.and_then(|secs| i64::try_from(secs).ok()),
    };
    let filter = Filter {
        merchant: caller.narrow(query.merchant_id.as_deref().map(parse_merchant).transpose()?)?,
        currency: query.currency.as_deref().map(parse_currency).transpose()?,
        operation: query.operation.map(|operation| operation.into_str().to_owned()),
        older_than_secs,
        with_resolved: query.resolved.unwrap_or(false),
    };
    let limit = page::limit(query.limit, admin.live.current().admin_page_max)?;
    let after = query.cursor.as_deref().map(TimeId::decode).transpose()?.map(|TimeId(at, id)| (at, id));
    let rows = read::list(&admin.pool, &filter, after, limit.saturating_add(1)).await?;
    Ok(Json(Page::from_rows(rows, limit, |last| TimeId(last.since, last.outcome_id))))
}

/// Say what became of an unknown outcome. `made`: the charge stays, the capture, refund or void is booked. `not_made`: the charge
/// comes back, a reserved refund is cancelled. Sent again it does nothing more; the other word is refused then.
#[utoipa::path(post, path = "/outcomes/{outcome_id}/resolve", tag = "outcomes", operation_id = "resolve_outcome",
    params(("outcome_id" = Uuid, Path)), request_body = ResolveRequest,
    responses((status = OK, body = ResolvedOutcome), Problems, BodyProblems, Refusals, NotFound))]
async fn resolve(
    State(admin): State<Admin>,
    caller: Caller,
    Path(outcome_id): Path<Uuid>,
    Json(body): Json<ResolveRequest>,
) -> Answer<Json<ResolvedOutcome>> {
    let reason = body.reason.trim();
    if reason.is_empty() {
        return Err(Problem::field("reason", "must say why"));
    }
    if reason.len() > REMARKS_BYTES_MAX || reason.contains('\0') {
        return Err(Problem::field("reason", format!("must have at most {REMARKS_BYTES_MAX} bytes, and no NUL")));
    }
    let resolved = execute::resolve(&admin, &caller, outcome_id, body.outcome, reason.to_owned()).await?;
    Ok(Json(ResolvedOutcome {
        outcome: resolved.outcome,
        operation: resolved.done.filter(|done| !done.is_refused()).map(|done| OperationAnswer::of(&done)),
    }))
}
