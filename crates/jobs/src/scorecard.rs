//! Runs of the scorecards: at each close of a cycle and each change of a line's stage, once (`sluice_lines::RunRepository`).

use std::collections::HashMap;

use jiff::civil::Date;
use quota::Currency;
use sluice_credit::{Feature, Grade};
use sluice_kit::database::change::ChangeError;
use sluice_lines::{GradeRow, LineKey, LineRecord, RunRepository, Scorecards};
use tracing::info;

use super::Tools;
use super::apply::Failures;

/// The lines of a page, each with its business day.
pub(super) struct Page<'a> {
    pub(super) records: &'a HashMap<LineKey, LineRecord>,
    pub(super) days: &'a HashMap<&'a LineKey, Date>,
    pub(super) cards: &'a Scorecards,
}

/// Makes the runs that are due; returns how many. One line's failure holds up no other.
pub(super) async fn run(tools: &Tools, page: &Page<'_>, failures: &mut Failures) -> u64 {
    let runs = RunRepository::new(tools.pool.clone());
    let mut made = 0;
    for (key, record) in page.records {
        let Some(today) = page.days.get(key).filter(|_| !failures.are_too_many()) else { continue };
        match run_each(tools, &runs, (key, record), *today, page.cards).await {
            Ok(runs) => made += runs,
            Err(error) => failures.add(error.into()),
        }
    }
    made
}

/// The runs of one line, each on the record with those before it.
async fn run_each(
    tools: &Tools,
    runs: &RunRepository,
    (key, record): (&LineKey, &LineRecord),
    today: Date,
    cards: &Scorecards,
) -> Result<u64, ChangeError> {
    let (books, _) = record.books();
    let Some(mut due) = record.due_run(&books, today) else { return Ok(0) };
    let mut record = record.clone();
    let mut made = 0;
    // Another server that makes the same runs goes on with them.
    while let Some(row) = runs.run(key, &record, due, cards).await? {
        made += 1;
        report(tools, key, record.decided_grade().map_or(row.grade, |before| before.grade), &row);
        record.grades.push(GradeRow { run: None, ..row });
        let Some(next) = record.due_run(&books, today) else { break };
        due = next;
    }
    Ok(made)
}

/// Counts a run, and says which grade has changed and why.
fn report(tools: &Tools, (merchant, currency): &LineKey, before: Grade, row: &GradeRow) {
    tools.job_metrics.scorecard_ran(row.is_close);
    if row.grade == before {
        return;
    }
    tools.job_metrics.grade_changed(row.grade > before);
    let reasons: Vec<&str> =
        row.run.iter().flat_map(|run| &run.champion.reasons).copied().map(Feature::as_str).collect();
    let currency = Currency::code(*currency);
    info!(
        %merchant, currency, from = before.as_str(), to = row.grade.as_str(), score = row.score, scorecard = row.scorecard,
        reasons = reasons.join(","), is_close = row.is_close, "the grade of a credit line has changed"
    );
}
