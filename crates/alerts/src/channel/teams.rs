//! A webhook of a Microsoft Teams workflow ("When a Teams webhook request is received"), and what takes the same: a message with one
//! Adaptive Card.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::post::Post;
use super::secret::{ChannelSecret, server_only};
use super::text::{Text, cut};
use super::{Delivery, secret_url_kind};
use crate::Level;

/// Longest title, in characters.
const TITLE_CHARS_MAX: usize = 150;
/// Bytes of the lines that are sent. Teams takes messages of 28 KB; each line is a block of its own.
const LINES_BYTES_MAX: usize = 12_000;

/// A webhook of a Microsoft Teams workflow, or of a service that takes the same messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TeamsChannel)]
pub struct Teams {
    /// The channel's own name, for routes: lower-case letters, digits, `-` and `_`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    pub id: String,
    /// Anyone who has it can write. Shown as the server and a mask, which keeps it where it is sent.
    #[serde(serialize_with = "server_only")]
    #[schema(value_type = String, max_length = 2048)]
    pub url: ChannelSecret,
}

secret_url_kind!(Teams, "teams");

fn write(teams: &Teams, delivery: Delivery<'_>) -> Post {
    let text = Text::of(delivery.notice);
    let color = match delivery.notice.level() {
        Level::Critical => "Attention",
        Level::Warning => "Warning",
    };
    let title = json!({"type": "TextBlock", "text": escape(&cut(&text.title, TITLE_CHARS_MAX)), "weight": "Bolder",
        "size": "Medium", "color": color, "wrap": true});
    let block = |line: String| json!({"type": "TextBlock", "text": line, "wrap": true, "spacing": "Small"});
    let lines = text.fitting(LINES_BYTES_MAX, escape).into_iter().map(block);
    let body: Vec<Value> = std::iter::once(title).chain(lines).collect();
    let card = json!({"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard",
        "version": "1.4", "body": body, "fallbackText": text.title});
    let attachment = json!({"contentType": "application/vnd.microsoft.card.adaptive", "content": card});
    let message = json!({"type": "message", "attachments": [attachment]});
    let body = message.to_string().into_bytes();
    Post { url: teams.url.expose().to_owned(), headers: Vec::new(), body, confidential: true }
}

/// A text block is read as Markdown: characters that begin markup are escaped.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for sign in text.chars() {
        if matches!(sign, '\\' | '*' | '_' | '[' | ']' | '~' | '`') {
            escaped.push('\\');
        }
        escaped.push(sign);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::sample;
    use crate::notice::Notice;

    fn sent(notice: &Notice) -> Value {
        let teams = Teams { id: "chat".to_owned(), url: ChannelSecret::new("https://h/x") };
        serde_json::from_slice(&write(&teams, sample::delivery(notice)).body).unwrap()
    }

    #[test]
    fn an_alert_is_one_adaptive_card() {
        let message = sent(&sample::notice());
        let card = &message["attachments"][0]["content"];
        let kinds = (&message["type"], &card["type"], &card["version"]);
        assert_eq!(kinds, (&json!("message"), &json!("AdaptiveCard"), &json!("1.4")));
        assert_eq!(card["body"][0]["text"], "\\[warning\\] daily\\_80: M-1, USD");
        assert_eq!(card["body"][1]["text"], "80 % of the daily limit is used");
        let blocks = card["body"].as_array().unwrap();
        assert!(blocks.iter().all(|block| block["type"] == "TextBlock" && block["wrap"] == true));
    }

    #[test]
    fn a_long_digest_fits_into_a_message() {
        let message = sent(&sample::digest());
        assert!(message.to_string().len() < 28_000, "{}", message.to_string().len());
        let blocks = message["attachments"][0]["content"]["body"].as_array().unwrap();
        let last = blocks.last().unwrap()["text"].as_str().unwrap();
        // Beside the title and the last line.
        let named = blocks.len() - 2;
        assert!(named > 10 && last.starts_with("and ") && last.ends_with(" more"), "{named}: {last}");
    }

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escape("a_b *c* [d](e) \\"), "a\\_b \\*c\\* \\[d\\](e) \\\\");
    }
}
