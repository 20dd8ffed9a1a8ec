//! The text of an access token and its hash. The text is shown once, to the caller that creates it; only the hash is stored.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::problem::{Answer, Problem};
use sluice_settings::Secret;

/// The prefix of every access token: people and scanners recognise a leaked one.
pub const PREFIX: &str = "slc_";
/// The subject of a caller with an access token is this and the token's id.
const SUBJECT_PREFIX: &str = "token:";
/// Random bytes in a token: it cannot be guessed, so a plain hash is enough.
const RANDOM_BYTES: usize = 32;

/// SHA-256 of a token's text.
pub(super) type Hash = [u8; 32];

/// A new token's text.
///
/// # Errors
/// A 500 problem if the system has no randomness.
pub fn generate() -> Answer<Secret> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(|error| Problem::internal("randomness", &error))?;
    Ok(Secret::new(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(random))))
}

/// Whether the text has the form of our tokens: only then it is looked up in the database.
pub(super) fn is_well_formed(text: &str) -> bool {
    let random = text.strip_prefix(PREFIX).and_then(|text| BASE64_URL_SAFE_NO_PAD.decode(text).ok());
    random.is_some_and(|random| random.len() == RANDOM_BYTES)
}

/// What is stored of a token.
#[must_use]
pub fn hash(text: &str) -> Hash {
    Sha256::digest(text.as_bytes()).into()
}

/// The actor of the token with the id.
pub(super) fn subject(id: Uuid) -> String {
    format!("{SUBJECT_PREFIX}{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_recognised_and_never_repeat() {
        let (one, two) = (generate().unwrap(), generate().unwrap());
        assert_ne!(one.expose(), two.expose());
        assert!(one.expose().starts_with(PREFIX) && one.expose().len() == PREFIX.len() + 43, "{}", one.expose());
        assert_ne!(hash(one.expose()), hash(two.expose()));
        assert!(is_well_formed(one.expose()) && is_well_formed(two.expose()));
    }

    #[test]
    fn a_text_of_another_form_is_no_token() {
        let good = format!("{PREFIX}{}", "A".repeat(43));
        assert!(is_well_formed(&good));
        for text in [
            "",
            "slc_",
            &good[1..],
            &good[..46],
            &format!("{good}A"),
            &format!("{good}="),
            &good.replace('A', "+"),
            // The last character carries four bits: others would be a second text of the same bytes.
            &format!("{}B", &good[..46]),
        ] {
            assert!(!is_well_formed(text), "{text}");
        }
    }
}
