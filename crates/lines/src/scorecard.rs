//! Scorecards in Postgres: drafts, the champion that decides grades, the challenger beside it. The table's own rules
//! (`0018_scorecard.sql`) apply to any writer; here they become errors that name the field.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sluice_credit::{Band, Grade, GradeTerms, Scorecard};
use sluice_kit::database::change::{By, ChangeError, json, read, read_all};
use sqlx::{PgExecutor, PgPool, Postgres, Transaction};
use strum::IntoStaticStr;
use utoipa::ToSchema;
use uuid::Uuid;

type Result<T> = std::result::Result<T, ChangeError>;

/// Where a scorecard is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, IntoStaticStr, ToSchema)]
#[serde(rename_all = "snake_case")]
#[strum(const_into_str, serialize_all = "snake_case")]
pub enum ScorecardState {
    /// It can be changed, and activated by another person.
    Draft,
    /// It decides grades.
    Champion,
    /// It is evaluated beside the champion, without effect.
    Challenger,
    /// It was champion or challenger.
    Retired,
}

/// What a scorecard is activated as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ScorecardRole {
    /// It decides grades, in the place of the present champion.
    Champion,
    /// It is evaluated beside the champion, without effect.
    Challenger,
}

impl From<ScorecardRole> for ScorecardState {
    fn from(role: ScorecardRole) -> Self {
        match role {
            ScorecardRole::Champion => Self::Champion,
            ScorecardRole::Challenger => Self::Challenger,
        }
    }
}

/// A scorecard as it is stored. The standard one comes with the release: it has neither id nor time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ScorecardRow {
    pub card: Scorecard,
    pub state: ScorecardState,
    pub scorecard_id: Option<Uuid>,
    pub created_by: Option<String>,
    pub created_at: Option<DateTime<Utc>>,
    /// Everybody who wrote it; none of them may activate it.
    pub edited_by: Vec<String>,
    pub updated_at: Option<DateTime<Utc>>,
    /// Who activated it last.
    pub activated_by: Option<String>,
    pub activated_at: Option<DateTime<Utc>>,
    /// Number of changes.
    pub revision: i64,
}

impl ScorecardRow {
    /// The standard scorecard: a draft of the release. While no scorecard was activated it runs without effect.
    fn standard() -> Self {
        Self {
            card: Scorecard::default(),
            state: ScorecardState::Draft,
            scorecard_id: None,
            created_by: None,
            created_at: None,
            edited_by: Vec::new(),
            updated_at: None,
            activated_by: None,
            activated_at: None,
            revision: 0,
        }
    }
}

/// The scorecards that runs evaluate.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Scorecards {
    /// Decides grades, where it was activated; the standard one, without effect, where none was.
    pub champion: Scorecard,
    /// The champion was activated.
    pub is_activated: bool,
    pub challenger: Option<Scorecard>,
}

impl Scorecards {
    /// The terms of statements that a grade decides: those of its band, where the champion was activated.
    #[must_use]
    pub fn terms_of(&self, grade: Grade) -> GradeTerms {
        let band = self.champion.bands.of_grade(grade).filter(|_| self.is_activated);
        band.map(Band::terms).unwrap_or_default()
    }

    /// Reads those in force.
    ///
    /// # Errors
    /// [`sqlx::Error`]; [`sqlx::Error::Decode`] for a scorecard of a later release.
    pub async fn read(database: impl PgExecutor<'_>) -> std::result::Result<Self, sqlx::Error> {
        let statement =
            "SELECT state, card::text FROM credit_scorecard WHERE state IN ('champion', 'challenger') ORDER BY state";
        let rows: Vec<(String, String)> = sqlx::query_as(statement).fetch_all(database).await?;
        let mut cards = Self::default();
        for (state, card) in rows {
            let card = serde_json::from_str(&card).map_err(|error| sqlx::Error::Decode(error.into()))?;
            if state == ScorecardState::Champion.into_str() {
                cards.champion = card;
                cards.is_activated = true;
            } else {
                cards.challenger = Some(card);
            }
        }
        Ok(cards)
    }
}

