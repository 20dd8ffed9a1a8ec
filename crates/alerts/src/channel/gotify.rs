//! Gotify: a message to its apps, by `POST /message` of its server.

use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::post::Post;
use super::secret::{ChannelSecret, check_token};
use super::text::Text;
use super::{Delivery, Kind, Prepared, json_post};
use crate::Level;
use crate::validation::{Check, check_server};

fn write(gotify: &Gotify, delivery: Delivery<'_>) -> Post {
    let text = Text::of(delivery.notice);
    // Its apps make a sound from 4 on and pop up from 8 on.
    let priority = match delivery.notice.level() {
        Level::Critical => 8,
        Level::Warning => 5,
    };
    let body = json!({
        "title": text.title,
        "message": text.plain(),
        "priority": priority,
        "extras": {"sluice::message": {"id": delivery.id.to_string()}},
    });
    let token = HeaderValue::from_str(gotify.token.expose()).ok().map(|mut value| {
        value.set_sensitive(true);
        (HeaderName::from_static("x-gotify-key"), value)
    });
    json_post(&gotify.url, "message", token.into_iter().collect(), &body)
}

/// A Gotify server's `/message`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GotifyChannel)]
pub struct Gotify {
    /// The channel's own name, for routes: lower-case letters, digits, `-` and `_`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    pub id: String,
    /// Of the server.
    #[schema(max_length = 2048)]
    pub url: String,
    /// Of the application. Shown as a mask, which keeps it where it is sent with the same server.
    #[schema(value_type = String, max_length = 256)]
    pub token: ChannelSecret,
}

impl Kind for Gotify {
    const NAME: &'static str = "gotify";

    fn id(&self) -> &str {
        &self.id
    }

    fn url(&self) -> Option<&str> {
        Some(&self.url)
    }

    fn secrets(&self) -> Vec<(String, &ChannelSecret)> {
        vec![("/token".to_owned(), &self.token)]
    }

    /// The secret must be given again for another server than it was given for.
    fn keep(&mut self, _at: &str, stored: Option<&Self>) -> Check {
        if let Some(stored) = stored.filter(|stored| stored.url == self.url) {
            self.token.keep(&stored.token);
        }
        Ok(())
    }

    fn check(&self, at: &str) -> Check {
        check_server(&format!("{at}.url"), &self.url)?;
        check_token(&format!("{at}.token"), &self.token)
    }

    fn prepare<'a>(&'a self, delivery: Delivery<'_>) -> Result<Prepared<'a>, &'static str> {
        Ok(Prepared::Post(write(self, delivery)))
    }
}
