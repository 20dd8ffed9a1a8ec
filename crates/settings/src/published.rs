//! Which secrets are not secret: those in public files, among them every one that this repository ever had, placeholder texts,
//! and texts that anyone guesses. A pure function of the text.

/// Signing secrets that were published, as [`folded`] has them: this repository's own, those of services that Sluice takes over
/// from, and examples of libraries, tutorials and standards.
const PUBLISHED: [&str; 21] = [
    // This repository's tests, in any of its versions.
    "asecretofteststhatislongenough",
    "asecretfortestslongerthan32bytes",
    "anothersecretthatislongenoughtoo",
    "anothersecretwhichhasmorethan32bytes",
    // Payment platforms whose configuration is public, the merchant quota service's among them.
    "paymentplatformsecretkey2024",
    "paymentplatformsecretkey2025",
    "paymentgatewaysupersecretkey2024secure",
    "paymentgatewayrefreshsecretkey2024",
    "paymentservicejwtsecretkey2024",
    "paymentservicesecretkey12345",
    // jwt.io and its like.
    "astringsecretatleast256bitslong",
    "averylongsecretofatleast256bitsforhs256",
    "mysecretkeythatisatleast256bitslong",
    "thisisaverysecurejwtsecretkeyforhs256",
    "devonlysecretdonotuseinproduction",
    "09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7",
    "404e635266556a586e3272357538782f413f4428472b4b6250645367566b5970",
    "9a4f2c8d3b7a1e6f45c8a0b3f267d8b1d4e6f3c8a9d2b5f8e3a9c8b5f6v8a3d9",
    "3cfa76ef14937c1c0ea519f8fc057a80fcd04a7420f8e8bcd0a7567c272e007b",
    // RFC 7515, appendix A.1.
    "aym1sysppbydfgzld3umj1qzkobwvmkoqqestjqlrt1qs0gzh75aktmn3yj0ips4hcguutwjazzr1z9caow",
    "abcdefghijklmnopqrstuvwxyz0123456789",
];

/// Words of placeholder texts. None of them is likely in 32 random bytes, however they are written.
const PLACEHOLDERS: [&str; 20] = [
    "changeme",
    "changeit",
    "changethis",
    "changeinprod",
    "pleasechange",
    "mustchange",
    "shouldbechanged",
    "replaceme",
    "replacethis",
    "replacewith",
    "yoursecret",
    "yourjwt",
    "yoursuper",
    "your256bit",
    "your512bit",
    "yourkey",
    "supersecret",
    "defaultsecret",
    "examplesecret",
    "insecure",
];

/// Fewer different characters than any random text of that length has.
const DIFFERENT_MIN: usize = 8;

/// Whether anyone may know the secret.
pub(super) fn is_known(secret: &str) -> bool {
    let folded = folded(secret);
    let published = PUBLISHED.iter().any(|known| *known == folded);
    published || PLACEHOLDERS.iter().any(|words| folded.contains(words)) || is_guessed(secret)
}

/// The letters and digits of a text, in lower case: another case or other signs between make no other secret.
fn folded(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// One text again and again, few different characters, or a row of them in their order.
fn is_guessed(secret: &str) -> bool {
    let bytes = secret.as_bytes();
    let repeats = |period: usize| bytes.iter().zip(bytes.iter().skip(period)).all(|(one, other)| one == other);
    let mut different = bytes.to_vec();
    different.sort_unstable();
    different.dedup();
    let steps = bytes.iter().zip(bytes.iter().skip(1)).filter(|(one, next)| one.abs_diff(**next) <= 1).count();
    different.len() < DIFFERENT_MIN || (1..=bytes.len() / 2).any(repeats) || steps * 4 > bytes.len() * 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x9_what_anybody_may_know_is_no_secret() {
        for secret in [
            "a-secret-of-tests-that-is-long-enough",
            "a secret for tests, longer than 32 bytes",
            "A_SECRET_FOR_TESTS_LONGER_THAN_32_BYTES",
            "payment-platform-secret-key-2024",
            "payment-platform-super-secret-jwt-key-change-in-production",
            "your-256-bit-secret-your-256-bit-secret",
            "your-secret-key-change-this-in-production",
            "a-string-secret-at-least-256-bits-long",
            "changemechangemechangemechangeme",
            "please_change_me_before_going_live_2026",
            "dev_jwt_secret_please_change_it_today",
            "secretsecretsecretsecretsecretsecret",
            "0123456789abcdef0123456789abcdef",
            "12345678901234567890123456789012",
            "hunter2-hunter2-hunter2-hunter2-",
            "00000000000000000000000000000000",
            "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ",
            "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow",
            "404E635266556A586E3272357538782F413F4428472B4B6250645367566B5970",
        ] {
            assert!(is_known(secret), "{secret}");
        }
    }

    #[test]
    fn x9_random_texts_are_secrets_however_they_are_written() {
        use base64::Engine;
        use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
        for _ in 0..2000 {
            let mut random = [0_u8; 32];
            getrandom::fill(&mut random).unwrap();
            let hex = random.map(|byte| format!("{byte:02x}")).concat();
            for secret in [hex, BASE64_STANDARD.encode(random), BASE64_URL_SAFE_NO_PAD.encode(random)] {
                assert!(!is_known(&secret), "{secret}");
            }
        }
    }
}
