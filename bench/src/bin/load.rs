//! `cargo load`: what Sluice costs, beside Envoy alone, a filter that only parses, and native ext_authz; and how cost grows.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use bench::load::{self, Axis, Closer, Counting, JournalOptions, LoadOptions, Peer, Variant};
use clap::{Parser, Subcommand};
use testkit::{Context, Failure, Result};

/// Measures Sluice in one run, with payments decided by the server and with payments admitted from rights, beside Envoy alone, the
/// filter parsing only, and Envoy's native ext_authz with a server that always allows, and judges the targets; compares counters with
/// the journal afterwards, and fails where anything was wrong.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// How cost grows along these axes, instead of the targets.
    #[arg(long, value_delimiter = ',', value_name = "AXES")]
    study: Vec<Axis>,
    /// The studies of all axes.
    #[arg(long, conflicts_with = "study")]
    all_studies: bool,
    /// The peers that `SLUICE_PEER_*` variables name, beside Sluice: see docs/performance.md.
    #[arg(long)]
    peers: bool,
    /// What the journal costs apart from payments: how fast it drains what waits, and at a steady rate.
    #[arg(long)]
    journal: bool,
    /// The targets beside what else is asked for.
    #[arg(long)]
    targets: bool,
    /// A closer look at these variants only, for a profiler or to compare two builds.
    #[arg(long, value_delimiter = ',', value_name = "VARIANTS")]
    variants: Vec<Variant>,
    /// The closer look at so many payments a second instead of at full load.
    #[arg(long, requires = "variants", value_parser = clap::value_parser!(u32).range(1..))]
    per_second: Option<u32>,
    /// One short round of everything that is asked for: to see that it works, and a first impression.
    #[arg(long)]
    quick: bool,
    /// Rounds of each measurement; figures worth quoting need five.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=100))]
    rounds: Option<u16>,
    /// Seconds of one measurement.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=600))]
    seconds: Option<u16>,
    /// Connections, each with one request at a time.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections: u16,
    /// Merchants that payments are spread over.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    merchants: u32,
    /// The most merchants of their study.
    #[arg(long, value_parser = clap::value_parser!(u32).range(100..=1_000_000))]
    merchants_max: Option<u32>,
    /// The most connections of their study.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    connections_max: u16,
    /// Writes the figures as JSON, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Rounds, seconds of a measurement and most merchants: by default, and where it is to be quick.
const DEFAULTS: (u16, u16, u32) = (5, 5, 1_000_000);
const QUICK: (u16, u16, u32) = (1, 2, 10_000);

/// The rig starts this program again in these roles.
#[derive(Clone, Debug, Subcommand)]
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
    /// A tiny peer, to see that over-admissions are counted.
    #[command(hide = true)]
    SamplePeer {
        #[arg(long)]
        listen: SocketAddr,
        #[arg(long)]
        ext_authz: bool,
        #[arg(long)]
        counting: Counting,
        #[arg(long)]
        redis_url: String,
        #[arg(long)]
        limit: u64,
    },
}

fn main() -> Result<ExitCode> {
    testkit::build::for_program("bench");
    let arguments = Arguments::parse();
    match arguments.role {
        Some(Role::Gateway { listen }) => load::serve_gateway(&TcpListener::bind(listen)?)?,
        Some(Role::AlwaysAllow { listen }) => load::serve_always_allow(listen)?,
        Some(Role::SamplePeer { listen, ext_authz, counting, redis_url, limit }) => {
            let serve = if ext_authz { load::serve_ext_authz } else { load::serve_rls };
            serve(listen, &redis_url, counting, limit)?;
        }
        None => return measure(arguments),
    }
    Ok(ExitCode::SUCCESS)
}

fn measure(arguments: Arguments) -> Result<ExitCode> {
    let (rounds, seconds, merchants_max) = if arguments.quick { QUICK } else { DEFAULTS };
    let studies = if arguments.all_studies { Axis::ALL.to_vec() } else { arguments.study.clone() };
    let peers = if arguments.peers { Peer::from_variables(std::env::vars())? } else { Vec::new() };
    if arguments.peers && peers.is_empty() {
        return Err(Failure::new("no peer is named: set SLUICE_PEER_<NAME> and SLUICE_PEER_<NAME>_KIND"));
    }
    let closer = (!arguments.variants.is_empty())
        .then(|| Closer { variants: arguments.variants.clone(), per_second: arguments.per_second.map(f64::from) });
    let targets = arguments.targets || closer.is_none() && studies.is_empty() && peers.is_empty() && !arguments.journal;
    let report = load::run(&LoadOptions {
        targets,
        closer,
        studies,
        peers,
        journal: arguments.journal.then(|| journal(&arguments)),
        counts: targets,
        rounds: usize::from(arguments.rounds.unwrap_or(rounds)),
        duration: Duration::from_secs(u64::from(arguments.seconds.unwrap_or(seconds))),
        connections: usize::from(arguments.connections),
        merchants: arguments.merchants,
        merchants_max: arguments.merchants_max.unwrap_or(merchants_max),
        connections_max: arguments.connections_max,
        release: true,
        program: std::env::current_exe()?,
    })?;
    println!("{report}");
    if let Some(path) = &arguments.json {
        fs::write(path, format!("{:#}\n", report.to_json())).context(path.display())?;
    }
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Enough waiting events for some seconds, and the rates around the targets.
fn journal(arguments: &Arguments) -> JournalOptions {
    let (events, rates, secs) =
        if arguments.quick { (60_000, vec![10_000], 3) } else { (400_000, vec![2_000, 10_000], 10) };
    let duration = Duration::from_secs(secs);
    JournalOptions { events, merchants: arguments.merchants, rates, duration, release: true }
}
