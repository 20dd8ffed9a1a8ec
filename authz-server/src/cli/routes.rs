//! `routes`: checks Envoy's routes for what Envoy itself accepts and Sluice would not do as meant.

mod check;
mod setup;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use thiserror::Error;

use super::yaml::{self, FileError};
use super::{CliError, Outcome, print, rules};
use check::Finding;
use setup::Setup;

#[derive(Debug, Subcommand)]
pub(super) enum RoutesCommand {
    /// Check routes: misspelt keys and modes, filters that do not exist, payments that no filter sees, retries of payments.
    ///
    /// Prints what it found, each with its route and what to write instead. Errors exit with 1; warnings alone with 0. What it
    /// needs to know of the filters and the rules is read from the same files: name Envoy's configuration and the route file.
    #[command(
        after_long_help = "Examples:\n  authz-server routes check envoy.yaml routes.yaml\n  authz-server routes check routes.yaml --rules rules.json"
    )]
    Check {
        /// Route files, and Envoy's configuration with the filters.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// The rules document, where it stands in none of the files.
        #[arg(long, value_name = "FILE")]
        rules: Option<PathBuf>,
    },
}

/// Some routes would not do what they are meant to.
#[derive(Debug, Error)]
#[error("{errors} of the findings are errors")]
pub(super) struct RoutesError {
    errors: usize,
}

pub(super) fn execute(command: &RoutesCommand) -> Result<Outcome, CliError> {
    let RoutesCommand::Check { files, rules } = command;
    let mut setup = Setup::default();
    for file in files {
        setup.add(&yaml::parse(file, &yaml::read(file)?)?).map_err(|problem| FileError::new(file, problem))?;
    }
    if let Some(file) = rules {
        setup.rules = Some(rules::parse(file, &yaml::read(file)?)?);
    }
    if setup.hosts.is_empty() {
        let file = files.first().map(PathBuf::as_path).unwrap_or_else(|| Path::new(""));
        return Err(FileError::new(file, "holds no virtual host: name the route file").into());
    }
    let findings = check::check(&setup);
    let errors = findings.iter().filter(|finding| finding.is_error).count();
    print(&report(&setup, &findings))?;
    if errors > 0 { Err(RoutesError { errors }.into()) } else { Ok(Outcome::Done) }
}

fn report(setup: &Setup, findings: &[Finding]) -> String {
    let routes: usize = setup.hosts.iter().map(|host| host.routes.len()).sum();
    let lines: String = findings.iter().map(|finding| format!("{finding}\n")).collect();
    let rules = match &setup.rules {
        Some(rules) => format!("{} rules", rules.rules.rules().len()),
        None => "no rules, so that payments are not known: name envoy.yaml, or --rules".to_owned(),
    };
    format!("{lines}{routes} routes checked with {rules}: {} findings\n", findings.len())
}
