//! Every operation once, and the account that they leave, as gRPC and as REST report it.

use proto::quota_v1::batch_operation::Operation;
use proto::quota_v1::{
    AdjustOperation, AdjustRequest, Counter, ExtendHoldRequest, GetAccountRequest, InitializeRequest,
    ListAccountsRequest, ListRightsRequest, OperationResponse, OrderState, RefundRequest, ReleaseRequest,
    ReleaseRightRequest, ResetRequest, ResetWindow, ResumeRequest, Right, SettleRequest, SuspendRequest, VoidRequest,
};
use serde_json::{Value, json};
use testkit::Result;
use testkit::checks::ask as ask_as_proxy;
use testkit::rights::ended_long_ago;
use tonic::Code;
use tonic_types::StatusExt;

use crate::bench::{self, Answer, ask, check, consume, done, hold, usd};
use crate::refusals::reason;

const MERCHANT: &str = "shop";

fn merchant() -> String {
    MERCHANT.to_owned()
}

fn settle(order_no: &str, amount: Option<i64>, capture_no: Option<&str>, r#final: Option<bool>) -> Operation {
    Operation::Settle(SettleRequest {
        merchant_id: merchant(),
        currency: usd(),
        order_no: order_no.to_owned(),
        amount,
        capture_no: capture_no.map(str::to_owned),
        r#final,
        ..SettleRequest::default()
    })
}

fn refund(order_no: &str, refund_no: &str, amount: Option<i64>) -> Operation {
    Operation::Refund(RefundRequest {
        merchant_id: merchant(),
        currency: usd(),
        order_no: order_no.to_owned(),
        refund_no: refund_no.to_owned(),
        amount,
        ..RefundRequest::default()
    })
}

fn void(order_no: &str) -> Operation {
    Operation::Void(VoidRequest {
        merchant_id: merchant(),
        currency: usd(),
        order_no: order_no.to_owned(),
        ..VoidRequest::default()
    })
}

fn release(order_no: &str) -> Operation {
    Operation::Release(ReleaseRequest {
        merchant_id: merchant(),
        currency: usd(),
        order_no: order_no.to_owned(),
        ..ReleaseRequest::default()
    })
}

/// Daily used, pending, refunded today, transactions today, and the order's state.
fn figures(answer: &OperationResponse) -> ([i64; 4], OrderState) {
    let counters = answer.counters.unwrap_or_default();
    let figures = [counters.daily_used, counters.pending_amount, counters.refunded_today, counters.transactions_today];
    (figures, answer.order.as_ref().map_or(OrderState::Unspecified, proto::quota_v1::Order::state))
}

#[tokio::test]
async fn each_operation_does_what_it_says_and_a_repetition_nothing() -> Result<()> {
    let api = bench::start(&[])?;
    let mut client = bench::client(&api, &api.operator()?).await?;
    let Ok(Answer::Check(before)) = ask(&mut client, check(MERCHANT, 5000)).await else { panic!("no check") };
    assert!(before.allowed);
    assert_eq!((before.remaining_daily, before.fits, before.code.as_str()), (Some(4_995_000), Some(1000), "ADMITTED"));
    assert_eq!(before.binding_limit.as_deref(), Some("daily_amount"));
    let limit = before.limits.iter().find(|limit| limit.name == "daily_amount").expect("the limit is reported");
    assert_eq!((limit.max, limit.used, limit.remaining), (5_000_000, 5000, 4_995_000));
    assert_eq!(limit.resets_at, before.resets_at);

    let open = [OrderState::Charged, OrderState::Held, OrderState::Settled, OrderState::Voided];
    let [charged, held, settled, voided] = open;
    let table = [
        (consume(MERCHANT, "A", 5000), "ADMITTED", [5000, 0, 0, 1], charged),
        (hold(MERCHANT, "B", 4000), "ADMITTED", [9000, 4000, 0, 2], held),
        (settle("B", Some(1500), Some("C-1"), Some(false)), "APPLIED", [9000, 2500, 0, 2], held),
        (settle("B", Some(2000), Some("C-2"), None), "APPLIED", [8500, 0, 0, 2], settled),
        (refund("B", "R-1", Some(500)), "APPLIED", [8000, 0, 500, 2], settled),
        (hold(MERCHANT, "C", 1000), "ADMITTED", [9000, 1000, 500, 3], held),
        (void("C"), "VOIDED", [8000, 0, 500, 2], voided),
        (release("A"), "APPLIED", [3000, 0, 5500, 2], charged),
    ];
    for (row, (operation, code, counters, state)) in table.into_iter().enumerate() {
        let first = done(&mut client, operation.clone()).await?;
        assert_eq!((first.code.as_str(), first.replay), (code, false), "row {row}: {first:?}");
        assert_eq!(figures(&first), (counters, state), "row {row}: {first:?}");
        assert_eq!((first.merchant_id.as_str(), first.policy_version.is_some()), (MERCHANT, true));
        let again = done(&mut client, operation).await?;
        assert!(again.replay, "row {row}: {again:?}");
        assert_eq!(figures(&again).0, counters, "row {row}");
        assert_eq!((again.decision_id, again.version), (first.decision_id, first.version), "row {row}");
    }
    let order = done(&mut client, hold(MERCHANT, "D", 700)).await?.order.expect("an order");
    assert!(order.hold_until.is_some_and(|until| until.seconds > 1_700_000_000), "{order:?}");
    let until = order.hold_until.map(|until| until.seconds + 3_600).unwrap_or_default();
    let extend = |seconds| {
        Operation::ExtendHold(ExtendHoldRequest {
            merchant_id: MERCHANT.to_owned(),
            currency: "USD".to_owned(),
            order_no: "D".to_owned(),
            hold_until: Some(prost_types::Timestamp { seconds, nanos: 0 }),
            ..ExtendHoldRequest::default()
        })
    };
    for replay in [false, true] {
        let extended = done(&mut client, extend(until)).await?;
        assert_eq!((extended.code.as_str(), extended.replay), ("APPLIED", replay), "{extended:?}");
        let order = extended.order.expect("an order");
        assert_eq!((order.state(), order.hold_until.map(|until| until.seconds)), (held, Some(until)));
    }
    let refused = bench::ask(&mut client, extend(1)).await.expect_err("a time that is over");
    assert_eq!(refused.code(), tonic::Code::InvalidArgument, "{refused:?}");
    done(&mut client, void("D")).await?;
    Ok(())
}

