//! The admin API keeps to its own description: a walk calls every documented operation with valid input, in the order in which
//! a person would, and schemathesis calls each with input of its own making, valid and not. Neither may find a 5xx, an answer
//! that is not described, or a body of another form; and a stranger is refused every step of the walk.
//!
//! Python (3.10 or newer, with pip and venv) must be there; the test installs the pinned packages itself, once.

mod python;
mod walk;

use std::process::Command;

use testkit::api::Api;
use testkit::process::run;
use testkit::{Result, dirs};

/// Test cases that each operation gets beside those that cover its parameters' bounds one by one.
const EXAMPLES_MAX: &str = "5";
/// What is looked at in every answer. Left out: what only holds where operations are linked, and what a header lacks.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,\
    response_schema_conformance,negative_data_rejection,positive_data_acceptance,unsupported_method,ignored_auth";

/// A caller that works through the whole API is not to be slowed down, settings may change, and the receiver of alerts
/// is near.
const ENV: [(&str, &str); 6] = [
    ("SLUICE_ADMIN_RATE_PER_MINUTE", "1000000"),
    ("ENABLE_CONFIG_CLIENT", "true"),
    ("SLUICE_ALERT_ALLOW_NETWORKS", "127.0.0.0/8"),
    ("SLUICE_ALERT_MERCHANT_NETWORKS", "127.0.0.0/8"),
    // A channel of mail is refused without a mail server; nothing is sent to this one.
    ("SLUICE_SMTP_URL", "smtp://127.0.0.1:1"),
    ("SLUICE_SMTP_FROM", "sluice@example.com"),
];

fn start() -> Result<Api> {
    Api::start(&std::fs::read_to_string(dirs::workspace().join("deploy/policies.yaml"))?, &ENV)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_documented_operation_succeeds_once_and_answers_as_described() -> Result<()> {
    let python = python::installed()?;
    let api = start()?;
    let steps = walk::all(&api).await?;
    walk::covers_the_document(&steps)?;
    walk::answers_are_as_described(&python, &api, &steps)?;
    walk::a_stranger_is_refused_everything(&api, &steps).await
}

#[tokio::test]
async fn schemathesis_finds_nothing() -> Result<()> {
    let python = python::installed()?;
    let api = start()?;
    let address = api.server.admin_address();
    let mut command = Command::new(python.with_file_name("schemathesis"));
    // Its configuration says what a schema cannot, and why.
    command
        .current_dir(api.dir().path())
        .arg("--config-file")
        .arg(dirs::workspace().join("tests/contract/schemathesis.toml"));
    command.arg("run").arg(format!("http://{address}/openapi.json"));
    command.args(["--header", &format!("Authorization: Bearer {}", api.admin()?.token())]);
    command.args(["--exclude-path", &format!("{}{}", testkit::api::ROOT, walk::ENDLESS)]);
    command.args(["--phases", "examples,coverage,fuzzing", "--max-examples", EXAMPLES_MAX, "--checks", CHECKS]);
    command.args(["--generation-deterministic", "--continue-on-failure", "--no-color", "--warnings", "off"]);
    // One worker, which is the default: CPython 3.11 cannot parse in two threads at once, which hypothesis does.
    let printed = run(&mut command).inspect_err(|_| api.dir().keep())?;
    let all = walk::documented()?.len();
    let some = all - 1;
    let said = [format!("Selected: {some}/{all}"), format!("Tested: {some}"), "No issues found".to_owned()];
    assert!(said.iter().all(|words| printed.contains(words)), "{said:?} are not all in: {printed}");
    Ok(())
}
