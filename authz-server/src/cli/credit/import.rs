//! `credit import`: takes over lines and their open statements from another system, in as many runs as approval needs.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use clap::Args;
use jiff::civil::Date;
use quota::{ActorId, Currency, MerchantId};
use serde::Deserialize;
use sluice_decision::operations::{Actor, Operations, Request};
use sluice_kit::database;
use sluice_kit::database::change::{By, ChangeError};
use sluice_lines::{LineInput, LineKey, LineRepository, LineState, OpenObligation, day_of};
use sluice_settings::Settings;

use super::{CONNECTIONS_MAX, CliError, CreditError, Outcome, actor, repay};
use crate::cli::{operations, print, print_to_stderr};

/// Lines between two reports of progress.
const PROGRESS_EVERY: usize = 500;

#[derive(Debug, Args)]
pub(in crate::cli) struct Import {
    /// One JSON object a line: {"line": {…}, "obligations": [{"closed_on", "due_on", "amount"}, …]}. `line` is as in
    /// `POST /api/v1/credit-lines`, with `taken_over_from`; obligations are the statements that are open.
    file: PathBuf,
    /// Check the file and say what would be done; change nothing.
    #[arg(long)]
    dry_run: bool,
    /// In whose name; this person cannot approve the lines.
    #[arg(long = "as", default_value = "admin:cli", value_parser = actor, value_name = "NAME")]
    actor: ActorId,
}

/// A line of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    line: LineInput,
    #[serde(default)]
    obligations: Vec<OpenObligation>,
}

/// What was done with each row.
#[derive(Debug, Default)]
struct Report {
    drafted: usize,
    waiting: usize,
    taken_over: usize,
    failed: usize,
}

/// Imports a file, row by row. A row that fails does not keep others back.
pub(super) async fn import(settings: &Settings, import: &Import) -> Result<Outcome, CliError> {
    let rows = read(&import.file)?;
    let keys: Vec<LineKey> =
        rows.iter().filter_map(|row| row.as_ref().ok()).filter_map(|row| key(&row.line).ok()).collect();
    let pool = database::pool(&settings.postgres_url(), CONNECTIONS_MAX)?;
    let (operations, _stop) = operations::open(settings, &pool, &keys).await?;
    let importer = Importer { operations, lines: LineRepository::new(pool), import };
    let mut report = Report::default();
    for (place, row) in (1..).zip(&rows) {
        let done = match row {
            Ok(row) => importer.row(row, &mut report).await,
            Err(why) => Err(why.clone()),
        };
        if let Err(why) = done {
            report.failed += 1;
            print_to_stderr(&format!("line {place}: {why}"));
        }
        if usize::is_multiple_of(place, PROGRESS_EVERY) {
            print_to_stderr(&format!("{place} of {} lines", rows.len()));
        }
    }
    let Report { drafted, waiting, taken_over, failed } = report;
    let would = if import.dry_run { "dry run, nothing was changed: " } else { "" };
    print(&format!(
        "{would}{drafted} drafted, {waiting} wait for approval and activation, {taken_over} in force with their statements, \
         {failed} failed\n"
    ))?;
    Ok(if failed == 0 { Outcome::Done } else { Outcome::No })
}

fn read(path: &Path) -> Result<Vec<Result<Row, String>>, CreditError> {
    let unread = |error| CreditError::File { path: path.display().to_string(), error };
    let mut rows = Vec::new();
    for line in BufReader::new(File::open(path).map_err(unread)?).lines() {
        let line = line.map_err(unread)?;
        if !line.trim().is_empty() {
            rows.push(serde_json::from_str(&line).map_err(|error| error.to_string()));
        }
    }
    Ok(rows)
}

fn key(input: &LineInput) -> Result<LineKey, String> {
    let merchant = MerchantId::parse(&input.merchant_id).map_err(|error| format!("`merchant_id`: {error}"))?;
    Ok((merchant, Currency::parse(&input.currency).map_err(|error| format!("`currency`: {error}"))?))
}

struct Importer<'a> {
    operations: Operations,
    lines: LineRepository,
    import: &'a Import,
}

impl Importer<'_> {
    async fn row(&self, row: &Row, report: &mut Report) -> Result<(), String> {
        let key = key(&row.line)?;
        let id = self.operations.business_day(&key.0, key.1).await;
        let today = day_of(id).ok_or_else(|| CreditError::BusinessDay(id).to_string())?;
        if row.line.taken_over_from.is_none() {
            return Err("`taken_over_from` is missing: the day on which the line was opened".to_owned());
        }
        // A change that is drafted leaves the version in force as it is.
        let record = self.lines.record(&key).await.map_err(|error| error.to_string())?;
        let in_force = record.line().map(|line| line.state).filter(|state| *state == LineState::Active);
        let present = match self.lines.get(&key).await {
            Ok(present) => in_force.or(Some(present.state)),
            Err(ChangeError::NotFound(_)) => None,
            Err(error) => return Err(error.to_string()),
        };
        match present {
            None => self.draft(row, today).await.map(|()| report.drafted += 1),
            Some(LineState::Draft | LineState::Approved) => {
                report.waiting += 1;
                Ok(())
            }
            Some(LineState::Active | LineState::Replaced) => {
                self.take_over(&key, &row.obligations).await.map(|()| report.taken_over += 1)
            }
            Some(LineState::Closed) => Err("the account's credit line is closed".to_owned()),
        }
    }

    async fn draft(&self, row: &Row, today: Date) -> Result<(), String> {
        row.line.check(today).map_err(|error| error.to_string())?;
        if self.import.dry_run {
            return Ok(());
        }
        let by = By { actor: &self.import.actor, reason: Some("import") };
        self.lines.create(by, &row.line, today).await.map(drop).map_err(|error| error.to_string())
    }

    /// What was posted before changes nothing.
    async fn take_over(&self, key: &LineKey, obligations: &[OpenObligation]) -> Result<(), String> {
        if obligations.is_empty() {
            return Ok(());
        }
        let record = self.lines.record(key).await.map_err(|error| error.to_string())?;
        let openings =
            record.openings(key.1, obligations).map_err(|error| format!("`{}`: {}", error.field, error.problem))?;
        if self.import.dry_run {
            return Ok(());
        }
        let actor = Actor { id: self.import.actor.clone(), operator_type: "admin" };
        for opening in openings {
            let request = Request { reason: "import".to_owned(), ..Request::opening(key, opening) };
            let done = self.operations.execute(&actor, request).await.map_err(|error| error.to_string())?;
            if done.is_refused() {
                return Err(repay::refused(&done).to_string());
            }
        }
        Ok(())
    }
}
