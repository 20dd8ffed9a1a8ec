//! Requests in parts, and the payments that the shipped rules read.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context as Wake, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::{HeaderMap, Request, Version};
use tokio::time::Sleep;

use super::Protocol;
use crate::failure::Result;

/// A piece of a body, in the order of sending.
#[derive(Clone, Debug)]
pub enum Part {
    Data(Bytes),
    /// Nothing is sent for this long.
    Pause(Duration),
    /// Ends the body with these trailers.
    Trailers(HeaderMap),
    /// Breaks off: HTTP/1.1 closes the connection, HTTP/2 resets the stream.
    Abort,
}

/// A request.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<Part>,
}

impl Call {
    /// A request without a body.
    #[must_use]
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }

    /// A POST with a JSON text in one piece.
    #[must_use]
    pub fn post_json(path: &str, body: impl Into<Bytes>) -> Self {
        Self::new("POST", path).header("content-type", "application/json").part(Part::Data(body.into()))
    }

    /// Adds a header; one of the same name stays.
    #[must_use]
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Appends to the body.
    #[must_use]
    pub fn part(mut self, part: Part) -> Self {
        self.body.push(part);
        self
    }

    /// Ends the body with trailers.
    #[must_use]
    pub fn trailer(self, name: &'static str, value: &'static str) -> Self {
        let value = hyper::header::HeaderValue::from_static(value);
        self.part(Part::Trailers(HeaderMap::from_iter([(hyper::header::HeaderName::from_static(name), value)])))
    }

    pub(super) fn into_request(self, address: SocketAddr, protocol: Protocol) -> Result<Request<CallBody>> {
        let mut builder = Request::builder().method(self.method.as_str());
        builder = match protocol {
            Protocol::Http1 => builder.uri(self.path).header("host", address.to_string()),
            Protocol::Http2 => builder.uri(format!("http://{address}{}", self.path)).version(Version::HTTP_2),
        };
        for (name, value) in &self.headers {
            builder = builder.header(name, value);
        }
        Ok(builder.body(CallBody::from(self.body))?)
    }
}

/// A request's body, part by part. Its length is declared where it is one piece.
#[derive(Debug)]
pub struct CallBody {
    parts: VecDeque<Part>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl From<Vec<Part>> for CallBody {
    fn from(parts: Vec<Part>) -> Self {
        Self { parts: parts.into(), pause: None }
    }
}

/// The body broke off because the test said so.
#[derive(Debug)]
pub struct Aborted;

impl std::fmt::Display for Aborted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the request was aborted on purpose")
    }
}

impl std::error::Error for Aborted {}

impl Body for CallBody {
    type Data = Bytes;
    type Error = Aborted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Wake<'_>,
    ) -> Poll<Option<std::result::Result<Frame<Bytes>, Aborted>>> {
        loop {
            if let Some(pause) = &mut self.pause {
                match pause.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(()) => self.pause = None,
                }
            }
            match self.parts.pop_front() {
                None => return Poll::Ready(None),
                Some(Part::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Some(Part::Trailers(trailers)) => return Poll::Ready(Some(Ok(Frame::trailers(trailers)))),
                Some(Part::Abort) => return Poll::Ready(Some(Err(Aborted))),
                Some(Part::Pause(time)) => self.pause = Some(Box::pin(tokio::time::sleep(time))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty() && self.pause.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let mut parts = self.parts.iter();
        match (parts.next(), parts.next()) {
            (None, _) => SizeHint::with_exact(0),
            (Some(Part::Data(data)), None) => SizeHint::with_exact(data.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

/// A payment as the shipped rules read it: JSON with amounts in minor units.
#[derive(Clone, Debug)]
pub struct Payment {
    path: String,
    merchant: String,
    order_no: String,
    amount: String,
    currency: String,
    gateway: Option<String>,
}

impl Payment {
    /// A payment in USD cents to the enforced route.
    #[must_use]
    pub fn new(merchant: &str, order_no: &str, amount_minor: u64) -> Self {
        Self {
            path: "/v1/payments".to_owned(),
            merchant: merchant.to_owned(),
            order_no: order_no.to_owned(),
            amount: amount_minor.to_string(),
            currency: "USD".to_owned(),
            gateway: None,
        }
    }

    /// Another route.
    #[must_use]
    pub fn path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    /// The amount as it stands in the JSON text, malformed perhaps.
    #[must_use]
    pub fn amount_text(mut self, amount: &str) -> Self {
        amount.clone_into(&mut self.amount);
        self
    }

    /// Another currency.
    #[must_use]
    pub fn currency(mut self, currency: &str) -> Self {
        currency.clone_into(&mut self.currency);
        self
    }

    /// What the gateway shall do with it (see [`crate::gateway::HEADER`]).
    #[must_use]
    pub fn gateway(mut self, behaviour: &str) -> Self {
        self.gateway = Some(behaviour.to_owned());
        self
    }

    /// The JSON text.
    #[must_use]
    pub fn body(&self) -> String {
        let Self { merchant, order_no, amount, currency, .. } = self;
        format!(r#"{{"merchant_id":"{merchant}","order_no":"{order_no}","amount":{amount},"currency":"{currency}"}}"#)
    }

    /// The request.
    #[must_use]
    pub fn call(&self) -> Call {
        let call = Call::post_json(&self.path, self.body());
        match &self.gateway {
            Some(behaviour) => call.header(crate::gateway::HEADER, behaviour),
            None => call,
        }
    }
}