/// What an amount counts stands beside it, in answers and in the details of a refusal; it is absent where both are the same.
#[tokio::test]
async fn what_an_amount_counts_is_in_the_answers() -> Result<()> {
    let api = bench::start(&[])?;
    let mut client = bench::client(&api, &api.operator()?).await?;
    let Ok(Answer::Check(before)) = ask(&mut client, check("weighed", 1001)).await else { panic!("no check") };
    assert_eq!((before.counted_amount, before.remaining_daily, before.fits), (Some(501), Some(499), Some(1)));
    for replay in [false, true] {
        let consumed = done(&mut client, consume("weighed", "A", 1001)).await?;
        assert_eq!((consumed.amount, consumed.counted_amount, consumed.replay), (1001, Some(501), replay));
        assert_eq!(figures(&consumed).0[0], 501);
    }
    let refused = ask(&mut client, consume("weighed", "B", 1000)).await.expect_err("more than is left");
    let metadata = refused.get_details_error_info().expect("there is one").metadata;
    assert_eq!((reason(&refused).as_str(), metadata["counted_amount"].as_str()), ("DAILY_AMOUNT", "500"));
    assert_eq!(done(&mut client, consume(MERCHANT, "A", 1001)).await?.counted_amount, None);
    Ok(())
}

/// The policy of the stated channel, as its bounds on captures and refunds, holds for what is done with its orders.
#[tokio::test]
async fn operations_on_orders_are_under_their_channels_policy() -> Result<()> {
    let api = bench::start(&[])?;
    let mut client = bench::client(&api, &api.operator()?).await?;
    let (merchant_id, currency, channel) = ("by-channel".to_owned(), usd(), Some("wallet".to_owned()));
    for order_no in ["A", "B"] {
        done(&mut client, hold(&merchant_id, order_no, 1000)).await?;
    }
    let order_no = "A".to_owned();
    let settle = SettleRequest { merchant_id, currency, order_no, amount: Some(1100), ..SettleRequest::default() };
    let refused = ask(&mut client, Operation::Settle(settle.clone())).await.expect_err("more than the hold");
    assert_eq!(reason(&refused), "CAPTURE_EXCEEDS_HOLD");
    let settle = SettleRequest { channel, ..settle };
    assert_eq!(done(&mut client, Operation::Settle(settle.clone())).await?.amount, 1100);

    let SettleRequest { merchant_id, currency, order_no, channel, .. } = settle;
    let void = VoidRequest { merchant_id, currency, order_no: "B".to_owned(), channel, ..VoidRequest::default() };
    assert_eq!(done(&mut client, Operation::Void(void.clone())).await?.code, "VOIDED");
    let VoidRequest { merchant_id, currency, channel, .. } = void;
    let amount = Some(501);
    let refund_no = "R".to_owned();
    let refund =
        RefundRequest { merchant_id, currency, order_no, refund_no, amount, channel, ..RefundRequest::default() };
    let refused = ask(&mut client, Operation::Refund(refund.clone())).await.expect_err("more than the channel's day");
    assert_eq!(reason(&refused), "REFUND_DAILY");
    let RefundRequest { merchant_id, currency, order_no, channel, .. } = refund;
    let release = ReleaseRequest { merchant_id, currency, order_no, amount, channel, ..ReleaseRequest::default() };
    let refused = ask(&mut client, Operation::Release(release.clone())).await.expect_err("more than the channel's day");
    assert_eq!(reason(&refused), "REFUND_DAILY");
    let release = ReleaseRequest { channel: None, ..release };
    assert_eq!(done(&mut client, Operation::Release(release)).await?.amount, 501);
    Ok(())
}

