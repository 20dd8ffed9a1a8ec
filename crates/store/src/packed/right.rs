//! Rights of holders.

use quota::{Origins, Right, Share};

use super::layout::RIGHT_FORMAT;
use super::{PackedError, Reader};

/// Reads the windows that the amount of a report was counted in.
///
/// # Errors
/// [`PackedError`] where the bytes are not such windows.
pub fn counted_in(bytes: &[u8]) -> Result<Origins, PackedError> {
    let mut reader = Reader(bytes);
    let origins = reader.charged_in()?;
    reader.finish(origins)
}

/// Reads a right.
///
/// # Errors
/// [`PackedError`] where the bytes are not one.
pub fn right(bytes: &[u8]) -> Result<Right, PackedError> {
    let mut reader = Reader::new(bytes, RIGHT_FORMAT)?;
    let (counted_in, weight) = (reader.charged_in()?, reader.weight()?);
    let mut share = || Ok(Share { amount: reader.number()?, count: reader.number()? });
    let (granted, left) = (share()?, share()?);
    let (until_ms, orphaned) = (reader.number()?, reader.u8()? != 0);
    let right = Right { counted_in, weight, granted, left, until_ms, orphaned, decision_id: reader.array()? };
    reader.finish(right)
}
