use prost::Message as _;
use proto::RefusalDetails;
use proto::journal::EventContext;
use quota::{
    Adjust, AttemptId, Calendar, Charge, CounterName, Currency, Effect, HoldTerms, Limits, MerchantId, Period, Refund,
    Thresholds,
};

use super::*;
use sluice_kit::telemetry::Trace;

fn command(action: Action) -> Command {
    let now_ms = 1_795_296_600_000;
    Command {
        merchant: MerchantId::parse("m-1").unwrap(),
        currency: Currency::parse("USD").unwrap(),
        order_no: Some(OrderNo::parse("order-1").unwrap()),
        attempt: AttemptId([7; 16]),
        action,
        effect: Effect::Commit,
        decision_id: [9; 16],
        now_ms,
        windows: Calendar::UTC.windows_at(now_ms),
        order_ttl_secs: 604_800,
        backlog_max: 100_000,
        threshold_policy: None,
        credit: None,
        history: None,
        payment_no: Some(PaymentNo::parse("pay-1").unwrap()),
        operation_no: Some(OperationNo::parse("refund-1").unwrap()),
        channel: Some(Channel::parse("card").unwrap()),
    }
}

fn charge() -> Charge {
    Charge {
        amount: AmountMinor::new(1_000).unwrap(),
        weight: quota::Weight::AMOUNT,
        limits: Limits::UNLIMITED,
        refusal: None,
        pace: None,
        replays_max: None,
        refuse_unknown_credit: false,
    }
}

fn notes() -> AuditContext {
    AuditContext {
        actor: "proxy".into(),
        mode: "enforce",
        policy_version: "v7".into(),
        trace: Trace::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        reason: "upstream_5xx".to_owned(),
        operator_type: "api",
        remarks: "ünïcode".to_owned(),
        metadata: "x".repeat(300),
        refusal: Some(Box::new(RefusalDetails { single_max: Some(7), ..RefusalDetails::default() })),
        credit: Some(CreditContext {
            limit: 9_000,
            stage: "watch".into(),
            days_past_due: 7,
            oldest_due_day: Some(20_261_114),
            amount_to_cure: 400,
            read_at_ms: None,
            thresholds: Thresholds::new([70, 90, 1_000]).unwrap(),
        }),
        value_day: Some(20_261_129),
    }
}

fn read(command: &Command, audit: &AuditContext) -> EventContext {
    let mut bytes = Vec::new();
    encode(&mut bytes, command, audit);
    let context = EventContext::decode(bytes.as_slice()).unwrap();
    // Not one byte more or less than the message has.
    assert_eq!(context.encode_to_vec(), bytes);
    context
}

#[test]
fn a_payment_is_told_in_full() {
    let expected = EventContext {
        event_id: vec![9; 16],
        at_ms: 1_795_296_600_000,
        action: "consume".to_owned(),
        merchant: "m-1".to_owned(),
        currency: "USD".to_owned(),
        amount_minor: 1_000,
        order_no: "order-1".to_owned(),
        payment_no: "pay-1".to_owned(),
        channel: "card".to_owned(),
        attempt: vec![7; 16],
        actor: "proxy".into(),
        policy_version: "v7".into(),
        mode: "enforce".to_owned(),
        trace_id: "0af7651916cd43dd8448eb211c80319c".to_owned(),
        reason: "upstream_5xx".to_owned(),
        operation_no: "refund-1".to_owned(),
        operator_type: "api".to_owned(),
        remarks: "ünïcode".to_owned(),
        metadata: "x".repeat(300),
        order_ttl_secs: 604_800,
        policy_refusal: "{\"single_max\":7}".to_owned(),
        credit: Some(proto::journal::CreditContext {
            limit: 9_000,
            stage: "watch".to_owned(),
            days_past_due: 7,
            oldest_due_day: 20_261_114,
            amount_to_cure: 400,
            read_at_ms: 0,
            threshold_percents: vec![70, 90, 1_000],
        }),
        value_day: 20_261_129,
        ..EventContext::default()
    };
    assert_eq!(read(&command(Action::Consume(charge())), &notes()), expected);
}

#[test]
fn what_is_not_there_is_left_out() {
    let mut bare = command(Action::Suspend);
    bare.order_no = None;
    bare.payment_no = None;
    bare.operation_no = None;
    bare.channel = None;
    bare.now_ms = -1;
    let expected = EventContext {
        event_id: vec![9; 16],
        at_ms: -1,
        action: "suspend".to_owned(),
        merchant: "m-1".to_owned(),
        currency: "USD".to_owned(),
        ..EventContext::default()
    };
    assert_eq!(read(&bare, &AuditContext::default()), expected);
    // A command about a merchant as a whole has no currency.
    let merchant = Command { action: Action::SuspendMerchant, currency: Currency::NONE, ..bare };
    let action = "suspend_merchant".to_owned();
    assert_eq!(read(&merchant, &AuditContext::default()), EventContext { action, currency: String::new(), ..expected });
    let sweep = Command { attempt: NO_ATTEMPT, ..command(Action::Expire) };
    assert!(read(&sweep, &notes()).attempt.is_empty());
}

#[test]
fn actions_are_told_apart() {
    let terms = HoldTerms { lifetime_secs: 60, on_expiry: OnExpiry::Settle };
    assert_eq!(read(&command(Action::Hold(charge(), terms)), &notes()).hold_on_expiry, "settle");
    let refund = Refund {
        amount: None,
        id: OperationId([5; 16]),
        daily_max: AmountMinor::MAX,
        monthly_max: AmountMinor::MAX,
        reserve: true,
    };
    let release = read(&command(Action::Release(refund)), &notes());
    assert_eq!((release.action.as_str(), release.operation_id), ("reserve_refund", vec![5; 16]));
    let adjust = Adjust {
        counter: CounterName::Refunded(Period::Month),
        change: Change::Subtract(AmountMinor::ZERO),
        expected_version: Some(0),
    };
    let adjusted = read(&command(Action::Adjust(adjust)), &notes());
    assert_eq!((adjusted.counter.as_str(), adjusted.change.as_str()), ("refunded_month", "subtract"));
    assert_eq!(adjusted.expected_version, Some(0));
    let reset =
        Reset { windows: quota::PerPeriod { day: true, week: true, month: false, year: true }, expected_version: None };
    let reset = read(&command(Action::Reset(reset)), &notes());
    assert_eq!((reset.counter.as_str(), reset.expected_version), ("day,week,year", None));
}
