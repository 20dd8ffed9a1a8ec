//! A request as Envoy's native filter sends it: with raw headers (`encode_raw_headers`) as the client sent it, else as texts in
//! which Envoy has joined repeated headers by commas and replaced bytes that are not UTF-8 by `!`.

use std::borrow::Cow;

use envoy_types::pb::envoy::config::core::v3::HeaderValue;
use envoy_types::pb::envoy::service::auth::v3::AttributeContext;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::google::protobuf::Struct;
use envoy_types::pb::google::protobuf::value::Kind;
use sluice_rules::{Head, Unreadable};

/// What Envoy writes for each byte that is not part of UTF-8.
const REPLACEMENT: u8 = b'!';

/// The head and the body of a request.
pub(super) struct NativeHead<'a> {
    attributes: &'a AttributeContext,
    pub http: &'a HttpRequest,
    /// The headers as they came, if Envoy sends them.
    raw: Option<&'a [HeaderValue]>,
}

impl<'a> NativeHead<'a> {
    pub(super) fn new(attributes: &'a AttributeContext, http: &'a HttpRequest) -> Self {
        let raw = http.header_map.as_ref().map(|map| map.headers.as_slice());
        Self { attributes, http, raw }
    }

    /// The first value of one of Envoy's own headers, if it is a text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let mut own = self.headers().filter(|(own, _)| *own == name.as_bytes());
        own.next().and_then(|(_, value)| std::str::from_utf8(value).ok())
    }

    pub(super) fn body(&self) -> &'a [u8] {
        if self.http.raw_body.is_empty() { self.http.body.as_bytes() } else { &self.http.raw_body }
    }

    /// Whether the body was sent as a text (without `pack_as_bytes`) in which Envoy may have replaced bytes.
    pub(super) fn is_body_replaced(&self) -> bool {
        self.http.raw_body.is_empty() && self.http.body.as_bytes().contains(&REPLACEMENT)
    }

    fn pseudo(&self, name: &str) -> Option<&'a [u8]> {
        self.raw?.iter().find(|header| header.key == name).map(value)
    }
}

fn value(header: &HeaderValue) -> &[u8] {
    if header.raw_value.is_empty() { header.value.as_bytes() } else { &header.raw_value }
}

impl Head for NativeHead<'_> {
    fn method(&self) -> Cow<'_, str> {
        Cow::Borrowed(&self.http.method)
    }

    fn path(&self) -> &[u8] {
        self.pseudo(":path").unwrap_or(self.http.path.as_bytes())
    }

    fn headers(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let raw = self.raw.unwrap_or_default().iter().map(|header| (header.key.as_bytes(), value(header)));
        let joined = self.raw.is_none().then_some(&self.http.headers).into_iter().flatten();
        raw.chain(joined.map(|(name, values)| (name.as_bytes(), values.as_bytes())))
    }

    fn joins_values(&self) -> bool {
        self.raw.is_none()
    }

    /// Where Envoy has joined repeated headers with commas, a comma separates two values.
    fn header(&self, name: &str) -> Vec<&[u8]> {
        let own = self.headers().filter(|(own, _)| own.eq_ignore_ascii_case(name.as_bytes()));
        let each = |(_, value)| match self.raw {
            Some(_) => vec![value],
            None => <[u8]>::split(value, |byte| *byte == b',').map(<[u8]>::trim_ascii).collect(),
        };
        own.flat_map(each).collect()
    }

    fn is_replaced(&self, text: &[u8]) -> bool {
        self.raw.is_none() && text.contains(&REPLACEMENT)
    }

    /// Only a missing value is absent: a number or a list must not be replaced by another source.
    fn metadata(&self, path: &[String]) -> Result<Option<Cow<'_, [u8]>>, Unreadable> {
        let Some((namespace, keys)) = path.split_first() else {
            return Ok(None);
        };
        let metadata = self.attributes.metadata_context.as_ref();
        let root = metadata.and_then(|metadata| metadata.filter_metadata.get(namespace));
        match root.map_or(Ok(None), |root| lookup(root, keys)) {
            Ok(text) => Ok(text.map(|text| Cow::Borrowed(text.as_bytes()))),
            Err(Unreadable) => Err(Unreadable),
        }
    }
}

fn lookup<'a>(root: &'a Struct, keys: &[String]) -> Result<Option<&'a str>, Unreadable> {
    let Some((key, rest)) = keys.split_first() else { return Err(Unreadable) };
    let Some(value) = root.fields.get(key) else { return Ok(None) };
    match (value.kind.as_ref(), rest) {
        (Some(Kind::StringValue(text)), []) => Ok(Some(text)),
        (Some(Kind::StructValue(inner)), [_, ..]) => lookup(inner, rest),
        (_, _) => Err(Unreadable),
    }
}

#[cfg(test)]
mod tests;
