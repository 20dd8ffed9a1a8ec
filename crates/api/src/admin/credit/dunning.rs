//! Notices of dunning: those that were sent, and those that will be.

use std::collections::BTreeSet;

use axum::extract::State;
use serde::Serialize;
use sluice_credit::{DunningState, Notice, NoticeKey, Recipient};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{LinePath, record, repository, today};
use crate::admin::openapi::{NotFound, Problems};
use crate::admin::policies::problem_of;
use crate::admin::problem::Answer;
use crate::admin::{Admin, Caller, Json, Path, Permission};
use sluice_lines::NoticeRow;

/// Most notices that are shown of those that were sent.
const SENT_MAX: usize = 1_000;

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(dunning))
}

/// The notices of a line. Amounts are minor units.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct DunningView {
    /// The latest first, 1,000 at most.
    sent: Vec<NoticeRow>,
    /// Each with the day on which it will be sent, if nothing is paid and nothing more is billed.
    planned: Vec<Notice>,
}

/// The notices of a line: those that were sent, and the calendar of those that will be.
#[utoipa::path(get, path = "/credit-lines/{merchant_id}/{currency}/dunning", tag = "credit", operation_id = "get_dunning",
    params(LinePath), responses((status = OK, body = DunningView), Problems, NotFound))]
async fn dunning(State(admin): State<Admin>, caller: Caller, Path(path): Path<LinePath>) -> Answer<Json<DunningView>> {
    let key = path.allowed(&caller, Permission::CreditRead)?;
    let record = record(&admin, &key).await?;
    let date = today(&admin, (&key.0, key.1)).await?;
    let notices = repository(&admin).notices(std::slice::from_ref(&key)).await.map_err(problem_of)?;
    let mut sent = notices.into_values().next().unwrap_or_default();
    let keys: BTreeSet<NoticeKey> = sent.iter().map(NoticeRow::key).collect();
    let (books, _) = record.books();
    let active_from = record.active_from();
    let state = DunningState { active_from, sent: &keys };
    let mut planned = record.history(&books).map(|history| history.dunning_calendar(date, state)).unwrap_or_default();
    if caller.merchant.is_some() {
        sent.retain(NoticeRow::is_for_merchant);
        planned.retain(|notice| notice.step.recipients.contains(&Recipient::Merchant));
    }
    sent.reverse();
    sent.truncate(SENT_MAX);
    Ok(Json(DunningView { sent, planned }))
}
