//! The decision server's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    authz_server::cli::run()
}
