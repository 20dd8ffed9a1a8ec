//! Bark: a push message to a phone, by `POST /push` of its server.

use serde_json::json;

use super::post::Post;
use super::text::Text;
use super::{Delivery, json_post};
use crate::Level;
use crate::settings::Bark;

/// Bytes of the lines that are sent: Apple's push service takes 4 KB in total.
const BODY_BYTES_MAX: usize = 2_500;

pub(super) fn write(bark: &Bark, delivery: Delivery<'_>) -> Post {
    let text = Text::of(delivery.notice);
    // A time-sensitive push is shown at once even while the phone is silenced.
    let level = match delivery.notice.level() {
        Level::Critical => "timeSensitive",
        Level::Warning => "active",
    };
    let body = json!({
        "device_key": bark.device_key.expose(),
        "title": text.title,
        "body": text.fitting(BODY_BYTES_MAX, str::to_owned).join("\n"),
        "group": "sluice",
        "level": level,
        // A repetition replaces what it repeats.
        "id": delivery.id.to_string(),
    });
    json_post(&bark.url, "push", Vec::new(), &body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::sample;

    #[test]
    fn a_long_digest_fits_into_a_push() {
        let bark = Bark {
            id: "phone".to_owned(),
            url: "https://api.day.app".to_owned(),
            device_key: crate::settings::ChannelSecret::new("k".repeat(22)),
        };
        let post = write(&bark, sample::delivery(&sample::digest()));
        let body: serde_json::Value = serde_json::from_slice(&post.body).unwrap();
        assert!(post.body.len() < 4_096, "{}", post.body.len());
        let text = body["body"].as_str().unwrap();
        let named = text.lines().count() - 1;
        assert!(named > 3 && text.ends_with(&format!("\nand {} more", sample::DIGEST_LEN - named)), "{text}");
    }
}
