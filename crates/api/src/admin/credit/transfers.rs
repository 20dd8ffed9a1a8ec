//! Transfers of credit between two accounts of one currency.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use chrono::{DateTime, Utc};
use csv::ByteRecord;
use quota::{AmountMinor, Code, Currency, MerchantId, OperationNo};
use serde::{Deserialize, Serialize};
use tracing::warn;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::books::note;
use super::{repository, today};
use crate::admin::execute::{actor, no_decision, parse_currency, parse_merchant, refused, repeatable};
use crate::admin::export::{Format, ListRequest, Rows};
use crate::admin::openapi::{BodyProblems, NotFound, Problems, Refusals};
use crate::admin::page::{self, Cursor, Page, TimeId};
use crate::admin::policies::{problem_of, writer};
use crate::admin::problem::{Answer, Kind, Problem};
use crate::admin::{Admin, Caller, Json, Path, Permission, Query};
use sluice_decision::operations::transfer::{self, TransferError, Transferred};
use sluice_lines::{NewTransfer, TRANSFER_COLUMNS, Transfer, TransferFilter, TransferRepository, TransferState};

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(list, create)).routes(routes!(get))
}

/// Credit to be given from one account to another of the same currency.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TransferRequest {
    /// The idempotency key: the same number with the same accounts and amount is one transfer.
    #[schema(example = "TRANSFER-001", max_length = 128)]
    transfer_no: String,
    /// Whose exposure rises: within its limit, and on its next statement.
    #[schema(max_length = 64)]
    from_merchant_id: String,
    /// Whose exposure falls.
    #[schema(max_length = 64)]
    to_merchant_id: String,
    #[schema(example = "USD")]
    currency: String,
    /// Minor units, more than 0.
    #[schema(example = 100_000, minimum = 1)]
    amount: i64,
    /// For the usage log.
    #[schema(max_length = 1024)]
    reason: Option<String>,
}

/// Give credit from one account to another: all of it or nothing, once. The sender's exposure rises by it, within its limit, and it
/// is on the sender's next statement; the receiver's exposure falls by it. If the answer is lost, or the server dies in between,
/// the transfer goes on by itself: `GET /transfers/{transfer_no}` says how far it is.
#[utoipa::path(post, path = "/transfers", tag = "credit", operation_id = "transfer", request_body = TransferRequest,
    responses((status = OK, body = Transfer), Problems, BodyProblems, Refusals))]
async fn create(
    State(admin): State<Admin>,
    caller: Caller,
    Json(body): Json<TransferRequest>,
) -> Answer<Json<Transfer>> {
    Ok(Json(request(&admin, &caller, body).await?))
}

/// Does a transfer, or goes on with one that was requested before.
pub(super) async fn request(admin: &Admin, caller: &Caller, body: TransferRequest) -> Answer<Transfer> {
    writer(caller, Permission::CreditPost)?;
    let merchant = |field, id: &str| MerchantId::parse(id).map_err(|error| Problem::field(field, error.to_string()));
    let from = merchant("from_merchant_id", &body.from_merchant_id)?;
    let to = merchant("to_merchant_id", &body.to_merchant_id)?;
    let currency = parse_currency(&body.currency)?;
    OperationNo::parse(&body.transfer_no).map_err(|error| Problem::field("transfer_no", error.to_string()))?;
    if from == to {
        return Err(Problem::field("to_merchant_id", "is the sender: name another account"));
    }
    let is_amount = u64::try_from(body.amount).ok().and_then(AmountMinor::new).is_some_and(|minor| minor.get() > 0);
    if !is_amount {
        let detail = format!("must be 1 to {} minor units", AmountMinor::MAX);
        return Err(Problem::quota(Code::BadAmount).detail(detail).at("amount"));
    }
    let reason = note("reason", body.reason)?;
    let actor = actor(caller);
    let new = NewTransfer {
        transfer_no: &body.transfer_no,
        from_merchant_id: from.as_str(),
        to_merchant_id: to.as_str(),
        currency: currency.code(),
        amount: body.amount,
        reason: Some(reason.as_str()).filter(|reason| !reason.is_empty()),
        requested_by: actor.id.as_str(),
        operator_type: actor.operator_type,
    };
    let transfers = admin.transfers.clone();
    if transfers.get(new.transfer_no).await.map_err(problem_of)?.is_none() {
        has_policy(admin, &from, currency).await?;
        takes_part(admin, "from_merchant_id", &from, currency, body.amount).await?;
        takes_part(admin, "to_merchant_id", &to, currency, 0).await?;
        transfers.request(&new).await.map_err(problem_of)?;
    }
    let stored = transfers.get(new.transfer_no).await.map_err(problem_of)?;
    if stored.is_some_and(|stored| !new.is(&stored)) {
        let detail = "there is a transfer with this number between other accounts, or of another amount";
        return Err(Problem::quota(Code::IdempotencyConflict).detail(detail));
    }
    let (operations, number) = (admin.operations.clone(), body.transfer_no);
    let work = async move { transfer::finish(&transfers, &operations, &number).await };
    outcome(repeatable(work).await?)
}

