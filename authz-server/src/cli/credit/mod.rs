//! `credit`: a merchant's credit line, its statements, its repayments, and what follows if nothing is paid.

mod import;
mod repay;
mod show;
mod simulate;
mod statement;

use clap::{Args, Subcommand};
use jiff::civil::Date;
use quota::{ActorId, AmountMinor, Currency, MerchantId, OperationNo, OrderNo};
use serde::Serialize;
use sluice_decision::operations::Operations;
use sluice_kit::database;
use sluice_kit::database::change::ChangeError;
use sluice_kit::shutdown::Stop;
use sluice_lines::{LineKey, LineRecord, LineRepository, LineUsage, SimulationError, day_of};
use sluice_settings::Settings;
use thiserror::Error;

use super::{CliError, Outcome, operations, print, print_to_stderr};

/// Connections to Postgres that one command uses.
const CONNECTIONS_MAX: u32 = 2;

#[derive(Debug, Subcommand)]
pub(super) enum CreditCommand {
    /// Show a credit line: its limit, what is used of it, what is past due, and what follows if nothing is paid.
    ///
    /// Amounts are minor units. Exits with 3 where the account has no credit line.
    #[command(after_long_help = "Examples:
  authz-server credit show merchant-001 USD
  authz-server credit show merchant-001 USD --json | jq .today.available")]
    Show {
        #[command(flatten)]
        account: Account,
        /// Print JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Show a statement: what a cycle came to, when it is due, and what paid it.
    ///
    /// Amounts are minor units. A repayment shows about a second after it was recorded. Exits with 3 where there is no such
    /// statement.
    #[command(after_long_help = "Examples:
  authz-server credit statement merchant-001 USD
  authz-server credit statement merchant-001 USD 3 --json
  authz-server credit statement merchant-001 USD --csv > statements.csv")]
    Statement {
        #[command(flatten)]
        account: Account,
        /// The statement's number, 1 for the first one; the last one where none is given.
        #[arg(value_name = "NUMBER")]
        number: Option<u32>,
        /// Print JSON, for programs.
        #[arg(long)]
        json: bool,
        /// Print all statements as CSV (RFC 4180), the oldest first.
        #[arg(long, conflicts_with_all = ["json", "number"])]
        csv: bool,
    },
    /// Record a repayment.
    ///
    /// It makes room for the next payment at once, pays the oldest statement first, and what is beyond them waits for the next
    /// one. The same number with the same amount is recorded once.
    #[command(after_long_help = "Examples:
  authz-server credit repay merchant-001 USD REPAYMENT-001 250000
  authz-server credit repay merchant-001 USD REPAYMENT-001 250000 --received-on 2026-11-27 --remarks \"wire of Friday\"")]
    Repay(repay::Repayment),
    /// Take over credit lines and their open statements from another system.
    ///
    /// The first run drafts the lines. Another person approves and activates them; the next run then takes over what is open of each.
    /// Any run can be repeated: what was done before is not done again. Exits with 3 where a line of the file failed.
    #[command(after_long_help = "Example:
  authz-server credit import lines.jsonl --dry-run
  echo '{\"line\": {\"merchant_id\": \"merchant-001\", \"currency\": \"USD\", \"limit_base\": 1000000, \"taken_over_from\": \"2024-03-01\"}, \
\"obligations\": [{\"closed_on\": \"2026-10-31\", \"amount\": 250000}]}' > lines.jsonl")]
    Import(import::Import),
    /// Show what a credit line comes to on a later day if nothing is paid and nothing more is charged.
    ///
    /// The open cycle closes into a statement on its last day. Lists each change of the stage and each notice of dunning from
    /// today on. Nothing is changed. Amounts are minor units. Exits with 3 where the account has no credit line.
    #[command(after_long_help = "Example:\n  authz-server credit simulate merchant-001 USD --on 2027-03-31")]
    Simulate {
        #[command(flatten)]
        account: Account,
        /// The day to simulate, at most ten years away.
        #[arg(long, value_parser = day, value_name = "YYYY-MM-DD")]
        on: Date,
        /// Print JSON, for programs.
        #[arg(long)]
        json: bool,
    },
}

/// Whose line.
#[derive(Clone, Debug, Args)]
pub(super) struct Account {
    /// The merchant's id.
    #[arg(value_parser = merchant)]
    merchant: MerchantId,
    /// ISO 4217 alphabetic code, as in USD.
    #[arg(value_parser = currency)]
    currency: Currency,
}

fn merchant(text: &str) -> Result<MerchantId, String> {
    MerchantId::parse(text).map_err(|error| error.to_string())
}

fn currency(text: &str) -> Result<Currency, String> {
    Currency::parse(text).map_err(|error| error.to_string())
}

fn actor(text: &str) -> Result<ActorId, String> {
    ActorId::parse(text).map_err(|error| error.to_string())
}

fn day(text: &str) -> Result<Date, String> {
    Date::strptime("%Y-%m-%d", text).map_err(|_| "must be a day as in 2026-11-30".to_owned())
}

