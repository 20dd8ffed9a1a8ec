//! `cargo demo`: starts the whole stack privately, sends payments through Envoy and shows how each was decided.

mod credit;
mod journal;
mod payments;
mod trust;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use testkit::client::Payment;
use testkit::envoy::Host;
use testkit::stack::{Stack, StackOptions};
use testkit::{Context, Failure, Result};
use tokio::signal::unix::{SignalKind, signal};

/// What is added to the shipped policies: limits that a dozen requests can reach, 100.00 for one payment, 150.00 a day.
const DEMO_MERCHANT: &str = "
merchants:
  demo-merchant:
    single_min: 100
    single_max: 10000
    daily_amount: 15000
    monthly_amount: 300000
    daily_count: 100
  demo-trusted:
    daily_count: 200
    trust: {above_percent: 20, share_percent: 10, ttl_ms: 500}
";
/// The file that the examples of docs/api.md begin by reading, in cargo's target folder.
const ENV_FILE: &str = "demo.env";

/// What a shell reports for a process that SIGINT ended.
const INTERRUPTED: u8 = 130;

/// Builds Sluice, starts Envoy, Redis, Postgres, the decision server and a sample gateway on free loopback ports, and sends
/// real payments through Envoy. Exits with 0 when every payment was decided as announced.
///
/// Envoy, Redis (or Valkey) and Postgres are taken from SLUICE_ENVOY, SLUICE_REDIS_SERVER and SLUICE_POSTGRES_BIN where set,
/// else from the system, else they are fetched once into target/tools.
#[derive(Debug, Parser)]
#[command(name = "cargo demo --")]
struct Arguments {
    /// What runs the filter in Envoy: a wasm VM, or the native module of docs/native-host.md.
    #[arg(long, value_enum, default_value_t = FilterHost::Wasm)]
    host: FilterHost,
    /// Leave everything running until Ctrl-C or SIGTERM, and print commands to try.
    #[arg(long)]
    stay: bool,
    /// Write the addresses as JSON into this file once all is ready.
    #[arg(long, value_name = "FILE")]
    addresses: Option<PathBuf>,
    /// Where to write what a shell needs to use the API (API, AUTH, ENVOY), with --stay; target/demo.env where it is not given.
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
}

/// The filter's hosts by their names on the command line.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FilterHost {
    Wasm,
    Native,
}

impl From<FilterHost> for Host {
    fn from(host: FilterHost) -> Self {
        match host {
            FilterHost::Wasm => Self::Wasm,
            FilterHost::Native => Self::Native,
        }
    }
}

fn main() -> ExitCode {
    if testkit::build::is_server() {
        return authz_server::cli::run();
    }
    testkit::build::for_program_with_server();
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&error.into()),
    };
    let ended = runtime.block_on(async {
        tokio::select! {
            signal = ask_to_end() => signal.map(|()| Ended::Interrupted),
            ended = demo(&arguments) => ended,
        }
    });
    // A start that is still going on in a thread is not waited for: all children die with this process.
    runtime.shutdown_background();
    match ended {
        Ok(Ended::AsAnnounced) => ExitCode::SUCCESS,
        Ok(Ended::Otherwise(count)) => failed(&Failure::new(format!("{count} results were not as announced"))),
        Ok(Ended::Interrupted) if arguments.stay => ExitCode::SUCCESS,
        Ok(Ended::Interrupted) => ExitCode::from(INTERRUPTED),
        Err(failure) => failed(&failure),
    }
}

fn failed(failure: &Failure) -> ExitCode {
    eprintln!("demo: {failure}");
    ExitCode::FAILURE
}

enum Ended {
    AsAnnounced,
    Otherwise(usize),
    Interrupted,
}

