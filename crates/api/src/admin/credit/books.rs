//! What is paid: repayments, pauses and write-offs.

use std::collections::{BTreeMap, BTreeSet};

use axum::extract::State;
use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use jiff::Span;
use jiff::civil::Date;
use quota::{AmountMinor, Code, OperationNo, OrderNo, Posting, PostingKind};
use serde::{Deserialize, Serialize};
use sluice_credit::Source;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{LinePath, record, today};
use crate::admin::execute::{self, Requested};
use crate::admin::openapi::{BodyProblems, NotFound, Problems, Refusals};
use crate::admin::page::{Cursor, Page, PageQuery, limit};
use crate::admin::policies::{HistoryPlace, by, problem_of, writer};
use crate::admin::problem::{Answer, Kind, Problem};
use crate::admin::{Admin, Caller, Json, Path, Permission, Query};
use sluice_decision::decider::Decision;
use sluice_decision::operations::{PostingAnswer, Request};
use sluice_lines::{EntryKind, LineKey, LineRecord, PauseRepository, PauseRow, StoredEntry, day_of, id_of};
use sluice_store::REMARKS_BYTES_MAX;

/// How long ago money may have been received.
const RECEIVED_YEARS_MAX: i64 = 30;

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new()
        .routes(routes!(repayments, repay))
        .routes(routes!(reverse))
        .routes(routes!(write_off))
        .routes(routes!(pauses, pause))
}

/// A repayment that arrived.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct RepaymentRequest {
    /// The idempotency key: the same number with the same amount is recorded once.
    #[schema(example = "REPAYMENT-001", max_length = 128)]
    repayment_no: String,
    /// Minor units, more than 0.
    #[schema(example = 250_000, minimum = 1)]
    amount: i64,
    /// The business day on which the money was received; today where none is given.
    #[schema(value_type = Option<String>, format = Date)]
    received_on: Option<Date>,
    /// It is money for what was written off: it pays that claim, and makes no room, because the write-off has done so.
    #[serde(default)]
    is_recovery: bool,
    /// A note for the usage log.
    #[schema(max_length = 1024)]
    remarks: Option<String>,
}

/// A posting, as a caller asks for it.
struct Asked<'a> {
    kind: PostingKind,
    /// The field of its number, for errors.
    field: &'static str,
    number: &'a str,
    amount: i64,
    received_on: Option<Date>,
    reason: Option<String>,
    remarks: Option<String>,
}

/// Makes a posting in the caller's name.
async fn post(
    admin: &Admin,
    caller: &Caller,
    key: &LineKey,
    permission: Permission,
    asked: Asked<'_>,
) -> Answer<Decision> {
    let Asked { kind, field, number, amount, received_on, reason, remarks } = asked;
    OperationNo::parse(number).map_err(|error| Problem::field(field, error.to_string()))?;
    let number = OrderNo::parse(number).map_err(|error| Problem::field(field, error.to_string()))?;
    let minor = u64::try_from(amount).ok().filter(|minor| *minor > 0).and_then(AmountMinor::new);
    let problem = || {
        let detail = format!("must be 1 to {} minor units", AmountMinor::MAX);
        Problem::quota(Code::BadAmount).detail(detail).at("amount")
    };
    let posting = Posting { kind, amount: minor.ok_or_else(problem)? };
    let mut request = Request::posting(key.0.clone(), key.1, number, posting);
    let today = today(admin, (&key.0, key.1)).await?;
    let received_on = received_on.unwrap_or(today);
    if received_on < today.saturating_sub(Span::new().years(RECEIVED_YEARS_MAX)) {
        return Err(Problem::field("received_on", format!("must be within {RECEIVED_YEARS_MAX} years before {today}")));
    }
    if received_on > today {
        return Err(Problem::field("received_on", format!("is in the future: the business day is {today}")));
    }
    request.value_day = Some(id_of(received_on));
    request.reason = note("reason", reason)?;
    request.remarks = note("remarks", remarks)?;
    execute::execute(admin, caller, Ok(Requested::numbered(request, permission))).await
}

