//! The state of a merchant as a whole, beside that of its accounts.

/// What is remembered of a merchant as a whole; all zero for one that was never suspended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merchant {
    /// Milliseconds since the epoch; 0 where the merchant is not suspended. Its accounts may be, each by itself.
    pub suspended_at_ms: u64,
    /// Number of changes so far.
    pub version: u64,
}