/// Returns when a signal asks the demo to end.
async fn ask_to_end() -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn demo(arguments: &Arguments) -> Result<Ended> {
    let options = StackOptions {
        policies: Some(policies()?),
        host: Some(arguments.host.into()),
        change: Some(trust::opt_in),
        ..StackOptions::default()
    };
    eprintln!("building and starting the stack");
    // Starting blocks; in a thread of its own it does not keep Ctrl-C waiting.
    let stack = tokio::task::spawn_blocking(move || Stack::start(&options)).await??;
    if let Some(file) = &arguments.addresses {
        write_addresses(&stack, file)?;
    }
    let mut wrong = payments::send_all(&stack).await?;
    wrong += journal::show(&stack).await?;
    wrong += credit::show(&stack).await?;
    wrong += trust::show(&stack).await?;
    print_addresses(&stack)?;
    if wrong > 0 {
        stack.dir().keep();
        return Ok(Ended::Otherwise(wrong));
    }
    if arguments.stay {
        let file = arguments.env_file.clone().unwrap_or_else(|| testkit::dirs::target().join(ENV_FILE));
        write_env(&stack, &file)?;
        print_commands(&stack, &file);
        std::future::pending::<()>().await;
    }
    Ok(Ended::AsAnnounced)
}

/// The shipped policies, which the examples of docs/api.md are about, and the demo's own merchant.
fn policies() -> Result<String> {
    let file = testkit::dirs::workspace().join("deploy/policies.yaml");
    let shipped = std::fs::read_to_string(&file).context(file.display().to_string())?;
    if !shipped.contains("\nmerchants:\n") {
        return Err(Failure::new(format!("{} names no merchants", file.display())));
    }
    Ok(shipped.replacen("\nmerchants:\n", DEMO_MERCHANT, 1))
}

/// What a shell reads to use the API. The token opens this demo and nothing else, for as long as it runs.
fn write_env(stack: &Stack, file: &Path) -> Result<()> {
    let addresses = stack.addresses();
    let text = format!(
        "# Written by `cargo demo -- --stay`; good until it ends.\nAPI={}/api/v1\nAUTH='authorization: Bearer {}'\nENVOY={}\n",
        addresses.admin_api, addresses.admin_token, addresses.envoy
    );
    write_whole(&text, file)
}

fn write_addresses(stack: &Stack, file: &Path) -> Result<()> {
    write_whole(&(serde_json::to_string_pretty(&stack.addresses())? + "\n"), file)
}

/// By rename, so that a reader never sees half a file.
fn write_whole(text: &str, file: &Path) -> Result<()> {
    let fresh = file.with_extension("new");
    let written = std::fs::write(&fresh, text).and_then(|()| std::fs::rename(&fresh, file));
    written.context(format!("writing {}", file.display()))
}

fn print_addresses(stack: &Stack) -> Result<()> {
    println!("\nAddresses");
    if let serde_json::Value::Object(addresses) = serde_json::to_value(stack.addresses())? {
        for (name, address) in addresses {
            println!("  {name:<12} {}", address.as_str().unwrap_or_default());
        }
    }
    Ok(())
}

fn print_commands(stack: &Stack, env_file: &Path) {
    let addresses = stack.addresses();
    println!("\nTry (amounts are in cents; 75.00 more fit into demo-merchant's day)");
    let routes = ["/v1/payments", "/v1/shadow/payments", "/v1/open/payments", "/native/v1/payments"];
    for (number, path) in (1..).zip(routes) {
        let payment = Payment::new(payments::MERCHANT, &format!("try-{number}"), 1_000).body();
        println!("  curl -i {}{path} -H 'content-type: application/json' -d '{payment}'", addresses.envoy);
    }
    println!("  curl -s {}/ready", addresses.admin_api);
    println!("  . {}    # sets API, AUTH and ENVOY; the examples of docs/api.md begin with it", env_file.display());
    let merchant = payments::MERCHANT;
    for path in [&format!("quotas/merchant/{merchant}"), "alerts/unresolved"] {
        println!("  curl -sH \"$AUTH\" \"$API/{path}\"");
    }
    println!("  curl -sNH \"$AUTH\" \"$API/stream\"");
    println!("  {}/swagger/index.html has every route", addresses.admin_api);
    println!("  curl -s {}/stats/prometheus | grep '^sluice_'", addresses.envoy_admin);
    println!("Switch a route: change a copy of this file, then rename it over the original");
    println!("  {}", stack.dir().join("routes/routes.yaml").display());
    println!("Read a decision: access.log (Envoy) and server.log in");
    println!("  {}", stack.dir().path().display());
    println!("Ctrl-C ends everything.");
}
