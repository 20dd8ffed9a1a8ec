//! Changes of credit lines: draft, approve by another person, activate, close. Every step is recorded. The tables' own rules
//! (`0016_credit_line.sql`) apply to any writer; here they become errors that name the field.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use jiff::civil::Date;
use quota::{Currency, MerchantId};
use serde_json::{Map, Value};
use sluice_credit::{Bands, StageEffect};
use sluice_kit::database::change::{By, ChangeError, json, read, read_all};
use sqlx::{AssertSqlSafe, PgPool, Postgres, Transaction};

use crate::grade::columns;
use crate::record::{self, LineKey, LineRecord};
use crate::{CreditLine, LineInput, LineState, NoticeRow, Scorecards};

/// Most rows of one page, whatever the caller requests.
pub(crate) const ROWS_MAX: i64 = 1_001;
/// Changes of lines that one run removes.
const CHANGES_PER_RUN: i64 = 10_000;
/// How long changes of lines are kept: an id of the stream is valid for 30 days, and reaches back ten more.
const CHANGE_KEEP_DAYS: i32 = 45;
/// The columns of a line that a caller gives.
const GIVEN: &str = "merchant_id, currency, limit_base, grade, terms, override_limit, override_until, expires_on, taken_over_from, metadata, remarks";

type Result<T> = std::result::Result<T, ChangeError>;

/// Which lines a list has; `None` matches all.
#[derive(Clone, Debug, Default)]
pub struct LineFilter {
    pub merchant_id: Option<String>,
    pub currency: Option<String>,
    pub state: Option<LineState>,
    /// Only versions that are or were in force.
    pub was_in_force: bool,
}

/// Credit lines in Postgres.
#[derive(Clone, Debug)]
pub struct LineRepository {
    pub(crate) pool: PgPool,
}

