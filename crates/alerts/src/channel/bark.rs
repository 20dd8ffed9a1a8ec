//! Bark: a push message to a phone, by `POST /push` of its server.

use serde_json::json;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::post::Post;
use super::secret::{ChannelSecret, check_token};
use super::text::Text;
use super::{Delivery, Kind, Prepared, json_post};
use crate::Level;
use crate::validation::{Check, check_server};

/// Bytes of the lines that are sent: Apple's push service takes 4 KB in total.
const BODY_BYTES_MAX: usize = 2_500;

fn write(bark: &Bark, delivery: Delivery<'_>) -> Post {
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

/// A Bark server's `/push`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BarkChannel)]
pub struct Bark {
    /// The channel's own name, for routes: lower-case letters, digits, `-` and `_`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    pub id: String,
    /// Of the server, as in `https://api.day.app`.
    #[schema(max_length = 2048)]
    pub url: String,
    /// Shown as a mask, which keeps it where it is sent with the same server.
    #[schema(value_type = String, max_length = 256)]
    pub device_key: ChannelSecret,
}

impl Kind for Bark {
    const NAME: &'static str = "bark";

    fn id(&self) -> &str {
        &self.id
    }

    fn url(&self) -> Option<&str> {
        Some(&self.url)
    }

    fn secrets(&self) -> Vec<(String, &ChannelSecret)> {
        vec![("/device_key".to_owned(), &self.device_key)]
    }

    /// The secret must be given again for another server than it was given for.
    fn keep(&mut self, _at: &str, stored: Option<&Self>) -> Check {
        if let Some(stored) = stored.filter(|stored| stored.url == self.url) {
            self.device_key.keep(&stored.device_key);
        }
        Ok(())
    }

    fn check(&self, at: &str) -> Check {
        check_server(&format!("{at}.url"), &self.url)?;
        check_token(&format!("{at}.device_key"), &self.device_key)
    }

    fn prepare<'a>(&'a self, delivery: Delivery<'_>) -> Result<Prepared<'a>, &'static str> {
        Ok(Prepared::Post(write(self, delivery)))
    }
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
            device_key: ChannelSecret::new("k".repeat(22)),
        };
        let post = write(&bark, sample::delivery(&sample::digest()));
        let body: serde_json::Value = serde_json::from_slice(&post.body).unwrap();
        assert!(post.body.len() < 4_096, "{}", post.body.len());
        let text = body["body"].as_str().unwrap();
        let named = text.lines().count() - 1;
        assert!(named > 3 && text.ends_with(&format!("\nand {} more", sample::DIGEST_LEN - named)), "{text}");
    }
}