pub(super) fn note(field: &'static str, text: Option<String>) -> Answer<String> {
    match text {
        Some(text) if text.len() > REMARKS_BYTES_MAX || text.contains('\0') => {
            Err(Problem::field(field, format!("must have at most {REMARKS_BYTES_MAX} bytes, and no NUL character")))
        }
        text => Ok(text.unwrap_or_default()),
    }
}

/// Record a repayment. It makes room for the next payment at once, pays the oldest statement first, and what is beyond them waits
/// for the next one.
#[utoipa::path(post, path = "/credit-lines/{merchant_id}/{currency}/repayments", tag = "credit", operation_id = "repay",
    params(LinePath), request_body = RepaymentRequest,
    responses((status = OK, body = PostingAnswer), Problems, BodyProblems, NotFound, Refusals))]
async fn repay(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Json(body): Json<RepaymentRequest>,
) -> Answer<Json<PostingAnswer>> {
    // A merchant may not declare that it has paid.
    writer(&caller, Permission::CreditPost)?;
    let key = path.allowed(&caller, Permission::CreditPost)?;
    let RepaymentRequest { repayment_no, amount, received_on, is_recovery, remarks } = body;
    let record = record(&admin, &key).await?;
    if is_recovery {
        refuse_recovery(&record, &repayment_no, amount)?;
    }
    let asked = Asked {
        kind: if is_recovery { PostingKind::Recovery } else { PostingKind::Repayment },
        field: "repayment_no",
        number: &repayment_no,
        amount,
        received_on,
        reason: None,
        remarks,
    };
    Ok(Json(PostingAnswer::of(&post(&admin, &caller, &key, Permission::CreditPost, asked).await?)))
}

/// Refuses a recovery of more than what is written off; one that is recorded already is repeated.
fn refuse_recovery(record: &LineRecord, number: &str, amount: i64) -> Answer<()> {
    record.check_recovery(number, amount).map_err(|problem| Problem::field("amount", problem))
}

/// A repayment, and what it paid. Amounts are minor units.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct RepaymentView {
    repayment_no: String,
    amount: i64,
    /// It is money for what was written off.
    is_recovery: bool,
    #[schema(value_type = String, format = Date)]
    received_on: Date,
    recorded_at: DateTime<Utc>,
    /// It was returned: what it had paid is open again.
    is_reversed: bool,
    /// The statements that it paid.
    applied: Vec<AppliedView>,
    /// What no statement has taken yet.
    unapplied: i64,
}

/// A statement that a repayment paid, in part or whole.
#[derive(Clone, Debug, Serialize, ToSchema)]
struct AppliedView {
    /// The number of the statement.
    statement: u32,
    amount: i64,
}

fn repayment_views(record: &LineRecord) -> Vec<(i64, RepaymentView)> {
    let (books, _) = record.books();
    let is_reversal = |entry: &&StoredEntry| entry.kind == EntryKind::Posting(PostingKind::Reversal);
    let reversed: BTreeSet<&str> =
        record.entries.iter().filter(is_reversal).filter_map(|entry| entry.posting_no.as_deref()).collect();
    let mut applied: BTreeMap<Source, Vec<AppliedView>> = BTreeMap::new();
    for own in books.obligations() {
        for allocation in own.allocations() {
            let view = AppliedView { statement: own.statement.number, amount: allocation.amount };
            applied.entry(allocation.source.clone()).or_default().push(view);
        }
    }
    let view = |entry: &StoredEntry| {
        let number = OperationNo::parse(entry.posting_no.as_deref()?).ok()?;
        let (source, is_recovery) = match entry.kind {
            EntryKind::Posting(PostingKind::Repayment) => (Source::Repayment(number.clone()), false),
            EntryKind::Posting(PostingKind::Recovery) => (Source::Recovery(number.clone()), true),
            EntryKind::CycleClosed | EntryKind::Credit | EntryKind::Posting(_) => return None,
        };
        let applied = applied.get(&source).cloned().unwrap_or_default();
        let is_reversed = !is_recovery && reversed.contains(number.as_str());
        let taken: i64 = applied.iter().map(|own| own.amount).sum();
        let repayment = RepaymentView {
            received_on: day_of(entry.value_day.unwrap_or(entry.business_day))?,
            repayment_no: number.to_string(),
            amount: entry.amount,
            is_recovery,
            recorded_at: entry.at,
            is_reversed,
            unapplied: if is_reversed { 0 } else { entry.amount - taken },
            applied,
        };
        Some((entry.entry_id, repayment))
    };
    record.entries.iter().filter_map(view).collect()
}

