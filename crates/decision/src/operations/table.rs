//! The operations that callers request, in one table.

use serde::Deserialize;
use utoipa::ToSchema;

use super::body;
use super::request::Invalid;
use crate::request::Request;

/// The table of operations: calls `$then!` with one row for each, in the order of descriptions, and with the arguments given.
///
/// A row has the operation's name (of the handler, of gRPC's method, of the action in a batch, and of the function that reads
/// its body), the same as a variant, and its body; the permission that its caller needs; how often it takes effect
/// ([`Repetition`]); its summary in the description of REST; for REST the path, the answer, and the problems beside those of
/// every operation; for gRPC the message and its response.
#[macro_export]
macro_rules! for_each_operation {
    ($then:ident!($($arguments:tt)*)) => {
        $then! {
            [
                { check, Check(CheckRequest), QuotasCheck, Once,
                    "Would a payment be admitted, and what do its limits leave? Consumes nothing, and answers 200 also where \
                    it would be refused.",
                    rest["/quotas/check" -> CheckAnswer],
                    grpc[CheckRequest -> CheckResponse] }
                { consume, Consume(ChargeRequest), QuotasOperate, Once,
                    "Consume quota for an order, once.",
                    rest["/quotas/consume" -> OperationAnswer, Refusals],
                    grpc[ConsumeRequest -> OperationResponse] }
                { hold, Hold(ChargeRequest), QuotasOperate, Once,
                    "Consume quota whose final amount is open, until it is settled, voided or expires.",
                    rest["/quotas/hold" -> OperationAnswer, Refusals],
                    grpc[HoldRequest -> OperationResponse] }
                { settle, Settle(SettleRequest), QuotasOperate, Once,
                    "Capture from a hold: a part, all of it, or within the policy's bound more than it.",
                    rest["/quotas/settle" -> OperationAnswer, Refusals, NotFound],
                    grpc[SettleRequest -> OperationResponse] }
                { void, Void(VoidRequest), QuotasOperate, Once,
                    "End a hold; what it still holds is returned.",
                    rest["/quotas/void" -> OperationAnswer, Refusals, NotFound],
                    grpc[VoidRequest -> OperationResponse] }
                { extend_hold, ExtendHold(ExtendHoldRequest), QuotasOperate, Once,
                    "Keep a hold open for longer, as after an extended authorisation. Sent again, it changes nothing.",
                    rest["/quotas/extend-hold" -> OperationAnswer, Refusals, NotFound],
                    grpc[ExtendHoldRequest -> OperationResponse] }
                { release, Release(ReleaseRequest), QuotasOperate, Once,
                    "Give back what an order has consumed: a hold is voided, what was captured is refunded.",
                    rest["/quotas/release" -> OperationAnswer, Refusals, NotFound],
                    grpc[ReleaseRequest -> OperationResponse] }
                { refund, Refund(RefundRequest), QuotasOperate, Once,
                    "Return captured quota: into the windows it came from as far as they are open, and into today's figures \
                    of refunds.",
                    rest["/quotas/refund" -> OperationAnswer, Refusals, NotFound],
                    grpc[RefundRequest -> OperationResponse] }
                { adjust, Adjust(AdjustRequest), QuotasManage, OnceWithVersion,
                    "Correct one counter by hand. With `expected_version` it is done once, however often it is sent.",
                    rest["/quotas/adjust" -> OperationAnswer, Refusals],
                    grpc[AdjustRequest -> OperationResponse] }
                { reset, Reset(ResetRequest), QuotasManage, OnceWithVersion,
                    "Empty an account's windows. Orders of before are no longer returned into them. With `expected_version` \
                    it is done once.",
                    rest["/quotas/reset" -> OperationAnswer, Refusals],
                    grpc[ResetRequest -> OperationResponse] }
                { suspend, Suspend(SuspendRequest), QuotasManage, Once,
                    "Refuse an account's charges from now on, repetitions of admitted orders too; without a currency those \
                    of the merchant as a\nwhole, in every currency. Captures, voids and refunds go on.",
                    rest["/quotas/suspend" -> SuspensionAnswer, Refusals],
                    grpc[SuspendRequest -> OperationResponse] }
                { resume, Resume(SuspendRequest), QuotasManage, Once,
                    "Take an account's charges again; without a currency those of the merchant, but for accounts that are \
                    suspended themselves.",
                    rest["/quotas/resume" -> SuspensionAnswer, Refusals],
                    grpc[ResumeRequest -> OperationResponse] }
                { initialize, Initialize(InitializeRequest), QuotasManage, Once,
                    "Make an account, so that it is listed before its first payment. One that is there stays as it is.",
                    rest["/quotas/initialize" -> OperationAnswer, Refusals],
                    grpc[InitializeRequest -> OperationResponse] }
                { release_right, ReleaseRight(ReleaseRightRequest), QuotasManage, Once,
                    "End a right that its holder has not returned, and give back what no payment was reported for. Only one \
                    that is over: its holder may admit payments from it until then.",
                    rest["/quotas/release-right" -> OperationAnswer, Refusals],
                    grpc[ReleaseRightRequest -> OperationResponse] }
            ]
            $($arguments)*
        }
    };
}

/// How often an operation takes effect that is requested several times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repetition {
    /// Once: its numbers identify it, or it changes nothing when it comes again.
    Once,
    /// Once where it names the account's version. A correction by hand without a version counts as often as it is done.
    OnceWithVersion,
}

/// Declares the bodies from the table.
macro_rules! operation_request {
    ([$({
        $name:ident, $variant:ident($body:ident), $permission:ident, $repetition:ident, $summary:literal,
        rest$rest:tt, grpc$grpc:tt
    })+]) => {
        /// One operation with its body; in a batch with its name as `action`.
        #[derive(Clone, Debug, Deserialize, ToSchema)]
        #[serde(tag = "action", rename_all = "snake_case")]
        #[schema(as = BatchOperation, description = "One operation of a batch.")]
        pub enum OperationRequest {
            $($variant(body::$body),)+
        }

        impl OperationRequest {
            /// Whether it takes effect once, however often it is requested.
            #[must_use]
            pub const fn is_idempotent(&self) -> bool {
                match self { $(Self::$variant(body) => operation_request!(@$repetition body),)+ }
            }
        }

        impl TryFrom<OperationRequest> for Request {
            type Error = Invalid;

            fn try_from(operation: OperationRequest) -> Result<Self, Invalid> {
                match operation { $(OperationRequest::$variant(body) => Self::$name(body),)+ }
            }
        }
    };
    (@Once $body:ident) => {{
        let _ = $body;
        true
    }};
    (@OnceWithVersion $body:ident) => { $body.expected_version.is_some() };
}

for_each_operation!(operation_request!());
