//! Waiting for a condition with a deadline, and the smallest HTTP exchange that readiness needs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use crate::failure::{Failure, Result};

/// Pause between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(15);
/// How long one look may take before it counts as "not yet".
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// Looks until `probe` gives a value; an error of the probe ends the waiting at once.
///
/// # Errors
/// The probe's own, or that the deadline has passed.
pub fn until<T>(what: &str, within: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = probe()? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(format!("{what}: not within {within:?}")));
        }
        std::thread::sleep(POLL_INTERVAL);
    }
}

/// [`until`] for async code.
///
/// # Errors
/// The probe's own, or that the deadline has passed.
pub async fn until_async<T, F>(what: &str, within: Duration, mut probe: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = probe().await? {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(format!("{what}: not within {within:?}")));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// A connection whose reads and writes give up after half a second.
///
/// # Errors
/// Those of the socket.
pub fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PROBE_TIMEOUT)?;
    stream.set_read_timeout(Some(PROBE_TIMEOUT))?;
    stream.set_write_timeout(Some(PROBE_TIMEOUT))?;
    Ok(stream)
}

/// Sends `request` and reads what comes within one read.
///
/// # Errors
/// Those of the socket.
pub fn exchange(address: SocketAddr, request: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut stream = connect(address)?;
    stream.write_all(request)?;
    let mut reply = vec![0; 16 * 1024];
    let length = stream.read(&mut reply)?;
    reply.truncate(length);
    Ok(reply)
}

/// A blocking GET over a connection of its own: status and body.
///
/// # Errors
/// Those of the socket, and an answer that is not HTTP.
pub fn http_get(address: SocketAddr, path: &str) -> Result<(u16, String)> {
    let mut stream = connect(address)?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").as_bytes())?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    let reply = String::from_utf8_lossy(&reply);
    let (head, body) = reply.split_once("\r\n\r\n").ok_or_else(|| Failure::new("the answer is not HTTP"))?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.ok_or_else(|| Failure::new("the answer has no status"))?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok((status, if chunked { join_chunks(body) } else { body.to_owned() }))
}

/// Takes the sizes out of a chunked body (RFC 9112, section 7.1).
fn join_chunks(mut rest: &str) -> String {
    let mut body = String::new();
    while let Some((size, after)) = rest.split_once("\r\n") {
        let Some(size) = usize::from_str_radix(size.trim(), 16).ok().filter(|size| *size > 0) else {
            break;
        };
        let Some(chunk) = after.get(..size) else { break };
        body.push_str(chunk);
        rest = after.get(size + 2..).unwrap_or_default();
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_joined() {
        let table = [
            ("4\r\nLIVE\r\n0\r\n\r\n", "LIVE"),
            ("1\r\na\r\nA\r\n0123456789\r\n0\r\n\r\n", "a0123456789"),
            ("0\r\n\r\n", ""),
            ("5\r\ncut", ""),
        ];
        for (chunked, body) in table {
            assert_eq!(join_chunks(chunked), body, "{chunked:?}");
        }
    }
}
