//! Entries as they are read back.

use sqlx::PgPool;

use crate::EntryKind;

/// An entry of a line's books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    pub kind: EntryKind,
    /// The merchant's business day, `YYYYMMDD`.
    pub business_day: i32,
    /// The cycle that closed, or in which a charge was billed that is given back.
    pub cycle: i32,
    /// In minor units.
    pub amount: i64,
    /// The number of a posting, among those of its kind.
    pub posting_no: Option<String>,
}

/// The entries of a line, in the order of the journal.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer, or has an entry of an unknown kind.
pub async fn entries(pool: &PgPool, merchant_id: &str, currency: &str) -> Result<Vec<StoredEntry>, sqlx::Error> {
    type Found = (String, i32, i32, i64, Option<String>);
    let statement = "SELECT kind, business_day, cycle, amount, posting_no FROM credit_entry \
        WHERE merchant_id = $1 AND currency = $2 ORDER BY entry_id";
    let found: Vec<Found> = sqlx::query_as(statement).bind(merchant_id).bind(currency).fetch_all(pool).await?;
    let entry = |(kind, business_day, cycle, amount, posting_no): Found| {
        let known =
            EntryKind::parse(&kind).ok_or_else(|| sqlx::Error::Protocol(format!("credit_entry has the kind {kind}")));
        known.map(|kind| StoredEntry { kind, business_day, cycle, amount, posting_no })
    };
    found.into_iter().map(entry).collect()
}