/// The repayments of a line, the latest first. The journal's knowledge, about a second behind.
#[utoipa::path(get, path = "/credit-lines/{merchant_id}/{currency}/repayments", tag = "credit",
    operation_id = "list_repayments", params(LinePath, PageQuery),
    responses((status = OK, body = Page<RepaymentView>), Problems, NotFound))]
async fn repayments(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<Page<RepaymentView>>> {
    let key = path.allowed(&caller, Permission::CreditRead)?;
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let before = query.cursor.as_deref().map(HistoryPlace::decode).transpose()?.map(|HistoryPlace(id)| id);
    let views = repayment_views(&record(&admin, &key).await?);
    let rows = views.into_iter().rev().filter(|(id, _)| before.is_none_or(|before| *id < before));
    let rows = rows.take(usize::try_from(page_max + 1).unwrap_or(usize::MAX)).collect();
    let page = Page::from_rows(rows, page_max, |(id, _): &(i64, RepaymentView)| HistoryPlace(*id));
    let items = page.items.into_iter().map(|(_, view)| view).collect();
    Ok(Json(Page { items, next_cursor: page.next_cursor }))
}

/// Which repayment.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct RepaymentPath {
    #[param(max_length = 64, example = "merchant-001")]
    merchant_id: String,
    /// ISO 4217 alphabetic code.
    #[param(example = "USD")]
    currency: String,
    #[param(max_length = 128, example = "REPAYMENT-001")]
    repayment_no: String,
}

/// Why something is done by hand.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct ReasonRequest {
    /// For the usage log.
    #[schema(example = "the bank returned the debit", max_length = 1024)]
    reason: String,
}

/// Take back a repayment that was returned, as a debit that bounced: what it had paid is open again.
#[utoipa::path(post, path = "/credit-lines/{merchant_id}/{currency}/repayments/{repayment_no}/reverse", tag = "credit",
    operation_id = "reverse_repayment", params(RepaymentPath), request_body = ReasonRequest,
    responses((status = OK, body = PostingAnswer), Problems, BodyProblems, NotFound, Refusals))]
async fn reverse(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<RepaymentPath>,
    Json(body): Json<ReasonRequest>,
) -> Answer<Json<PostingAnswer>> {
    let RepaymentPath { merchant_id, currency, repayment_no } = path;
    writer(&caller, Permission::CreditPost)?;
    let key = LinePath { merchant_id, currency }.allowed(&caller, Permission::CreditPost)?;
    let views = repayment_views(&record(&admin, &key).await?);
    let found = views.iter().find(|(_, view)| view.repayment_no == repayment_no && !view.is_recovery);
    let unknown = "there is no such repayment, or it was recorded just now: try again in a second";
    let (_, found) = found.ok_or_else(|| Problem::new(Kind::NotFound).detail(unknown))?;
    let asked = Asked {
        kind: PostingKind::Reversal,
        field: "repayment_no",
        number: &repayment_no,
        amount: found.amount,
        received_on: None,
        reason: Some(reason(body.reason)?),
        remarks: None,
    };
    Ok(Json(PostingAnswer::of(&post(&admin, &caller, &key, Permission::CreditPost, asked).await?)))
}

fn reason(text: String) -> Answer<String> {
    if text.trim().is_empty() { Err(Problem::field("reason", "must say why")) } else { Ok(text) }
}

