//! The contract between the proxy filter, the server and their users: messages, names and the problem body.

pub mod extension;
pub mod header;
pub mod json;
mod problem;
pub mod right;
mod secret;

pub use problem::{CONTENT_TYPE as PROBLEM_CONTENT_TYPE, CreditStanding, LimitUsage, Problem, RefusalDetails};

/// The filter's part of Envoy's external authorization protocol.
#[allow(clippy::allow_attributes, clippy::derive_partial_eq_without_eq, unreachable_pub, reason = "generated code")]
pub mod envoy {
    include!(concat!(env!("OUT_DIR"), "/envoy.service.auth.v3.rs"));
}

pub mod batched;

/// Several checks in one call; with the feature `service` its server and client too.
#[allow(
    clippy::allow_attributes,
    clippy::derive_partial_eq_without_eq,
    missing_debug_implementations,
    unreachable_pub,
    reason = "generated code"
)]
pub mod batch {
    /// Most checks in one call.
    pub const CHECKS_MAX: usize = 32;
    /// Most entries of a call that has only reports of payments that were admitted already.
    pub const ENTRIES_MAX: usize = 64;
    /// The status of a check that would delay the others of its call, ABORTED in gRPC: it was not decided, and must be sent in a
    /// call of its own.
    pub const ALONE: u32 = 10;

    include!(concat!(env!("OUT_DIR"), "/batch/sluice.authz.v1.rs"));
}

/// The context of a decision in the event stream.
#[allow(clippy::allow_attributes, clippy::derive_partial_eq_without_eq, unreachable_pub, reason = "generated code")]
pub mod journal {
    include!(concat!(env!("OUT_DIR"), "/sluice.journal.rs"));
}

/// Operations on quota, credit lines and what merchants set up, over gRPC; with the feature `service` their server and client too.
#[allow(
    clippy::allow_attributes,
    clippy::derive_partial_eq_without_eq,
    missing_debug_implementations,
    unreachable_pub,
    reason = "generated code"
)]
pub mod quota_v1 {
    include!(concat!(env!("OUT_DIR"), "/quota.v1.rs"));
}

/// The descriptors of [`quota_v1`], for gRPC reflection.
pub const QUOTA_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quota.v1.bin"));

/// The descriptors of [`envoy`], [`batch`] and [`journal`], for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
