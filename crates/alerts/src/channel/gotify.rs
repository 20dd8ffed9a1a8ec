//! Gotify: a message to its apps, by `POST /message` of its server.

use hyper::header::{HeaderName, HeaderValue};
use serde_json::json;

use super::post::Post;
use super::text::Text;
use super::{Delivery, json_post};
use crate::Level;
use crate::settings::Gotify;

pub(super) fn write(gotify: &Gotify, delivery: Delivery<'_>) -> Post {
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
