//! The webhook: the notice as JSON, signed as Standard Webhooks requires, with every secret of a rotation.

use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use hyper::header::{HeaderName, HeaderValue};
use sha2::Sha256;

use serde::{Deserialize, Serialize, Serializer};
use utoipa::ToSchema;

use super::post::Post;
use super::secret::{ChannelSecret, MASK};
use super::{Delivery, Kind, Prepared};
use crate::validation::{Check, check_url, filled, invalid};

/// The prefix of a secret.
const PREFIX: &str = "whsec_";

/// The request; the error is the channel's problem.
fn write(webhook: &Webhook, delivery: Delivery<'_>) -> Result<Post, &'static str> {
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

/// Most secrets that sign one message.
const SECRETS_MAX: usize = 4;
/// Bytes of a webhook's secret (Standard Webhooks).
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// A POST of JSON, signed as Standard Webhooks has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookChannel)]
pub struct Webhook {
    /// The channel's own name, for routes: lower-case letters, digits, `-` and `_`.
    #[schema(pattern = "^[a-z0-9_-]{1,64}$")]
    pub id: String,
    #[schema(max_length = 2048)]
    pub url: String,
    /// Each signs every message; the first is the newest. Base64 of 24 to 64 bytes after `whsec_`. Shown as a mask and its
    /// number; a mask that is sent keeps the secret of that number.
    #[serde(serialize_with = "numbered")]
    #[schema(value_type = Vec<String>, min_items = 1, max_items = 4)]
    pub secrets: Vec<ChannelSecret>,
}

impl Kind for Webhook {
    const NAME: &'static str = "webhook";

    fn id(&self) -> &str {
        &self.id
    }

    fn url(&self) -> Option<&str> {
        Some(&self.url)
    }

    fn secrets(&self) -> Vec<(String, &ChannelSecret)> {
        self.secrets.iter().enumerate().map(|(index, secret)| (format!("/secrets/{index}"), secret)).collect()
    }

    fn keep(&mut self, at: &str, stored: Option<&Self>) -> Check {
        let kept = stored.map(|stored| stored.secrets.as_slice()).unwrap_or_default();
        for (index, secret) in self.secrets.iter_mut().enumerate() {
            if secret.expose().starts_with(MASK) {
                let found = kept.iter().enumerate().find(|(number, _)| mask_of(number + 1) == secret.expose());
                let (_, found) = found.ok_or_else(|| {
                    invalid(format!("{at}.secrets[{index}]"), "is a mask without a stored secret: give the secret")
                })?;
                *secret = found.clone();
            }
        }
        Ok(())
    }

    fn check(&self, at: &str) -> Check {
        check_url(&format!("{at}.url"), &self.url)?;
        filled(&format!("{at}.secrets"), self.secrets.len(), SECRETS_MAX)?;
        let mut secrets = self.secrets.iter().enumerate();
        secrets.try_for_each(|(index, secret)| check_secret(&format!("{at}.secrets[{index}]"), secret))
    }

    fn prepare<'a>(&'a self, delivery: Delivery<'_>) -> Result<Prepared<'a>, &'static str> {
        write(self, delivery).map(Prepared::Post)
    }
}

/// The mask of the secret with a number, from 1.
fn mask_of(number: usize) -> String {
    format!("{MASK}{number}")
}

fn numbered<S: Serializer>(secrets: &[ChannelSecret], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq((1..=secrets.len()).map(mask_of))
}

fn check_secret(field: &str, secret: &ChannelSecret) -> Check {
    let bytes = secret.expose().strip_prefix(PREFIX).and_then(|text| BASE64_STANDARD.decode(text).ok());
    if bytes.is_some_and(|bytes| SECRET_BYTES.contains(&bytes.len())) {
        return Ok(());
    }
    let (least, most) = (SECRET_BYTES.start(), SECRET_BYTES.end());
    Err(invalid(field, format!("must be {PREFIX} and base64 of {least} to {most} random bytes")))
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
