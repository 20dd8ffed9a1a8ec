//! Decides by a request's head how its body is read.

use super::{Head, Refusal, bad, single, singles, text};
use crate::Rule;
use quota::Code;

/// The headers that say what a body is.
const LENGTH: &str = "content-length";
const CODING: &str = "content-encoding";
const MEDIA: &str = "content-type";

/// How the body is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// Not at all.
    None,
    Json,
    Form,
    /// A gateway may read fields from it, and it cannot be read here: it must be empty.
    Opaque,
}

/// How a gateway treats a media type.
enum Media {
    Json,
    Form,
    /// One of the above in another charset, or a form of several parts.
    Opaque,
    Other,
}

impl Rule {
    pub(super) fn body_kind(&self, head: &impl Head) -> Result<Body, Refusal> {
        let [length, coding, media] = singles(head, [LENGTH, CODING, MEDIA]);
        let length = length.value(head, LENGTH).map_err(|problem| bad(&format!("header {LENGTH} {problem}")))?;
        if !self.reads_body() {
            return Ok(stray(head));
        }
        if let Some(length) = length {
            self.check_length(length)?;
        }
        let unsupported = |detail: &str| Refusal::new(Code::UnsupportedContent, detail);
        let coding =
            coding.value(head, CODING).map_err(|problem| unsupported(&format!("header {CODING} {problem}")))?;
        if coding.is_some_and(is_coded) {
            return Err(unsupported("the body is compressed; send it with content-encoding identity"));
        }
        let wrong = |problem: String| unsupported(&format!("header {MEDIA} {problem}"));
        let media = media.bytes(head, MEDIA).map_err(wrong)?;
        let (json, form) = (self.names.json.is_read(), self.names.form.is_read());
        let media = match media {
            None => Media::Other,
            Some(b"application/json") => Media::Json,
            Some(media) => media_type(text(media).map_err(wrong)?),
        };
        match media {
            Media::Json if json => Ok(Body::Json),
            Media::Form if form => Ok(Body::Form),
            Media::Json | Media::Form | Media::Opaque | Media::Other => Err(unsupported(match (json, form) {
                (true, false) => "content-type must be application/json (or end in +json), in utf-8",
                (false, _) => "content-type must be application/x-www-form-urlencoded, in utf-8",
                (true, true) => "content-type must be application/json or application/x-www-form-urlencoded, in utf-8",
            })),
        }
    }

    fn check_length(&self, length: &str) -> Result<(), Refusal> {
        let digits = !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit());
        match length.parse::<usize>() {
            Ok(bytes) if digits && bytes <= self.body_bytes_max => Ok(()),
            _ if digits => Err(self.too_large()),
            _ => Err(bad("header content-length is not a number")),
        }
    }
}

/// How a body is read in which the rule has no sources: gateways that merge its fields into those of the query must not find any
/// there that the rule reads elsewhere. Rack reads a body without a content type as a form.
fn stray(head: &impl Head) -> Body {
    let Ok(media) = single(head, MEDIA) else { return Body::Opaque };
    let is_plain = single(head, CODING).is_ok_and(|coding| !coding.is_some_and(is_coded));
    match media.map_or(Media::Form, media_type) {
        Media::Other => Body::None,
        Media::Json if is_plain => Body::Json,
        Media::Form if is_plain => Body::Form,
        Media::Json | Media::Form | Media::Opaque => Body::Opaque,
    }
}

fn is_coded(coding: &str) -> bool {
    !coding.trim().eq_ignore_ascii_case("identity")
}

fn media_type(value: &str) -> Media {
    let mut parts = value.split(';');
    let essence = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
    let utf8 = |part: &str| match part.split_once('=') {
        Some((name, charset)) if name.trim().eq_ignore_ascii_case("charset") => {
            charset.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
        }
        _ => true,
    };
    let single = !essence.contains([',', ' ']) && essence.matches('/').count() == 1;
    match essence.as_str() {
        "application/x-www-form-urlencoded" if parts.all(utf8) => Media::Form,
        "application/json" if parts.all(utf8) => Media::Json,
        _ if single && essence.ends_with("+json") && parts.all(utf8) => Media::Json,
        // Also lists of types, and types that only lenient gateways read as one of these.
        _ if ["json", "urlencoded", "multipart"].iter().any(|word| essence.contains(word)) => Media::Opaque,
        "" => Media::Opaque,
        _ => Media::Other,
    }
}
