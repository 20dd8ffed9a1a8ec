//! The questions to the server and its answers, as bytes.

use std::collections::BTreeMap;

use prost::Message;
use proto::envoy::check_response::HttpResponse;
use proto::envoy::{CheckResponse, HeaderValueOption};
use proto::{extension, header};
use quota::rule::{Action, Request};
use quota::{AmountMinor, Code, Mode};

use crate::delays::DELAY_MS_MAX;
use crate::follow_up::Kind;
use crate::outcome::Reason;

/// The service that is asked.
pub const SERVICE: &str = "envoy.service.auth.v3.Authorization";
/// The method that is called.
pub const METHOD: &str = "Check";
/// Longest `traceparent` that is passed on, in bytes. Version 00 of W3C Trace Context has 55.
pub const TRACEPARENT_LEN_MAX: usize = 64;

/// One request through the proxy: what it asks for, and the attempt's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// 32 hexadecimal digits.
    pub id: String,
    pub request: Request,
    pub mode: Mode,
    pub traceparent: Option<String>,
}

/// The server's answer, or that there is none to act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The payment may go on after `delay_ms`. On shadow routes the code may be that of a refusal.
    Pass { code: Code, headers: Vec<(String, String)>, delay_ms: u32 },
    /// The payment is refused, with the answer for its caller.
    Refuse { code: Option<Code>, status: u32, headers: Vec<(String, String)>, body: Vec<u8> },
    /// No usable answer.
    None(NoAnswer),
}

/// Why there is no answer to act on, for the caller and for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    pub code: Code,
    pub why: &'static str,
}

impl NoAnswer {
    /// The server is away, or what it says cannot be acted on.
    #[must_use]
    pub const fn unavailable(why: &'static str) -> Self {
        Self { code: Code::AuthzUnavailable, why }
    }
}

/// Asks what the rule's action has to know before the gateway is asked: a charge and a refund are counted now; a capture, a
/// void and a check are only tried.
#[must_use]
pub fn ask(action: Action, attempt: &Attempt) -> Vec<u8> {
    let (word, how) = match action {
        Action::Consume => (extension::ACTION_CONSUME, None),
        Action::Hold => (extension::ACTION_HOLD, None),
        Action::Settle => (extension::ACTION_SETTLE, Some((extension::DRY, extension::DRY_SILENT))),
        Action::Refund => (extension::ACTION_REFUND, Some((extension::STAGE, extension::STAGE_RESERVE))),
        Action::Void => (extension::ACTION_VOID_ORDER, Some((extension::DRY, extension::DRY_SILENT))),
        Action::Check => (extension::ACTION_CONSUME, Some((extension::DRY, extension::DRY_JOURNAL))),
    };
    let mut fields = fields(attempt, word);
    fields.extend(how.map(|(name, value)| (name, value.to_owned())));
    details(&mut fields, attempt, attempt.request.amount);
    encode(fields)
}

/// Says what the gateway has done. Without an amount it is all that is left.
#[must_use]
pub fn confirm(kind: Kind, attempt: &Attempt, amount: Option<AmountMinor>) -> Vec<u8> {
    let mut fields = fields(attempt, kind.as_str());
    details(&mut fields, attempt, amount);
    encode(fields)
}

/// Asks to take an attempt back.
#[must_use]
pub fn void(attempt: &Attempt, reason: Reason) -> Vec<u8> {
    let mut fields = fields(attempt, Kind::Void.as_str());
    fields.push((extension::REASON, reason.as_str().to_owned()));
    encode(fields)
}

