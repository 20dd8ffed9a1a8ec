//! What the usage log says of each operation: what was asked, by whom and why, and what it made of account and order.

use quota::{
    Action, Adjust, AmountMinor, AttemptId, Change, Command, CounterName, OnExpiry, OperationNo, PerPeriod, Period,
    Refund, Reset,
};
use serde_json::{Value, json};
use sluice_store::{AuditContext, Store};
use testkit::Result;

use crate::bench::{AT_MS, Bench, SHARDS};
use crate::engine::{Engine, consume, hold, refund, settle};

/// The columns that distinguish the operations; null ones are left out.
const ROWS: &str = "SELECT jsonb_strip_nulls(jsonb_build_object('action', action_type, 'code', code, 'order', order_no, \
        'amount', amount, 'capture', capture_no, 'refund', refund_no, 'id', operation_id IS NOT NULL, 'used', daily_used_after, \
        'refunded', daily_refunded_after, 'epoch', daily_epoch, 'pending', pending_after, 'ttl', order_ttl_secs, \
        'stands', CASE WHEN order_state IS NOT NULL THEN \
            (order_state, order_amount, order_settled, order_refunded)::text END, 'until', extract(epoch FROM hold_until)::bigint, \
        'ends', hold_on_expiry, 'counter', counter, 'change', change, 'expected', expected_version, \
        'suspended', extract(epoch FROM suspended_at)::bigint, 'operator', operator_type || ' ' || operator_id, \
        'reason', reason, 'remarks', remarks, 'metadata', metadata))::text FROM usage_log ORDER BY seq";

struct Script<'a> {
    engine: &'a Engine,
    at_ms: i64,
}

impl Script<'_> {
    async fn run(&mut self, order_no: &str, action: Action, attempt: &str, number: &str) -> Result<()> {
        self.at_ms += 1000;
        let command = Command {
            attempt: AttemptId::from_text(attempt),
            operation_no: Some(number).filter(|number| !number.is_empty()).map(OperationNo::parse).transpose()?,
            ..self.engine.command("m-1", order_no, action, self.at_ms)?
        };
        let audit = match action {
            Action::Adjust(_) | Action::Reset(_) | Action::Suspend => AuditContext {
                actor: "ada".into(),
                mode: "enforce",
                reason: "by hand".to_owned(),
                operator_type: "admin",
                remarks: "as agreed".to_owned(),
                metadata: "{\"ticket\": [7, \"é\"]}".to_owned(),
                ..AuditContext::default()
            },
            _ => AuditContext { actor: "proxy".into(), mode: "enforce", ..AuditContext::default() },
        };
        self.engine.store.apply(&command, &audit).await?;
        Ok(())
    }
}

/// What every row of the table has.
fn row(action: &str, code: &str, amount: u64, account: [u64; 4], more: Value) -> Value {
    let [used, refunded, epoch, pending] = account;
    let mut row = json!({
        "action": action, "code": code, "amount": amount, "id": false, "used": used, "refunded": refunded,
        "epoch": epoch, "pending": pending, "operator": "system proxy",
    });
    if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
        row.extend(more);
    }
    row
}

/// The same for an operation on an order.
fn on(order: &str, stands: &str, mut more: Value) -> Value {
    more["order"] = json!(order);
    more["ttl"] = json!(3600);
    if !stands.is_empty() {
        more["stands"] = json!(stands);
    }
    more
}

