//! Identifiers as they appear in keys, journal rows and logs: bounded, visible ASCII, parsed once at the edge.

use std::fmt;

use thiserror::Error;

/// Why a text is not a valid identifier.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdError {
    /// Empty, or longer than the bound.
    #[error("{field} must have 1 to {max} characters, this one has {len}")]
    Length { field: &'static str, max: usize, len: usize },
    /// A character that keys and logs cannot carry.
    #[error("{field} may hold visible ASCII characters only{}", if *.colon_free { ", and no ':'" } else { "" })]
    Character { field: &'static str, colon_free: bool },
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $field:literal, $max:literal, colon_free: $colon_free:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Box<str>);

        impl $name {
            /// Longest accepted text, in bytes.
            pub const LEN_MAX: usize = $max;

            /// Takes 1 to `LEN_MAX` visible ASCII characters.
            ///
            /// # Errors
            /// [`IdError`] names the field and what is wrong with the text.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                check(text, $field, $max, $colon_free)?;
                Ok(Self(text.into()))
            }

            /// The text as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// Whose quota is charged. No `:`, so that a merchant and an order never make another pair's key.
    MerchantId, "merchant", 64, colon_free: true
);
id!(
    /// The merchant's order number: the idempotency key of a charge.
    OrderNo, "order_no", 128, colon_free: false
);
id!(
    /// The gateway's own number of the payment.
    PaymentNo, "payment_no", 128, colon_free: false
);
id!(
    /// The caller's own number of a capture or refund: its idempotency key within the order.
    OperationNo, "operation_no", 128, colon_free: false
);
id!(
    /// How the payment is made, as in `card`.
    Channel, "channel", 32, colon_free: false
);
id!(
    /// Who requested a change, as in `proxy` or a token's subject.
    ActorId, "actor", 128, colon_free: false
);

fn check(text: &str, field: &'static str, max: usize, colon_free: bool) -> Result<(), IdError> {
    if text.is_empty() || text.len() > max {
        return Err(IdError::Length { field, max, len: text.chars().count() });
    }
    if is_visible_ascii(text.as_bytes()) && !(colon_free && text.as_bytes().contains(&b':')) {
        Ok(())
    } else {
        Err(IdError::Character { field, colon_free })
    }
}

/// Whether all bytes are visible ASCII characters. Eight at a time: each identifier of each payment is tested.
#[must_use]
pub fn is_visible_ascii(bytes: &[u8]) -> bool {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST: u64 = ONES << 7;
    let (chunks, rest) = bytes.as_chunks::<8>();
    let all = chunks.iter().all(|chunk| {
        let chunk = u64::from_le_bytes(*chunk);
        // Below 0x80 no addition carries into the next byte; from '!' on the first sets the highest bit, at DEL the second.
        let visible = chunk.wrapping_add(ONES.wrapping_mul(0x80 - b'!' as u64));
        let delete = chunk.wrapping_add(ONES);
        chunk & HIGHEST == 0 && visible & HIGHEST == HIGHEST && delete & HIGHEST == 0
    });
    all && rest.iter().all(u8::is_ascii_graphic)
}

/// Whether both are the same bytes. Eight at a time: WebAssembly has no quick comparison of its own, and the library's takes each
/// byte alone.
#[inline]
#[must_use]
pub fn is_same(own: &[u8], other: &[u8]) -> bool {
    if own.len() != other.len() {
        return false;
    }
    match (own.first_chunk::<8>(), other.first_chunk::<8>(), own.last_chunk::<8>(), other.last_chunk::<8>()) {
        (Some(first), Some(other_first), Some(last), Some(other_last)) => {
            is_same_chunk(first, other_first)
                && is_same_chunk(last, other_last)
                && (own.len() <= 16 || are_same_chunks(own, other))
        }
        _ => own.iter().zip(other).all(|(own, other)| own == other),
    }
}

#[inline]
fn is_same_chunk(own: &[u8; 8], other: &[u8; 8]) -> bool {
    u64::from_le_bytes(*own) == u64::from_le_bytes(*other)
}

fn are_same_chunks(own: &[u8], other: &[u8]) -> bool {
    own.as_chunks::<8>().0.iter().zip(other.as_chunks::<8>().0).all(|(own, other)| is_same_chunk(own, other))
}

/// One attempt at an order: a request through the proxy. Sixteen bytes, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(pub [u8; 16]);

impl AttemptId {
    /// Reads 32 lower-case hexadecimal digits as they are; any other text is hashed (XXH3, 128 bits), so that an identifier in
    /// another form still identifies one attempt.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        Self(read_digits(text).unwrap_or_else(|| xxhash_rust::xxh3::xxh3_128(text.as_bytes()).to_be_bytes()))
    }

    /// Its 32 hexadecimal digits.
    #[must_use]
    pub fn digits(self) -> [u8; 32] {
        let digit = |nibble: u8| if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
        let mut digits = [0; 32];
        for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(self.0) {
            *pair = [digit(byte >> 4), digit(byte & 0xf)];
        }
        digits
    }
}

/// Reads 32 lower-case hexadecimal digits.
fn read_digits(text: &str) -> Option<[u8; 16]> {
    let digit = |text: u8| match text {
        b'0'..=b'9' => Some(text - b'0'),
        b'a'..=b'f' => Some(text - b'a' + 10),
        _ => None,
    };
    let digits: &[u8; 32] = text.as_bytes().try_into().ok()?;
    let mut bytes = [0; 16];
    for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(str::from_utf8(&self.digits()).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_bounded_visible_ascii() {
        let long = "x".repeat(65);
        let table = [
            ("m-1", true),
            ("", false),
            ("a b", false),
            ("a:b", false),
            ("é", false),
            ("a\n", false),
            (long.as_str(), false),
            (&long[..64], true),
        ];
        for (text, accepted) in table {
            assert_eq!(MerchantId::parse(text).is_ok(), accepted, "merchant {text:?}");
        }
        assert!(OrderNo::parse("a:b").is_ok());
    }

    #[test]
    fn every_byte_is_visible_or_not_wherever_it_stands() {
        for byte in 0..=u8::MAX {
            for (at, len) in (1..18).flat_map(|len| (0..len).map(move |at| (at, len))) {
                let mut text = vec![b'x'; len];
                text[at] = byte;
                assert_eq!(is_visible_ascii(&text), byte.is_ascii_graphic(), "{byte} at {at} of {len}");
            }
        }
    }

    #[test]
    fn bytes_are_the_same_only_if_each_is() {
        for len in 0..40 {
            let text: Vec<u8> = (0..len).map(|at| b'a' + at).collect();
            assert!(is_same(&text, &text.clone()));
            for at in 0..text.len() {
                let mut other = text.clone();
                other[at] ^= 1;
                assert!(!is_same(&text, &other) && !is_same(&text, &text[..at]), "{at} of {len}");
            }
        }
    }

    #[test]
    fn attempts_keep_hexadecimal_and_hash_the_rest() {
        let hex = "000102030405060708090a0b0c0d0e0f";
        assert_eq!(AttemptId::from_text(hex).to_string(), hex);
        assert_ne!(AttemptId::from_text("a"), AttemptId::from_text("b"));
        assert_ne!(AttemptId::from_text("+00102030405060708090a0b0c0d0e0f").to_string(), hex);
    }
}
