//! Headers as the proxy's ABI has them: a count, the sizes, then the texts with a zero byte after each.

use super::Pair;

/// Writes headers as the ABI has them: a count, the sizes, then the texts with a zero byte after each.
#[must_use]
pub fn encode_pairs(pairs: &[Pair<'_>]) -> Vec<u8> {
    let size = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = u32::try_from(pairs.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend(size(name));
        bytes.extend(size(value));
    }
    for text in pairs.iter().flat_map(|(name, value)| [name.as_ref(), value]) {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Reads headers as the ABI has them; `None` if the bytes are not valid.
#[must_use]
pub fn decode_pairs(bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let (count, rest) = bytes.split_first_chunk::<4>()?;
    let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
    let (sizes, mut texts) = rest.split_at_checked(count.checked_mul(8)?)?;
    // No more than there are bytes.
    let mut pairs = Vec::with_capacity(count);
    for sizes in sizes.as_chunks::<8>().0 {
        let [name, value] = *sizes.as_chunks::<4>().0 else { return None };
        let (name, after) = terminated(texts, name)?;
        let (value, after) = terminated(after, value)?;
        texts = after;
        pairs.push((name, value));
    }
    Some(pairs)
}

/// A text of this size, and what follows the zero byte behind it.
#[inline]
fn terminated(bytes: &[u8], size: [u8; 4]) -> Option<(&[u8], &[u8])> {
    let size = usize::try_from(u32::from_le_bytes(size)).ok()?;
    Some((bytes.get(..size)?, bytes.get(size.checked_add(1)?..)?))
}