type Fields = Vec<(&'static str, String)>;

fn fields(attempt: &Attempt, action: &str) -> Fields {
    let Attempt { id, request, mode, traceparent } = attempt;
    let mut fields = vec![
        (extension::ACTION, action.to_owned()),
        (extension::ATTEMPT, id.clone()),
        (extension::MERCHANT, request.merchant.to_string()),
        (extension::CURRENCY, request.currency.to_string()),
        (extension::MODE, mode.as_str().to_owned()),
    ];
    fields.extend(request.order_no.as_ref().map(|order_no| (extension::ORDER_NO, order_no.to_string())));
    fields.extend(traceparent.clone().map(|parent| (extension::TRACEPARENT, parent)));
    fields
}

fn details(fields: &mut Fields, attempt: &Attempt, amount: Option<AmountMinor>) {
    let Request { payment_no, channel, operation_no, is_final, .. } = &attempt.request;
    fields.extend(amount.map(|amount| (extension::AMOUNT_MINOR, amount.to_string())));
    fields.extend(payment_no.as_ref().map(|number| (extension::PAYMENT_NO, number.to_string())));
    fields.extend(channel.as_ref().map(|channel| (extension::CHANNEL, channel.to_string())));
    fields.extend(operation_no.as_ref().map(|number| (extension::OPERATION_NO, number.to_string())));
    fields.extend((!is_final).then(|| (extension::FINAL, extension::FINAL_NOT.to_owned())));
}

fn encode(fields: Fields) -> Vec<u8> {
    let named = |(name, value): (&str, String)| (name.to_owned(), value);
    let context_extensions = fields.into_iter().map(named).collect();
    Question { attributes: Some(Attributes { context_extensions }) }.encode_to_vec()
}

/// [`proto::envoy::CheckRequest`] with an ordered map. A hash map takes randomness from the host at its first use, and the
/// standard library panics where the host has none.
#[derive(prost::Message)]
struct Question {
    #[prost(message, optional, tag = "1")]
    attributes: Option<Attributes>,
}

#[derive(prost::Message)]
struct Attributes {
    #[prost(btree_map = "string, string", tag = "10")]
    context_extensions: BTreeMap<String, String>,
}

/// Reads an answer. The gRPC status is tested before the bytes; bytes that could mean two things mean nothing. A server whose
/// store gave no answer has none either, whatever it says beside.
#[must_use]
pub fn reply(grpc_status: u32, message: Option<&[u8]>) -> Reply {
    match decided(grpc_status, message) {
        Ok(
            Reply::Pass { code: Code::StoreUnavailable, .. } | Reply::Refuse { code: Some(Code::StoreUnavailable), .. },
        ) => Reply::None(NoAnswer { code: Code::StoreUnavailable, why: "the quota store gave no answer" }),
        Ok(reply) => reply,
        Err(why) => Reply::None(NoAnswer::unavailable(why)),
    }
}

fn decided(grpc_status: u32, message: Option<&[u8]>) -> Result<Reply, &'static str> {
    if grpc_status != 0 {
        return Err("the call failed");
    }
    let response = message.and_then(|bytes| CheckResponse::decode(bytes).ok()).ok_or("the answer cannot be decoded")?;
    match (response.status.map(|status| status.code), response.http_response) {
        (Some(0), Some(HttpResponse::OkResponse(ok))) => pass(ok.headers),
        (Some(code), Some(HttpResponse::DeniedResponse(denied))) if code != 0 => {
            let status = denied.status.and_then(|status| u32::try_from(status.code).ok());
            let headers = pairs(denied.headers);
            Ok(Reply::Refuse {
                code: code_of(&headers),
                status: status.filter(|status| (400..=599).contains(status)).unwrap_or(403),
                headers,
                body: denied.body.into_bytes(),
            })
        }
        (_, _) => Err("the answer neither allows nor refuses"),
    }
}

fn pass(headers: Vec<HeaderValueOption>) -> Result<Reply, &'static str> {
    let mut headers = pairs(headers);
    headers.retain(|(name, _)| name.starts_with(header::PREFIX));
    let code = code_of(&headers).ok_or("the answer allows without a known code")?;
    let delay = value(&headers, header::DELAY_MS).map_or(Ok(0), str::parse::<u64>);
    let delay_ms = delay.map_err(|_| "the answer's delay is not a number of milliseconds")?;
    let delay_ms = u32::try_from(delay_ms).unwrap_or(u32::MAX).min(DELAY_MS_MAX);
    Ok(Reply::Pass { code, headers, delay_ms })
}

/// Header names in lower case; pseudo headers are nothing that an answer may set.
fn pairs(headers: Vec<HeaderValueOption>) -> Vec<(String, String)> {
    let pairs = headers.into_iter().filter_map(|option| option.header);
    pairs
        .map(|header| (header.key.to_ascii_lowercase(), header.value))
        .filter(|(name, _)| !name.is_empty() && !name.starts_with(':'))
        .collect()
}

fn code_of(headers: &[(String, String)]) -> Option<Code> {
    value(headers, header::CODE).and_then(Code::parse)
}

/// The value of a header of an answer.
#[must_use]
pub fn value<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
}

/// Writes headers as the ABI has them: a count, the sizes, then the texts with a zero byte after each.
#[must_use]
pub fn encode_pairs(pairs: &[(String, String)]) -> Vec<u8> {
    let size = |text: &str| u32::try_from(text.len()).unwrap_or(u32::MAX).to_le_bytes();
    let mut bytes = u32::try_from(pairs.len()).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    for (name, value) in pairs {
        bytes.extend(size(name));
        bytes.extend(size(value));
    }
    for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
        bytes.extend(text.as_bytes());
        bytes.push(0);
    }
    bytes
}

