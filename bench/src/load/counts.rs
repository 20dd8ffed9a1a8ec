//! The exact counts of a run: those of the server, Redis and the journal are counted, those of the filter's module are the ones that
//! its own tests hold.

use std::fs;

use serde::{Deserialize, Serialize};

use super::LoadOptions;
use crate::counts;
use testkit::callgrind::{Callgrind, INSTALL};
use testkit::{Context, Result, build, dirs};

/// What the filter's module takes for a payment of a batch. A test of the filter keeps the file as it counts.
const MODULE: &str = "docs/performance/module.json";

/// Exact counts of one payment; where payments go together, its share of a batch of eleven.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Counts {
    /// Instructions of the wasm module.
    pub module_instructions: u64,
    /// Calls of the module into Envoy.
    pub host_calls: f64,
    /// Instructions of the server's decision thread.
    pub server_instructions: u64,
    /// Instructions of Redis' main thread in the script's call.
    pub redis_instructions: u64,
    /// Bytes of its event in Redis and of its row as it is sent to Postgres.
    pub journal_bytes: u64,
    pub journal_event_bytes: u64,
    pub journal_row_bytes: u64,
    /// The server's and Redis' instructions for a payment that goes alone.
    pub server_instructions_alone: u64,
    pub redis_instructions_alone: u64,
}

#[derive(Deserialize)]
struct Module {
    instructions: u64,
    host_calls: f64,
}

/// Counts with the server that the run measures. `None` where valgrind is missing, which is said on standard error.
pub(super) async fn count(options: &LoadOptions) -> Result<Option<Counts>> {
    let Some(callgrind) = Callgrind::find() else {
        eprintln!("no instructions are counted: {INSTALL}");
        return Ok(None);
    };
    eprintln!("counting instructions under callgrind");
    let module = fs::read_to_string(dirs::workspace().join(MODULE)).context(MODULE)?;
    let module = serde_json::from_str(&module).context(MODULE)?;
    let counted = counts::all(&callgrind, &build::server_bin(options.release)?).await?;
    Ok(Some(Counts::of(&module, &counted)))
}

impl Counts {
    fn of(module: &Module, counted: &counts::Counts) -> Self {
        let counts::Counts { server_instructions, redis_instructions, journal_bytes } = counted;
        Self {
            module_instructions: module.instructions,
            host_calls: module.host_calls,
            server_instructions: server_instructions.batched,
            redis_instructions: redis_instructions.batched,
            journal_bytes: journal_bytes.event + journal_bytes.row,
            journal_event_bytes: journal_bytes.event,
            journal_row_bytes: journal_bytes.row,
            server_instructions_alone: server_instructions.alone,
            redis_instructions_alone: redis_instructions.alone,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payment_of_a_batch_has_the_plain_names() {
        let module: Module = serde_json::from_str(r#"{"instructions": 1, "host_calls": 2.5}"#).unwrap();
        let each = |alone, batched| counts::PerPayment { alone, batched };
        let counted = counts::Counts {
            server_instructions: each(30, 3),
            redis_instructions: each(40, 4),
            journal_bytes: counts::JournalBytes { event: 5, row: 6 },
        };
        let expected = serde_json::json!({
            "module_instructions": 1, "host_calls": 2.5, "server_instructions": 3, "redis_instructions": 4,
            "journal_bytes": 11, "journal_event_bytes": 5, "journal_row_bytes": 6,
            "server_instructions_alone": 30, "redis_instructions_alone": 40,
        });
        assert_eq!(serde_json::json!(Counts::of(&module, &counted)), expected);
    }
}
