//! Rows are copied where they are new and inserted one by one where some are there already: both must say the same.

use prost::Message;
use proto::journal::EventContext;
use quota::{Code, CreditRecord, OrderState, OrderSummary, PerPeriod, Record, Weighed, Weight, WindowUsage};
use sluice_journal::event::Batch;
use sluice_journal::postgres::UsageLog;
use sluice_journal::reply::{Entry, StreamId};
use sluice_settings::Secret;
use testkit::Result;

use crate::bench::{AT_MS, Bench, admitted, event, pack};

/// A hold of which every column has a value of its own.
fn full(number: u64) -> Entry {
    let window = |id, first| WindowUsage {
        id,
        epoch: 3,
        amount_before: first,
        amount_after: first + 1,
        count_before: first + 2,
        count_after: first + 3,
        refunded_before: first + 4,
        refunded_after: first + 5,
    };
    let record = Record {
        replay: true,
        windows: PerPeriod {
            day: window(20_261_120, 100),
            week: window(20_261_116, 150),
            month: window(202_611, 200),
            year: window(2026, 300),
        },
        pending_before: 400,
        pending_after: 401,
        amount: 402,
        weighed: Weight::share(9_999).map(|weight| Weighed { weight, counted: 410 }),
        wait_ms: 403,
        order: OrderSummary {
            state: OrderState::Held,
            hold_until_secs: 1_795_139_999,
            amount: 404,
            settled: 405,
            refunded: 406,
        },
        suspended_at_ms: 1_795_139_111_222,
        version: 407,
        credit: Some(CreditRecord {
            cycle: 20_261_101,
            exposure_before: -500,
            exposure_after: 501,
            unbilled_before: 502,
            unbilled_after: 503,
        }),
        ..Record::bare(Code::AboveSingleMax)
    };
    let text = |name: &str| format!("{name} «ü\\\"\n\t»");
    let context = EventContext {
        action: "refund".to_owned(),
        payment_no: text("payment"),
        channel: text("channel"),
        policy_version: text("policy"),
        mode: "shadow".to_owned(),
        trace_id: "4bf92f3577b34da6a3ce929d0e0e4736".to_owned(),
        reason: text("reason"),
        operation_no: text("operation"),
        operation_id: vec![5; 16],
        operator_type: "api".to_owned(),
        remarks: text("remarks"),
        metadata: r#"{"a": [1, 2.50, null, "ü"], "b": {"c": 1e3}}"#.to_owned(),
        counter: text("counter"),
        change: text("change"),
        expected_version: Some(u64::from(u32::MAX)),
        hold_on_expiry: "settle".to_owned(),
        order_ttl_secs: 604_800,
        policy_refusal: r#"{"single_max": 408}"#.to_owned(),
        right_id: vec![6; 16],
        ..event(number)
    };
    let mut entry = entry(number, context, pack(&record));
    let windows = [20_261_119_u32, 20_261_116].map(u32::to_le_bytes).concat();
    entry.fields.extend([b"o".to_vec(), [windows, vec![1; 4]].concat()]);
    entry
}

fn bare(number: u64) -> Entry {
    entry(
        number,
        EventContext { currency: String::new(), order_no: String::new(), attempt: vec![], ..event(number) },
        admitted(1),
    )
}

fn entry(number: u64, context: EventContext, record: Vec<u8>) -> Entry {
    let fields = vec![b"c".to_vec(), context.encode_to_vec(), b"d".to_vec(), record];
    Entry { shard: 0, id: StreamId::of(number), fields }
}

#[tokio::test]
async fn a_copied_row_says_what_an_inserted_one_does() -> Result<()> {
    let bench = Bench::start()?;
    let mut log = UsageLog::new(&Secret::new(bench.postgres.url()))?;
    for copied in [vec![full(1), bare(2)], vec![bare(3)]] {
        let events = copied.len() as u64;
        assert_eq!(log.store_events(&Batch::read(copied)).await?.rows, events);
    }
    let again = log.store_events(&Batch::read(vec![full(1), full(11), bare(12), bare(13)])).await?;
    assert_eq!((again.rows, again.duplicates, again.rejected), (3, 1, 0));

    let pool = bench.postgres.pool().await?;
    let differences: Vec<(i64, String)> = sqlx::query_as(
        "WITH said AS (SELECT seq, key, value FROM usage_log, jsonb_each(to_jsonb(usage_log)) \
            WHERE key NOT IN ('seq', 'event_id', 'order_no', 'stored_at', 'stored_txid')) \
         SELECT one.seq, one.key FROM said AS one JOIN said AS other ON other.seq = one.seq + 10 AND other.key = one.key \
         WHERE one.value IS DISTINCT FROM other.value",
    )
    .fetch_all(&pool)
    .await?;
    assert_eq!(differences, []);
    let empty: Vec<String> = sqlx::query_scalar(
        "SELECT key FROM usage_log, jsonb_each(to_jsonb(usage_log)) WHERE seq = 1 AND value IN ('null', '0', '\"\"') ORDER BY key",
    )
    .fetch_all(&pool)
    .await?;
    // A weight is a share or a price.
    let left = ["capture_no", "posting_no", "shard", "units_per_payment"];
    assert_eq!(empty, left, "a column that the full row leaves empty is not compared");
    // What a copy leaves out is null, and not a default.
    let defaults: Vec<String> = sqlx::query_scalar(
        "SELECT attname::text FROM pg_attribute JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum \
         WHERE attrelid = 'usage_log'::regclass AND NOT attnotnull AND attname <> 'stored_txid'",
    )
    .fetch_all(&pool)
    .await?;
    assert_eq!(defaults, [""; 0], "null is copied as the default");
    let moment = "SELECT count(*) FROM usage_log WHERE at = to_timestamp($1::bigint / 1000)";
    let at: i64 = sqlx::query_scalar(moment).bind(AT_MS).fetch_one(&pool).await?;
    assert_eq!(at, 6);
    Ok(())
}

/// A batch around the turn of a month goes into two partitions, or into none.
#[tokio::test]
async fn a_batch_of_two_months_is_copied_into_both() -> Result<()> {
    let bench = Bench::start()?;
    let mut log = UsageLog::new(&Secret::new(bench.postgres.url()))?;
    let month_ms = 30 * 86_400_000;
    let at = |number, at_ms| entry(number, EventContext { at_ms, ..event(number) }, admitted(1));
    let batch = |first| {
        let entries = (first..first + 600).map(|number| at(number, AT_MS + (number % 2) as i64 * month_ms));
        Batch::read(entries.collect())
    };
    assert_eq!(log.store(&batch(1)).await?.rows, 600);
    assert_eq!(bench.count("SELECT count(*) FROM usage_log_2026_11").await?, 300);
    assert_eq!(bench.count("SELECT count(*) FROM usage_log_2026_12").await?, 300);
    // The second month's partition is gone before its rows come: they wait for it, and the first month's with them.
    sqlx::raw_sql("ALTER TABLE usage_log DETACH PARTITION usage_log_2026_12")
        .execute(&bench.postgres.pool().await?)
        .await?;
    assert!(log.store(&batch(1001)).await.is_err());
    assert_eq!(bench.count("SELECT count(*) FROM usage_log_2026_11").await?, 300);
    assert_eq!(bench.count("SELECT count(*) FROM usage_log_2026_12").await?, 300);
    assert_eq!(log.store(&batch(1001)).await?.rows, 600);
    assert_eq!(bench.count("SELECT count(*) FROM usage_log").await?, 1200);
    Ok(())
}
