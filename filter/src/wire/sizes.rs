//! Keys and lengths of encoded fields. Nearly all lengths fit into one byte, which is written together with its key.

use prost::encoding::{encode_varint, encoded_len_varint};

/// The largest length of one byte.
const SMALL_MAX: usize = 0x7f;

/// A size as messages have it.
pub(super) fn wide(size: usize) -> u64 {
    u64::try_from(size).unwrap_or(u64::MAX)
}

/// The size of a field with its key and its length, for field numbers below 16.
pub(super) fn delimited(size: usize) -> usize {
    if size <= SMALL_MAX {
        size.saturating_add(2)
    } else {
        encoded_len_varint(wide(size)).saturating_add(1).saturating_add(size)
    }
}

/// Writes a key and a length.
pub(super) fn begin(bytes: &mut Vec<u8>, key: u8, size: usize) {
    match u8::try_from(size) {
        Ok(size @ 0..=0x7f) => bytes.extend_from_slice(&[key, size]),
        Ok(_) | Err(_) => {
            bytes.push(key);
            encode_varint(wide(size), bytes);
        }
    }
}

/// What comes before the value of a map's entry, where all lengths fit into one byte: the entry's key and size, the name with its
/// key and size, and `last`, the keys and sizes of the value. Sizes that depend on the value are zero.
#[expect(clippy::indexing_slicing, clippy::arithmetic_side_effects, reason = "the compiler evaluates it")]
pub(super) const fn entry<const N: usize, const L: usize>(key: u8, name: &str, last: [u8; L]) -> [u8; N] {
    let (mut entry, mut at) = ([0; N], 0);
    let name = name.as_bytes();
    assert!(N == 4 + name.len() + L && name.len() < 64);
    (entry[0], entry[2], entry[3]) = (key, 1 << 3 | 2, name.len() as u8);
    while at < name.len() {
        entry[4 + at] = name[at];
        at += 1;
    }
    at = 0;
    while at < L {
        entry[4 + name.len() + at] = last[at];
        at += 1;
    }
    entry
}