/// Reads headers as the ABI has them; `None` where the bytes are not what they say.
#[must_use]
pub fn decode_pairs(bytes: &[u8]) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    if bytes.is_empty() {
        return Some(Vec::new());
    }
    let (count, rest) = number(bytes)?;
    let (mut sizes, mut texts) = rest.split_at_checked(count.checked_mul(8)?)?;
    let mut pairs = Vec::new();
    while !sizes.is_empty() {
        let (name_size, after) = number(sizes)?;
        let (value_size, after) = number(after)?;
        sizes = after;
        let (name, after) = terminated(texts, name_size)?;
        let (value, after) = terminated(after, value_size)?;
        texts = after;
        pairs.push((name.to_vec(), value.to_vec()));
    }
    Some(pairs)
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*number)).ok()?, rest))
}

fn terminated(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(size)?;
    rest.split_first().map(|(_, rest)| (text, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(operation_no: Option<&str>, is_final: bool) -> Attempt {
        let request = Request {
            merchant: quota::MerchantId::parse("m").unwrap(),
            amount: AmountMinor::new(5),
            currency: quota::Currency::parse("USD").unwrap(),
            order_no: quota::OrderNo::parse("o").ok(),
            payment_no: None,
            channel: quota::Channel::parse("card").ok(),
            operation_no: operation_no.map(|number| quota::OperationNo::parse(number).unwrap()),
            is_final,
        };
        Attempt { id: "0".repeat(32), request, mode: Mode::Shadow, traceparent: None }
    }

    fn read(message: &[u8]) -> String {
        let message = proto::envoy::CheckRequest::decode(message).unwrap();
        let extensions = message.attributes.unwrap().context_extensions;
        let common = [
            ("attempt", "0".repeat(32)),
            ("merchant", "m".into()),
            ("currency", "USD".into()),
            ("order_no", "o".into()),
        ];
        for (name, value) in common {
            assert_eq!(extensions[&format!("sluice.{name}")], value);
        }
        assert_eq!(extensions[extension::MODE], "shadow");
        let mut rest: Vec<String> = extensions
            .into_iter()
            .map(|(name, value)| format!("{}={value}", name.trim_start_matches("sluice.")))
            .filter(|text| {
                !["attempt=", "merchant=", "currency=", "order_no=", "mode="].iter().any(|own| text.starts_with(own))
            })
            .collect();
        rest.sort();
        rest.join(" ")
    }

    #[test]
    fn a_question_is_the_contracts_message() {
        let table = [
            (Action::Consume, "action=consume amount_minor=5 channel=card"),
            (Action::Hold, "action=hold amount_minor=5 channel=card"),
            (Action::Settle, "action=settle amount_minor=5 channel=card dry=1"),
            (Action::Refund, "action=refund amount_minor=5 channel=card stage=reserve"),
            (Action::Void, "action=void_order amount_minor=5 channel=card dry=1"),
            (Action::Check, "action=consume amount_minor=5 channel=card dry=journal"),
        ];
        for (action, expected) in table {
            assert_eq!(read(&ask(action, &attempt(None, true))), expected, "{action:?}");
        }
        let partial = attempt(Some("n"), false);
        let expected = "action=settle amount_minor=5 channel=card dry=1 final=0 operation_no=n";
        assert_eq!(read(&ask(Action::Settle, &partial)), expected);
        let amount = AmountMinor::new(3);
        let expected = "action=settle amount_minor=3 channel=card final=0 operation_no=n";
        assert_eq!(read(&confirm(Kind::Settle, &partial, amount)), expected);
        assert_eq!(
            read(&confirm(Kind::Refund, &attempt(Some("n"), true), None)),
            "action=refund channel=card operation_no=n"
        );
        assert_eq!(read(&confirm(Kind::VoidOrder, &attempt(None, true), None)), "action=void_order channel=card");
        assert_eq!(read(&void(&partial, Reason::ClientGone)), "action=void reason=client_gone");
    }

    #[test]
    fn pairs_survive_the_way_and_damage_is_noticed() {
        let pairs = vec![("a".to_owned(), String::new()), ("b\u{e9}".to_owned(), "x y".to_owned())];
        let bytes = encode_pairs(&pairs);
        let expected: Vec<(Vec<u8>, Vec<u8>)> =
            pairs.into_iter().map(|(name, value)| (name.into_bytes(), value.into_bytes())).collect();
        assert_eq!(decode_pairs(&bytes), Some(expected));
        assert_eq!(decode_pairs(&[]), Some(Vec::new()));
        for cut in 1..bytes.len() {
            assert_eq!(decode_pairs(&bytes[..cut]), None, "{cut}");
        }
        assert_eq!(decode_pairs(&[0xff; 4]), None);
        assert_eq!(decode_pairs(&[0xff; 100]), None);
    }
}
