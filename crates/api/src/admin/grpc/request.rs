//! Messages as valid operations, by the bodies of REST: what REST refuses is refused here for the same reason.

use chrono::DateTime;
use proto::quota_v1 as pb;
use proto::quota_v1::batch_operation::Operation;

use crate::admin::execute::Requested;
use crate::admin::rights::RightQuery;
use sluice_decision::operations::body::{
    self, AdjustOperation, AdjustRequest, CounterField, ExtendHoldRequest, ResetRequest, ResetWindow,
};
use sluice_decision::operations::{Invalid, OperationRequest};

/// A message that requests one operation.
pub(super) trait OperationMessage: Sized + Send + 'static {
    /// The operation with the body of REST.
    ///
    /// # Errors
    /// [`Invalid`] names the message's field.
    fn into_operation(self) -> Result<OperationRequest, Invalid>;

    /// The valid operation.
    ///
    /// # Errors
    /// [`Invalid`] names the message's field.
    fn requested(self) -> Result<Requested, Invalid> {
        self.into_operation().and_then(Requested::try_from).map_err(renamed)
    }
}

fn invalid(field: &'static str, problem: &str) -> Invalid {
    Invalid { field, problem: problem.to_owned(), is_amount: false }
}

type Metadata = serde_json::Map<String, serde_json::Value>;

/// The caller's data, as an object.
fn object(metadata_json: Option<String>) -> Result<Option<Metadata>, Invalid> {
    let parsed = metadata_json.map(|text| serde_json::from_str(&text)).transpose();
    parsed.map_err(|error| invalid("metadata_json", &format!("must be a JSON object: {error}")))
}

/// The field's name in the messages.
fn renamed(invalid: Invalid) -> Invalid {
    if invalid.field == "metadata" { Invalid { field: "metadata_json", ..invalid } } else { invalid }
}

/// Declares the operation of a message whose fields are those of the body, by name and type; its metadata is text.
macro_rules! message {
    ($message:ident => $variant:ident($body:ident { $($field:ident),+ $(; $metadata:ident: $text:ident)? })) => {
        impl OperationMessage for pb::$message {
            fn into_operation(self) -> Result<OperationRequest, Invalid> {
                let Self { $($field,)+ $($text)? } = self;
                Ok(OperationRequest::$variant(body::$body { $($field,)+ $($metadata: object($text)?)? }))
            }
        }
    };
}

message!(CheckRequest => Check(CheckRequest { merchant_id, currency, amount, channel }));
message!(ConsumeRequest => Consume(ChargeRequest {
    merchant_id, currency, order_no, amount, payment_no, channel, remarks; metadata: metadata_json
}));
message!(HoldRequest => Hold(ChargeRequest {
    merchant_id, currency, order_no, amount, payment_no, channel, remarks; metadata: metadata_json
}));
message!(SettleRequest => Settle(SettleRequest {
    merchant_id, currency, order_no, amount, capture_no, r#final, channel, remarks; metadata: metadata_json
}));
message!(VoidRequest => Void(VoidRequest {
    merchant_id, currency, order_no, channel, remarks; metadata: metadata_json
}));
message!(ReleaseRequest => Release(ReleaseRequest {
    merchant_id, currency, order_no, amount, refund_no, payment_no, channel, remarks; metadata: metadata_json
}));
message!(RefundRequest => Refund(RefundRequest {
    merchant_id, currency, order_no, refund_no, amount, payment_no, channel, remarks; metadata: metadata_json
}));
message!(SuspendRequest => Suspend(SuspendRequest { merchant_id, currency, reason }));
message!(ResumeRequest => Resume(SuspendRequest { merchant_id, currency, reason }));
message!(ReleaseRightRequest => ReleaseRight(ReleaseRightRequest { merchant_id, currency, right_id, reason }));
message!(InitializeRequest => Initialize(InitializeRequest { merchant_id, currency }));

impl OperationMessage for pb::ExtendHoldRequest {
    fn into_operation(self) -> Result<OperationRequest, Invalid> {
        let Self { merchant_id, currency, order_no, hold_until, remarks, metadata_json } = self;
        let metadata = object(metadata_json)?;
        let hold_until = hold_until.ok_or_else(|| invalid("hold_until", "must be set"))?;
        let seconds = DateTime::from_timestamp(hold_until.seconds, 0);
        let hold_until = seconds.ok_or_else(|| invalid("hold_until", "must be a time"))?;
        let body = ExtendHoldRequest { merchant_id, currency, order_no, hold_until, remarks, metadata };
        Ok(OperationRequest::ExtendHold(body))
    }
}

