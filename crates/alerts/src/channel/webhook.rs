//! The webhook: the notice as JSON, signed as Standard Webhooks requires, with every secret of a rotation.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{HeaderName, HeaderValue};
use sha2::Sha256;

use super::Delivery;
use super::post::Post;
use crate::settings::{ChannelSecret, Webhook};

/// The prefix of a secret.
const PREFIX: &str = "whsec_";

/// The request; the error is the channel's problem.
pub(super) fn write(webhook: &Webhook, delivery: Delivery<'_>) -> Result<Post, &'static str> {
    let body = delivery.notice.json().into_bytes();
    let (id, timestamp) = (delivery.id.to_string(), delivery.now_secs.to_string());
    let signatures = webhook.secrets.iter().map(|secret| sign(secret, &id, &timestamp, &body));
    let signatures = signatures.collect::<Option<Vec<_>>>().ok_or("a secret of the channel is not Base64")?.join(" ");
    let mut headers = vec![
        (HeaderName::from_static("webhook-id"), id),
        (HeaderName::from_static("webhook-timestamp"), timestamp),
        (HeaderName::from_static("webhook-signature"), signatures),
    ];
    headers.extend(delivery.traceparent.map(|value| (HeaderName::from_static("traceparent"), value.to_owned())));
    let headers = headers.into_iter().filter_map(|(name, value)| Some((name, HeaderValue::from_str(&value).ok()?)));
    Ok(Post { url: webhook.url.clone(), headers: headers.collect(), body, confidential: false })
}

/// As in `v1,<Base64 of HMAC-SHA256 over id, timestamp and body>`.
fn sign(secret: &ChannelSecret, id: &str, timestamp: &str, body: &[u8]) -> Option<String> {
    let text = secret.expose();
    let text = text.strip_prefix(PREFIX).unwrap_or(text).trim_end_matches('=');
    let key = BASE64_STANDARD_NO_PAD.decode(text).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(format!("{id}.{timestamp}.").as_bytes());
    mac.update(body);
    Some(format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::sample;

    /// The example of the specification's reference libraries.
    #[test]
    fn the_published_example_is_signed_as_published() {
        let secret = ChannelSecret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw");
        let signed = sign(&secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
    }

    #[test]
    fn every_secret_signs_and_none_is_sent() {
        let webhook = sample::webhook("https://example.com/hook");
        let notice = sample::notice();
        let post = write(&webhook, sample::delivery(&notice)).unwrap();
        let header = |name: &str| {
            let found = post.headers.iter().find(|(header, _)| header == name);
            found.map(|(_, value)| value.to_str().unwrap().to_owned()).unwrap_or_default()
        };
        assert_eq!(header("webhook-signature").split(' ').filter(|one| one.starts_with("v1,")).count(), 2);
        assert_eq!(header("webhook-id"), sample::delivery(&notice).id.to_string());
        assert_eq!(header("traceparent"), "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let all = format!("{:?}{}", post.headers, String::from_utf8(post.body).unwrap());
        for secret in &webhook.secrets {
            assert!(!all.contains(secret.expose().trim_start_matches(PREFIX)), "{all}");
        }
    }
}
