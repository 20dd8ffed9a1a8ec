//! Reads a request's body before anything else: at most so many bytes, within a time.

use std::time::Duration;

use axum::body::{Body, HttpBody, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use tokio::time::timeout;

use super::Admin;
use super::problem::{Answer, Kind, Problem};

/// How long a whole body may take to arrive.
pub(crate) const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// The middleware: passes on a request with its body in memory.
pub(super) async fn middleware(State(admin): State<Admin>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    match read(body, admin.body_bytes_max, BODY_TIMEOUT).await {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(problem) => problem.into_response(),
    }
}

/// The whole body.
///
/// # Errors
/// A problem if it is too large or does not arrive.
pub(crate) async fn read(body: Body, bytes_max: usize, within: Duration) -> Answer<Bytes> {
    let too_large = || Problem::new(Kind::BodyTooLarge).detail(format!("the body may have {bytes_max} bytes"));
    // A body with a declared length that is too large is not read at all.
    if body.size_hint().lower() > u64::try_from(bytes_max).unwrap_or(u64::MAX) {
        return Err(too_large());
    }
    match timeout(within, to_bytes(body, bytes_max)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_length_limit(&error) => Err(too_large()),
        Ok(Err(_)) => Err(Problem::new(Kind::BadRequest).detail("the body broke off")),
        Err(_) => {
            let detail = format!("the body must arrive within {} s", within.as_secs());
            Err(Problem::new(Kind::RequestTimeout).detail(detail))
        }
    }
}

fn is_length_limit(error: &axum::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if inner.is::<http_body_util::LengthLimitError>() {
            return true;
        }
        source = inner.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::stream;

    /// A body without a declared length, as one that comes in chunks.
    fn chunks(chunks: &'static [&'static str]) -> Body {
        Body::from_stream(stream::iter(chunks.iter().map(|chunk| Ok::<_, std::io::Error>(*chunk))))
    }

    #[tokio::test]
    async fn bodies_are_bounded_whether_they_say_their_length_or_not() {
        let read = |body| read(body, 4, BODY_TIMEOUT);
        assert_eq!(read(Body::from("1234")).await.unwrap(), "1234");
        assert_eq!(read(chunks(&["12", "34"])).await.unwrap(), "1234");
        assert_eq!(read(Body::from("12345")).await.unwrap_err().status(), 413);
        assert_eq!(read(chunks(&["12", "345"])).await.unwrap_err().status(), 413);
        let broken = stream::iter([Err::<&str, _>(std::io::Error::other("gone"))]);
        assert_eq!(read(Body::from_stream(broken)).await.unwrap_err().status(), 400);
    }

    #[tokio::test]
    async fn a_body_that_never_ends_is_not_waited_for() {
        let endless = Body::from_stream(stream::pending::<Result<&str, std::io::Error>>());
        assert_eq!(read(endless, 4, Duration::from_millis(1)).await.unwrap_err().status(), 408);
    }
}