#[tokio::test]
async fn each_operation_is_recorded_in_full() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, journal) = (Engine::open(&bench)?, bench.journal("a")?);
    let mut script = Script { engine: &engine, at_ms: AT_MS };
    let reserve = |value, number| Action::Refund(Refund { reserve: true, ..refund(value, number) });
    let add = Change::Add(AmountMinor::new(3).unwrap_or_default());
    let adjust = Adjust { counter: CounterName::Amount(Period::Day), change: add, expected_version: None };
    let windows = PerPeriod { day: true, week: false, month: true, year: false };
    let reset = Reset { windows, expected_version: Some(99) };
    script.run("o-1", consume(100), "a", "").await?;
    script.run("o-1", reserve(20, "r-1"), "b", "r-1").await?;
    script.run("o-1", Action::Refund(refund(20, "r-1")), "c", "r-1").await?;
    script.run("o-2", hold(50, 60, OnExpiry::Settle), "a", "").await?;
    script.run("o-2", settle(30, "c-1", false), "b", "c-1").await?;
    script.run("o-2", Action::Release(refund(0, "r-2")), "c", "r-2").await?;
    script.run("o-9", Action::Void, "a", "").await?;
    script.run("", Action::Adjust(adjust), "a", "").await?;
    script.run("", Action::Reset(reset), "a", "").await?;
    script.run("", Action::Reset(Reset { expected_version: None, ..reset }), "a", "").await?;
    script.run("", Action::Suspend, "a", "").await?;
    script.run("", Action::Resume, "a", "").await?;
    bench.wait_until_drained(SHARDS).await?;

    let by_hand = |more: Value| {
        let mut members = json!({
            "operator": "admin ada", "reason": "by hand", "remarks": "as agreed", "metadata": {"ticket": [7, "é"]},
        });
        if let (Some(members), Value::Object(more)) = (members.as_object_mut(), more) {
            members.extend(more);
        }
        members
    };
    let held = |more: Value| {
        let mut more = more;
        more["until"] = json!(AT_MS / 1000 + 4 + 60);
        more
    };
    let expected = [
        row("consume", "ADMITTED", 100, [100, 0, 0, 0], on("o-1", "(charged,100,0,0)", json!({}))),
        row(
            "reserve_refund",
            "APPLIED",
            20,
            [100, 20, 0, 0],
            on("o-1", "(charged,100,0,20)", json!({"id": true, "refund": "r-1"})),
        ),
        row(
            "refund",
            "APPLIED",
            20,
            [80, 20, 0, 0],
            on("o-1", "(charged,100,0,20)", json!({"id": true, "refund": "r-1"})),
        ),
        row("hold", "ADMITTED", 50, [130, 20, 0, 50], on("o-2", "(held,50,0,0)", held(json!({"ends": "settle"})))),
        row(
            "settle",
            "APPLIED",
            30,
            [130, 20, 0, 20],
            on("o-2", "(held,50,30,0)", held(json!({"id": true, "capture": "c-1"}))),
        ),
        row(
            "release",
            "VOIDED",
            20,
            [110, 20, 0, 0],
            on("o-2", "(settled,50,30,0)", held(json!({"id": true, "refund": "r-2"}))),
        ),
        row("void", "ORDER_UNKNOWN", 0, [110, 20, 0, 0], on("o-9", "", json!({}))),
        row("adjust", "APPLIED", 3, [113, 20, 0, 0], by_hand(json!({"counter": "daily_used", "change": "add"}))),
        row("reset", "VERSION_CONFLICT", 0, [113, 20, 0, 0], by_hand(json!({"counter": "day,month", "expected": 99}))),
        row("reset", "APPLIED", 0, [0, 0, 1, 0], by_hand(json!({"counter": "day,month"}))),
        row("suspend", "APPLIED", 0, [0, 0, 1, 0], by_hand(json!({"suspended": AT_MS / 1000 + 11}))),
        row("resume", "APPLIED", 0, [0, 0, 1, 0], json!({})),
    ];
    let pool = bench.postgres.pool().await?;
    let rows: Vec<String> = sqlx::query_scalar(ROWS).fetch_all(&pool).await?;
    for (found, expected) in rows.iter().zip(&expected) {
        assert_eq!(&serde_json::from_str::<Value>(found)?, expected, "{}", expected["action"]);
    }
    assert_eq!(rows.len(), expected.len());
    journal.stop()
}