#[tokio::test]
async fn accounts_are_changed_by_hand_and_reported_as_rest_reports_them() -> Result<()> {
    let api = bench::start(&[])?;
    let operator = api.operator()?;
    let mut client = bench::client(&api, &operator).await?;
    let version = done(&mut client, consume(MERCHANT, "A", 5000)).await?.version;
    let adjust = |operation: AdjustOperation, amount, expected_version| {
        Operation::Adjust(AdjustRequest {
            merchant_id: merchant(),
            currency: usd(),
            counter: Counter::DailyUsed.into(),
            operation: operation.into(),
            amount: Some(amount),
            reason: "a test".to_owned(),
            expected_version,
            ..AdjustRequest::default()
        })
    };
    let changed = done(&mut client, adjust(AdjustOperation::Add, 300, Some(version))).await?;
    assert_eq!((figures(&changed).0[0], changed.version), (5300, version + 1));
    assert_eq!(figures(&done(&mut client, adjust(AdjustOperation::Subtract, 100, None)).await?).0[0], 5200);
    assert_eq!(figures(&done(&mut client, adjust(AdjustOperation::Set, 0, None)).await?).0[0], 0);

    let suspend = SuspendRequest { merchant_id: merchant(), currency: Some(usd()), reason: "a look".to_owned() };
    assert!(done(&mut client, Operation::Suspend(suspend)).await?.is_suspended);
    let asked = GetAccountRequest { merchant_id: merchant(), currency: usd() };
    let account = client.get_account(asked.clone()).await?.into_inner();
    assert!(account.is_suspended && account.suspended_at.is_some(), "{account:?}");
    let resume = ResumeRequest { merchant_id: merchant(), currency: Some(usd()), reason: "seen".to_owned() };
    assert!(!done(&mut client, Operation::Resume(resume)).await?.is_suspended);

    let initialize = InitializeRequest { merchant_id: merchant(), currency: "JPY".to_owned() };
    done(&mut client, Operation::Initialize(initialize)).await?;
    done(&mut client, consume(MERCHANT, "B", 700)).await?;
    let account = client.get_account(asked.clone()).await?.into_inner();
    let rest = operator.get("/quotas/merchant/shop/currency/USD").await?.json();
    let counters = account.counters.unwrap_or_default();
    for (name, value) in [
        ("daily_used", counters.daily_used),
        ("monthly_used", counters.monthly_used),
        ("yearly_used", counters.yearly_used),
        ("transactions_today", counters.transactions_today),
        ("version", account.version),
    ] {
        assert_eq!(rest[name].as_i64(), Some(value), "{name}: {rest}");
    }
    assert_eq!((counters.daily_used, counters.monthly_used), (700, 5700));
    assert_eq!(rest["policy_version"].as_str(), account.policy_version.as_deref());
    assert!(account.daily_reset_at.is_some() && account.limits.len() == 1, "{account:?}");
    let list = client.list_accounts(ListAccountsRequest { merchant_id: merchant() }).await?.into_inner().accounts;
    let mut currencies: Vec<_> = list.iter().map(|account| account.currency.as_str()).collect();
    currencies.sort_unstable();
    assert_eq!(currencies, ["JPY", "USD"]);
    let none = client.list_accounts(ListAccountsRequest { merchant_id: "unknown".to_owned() }).await?.into_inner();
    assert!(none.accounts.is_empty());

    let reset = ResetRequest {
        merchant_id: merchant(),
        currency: usd(),
        window: ResetWindow::All.into(),
        reason: "a new start".to_owned(),
        ..ResetRequest::default()
    };
    assert_eq!(figures(&done(&mut client, Operation::Reset(reset)).await?).0, [0, 0, 0, 0]);
    let counters = client.get_account(asked).await?.into_inner().counters.unwrap_or_default();
    assert_eq!((counters.monthly_used, counters.yearly_used), (0, 0));
    Ok(())
}

