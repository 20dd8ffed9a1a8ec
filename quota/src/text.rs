//! Checks that a document is UTF-8 without a byte order mark. Editors save other encodings that look the same, and the errors of
//! parsers do not name the cause.

use std::str;

use thiserror::Error;

/// Why a document is not valid text. Each message contains the remedy.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TextError {
    #[error("starts with a byte order mark: save it without (as UTF-8, not as UTF-8 with BOM)")]
    ByteOrderMark,
    #[error("is UTF-16 or UTF-32: save it as UTF-8")]
    Wide,
    #[error("is not UTF-8 from byte {0} on: save it as UTF-8")]
    NotUtf8(usize),
}

const UTF8_MARK: &[u8] = &[0xEF, 0xBB, 0xBF];
const WIDE_MARKS: [&[u8]; 3] = [&[0xFF, 0xFE], &[0xFE, 0xFF], &[0x00, 0x00, 0xFE, 0xFF]];
/// A document begins with ASCII, so a NUL among its first bytes is half of a wider character.
const WIDE_WITHIN: usize = 4;

/// The bytes as text.
///
/// # Errors
/// [`TextError`] names the encoding found.
pub fn document_text(bytes: &[u8]) -> Result<&str, TextError> {
    if bytes.starts_with(UTF8_MARK) {
        return Err(TextError::ByteOrderMark);
    }
    if WIDE_MARKS.iter().any(|mark| bytes.starts_with(mark)) || bytes.iter().take(WIDE_WITHIN).any(|byte| *byte == 0) {
        return Err(TextError::Wide);
    }
    str::from_utf8(bytes).map_err(|error| TextError::NotUtf8(error.valid_up_to()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_document_is_saved_as() {
        let wide = |big: bool| -> Vec<u8> {
            "version"
                .encode_utf16()
                .flat_map(|unit| if big { unit.to_be_bytes() } else { unit.to_le_bytes() })
                .collect()
        };
        let table: [(Vec<u8>, Result<(), TextError>); 9] = [
            (b"version: a\r\n".to_vec(), Ok(())),
            (Vec::new(), Ok(())),
            ("remark: \u{6771}".into(), Ok(())),
            ("\u{feff}version: a".into(), Err(TextError::ByteOrderMark)),
            ([&[0xFF, 0xFE], wide(false).as_slice()].concat(), Err(TextError::Wide)),
            ([&[0xFE, 0xFF], wide(true).as_slice()].concat(), Err(TextError::Wide)),
            (wide(false), Err(TextError::Wide)),
            (wide(true), Err(TextError::Wide)),
            (b"name: K\xf6ln".to_vec(), Err(TextError::NotUtf8(7))),
        ];
        for (bytes, expected) in table {
            assert_eq!(document_text(&bytes).map(drop), expected, "{bytes:?}");
        }
    }
}
