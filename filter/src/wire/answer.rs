//! The server's answers, read from untrusted bytes.

use std::borrow::Cow;

use proto::header;
use quota::Code;

use super::fields::{Value, fields};
use super::{NoAnswer, Pair, Reply};
use crate::delays::DELAY_MS_MAX;

/// Reads an answer. The gRPC status is tested before the bytes; ambiguous bytes are no answer. A server whose store gave no answer
/// has none either, whatever else it returns.
#[must_use]
pub fn reply(grpc_status: u32, message: Option<&[u8]>) -> Reply<'_> {
    match decided(grpc_status, message) {
        Ok(
            Reply::Pass { code: Code::StoreUnavailable, .. } | Reply::Refuse { code: Some(Code::StoreUnavailable), .. },
        ) => Reply::None(NoAnswer { code: Code::StoreUnavailable, why: "the quota store gave no answer" }),
        Ok(reply) => reply,
        Err(why) => Reply::None(NoAnswer::unavailable(why)),
    }
}

fn decided(grpc_status: u32, message: Option<&[u8]>) -> Result<Reply<'_>, &'static str> {
    if grpc_status != 0 {
        return Err("the call failed");
    }
    let response = message.and_then(response).ok_or("the answer cannot be decoded")?;
    match (response.code, response.ok, response.denied) {
        (Some(0), Some(ok), None) => pass(ok, response.decided),
        (Some(code), None, Some(denied)) if code != 0 => refuse(denied, response.decided),
        (_, _, _) => Err("the answer neither allows nor refuses"),
    }
}

/// [`proto::envoy::CheckResponse`], its parts still encoded.
#[derive(Default)]
struct Response<'a> {
    /// The status that decides which of both the answer is.
    code: Option<u64>,
    ok: Option<&'a [u8]>,
    denied: Option<&'a [u8]>,
    /// For the access log; not decoded.
    decided: &'a [u8],
}

fn response(message: &[u8]) -> Option<Response<'_>> {
    let mut response = Response::default();
    fields(message, |tag, value| {
        match (tag, value) {
            (1, Value::Bytes(status)) => response.code = Some(number(status)?),
            (2, Value::Bytes(denied)) => response.denied = Some(denied),
            (3, Value::Bytes(ok)) => response.ok = Some(ok),
            (4, Value::Bytes(decided)) => response.decided = decided,
            (1..=4, _) => return None,
            _ => {}
        }
        Some(())
    })?;
    Some(response)
}

/// The code in the first field of a status; it is left out where it is zero.
fn number(status: &[u8]) -> Option<u64> {
    let mut code = 0;
    fields(status, |tag, value| {
        match (tag, value) {
            (1, Value::Number(number)) => code = number,
            (1, _) => return None,
            _ => {}
        }
        Some(())
    })?;
    Some(code)
}

/// Room for the headers of most answers.
const HEADERS_USUAL: usize = 4;

fn pass<'a>(ok: &'a [u8], decided: &'a [u8]) -> Result<Reply<'a>, &'static str> {
    let mut headers = Vec::with_capacity(HEADERS_USUAL);
    let read = fields(ok, |tag, value| match (tag, value) {
        (2, Value::Bytes(option)) => {
            headers.extend(pair(option)?.filter(|(name, _)| name.starts_with(header::PREFIX)));
            Some(())
        }
        (2, _) => None,
        _ => Some(()),
    });
    read.ok_or("the answer cannot be decoded")?;
    let code = code_of(&headers).ok_or("the answer allows without a known code")?;
    let delay = value(&headers, header::DELAY_MS).map_or(Ok(0), str::parse::<u64>);
    let delay_ms = delay.map_err(|_| "the answer's delay is not a number of milliseconds")?;
    let delay_ms = u32::try_from(delay_ms).unwrap_or(u32::MAX).min(DELAY_MS_MAX);
    Ok(Reply::Pass { code, headers, delay_ms, decided })
}

fn refuse<'a>(denied: &'a [u8], decided: &'a [u8]) -> Result<Reply<'a>, &'static str> {
    let (mut status, mut headers, mut body) = (None, Vec::new(), &[][..]);
    let read = fields(denied, |tag, value| {
        match (tag, value) {
            (1, Value::Bytes(bytes)) => status = u32::try_from(number(bytes)?).ok(),
            (2, Value::Bytes(option)) => headers.extend(pair(option)?),
            (3, Value::Bytes(bytes)) => body = std::str::from_utf8(bytes).ok()?.as_bytes(),
            (1..=3, _) => return None,
            _ => {}
        }
        Some(())
    });
    read.ok_or("the answer cannot be decoded")?;
    let status = status.filter(|status| (400..=599).contains(status)).unwrap_or(403);
    Ok(Reply::Refuse { code: code_of(&headers), status, headers, body, decided })
}

/// A header of an answer, its name in lower case; none where it has no name, or one of a pseudo header, which is nothing that an
/// answer may set. The outer option is that of bytes that cannot be read.
fn pair(option: &[u8]) -> Option<Option<Pair<'_>>> {
    if let Some((name, text)) = usual_pair(option) {
        return Some(Some((Cow::Borrowed(name), text)));
    }
    let mut header = None;
    let (mut name, mut text) = ("", "");
    fields(option, |tag, value| {
        match (tag, value) {
            (1, Value::Bytes(bytes)) => header = Some(bytes),
            (1, _) => return None,
            _ => {}
        }
        Some(())
    })?;
    fields(header.unwrap_or_default(), |tag, value| {
        match (tag, value) {
            (1, Value::Bytes(bytes)) => name = std::str::from_utf8(bytes).ok()?,
            (2, Value::Bytes(bytes)) => text = std::str::from_utf8(bytes).ok()?,
            (1 | 2, _) => return None,
            _ => {}
        }
        Some(())
    })?;
    let named = !name.is_empty() && !name.starts_with(':');
    Some(named.then(|| (lower(name), text)))
}

/// A header of every admitted payment, as the server writes it.
fn usual_pair(option: &[u8]) -> Option<(&'static str, &str)> {
    const FIRST: u8 = 1 << 3 | 2;
    const SECOND: u8 = 2 << 3 | 2;
    let [FIRST, size @ 0..=0x7f, FIRST, length @ 0..=0x7f, rest @ ..] = option else { return None };
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    let [SECOND, length @ 0..=0x7f, text @ ..] = rest else { return None };
    let is_whole = usize::from(*size).checked_add(2) == Some(option.len()) && usize::from(*length) == text.len();
    const CODE: usize = header::CODE.len();
    const DECISION_ID: usize = header::DECISION_ID.len();
    const REPLAY: usize = header::REPLAY.len();
    let usual = match name.len() {
        CODE => header::CODE,
        DECISION_ID => header::DECISION_ID,
        REPLAY => header::REPLAY,
        _ => return None,
    };
    let is_usual = is_whole && quota::is_same(usual.as_bytes(), name);
    std::str::from_utf8(text).ok().filter(|_| is_usual).map(|text| (usual, text))
}

fn lower(name: &str) -> Cow<'_, str> {
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

fn code_of(headers: &[Pair<'_>]) -> Option<Code> {
    value(headers, header::CODE).and_then(Code::parse)
}

/// The value of a header of an answer.
#[must_use]
pub fn value<'a>(headers: &[Pair<'a>], name: &str) -> Option<&'a str> {
    headers.iter().find(|(own, _)| quota::is_same(own.as_bytes(), name.as_bytes())).map(|(_, value)| *value)
}
