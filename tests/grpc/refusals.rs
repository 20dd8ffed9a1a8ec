//! What is refused, with which status and details: the same by its own method and in a batch.

use std::time::Duration;

use proto::quota_v1::batch_operation::Operation;
use proto::quota_v1::batch_result::Result as Outcome;
use proto::quota_v1::{
    AdjustOperation, AdjustRequest, ConsumeRequest, Counter, GetAccountRequest, RefundRequest, ResetRequest,
    SettleRequest, SuspendRequest, VoidRequest,
};
use testkit::{Result, Service as _};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::bench::{self, Client, ask, batch, check, consume, consume_request, done, hold, usd};

/// The stable code in the status's details.
pub(crate) fn reason(status: &Status) -> String {
    let info = status.get_details_error_info().filter(|info| info.domain == "sluice");
    info.map_or_else(|| format!("no ErrorInfo of ours in {status:?}"), |info| info.reason)
}

fn void(merchant: &str, order_no: &str) -> Operation {
    Operation::Void(VoidRequest {
        merchant_id: merchant.to_owned(),
        currency: usd(),
        order_no: order_no.to_owned(),
        ..VoidRequest::default()
    })
}

fn refund(merchant: &str, order_no: &str, amount: i64) -> Operation {
    Operation::Refund(RefundRequest {
        merchant_id: merchant.to_owned(),
        currency: usd(),
        order_no: order_no.to_owned(),
        refund_no: format!("R-{amount}"),
        amount: Some(amount),
        ..RefundRequest::default()
    })
}

fn settle(merchant: &str, order_no: &str, amount: i64) -> Operation {
    Operation::Settle(SettleRequest {
        merchant_id: merchant.to_owned(),
        currency: usd(),
        order_no: order_no.to_owned(),
        amount: Some(amount),
        ..SettleRequest::default()
    })
}

fn adjust(merchant: &str, amount: Option<i64>, expected_version: Option<i64>) -> AdjustRequest {
    AdjustRequest {
        merchant_id: merchant.to_owned(),
        currency: usd(),
        counter: Counter::DailyUsed.into(),
        operation: AdjustOperation::Set.into(),
        amount,
        reason: "a test".to_owned(),
        expected_version,
        ..AdjustRequest::default()
    }
}

/// What the table's orders and accounts are.
async fn prepare(client: &mut Client) -> Result<()> {
    for operation in [
        consume("small", "A", 1000),
        consume("counted", "A", 1000),
        hold("holding", "A", 1000),
        consume("refunding", "A", 1000),
        hold("shop", "held", 1000),
        hold("shop", "gone", 1000),
        void("shop", "gone"),
        consume("shop", "paid", 1000),
        consume("frozen", "A", 1000),
        Operation::Suspend(SuspendRequest {
            merchant_id: "frozen".to_owned(),
            currency: Some(usd()),
            reason: "a test".to_owned(),
        }),
    ] {
        done(client, operation).await?;
    }
    Ok(())
}

/// Refusals by quota. Each leaves everything as it was, so that the order of the rows means nothing.
fn refused() -> Vec<(Operation, Code, &'static str)> {
    let with_channel = ConsumeRequest { channel: Some("cash".to_owned()), ..consume_request("choosy", "B", 500) };
    let by_card = ConsumeRequest { channel: Some("card".to_owned()), ..consume_request("choosy", "B", 500) };
    let in_yen = ConsumeRequest { currency: "JPY".to_owned(), ..by_card };
    vec![
        (consume("small", "B", 600), Code::ResourceExhausted, "DAILY_AMOUNT"),
        (consume("counted", "B", 600), Code::ResourceExhausted, "DAILY_COUNT"),
        (hold("holding", "B", 600), Code::ResourceExhausted, "PENDING_AMOUNT"),
        (refund("refunding", "A", 600), Code::ResourceExhausted, "REFUND_DAILY"),
        (consume("shop", "B", 99), Code::FailedPrecondition, "BELOW_SINGLE_MIN"),
        (consume("shop", "B", 1_000_001), Code::FailedPrecondition, "ABOVE_SINGLE_MAX"),
        (Operation::Consume(with_channel), Code::FailedPrecondition, "CHANNEL_NOT_ALLOWED"),
        (Operation::Consume(in_yen), Code::FailedPrecondition, "CURRENCY_NOT_ALLOWED"),
        (consume("frozen", "B", 500), Code::FailedPrecondition, "SUSPENDED"),
        (settle("shop", "held", 1001), Code::FailedPrecondition, "CAPTURE_EXCEEDS_HOLD"),
        (refund("shop", "paid", 1001), Code::FailedPrecondition, "REFUND_EXCEEDS_ORDER"),
        (settle("shop", "gone", 500), Code::FailedPrecondition, "ORDER_CLOSED"),
        (void("shop", "never"), Code::NotFound, "ORDER_UNKNOWN"),
        (consume("shop", "paid", 1001), Code::AlreadyExists, "IDEMPOTENCY_CONFLICT"),
        (Operation::Adjust(adjust("shop", Some(1), Some(999))), Code::Aborted, "VERSION_CONFLICT"),
    ]
}

