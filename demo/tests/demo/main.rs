//! `cargo demo` as a user runs it: what it prints, writes, answers to signals, and that it leaves no process behind.

#[path = "../../../tests/api/readme.rs"]
mod readme;

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use testkit::api::{Caller, ROOT};
use testkit::dirs::RunDir;
use testkit::wait;

/// Building may be part of it.
const READY_WITHIN: Duration = Duration::from_secs(600);
const ENDED_WITHIN: Duration = Duration::from_secs(20);

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn demo() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.stdin(Stdio::null()).env(testkit::build::WORKSPACE_VARIABLE, "1");
    command
}

/// Starts a demo that stays, and gives it with its addresses.
fn staying(file: &PathBuf) -> Result<(Child, Vec<SocketAddr>), Box<dyn std::error::Error>> {
    let mut command = demo();
    command.arg("--stay").arg("--addresses").arg(file).arg("--env-file").arg(env_file(file));
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let text = wait::until("the addresses", READY_WITHIN, || {
        if let Some(status) = child.try_wait()? {
            return Err(testkit::Failure::new(format!("the demo ended: {status}")));
        }
        Ok(std::fs::read_to_string(file).ok())
    })?;
    let addresses: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text)?;
    for name in ["envoy", "envoy_admin", "admin_api", "grpc", "redis", "postgres", "admin_token"] {
        assert!(addresses.contains_key(name), "{name} is missing: {text}");
    }
    let host = |url: &str| {
        let rest = url.split("://").nth(1)?;
        rest.split('@').next_back()?.split('/').next()?.parse::<SocketAddr>().ok()
    };
    let addresses: Vec<_> = addresses.values().filter_map(|url| host(url.as_str()?)).collect();
    assert_eq!(addresses.len(), 7, "{text}");
    Ok((child, addresses))
}

fn env_file(addresses: &Path) -> PathBuf {
    addresses.with_extension("env")
}

/// A variable of the demo's file, as a shell reads it.
fn variable(file: &Path, name: &str) -> Result<String, Box<dyn std::error::Error>> {
    let script = format!(". '{}' && printf %s \"${name}\"", file.display());
    let output = Command::new("sh").arg("-euc").arg(script).output()?;
    assert!(output.status.success(), "{output:?}");
    Ok(String::from_utf8(output.stdout)?)
}

fn signal(child: &Child, signal: Signal) -> Outcome {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("no process id")?;
    Ok(kill_process(pid, signal)?)
}

/// All servers of a demo answer, or none does.
fn listening(addresses: &[SocketAddr]) -> usize {
    addresses.iter().filter(|address| TcpStream::connect(address).is_ok()).count()
}

#[test]
fn every_payment_is_decided_as_announced() -> Outcome {
    let output = demo().output()?;
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}:\n{printed}{}", output.status, String::from_utf8_lossy(&output.stderr));
    assert!(!printed.contains("NOT AS ANNOUNCED"), "{printed}");
    for code in
        ["ADMITTED", "IDEMPOTENCY_CONFLICT", "ABOVE_SINGLE_MAX", "DAILY_AMOUNT", "BAD_AMOUNT", "VOIDED", "APPLIED"]
    {
        assert!(printed.contains(code), "{code} is missing:\n{printed}");
    }
    for what in ["30.00 authorised", "20.00 of it captured", "5.00 of the capture refunded"] {
        assert!(printed.contains(what), "{what} is missing:\n{printed}");
    }
    Ok(())
}

/// What docs/api.md shows works on a demo that stays: every request as it stands there, and a shell takes the whole.
#[test]
fn the_documented_examples_work_on_a_staying_demo() -> Outcome {
    let dir = RunDir::new("demo-readme")?;
    let addresses = dir.join("addresses.json");
    let (mut child, _) = staying(&addresses)?;
    let env_file = env_file(&addresses);
    wait::until("the file for shells", READY_WITHIN, || Ok(env_file.exists().then_some(())))?;
    let (api, auth) = (variable(&env_file, "API")?, variable(&env_file, "AUTH")?);
    let address = api.strip_prefix("http://").and_then(|rest| rest.strip_suffix(ROOT)).ok_or("no address")?.parse()?;
    let token = auth.strip_prefix("authorization: Bearer ").ok_or("no token")?;
    let section = readme::section()?;
    assert!(section.contains("\n```\n. target/demo.env\n"), "the examples begin with the demo's file");
    assert_eq!(section.lines().filter(|line| line.starts_with("curl ")).count(), readme::examples(&section)?.len());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(readme::send(&Caller::new(address, token), readme::examples(&section)?))?;
    for block in section.split("```").skip(1).step_by(2) {
        let status = Command::new("sh").arg("-nc").arg(block).status()?;
        assert!(status.success(), "a shell does not take:\n{block}");
    }
    signal(&child, Signal::TERM)?;
    wait::until("the demo's end", ENDED_WITHIN, || Ok(child.try_wait()?))?;
    Ok(())
}

#[test]
fn a_staying_demo_ends_on_sigterm_with_everything_it_started() -> Outcome {
    let dir = RunDir::new("demo-term")?;
    let (mut child, addresses) = staying(&dir.join("addresses.json"))?;
    assert_eq!(listening(&addresses), addresses.len());
    signal(&child, Signal::TERM)?;
    let status = wait::until("the demo's end", ENDED_WITHIN, || Ok(child.try_wait()?))?;
    assert!(status.success(), "{status}");
    assert_eq!(listening(&addresses), 0);
    Ok(())
}

#[test]
fn a_killed_demo_takes_everything_with_it() -> Outcome {
    let dir = RunDir::new("demo-kill")?;
    let (mut child, addresses) = staying(&dir.join("addresses.json"))?;
    signal(&child, Signal::KILL)?;
    child.wait()?;
    wait::until("the end of all servers", ENDED_WITHIN, || Ok((listening(&addresses) == 0).then_some(())))?;
    Ok(())
}