/// A claim to be given up.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct WriteOffRequest {
    /// The idempotency key.
    #[schema(example = "WRITE-OFF-001", max_length = 128)]
    write_off_no: String,
    /// Minor units: at most what is billed and open.
    #[schema(example = 5_000, minimum = 1)]
    amount: i64,
    /// For the usage log.
    #[schema(max_length = 1024)]
    reason: String,
}

/// Write off an amount of what is open, oldest statement first. The claim itself goes on: a recovery still pays it.
#[utoipa::path(post, path = "/credit-lines/{merchant_id}/{currency}/write-off", tag = "credit", operation_id = "write_off",
    params(LinePath), request_body = WriteOffRequest,
    responses((status = OK, body = PostingAnswer), Problems, BodyProblems, NotFound, Refusals))]
async fn write_off(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Json(body): Json<WriteOffRequest>,
) -> Answer<Json<PostingAnswer>> {
    writer(&caller, Permission::CreditApprove)?;
    let key = path.allowed(&caller, Permission::CreditApprove)?;
    let record = record(&admin, &key).await?;
    let open = record.books().0.billed();
    if !record.has_posting(PostingKind::WriteOff, &body.write_off_no) && body.amount > open {
        let detail = format!("is more than what is billed and open: give at most {open}");
        return Err(Problem::field("amount", detail));
    }
    let asked = Asked {
        kind: PostingKind::WriteOff,
        field: "write_off_no",
        number: &body.write_off_no,
        amount: body.amount,
        received_on: None,
        reason: Some(reason(body.reason)?),
        remarks: None,
    };
    Ok(Json(PostingAnswer::of(&post(&admin, &caller, &key, Permission::CreditApprove, asked).await?)))
}

/// A promise to pay.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct PauseRequest {
    /// The first day on which days past due are not counted.
    #[schema(value_type = String, format = Date)]
    from: Date,
    /// The last one.
    #[schema(value_type = String, format = Date)]
    to: Date,
    /// What was promised.
    #[schema(example = "pays in two parts", max_length = 500)]
    reason: String,
}

fn pauses_of(admin: &Admin) -> PauseRepository {
    PauseRepository::new(admin.pool.clone())
}

/// Accept a promise to pay: on its days, days past due are not counted and no notices are sent. Pauses are only added.
#[utoipa::path(post, path = "/credit-lines/{merchant_id}/{currency}/pauses", tag = "credit", operation_id = "pause",
    params(LinePath), request_body = PauseRequest,
    responses((status = CREATED, body = PauseRow), Problems, BodyProblems, NotFound))]
async fn pause(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Json(body): Json<PauseRequest>,
) -> Answer<(StatusCode, Json<PauseRow>)> {
    writer(&caller, Permission::CreditApprove)?;
    let key = path.allowed(&caller, Permission::CreditApprove)?;
    let PauseRequest { from, to, reason } = body;
    let stored = pauses_of(&admin).accept(by(&caller, None)?, &key, from, to, &reason).await.map_err(problem_of)?;
    Ok((StatusCode::CREATED, Json(stored)))
}

/// The pauses of a line, the latest first.
#[utoipa::path(get, path = "/credit-lines/{merchant_id}/{currency}/pauses", tag = "credit", operation_id = "list_pauses",
    params(LinePath, PageQuery), responses((status = OK, body = Page<PauseRow>), Problems))]
async fn pauses(
    State(admin): State<Admin>,
    caller: Caller,
    Path(path): Path<LinePath>,
    Query(query): Query<PageQuery>,
) -> Answer<Json<Page<PauseRow>>> {
    let key = path.allowed(&caller, Permission::CreditRead)?;
    let page_max = limit(query.limit, admin.live.current().admin_page_max)?;
    let after = query.cursor.as_deref().map(HistoryPlace::decode).transpose()?.map(|HistoryPlace(id)| id);
    let rows = pauses_of(&admin).list(&key, after, page_max + 1).await.map_err(problem_of)?;
    let mut page = Page::from_rows(rows, page_max, |row: &PauseRow| HistoryPlace(row.pause_id));
    if caller.merchant.is_some() {
        page.items = page.items.into_iter().map(PauseRow::for_merchant).collect();
    }
    Ok(Json(page))
}
