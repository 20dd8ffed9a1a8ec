//! What the gateway does with a request: the `x-gateway` header says.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{HeaderMap, Response, StatusCode};
use tokio::time::Sleep;

/// The request header: `fail-500`, `fail-402`, `conflict-409`, `hang`, `reset`, `reset-after-headers`,
/// `stall-after-headers`, `slow-<ms>`, `status-<code>`, `captures-<amount>`, `says-<word>-<code>` (the outcome in a header beside
/// the status), `then-<code>` (the first try of an order breaks off, the next are answered so), `late-<code>` (the first one
/// hangs) or `moved-<path>` (a redirect
/// that keeps the method). Without it a payment is captured.
pub const HEADER: &str = "x-gateway";

/// The header of the answer that says how much was captured.
const CAPTURED: HeaderName = HeaderName::from_static("x-captured-amount");

/// The header of the answer in which the gateway says the outcome itself.
const OUTCOME: HeaderName = HeaderName::from_static("x-payment-outcome");

/// Long enough for the head of the answer to be on its way before the connection breaks.
const BREAK_AFTER: Duration = Duration::from_millis(100);
/// Longer than any route waits for the rest of an answer.
const STALL_FOR: Duration = Duration::from_secs(300);

/// The gateway breaks the connection on purpose.
#[derive(Debug)]
pub(super) struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the gateway breaks the connection on purpose")
    }
}

impl std::error::Error for Broken {}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    Answer(StatusCode),
    Slow(Duration),
    /// Says how much was captured, in the unit of the request.
    Captures(u64),
    /// Says the outcome by this word, whatever the status.
    Says(StatusCode, HeaderValue),
    /// The first try breaks off; the next ones are answered so.
    Then(StatusCode),
    /// The first try hangs; the next ones are answered so.
    Late(StatusCode),
    /// Redirects to this path (307).
    Moved(HeaderValue),
    Hang,
    Reset,
    ResetAfterHeaders,
    /// The answer begins, and does not end within the time of any route.
    StallAfterHeaders,
}

impl Behaviour {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let word = headers.get(HEADER).and_then(|value| value.to_str().ok());
        word.map_or(Self::Answer(StatusCode::OK), |word| {
            Self::parse(word).unwrap_or(Self::Answer(StatusCode::IM_A_TEAPOT))
        })
    }

    /// `None` for a word that it does not know, which is answered 418 so that a test's typing mistake shows.
    fn parse(word: &str) -> Option<Self> {
        match word {
            "hang" => return Some(Self::Hang),
            "reset" => return Some(Self::Reset),
            "reset-after-headers" => return Some(Self::ResetAfterHeaders),
            "stall-after-headers" => return Some(Self::StallAfterHeaders),
            _ => {}
        }
        let (kind, number) = word.split_once('-')?;
        let status = |number: &str| StatusCode::from_bytes(number.as_bytes()).ok();
        match kind {
            "fail" | "conflict" | "status" => status(number).map(Self::Answer),
            "then" => status(number).map(Self::Then),
            "late" => status(number).map(Self::Late),
            "says" => {
                let (word, number) = number.rsplit_once('-')?;
                Some(Self::Says(status(number)?, HeaderValue::from_str(word).ok()?))
            }
            "moved" => HeaderValue::from_str(number).ok().map(Self::Moved),
            "captures" => number.parse().ok().map(Self::Captures),
            "slow" => number.parse().ok().map(Duration::from_millis).map(Self::Slow),
            _ => None,
        }
    }

    /// `tries` are the requests of the order so far, this one included.
    pub(super) async fn answer(self, order_no: Option<&str>, tries: usize) -> Result<Response<Answer>, Broken> {
        match self {
            Self::Says(status, word) => Ok(with_header(json(status, order_no), OUTCOME, word)),
            Self::Moved(path) => {
                Ok(with_header(json(StatusCode::TEMPORARY_REDIRECT, order_no), header::LOCATION, path))
            }
            Self::Then(_) if tries <= 1 => Err(Broken),
            Self::Late(_) if tries <= 1 => std::future::pending().await,
            Self::Then(status) | Self::Late(status) => Ok(json(status, order_no)),
            Self::Answer(status) => Ok(json(status, order_no)),
            Self::Slow(delay) => {
                tokio::time::sleep(delay).await;
                Ok(json(StatusCode::OK, order_no))
            }
            Self::Captures(amount) => Ok(with_header(json(StatusCode::OK, order_no), CAPTURED, amount.into())),
            Self::Hang => std::future::pending().await,
            Self::Reset => Err(Broken),
            Self::ResetAfterHeaders => Ok(unfinished(BREAK_AFTER)),
            Self::StallAfterHeaders => Ok(unfinished(STALL_FOR)),
        }
    }
}

/// The beginning of an answer whose connection breaks after a time.
fn unfinished(break_after: Duration) -> Response<Answer> {
    let breaking = Box::pin(tokio::time::sleep(break_after));
    Response::new(Answer { data: Some(Bytes::from_static(b"{\"status\":")), breaking: Some(breaking) })
}

fn with_header(mut response: Response<Answer>, name: HeaderName, value: HeaderValue) -> Response<Answer> {
    response.headers_mut().insert(name, value);
    response
}

fn json(status: StatusCode, order_no: Option<&str>) -> Response<Answer> {
    let word = match status.as_u16() {
        200..=299 => "captured",
        409 => "conflict",
        _ => "failed",
    };
    let body = serde_json::json!({"status": word, "order_no": order_no}).to_string();
    let mut response = Response::new(Answer { data: Some(body.into()), breaking: None });
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A body that is complete, or breaks off after its first part.
#[derive(Debug)]
pub(super) struct Answer {
    data: Option<Bytes>,
    breaking: Option<Pin<Box<Sleep>>>,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if let Some(data) = self.data.take() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        match &mut self.breaking {
            None => Poll::Ready(None),
            Some(breaking) => breaking.as_mut().poll(cx).map(|()| Some(Err(Broken))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_none() && self.breaking.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match (&self.data, &self.breaking) {
            (Some(data), None) => SizeHint::with_exact(data.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_selects_what_happens() {
        let table = [
            ("fail-500", Some(Behaviour::Answer(StatusCode::INTERNAL_SERVER_ERROR))),
            ("fail-402", Some(Behaviour::Answer(StatusCode::PAYMENT_REQUIRED))),
            ("conflict-409", Some(Behaviour::Answer(StatusCode::CONFLICT))),
            ("status-204", Some(Behaviour::Answer(StatusCode::NO_CONTENT))),
            ("slow-250", Some(Behaviour::Slow(Duration::from_millis(250)))),
            ("captures-1250", Some(Behaviour::Captures(1_250))),
            ("captures-all", None),
            ("says-not_made-200", Some(Behaviour::Says(StatusCode::OK, HeaderValue::from_static("not_made")))),
            ("says-made", None),
            ("then-422", Some(Behaviour::Then(StatusCode::UNPROCESSABLE_ENTITY))),
            ("moved-/v1/payments", Some(Behaviour::Moved(HeaderValue::from_static("/v1/payments")))),
            ("hang", Some(Behaviour::Hang)),
            ("reset", Some(Behaviour::Reset)),
            ("reset-after-headers", Some(Behaviour::ResetAfterHeaders)),
            ("stall-after-headers", Some(Behaviour::StallAfterHeaders)),
            ("slow-soon", None),
            ("nonsense", None),
        ];
        for (word, expected) in table {
            assert_eq!(Behaviour::parse(word), expected, "{word}");
        }
    }
}
