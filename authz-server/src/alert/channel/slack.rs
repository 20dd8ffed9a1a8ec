//! Slack's incoming webhook, and what takes the same: blocks, and a text for those who show none.

use serde_json::json;

use super::Parcel;
use super::post::Post;
use super::text::Text;
use crate::alert::settings::Slack;

/// Longest text of a header block and of a section, in characters.
const HEADER_CHARS_MAX: usize = 150;
const SECTION_CHARS_MAX: usize = 3000;

pub(super) fn write(slack: &Slack, parcel: Parcel<'_>) -> Post {
    let text = Text::of(parcel.notice);
    let body = json!({
        "text": escape(&text.title),
        "blocks": [
            {"type": "header", "text": {"type": "plain_text", "text": cut(&text.title, HEADER_CHARS_MAX)}},
            {"type": "section", "text": {"type": "mrkdwn", "text": cut(&escape(&text.plain()), SECTION_CHARS_MAX)}},
        ],
    });
    let body = body.to_string().into_bytes();
    Post { url: slack.url.expose().to_owned(), headers: Vec::new(), body, confidential: true }
}

/// The three characters that are not taken as they are.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    text.chars().take(chars_max - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_to_what_is_taken() {
        assert_eq!((cut("abc", 3), cut("äöüß", 3)), ("abc".to_owned(), "äö…".to_owned()));
        assert_eq!(escape("<a&b>"), "&lt;a&amp;b&gt;");
    }
}
