use uuid::Uuid;

use super::*;
use crate::reply::StreamId;
use sluice_kit::database::row::Json;

fn context() -> EventContext {
    EventContext {
        event_id: vec![7; 16],
        at_ms: 1_795_000_000_000,
        action: "consume".into(),
        merchant: "m".into(),
        currency: "USD".into(),
        amount_minor: 50,
        order_no: "o".into(),
        actor: "proxy".into(),
        mode: "enforce".into(),
        attempt: vec![9; 16],
        ..EventContext::default()
    }
}

/// An admitted hold of 50 as the first of its windows, of which the month was reset twice.
fn record() -> Vec<u8> {
    record_with(12, 9)
}

/// The same as a server of the release before made it.
fn previous_record() -> Vec<u8> {
    record_with(7, 6)
}

/// The same on a credit line that had a balance of 20.
fn record_on_credit() -> Vec<u8> {
    let mut bytes = record_with(12, 13);
    numbers(&mut bytes, &[-20.0, 0.0]);
    bytes
}

fn record_with(format: u8, version: u8) -> Vec<u8> {
    let mut bytes = vec![format, 0, CHANGED, 2];
    bytes.extend_from_slice(&1_795_003_600_u32.to_le_bytes());
    let order = [50.0, 0.0, 0.0];
    numbers(&mut bytes, &[50.0, 120.0]);
    numbers(&mut bytes, &order);
    account(&mut bytes, version, 50.0);
    for before in [0.0, 0.0, 7.0].repeat(4) {
        numbers(&mut bytes, &[before]);
    }
    numbers(&mut bytes, &[0.0]);
    bytes
}

/// The flag of a record that ends with the usage before.
const CHANGED: u8 = 2;

/// An account whose one charge was of 50, with so much pending; of version 13 it has a credit line.
fn account(bytes: &mut Vec<u8>, version: u8, pending: f64) {
    bytes.push(version);
    bytes.extend_from_slice(&20_261_121_u32.to_le_bytes());
    bytes.extend_from_slice(&20_261_116_u32.to_le_bytes());
    bytes.extend_from_slice(&[0, 1, 2, 0, 0]);
    // One threshold of the day's amount is reached.
    numbers(bytes, &[f64::from(0x1000)]);
    bytes.extend_from_slice(&7_u16.to_le_bytes());
    numbers(bytes, &[50.0, 1.0].repeat(4));
    numbers(bytes, &[3.0]);
    if version == 13 {
        bytes.extend_from_slice(&20_261_101_u32.to_le_bytes());
        numbers(bytes, &[30.0, 0.0]);
    }
    numbers(bytes, &[7.0, 7.0, 7.0, 7.0, pending, 0.0, 0.0]);
}

fn numbers(bytes: &mut Vec<u8>, numbers: &[f64]) {
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
}

fn entry(context: &EventContext, record: Vec<u8>) -> Entry {
    let fields = vec![b"c".to_vec(), context.encode_to_vec(), b"d".to_vec(), record];
    Entry { shard: 5, id: StreamId::of(12), fields }
}

fn row(context: &EventContext) -> Row {
    Batch::read(vec![entry(context, record())]).events.remove(0).row
}

#[test]
fn an_event_becomes_a_row() {
    let batch = Batch::read(vec![entry(&context(), record())]);
    let row = &batch.events[0].row;
    assert_eq!((row.shard, row.seq, row.code, row.success, row.replay), (5, 12, "ADMITTED", true, false));
    assert_eq!((row.daily_window, row.daily_used_after, row.yearly_count_after), (20_261_121, 50, 1));
    assert_eq!((row.daily_epoch, row.monthly_epoch, row.yearly_refunded_after), (0, 2, 7));
    assert_eq!((row.weekly_window, row.weekly_epoch), (20_261_116, 1));
    assert_eq!((row.weekly_used_after, row.weekly_count_after, row.weekly_refunded_after), (50, 1, 7));
    assert_eq!((row.account_version, row.operator_type, row.payment_no.clone()), (3, "system", None));
    assert_eq!((row.pending_before, row.pending_after, row.amount, row.wait_ms), (0, 50, 50, 120));
    assert_eq!((row.order_state, row.order_amount, row.order_settled), (Some("held"), Some(50), Some(0)));
    assert_eq!(row.hold_until.map(|until| until.timestamp()), Some(1_795_003_600));
    assert_eq!((row.suspended_at, row.order_ttl_secs), (None, None));
    assert_eq!((row.attempt, row.failure_reason), (Some(Uuid::from_bytes([9; 16])), None));
    assert!(batch.events[0].changes_account && batch.events[0].closed.windows.is_empty());
    assert_eq!(
        (batch.events[0].record.levels.by_limit, &batch.events[0].crossing),
        ([0, 0, 0, 1, 0, 0, 0, 0, 0], &None)
    );
    assert_eq!(batch.oldest(), Some(row.at));
}

