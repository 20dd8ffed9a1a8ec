//! The command line: the server itself, and what operators do beside it. Each command uses the settings that it needs and no
//! others, and answers on standard output; errors go to standard error.

mod credit;
mod inspect;
mod operations;
mod outcomes;
mod policy;
mod reference;
mod rights;
mod routes;
mod rules;
mod token;
mod yaml;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;
use thiserror::Error;

use crate::run::{self, RunError};
use sluice_api::admin;
use sluice_decision::operations::resolve::ResolveError;
use sluice_policy_source::zones::ZonesError;
use sluice_policy_source::{PolicyStartError, SourceError};
use sluice_settings::{Settings, SettingsError};
use sluice_store::StoreError;

/// The exit codes; `--help` and the reference show them.
const EXIT_CODES: &str = "\
Exit codes:
  0  done
  1  failed: standard error says why
  2  the command line cannot be read
  3  done, and the answer is no: nothing is stored there, or with --exit-code the policies differ
";

const EXAMPLES: &str = "\
Examples:
  authz-server --config sluice.yaml
  authz-server policy validate policies.yaml
  authz-server policy diff policies.yaml policies.new.yaml
  authz-server rules validate rules.json
  authz-server routes check envoy.yaml routes.yaml
  authz-server inspect account merchant-001 USD
  authz-server inspect order merchant-001 ORDER-001 --json
  authz-server outcomes list --merchant merchant-001
  authz-server rights list --merchant merchant-001
  authz-server credit show merchant-001 USD
  authz-server credit simulate merchant-001 USD --on 2027-03-31
  authz-server token --subject ana --role operator --ttl 15m
";

/// Sluice's decision server: enforces merchants' quotas for Envoy.
#[derive(Debug, Parser)]
#[command(name = "authz-server", version, after_help = EXIT_CODES, after_long_help = ending())]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// A YAML file with settings; the environment goes before it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The end of the program's own `--help`.
fn ending() -> String {
    format!("{EXAMPLES}\n{EXIT_CODES}\n{}", sluice_settings::help())
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve decisions until SIGTERM or Ctrl-C; this is what happens without a command, too.
    #[command(
        after_long_help = "Example:\n  REDIS_URL=redis://redis:6379/ SLUICE_POLICY_FILE=policies.yaml authz-server serve"
    )]
    Serve,
    /// Check policy files before they are taken over. Needs no settings; time zones are read as the server reads them (TZDIR).
    #[command(subcommand, after_long_help = "Example:\n  authz-server policy validate policies.yaml")]
    Policy(policy::PolicyCommand),
    /// Check rules documents before they are taken over. Needs no settings.
    #[command(subcommand, after_long_help = "Example:\n  authz-server rules validate rules.json")]
    Rules(rules::RulesCommand),
    /// Check Envoy's routes before they are taken over. Needs no settings.
    #[command(subcommand, after_long_help = "Example:\n  authz-server routes check envoy.yaml routes.yaml")]
    Routes(routes::RoutesCommand),
    /// Show what Redis holds, as it decides with it. Nothing is changed.
    ///
    /// Where Redis is and how many shards it has is read from the same settings as the server's (REDIS_URL or REDIS_HOST and
    /// REDIS_PORT, SLUICE_SHARDS).
    #[command(subcommand, after_long_help = "Example:\n  authz-server inspect order merchant-001 ORDER-001 --json")]
    Inspect(inspect::InspectCommand),
    /// List payments whose outcome at the gateway is unknown, and say what became of them.
    ///
    /// Uses the server's settings: DATABASE_URL or DB_*; to resolve one also REDIS_URL or REDIS_*, SLUICE_SHARDS and the
    /// sources of policies.
    #[command(subcommand, after_long_help = "Example:\n  authz-server outcomes list --merchant merchant-001")]
    Outcomes(outcomes::OutcomesCommand),
    /// List rights that have not ended, and end those that their holders have not returned.
    ///
    /// A list needs REDIS_URL or REDIS_*, and SLUICE_SHARDS; to release one also DATABASE_URL or DB_* and the sources of policies.
    #[command(subcommand, after_long_help = "Example:\n  authz-server rights list --orphaned")]
    Rights(rights::RightsCommand),
    /// Show a merchant's credit line and its statements, record a repayment, and simulate what follows if nothing is paid.
    ///
    /// Uses the server's settings: DATABASE_URL or DB_*, REDIS_URL or REDIS_*, SLUICE_SHARDS and the sources of policies, whose
    /// calendar decides which business day it is.
    #[command(subcommand, after_long_help = "Example:\n  authz-server credit show merchant-001 USD")]
    Credit(credit::CreditCommand),
    /// Make a bearer token for the admin API, to try things out.
    ///
    /// It is signed with JWT_SECRET (HS256), so that it only proves that its maker knows the secret. In production
    /// tokens come from your identity provider, or are access tokens made by the admin API.
    Token(token::TokenArguments),
    /// Print the admin API's OpenAPI document, as the server answers it at /openapi.json.
    #[command(after_long_help = "Example:\n  authz-server openapi > openapi.json")]
    Openapi,
    /// Print the reference of all settings, as in docs/settings.md.
    #[command(after_long_help = "Example:\n  authz-server settings > docs/settings.md")]
    Settings,
    /// Print the reference of all error codes, as in docs/errors.md.
    #[command(after_long_help = "Example:\n  authz-server errors > docs/errors.md")]
    Errors,
    /// Print the reference of all commands, as in docs/cli.md.
    #[command(after_long_help = "Example:\n  authz-server commands > docs/cli.md")]
    Commands,
}

