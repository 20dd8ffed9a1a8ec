//! `/credit-lines`, `/credit` and `/scorecards`: limits that are used and repaid, their statements, repayments, pauses and grades.

mod books;
mod disputes;
mod dunning;
mod grades;
mod lines;
mod patch;
mod portfolio;
mod scorecards;
mod statements;
mod takeover;
mod transfers;

use jiff::civil::Date;
use quota::{Currency, MerchantId};
use serde::Deserialize;
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;

use super::execute::{parse_currency, parse_merchant};
use super::problem::{Answer, Kind, Problem};
use super::{Admin, Caller, Permission};
use sluice_lines::{LineKey, LineRecord, LineRepository, day_of};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .merge(lines::routes())
        .merge(statements::routes())
        .merge(books::routes())
        .merge(portfolio::routes())
        .merge(dunning::routes())
        .merge(grades::routes())
        .merge(takeover::routes())
        .merge(transfers::routes())
        .merge(disputes::routes())
        .merge(scorecards::routes())
}

/// Which line.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct LinePath {
    #[param(max_length = 64, example = "merchant-001")]
    merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[param(example = "USD")]
    currency: String,
}

impl LinePath {
    /// The line, where the caller has the permission and may see the merchant.
    fn allowed(&self, caller: &Caller, permission: Permission) -> Answer<LineKey> {
        caller.require(permission)?;
        let key = (parse_merchant(&self.merchant_id)?, parse_currency(&self.currency)?);
        caller.may_see(&key.0)?;
        Ok(key)
    }
}

pub(super) fn repository(admin: &Admin) -> LineRepository {
    LineRepository::new(admin.pool.clone())
}

/// The account's business day.
pub(super) async fn today(admin: &Admin, (merchant, currency): (&MerchantId, Currency)) -> Answer<Date> {
    let id = admin.operations.business_day(merchant, currency).await;
    day_of(id).ok_or_else(|| Problem::internal("a business day", &id))
}

/// The line with all that belongs to it, where one was ever in force.
async fn record(admin: &Admin, key: &LineKey) -> Answer<LineRecord> {
    let record = repository(admin).record(key).await.map_err(super::policies::problem_of)?;
    match record.line() {
        Some(_) => Ok(record),
        None => Err(never_in_force()),
    }
}

fn never_in_force() -> Problem {
    Problem::new(Kind::NotFound).detail("the account has no credit line that was ever in force")
}
