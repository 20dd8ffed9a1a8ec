//! Errors of Postgres as problems: unavailable, and a value that it cannot store; any other error is the server's own fault.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{error, warn};

use super::{Kind, Problem};

/// `Retry-After` if Postgres gave no answer.
const RETRY_SECS: u64 = 5;
/// An unavailable database is logged once in this time for each reason, not for each request.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// Most reasons that are kept: SQLSTATE codes, and no answer.
const REASONS_MAX: usize = 64;

/// SQLSTATE class of values that are invalid for their type: times out of range, NUL characters. Fields are checked before; this
/// is for what a check misses.
const BAD_VALUE: &str = "22";

/// When each reason was logged last.
static LOGGED: LazyLock<Mutex<HashMap<String, Instant>>> = LazyLock::new(Mutex::default);

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed => {
                if is_news("away") {
                    error!(%error, "postgres unavailable to the admin api");
                }
                unavailable()
            }
            sqlx::Error::Database(refusal) => match refusal.code() {
                Some(code) if is_unavailable(&code) => {
                    if is_news(&code) {
                        error!(%error, sqlstate = %code, "postgres refused the admin api: {}", meaning(&code));
                    }
                    unavailable().detail(meaning(&code))
                }
                Some(code) if code.starts_with(BAD_VALUE) => {
                    warn!(%error, "postgres refused a value of an admin request");
                    Self::new(Kind::BadRequest).detail("the database cannot store a value of the request")
                }
                Some(_) | None => Self::internal("postgres", &error),
            },
            _ => Self::internal("postgres", &error),
        }
    }
}

fn unavailable() -> Problem {
    Problem::new(Kind::DatabaseUnavailable).retry_after(RETRY_SECS)
}

/// Whether the reason was not logged for a while.
fn is_news(reason: &str) -> bool {
    let now = Instant::now();
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    if logged.get(reason).is_some_and(|at| now.saturating_duration_since(*at) < LOG_INTERVAL) {
        return false;
    }
    if logged.len() >= REASONS_MAX {
        logged.clear();
    }
    logged.insert(reason.to_owned(), now);
    true
}

/// SQLSTATE codes of a database that cannot be used now, whatever the request: what passes by itself, as connections (08),
/// resources (53), an operator's intervention (57), locks and deadlocks (55, 40); and what an operator has to mend, as credentials (28), a
/// database that is not there (3D), rights (42501), tables that are not made yet (42P01), a standby (25006), and a pooler that gives
/// statements to other sessions (26, 42P05).
fn is_unavailable(code: &str) -> bool {
    let classes = ["08", "53", "57", "55", "40", "28", "3D", "26"];
    let codes = ["42501", "42P01", "42P05", "25006"];
    classes.iter().any(|class| code.starts_with(class)) || codes.contains(&code)
}

/// A description that is safe for the caller, and that an operator can act on.
fn meaning(code: &str) -> &'static str {
    match code {
        "28P01" | "28000" => "the database refuses the server's user or password",
        "3D000" => "the server's database does not exist",
        "42501" => "the server's database user lacks a right",
        "42P01" => "the server's tables are not made yet",
        "25006" => "the database is read-only",
        "26000" | "42P05" | "08P01" => "a pooler in front of the database gives statements to other sessions",
        _ => "the database does not serve the request now",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f10_what_an_operator_has_to_mend_is_no_fault_of_the_request() {
        for (code, unavailable) in [
            ("28P01", true),
            ("28000", true),
            ("3D000", true),
            ("42501", true),
            ("42P01", true),
            ("25006", true),
            ("26000", true),
            ("42P05", true),
            ("57P03", true),
            ("53300", true),
            ("08006", true),
            ("40001", true),
            ("42703", false),
            ("23505", false),
            ("22P05", false),
            ("XX000", false),
        ] {
            assert_eq!(is_unavailable(code), unavailable, "{code}");
        }
    }

    #[test]
    fn a_reason_is_logged_once_for_a_while() {
        assert!(is_news("a reason of a test") && !is_news("a reason of a test") && is_news("another reason of a test"));
    }
}
