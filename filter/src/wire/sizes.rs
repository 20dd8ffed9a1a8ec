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
