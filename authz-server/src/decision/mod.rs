//! What every caller of the store shares once a command is decided.

pub(crate) mod spans;
