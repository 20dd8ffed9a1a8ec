//! The programs in Python that read the contract.

use std::path::PathBuf;

use testkit::{Result, dirs, tools};

/// The interpreter that has them.
pub(crate) fn installed() -> Result<PathBuf> {
    tools::python("contract-python", &dirs::workspace().join("tests/contract/requirements.txt"))
}
