//! The state of a merchant as a whole, separate from that of its accounts.

/// The stored state of a merchant as a whole; all zero for one that was never suspended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Merchant {
    /// Milliseconds since the epoch; 0 where the merchant is not suspended. Its accounts may be suspended individually.
    pub suspended_at_ms: u64,
    /// Number of changes so far.
    pub version: u64,
}
