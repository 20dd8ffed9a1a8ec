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
    if text.bytes().all(|byte| byte.is_ascii_graphic() && !(colon_free && byte == b':')) {
        Ok(())
    } else {
        Err(IdError::Character { field, colon_free })
    }
}

/// One attempt at an order: a request through the proxy. Sixteen bytes, written as 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId(pub [u8; 16]);

impl AttemptId {
    /// Reads 32 lower-case hexadecimal digits as they are; any other text is hashed (XXH3, 128 bits), so that an identifier in
    /// another form still identifies one attempt.
    #[must_use]
    pub fn from_text(text: &str) -> Self {
        let hexadecimal = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let exact = if hexadecimal { u128::from_str_radix(text, 16).ok() } else { None };
        Self(exact.unwrap_or_else(|| xxhash_rust::xxh3::xxh3_128(text.as_bytes())).to_be_bytes())
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
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
    fn attempts_keep_hexadecimal_and_hash_the_rest() {
        let hex = "000102030405060708090a0b0c0d0e0f";
        assert_eq!(AttemptId::from_text(hex).to_string(), hex);
        assert_ne!(AttemptId::from_text("a"), AttemptId::from_text("b"));
        assert_ne!(AttemptId::from_text("+00102030405060708090a0b0c0d0e0f").to_string(), hex);
    }
}
