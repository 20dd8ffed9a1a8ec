//! An answer's bytes, and whether it is the one that its request had to get.

use memchr::memmem;

use super::plan::Expect;
use testkit::{Failure, Result};

/// What an answer has room for at first; a longer one makes its own room.
const ROOM_BYTES: usize = 4 * 1024;
/// Header lines that an answer may have.
const HEADERS_MAX: usize = 64;

/// One answer as it arrives.
#[derive(Debug)]
pub(super) struct Reply {
    buffer: Vec<u8>,
    length: usize,
    /// Status, size of the head, and size of the whole, once the head is there.
    head: Option<(u16, usize, usize)>,
}

impl Default for Reply {
    fn default() -> Self {
        Self { buffer: vec![0; ROOM_BYTES], length: 0, head: None }
    }
}

/// A whole answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer<'a> {
    pub status: u16,
    pub body: &'a [u8],
}

impl Reply {
    /// Where the next bytes go.
    pub(super) fn room(&mut self) -> &mut [u8] {
        if self.length == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        self.buffer.get_mut(self.length..).unwrap_or_default()
    }

    pub(super) fn filled(&mut self, bytes: usize) {
        self.length += bytes;
    }

    pub(super) fn clear(&mut self) {
        self.length = 0;
        self.head = None;
    }

    /// The answer once all of it is there.
    ///
    /// # Errors
    /// When it is not HTTP/1.1 with a content-length, or more than one answer.
    pub(super) fn whole(&mut self) -> Result<Option<Answer<'_>>> {
        let bytes = self.buffer.get(..self.length).unwrap_or_default();
        if self.head.is_none() {
            self.head = read_head(bytes)?;
        }
        match self.head {
            Some((status, head, whole)) if whole == self.length => {
                Ok(Some(Answer { status, body: bytes.get(head..).unwrap_or_default() }))
            }
            Some((_, _, whole)) if whole < self.length => Err(Failure::new("an answer is longer than it says")),
            _ => Ok(None),
        }
    }
}

fn read_head(bytes: &[u8]) -> Result<Option<(u16, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes)? else { return Ok(None) };
    let status = response.code.ok_or_else(|| Failure::new("an answer without status"))?;
    let length = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse::<usize>().ok());
    let length = length.ok_or_else(|| Failure::new("an answer without content-length"))?;
    Ok(Some((status, head, head + length)))
}

/// How an answer is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judged {
    Admitted,
    Refused,
    Wrong,
}

/// Holds an answer against its request: `order` is the order number in quotation marks, which the gateway echoes.
pub(super) fn judge(answer: &Answer<'_>, expect: Expect, order: &[u8], payer: u64) -> Judged {
    let own = || memmem::find(answer.body, order).is_some();
    match expect {
        Expect::Admitted if answer.status == 200 && own() => Judged::Admitted,
        Expect::Race { .. } if answer.status == 200 && own() => Judged::Admitted,
        Expect::Race { statuses } if statuses.contains(&answer.status) => Judged::Refused,
        Expect::Refused { code, limit_base } if names_limit(answer, code, limit_base + payer) => Judged::Refused,
        Expect::Admitted | Expect::Race { .. } | Expect::Refused { .. } => Judged::Wrong,
    }
}

/// Merchants that are refused have a limit of their own each, so that a refusal shows whose it is.
fn names_limit(answer: &Answer<'_>, code: &str, max: u64) -> bool {
    let contains = |text: String| memmem::find(answer.body, text.as_bytes()).is_some();
    answer.status == 429 && contains(format!("\"code\":\"{code}\"")) && contains(format!("\"max\":{max},"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(parts: &[&str]) -> Result<Option<(u16, String)>> {
        let mut reply = Reply::default();
        for part in parts {
            reply.room()[..part.len()].copy_from_slice(part.as_bytes());
            reply.filled(part.len());
        }
        let whole = reply.whole()?;
        Ok(whole.map(|answer| (answer.status, String::from_utf8_lossy(answer.body).into_owned())))
    }

    #[test]
    fn an_answer_is_read_whole() {
        let head = "HTTP/1.1 429 Too Many Requests\r\ncontent-type: text/plain\r\nContent-Length: 4\r\n\r\n";
        let whole = Some((429, "over".to_owned()));
        for (parts, expected) in [
            (vec![head, "over"], whole.clone()),
            (vec![&head[..20], &head[20..], "ov", "er"], whole),
            (vec![head, "ove"], None),
            (vec![&head[..40]], None),
        ] {
            assert_eq!(reply(&parts).unwrap(), expected, "{parts:?}");
        }
        for parts in [vec![head, "overmuch"], vec!["HTTP/1.1 200 OK\r\n\r\n"], vec!["nonsense\r\n\r\n"]] {
            assert!(reply(&parts).is_err(), "{parts:?}");
        }
    }

    #[test]
    fn an_answer_is_held_against_its_request() {
        let own = r#"{"status":"captured","order_no":"1-1-1"}"#;
        let longer = r#"{"status":"captured","order_no":"1-1-10"}"#;
        let refusal = r#"{"code":"YEARLY_AMOUNT","limit":{"name":"yearly_amount","max":2003,"used":1050}}"#;
        let race = Expect::Race { statuses: &[429] };
        let refused = Expect::Refused { code: "YEARLY_AMOUNT", limit_base: 2_000 };
        for (status, body, expect, payer, judged) in [
            (200, own, Expect::Admitted, 0, Judged::Admitted),
            (200, longer, Expect::Admitted, 0, Judged::Wrong),
            (429, refusal, Expect::Admitted, 0, Judged::Wrong),
            (200, own, race, 0, Judged::Admitted),
            (200, longer, race, 0, Judged::Wrong),
            (429, refusal, race, 0, Judged::Refused),
            (503, "", race, 0, Judged::Wrong),
            (429, refusal, refused, 3, Judged::Refused),
            (429, refusal, refused, 4, Judged::Wrong),
            (200, own, refused, 3, Judged::Wrong),
        ] {
            let answer = Answer { status, body: body.as_bytes() };
            assert_eq!(judge(&answer, expect, b"\"1-1-1\"", payer), judged, "{status} {body} {expect:?} {payer}");
        }
    }
}
