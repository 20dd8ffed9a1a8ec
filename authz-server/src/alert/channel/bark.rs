//! Bark: a push message to a phone, by `POST /push` of its server.

use serde_json::json;

use super::post::Post;
use super::text::Text;
use super::{Parcel, json_post};
use crate::alert::Level;
use crate::alert::settings::Bark;

pub(super) fn write(bark: &Bark, parcel: Parcel<'_>) -> Post {
    let text = Text::of(parcel.notice);
    // A time-sensitive one is shown at once even while the phone keeps silent.
    let level = match parcel.notice.level() {
        Level::Critical => "timeSensitive",
        Level::Warning => "active",
    };
    let body = json!({
        "device_key": bark.device_key.expose(),
        "title": text.title,
        "body": text.plain(),
        "group": "sluice",
        "level": level,
        // A repetition replaces what it repeats.
        "id": parcel.id.to_string(),
    });
    json_post(&bark.url, "push", Vec::new(), &body)
}