/// The number of a posting: the store knows it as the number of an order.
fn posting_no(text: &str) -> Result<OrderNo, String> {
    OperationNo::parse(text).map_err(|error| error.to_string())?;
    OrderNo::parse(text).map_err(|error| error.to_string())
}

fn amount(text: &str) -> Result<AmountMinor, String> {
    let minor = text.parse().ok().filter(|minor| *minor > 0).and_then(AmountMinor::new);
    minor.ok_or_else(|| format!("must be 1 to {} minor units", AmountMinor::MAX))
}

/// Why a command on a credit line failed.
#[derive(Debug, Error)]
pub(super) enum CreditError {
    #[error("the account has no credit line that was ever in force")]
    NoLine,
    #[error("--received-on {given} is in the future: the business day is {today}")]
    Future { given: Date, today: Date },
    #[error("AMOUNT {0}")]
    Amount(String),
    #[error("refused with {code}: {sentence}")]
    Refused { code: &'static str, sentence: String },
    #[error("{path} cannot be read: {error}")]
    File { path: String, error: std::io::Error },
    #[error("{0} is no business day")]
    BusinessDay(u32),
    #[error(transparent)]
    Change(#[from] ChangeError),
    #[error(transparent)]
    Simulation(#[from] SimulationError),
}

pub(super) fn execute(command: &CreditCommand, settings: &Settings) -> Result<Outcome, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            CreditCommand::Show { account, json } => show::show(&Session::open(settings, account).await?, *json).await,
            CreditCommand::Statement { account, number, json, csv } => {
                let format = statement::Format { json: *json, csv: *csv };
                statement::statement(&Session::open(settings, account).await?, *number, format).await
            }
            CreditCommand::Import(given) => import::import(settings, given).await,
            CreditCommand::Repay(repayment) => {
                repay::repay(&Session::open(settings, repayment.account()).await?, repayment).await
            }
            CreditCommand::Simulate { account, on, json } => {
                simulate::simulate(&Session::open(settings, account).await?, *on, *json).await
            }
        }
    })
}

/// What the commands work with.
struct Session {
    operations: Operations,
    lines: LineRepository,
    key: LineKey,
    /// The account's business day.
    today: Date,
    _stop: Stop,
}

impl Session {
    async fn open(settings: &Settings, account: &Account) -> Result<Self, CliError> {
        let key = (account.merchant.clone(), account.currency);
        let pool = database::pool(&settings.postgres_url(), CONNECTIONS_MAX)?;
        let (operations, stop) = operations::open(settings, &pool, std::slice::from_ref(&key)).await?;
        let id = operations.business_day(&key.0, key.1).await;
        let today = day_of(id).ok_or(CreditError::BusinessDay(id))?;
        Ok(Self { operations, lines: LineRepository::new(pool), key, today, _stop: stop })
    }

    /// Everything that Postgres has of the line.
    async fn record(&self) -> Result<LineRecord, CliError> {
        Ok(self.lines.record(&self.key).await.map_err(CreditError::from)?)
    }

    /// What Redis has of the account. It is read before [`Session::record`]: a cycle that closes in between is not lost.
    async fn usage(&self) -> Result<LineUsage, CliError> {
        let store = self.operations.store();
        let (account, _) = store.redis().account_of_merchant(&self.key.0, self.key.1).await?;
        Ok(LineUsage::of(account.as_ref()))
    }

    /// Prints an answer, or that there is none, as text or as JSON.
    fn answer<T: Serialize>(
        &self,
        found: Option<&T>,
        json: bool,
        missing: &str,
        text: impl FnOnce(&T) -> String,
    ) -> Result<Outcome, CliError> {
        let outcome = if found.is_some() { Outcome::Done } else { Outcome::No };
        let (merchant, currency) = &self.key;
        if json {
            let document = Document {
                found: found.is_some(),
                merchant_id: merchant.as_str(),
                currency: currency.code(),
                content: found,
            };
            print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
        } else if let Some(found) = found {
            print(&text(found))?;
        } else {
            print_to_stderr(missing);
        }
        Ok(outcome)
    }

    /// The account, as texts begin.
    fn account(&self) -> String {
        format!("{} {}, amounts in minor units", self.key.0, self.key.1)
    }

    fn no_line(&self) -> String {
        format!("{} has no credit line in {}", self.key.0, self.key.1)
    }
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document<'a, T: Serialize> {
    found: bool,
    merchant_id: &'a str,
    currency: &'static str,
    #[serde(flatten)]
    content: Option<&'a T>,
}

/// What a person reads, line by line.
fn table(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

/// Days past due, in words.
fn past_due(days: i64) -> String {
    match days {
        1 => "1 day past due".to_owned(),
        days => format!("{days} days past due"),
    }
}

/// A day, or that there is none.
fn day_or_none(day: Option<Date>) -> String {
    day.map_or_else(|| "none".to_owned(), |day| day.to_string())
}