/// Refuses a sender without a policy: nothing would be taken from it.
async fn has_policy(admin: &Admin, sender: &MerchantId, currency: Currency) -> Answer<()> {
    let now_ms = admin.operations.clock().now_ms();
    match admin.operations.policies().effective(sender, currency, None, now_ms).await {
        Some(_) => Ok(()),
        None => Err(Problem::quota(Code::PolicyMissing).at("from_merchant_id")),
    }
}

/// Refuses an account without a credit line in force, and an amount above what its terms allow for one transfer.
async fn takes_part(
    admin: &Admin,
    field: &'static str,
    merchant: &MerchantId,
    currency: Currency,
    amount: i64,
) -> Answer<()> {
    let record = repository(admin).record(&(merchant.clone(), currency)).await.map_err(problem_of)?;
    let today = today(admin, (merchant, currency)).await?;
    let Some(line) = record.line().filter(|line| !line.is_over(today)) else {
        return Err(Problem::field(field, format!("has no {currency} credit line in force")));
    };
    match line.terms.transfer_max.filter(|most| amount > *most) {
        Some(most) => {
            Err(Problem::field("amount", format!("is above {most}, the most that one transfer may take from the line")))
        }
        None => Ok(()),
    }
}

/// A transfer that was not made is a refusal.
fn outcome(finished: Result<Transferred, TransferError>) -> Answer<Transfer> {
    let Transferred { transfer, refused: decision } = finished.map_err(|error| match error {
        TransferError::Store(error) => {
            warn!(%error, "a transfer is not finished: a sweep goes on with it");
            no_decision(&error)
        }
        TransferError::Unknown => Problem::quota(Code::CreditUnknown)
            .detail("the server does not know the sender's line yet: the transfer goes on by itself"),
        // The transfer may have been taken from the sender already: the answer is not a final one.
        TransferError::NoPolicy => Problem::quota(Code::CreditUnknown)
            .detail("no policy applies to the sender at present: the transfer goes on by itself when one does"),
        TransferError::Row(error) => problem_of(error),
        TransferError::Corrupt(_) => Problem::internal("a transfer", &error),
    })?;
    let Some(code) = transfer.code.as_deref() else { return Ok(transfer) };
    let problem = match (decision, Code::parse(code)) {
        (Some(decision), _) => refused(&decision),
        (None, Some(code)) => Problem::quota(code),
        (None, None) => Problem::new(Kind::Conflict),
    };
    Err(match transfer.state {
        TransferState::Returned => problem.detail("the receiver could not take it, and the sender has it back"),
        TransferState::Requested
        | TransferState::Reserved
        | TransferState::Returning
        | TransferState::Completed
        | TransferState::Refused => problem,
    })
}

/// Which transfers are listed; those that were requested before `to` and not before `from`.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    /// On either side.
    #[param(max_length = 64)]
    merchant_id: Option<String>,
    currency: Option<String>,
    state: Option<TransferState>,
    /// Not before this time (RFC 3339).
    from: Option<DateTime<Utc>>,
    /// Before this time (RFC 3339).
    to: Option<DateTime<Utc>>,
    /// `csv` is what `Accept: text/csv` asks for as well: all rows, as a stream.
    #[param(inline)]
    format: Option<Format>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
    /// Most items to answer with; not for an export, which has no pages.
    #[param(minimum = 1)]
    limit: Option<u64>,
}

