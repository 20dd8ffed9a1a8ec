//! The protocol of a connection to the admin port: HTTP/1.1, or HTTP/2 without TLS and with prior knowledge (RFC 9113, section
//! 3.3), as gRPC clients use it. The first bytes decide.

use std::io::{self, Cursor};

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, Chain, Join, join};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// What every HTTP/2 connection begins with (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// A connection from its first byte on, although some were read already.
pub(super) type Opened = Join<Chain<Cursor<BytesMut>, OwnedReadHalf>, OwnedWriteHalf>;

/// Reads the first bytes, as many as needed.
///
/// # Errors
/// Those of reading. An end before the bytes decide is left to HTTP/1.1.
pub(super) async fn open(mut stream: TcpStream) -> io::Result<(Protocol, Opened)> {
    let mut begin = BytesMut::with_capacity(PREFACE.len());
    let protocol = loop {
        let room = PREFACE.len() - begin.len();
        if room == 0 {
            break Protocol::Http2;
        }
        let read = stream.read_buf(&mut (&mut begin).limit(room)).await?;
        if read == 0 || !PREFACE.starts_with(&begin) {
            break Protocol::Http1;
        }
    };
    let (reader, writer) = stream.into_split();
    Ok((protocol, join(Cursor::new(begin).chain(reader), writer)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_first_bytes_tell_and_are_read_again() {
        let http2 = [PREFACE, b"frames"].concat();
        let table: [(&[&[u8]], Protocol); 6] = [
            (&[b"GET / HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[b"P", b"OST / HTTP/1.1\r\n\r\n"], Protocol::Http1),
            (&[b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", b"!"], Protocol::Http1),
            (&[b"PRI *", b" HTTP/2.0\r\n\r\nSM\r\n\r\n", b"frames"], Protocol::Http2),
            (&[&http2], Protocol::Http2),
            (&[], Protocol::Http1),
        ];
        for (pieces, expected) in table {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            client.set_nodelay(true).unwrap();
            let (server, _) = listener.accept().await.unwrap();
            let send = async {
                for piece in pieces {
                    client.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                client.shutdown().await.unwrap();
            };
            let read = async {
                let (protocol, mut opened) = open(server).await.unwrap();
                let mut all = Vec::new();
                opened.read_to_end(&mut all).await.unwrap();
                (protocol, all)
            };
            let ((), (protocol, all)) = tokio::join!(send, read);
            assert_eq!((protocol, all), (expected, pieces.concat()), "{pieces:?}");
        }
    }
}
