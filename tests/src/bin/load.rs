//! `cargo load`: what Sluice costs, beside Envoy alone, a filter that only parses, and native ext_authz.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use e2e::load::{self, LoadOptions};
use e2e::{Context, Result};

/// Measures Sluice in one run beside Envoy alone, the filter parsing only, and Envoy's native ext_authz with a server that
/// always allows; compares counters with the journal afterwards, and fails where anything was wrong.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// Rounds of the comparison; figures worth quoting need five.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: u16,
    /// Seconds of one measurement.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: u16,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Merchants that payments are spread over.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    merchants: u32,
    /// Numbers of merchants for the growth table; none leaves it out.
    #[arg(long, value_delimiter = ',', default_value = "100,1000,10000,100000")]
    growth: Vec<u32>,
    /// Writes the figures as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The rig starts this program again in these roles.
#[derive(Clone, Copy, Debug, Subcommand)]
enum Role {
    /// The payment gateway.
    #[command(hide = true)]
    Gateway {
        #[arg(long)]
        listen: SocketAddr,
    },
    /// The ext_authz server that always allows.
    #[command(hide = true)]
    AlwaysAllow {
        #[arg(long)]
        listen: SocketAddr,
    },
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Gateway { listen }) => e2e::gateway::serve_forever(TcpListener::bind(listen)?)?,
        Some(Role::AlwaysAllow { listen }) => load::serve_always_allow(listen)?,
        None => return measure(arguments),
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(arguments: Arguments) -> Result<ExitCode> {
    let report = load::run(&LoadOptions {
        rounds: usize::from(arguments.rounds),
        duration: Duration::from_secs(u64::from(arguments.seconds)),
        connections: usize::from(arguments.connections),
        merchants: arguments.merchants,
        growth: arguments.growth,
        release: true,
        program: std::env::current_exe()?,
    })?;
    println!("{report}");
    if let Some(path) = &arguments.json {
        fs::write(path, format!("{:#}\n", report.to_json())).context(path.display())?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
