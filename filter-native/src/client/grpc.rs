//! One gRPC call on an HTTP/2 connection, and gRPC's status codes.

use std::future::poll_fn;

use bytes::{BufMut, Bytes, BytesMut};
use h2::client::SendRequest;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE};
use http::uri::Uri;
use http::{HeaderMap, Method, Request, StatusCode};

use crate::engine::Call;

// gRPC's codes, as far as calls end by them here.
pub const OK: u32 = 0;
pub const UNKNOWN: u32 = 2;
pub const DEADLINE_EXCEEDED: u32 = 4;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
pub(super) const UNIMPLEMENTED: u32 = 12;
pub(super) const INTERNAL: u32 = 13;
pub const UNAVAILABLE: u32 = 14;
const UNAUTHENTICATED: u32 = 16;

/// The bytes before a message: whether it is compressed, and its length.
const FRAME_HEADER: usize = 5;
const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// One call on a connection. The message of its answer, or the status of its failure.
pub(super) async fn exchange(
    mut sender: SendRequest<Bytes>,
    uri: Option<Uri>,
    call: &Call,
) -> Result<Option<Vec<u8>>, u32> {
    let request = uri.and_then(|uri| request(uri, call.timeout_ms)).ok_or(INTERNAL)?;
    let lost = |_: h2::Error| UNAVAILABLE;
    let (response, mut body) = sender.send_request(request, false).map_err(lost)?;
    body.send_data(framed(&call.message), true).map_err(lost)?;
    let (head, mut body) = response.await.map_err(lost)?.into_parts();
    if let Some(status) = grpc_status(&head.headers) {
        return if status == OK { Ok(None) } else { Err(status) };
    }
    if head.status != StatusCode::OK {
        return Err(status_of(head.status.as_u16()));
    }
    let longest = call.answer_bytes_max.saturating_add(FRAME_HEADER);
    let mut bytes = BytesMut::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk.map_err(lost)?;
        let _ = body.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
        if bytes.len() > longest {
            return Err(RESOURCE_EXHAUSTED);
        }
    }
    let trailers = poll_fn(|context| body.poll_trailers(context)).await.map_err(lost)?;
    match trailers.as_ref().and_then(grpc_status).unwrap_or(UNKNOWN) {
        OK => unframed(bytes).ok_or(INTERNAL),
        status => Err(status),
    }
}

fn request(uri: Uri, timeout_ms: u32) -> Option<Request<()>> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.uri_mut() = uri;
    *request.version_mut() = http::Version::HTTP_2;
    let headers = request.headers_mut();
    headers.insert(TE, HeaderValue::from_static("trailers"));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_TIMEOUT, HeaderValue::try_from(format!("{timeout_ms}m")).ok()?);
    Some(request)
}

fn framed(message: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(message.len().saturating_add(FRAME_HEADER));
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    bytes.put_slice(message);
    bytes.freeze()
}

/// The message of one frame. Without a frame there is none; `None` if the bytes are anything else.
fn unframed(bytes: BytesMut) -> Option<Option<Vec<u8>>> {
    if bytes.is_empty() {
        return Some(None);
    }
    let (header, message) = bytes.split_at_checked(FRAME_HEADER)?;
    let [0, length @ ..] = header else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    (usize::try_from(length).ok()? == message.len()).then(|| Some(message.to_vec()))
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    headers.get(GRPC_STATUS).map(|value| value.to_str().ok().and_then(|text| text.parse().ok()).unwrap_or(UNKNOWN))
}

/// gRPC's own table for HTTP answers that say nothing of gRPC, as Envoy has it.
#[must_use]
pub fn status_of(http: u16) -> u32 {
    match http {
        400 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_one_whole_message() {
        for message in [&b""[..], b"a", &[7; 300]] {
            assert_eq!(unframed(BytesMut::from(framed(message))), Some(Some(message.to_vec())));
        }
        assert_eq!(unframed(BytesMut::new()), Some(None));
        for bytes in [&b"\0"[..], b"\x01\0\0\0\x01a", b"\0\0\0\0\x02a", b"\0\0\0\0\x01ab", b"HTTP/1.1 200"] {
            assert_eq!(unframed(BytesMut::from(bytes)), None, "{bytes:?}");
        }
    }
}
