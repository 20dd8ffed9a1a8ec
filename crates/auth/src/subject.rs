//! The subjects that a token may have. Audit columns also name the server's own parts, and no caller may be mistaken for one.

use quota::ActorId;

/// The names of the server itself and its parts in audit columns, as [`folded`] has them: `system`, `system:expiry`, `proxy`,
/// `config_service`; `token:<id>` for access tokens; `api`, the kind of a program; and the product's own name.
const RESERVED: [&str; 6] = ["system", "proxy", "configservice", "token", "api", "sluice"];
/// Digits that are read as letters.
const LOOKALIKES: [(char, char); 6] = [('0', 'o'), ('1', 'i'), ('3', 'e'), ('4', 'a'), ('5', 's'), ('7', 't')];

/// Reads a subject.
///
/// # Errors
/// The rule that it breaks, as the end of a sentence.
pub fn parse(text: &str) -> Result<ActorId, String> {
    let actor =
        ActorId::parse(text).map_err(|_| format!("must have 1 to {} visible ASCII characters", ActorId::LEN_MAX))?;
    if is_reserved(text) {
        return Err(
            "must not be a name that the server has for its own parts (system, proxy, api, token: …)".to_owned()
        );
    }
    Ok(actor)
}

/// Whether the text is such a name, or a part of it (`system:expiry`), or looks like one.
fn is_reserved(text: &str) -> bool {
    let head = text.split(':').find(|part| !part.is_empty()).unwrap_or(text);
    [text, head].iter().any(|text| RESERVED.contains(&folded(text).as_str()))
}

/// Letters in lower case, without punctuation, and digits as the letters that they look like.
fn folded(text: &str) -> String {
    let letters = text.chars().filter(char::is_ascii_alphanumeric).map(|letter| letter.to_ascii_lowercase());
    letters.map(|letter| LOOKALIKES.iter().find(|(digit, _)| *digit == letter).map_or(letter, |(_, it)| *it)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn x11_nobody_is_taken_for_a_part_of_the_server() {
        for text in [
            "system",
            "System",
            "SYSTEM",
            "system.",
            "_system_",
            "s-y-s-t-e-m",
            "sy5tem",
            "5Y5T3M",
            "system:expiry",
            "System:Expiry",
            ":system",
            "proxy",
            "Proxy",
            "pr0xy",
            "proxy:1",
            "api",
            "API",
            "4p1",
            "token:00000000-0000-0000-0000-000000000007",
            "Token:1",
            "t0ken:1",
            "configservice",
            "sluice",
            // Neither blanks nor other alphabets, whatever they look like.
            " system",
            "system\u{a0}",
            "\u{441}\u{443}stem",
            "\u{ff53}ystem",
            "",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        for text in [
            "ana",
            "admin",
            "systems-team",
            "system-admin",
            "proxy.owner@example.com",
            "api-gateway",
            "tokens",
            "a:system",
            "auth0|5f7c",
        ] {
            assert!(parse(text).is_ok(), "{text}");
        }
    }
}