/// Scorecards in Postgres.
#[derive(Clone, Debug)]
pub struct ScorecardRepository {
    pool: PgPool,
}

impl ScorecardRepository {
    /// Works in the pool's database.
    #[must_use]
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// All scorecards, the newest first and the standard one at the end, those made before `after`.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn list(&self, after: Option<(DateTime<Utc>, Uuid)>, limit: i64) -> Result<Vec<ScorecardRow>> {
        let statement = "SELECT to_jsonb(s)::text FROM credit_scorecard s \
            WHERE $1::timestamptz IS NULL OR (created_at, scorecard_id) < ($1, $2) \
            ORDER BY created_at DESC, scorecard_id DESC LIMIT $3";
        let query = sqlx::query_scalar(statement).bind(after.map(|(at, _)| at)).bind(after.map(|(_, id)| id));
        let mut rows: Vec<ScorecardRow> = read_all(query.bind(limit).fetch_all(&self.pool).await?)?;
        let is_last_page = i64::try_from(rows.len()).is_ok_and(|count| count < limit);
        if is_last_page {
            rows.extend(self.standard().await?);
        }
        Ok(rows)
    }

    /// One scorecard.
    ///
    /// # Errors
    /// [`ChangeError::NotFound`].
    pub async fn get(&self, version: &str) -> Result<ScorecardRow> {
        let mut transaction = self.pool.begin().await?;
        match of_version(&mut transaction, version).await? {
            Some(found) => Ok(found),
            None => {
                let standard = self.standard().await?.filter(|standard| standard.card.version == version);
                standard.ok_or(ChangeError::NotFound("scorecard"))
            }
        }
    }

    /// The standard scorecard; none where the table has it.
    async fn standard(&self) -> Result<Option<ScorecardRow>> {
        let statement = "SELECT EXISTS (SELECT FROM credit_scorecard WHERE version = $1)";
        let query = sqlx::query_scalar(statement).bind(Scorecard::default().version);
        let is_stored: bool = query.fetch_one(&self.pool).await?;
        Ok((!is_stored).then(ScorecardRow::standard))
    }

    /// Writes a draft of the version that the card names.
    ///
    /// # Errors
    /// [`ChangeError::Invalid`] names the field; [`ChangeError::Conflict`] where the version was in force, or is at another
    /// revision than `expected_revision` (0 for a version that is new).
    pub async fn put(&self, by: By<'_>, card: &Scorecard, expected_revision: Option<i64>) -> Result<ScorecardRow> {
        card.validate()
            .map_err(|invalid| ChangeError::invalid(&format!("card.{}", invalid.member), invalid.problem))?;
        let standard = Scorecard::default();
        if card.version == standard.version && *card != standard {
            let problem = "names the standard scorecard, which is another one: give another version";
            return Err(ChangeError::invalid("card.version", problem));
        }
        let mut transaction = self.begin(by, "draft").await?;
        let present = of_version(&mut transaction, &card.version).await?;
        let revision = present.as_ref().map_or(0, |present| present.revision);
        ChangeError::expect_revision("scorecard", revision, expected_revision)?;
        if let Some(present) = present.filter(|present| present.state != ScorecardState::Draft) {
            let state = present.state.into_str();
            return Err(ChangeError::Conflict(format!(
                "the scorecard is {state}, and does not change: draft another version"
            )));
        }
        let statement = "INSERT INTO credit_scorecard AS s (version, card, created_by, edited_by) \
            VALUES ($1, $2::jsonb, $3, ARRAY[$3]) ON CONFLICT (version) DO UPDATE SET card = excluded.card, updated_at = now(), \
            revision = s.revision + 1, edited_by = CASE WHEN $3 = ANY (s.edited_by) THEN s.edited_by ELSE s.edited_by || $3 END \
            RETURNING to_jsonb(s)::text";
        let query = sqlx::query_scalar(statement).bind(&card.version).bind(json(card)?).bind(by.actor.as_str());
        let stored = read(query.fetch_one(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(stored)
    }

    /// Puts a scorecard in force, in the place of the one that has this role. Its authors cannot.
    ///
    /// # Errors
    /// [`ChangeError::FourEyes`]; [`ChangeError::Conflict`] where it has the role already, or is the champion.
    pub async fn activate(
        &self,
        by: By<'_>,
        version: &str,
        role: ScorecardRole,
        expected_revision: Option<i64>,
    ) -> Result<ScorecardRow> {
        let mut transaction = self.begin(by, "activate").await?;
        let present = self.present(&mut transaction, version, expected_revision).await?;
        let state = ScorecardState::from(role);
        if present.state == state || present.state == ScorecardState::Champion {
            let present = present.state.into_str();
            return Err(ChangeError::Conflict(format!("the scorecard is {present} already")));
        }
        let actor = by.actor.as_str();
        if present.edited_by.iter().any(|name| name == actor) {
            return Err(ChangeError::FourEyes);
        }
        retire(&mut transaction, "state = $1", state.into_str()).await?;
        let statement = "UPDATE credit_scorecard s SET state = $2, activated_by = $3, activated_at = now(), updated_at = now(), \
            revision = revision + 1 WHERE version = $1 RETURNING to_jsonb(s)::text";
        let query = sqlx::query_scalar(statement).bind(version).bind(state.into_str()).bind(actor);
        let activated = read(query.fetch_one(&mut *transaction).await?)?;
        transaction.commit().await?;
        Ok(activated)
    }

    /// Ends a challenger. What it made of each line stays.
    ///
    /// # Errors
    /// [`ChangeError::Conflict`] where it is none.
    pub async fn retire(&self, by: By<'_>, version: &str, expected_revision: Option<i64>) -> Result<ScorecardRow> {
        let mut transaction = self.begin(by, "retire").await?;
        let present = self.present(&mut transaction, version, expected_revision).await?;
        if present.state != ScorecardState::Challenger {
            let state = present.state.into_str();
            let problem =
                format!("only a challenger can be retired; this one is {state}. A champion is by activating another");
            return Err(ChangeError::Conflict(problem));
        }
        let mut retired = retire(&mut transaction, "version = $1", version).await?;
        transaction.commit().await?;
        read(retired.pop().ok_or(ChangeError::NotFound("scorecard"))?)
    }

    /// The stored scorecard, at the revision that is expected.
    async fn present(
        &self,
        transaction: &mut Transaction<'static, Postgres>,
        version: &str,
        expected_revision: Option<i64>,
    ) -> Result<ScorecardRow> {
        let present = match of_version(transaction, version).await? {
            Some(present) => present,
            None if version == Scorecard::default().version => {
                let problem = "the standard scorecard has no author: draft it first, then another person activates it";
                return Err(ChangeError::Conflict(problem.to_owned()));
            }
            None => return Err(ChangeError::NotFound("scorecard")),
        };
        ChangeError::expect_revision("scorecard", present.revision, expected_revision)?;
        Ok(present)
    }

    async fn begin(&self, by: By<'_>, action: &str) -> Result<Transaction<'static, Postgres>> {
        let mut transaction = self.pool.begin().await?;
        by.record(&mut transaction, action).await?;
        Ok(transaction)
    }
}

/// A stored scorecard, locked until the end of the transaction.
async fn of_version(transaction: &mut Transaction<'static, Postgres>, version: &str) -> Result<Option<ScorecardRow>> {
    let statement = "SELECT to_jsonb(s)::text FROM credit_scorecard s WHERE version = $1 FOR UPDATE";
    let found: Option<String> = sqlx::query_scalar(statement).bind(version).fetch_optional(&mut **transaction).await?;
    found.map(read).transpose()
}

async fn retire(
    transaction: &mut Transaction<'static, Postgres>,
    which: &'static str,
    value: &str,
) -> Result<Vec<String>> {
    let statement = format!(
        "UPDATE credit_scorecard s SET state = 'retired', updated_at = now(), revision = revision + 1 WHERE {which} \
         RETURNING to_jsonb(s)::text"
    );
    Ok(sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).bind(value).fetch_all(&mut **transaction).await?)
}
