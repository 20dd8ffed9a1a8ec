//! docs/performance.md says what docs/performance/run.json measured.

use std::process::Command;

use testkit::dirs::workspace;
use testkit::process::run;

#[test]
fn tables_and_plots_are_made_from_the_run() {
    let said = run(Command::new("python3").arg(workspace().join("docs/performance/plot.py")).arg("--check"));
    assert_eq!(said.unwrap(), "");
}
