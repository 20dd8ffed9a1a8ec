//! The reference of every code of a refusal: `docs/errors.md`, generated from the tables that answers use.

use std::fmt::Write as _;

use quota::Code;
use strum::VariantArray;

use super::grpc::status_of;
use super::problem::Kind;

const INTRODUCTION: &str = "\
# Error codes

This file is generated: `authz-server errors` prints it, and a test compares the two.

Every answer that is no success is a problem document (RFC 9457, `application/problem+json`), at the proxy and from the API alike.
Its `code` is stable and made for programs; `type` is `urn:sluice:problem:` and the code in lower case; `title` says what the table
says; `detail` and `field` say what is particular to the request. A refusal by quota has `decision_id` and the `limit` that bound.
gRPC has the code as the reason of `google.rpc.ErrorInfo`, the field in `BadRequest`, and the wait in `RetryInfo`.

Retry with the same numbers (`order_no`, `refund_no`, `capture_no`) or the same `Idempotency-Key`: then nothing is done twice.
`Retry-After` says how many seconds to wait.

";

const HEAD: &str = "| code | HTTP | gRPC | meaning | retry |\n|---|---|---|---|---|\n";

/// The Markdown text of `docs/errors.md`.
#[must_use]
pub fn reference() -> String {
    let refusals = Code::ALL.into_iter().filter(|code| code.http_status() >= 400);
    let quota: Vec<Row> = refusals.map(|code| Row::new(code.as_str(), code.http_status(), code.title())).collect();
    let api = Kind::VARIANTS.iter().map(|kind| Row::new(kind.into_str(), kind.status().as_u16(), kind.title()));
    let api: Vec<Row> = api.filter(|row| quota.iter().all(|other| other.code != row.code)).collect();
    let mut text = INTRODUCTION.to_owned();
    for (title, rows) in [("Payments and operations on quota", quota), ("The API", api)] {
        let _ = write!(text, "## {title}\n\n{HEAD}");
        for row in rows {
            row.write(&mut text);
        }
        text.push('\n');
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

struct Row {
    code: &'static str,
    http: u16,
    meaning: &'static str,
}

impl Row {
    const fn new(code: &'static str, http: u16, meaning: &'static str) -> Self {
        Self { code, http, meaning }
    }

    fn write(&self, text: &mut String) {
        let Self { code, http, meaning } = self;
        let grpc = status_of(code, *http);
        let _ = writeln!(text, "| `{code}` | {http} | {grpc} | {meaning} | {} |", retry(code, *http));
    }
}

/// Whether a retry can help.
fn retry(code: &str, http: u16) -> &'static str {
    match (code, http) {
        ("PENDING_AMOUNT", _) => "when holds have ended",
        ("VERSION_CONFLICT", _) => "after reading anew, with the new version",
        ("OUTCOME_UNKNOWN", _) => "read the account first, then with `expected_version` and a new key",
        ("IDEMPOTENCY_KEY_IN_USE", _) => "yes, after `Retry-After`",
        ("ATTEMPT_VOIDED", _) => "yes, as a new request",
        ("BATCH_REFUSED", _) => "without the operation that was refused",
        ("AUTH_NOT_CONFIGURED", _) => "when the operator has set it",
        (_, 429) => "yes, after `Retry-After`",
        (_, 503) => "yes, after `Retry-After`, with the same numbers",
        (_, 408) => "yes",
        (_, 500) => "yes, with the same numbers; the server's log says what failed",
        (_, 401) => "with another token",
        _ => "no",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `authz-server errors > docs/errors.md` writes the file anew.
    #[test]
    fn the_reference_is_the_committed_file() {
        let committed = include_str!("../../../../docs/errors.md");
        assert!(committed == reference(), "docs/errors.md is out of date: write `authz-server errors` to it");
    }

    #[test]
    fn every_code_is_there_once() {
        let text = reference();
        let refusals = Code::ALL.into_iter().filter(|code| code.http_status() >= 400).map(Code::as_str);
        for code in refusals.chain(Kind::VARIANTS.iter().map(Kind::into_str)) {
            assert_eq!(text.matches(&format!("| `{code}` |")).count(), 1, "{code}");
        }
    }
}
