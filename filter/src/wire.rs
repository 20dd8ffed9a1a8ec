//! The requests to the server and its answers, as bytes.

mod answer;
mod batch;
mod fields;
mod pairs;
mod request;
mod sizes;
pub mod structure;
#[cfg(test)]
mod tests;

pub use answer::{reply, value};
pub use batch::{Outcome, batch, results};
pub use pairs::{decode_pairs, encode_pairs};
pub use request::{attempt_id, check, confirm, made, release_right, report, unknown, void};
pub use structure::declaration;

use std::borrow::Cow;

use proto::{header, right};
use quota::{Code, Mode};
use sluice_rules::Request;

/// The service and the method that decide one check.
pub const CHECK: [&str; 2] = ["envoy.service.auth.v3.Authorization", "Check"];
/// The service and the method that decide several.
pub const BATCH_CHECK: [&str; 2] = ["sluice.authz.v1.BatchAuthorization", "BatchCheck"];
/// Longest `traceparent` that is passed on, in bytes. Version 00 of W3C Trace Context has 55.
pub const TRACEPARENT_LEN_MAX: usize = 64;

/// One request through the proxy: its content, and the attempt's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// 32 hexadecimal digits.
    pub id: String,
    pub request: Request,
    pub mode: Mode,
    pub traceparent: Option<String>,
}

/// A header of an answer: its name in lower case, and its value.
pub type Pair<'a> = (Cow<'a, str>, &'a str);

/// The server's answer, or that there is no usable one. `decided` is its part of the access log, an encoded object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// The payment may be forwarded after `delay_ms`. On shadow routes the code may be that of a refusal.
    Pass { code: Code, headers: Vec<Pair<'a>>, delay_ms: u32, decided: &'a [u8] },
    /// The payment is refused, with the answer for its caller.
    Refuse { code: Option<Code>, status: u32, headers: Vec<Pair<'a>>, body: &'a [u8], decided: &'a [u8] },
    /// No usable answer.
    None(NoAnswer),
}

impl Reply<'_> {
    /// What it says about the right that was asked for.
    #[must_use]
    pub fn right(&self) -> Option<right::Answer> {
        match self {
            Self::Pass { headers, .. } | Self::Refuse { headers, .. } => {
                value(headers, header::RIGHT).and_then(right::Answer::parse)
            }
            Self::None(_) => None,
        }
    }
}

/// Why there is no usable answer, for the caller and for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoAnswer {
    pub code: Code,
    pub why: &'static str,
}

impl NoAnswer {
    /// The server is unavailable, or its answer is not usable.
    #[must_use]
    pub const fn unavailable(why: &'static str) -> Self {
        Self { code: Code::AuthzUnavailable, why }
    }
}
