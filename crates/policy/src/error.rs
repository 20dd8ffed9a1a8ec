//! Why policies are refused.

use thiserror::Error;

/// Why a document or a set of policies was refused, with the invalid field where there is one.
#[derive(Debug, Error)]
pub enum PolicyError {
    #[error("the policy document is not valid: {0}")]
    Syntax(#[from] serde_yaml_ng::Error),
    #[error("the policy document is not valid: line {0} is indented by a tab: indent by blanks")]
    Tab(usize),
    #[error("the policy document is not valid: `{field}`: {problem}")]
    Field { field: String, problem: String },
    #[error(
        "the policy document enforces nothing: no policy names a channel, a currency or a limit that payments count against"
    )]
    EnforcesNothing,
}

impl PolicyError {
    /// An invalid field `name` at `path`; an empty path is the current policy.
    pub(super) fn field(path: &str, name: &str, problem: String) -> Self {
        let field = match (path, name) {
            ("", name) => name.to_owned(),
            (path, "") => path.to_owned(),
            (path, name) => format!("{path}.{name}"),
        };
        Self::Field { field, problem }
    }
}
