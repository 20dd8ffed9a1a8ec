//! What no HTTP client sends: half a head, and a connection that says in the middle of a request that it will send no more.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::order::Order;
use testkit::Result;
use testkit::client::Protocol;

/// HTTP/2's preface, empty settings, and a frame of headers (RFC 9113, section 4.1) that promises more bytes than come.
const HALF_HEAD_HTTP2: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x40\x01\x00\x00\x00\x00\x01\x83\x86";

/// Sends half a head and leaves.
pub(super) async fn half_a_head(address: SocketAddr, protocol: Protocol, order: &Order) -> Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    match protocol {
        Protocol::Http1 => {
            let head = head(order);
            stream.write_all(head.as_bytes().get(..head.len() / 2).unwrap_or_default()).await?;
        }
        Protocol::Http2 => stream.write_all(HALF_HEAD_HTTP2).await?,
    }
    Ok(())
}

/// Sends a whole request and the end of the connection after it, and gives what comes back until the other side ends too.
pub(super) async fn half_a_connection(address: SocketAddr, order: &Order) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all((head(order) + &order.body()).as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = Vec::new();
    // A connection that is reset ends as well.
    let _ = stream.read_to_end(&mut answer).await;
    Ok(answer)
}

fn head(order: &Order) -> String {
    let (path, length) = (order.route.path(), order.body().len());
    format!(
        "POST {path} HTTP/1.1\r\nhost: payments\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
    )
}