/// Why a command failed.
#[derive(Debug, Error)]
enum CliError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error(transparent)]
    Policy(#[from] SourceError),
    #[error(transparent)]
    File(#[from] yaml::FileError),
    #[error(transparent)]
    Routes(#[from] routes::RoutesError),
    #[error(transparent)]
    Zones(#[from] ZonesError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Token(#[from] token::TokenError),
    #[error(transparent)]
    PolicyStart(#[from] PolicyStartError),
    #[error("postgres: {0}")]
    Postgres(#[from] sluice_kit::database::Error),
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    #[error(transparent)]
    Rights(#[from] rights::RightsError),
    #[error(transparent)]
    Credit(#[from] credit::CreditError),
    #[error("the answer cannot be written: {0}")]
    Output(#[from] io::Error),
    #[error("the answer cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// How a command ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Done,
    /// The answer is no.
    No,
}

/// Reads the command line and executes its command.
#[must_use]
pub fn run() -> ExitCode {
    let Cli { command, config } = Cli::parse();
    match execute(command.unwrap_or(Command::Serve), config) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::No) => ExitCode::from(3),
        Err(error) => {
            print_to_stderr(&format!("authz-server: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command, config: Option<PathBuf>) -> Result<Outcome, CliError> {
    match command {
        Command::Serve => run::run(&Settings::from_process(config)?)?,
        Command::Policy(command) => return policy::execute(&command),
        Command::Rules(command) => return rules::execute(&command),
        Command::Routes(command) => return routes::execute(&command),
        Command::Inspect(command) => return inspect::execute(&command, &Settings::from_process(config)?),
        Command::Outcomes(command) => return outcomes::execute(&command, &Settings::from_process(config)?),
        Command::Rights(command) => return rights::execute(&command, &Settings::from_process(config)?),
        Command::Credit(command) => return credit::execute(&command, &Settings::from_process(config)?),
        Command::Token(arguments) => token::execute(&arguments, &Settings::from_process(config)?)?,
        Command::Openapi => print(&admin::openapi::document())?,
        Command::Settings => print(&sluice_settings::reference())?,
        Command::Errors => print(&admin::errors::reference())?,
        Command::Commands => print(&reference::reference())?,
    }
    Ok(Outcome::Done)
}

/// Prints a list, or to standard error that there is `none`.
fn show<T: Serialize>(items: &[T], json: bool, none: &str, table: fn(&[T]) -> String) -> Result<Outcome, CliError> {
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(items)?))?;
    } else if items.is_empty() {
        print_to_stderr(none);
    } else {
        print(&table(items))?;
    }
    Ok(if items.is_empty() { Outcome::No } else { Outcome::Done })
}

/// A table: each column as wide as its widest cell.
fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut widths = [0; N];
    for row in rows {
        widths.iter_mut().zip(row).for_each(|(width, cell)| *width = cell.len().max(*width));
    }
    let line = |row: &[String; N]| {
        let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// Writes to standard output. A reader that has seen enough, as `head`, is no failure.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

/// Writes a line to standard error; a failure cannot be reported anywhere.
fn print_to_stderr(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}
