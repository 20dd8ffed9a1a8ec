//! What the server says of itself and of what is away: once, with addresses and without secrets.

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::api::{self, Api};
use testkit::{Service, build, wait};

use super::Outcome;

const POLICIES: &str = "version: reports\ndefault: {timezone: UTC, daily_count: 100000}\n";
const WITHIN: Duration = Duration::from_secs(30);
/// So many tries of each part that needs it are an outage that lasts.
const RETRIES: f64 = 12.0;

fn message(line: &Value) -> &str {
    line["message"].as_str().or(line["fields"]["message"].as_str()).unwrap_or_default()
}

fn field<'a>(line: &'a Value, name: &str) -> &'a Value {
    if line[name].is_null() { &line["fields"][name] } else { &line[name] }
}

fn is_warning(line: &Value) -> bool {
    matches!(line["level"].as_str(), Some("WARN" | "ERROR"))
}

fn ready(api: &Api, dependency: &str, up: bool) -> testkit::Result<()> {
    wait::until(&format!("{dependency} up: {up}"), WITHIN, || {
        let body: Value = serde_json::from_str(&api.server.get("/ready")?.1)?;
        Ok((body["dependencies"][dependency]["up"] == up).then_some(()))
    })
}

/// An outage of Redis and Postgres together is reported once for each, by what is away, with its address; and once when each is back,
/// with how long it was away. Nothing else is said of it, whatever the parts of the server try meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_is_reported_once_by_what_is_away() -> Outcome {
    let env = [
        ("SLUICE_REDIS_TIMEOUT_MS", "150"),
        ("SLUICE_CHECK_TIMEOUT_MS", "250"),
        ("SLUICE_DEGRADED_STORE_SECS", "3600"),
        ("SLUICE_THRESHOLD_SWEEP_SECS", "10"),
        ("SLUICE_USAGE_RATE_SECS", "1"),
    ];
    let mut api = Api::start(POLICIES, &env)?;
    let admin = api.admin()?;
    let charge = |number: usize| json!({"merchant_id": "m", "currency": "USD", "amount": 100, "order_no": format!("o-{number}")});
    assert_eq!(admin.post("/quotas/consume", &charge(0)).await?.status, 200);
    let before = api.server.log_lines().len();
    api.redis.kill()?;
    api.postgres.kill()?;
    for dependency in ["redis", "postgres"] {
        ready(&api, dependency, false)?;
    }
    for number in 1..40 {
        assert_eq!(admin.post("/quotas/consume", &charge(number)).await?.status, 503);
    }
    wait::until("an outage that lasts", WITHIN, || {
        let tried = api.server.metric("sluice_journal_retries_total", &[])?;
        Ok((tried >= RETRIES).then_some(()))
    })?;
    let lines = api.server.log_lines().split_off(before);
    let mut warnings: Vec<&Value> = lines.iter().filter(|line| is_warning(line)).collect();
    warnings.sort_by_key(|line| field(line, "dependency").to_string());
    let [postgres, redis] = warnings.as_slice() else { panic!("{warnings:#?}") };
    for (line, name, url) in [(postgres, "postgres", api.postgres.url()), (redis, "redis", api.redis.url())] {
        let port = url.rsplit(':').next().unwrap_or_default().split('/').next().unwrap_or_default().to_owned();
        assert_eq!((message(line), field(line, "dependency")), ("dependency is away", &json!(name)), "{line}");
        assert_eq!(field(line, "address"), &json!(format!("127.0.0.1:{port}")), "{line}");
        assert!(field(line, "reason").to_string().contains(&format!("127.0.0.1:{port}")), "{line}");
    }
    api.redis.restart()?;
    api.postgres.restart()?;
    for dependency in ["redis", "postgres"] {
        ready(&api, dependency, true)?;
    }
    // The log is written by a thread of its own.
    let back = wait::until("both are back", WITHIN, || {
        let mut lines = api.server.log_lines().split_off(before);
        lines.retain(|line| message(line) == "dependency is back");
        Ok((lines.len() >= 2).then_some(lines))
    })?;
    assert_eq!(back.len(), 2, "{back:#?}");
    assert!(back.iter().all(|line| field(line, "away_ms").as_u64().is_some_and(|away| away > 0)), "{back:#?}");
    Ok(())
}

/// The first start on an empty database warns of nothing that is missing, names each migration, and says once what the server is, where
/// it listens and what it works with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_start_says_what_it_is_and_warns_of_no_missing_relation() -> Outcome {
    let api = Api::start(POLICIES, &[])?;
    let lines = api.server.log_lines();
    let missing = |line: &&Value| line.to_string().contains("does not exist") || message(line).contains("postgres");
    let warned: Vec<&Value> = lines.iter().filter(|line| is_warning(line)).filter(missing).collect();
    assert!(warned.is_empty(), "{warned:#?}");
    let started: Vec<&Value> = lines.iter().filter(|line| message(line) == "server started").collect();
    let [started] = started.as_slice() else { panic!("{started:#?}") };
    assert_eq!(field(started, "version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(field(started, "admin"), &json!(api.server.admin_address().to_string()));
    assert_eq!(field(started, "grpc"), &json!(api.server.grpc_address().to_string()));
    assert_eq!(field(started, "redis"), &json!(format!("127.0.0.1:{}", api.redis.port())));
    let settings = field(started, "settings").as_str().unwrap_or_default();
    assert!(
        settings.contains("JWT_SECRET=[redacted]") && settings.contains("SLUICE_REDIS_TIMEOUT_MS=8000"),
        "{settings}"
    );
    assert!(!settings.contains("GRPC_THREADS") && !lines.iter().any(|line| line.to_string().contains(api::secret())));
    let versions: Vec<u64> = lines
        .iter()
        .filter(|line| message(line) == "migration applied")
        .filter_map(|line| field(line, "version").as_u64())
        .collect();
    assert_eq!(versions.last().copied(), field(started, "schema_version").as_u64(), "{versions:?}");
    assert!(versions.len() > 5 && versions.is_sorted(), "{versions:?}");
    Ok(())
}

/// Without any configuration the server says what is missing, and ends.
#[test]
fn a_server_without_configuration_says_what_is_missing_and_ends() -> Outcome {
    let output = Command::new(build::server_bin(false)?).env_clear().output()?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{text}");
    for part in ["SLUICE_POLICY_FILE", "POLICY_SERVICE_URL", "postgres at 127.0.0.1:5432"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    Ok(())
}
