//! Why policies are refused.

use thiserror::Error;

/// Why a document or a set of policies was refused, with the field where one is at fault.
#[derive(Debug, Error)]
pub enum PolicyError {
    #[error("the policy document is not valid: {0}")]
    Syntax(#[from] serde_yaml_ng::Error),
    #[error("the policy document is not valid: line {0} is indented by a tab: indent by blanks")]
    Tab(usize),
    #[error("the policy document is not valid: `{field}`: {problem}")]
    Field { field: String, problem: String },
    #[error("the policy document enforces nothing: it names no limit, channel or currency in any policy")]
    EnforcesNothing,
}

impl PolicyError {
    /// A bad field `name` of what `path` names; an empty path is the policy at hand.
    pub(super) fn field(path: &str, name: &str, problem: String) -> Self {
        let field = match (path, name) {
            ("", name) => name.to_owned(),
            (path, "") => path.to_owned(),
            (path, name) => format!("{path}.{name}"),
        };
        Self::Field { field, problem }
    }
}