impl LineRepository {
    /// Works in the pool's database.
    #[must_use]
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// A new line, as a draft. `today` is the account's business day, as in every change.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field; [`ChangeError::Conflict`] where the account has a draft, or a line that is not
    /// closed: that is changed.
    pub async fn create(&self, by: By<'_>, input: &LineInput, today: Date) -> Result<CreditLine> {
        input.check(today)?;
        let mut transaction = self.begin(by, "create").await?;
        if let Some(present) = latest(&mut transaction, &input.merchant_id, &input.currency).await?
            && present.state != LineState::Closed
        {
            let state = present.state.into_str();
            return Err(ChangeError::Conflict(format!(
                "the account has a credit line in state {state}: change that one"
            )));
        }
        let statement = format!(
            "INSERT INTO credit_line AS l (created_by, edited_by, {GIVEN}) SELECT $2, ARRAY[$2], {GIVEN} \
             FROM jsonb_populate_record(NULL::credit_line, $1::jsonb) RETURNING to_jsonb(l)::text"
        );
        let query = sqlx::query_scalar(AssertSqlSafe(statement)).bind(json(input)?).bind(by.actor.as_str());
        let created = read(query.fetch_one(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(created)
    }

    /// Changes the members that are given, and no others (RFC 7396: null removes one, an object changes its own members). A
    /// pending version is changed, which voids its approval; of an active one the next version is drafted.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field; [`ChangeError::Conflict`] where `expected_revision` is not the present one.
    pub async fn update(
        &self,
        by: By<'_>,
        key: &LineKey,
        patch: Map<String, Value>,
        expected_revision: Option<i64>,
        today: Date,
    ) -> Result<CreditLine> {
        let mut transaction = self.begin(by, "update").await?;
        let present = of_key(&mut transaction, key).await?;
        ChangeError::expect_revision("credit line", present.revision, expected_revision)?;
        if present.state == LineState::Closed {
            return Err(ChangeError::Conflict("the credit line is closed: create another one".to_owned()));
        }
        let input = patched(&present, patch)?;
        input.check(today)?;
        let statement = match present.state {
            LineState::Draft | LineState::Approved => format!(
                "UPDATE credit_line l SET ({GIVEN}) = (SELECT {GIVEN} \
                 FROM jsonb_populate_record(NULL::credit_line, $1::jsonb)), state = 'draft', approved_by = NULL, \
                 approved_at = NULL, updated_at = now(), revision = revision + 1, edited_by = CASE \
                 WHEN $2 = ANY (edited_by) THEN edited_by ELSE edited_by || $2 END \
                 WHERE line_id = $3 AND version = $4 RETURNING to_jsonb(l)::text"
            ),
            LineState::Active | LineState::Replaced | LineState::Closed => format!(
                "INSERT INTO credit_line AS l (line_id, version, created_by, edited_by, opened_on, {GIVEN}) \
                 SELECT $3, $4 + 1, $2, ARRAY[$2], (SELECT min(opened_on) FROM credit_line WHERE line_id = $3), {GIVEN} \
                 FROM jsonb_populate_record(NULL::credit_line, $1::jsonb) RETURNING to_jsonb(l)::text"
            ),
        };
        let query = sqlx::query_scalar(AssertSqlSafe(statement)).bind(json(&input)?).bind(by.actor.as_str());
        let changed = read(query.bind(present.line_id).bind(present.version).fetch_one(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(changed)
    }

    /// Approves the draft; its authors cannot.
    ///
    /// # Errors
    /// [`ChangeError::FourEyes`], and [`ChangeError::Conflict`] where there is no draft, or another one than
    /// `expected_revision`.
    pub async fn approve(&self, by: By<'_>, key: &LineKey, expected_revision: Option<i64>) -> Result<CreditLine> {
        let mut transaction = self.begin(by, "approve").await?;
        let present = of_key(&mut transaction, key).await?;
        ChangeError::expect_revision("credit line", present.revision, expected_revision)?;
        in_state(&present, LineState::Draft, "approved")?;
        let actor = by.actor.as_str();
        if present.created_by == actor || present.edited_by.iter().any(|name| name == actor) {
            return Err(ChangeError::FourEyes);
        }
        let statement = "UPDATE credit_line l SET state = 'approved', approved_by = $3, approved_at = now(), \
            updated_at = now(), revision = revision + 1 WHERE line_id = $1 AND version = $2 RETURNING to_jsonb(l)::text";
        let query = sqlx::query_scalar(statement).bind(present.line_id).bind(present.version).bind(actor);
        let approved = read(query.fetch_one(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(approved)
    }

    /// Puts the approved version in force, in the place of the active one. While the line is past due no limit rises.
    ///
    /// # Errors
    /// [`ChangeError::Conflict`] where there is no approved version, or the line's stage admits no increase.
    pub async fn activate(
        &self,
        by: By<'_>,
        key: &LineKey,
        expected_revision: Option<i64>,
        bands: &Bands,
        today: Date,
    ) -> Result<CreditLine> {
        let mut transaction = self.begin(by, "activate").await?;
        let present = of_key(&mut transaction, key).await?;
        ChangeError::expect_revision("credit line", present.revision, expected_revision)?;
        in_state(&present, LineState::Approved, "activated")?;
        let record =
            record::read(&mut transaction, std::slice::from_ref(key)).await?.remove(key).ok_or_else(unreadable)?;
        refuse_increase(&record, &present, bands, today)?;
        let replaced = "UPDATE credit_line SET state = 'replaced', updated_at = now(), revision = revision + 1 \
            WHERE line_id = $1 AND state = 'active'";
        sqlx::query(replaced).bind(present.line_id).execute(&mut *transaction).await?;
        let statement = "UPDATE credit_line l SET state = 'active', opened_on = coalesce(opened_on, taken_over_from, $3::date), \
            activated_on = $3::date, updated_at = now(), revision = revision + 1 \
            WHERE line_id = $1 AND version = $2 RETURNING to_jsonb(l)::text";
        let query = sqlx::query_scalar(statement).bind(present.line_id).bind(present.version).bind(today.to_string());
        let activated: CreditLine = read(query.fetch_one(&mut *transaction).await?)?;
        if present.version == 1 {
            open_grade(&mut transaction, &activated, by, today).await?;
        }
        transaction.commit().await?;
        Ok(activated)
    }

    /// Ends the line: it takes no new charges, and what is owed stays owed. A draft is withdrawn.
    ///
    /// # Errors
    /// [`ChangeError::Conflict`] where it is closed.
    pub async fn close(
        &self,
        by: By<'_>,
        key: &LineKey,
        expected_revision: Option<i64>,
        today: Date,
    ) -> Result<CreditLine> {
        let mut transaction = self.begin(by, "close").await?;
        let present = of_key(&mut transaction, key).await?;
        ChangeError::expect_revision("credit line", present.revision, expected_revision)?;
        if present.state == LineState::Closed {
            return Err(ChangeError::Conflict("the credit line is closed".to_owned()));
        }
        let statement = "UPDATE credit_line l SET state = 'closed', closed_on = $2::date, updated_at = now(), \
            revision = revision + 1 WHERE line_id = $1 AND state IN ('draft', 'approved', 'active')";
        let query = sqlx::query(statement).bind(present.line_id).bind(today.to_string());
        query.execute(&mut *transaction).await?;
        let closed = of_key(&mut transaction, key).await?;
        transaction.commit().await?;
        Ok(closed)
    }

    /// The latest version of an account's line.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`].
    pub async fn get(&self, key: &LineKey) -> Result<CreditLine> {
        let mut transaction = self.pool.begin().await?;
        of_key(&mut transaction, key).await
    }

    /// Everything that Postgres has of the line of an account; without versions where none was ever in force.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn record(&self, key: &LineKey) -> Result<LineRecord> {
        self.records(std::slice::from_ref(key)).await?.remove(key).ok_or_else(unreadable)
    }

    /// The same of several accounts.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn records(&self, keys: &[LineKey]) -> Result<HashMap<LineKey, LineRecord>> {
        let mut connection = self.pool.acquire().await?;
        Ok(record::read(&mut connection, keys).await?)
    }

    /// The latest version of each line, the newest first, those made before `after` (time and id of the last one of the page
    /// before).
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn list(
        &self,
        filter: &LineFilter,
        after: Option<(DateTime<Utc>, uuid::Uuid)>,
        limit: i64,
    ) -> Result<Vec<CreditLine>> {
        let statement = "SELECT to_jsonb(l)::text FROM credit_line l \
            WHERE version = (SELECT max(version) FROM credit_line AS last \
                WHERE last.line_id = l.line_id AND (NOT $7 OR last.activated_on IS NOT NULL)) \
            AND ($1::text IS NULL OR merchant_id = $1) AND ($2::text IS NULL OR currency = $2) \
            AND ($3::text IS NULL OR state = $3) AND ($4::timestamptz IS NULL OR (created_at, line_id) < ($4, $5)) \
            ORDER BY created_at DESC, line_id DESC LIMIT $6";
        let query = sqlx::query_scalar(statement).bind(&filter.merchant_id).bind(&filter.currency);
        let query = query.bind(filter.state.map(|state| state.into_str())).bind(after.map(|(at, _)| at));
        let query = query.bind(after.map(|(_, id)| id)).bind(limit.clamp(1, ROWS_MAX)).bind(filter.was_in_force);
        read_all(query.fetch_all(&self.pool).await?)
    }

    /// Removes changes of lines that no reader of the stream can go back to; returns how many. The others follow in the next run.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn remove_old_changes(&self) -> Result<u64> {
        // Their numbers rise with time, nearly.
        let statement = "DELETE FROM credit_change WHERE change_no IN (SELECT change_no FROM credit_change \
                ORDER BY change_no LIMIT $1) AND changed_at < now() - make_interval(days => $2)";
        let query = sqlx::query(statement).bind(CHANGES_PER_RUN).bind(CHANGE_KEEP_DAYS);
        Ok(query.execute(&self.pool).await?.rows_affected())
    }

    /// The accounts whose line was ever in force, of one merchant or of all, in their order, after `after`.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn keys(
        &self,
        merchant: Option<&MerchantId>,
        after: Option<&LineKey>,
        limit: i64,
    ) -> Result<Vec<LineKey>> {
        let statement = "SELECT DISTINCT merchant_id, currency::text FROM credit_line WHERE activated_on IS NOT NULL \
            AND ($1::text IS NULL OR merchant_id = $1) AND (merchant_id, currency::text) > ($2, $3) \
            ORDER BY merchant_id, currency::text LIMIT $4";
        let query = sqlx::query_as(statement).bind(merchant.map(MerchantId::as_str));
        let (last, currency) = after.map_or(("", ""), |(merchant, currency)| (merchant.as_str(), currency.code()));
        let query = query.bind(last).bind(currency).bind(limit);
        let rows: Vec<(String, String)> = query.fetch_all(&self.pool).await?;
        let key = |(merchant, currency): (String, String)| {
            MerchantId::parse(&merchant).ok().zip(Currency::parse(&currency).ok())
        };
        Ok(rows.into_iter().filter_map(key).collect())
    }

    /// The notices of dunning that were sent for several accounts, each account's in their order.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn notices(&self, keys: &[LineKey]) -> Result<HashMap<LineKey, Vec<NoticeRow>>> {
        let statement = "SELECT merchant_id, currency::text, to_jsonb(n)::text FROM credit_notice AS n \
            NATURAL JOIN (SELECT merchant_id, currency::char(3) FROM UNNEST($1::text[], $2::text[]) \
                AS given (merchant_id, currency)) AS given ORDER BY sent_at, cycle, step";
        let merchants: Vec<&str> = keys.iter().map(|(merchant, _)| merchant.as_str()).collect();
        let currencies: Vec<&str> = keys.iter().map(|(_, currency)| currency.code()).collect();
        let query = sqlx::query_as(statement).bind(merchants).bind(currencies);
        let rows: Vec<(String, String, String)> = query.fetch_all(&self.pool).await?;
        let mut notices: HashMap<LineKey, Vec<NoticeRow>> = HashMap::new();
        for (merchant, currency, body) in rows {
            if let Some(key) = MerchantId::parse(&merchant).ok().zip(Currency::parse(&currency).ok()) {
                notices.entry(key).or_default().push(read(body)?);
            }
        }
        Ok(notices)
    }

    async fn begin(&self, by: By<'_>, action: &str) -> Result<Transaction<'static, Postgres>> {
        begin(&self.pool, by, action).await
    }
}

/// A transaction in which every change is recorded as this person's.
pub(crate) async fn begin(pool: &PgPool, by: By<'_>, action: &str) -> Result<Transaction<'static, Postgres>> {
    let mut transaction = pool.begin().await?;
    by.record(&mut transaction, action).await?;
    Ok(transaction)
}

/// The first decision about the grade of a line, with the terms that the scorecard in force has for it.
async fn open_grade(
    transaction: &mut Transaction<'static, Postgres>,
    line: &CreditLine,
    by: By<'_>,
    today: Date,
) -> Result<()> {
    let [due_days, minimum_bp] = columns(Scorecards::read(&mut **transaction).await?.terms_of(line.grade));
    let statement = "INSERT INTO credit_grade (merchant_id, currency, kind, grade, on_day, changed_on, requested_by, due_days, \
            minimum_bp) \
        VALUES ($1, $2, 'opening', $3, $4::date, $4::date, $5, $6, $7)";
    let query = sqlx::query(statement).bind(&line.merchant_id).bind(&line.currency).bind(line.grade.as_str());
    let query = query.bind(today.to_string()).bind(by.actor.as_str()).bind(due_days).bind(minimum_bp);
    query.execute(&mut **transaction).await?;
    Ok(())
}

/// The latest version of the account's latest line, locked until the end of the transaction.
async fn latest(
    transaction: &mut Transaction<'static, Postgres>,
    merchant_id: &str,
    currency: &str,
) -> Result<Option<CreditLine>> {
    let statement = "SELECT to_jsonb(l)::text FROM credit_line l WHERE merchant_id = $1 AND currency = $2 \
        ORDER BY created_at DESC, version DESC LIMIT 1 FOR UPDATE";
    let query = sqlx::query_scalar(statement).bind(merchant_id).bind(currency);
    let found: Option<String> = query.fetch_optional(&mut **transaction).await?;
    found.map(read).transpose()
}

/// The same by its key.
///
/// # Errors
/// [`ChangeError::NotFound`] where the account has none.
pub(crate) async fn of_key(transaction: &mut Transaction<'static, Postgres>, key: &LineKey) -> Result<CreditLine> {
    latest(transaction, key.0.as_str(), key.1.code()).await?.ok_or(ChangeError::NotFound("credit line"))
}

fn in_state(present: &CreditLine, state: LineState, done: &str) -> Result<()> {
    if present.state == state {
        return Ok(());
    }
    let (expected, found) = (state.into_str(), present.state.into_str());
    Err(ChangeError::Conflict(format!("only a credit line in state {expected} can be {done}; this one is {found}")))
}

/// A line has a row of another form, as of a later release; the log says which.
fn unreadable() -> ChangeError {
    ChangeError::Database(sqlx::Error::Decode("the credit line has a row of another form".into()))
}

/// The line with the members of a patch.
fn patched(present: &CreditLine, patch: Map<String, Value>) -> Result<LineInput> {
    let unreadable = |error: serde_json::Error| ChangeError::Database(sqlx::Error::Decode(error.into()));
    let mut document = serde_json::to_value(present).map_err(unreadable)?;
    if let Value::Object(members) = &mut document {
        members.retain(|name, _| GIVEN.split(", ").any(|given| given == name));
    }
    let changes = |name: &str| patch.get(name).is_some_and(|given| document.get(name) != Some(given));
    if let Some(fixed) = ["merchant_id", "currency"].into_iter().find(|name| changes(name)) {
        return Err(ChangeError::invalid(fixed, "cannot change: draft a line for the other account"));
    }
    if changes("taken_over_from") && present.opened_on.is_some() {
        return Err(ChangeError::invalid("taken_over_from", "cannot change once the line was in force"));
    }
    if changes("grade") && present.opened_on.is_some() {
        return Err(ChangeError::invalid("grade", "cannot change once the line was in force: ask for another grade"));
    }
    merge(&mut document, Value::Object(patch));
    serde_json::from_value(document).map_err(|error| ChangeError::invalid("line", error.to_string()))
}

/// RFC 7396.
fn merge(document: &mut Value, patch: Value) {
    match (document, patch) {
        (Value::Object(members), Value::Object(patch)) => {
            for (name, value) in patch {
                if value.is_null() {
                    members.remove(&name);
                } else {
                    merge(members.entry(name).or_insert(Value::Null), value);
                }
            }
        }
        (document, patch) => *document = patch,
    }
}

/// Where the stage admits no increase, neither the limit nor an override may be above what is in force.
fn refuse_increase(record: &LineRecord, next: &CreditLine, bands: &Bands, today: Date) -> Result<()> {
    let (books, _) = record.books();
    let Some((line, day)) = record.line().zip(record.on(&books, bands, today)) else { return Ok(()) };
    if line.state != LineState::Active || !day.standing.effects.contains(&StageEffect::NoIncrease) {
        return Ok(());
    }
    let by_hand = next.overridden().map_or(0, |by_hand| by_hand.limit);
    let field = if next.limit_base > line.limit_base {
        "limit_base"
    } else if by_hand > day.limit.limit && line.overridden() != next.overridden() && !lifts(&day) {
        "override_limit"
    } else {
        return Ok(());
    };
    let stage = day.standing.stage.as_str();
    let cure = day.overdue.amount_to_cure;
    let problem = format!("`{field}` cannot rise while the line is in stage {stage}: a repayment of {cure} cures it");
    Err(ChangeError::Conflict(problem))
}

/// Whether persons may lift the stage's restrictions: two of them, as every version needs.
fn lifts(day: &crate::CreditDay) -> bool {
    day.standing.effects.contains(&StageEffect::TwoPersonsToLift)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_patch_changes_what_it_names() {
        let mut document = json!({"a": 1, "b": {"c": 2, "d": [1]}, "e": 3});
        merge(&mut document, json!({"a": null, "b": {"c": 5, "d": [2, 3]}, "f": {"g": 1}}));
        assert_eq!(document, json!({"b": {"c": 5, "d": [2, 3]}, "e": 3, "f": {"g": 1}}));
    }
}
