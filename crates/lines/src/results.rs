//! How a challenger did beside the champion: the grades of both, and which lines were later past due.

use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use sluice_credit::Grade;
use sluice_kit::database::change::{ChangeError, read_all};
use utoipa::ToSchema;

use crate::RunRepository;

/// Runs of which it is known whether the line was later past due by more than 30 days: another run followed.
const PAIRS: &str = "\
    SELECT jsonb_build_object('champion', scored, 'challenger', challenger_grade, 'runs', count(*), \
        'followed', count(*) FILTER (WHERE later.runs > 0), 'late', count(*) FILTER (WHERE later.is_late))::text \
    FROM credit_grade AS g CROSS JOIN LATERAL (SELECT count(*) AS runs, coalesce(bool_or(days_past_due > 30), false) AS is_late \
        FROM credit_grade AS later WHERE (later.merchant_id, later.currency) = (g.merchant_id, g.currency) \
            AND later.grade_id > g.grade_id AND later.kind = 'scorecard') AS later \
    WHERE challenger = $1 GROUP BY scored, challenger_grade ORDER BY scored, challenger_grade";
const RUNS: &str = "\
    SELECT jsonb_build_object('grade_id', grade_id, 'merchant_id', merchant_id, 'currency', currency, 'on_day', on_day, \
        'is_close', is_close, 'champion', jsonb_build_object('version', scorecard, 'score', score, 'grade', scored), \
        'challenger', jsonb_build_object('version', challenger, 'score', challenger_score, 'grade', challenger_grade))::text \
    FROM credit_grade WHERE challenger = $1 AND ($2::bigint IS NULL OR grade_id < $2) ORDER BY grade_id DESC LIMIT $3";
const MEANS: &str =
    "SELECT round(avg(score))::int, round(avg(challenger_score))::int FROM credit_grade WHERE challenger = $1";

/// Runs in which champion and challenger came to these grades.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GradePair {
    /// The grade of the champion's score.
    pub champion: Grade,
    /// The grade of the challenger's score.
    pub challenger: Grade,
    #[serde(flatten)]
    pub outcomes: Outcomes,
}

/// What became of the lines of some runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Outcomes {
    pub runs: i64,
    /// Of these, those after which the line had another run: of them it is known what became of the line.
    pub followed: i64,
    /// Of those, the ones after which a run found the line past due by more than 30 days.
    pub late: i64,
}

/// What became of the lines that each scorecard gave a grade.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct GradeOutcomes {
    pub grade: Grade,
    pub champion: Outcomes,
    pub challenger: Outcomes,
}

/// A challenger beside the champions of its runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ChallengerResults {
    pub runs: i64,
    /// Rounded to points; none without a run.
    pub champion_mean_score: Option<i32>,
    pub challenger_mean_score: Option<i32>,
    /// The pairs of grades that there were.
    pub matrix: Vec<GradePair>,
    /// The same by the grades of each.
    pub grades: Vec<GradeOutcomes>,
}

/// What a scorecard made of a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Score {
    pub version: String,
    pub score: i32,
    /// The grade of the score's band.
    pub grade: Grade,
}

/// A run of a challenger beside the champion.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TrialRun {
    pub grade_id: i64,
    pub merchant_id: String,
    pub currency: String,
    #[schema(value_type = String, format = Date)]
    pub on_day: Date,
    /// It is that of a cycle's close, and not of a change of stage.
    pub is_close: bool,
    pub champion: Score,
    pub challenger: Score,
}

impl std::iter::Sum for Outcomes {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, own| Self {
            runs: sum.runs + own.runs,
            followed: sum.followed + own.followed,
            late: sum.late + own.late,
        })
    }
}

fn outcomes(matrix: &[GradePair], is_of: impl Fn(&GradePair) -> bool) -> Outcomes {
    matrix.iter().filter(|pair| is_of(pair)).map(|pair| pair.outcomes).sum()
}

impl RunRepository {
    /// How a challenger did in all its runs.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn results(&self, challenger: &str) -> Result<ChallengerResults, ChangeError> {
        let mut transaction = self.pool().begin().await?;
        let pairs: Vec<String> = sqlx::query_scalar(PAIRS).bind(challenger).fetch_all(&mut *transaction).await?;
        let means: (Option<i32>, Option<i32>) =
            sqlx::query_as(MEANS).bind(challenger).fetch_one(&mut *transaction).await?;
        let matrix: Vec<GradePair> = read_all(pairs)?;
        let of_grade = |grade| GradeOutcomes {
            grade,
            champion: outcomes(&matrix, |pair| pair.champion == grade),
            challenger: outcomes(&matrix, |pair| pair.challenger == grade),
        };
        Ok(ChallengerResults {
            runs: outcomes(&matrix, |_| true).runs,
            champion_mean_score: means.0,
            challenger_mean_score: means.1,
            grades: Grade::ALL.map(of_grade).into(),
            matrix,
        })
    }

    /// The runs of a challenger, the latest first, those before `after`.
    ///
    /// # Errors
    /// [`ChangeError::Database`].
    pub async fn trial_runs(
        &self,
        challenger: &str,
        after: Option<i64>,
        limit: i64,
    ) -> Result<Vec<TrialRun>, ChangeError> {
        let query = sqlx::query_scalar(RUNS).bind(challenger).bind(after).bind(limit);
        read_all(query.fetch_all(self.pool()).await?)
    }
}