/// The account that a plain charge left shows what the charge did.
#[test]
fn a_plain_charge_becomes_a_row() {
    let mut bytes = Vec::new();
    account(&mut bytes, 9, 20.0);
    let batch = Batch::read(vec![entry(&context(), bytes)]);
    let row = &batch.events[0].row;
    assert_eq!((row.code, row.success, row.amount, row.account_version), ("ADMITTED", true, 50, 3));
    assert_eq!((row.daily_used_before, row.daily_used_after), (0, 50));
    assert_eq!((row.yearly_count_before, row.yearly_count_after, row.monthly_refunded_before), (0, 1, 7));
    assert_eq!(
        (row.order_state, row.order_amount, row.pending_before, row.pending_after),
        (Some("charged"), Some(50), 20, 20)
    );
    assert!(batch.events[0].changes_account);
}

#[test]
fn the_callers_words_stand_in_the_row() {
    let context = EventContext {
        action: "refund".into(),
        operation_no: "r-1".into(),
        operation_id: vec![4; 16],
        operator_type: "api".into(),
        remarks: "by phone".into(),
        metadata: r#"{"ticket": 7}"#.into(),
        order_ttl_secs: 3600,
        expected_version: Some(0),
        ..context()
    };
    let refund = row(&context);
    assert_eq!((refund.refund_no.as_deref(), refund.capture_no.as_deref()), (Some("r-1"), None));
    assert_eq!((refund.operation_id, refund.operator_type), (Some(Uuid::from_bytes([4; 16])), "api"));
    assert_eq!((refund.remarks.as_deref(), refund.metadata), (Some("by phone"), Some(Json(r#"{"ticket": 7}"#.into()))));
    assert_eq!((refund.order_ttl_secs, refund.expected_version), (Some(3600), Some(0)));
    let capture = row(&EventContext { action: "settle".into(), ..context });
    assert_eq!((capture.refund_no.as_deref(), capture.capture_no.as_deref()), (None, Some("r-1")));
}

#[test]
fn who_asked_is_told_by_the_context_or_by_the_actor() {
    let table = [
        ("", "proxy", "system"),
        ("", "system:expiry", "system"),
        ("", "admin:ada", "admin"),
        ("", "billing", "api"),
        ("admin", "ada", "admin"),
        ("api", "admin:ada", "api"),
    ];
    for (named, actor, expected) in table {
        let row = row(&EventContext { operator_type: named.into(), actor: actor.into(), ..context() });
        assert_eq!(row.operator_type, expected, "{named:?} {actor}");
    }
}

/// A command about the account alone names no order and no attempt.
#[test]
fn an_account_has_rows_without_an_order() {
    let row = row(&EventContext { order_no: String::new(), attempt: Vec::new(), ..context() });
    assert_eq!((row.order_no, row.attempt), (None, None));
}

#[test]
fn closed_windows_come_with_their_event() {
    let mut closing = entry(&context(), record());
    let mut closed = vec![1];
    closed.extend_from_slice(&202_610_u32.to_le_bytes());
    closed.push(3);
    for number in [900.0_f64, 9.0, 40.0] {
        closed.extend_from_slice(&number.to_le_bytes());
    }
    closing.fields.extend([b"w".to_vec(), closed]);
    let batch = Batch::read(vec![closing]);
    let window = &batch.events[0].closed.windows[0];
    assert_eq!((window.period, window.counter.id, window.counter.epoch), (quota::Period::Month, 202_610, 3));
    assert_eq!((window.counter.amount, window.counter.count, window.counter.refunded), (900, 9, 40));
}

/// During a rolling upgrade, and from before it.
#[test]
fn an_event_of_the_release_before_becomes_the_same_row() {
    let batch = Batch::read(vec![entry(&context(), previous_record())]);
    assert_eq!(format!("{:?}", batch.events[0].row), format!("{:?}", row(&context())));
}

/// A row shows what the command did to the exposure; a posting's number is not an order's.
#[test]
fn rows_on_a_credit_line_have_its_exposure() {
    let exposure = |row: &Row| (row.exposure_before, row.exposure_after, row.unbilled_before, row.unbilled_after);
    let none = row(&context());
    assert_eq!((none.credit_cycle, exposure(&none)), (None, (None, None, None, None)));
    let held = Batch::read(vec![entry(&context(), record_on_credit())]).events.remove(0).row;
    assert_eq!((held.credit_cycle, exposure(&held)), (Some(20_261_101), (Some(-20), Some(30), Some(0), Some(0))));
    assert_eq!((held.order_no.as_deref(), held.posting_no), (Some("o"), None));
    let posted = EventContext { action: "repayment".into(), ..context() };
    let posted = Batch::read(vec![entry(&posted, record_on_credit())]).events.remove(0).row;
    assert_eq!((posted.order_no, posted.posting_no.as_deref()), (None, Some("o")));
}

/// A billing cycle closes as windows do.
#[test]
fn closed_cycles_come_with_their_event() {
    let mut closing = entry(&context(), record_on_credit());
    let mut closed = vec![4];
    closed.extend_from_slice(&20_261_001_u32.to_le_bytes());
    closed.push(0);
    numbers(&mut closed, &[900.0, 0.0, 0.0]);
    closing.fields.extend([b"w".to_vec(), closed]);
    let batch = Batch::read(vec![closing]);
    let cycle = batch.events[0].closed.cycle;
    assert_eq!(cycle, Some(quota::ClosedCycle { cycle: 20_261_001, amount: 900 }));
    assert!(batch.events[0].closed.windows.is_empty());
}

#[test]
fn crossed_thresholds_come_with_their_event() {
    let policy = quota::ThresholdPolicy::of([quota::AmountMinor::new(60).unwrap(); 9], quota::Thresholds::DEFAULT);
    let mut crossed = Vec::new();
    for (levels, list) in [(0.0_f64, 0_u16), (f64::from(0x1000), policy.thresholds().list())] {
        crossed.extend_from_slice(&levels.to_le_bytes());
        crossed.extend_from_slice(&list.to_le_bytes());
    }
    packed::threshold_policy(&mut crossed, &policy);
    let mut crossing = entry(&context(), record());
    crossing.fields.extend([b"w".to_vec(), Vec::new(), b"a".to_vec(), crossed]);
    let batch = Batch::read(vec![crossing]);
    let crossing = batch.events[0].crossing.as_ref().unwrap();
    assert_eq!(
        (crossing.before.is_empty(), crossing.after.by_limit, crossing.threshold_policy),
        (true, [0, 0, 0, 1, 0, 0, 0, 0, 0], policy)
    );
}

/// A refusal has the account as of its own windows, a repetition as it was: neither changes it.
#[test]
fn only_changes_change_the_account() {
    for (code, replay, changes) in
        [(0, 0, true), (0, 1, false), (1, 0, true), (2, 0, false), (3, 0, false), (4, 0, true), (33, 0, false)]
    {
        let mut bytes = record();
        (bytes[1], bytes[2]) = (code, CHANGED + replay);
        let batch = Batch::read(vec![entry(&context(), bytes)]);
        assert_eq!(batch.events[0].changes_account, changes, "code {code}, replay {replay}");
    }
}

#[test]
fn what_cannot_be_a_row_is_rejected_with_the_field() {
    type Change = fn(&mut EventContext);
    let table: &[(Change, &str)] = &[
        (|c| c.event_id = vec![1], "event_id"),
        (|c| c.at_ms = 0, "at_ms"),
        (|c| c.at_ms = i64::MAX, "at_ms"),
        (|c| c.action.clear(), "action"),
        (|c| c.merchant.push('\0'), "merchant"),
        (|c| c.currency = "US".into(), "currency"),
        (|c| c.attempt = vec![1], "attempt"),
        (|c| c.operation_id = vec![1], "operation_id"),
        (|c| c.operator_type = "root".into(), "operator_type"),
        (|c| c.metadata = "{".into(), "metadata"),
        (|c| c.policy_refusal = "{".into(), "policy_refusal"),
        (|c| c.remarks = "\0".into(), "remarks"),
        (|c| c.expected_version = Some(u64::MAX), "expected_version"),
    ];
    for (change, field) in table {
        let mut context = context();
        change(&mut context);
        let batch = Batch::read(vec![entry(&context, record())]);
        assert!(batch.rejected[0].reason.starts_with(field), "{field}: {}", batch.rejected[0].reason);
    }
    let mut strange = entry(&context(), record());
    strange.id = StreamId { first: 5, second: 1 };
    let mut torn = entry(&context(), record());
    torn.fields.truncate(2);
    let garbage = entry(&context(), vec![1, 2, 3]);
    let mut windows = entry(&context(), record());
    windows.fields.extend([b"w".to_vec(), vec![9]]);
    let mut crossed = entry(&context(), record());
    crossed.fields.extend([b"a".to_vec(), vec![9]]);
    let entries = vec![strange, torn, garbage, windows, crossed];
    let reasons: Vec<_> = Batch::read(entries).rejected.into_iter().map(|r| r.reason).collect();
    assert!(reasons[0].starts_with("id:") && reasons[1].starts_with("field d: absent"), "{reasons:?}");
    assert!(reasons[2].starts_with("field d:") && reasons[3].starts_with("field w:"), "{reasons:?}");
    assert!(reasons[4].starts_with("field a:"), "{reasons:?}");
}
