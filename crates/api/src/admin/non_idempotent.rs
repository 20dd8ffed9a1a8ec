//! Which requests must not run a second time when the outcome of the first is unknown: corrections by hand that name no
//! `expected_version`. Every other operation is identified by its numbers, or changes nothing when it comes again.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::API;
use sluice_decision::operations::Repetition;

/// Declares how often operations take effect, from the table of operations.
macro_rules! repetitions {
    ([$({
        $name:ident, $variant:ident($body:ident), $permission:ident, $repetition:ident, $summary:literal,
        rest[$path:literal $($answer:tt)+], grpc$grpc:tt
    })+]) => {
        /// The path of each operation, and its action in a batch.
        const OPERATIONS: &[(&str, &str, Repetition)] = &[$(($path, stringify!($name), Repetition::$repetition)),+];
    };
}

sluice_decision::for_each_operation!(repetitions!());

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
        Some("/quotas/batch") => serde_json::from_slice::<Batch>(body).is_ok_and(|batch| {
            let mut operations = batch.operations.iter();
            operations.any(|operation| needs_version(&operation.action) && operation.expected_version.is_none())
        }),
        Some(path) if needs_version(path) => {
            serde_json::from_slice::<Correction>(body).is_ok_and(|correction| correction.expected_version.is_none())
        }
        Some(_) | None => false,
    }
}

/// Whether an operation, named by its path or its action, takes effect once only with a version.
fn needs_version(operation: &str) -> bool {
    let named = OPERATIONS.iter().find(|(path, action, _)| [*path, *action].contains(&operation));
    named.is_some_and(|(_, _, repetition)| *repetition == Repetition::OnceWithVersion)
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