/// Members of ErrorInfo's metadata.
const DETAILS: &[(&str, &[(&str, &str)])] = &[
    ("BELOW_SINGLE_MIN", &[("single_min", "100")]),
    ("ABOVE_SINGLE_MAX", &[("single_max", "1000000")]),
    ("CHANNEL_NOT_ALLOWED", &[("allowed_channels", "card")]),
    ("CURRENCY_NOT_ALLOWED", &[("allowed_currencies", "USD")]),
    ("SUSPENDED", &[("suspended", "account")]),
    ("IDEMPOTENCY_CONFLICT", &[("first_amount", "1000"), ("first_currency", "USD")]),
];

#[tokio::test]
async fn refusals_are_statuses_by_themselves_and_items_in_a_batch() -> Result<()> {
    let api = bench::start(&[])?;
    let mut client = bench::client(&api, &api.operator()?).await?;
    prepare(&mut client).await?;
    let mut statuses = Vec::new();
    for (operation, code, expected) in refused() {
        let status = ask(&mut client, operation.clone()).await.expect_err(expected);
        assert_eq!((status.code(), reason(&status).as_str()), (code, expected), "{operation:?}: {status:?}");
        let details = status.get_error_details();
        let metadata = &details.error_info().expect("there is one").metadata;
        assert_eq!(metadata.get("decision_id").map(String::len), Some(36), "{operation:?}");
        let by_window = ["DAILY_AMOUNT", "DAILY_COUNT", "REFUND_DAILY"].contains(&expected);
        let retry = details.retry_info().and_then(|info| info.retry_delay);
        assert_eq!(retry.is_some_and(|delay| delay > Duration::ZERO), by_window, "{operation:?}: {retry:?}");
        assert_eq!(metadata.contains_key("limit_resets_at"), by_window, "{metadata:?}");
        statuses.push(status);
    }
    let daily = statuses[0].get_details_error_info().expect("there is one").metadata;
    for (name, value) in [("limit_name", "daily_amount"), ("limit_max", "1500"), ("limit_used", "1000")] {
        assert_eq!(daily.get(name).map(String::as_str), Some(value), "{daily:?}");
    }

    // What stands in the way, by the names of REST.
    for (code, members) in DETAILS {
        let place = refused().iter().position(|(.., own)| own == code).expect("it is in the table");
        let metadata = statuses[place].get_details_error_info().expect("there is one").metadata;
        for (name, value) in *members {
            assert_eq!(metadata.get(*name).map(String::as_str), Some(*value), "{code}: {metadata:?}");
        }
    }

    let operations = refused().into_iter().map(|(operation, ..)| operation).collect();
    let outcomes = batch(&mut client, operations, false).await?;
    for (outcome, status) in outcomes.into_iter().zip(&statuses) {
        let Outcome::Refusal(refusal) = outcome else { panic!("{outcome:?} instead of {status:?}") };
        assert_eq!(refusal.status, i32::from(status.code()));
        assert_eq!((refusal.reason, refusal.message.as_str()), (reason(status), status.message()));
        let retry = status.get_details_retry_info().and_then(|info| info.retry_delay);
        assert_eq!(refusal.retry_after.is_some(), retry.is_some());
        let metadata = status.get_details_error_info().expect("there is one").metadata;
        assert!(refusal.details.iter().all(|(name, value)| metadata.get(name) == Some(value)), "{:?}", refusal.details);
        assert_eq!(refusal.details.is_empty(), !DETAILS.iter().any(|(code, _)| *code == reason(status)));
        assert_eq!(refusal.limit.is_some(), refusal.retry_after.is_some() || refusal.status == 8);
    }
    Ok(())
}

