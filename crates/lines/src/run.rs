//! Runs of the scorecards: when one is due, what it makes of a line, and its row. A run follows the decision before it, and one alone
//! can: whatever servers do at once, and wherever one dies, each close and each change of stage has one run.

use jiff::civil::Date;
use serde::Serialize;
use sluice_credit::{
    Books, CycleId, Feature, GradeMove, GradeRecord, GradeRun, Inputs, LineHistory, ScorecardRun, Standing,
};
use sluice_kit::database::change::{ChangeError, json, read, read_all};
use sqlx::PgPool;
use utoipa::ToSchema;

use crate::activity::{Activity, YEAR_DAYS, plus_days};
use crate::grade::columns;
use crate::{CreditLine, GradeKind, GradeRow, LineKey, LineRecord, LineState, RunDetails, Scorecards};

/// The actor in the table.
const ACTOR: &str = "system:scorecard";

/// A run that is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DueRun {
    /// The day that it is of: that after the close, or that on which the other stage was seen.
    pub on: Date,
    /// The cycle that closed; none of a change of stage.
    pub cycle: Option<CycleId>,
    /// The decision before it.
    follows: i64,
}

/// When a line's scorecards run next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct NextRun {
    #[schema(value_type = String, format = Date)]
    pub on: Date,
    /// It is that of a cycle's close, and not of a change of stage.
    pub is_close: bool,
}

/// What a run makes of a line.
struct Outcome {
    decided: GradeRecord,
    standing: Standing,
    details: RunDetails,
}

impl LineRecord {
    /// The opening, and each run since, oldest first.
    fn decisions(&self) -> impl DoubleEndedIterator<Item = &GradeRow> {
        let opening = self.grades.iter().rposition(|row| row.kind == GradeKind::Opening).unwrap_or_default();
        self.grades.iter().skip(opening).filter(|row| row.kind != GradeKind::Override)
    }

    /// The line, where runs decide its grade: one that is closed keeps the last one.
    fn graded(&self) -> Option<&CreditLine> {
        self.line().filter(|line| line.state != LineState::Closed)
    }

    /// The run that is due on a day: that of the first cycle that closed without one; then that of a stage which is not the last
    /// run's.
    #[must_use]
    pub fn due_run(&self, books: &Books, today: Date) -> Option<DueRun> {
        self.graded()?;
        let (first, last) = (self.decisions().next()?, self.decisions().next_back()?);
        let has_run = |cycle| self.decisions().any(|row| row.cycle == Some(cycle));
        let closed = self.statements.iter().filter(|own| own.closed_on >= first.on_day && !has_run(own.cycle));
        let due = |on: Date, cycle| DueRun { on: on.max(last.on_day), cycle, follows: last.grade_id };
        if let Some(own) = closed.min_by_key(|own| own.number) {
            return Some(due(plus_days(own.closed_on, 1), Some(own.cycle))).filter(|due| due.on <= today);
        }
        let stage = self.history(books)?.standing(today).stage;
        (stage != last.stage.unwrap_or_default()).then(|| due(today, None))
    }

    /// When the scorecards run next if nothing is paid; none where the line is closed.
    #[must_use]
    pub fn next_run(&self, today: Date) -> Option<NextRun> {
        self.graded()?;
        let (books, _) = self.books();
        if let Some(due) = self.due_run(&books, today) {
            return Some(NextRun { on: due.on.max(today), is_close: due.cycle.is_some() });
        }
        let (cycle, _) = self.schedule()?.cycle_at(today)?;
        let close = NextRun { on: plus_days(cycle.last_day, 1), is_close: true };
        let history = self.history(&books)?;
        let stage = history.standing(today).stage;
        let change = history.next_stage_changes(today).into_iter().find(|change| change.stage != stage);
        let change = change.filter(|change| change.on < close.on);
        Some(change.map_or(close, |change| NextRun { on: change.on, is_close: false }))
    }

    /// How often the grade went down in the year up to a day.
    fn downgrades(&self, on: Date) -> i64 {
        let year = plus_days(on, -YEAR_DAYS);
        let fell = |(before, row): &(&GradeRow, &GradeRow)| row.grade > before.grade && row.on_day > year;
        i64::try_from(self.decisions().zip(self.decisions().skip(1)).filter(fell).count()).unwrap_or(i64::MAX)
    }

    fn inputs(&self, history: &LineHistory<'_>, opened_on: Date, activity: &Activity, on: Date) -> Inputs {
        let limit_base = self.line().map_or(0, |line| line.limit_base);
        let mut inputs = history.payment_inputs(opened_on, limit_base, on);
        // Before that a line that was taken over had its payments elsewhere.
        activity.behaviour(self.active_from().unwrap_or(opened_on), on).add_to(&mut inputs);
        inputs.set(Feature::Downgrades, self.downgrades(on));
        inputs.set(Feature::Disputes, activity.disputes);
        inputs
    }