impl OperationMessage for pb::AdjustRequest {
    fn into_operation(self) -> Result<OperationRequest, Invalid> {
        let (counter, operation) = (counter(self.counter())?, adjust_operation(self.operation())?);
        let Self { merchant_id, currency, amount, reason, expected_version, metadata_json, .. } = self;
        let amount = amount.ok_or_else(|| invalid("amount", "is required"))?;
        let (expected_version, metadata) = (version(expected_version)?, object(metadata_json)?);
        let body =
            AdjustRequest { merchant_id, currency, counter, operation, amount, reason, expected_version, metadata };
        Ok(OperationRequest::Adjust(body))
    }
}

impl OperationMessage for pb::ResetRequest {
    fn into_operation(self) -> Result<OperationRequest, Invalid> {
        let window = window(self.window())?;
        let Self { merchant_id, currency, reason, expected_version, metadata_json, .. } = self;
        let (expected_version, metadata) = (version(expected_version)?, object(metadata_json)?);
        let body = ResetRequest { merchant_id, currency, window, reason, expected_version, metadata };
        Ok(OperationRequest::Reset(body))
    }
}

/// Declares the operations of a batch, from the table of operations.
macro_rules! batch {
    ([$({
        $name:ident, $variant:ident($body:ident), $permission:ident, $repetition:ident, $summary:literal,
        rest$rest:tt, grpc$grpc:tt
    })+]) => {
        impl OperationMessage for pb::BatchOperation {
            fn into_operation(self) -> Result<OperationRequest, Invalid> {
                match self.operation.ok_or_else(|| invalid("operation", "must be one that this server knows"))? {
                    $(Operation::$variant(message) => message.into_operation(),)+
                }
            }
        }
    };
}

sluice_decision::for_each_operation!(batch!());

/// Which rights to list. A limit below 0 is refused as 0 is.
pub(super) fn rights(message: pb::ListRightsRequest) -> RightQuery {
    let pb::ListRightsRequest { merchant_id, currency, orphaned, cursor, limit } = message;
    let limit = limit.map(|limit| u64::try_from(limit).unwrap_or_default());
    RightQuery { merchant_id, currency, orphaned, cursor, limit }
}

fn version(expected: Option<i64>) -> Result<Option<u64>, Invalid> {
    let parsed = expected.map(u64::try_from).transpose();
    parsed.map_err(|_| invalid("expected_version", "must be 0 or more"))
}

/// Declares the conversion of every counter, from the table of counters.
macro_rules! counter {
    ([$({ $name:ident, $variant:ident, $kind:ident $(($period:ident))?, $number:literal, $doc:literal })+]) => {
        fn counter(counter: pb::Counter) -> Result<CounterField, Invalid> {
            match counter {
                pb::Counter::Unspecified => Err(invalid("counter", "must be one that this server knows")),
                $(pb::Counter::$variant => Ok(CounterField::$variant),)+
            }
        }
    };
}

quota::for_each_counter!(counter!());

fn adjust_operation(operation: pb::AdjustOperation) -> Result<AdjustOperation, Invalid> {
    Ok(match operation {
        pb::AdjustOperation::Unspecified => return Err(invalid("operation", "must be add, subtract or set")),
        pb::AdjustOperation::Add => AdjustOperation::Add,
        pb::AdjustOperation::Subtract => AdjustOperation::Subtract,
        pb::AdjustOperation::Set => AdjustOperation::Set,
    })
}

fn window(window: pb::ResetWindow) -> Result<ResetWindow, Invalid> {
    Ok(match window {
        pb::ResetWindow::Unspecified => return Err(invalid("window", "must be daily, weekly, monthly, yearly or all")),
        pb::ResetWindow::Daily => ResetWindow::Daily,
        pb::ResetWindow::Weekly => ResetWindow::Weekly,
        pb::ResetWindow::Monthly => ResetWindow::Monthly,
        pb::ResetWindow::Yearly => ResetWindow::Yearly,
        pb::ResetWindow::All => ResetWindow::All,
    })
}
