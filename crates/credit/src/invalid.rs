//! Why a setting is refused.

use thiserror::Error;

/// A member of a document that cannot be used, and what to do about it. The text is safe to show to the caller.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("`{member}` {problem}")]
pub struct InvalidMember {
    /// The member's path in the document, as in `stages[2].cap_bp`.
    pub member: String,
    /// What is wrong with it, and what to write instead.
    pub problem: String,
}

impl InvalidMember {
    pub(crate) fn new(member: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { member: member.into(), problem: problem.into() }
    }

    /// The same, below a member of a larger document.
    pub(crate) fn below(self, parent: &str) -> Self {
        Self { member: format!("{parent}.{}", self.member), ..self }
    }
}

/// Refuses a number outside of a range.
pub(crate) fn within(member: impl Into<String>, value: i64, min: i64, max: i64) -> Result<(), InvalidMember> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(InvalidMember::new(member, format!("is {value}: give {min} to {max}")))
}

/// Refuses what does not hold.
pub(crate) fn ensure(holds: bool, member: impl Into<String>, problem: impl Into<String>) -> Result<(), InvalidMember> {
    if holds { Ok(()) } else { Err(InvalidMember::new(member, problem)) }
}
