//! All credit lines together: what they owe by days past due, and their sums.

use std::collections::BTreeMap;

use axum::extract::State;
use jiff::civil::Date;
use serde::Serialize;
use sluice_credit::{Ageing, LineHistory, Obligation, Stage};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{repository, today};
use crate::admin::openapi::Problems;
use crate::admin::policies::problem_of;
use crate::admin::problem::Answer;
use crate::admin::{Admin, Caller, Json, Permission};
use sluice_lines::{LineKey, LineRecord};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(ageing)).routes(routes!(stats))
}

/// What is billed and not paid, of all lines of a currency. Amounts are minor units.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct CurrencyAgeing {
    currency: String,
    lines: u64,
    #[serde(flatten)]
    ageing: Ageing,
}

/// What is billed and not paid, by days past due.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct AgeingAnswer {
    currencies: Vec<CurrencyAgeing>,
}

/// What all lines owe, by days past due and currency.
#[utoipa::path(get, path = "/credit/ageing", tag = "credit", operation_id = "credit_ageing",
    responses((status = OK, body = AgeingAnswer), Problems))]
async fn ageing(State(admin): State<Admin>, caller: Caller) -> Answer<Json<AgeingAnswer>> {
    let mut sums: BTreeMap<&'static str, CurrencyAgeing> = BTreeMap::new();
    each_line(&admin, &caller, |key, record, date| {
        let Some(line) = record.line() else { return };
        let (books, _) = record.books();
        let history = LineHistory { terms: &line.terms, obligations: books.obligations(), pauses: &record.pauses };
        let currency = key.1.code();
        let sum = sums.entry(currency).or_insert_with(|| CurrencyAgeing {
            currency: currency.to_owned(),
            lines: 0,
            ageing: Ageing::default(),
        });
        sum.lines += 1;
        sum.ageing += history.overdue(date).ageing;
    })
    .await?;
    Ok(Json(AgeingAnswer { currencies: sums.into_values().collect() }))
}

/// All lines of a currency together. Amounts are minor units.
#[derive(Clone, Debug, Default, Serialize, ToSchema)]
struct CurrencyCredit {
    currency: String,
    lines: u64,
    /// The sum of the limits in force.
    limit: i64,
    /// Of statements, neither paid nor written off.
    billed: i64,
    unapplied: i64,
    written_off: i64,
    past_due: i64,
    /// Lines in each stage.
    stages: BTreeMap<String, u64>,
    /// Lines of each grade.
    grades: BTreeMap<String, u64>,
}

/// Credit lines together, by currency.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct CreditStats {
    currencies: Vec<CurrencyCredit>,
}

/// Sums over all lines that the caller may see.
#[utoipa::path(get, path = "/credit/stats", tag = "credit", operation_id = "credit_stats",
    responses((status = OK, body = CreditStats), Problems))]
async fn stats(State(admin): State<Admin>, caller: Caller) -> Answer<Json<CreditStats>> {
    let mut sums: BTreeMap<&'static str, CurrencyCredit> = BTreeMap::new();
    let bands = admin.operations.lines().bands();
    each_line(&admin, &caller, |key, record, date| {
        let (books, _) = record.books();
        let Some(day) = record.on(&books, &bands, date) else { return };
        let currency = key.1.code();
        let sum = sums
            .entry(currency)
            .or_insert_with(|| CurrencyCredit { currency: currency.to_owned(), ..CurrencyCredit::default() });
        sum.lines += 1;
        sum.limit = sum.limit.saturating_add(day.limit.limit);
        sum.billed = sum.billed.saturating_add(books.billed());
        sum.unapplied = sum.unapplied.saturating_add(books.unapplied());
        sum.written_off += books.obligations().iter().map(Obligation::written_off).sum::<i64>();
        sum.past_due = sum.past_due.saturating_add(day.overdue.past_due);
        *sum.stages.entry(Stage::as_str(day.standing.stage).to_owned()).or_default() += 1;
        *sum.grades.entry(day.grade.as_str().to_owned()).or_default() += 1;
    })
    .await?;
    Ok(Json(CreditStats { currencies: sums.into_values().collect() }))
}

/// Lines that are read at a time.
const LINES_PER_READ: i64 = 200;

/// Goes through every line that the caller may see, each with its business day.
async fn each_line(
    admin: &Admin,
    caller: &Caller,
    mut take: impl FnMut(&LineKey, &LineRecord, Date) + Send,
) -> Answer<()> {
    caller.require(Permission::CreditRead)?;
    let own = caller.narrow(None)?;
    let lines = repository(admin);
    let mut after: Option<LineKey> = None;
    loop {
        let keys = lines.keys(own.as_ref(), after.as_ref(), LINES_PER_READ).await.map_err(problem_of)?;
        let Some(last) = keys.last() else { return Ok(()) };
        after = Some(last.clone());
        for (key, record) in lines.records(&keys).await.map_err(problem_of)? {
            let date = today(admin, (&key.0, key.1)).await?;
            take(&key, &record, date);
        }
    }
}
