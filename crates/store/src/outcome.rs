//! Words of unknown outcomes.

use quota::{Resolution, Subject};

/// The operation of an unknown outcome, in the journal's column `change`.
#[must_use]
pub const fn operation_word(subject: Subject) -> &'static str {
    match subject {
        Subject::Charge => "charge",
        Subject::Capture(_) => "capture",
        Subject::Refund(_) => "refund",
        Subject::Void => "void",
    }
}

/// Its resolution, in the journal's column `change` and in the column `resolution`.
#[must_use]
pub const fn resolution_word(resolution: Resolution) -> &'static str {
    match resolution {
        Resolution::Made => "made",
        Resolution::NotMade => "not_made",
    }
}
