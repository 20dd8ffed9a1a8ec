//! The decision server's command line.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use authz_server::run::{self, RunError};
use authz_server::settings::{self, Settings};
use clap::{Parser, Subcommand};

/// Sluice's decision server: enforces merchants' quotas for Envoy.
#[derive(Debug, Parser)]
#[command(version, after_long_help = settings::help())]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// A YAML file with settings; the environment goes before it.
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Serve decisions until SIGTERM or Ctrl-C; this is what happens without a command, too.
    Serve,
    /// Print the reference of all settings, as in docs/settings.md.
    Settings,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.command.unwrap_or(Command::Serve) {
        Command::Serve => serve(cli.config),
        Command::Settings => io::stdout().write_all(settings::reference().as_bytes()).map_err(RunError::Io),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "authz-server: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(config: Option<PathBuf>) -> Result<(), RunError> {
    run::run(&Settings::from_process(config)?)
}
