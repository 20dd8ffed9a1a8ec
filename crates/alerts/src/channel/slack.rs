//! Slack's incoming webhook, and compatible servers: blocks, and all of it as a text for servers that show none, as Mattermost.

use serde_json::{Value, json};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::post::Post;
use super::secret::{ChannelSecret, server_only};
use super::text::{Text, cut};
use super::{Delivery, secret_url_kind};

/// Longest text of a header block and of a section, in characters.
const HEADER_CHARS_MAX: usize = 150;
const SECTION_CHARS_MAX: usize = 3000;
/// Bytes of the lines that are sent: Mattermost takes 16383 characters, and about five sections are enough to read.
const LINES_BYTES_MAX: usize = 12_000;

fn write(slack: &Slack, delivery: Delivery<'_>) -> Post {
    let text = Text::of(delivery.notice);
    let lines = text.fitting(LINES_BYTES_MAX, escape);
    let header = json!({"type": "header", "text": {"type": "plain_text", "text": cut(&text.title, HEADER_CHARS_MAX)}});
    let section = |text: String| json!({"type": "section", "text": {"type": "mrkdwn", "text": text}});
    let blocks: Vec<Value> = std::iter::once(header).chain(sections(&lines).into_iter().map(section)).collect();
    let body = json!({"text": format!("{}\n{}", escape(&text.title), lines.join("\n")), "blocks": blocks});
    let body = body.to_string().into_bytes();
    Post { url: slack.url.expose().to_owned(), headers: Vec::new(), body, confidential: true }
}

/// Packs the lines into as few sections as possible; no line is longer than a section.
fn sections(lines: &[String]) -> Vec<String> {
    let mut sections: Vec<String> = Vec::new();
    for line in lines {
        match sections.last_mut() {
            Some(last) if last.chars().count() + 1 + line.chars().count() <= SECTION_CHARS_MAX => {
                last.push('\n');
                last.push_str(line);
            }
            Some(_) | None => sections.push(line.clone()),
        }
    }
    sections
}

/// Escapes the three characters that are markup to Slack.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// An incoming webhook of Slack, or of what takes the same messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SlackChannel)]
pub struct Slack {
    /// The channel's own name, for routes: lower-case letters, digits, `-` and `_`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    pub id: String,
    /// Anyone who has it can write. Shown as the server and a mask, which keeps it where it is sent.
    #[serde(serialize_with = "server_only")]
    #[schema(value_type = String, max_length = 2048)]
    pub url: ChannelSecret,
}

secret_url_kind!(Slack, "slack");

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::sample;

    #[test]
    fn texts_are_escaped() {
        assert_eq!(escape("<a&b>"), "&lt;a&amp;b&gt;");
    }

    #[test]
    fn a_long_digest_is_told_whole_or_counted() {
        let slack = Slack { id: "chat".to_owned(), url: ChannelSecret::new("https://h/x") };
        let body: Value = serde_json::from_slice(&write(&slack, sample::delivery(&sample::digest())).body).unwrap();
        let texts: Vec<&str> =
            body["blocks"].as_array().unwrap().iter().map(|block| block["text"]["text"].as_str().unwrap()).collect();
        assert!(texts.len() > 2 && texts.iter().all(|text| text.chars().count() <= SECTION_CHARS_MAX), "{texts:?}");
        let (title, lines) = (texts[0], texts[1..].join("\n"));
        assert_eq!(body["text"], format!("{title}\n{lines}"));
        let named = lines.lines().count() - 1;
        assert!(named > 20 && lines.ends_with(&format!("\nand {} more", sample::DIGEST_LEN - named)), "{lines}");
    }

    #[test]
    fn a_line_of_nothing_but_markup_has_room_in_a_section() {
        let text = Text { title: String::new(), lines: vec!["&".repeat(5_000)], left_out: 0 };
        let lines = text.fitting(LINES_BYTES_MAX, escape);
        assert!(sections(&lines).iter().all(|section| section.chars().count() <= SECTION_CHARS_MAX), "{lines:?}");
        assert_eq!(lines.len(), 1);
    }
}
