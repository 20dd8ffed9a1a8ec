//! `policy`: checks policy files, and shows what a change means for whom.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::Subcommand;
use sluice_policy::{PolicyBook, policy_diff};

use super::{CliError, Outcome, print};
use sluice_policy_source::zones::Zones;
use sluice_policy_source::{FileSource, SourceError};

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Check one file as the server does at its start.
    ///
    /// Prints its version and how much is in it; or the field that is wrong, and exits with 1.
    #[command(after_long_help = "Example:\n  authz-server policy validate policies.yaml")]
    Validate {
        /// The policy file.
        file: PathBuf,
    },
    /// Say what changes for whom between two files.
    ///
    /// Prints a line for each field of each policy that changes. Merchants that only have their tier's policies stand in the
    /// tier's lines.
    #[command(after_long_help = "Example:\n  authz-server policy diff policies.yaml policies.new.yaml")]
    Diff {
        /// The file in force.
        old: PathBuf,
        /// The file that is to replace it.
        new: PathBuf,
        /// Exit with 3 where there are differences.
        #[arg(long)]
        exit_code: bool,
    },
}

pub(super) fn execute(command: &PolicyCommand) -> Result<Outcome, CliError> {
    match command {
        PolicyCommand::Validate { file } => {
            let zones = zones()?;
            let book = load(file, &zones)?;
            let data = zones.data();
            let (version, tiers, merchants) = (book.version(), book.tiers(), book.merchants());
            print(&format!(
                "{} is valid\nversion    {version}\ntiers      {tiers}\nmerchants  {merchants}\nzone data  {} {}\n",
                file.display(),
                data.origin,
                data.version
            ))?;
            Ok(Outcome::Done)
        }
        PolicyCommand::Diff { old, new, exit_code } => {
            let zones = zones()?;
            let lines = policy_diff(&load(old, &zones)?, &load(new, &zones)?);
            if lines.is_empty() {
                print("no policy changes\n")?;
            }
            print(&lines.iter().map(|line| format!("{line}\n")).collect::<String>())?;
            Ok(if *exit_code && !lines.is_empty() { Outcome::No } else { Outcome::Done })
        }
    }
}

/// The time zones, as the server reads them.
fn zones() -> Result<Arc<Zones>, CliError> {
    Ok(Arc::new(Zones::open(sluice_settings::tzdir()?.as_deref())?))
}

fn load(file: &Path, zones: &Arc<Zones>) -> Result<PolicyBook, CliError> {
    let (set, _) = FileSource::new(file, Arc::clone(zones)).load()?;
    let refused = |error| SourceError::Document { path: file.to_owned(), error };
    Ok(set.compile(&**zones).map_err(refused)?)
}
