//! Messages as valid operations, by the bodies of REST: what REST refuses is refused here for the same reason.

use chrono::DateTime;
use proto::quota_v1 as pb;
use proto::quota_v1::batch_operation::Operation;

use sluice_decision::operations::{
    AdjustOperation, AdjustRequest, ChargeRequest, CheckRequest, CounterField, ExtendHoldRequest, InitializeRequest,
    Invalid, RefundRequest, ReleaseRequest, Request, ResetRequest, ResetWindow, SettleRequest, SuspendRequest,
    VoidRequest,
};

/// A message that requests one operation.
pub(super) trait OperationMessage: Send + 'static {
    /// The operation.
    ///
    /// # Errors
    /// [`Invalid`] names the message's field.
    fn request(self) -> Result<Request, Invalid>;
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

impl OperationMessage for pb::CheckRequest {
    fn request(self) -> Result<Request, Invalid> {
        let Self { merchant_id, currency, amount, channel } = self;
        CheckRequest { merchant_id, currency, amount, channel }.try_into()
    }
}

impl OperationMessage for pb::ConsumeRequest {
    fn request(self) -> Result<Request, Invalid> {
        let Self { merchant_id, currency, order_no, amount, payment_no, channel, remarks, metadata_json } = self;
        let metadata = object(metadata_json)?;
        let body = ChargeRequest { merchant_id, currency, order_no, amount, payment_no, channel, remarks, metadata };
        Request::consume(body).map_err(renamed)
    }
}

impl OperationMessage for pb::HoldRequest {
    fn request(self) -> Result<Request, Invalid> {
        let Self { merchant_id, currency, order_no, amount, payment_no, channel, remarks, metadata_json } = self;
        let metadata = object(metadata_json)?;
        let body = ChargeRequest { merchant_id, currency, order_no, amount, payment_no, channel, remarks, metadata };
        Request::hold(body).map_err(renamed)
    }
}

impl OperationMessage for pb::SettleRequest {
    fn request(self) -> Result<Request, Invalid> {
        let Self { merchant_id, currency, order_no, amount, capture_no, r#final, channel, remarks, metadata_json } =
            self;
        let metadata = object(metadata_json)?;
        let body =
            SettleRequest { merchant_id, currency, order_no, amount, capture_no, r#final, channel, remarks, metadata };
        body.try_into().map_err(renamed)
    }
}

impl OperationMessage for pb::VoidRequest {
    fn request(self) -> Result<Request, Invalid> {
        let Self { merchant_id, currency, order_no, channel, remarks, metadata_json } = self;
        let metadata = object(metadata_json)?;
        VoidRequest { merchant_id, currency, order_no, channel, remarks, metadata }.try_into().map_err(renamed)
    }
}

impl OperationMessage for pb::ExtendHoldRequest {
    fn request(self) -> Result<Request, Invalid> {
        let Self { merchant_id, currency, order_no, hold_until, remarks, metadata_json } = self;
        let metadata = object(metadata_json)?;
        let hold_until = hold_until.ok_or_else(|| invalid("hold_until", "must be set"))?;
        let seconds = DateTime::from_timestamp(hold_until.seconds, 0);
        let hold_until = seconds.ok_or_else(|| invalid("hold_until", "must be a time"))?;
        let body = ExtendHoldRequest { merchant_id, currency, order_no, hold_until, remarks, metadata };
        body.try_into().map_err(renamed)
    }
}

impl OperationMessage for pb::ReleaseRequest {
    fn request(self) -> Result<Request, Invalid> {
        let Self { merchant_id, currency, order_no, amount, refund_no, payment_no, channel, remarks, metadata_json } =
            self;
        let metadata = object(metadata_json)?;
        let body = ReleaseRequest {
            merchant_id,
            currency,
            order_no,
            amount,
            refund_no,
            payment_no,
            channel,
            remarks,
            metadata,
        };
        body.try_into().map_err(renamed)
    }
}

impl OperationMessage for pb::RefundRequest {
    fn request(self) -> Result<Request, Invalid> {
        let Self { merchant_id, currency, order_no, refund_no, amount, payment_no, channel, remarks, metadata_json } =
            self;
        let metadata = object(metadata_json)?;
        let body = RefundRequest {
            merchant_id,
            currency,
            order_no,
            refund_no,
            amount,
            payment_no,
            channel,
            remarks,
            metadata,
        };
        body.try_into().map_err(renamed)
    }
}

impl OperationMessage for pb::AdjustRequest {
    fn request(self) -> Result<Request, Invalid> {
        let (counter, operation) = (counter(self.counter())?, adjust_operation(self.operation())?);
        let Self { merchant_id, currency, amount, reason, expected_version, metadata_json, .. } = self;
        let amount = amount.ok_or_else(|| invalid("amount", "is required"))?;
        let (expected_version, metadata) = (version(expected_version)?, object(metadata_json)?);
        let body =
            AdjustRequest { merchant_id, currency, counter, operation, amount, reason, expected_version, metadata };
        body.try_into().map_err(renamed)
    }
}

impl OperationMessage for pb::ResetRequest {
    fn request(self) -> Result<Request, Invalid> {
        let window = window(self.window())?;
        let Self { merchant_id, currency, reason, expected_version, metadata_json, .. } = self;
        let (expected_version, metadata) = (version(expected_version)?, object(metadata_json)?);
        ResetRequest { merchant_id, currency, window, reason, expected_version, metadata }.try_into().map_err(renamed)
    }
}

impl OperationMessage for pb::SuspendRequest {
    fn request(self) -> Result<Request, Invalid> {
        let Self { merchant_id, currency, reason } = self;
        Request::suspend(SuspendRequest { merchant_id, currency, reason })
    }
}

impl OperationMessage for pb::ResumeRequest {
    fn request(self) -> Result<Request, Invalid> {
        let Self { merchant_id, currency, reason } = self;
        Request::resume(SuspendRequest { merchant_id, currency, reason })
    }
}

impl OperationMessage for pb::InitializeRequest {
    fn request(self) -> Result<Request, Invalid> {
        let Self { merchant_id, currency } = self;
        InitializeRequest { merchant_id, currency }.try_into()
    }
}

impl OperationMessage for pb::BatchOperation {
    fn request(self) -> Result<Request, Invalid> {
        match self.operation.ok_or_else(|| invalid("operation", "must be one that this server knows"))? {
            Operation::Check(message) => message.request(),
            Operation::Consume(message) => message.request(),
            Operation::Hold(message) => message.request(),
            Operation::Settle(message) => message.request(),
            Operation::Void(message) => message.request(),
            Operation::ExtendHold(message) => message.request(),
            Operation::Release(message) => message.request(),
            Operation::Refund(message) => message.request(),
            Operation::Adjust(message) => message.request(),
            Operation::Reset(message) => message.request(),
            Operation::Suspend(message) => message.request(),
            Operation::Resume(message) => message.request(),
            Operation::Initialize(message) => message.request(),
        }
    }
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