/// The transfers that the caller may see, the newest first; for a merchant those in which it takes part.
#[utoipa::path(get, path = "/transfers", tag = "credit", operation_id = "list_transfers", params(ListQuery),
    responses((status = OK, content((Page<Transfer> = "application/json"), (String = "text/csv"))), Problems))]
async fn list(
    State(admin): State<Admin>,
    caller: Caller,
    headers: HeaderMap,
    Query(query): Query<ListQuery>,
) -> Answer<Response> {
    caller.require(Permission::CreditRead)?;
    let ListQuery { merchant_id, currency, state, from, to, format, cursor, limit } = query;
    page::check_time("from", from)?;
    page::check_time("to", to)?;
    if let (Some(from), Some(to)) = (from, to)
        && from >= to
    {
        return Err(Problem::field("from", "must be before to"));
    }
    let merchant = caller.narrow(merchant_id.as_deref().map(parse_merchant).transpose()?)?;
    let currency = currency.as_deref().map(parse_currency).transpose()?;
    let transfers = TransferRepository::new(admin.pool.clone());
    let filter = TransferFilter { merchant, currency, state, from, to };
    let rows = TransferRows { transfers, filter, reader: caller.merchant.clone() };
    ListRequest { format, cursor: cursor.as_deref(), limit, headers: &headers }.answer(&admin, &caller, rows).await
}

/// Transfers, the newest first.
struct TransferRows {
    transfers: TransferRepository,
    filter: TransferFilter,
    /// The merchant whose caller reads them.
    reader: Option<MerchantId>,
}

/// When a transfer was requested, and its number.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct TransferPlace(#[serde(with = "chrono::serde::ts_microseconds")] DateTime<Utc>, String);

impl Cursor for TransferPlace {
    fn is_possible(&self) -> bool {
        TimeId(self.0, uuid::Uuid::nil()).is_possible() && OperationNo::parse(&self.1).is_ok()
    }
}

impl Rows for TransferRows {
    type Row = Transfer;
    type Place = TransferPlace;
    const FILE: &'static str = "transfers";

    async fn read(&self, after: Option<TransferPlace>, limit: i64) -> Answer<Vec<Transfer>> {
        let after = after.as_ref().map(|TransferPlace(at, transfer_no)| (*at, transfer_no.as_str()));
        let rows = self.transfers.list(&self.filter, after, limit).await.map_err(problem_of)?;
        Ok(match &self.reader {
            Some(own) => rows.into_iter().map(|transfer| transfer.for_merchant(own)).collect(),
            None => rows,
        })
    }

    fn place(row: &Transfer) -> TransferPlace {
        TransferPlace(row.requested_at, row.transfer_no.clone())
    }

    fn columns() -> ByteRecord {
        ByteRecord::from(TRANSFER_COLUMNS.to_vec())
    }

    fn cells(row: &Transfer) -> ByteRecord {
        ByteRecord::from(row.cells().to_vec())
    }
}

/// Which transfer.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Path)]
struct TransferPath {
    #[param(max_length = 128, example = "TRANSFER-001")]
    transfer_no: String,
}

/// A transfer, and how far it is.
#[utoipa::path(get, path = "/transfers/{transfer_no}", tag = "credit", operation_id = "get_transfer",
    params(TransferPath), responses((status = OK, body = Transfer), Problems, NotFound))]
async fn get(State(admin): State<Admin>, caller: Caller, Path(path): Path<TransferPath>) -> Answer<Json<Transfer>> {
    Ok(Json(find(&admin, &caller, &path.transfer_no).await?))
}

/// A transfer in which the caller's merchant takes part.
pub(super) async fn find(admin: &Admin, caller: &Caller, transfer_no: &str) -> Answer<Transfer> {
    caller.require(Permission::CreditRead)?;
    let found = TransferRepository::new(admin.pool.clone()).get(transfer_no).await.map_err(problem_of)?;
    let found = match &caller.merchant {
        Some(own) => found
            .filter(|transfer| {
                [&transfer.from_merchant_id, &transfer.to_merchant_id].iter().any(|id| *id == own.as_str())
            })
            .map(|transfer| transfer.for_merchant(own)),
        None => found,
    };
    found.ok_or_else(|| Problem::new(Kind::NotFound).detail("there is no such transfer"))
}