/// A right as REST has it.
fn as_in_rest(right: &Right) -> Value {
    let until = right.until.unwrap_or_default();
    let until = chrono::DateTime::from_timestamp(until.seconds, u32::try_from(until.nanos).unwrap_or_default());
    json!({"right_id": right.right_id, "merchant_id": right.merchant_id, "currency": right.currency,
        "granted_amount": right.granted_amount, "granted_count": right.granted_count, "left_amount": right.left_amount,
        "left_count": right.left_count, "until": until, "orphaned": right.orphaned, "decision_id": right.decision_id,
        "day": right.day})
}

#[tokio::test]
async fn rights_are_listed_as_rest_lists_them_and_released_when_they_are_over() -> Result<()> {
    let api = bench::start(&[])?;
    let operator = api.operator()?;
    let mut client = bench::client(&api, &operator).await?;
    let rights = [("trusted", 1), ("briefly-trusted", 2)].map(|(merchant, id)| (merchant, uuid::Uuid::from_u128(id)));
    for (merchant, id) in &rights {
        let attempt = id.simple().to_string();
        let fields = [
            ("action", "consume"),
            ("merchant", merchant),
            ("currency", "USD"),
            ("order_no", "A"),
            ("attempt", &attempt),
            ("amount_minor", "100"),
            ("right_wanted", "5 5000"),
        ];
        assert_eq!(ask_as_proxy(api.server.grpc_address(), &fields).await?, "ADMITTED");
    }
    let of =
        |merchant: &str| ListRightsRequest { merchant_id: Some(merchant.to_owned()), ..ListRightsRequest::default() };
    let eur = ListRightsRequest { currency: Some("EUR".to_owned()), ..ListRightsRequest::default() };
    let lost = ListRightsRequest { orphaned: Some(true), ..ListRightsRequest::default() };
    let one = ListRightsRequest { limit: Some(1), ..ListRightsRequest::default() };
    for (request, query, count) in [
        (ListRightsRequest::default(), "", 2),
        (of("trusted"), "?merchant_id=trusted", 1),
        (eur, "?currency=EUR", 0),
        (lost, "?orphaned=true", 0),
        (one.clone(), "?limit=1", 1),
    ] {
        let page = client.list_rights(request).await?.into_inner();
        let rest = operator.get(&format!("/rights{query}")).await?.json();
        let items: Vec<Value> = page.items.iter().map(as_in_rest).collect();
        assert_eq!((items.len(), json!(items)), (count, rest["items"].clone()), "{query}");
        assert_eq!(page.next_cursor.as_deref(), rest["next_cursor"].as_str(), "{query}");
    }
    let first = client.list_rights(one.clone()).await?.into_inner();
    let next = ListRightsRequest { cursor: first.next_cursor.clone(), ..ListRightsRequest::default() };
    let second = client.list_rights(next).await?.into_inner();
    assert_eq!((first.items.len(), second.items.len(), second.next_cursor), (1, 1, None));
    assert_ne!(first.items, second.items);
    for refused in [
        ListRightsRequest { limit: Some(-1), ..one.clone() },
        ListRightsRequest { limit: Some(501), ..one.clone() },
        ListRightsRequest { cursor: Some("e30".to_owned()), ..one },
    ] {
        let status = client.list_rights(refused).await.expect_err("it is invalid");
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    }

    let release = |(merchant, id): &(&str, uuid::Uuid)| {
        Operation::ReleaseRight(ReleaseRightRequest {
            merchant_id: (*merchant).to_owned(),
            currency: usd(),
            right_id: id.to_string(),
            reason: "a test".to_owned(),
        })
    };
    let in_use = ask(&mut client, release(&rights[0])).await.expect_err("it is in use");
    assert_eq!((in_use.code(), reason(&in_use).as_str()), (Code::FailedPrecondition, "RIGHT_IN_USE"));
    let brief = release(&rights[1]);
    ended_long_ago(&api.redis, rights[1].0, &rights[1].1.to_string()).await?;
    let Answer::Operation(over) = ask(&mut client, brief.clone()).await.expect("it is over") else { panic!("a check") };
    assert_eq!((figures(&over).0, over.amount, over.replay), ([100, 0, 0, 1], 5000, false));
    let again = done(&mut client, brief).await?;
    assert_eq!((figures(&again).0, again.replay), ([100, 0, 0, 1], true));
    assert!(client.list_rights(of("briefly-trusted")).await?.into_inner().items.is_empty());
    Ok(())
}
