//! The rig's payment gateway: reads a payment and answers with its order number, on one thread and as cheaply as it can, for it
//! shares the cores with what is measured.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use memchr::memmem;

use super::poll::{Interest, Poll};
use testkit::{Failure, Result};

/// What a connection has room for at first; a longer payment makes its own room.
const ROOM_BYTES: usize = 16 * 1024;
/// Header lines that a request may have.
const HEADERS_MAX: usize = 64;
/// The listener's number; connections have theirs from 0 on.
const LISTENER: usize = usize::MAX;

/// Serves until the process ends.
///
/// # Errors
/// When the listener breaks. A connection that breaks is left.
pub fn serve_gateway(listener: &TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let mut poll = Poll::new()?;
    poll.add(listener, LISTENER, Interest::Read)?;
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut ready = Vec::new();
    loop {
        poll.wait(None, &mut ready)?;
        for number in ready.iter().copied() {
            if number == LISTENER {
                accept(listener, &poll, &mut connections)?;
            } else if let Some(slot) = connections.get_mut(number)
                && let Some(connection) = slot
                && connection.go_on().is_err()
            {
                poll.remove(&connection.stream)?;
                *slot = None;
            }
        }
    }
}

fn accept(listener: &TcpListener, poll: &Poll, connections: &mut Vec<Option<Connection>>) -> Result<()> {
    let stream = match listener.accept() {
        Ok((stream, _)) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let free = connections.iter().position(Option::is_none).unwrap_or(connections.len());
    poll.add(&stream, free, Interest::Read)?;
    let connection = Connection { stream, buffer: vec![0; ROOM_BYTES], length: 0, whole: None, answer: Vec::new() };
    match connections.get_mut(free) {
        Some(slot) => *slot = Some(connection),
        None => connections.push(Some(connection)),
    }
    Ok(())
}

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    length: usize,
    /// Size of head and body together, once the head is there.
    whole: Option<usize>,
    answer: Vec<u8>,
}

impl Connection {
    fn go_on(&mut self) -> Result<()> {
        if self.length == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        match self.stream.read(self.buffer.get_mut(self.length..).unwrap_or_default()) {
            Ok(0) => return Err(Failure::new("the connection is over")),
            Ok(bytes) => self.length += bytes,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        let request = self.buffer.get(..self.length).unwrap_or_default();
        if self.whole.is_none() {
            self.whole = whole_bytes(request)?;
        }
        if self.whole.is_some_and(|whole| whole <= self.length) {
            write_answer(&mut self.answer, order_no(request));
            // An answer is far smaller than what a socket takes at once.
            self.stream.write_all(&self.answer)?;
            self.length = 0;
            self.whole = None;
        }
        Ok(())
    }
}

fn whole_bytes(request: &[u8]) -> Result<Option<usize>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(head) = parsed.parse(request)? else { return Ok(None) };
    let length = parsed.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    Ok(Some(head + length.unwrap_or(0)))
}

/// As it stands in the body; nothing where there is none.
fn order_no(request: &[u8]) -> &[u8] {
    const FIELD: &[u8] = b"\"order_no\":\"";
    let value = memmem::find(request, FIELD).and_then(|at| request.get(at + FIELD.len()..)).unwrap_or_default();
    let end = memchr::memchr(b'"', value).unwrap_or(0);
    value.get(..end).unwrap_or_default()
}

fn write_answer(out: &mut Vec<u8>, order_no: &[u8]) {
    const BEFORE: &[u8] = b"{\"status\":\"captured\",\"order_no\":\"";
    const AFTER: &[u8] = b"\"}";
    let length = BEFORE.len() + order_no.len() + AFTER.len();
    out.clear();
    out.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ");
    out.extend_from_slice(length.to_string().as_bytes());
    out.extend_from_slice(b"\r\n\r\n");
    out.extend_from_slice(BEFORE);
    out.extend_from_slice(order_no);
    out.extend_from_slice(AFTER);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_echoed() {
        for (body, order) in [
            (r#"{"merchant_id":"m","order_no":"1-2","amount":1}"#, "1-2"),
            (r#"{"merchant_id":"m"}"#, ""),
            (r#"{"order_no":"cut"#, ""),
        ] {
            let mut answer = Vec::new();
            write_answer(&mut answer, order_no(body.as_bytes()));
            let text = String::from_utf8(answer).unwrap();
            let body = format!("{{\"status\":\"captured\",\"order_no\":\"{order}\"}}");
            assert!(text.ends_with(&format!("content-length: {}\r\n\r\n{body}", body.len())), "{text}");
        }
    }

    #[test]
    fn a_request_ends_where_its_body_does() {
        let head = "POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(whole_bytes(head.as_bytes()).unwrap(), Some(head.len() + 5));
        assert_eq!(whole_bytes(&head.as_bytes()[..20]).unwrap(), None);
        assert_eq!(whole_bytes(b"GET / HTTP/1.1\r\n\r\n").unwrap(), Some(18));
        assert!(whole_bytes(b"nonsense\r\n\r\n").is_err());
    }
}
