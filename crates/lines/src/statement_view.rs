//! A statement as people and programs read it: what it came to, how far it is paid, and by what; and all of a line as CSV.

use jiff::civil::Date;
use quota::PostingKind;
use serde::Serialize;
use sluice_credit::{Obligation, Pause, Source, Statement};
use sluice_journal::usage_log::csv_text;
use strum::IntoStaticStr;
use utoipa::ToSchema;

use crate::{EntryKind, LineKey, LineRecord};

/// What a statement says about its payment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, IntoStaticStr, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(const_into_str, serialize_all = "snake_case")]
pub enum StatementStatus {
    /// Not due yet, and not paid.
    Open,
    /// Nothing is unpaid.
    Paid,
    /// The due date is over, and something of the minimum is unpaid.
    PastDue,
    /// What is unpaid is written off.
    WrittenOff,
}

/// A statement, and how far it is paid. Amounts are minor units.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StatementView {
    #[serde(flatten)]
    pub statement: Statement,
    pub status: StatementStatus,
    /// By repayments, transfers, and refunds that came after the close.
    pub paid: i64,
    /// The part of `paid` that voids and refunds settled.
    pub credited: i64,
    /// Written off, and not recovered.
    pub written_off: i64,
    /// Neither paid nor written off.
    pub open: i64,
    /// Days since the due date that are not paused; 0 where nothing of the minimum is past due.
    pub days_past_due: i64,
    #[schema(value_type = Option<String>, format = Date)]
    pub paid_in_full_on: Option<Date>,
    /// What paid it, in the order in which it was allocated.
    pub allocations: Vec<AllocationView>,
}

/// A part of a payment that counts towards a statement.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct AllocationView {
    /// `repayment`, `recovery`, `transfer_in`, `credit` (a void or refund after the close) or `write_off`.
    #[schema(value_type = String, example = "repayment")]
    pub kind: &'static str,
    /// The number of the repayment or transfer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number: Option<String>,
    pub amount: i64,
    /// When the money was received.
    #[schema(value_type = String, format = Date)]
    pub value_on: Date,
}

impl StatementView {
    /// A statement on a day.
    #[must_use]
    pub fn of(own: &Obligation, pauses: &[Pause], date: Date) -> Self {
        let status = if own.unpaid() == 0 {
            StatementStatus::Paid
        } else if own.open() == 0 {
            StatementStatus::WrittenOff
        } else if own.statement.due_on < date && own.minimum_unpaid_on(date) > 0 {
            StatementStatus::PastDue
        } else {
            StatementStatus::Open
        };
        let allocations = own.allocations().iter().map(|allocation| {
            let (kind, number) = source(&allocation.source);
            AllocationView { kind, number, amount: allocation.amount, value_on: allocation.value_on }
        });
        Self {
            statement: own.statement,
            status,
            paid: own.paid(),
            credited: own.credited(),
            written_off: own.written_off(),
            open: own.open(),
            days_past_due: own.days_past_due(pauses, date),
            paid_in_full_on: own.paid_in_full_on(),
            allocations: allocations.collect(),
        }
    }
}

impl LineRecord {
    /// Every statement on a day, the oldest first.
    #[must_use]
    pub fn statement_views(&self, date: Date) -> Vec<StatementView> {
        let (books, _) = self.books();
        let mut views: Vec<StatementView> =
            books.obligations().iter().map(|own| StatementView::of(own, &self.pauses, date)).collect();
        views.sort_by_key(|view| view.statement.number);
        views
    }
}

/// The columns of statements as CSV.
pub const STATEMENT_COLUMNS: [&str; 15] = [
    "merchant_id",
    "currency",
    "number",
    "first_day",
    "closed_on",
    "due_on",
    "status",
    "amount",
    "minimum",
    "paid",
    "credited",
    "written_off",
    "open",
    "days_past_due",
    "paid_in_full_on",
];

/// The cells of a statement's row.
#[must_use]
pub fn statement_cells(merchant_id: &str, currency: &str, view: &StatementView) -> [String; 15] {
    let StatementView { statement, status, paid, credited, written_off, open, .. } = view;
    [
        csv_text(merchant_id).into_owned(),
        currency.to_owned(),
        statement.number.to_string(),
        statement.first_day.to_string(),
        statement.closed_on.to_string(),
        statement.due_on.to_string(),
        (*status).into_str().to_owned(),
        statement.amount.to_string(),
        statement.minimum.to_string(),
        paid.to_string(),
        credited.to_string(),
        written_off.to_string(),
        open.to_string(),
        view.days_past_due.to_string(),
        view.paid_in_full_on.map(|date| date.to_string()).unwrap_or_default(),
    ]
}

/// Statements of a line as a CSV file (RFC 4180).
///
/// # Errors
/// [`csv::Error`] where the file cannot be written.
pub fn statements_csv((merchant, currency): &LineKey, statements: &[StatementView]) -> Result<Vec<u8>, csv::Error> {
    let mut file = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    file.write_record(STATEMENT_COLUMNS)?;
    for view in statements {
        file.write_record(statement_cells(merchant.as_str(), currency.code(), view))?;
    }
    file.into_inner().map_err(|error| error.into_error().into())
}

fn source(source: &Source) -> (&'static str, Option<String>) {
    match source {
        Source::Credit { .. } => (EntryKind::Credit.as_str(), None),
        Source::Repayment(number) => (PostingKind::Repayment.as_str(), Some(number.to_string())),
        Source::Transfer(number) => (PostingKind::TransferIn.as_str(), Some(number.to_string())),
        Source::WriteOff { .. } => (PostingKind::WriteOff.as_str(), None),
        Source::Recovery(number) => (PostingKind::Recovery.as_str(), Some(number.to_string())),
    }
}
