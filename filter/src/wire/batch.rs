//! Several checks in one call ([`proto::batch`]): its messages are built from checks that are encoded already, and split without
//! copying them.

use prost::encoding::{encode_varint, encoded_len_varint};

use super::fields::{Value, fields};

/// `BatchCheckRequest.checks`.
const CHECKS_KEY: u8 = 1 << 3 | 2;

/// How one check of a batch ended, still encoded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome<'a> {
    pub grpc_status: u32,
    pub response: Option<&'a [u8]>,
}

/// One `BatchCheckRequest` of encoded checks.
#[must_use]
pub fn batch<'a>(checks: impl Iterator<Item = &'a [u8]> + Clone) -> Vec<u8> {
    let length = |check: &[u8]| u64::try_from(check.len()).unwrap_or(u64::MAX);
    let sizes = checks.clone().map(|check| check.len().saturating_add(encoded_len_varint(length(check))));
    let mut bytes = Vec::with_capacity(sizes.fold(0, |sum, size| sum.saturating_add(size).saturating_add(1)));
    for check in checks {
        bytes.push(CHECKS_KEY);
        encode_varint(length(check), &mut bytes);
        bytes.extend_from_slice(check);
    }
    bytes
}

/// The results of a `BatchCheckResponse`, if there are as many as were `expected`: with any other number a result cannot be
/// matched to its check.
#[must_use]
pub fn results(message: &[u8], expected: usize) -> Option<Vec<Outcome<'_>>> {
    let mut results = Vec::with_capacity(expected);
    fields(message, |tag, value| {
        if let (1, Value::Bytes(bytes)) = (tag, value) {
            results.push(result(bytes)?);
        }
        Some(())
    })?;
    (results.len() == expected).then_some(results)
}

fn result(message: &[u8]) -> Option<Outcome<'_>> {
    let mut result = Outcome::default();
    fields(message, |tag, value| {
        match (tag, value) {
            (1, Value::Number(status)) => result.grpc_status = u32::try_from(status).ok()?,
            (2, Value::Bytes(bytes)) if result.response.is_none() => result.response = Some(bytes),
            (1 | 2, _) => return None,
            _ => {}
        }
        Some(())
    })?;
    Some(result)
}
