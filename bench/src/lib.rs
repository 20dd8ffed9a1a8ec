//! Load and soak: what Sluice costs beside its peers, and payments by the thousand of which every answer is checked.

pub mod counts;
pub mod load;
pub mod traffic;
