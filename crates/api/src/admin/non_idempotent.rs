//! Which requests must not run a second time when the outcome of the first is unknown: corrections by hand that name no
//! `expected_version`. Every other operation is identified by its numbers, or changes nothing when it comes again.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::API;

/// The fields of a correction that matter here. The handler reads the others.
#[derive(Deserialize)]
struct Correction {
    expected_version: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Batch {
    operations: Vec<Operation>,
}

#[derive(Deserialize)]
struct Operation {
    action: String,
    expected_version: Option<IgnoredAny>,
}

/// Whether a POST of the body to the path is such a request. One that cannot be read is none: it is refused.
pub(super) fn is(path: &str, body: &[u8]) -> bool {
    match path.strip_prefix(API) {
        Some("/quotas/adjust" | "/quotas/reset") => {
            serde_json::from_slice::<Correction>(body).is_ok_and(|correction| correction.expected_version.is_none())
        }
        Some("/quotas/batch") => serde_json::from_slice::<Batch>(body).is_ok_and(|batch| {
            batch.operations.iter().any(|operation| {
                matches!(operation.action.as_str(), "adjust" | "reset") && operation.expected_version.is_none()
            })
        }),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn corrections_without_a_version_and_batches_of_them() {
        for (path, body, expected) in [
            ("/api/v1/quotas/adjust", r#"{"merchant_id":"m"}"#, true),
            ("/api/v1/quotas/adjust", r#"{"expected_version":null}"#, true),
            ("/api/v1/quotas/adjust", r#"{"expected_version":0}"#, false),
            ("/api/v1/quotas/reset", r#"{"window":"all"}"#, true),
            ("/api/v1/quotas/reset", r#"{"window":"all","expected_version":7}"#, false),
            ("/api/v1/quotas/reset", "{", false),
            ("/api/v1/quotas/consume", "{}", false),
            ("/api/v1/quotas/batch", r#"{"operations":[{"action":"consume"},{"action":"reset"}]}"#, true),
            ("/api/v1/quotas/batch", r#"{"operations":[{"action":"adjust","expected_version":1}]}"#, false),
            ("/api/v1/quotas/batch", r#"{"operations":[{"action":"consume"}],"atomic":true}"#, false),
            ("/api/v2/quotas/adjust", "{}", false),
        ] {
            assert_eq!(is(path, body.as_bytes()), expected, "{path} {body}");
        }
    }
}