/// What cannot be accepted names the field, and is not decided.
#[tokio::test]
async fn what_cannot_be_accepted_names_the_field() -> Result<()> {
    let api = bench::start(&[])?;
    let mut client = bench::client(&api, &api.operator()?).await?;
    let consume_with = |change: fn(&mut ConsumeRequest)| {
        let mut message = consume_request("shop", "A", 1000);
        change(&mut message);
        Operation::Consume(message)
    };
    let reset = ResetRequest {
        merchant_id: "shop".to_owned(),
        currency: usd(),
        reason: "a test".to_owned(),
        ..ResetRequest::default()
    };
    let partial = SettleRequest {
        merchant_id: "shop".to_owned(),
        currency: usd(),
        order_no: "A".to_owned(),
        r#final: Some(false),
        ..SettleRequest::default()
    };
    let nameless = AdjustRequest { counter: Counter::Unspecified.into(), ..adjust("shop", Some(1), None) };
    let unknown = AdjustRequest { operation: 99, ..adjust("shop", Some(1), None) };
    let silent = AdjustRequest { reason: " ".to_owned(), ..adjust("shop", Some(1), None) };
    let table = [
        (consume("shop", "A", 0), "amount", "BAD_AMOUNT"),
        (consume("shop", "A", -5), "amount", "BAD_AMOUNT"),
        (consume("shop", "A", 1 << 53), "amount", "BAD_AMOUNT"),
        (check("shop", i64::MIN), "amount", "BAD_AMOUNT"),
        (consume("", "A", 1000), "merchant_id", "BAD_REQUEST"),
        (consume("a b", "A", 1000), "merchant_id", "BAD_REQUEST"),
        (consume("shop", "", 1000), "order_no", "BAD_REQUEST"),
        (consume_with(|message| message.currency = "usd!".to_owned()), "currency", "BAD_REQUEST"),
        (consume_with(|message| message.remarks = Some("x".repeat(1025))), "remarks", "BAD_REQUEST"),
        (consume_with(|message| message.metadata_json = Some("[]".to_owned())), "metadata_json", "BAD_REQUEST"),
        (consume_with(|message| message.metadata_json = Some("{".to_owned())), "metadata_json", "BAD_REQUEST"),
        (
            consume_with(|message| message.metadata_json = Some(format!("{{\"a\":\"{}\"}}", "x".repeat(5000)))),
            "metadata_json",
            "BAD_REQUEST",
        ),
        (Operation::Settle(partial), "capture_no", "BAD_REQUEST"),
        (Operation::Adjust(nameless), "counter", "BAD_REQUEST"),
        (Operation::Adjust(unknown), "operation", "BAD_REQUEST"),
        (Operation::Adjust(silent), "reason", "BAD_REQUEST"),
        (Operation::Adjust(adjust("shop", None, None)), "amount", "BAD_REQUEST"),
        (Operation::Adjust(adjust("shop", Some(-1), None)), "amount", "BAD_AMOUNT"),
        (Operation::Adjust(adjust("shop", Some(1), Some(-1))), "expected_version", "BAD_REQUEST"),
        (Operation::Reset(reset), "window", "BAD_REQUEST"),
    ];
    for (operation, field, expected) in table {
        let status = ask(&mut client, operation.clone()).await.expect_err(field);
        assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, expected), "{operation:?}");
        let violations = status.get_details_bad_request().expect("a BadRequest").field_violations;
        assert_eq!(violations.first().map(|violation| violation.field.as_str()), Some(field), "{operation:?}");
        // In a batch it refuses the whole: nothing is decided, and the place is named.
        let status = batch(&mut client, vec![consume("shop", "good", 500), operation], false).await.expect_err(field);
        let violations = status.get_details_bad_request().expect("a BadRequest").field_violations;
        let place = format!("operations[1].{field}");
        assert_eq!(violations.first().map(|violation| violation.field.as_str()), Some(place.as_str()));
    }
    let asked = GetAccountRequest { merchant_id: "shop".to_owned(), currency: usd() };
    let status = client.get_account(asked).await.expect_err("nothing was done");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::NotFound, "NOT_FOUND"));
    Ok(())
}

#[tokio::test]
async fn without_redis_the_answer_is_unavailable() -> Result<()> {
    let mut api = bench::start(&[])?;
    let mut client = bench::client(&api, &api.operator()?).await?;
    done(&mut client, consume("shop", "A", 1000)).await?;
    api.redis.kill()?;
    let status = ask(&mut client, consume("shop", "B", 1000)).await.expect_err("redis is gone");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"));
    assert!(!status.message().contains("127.0.0.1"), "{status:?}");
    let outcomes = batch(&mut client, vec![consume("shop", "B", 1000), consume("small", "B", 1000)], false).await?;
    for outcome in outcomes {
        let Outcome::Refusal(refusal) = outcome else { panic!("{outcome:?}") };
        assert_eq!((refusal.status, refusal.reason.as_str()), (14, "STORE_UNAVAILABLE"));
    }
    api.redis.restart()?;
    let again = done(&mut client, consume("shop", "A", 1000)).await?;
    assert!(again.replay, "{again:?}");
    Ok(())
}