    /// Evaluates the scorecards, and moves the grade by the champion's rule, where one was activated.
    fn evaluate(&self, books: &Books, cards: &Scorecards, due: DueRun, activity: &Activity) -> Option<Outcome> {
        let (line, current) = (self.line()?, self.decided_grade()?);
        let history = self.history(books)?;
        let inputs = self.inputs(&history, line.opened_on?, activity, due.on);
        let standing = history.standing(due.on);
        let ScorecardRun { champion, challenger } =
            ScorecardRun::new(&cards.champion, cards.challenger.as_ref(), &inputs);
        // Scores of different cards say nothing about each other.
        let last_close = self.decisions().rev().find(|row| row.is_close);
        let of_this_card = last_close.filter(|row| row.scorecard.as_ref() == Some(&champion.version));
        let run = GradeRun {
            on: due.on,
            score: champion.score,
            is_close: due.cycle.is_some(),
            previous_close_score: of_this_card.and_then(|row| row.score),
            standing: &standing,
        };
        let decided = match cards.champion.bands.next_grade(cards.champion.movement, current, &run) {
            GradeMove::Down(grade) | GradeMove::Up(grade) if cards.is_activated => {
                GradeRecord { grade, changed_on: due.on }
            }
            GradeMove::Unchanged | GradeMove::Down(_) | GradeMove::Up(_) => current,
        };
        Some(Outcome {
            decided,
            standing,
            details: RunDetails { has_effect: cards.is_activated, inputs, champion, challenger },
        })
    }
}

/// Runs in Postgres.
#[derive(Clone, Debug)]
pub struct RunRepository {
    pool: PgPool,
}

impl RunRepository {
    /// Works in the pool's database.
    #[must_use]
    pub const fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    pub(crate) const fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Makes a run that is due, and stores it with the grade that follows; `None` where another server has made it.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn run(
        &self,
        key: &LineKey,
        record: &LineRecord,
        due: DueRun,
        cards: &Scorecards,
    ) -> Result<Option<GradeRow>, ChangeError> {
        let Some(active_from) = record.active_from() else { return Ok(None) };
        let activity = Activity::read(&self.pool, key, active_from, due.on).await?;
        let Some(outcome) = record.evaluate(&record.books().0, cards, due, &activity) else { return Ok(None) };
        let Outcome { decided, standing, details } = outcome;
        let RunDetails { champion, challenger, .. } = &details;
        let statement = "INSERT INTO credit_grade AS g (merchant_id, currency, kind, grade, on_day, changed_on, requested_by, \
                is_close, scorecard, score, scored, challenger, challenger_score, challenger_grade, run, follows, cycle, stage, \
                days_past_due, due_days, minimum_bp) \
            VALUES ($1, $2, 'scorecard', $3, $4::date, $5::date, $6, $7, $8, $9, $10, $11, $12, $13, $14::jsonb, $15, $16, $17, $18, \
                $19, $20) \
            ON CONFLICT DO NOTHING RETURNING to_jsonb(g)::text";
        let query = sqlx::query_scalar(statement).bind(key.0.as_str()).bind(key.1.code());
        let query = query.bind(decided.grade.as_str()).bind(due.on.to_string()).bind(decided.changed_on.to_string());
        let query = query.bind(ACTOR).bind(due.cycle.is_some()).bind(&champion.version).bind(champion.score);
        let query = query.bind(champion.grade.as_str()).bind(challenger.as_ref().map(|own| own.version.as_str()));
        let query = query.bind(challenger.as_ref().map(|own| own.score));
        let query = query.bind(challenger.as_ref().map(|own| own.grade.as_str())).bind(json(&details)?);
        let query = query.bind(due.follows).bind(due.cycle.map(|cycle| cycle.0.cast_signed()));
        let days_past_due = i32::try_from(standing.days_past_due).unwrap_or(i32::MAX);
        let query = query.bind(standing.stage.as_str()).bind(days_past_due);
        let [due_days, minimum_bp] = columns(cards.terms_of(decided.grade));
        let query = query.bind(due_days).bind(minimum_bp);
        let stored: Option<String> = query.fetch_optional(&self.pool).await?;
        stored.map(read).transpose()
    }

    /// The latest decisions about the grade of a line, the newest first, runs with their details.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn decisions(&self, key: &LineKey, limit: i64) -> Result<Vec<GradeRow>, ChangeError> {
        let statement = "SELECT to_jsonb(g)::text FROM credit_grade g WHERE merchant_id = $1 AND currency = $2 \
            ORDER BY grade_id DESC LIMIT $3";
        let query = sqlx::query_scalar(statement).bind(key.0.as_str()).bind(key.1.code()).bind(limit);
        read_all(query.fetch_all(&self.pool).await?)
    }
}

#[cfg(test)]
pub(crate) mod tests;
