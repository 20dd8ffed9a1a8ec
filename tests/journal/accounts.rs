//! `quota_account`: each account as its last change left it, whatever order the events are stored in.

use prost::Message;
use proto::journal::EventContext;
use quota::{Action, Adjust, AmountMinor, Change, Code, CounterName, PaymentNo, Record};
use serde_json::{Value, json};
use sluice_journal::event::Batch;
use sluice_journal::postgres::UsageLog;
use sluice_journal::reply::{Entry, StreamId};
use sluice_settings::Secret;
use sluice_store::Store;
use testkit::Result;

use crate::bench::{AT_MS, Bench, SHARDS, admitted, event, first_charge, pack};
use crate::engine::{Engine, audit, consume, refund};

/// The one account, without what is its own from test to test.
async fn account(bench: &Bench) -> Result<Value> {
    let pool = bench.postgres.pool().await?;
    let row: String =
        sqlx::query_scalar("SELECT row_to_json(a)::text FROM quota_account AS a").fetch_one(&pool).await?;
    pool.close().await;
    Ok(serde_json::from_str(&row)?)
}

fn picked(account: &Value, names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| account[*name].clone()).collect()
}

/// B7: a merchant as a whole is as its last change left it, and no account is made or changed by that.
#[tokio::test]
async fn b7_a_merchant_is_as_its_last_change_left_it() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, journal) = (Engine::open(&bench)?, bench.journal("a")?);
    let merchant = async || -> Result<Value> {
        bench.wait_until_drained(SHARDS).await?;
        let pool = bench.postgres.pool().await?;
        let row: String =
            sqlx::query_scalar("SELECT row_to_json(m)::text FROM quota_merchant AS m").fetch_one(&pool).await?;
        pool.close().await;
        Ok(serde_json::from_str(&row)?)
    };
    let suspend = engine.command("m-1", "", Action::SuspendMerchant, AT_MS)?;
    engine.store.apply(&suspend, &audit("ada", "stolen cards")).await?;
    // What changes nothing leaves no row, and what is refused says why.
    engine.grant("m-1", "", Action::SuspendMerchant, AT_MS + 1).await?;
    engine.run("m-1", "o-1", consume(5), AT_MS + 2).await?;
    let names = ["merchant_id", "version", "suspended_at", "suspended_reason", "suspended_by", "last_updated_by"];
    let at = "2026-11-20T01:46:40+00:00";
    let expected = [json!("m-1"), json!(1), json!(at), json!("stolen cards"), json!("ada"), json!("ada")];
    assert_eq!(picked(&merchant().await?, &names), expected);
    let rows = "SELECT count(*) FROM usage_log WHERE (action_type = 'suspend_merchant' AND currency IS NULL AND success) \
        OR (code = 'SUSPENDED' AND failure_details = '{\"suspended\": \"merchant\"}')";
    assert_eq!((bench.count(rows).await?, bench.count("SELECT count(*) FROM usage_log").await?), (2, 2));
    let resume = engine.command("m-1", "", Action::ResumeMerchant, AT_MS + 1000)?;
    engine.store.apply(&resume, &audit("eve", "cleared")).await?;
    let expected = [json!("m-1"), json!(2), Value::Null, Value::Null, Value::Null, json!("eve")];
    assert_eq!(picked(&merchant().await?, &names), expected);
    assert_eq!(bench.count("SELECT count(*) FROM quota_account").await?, 0);
    journal.stop()
}

#[tokio::test]
async fn an_account_is_as_its_last_change_left_it() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, journal) = (Engine::open(&bench)?, bench.journal("a")?);
    let mut first = engine.command("m-1", "o-1", consume(100), AT_MS)?;
    first.payment_no = Some(PaymentNo::parse("p-1")?);
    engine.apply(&first).await?;
    engine.grant("m-1", "o-2", consume(50), AT_MS + 1000).await?;
    engine.grant("m-1", "o-1", Action::Refund(refund(30, "r-1")), AT_MS + 2000).await?;
    // What is refused or repeated changes nothing, and shows a day that is not stored.
    let refused = engine.run("m-1", "o-9", Action::Refund(refund(1, "r-2")), AT_MS + 86_400_000).await?;
    assert_eq!(refused.record.code, Code::OrderUnknown);
    bench.wait_until_drained(SHARDS).await?;
    let row = account(&bench).await?;
    let figures =
        ["daily_window", "daily_used", "daily_count", "daily_refunded", "yearly_used", "version", "open_until"];
    assert_eq!(picked(&row, &figures), [20_261_120, 120, 2, 30, 120, 3, 20_261_120].map(Value::from));
    let last = ["merchant_id", "currency", "last_order_no", "last_payment_no", "last_updated_by"];
    assert_eq!(picked(&row, &last), ["m-1", "USD", "o-1", "p-1", "proxy"].map(Value::from));

    let suspend = engine.command("m-1", "", Action::Suspend, AT_MS + 3000)?;
    engine.store.apply(&suspend, &audit("ada", "chargebacks")).await?;
    let set = Change::Set(AmountMinor::new(7).unwrap_or_default());
    let adjust = Adjust { counter: CounterName::Pending, change: set, expected_version: Some(4) };
    let adjust = engine.command("m-1", "", Action::Adjust(adjust), AT_MS + 4000)?;
    engine.store.apply(&adjust, &audit("eve", "as counted")).await?;
    bench.wait_until_drained(SHARDS).await?;
    let row = account(&bench).await?;
    let changed = ["suspended_reason", "suspended_by", "pending_amount", "last_updated_by", "last_order_no"];
    assert_eq!(picked(&row, &changed), [json!("chargebacks"), json!("ada"), json!(7), json!("eve"), json!("o-1")]);
    assert_eq!(row["suspended_at"], json!("2026-11-20T01:46:43+00:00"));

    engine.grant("m-1", "", Action::Resume, AT_MS + 5000).await?;
    bench.wait_until_drained(SHARDS).await?;
    let row = account(&bench).await?;
    assert_eq!(
        picked(&row, &["suspended_at", "suspended_reason", "suspended_by"]),
        [Value::Null, Value::Null, Value::Null]
    );
    let by_hand = "SELECT count(*) FROM usage_log WHERE order_no IS NULL AND attempt IS NULL AND (action_type, reason, \
        counter, change, expected_version, pending_after) = ('adjust', 'as counted', 'pending_amount', 'set', 4, 7)";
    assert_eq!(bench.count(by_hand).await?, 1);
    journal.stop()
}

/// An event that left the account's day at `used`.
fn change(seq: u64, at_ms: i64, used: u64) -> Entry {
    let mut record = first_charge(50);
    record.windows.day.amount_after = used;
    entry(EventContext { at_ms, ..event(seq * 1000 + used) }, seq, &record)
}

fn entry(context: EventContext, seq: u64, record: &Record) -> Entry {
    let fields = vec![b"c".to_vec(), context.encode_to_vec(), b"d".to_vec(), pack(record)];
    Entry { shard: 0, id: StreamId::of(seq), fields }
}

#[tokio::test]
async fn an_older_state_never_overwrites_a_newer_one() -> Result<()> {
    let bench = Bench::start()?;
    let mut log = UsageLog::new(&Secret::new(bench.postgres.url()))?;
    let minute = 60_000;
    for (entries, seq, used, why) in [
        (vec![change(5, AT_MS, 500), change(4, AT_MS, 400)], 5, 500, "the newest of a batch, however it is ordered"),
        (vec![change(3, AT_MS, 300)], 5, 500, "stored late, by a server that took it over"),
        (vec![change(5, AT_MS, 500)], 5, 500, "delivered again"),
        (vec![change(4, AT_MS + 4 * minute, 400)], 5, 500, "from a server whose clock is ahead"),
        (vec![change(7, AT_MS - 4 * minute, 700)], 7, 700, "from a server whose clock lags"),
        (
            vec![change(2, AT_MS + 2 * minute, 200)],
            2,
            200,
            "much later and yet before: Redis lost writes and counts anew",
        ),
        (vec![change(3, AT_MS + 2 * minute, 310)], 3, 310, "and goes on"),
    ] {
        log.store(&Batch::read(entries)).await?;
        let row = account(&bench).await?;
        assert_eq!(picked(&row, &["seq", "daily_used"]), [seq, used].map(Value::from), "{why}");
    }
    Ok(())
}

/// Who suspended an account is stated by one event; it counts whenever it is stored, for that suspension only.
#[tokio::test]
async fn a_suspension_that_is_stored_late_still_has_its_reason() -> Result<()> {
    let bench = Bench::start()?;
    let mut log = UsageLog::new(&Secret::new(bench.postgres.url()))?;
    let suspended = |at_ms| Record { suspended_at_ms: at_ms, code: Code::Applied, ..first_charge(50) };
    let context = |number, reason: &str| EventContext {
        action: "suspend".to_owned(),
        reason: reason.to_owned(),
        actor: "ada".to_owned(),
        ..event(number)
    };
    let (first, second) = (1_795_139_200_000, 1_795_139_300_000);
    let by = ["seq", "suspended_reason", "suspended_by"];
    for (entry, expected) in [
        (entry(event(3), 3, &suspended(second)), [json!(3), Value::Null, Value::Null]),
        (entry(context(1, "an older one"), 1, &suspended(first)), [json!(3), Value::Null, Value::Null]),
        (entry(context(2, "late"), 2, &suspended(second)), [json!(3), json!("late"), json!("ada")]),
        (entry(event(4), 4, &suspended(second)), [json!(4), json!("late"), json!("ada")]),
        (entry(event(5), 5, &suspended(0)), [json!(5), Value::Null, Value::Null]),
    ] {
        log.store(&Batch::read(vec![entry])).await?;
        assert_eq!(picked(&account(&bench).await?, &by), expected);
    }
    Ok(())
}

/// Refusals of unknown merchants make no accounts.
#[tokio::test]
async fn an_account_that_was_never_changed_has_no_row() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, journal) = (Engine::open(&bench)?, bench.journal("a")?);
    engine.run("m-1", "o-1", Action::Void, AT_MS).await?;
    engine.run("m-1", "o-1", Action::VoidAttempt, AT_MS).await?;
    bench.wait_for_rows(2).await?;
    assert_eq!(bench.count("SELECT count(*) FROM quota_account").await?, 0);
    journal.stop()
}

/// Servers that store the same accounts at once neither block each other for good nor lose a change.
#[tokio::test]
async fn servers_store_the_same_accounts_side_by_side() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, one, two) = (Engine::open(&bench)?, bench.journal("a")?, bench.journal("b")?);
    for number in 0..600 {
        engine.grant(&format!("m-{}", number % 7), &format!("o-{number}"), consume(1), AT_MS + number).await?;
    }
    bench.wait_for_rows(600).await?;
    bench.wait_until_drained(SHARDS).await?;
    for number in 0..7 {
        let stored = engine.account(&format!("m-{number}")).await?;
        let row = "SELECT count(*) FROM quota_account WHERE yearly_used = yearly_count AND version = yearly_count";
        assert_eq!(bench.count(row).await?, 7);
        assert_eq!(stored.windows.year.amount, stored.version);
    }
    assert_eq!(bench.count("SELECT sum(yearly_used)::bigint FROM quota_account").await?, 600);
    one.stop()?;
    two.stop()
}

/// Lets Postgres refuse the accounts that stand in a table, each with its code, and writes down which it took, by transaction.
async fn refuse(bench: &Bench, merchant: &str, code: &str) -> Result<()> {
    let pool = bench.postgres.pool().await?;
    sqlx::raw_sql(
        "CREATE TABLE refused (merchant_id text, code text);
         CREATE TABLE taken (merchant_id text, transaction xid8 DEFAULT pg_current_xact_id());
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE with_code text; BEGIN
             SELECT code INTO with_code FROM refused WHERE merchant_id = NEW.merchant_id;
             IF FOUND THEN RAISE EXCEPTION 'refused' USING ERRCODE = with_code; END IF;
             INSERT INTO taken VALUES (NEW.merchant_id);
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse BEFORE INSERT ON quota_account FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
    .execute(&pool)
    .await?;
    sqlx::query("INSERT INTO refused VALUES ($1, $2)").bind(merchant).bind(code).execute(&pool).await?;
    pool.close().await;
    Ok(())
}

async fn refuse_no_longer(bench: &Bench) -> Result<()> {
    let pool = bench.postgres.pool().await?;
    sqlx::query("DELETE FROM refused").execute(&pool).await?;
    pool.close().await;
    Ok(())
}

/// One event of each of the merchants.
fn one_each(merchants: std::ops::RangeInclusive<u64>, first_seq: u64) -> Batch {
    let entry = |(seq, number): (u64, u64)| {
        let context = EventContext { merchant: format!("m-{number}"), ..event(seq) };
        Entry {
            shard: 0,
            id: StreamId::of(seq),
            fields: vec![b"c".to_vec(), context.encode_to_vec(), b"d".to_vec(), admitted(50)],
        }
    };
    Batch::read((first_seq..).zip(merchants).map(entry).collect())
}

/// Accounts go in transactions of a bounded size, and those that are stored are not stored again because of others.
#[tokio::test]
async fn accounts_that_are_stored_do_not_wait_for_the_others() -> Result<()> {
    let bench = Bench::start()?;
    let mut log = UsageLog::new(&Secret::new(bench.postgres.url()))?;
    log.probe().await?;
    // As where a statement takes too long.
    refuse(&bench, "m-3", "57014").await?;
    assert_eq!(log.store_events(&one_each(1..=5, 1)).await?.rows, 5);
    assert!(log.store_accounts(2).await.is_err());
    assert_eq!(bench.count("SELECT count(*) FROM quota_account WHERE merchant_id IN ('m-1', 'm-2')").await?, 2);
    assert!(log.store_accounts(2).await.is_err());
    refuse_no_longer(&bench).await?;
    log.store_accounts(2).await?;
    assert_eq!(bench.count("SELECT count(*) FROM quota_account").await?, 5);
    assert_eq!(bench.count("SELECT count(*) FROM taken").await?, 5, "some were stored again");
    let most =
        "SELECT max(accounts) FROM (SELECT count(*) AS accounts FROM taken GROUP BY transaction) AS transactions";
    assert_eq!(bench.count(most).await?, 2);
    assert!(!log.has_accounts());
    Ok(())
}

/// Trying again does not help where Postgres refuses an account for its content: it is left out, and the others are stored.
#[tokio::test]
async fn an_account_that_postgres_refuses_keeps_no_other_from_being_stored() -> Result<()> {
    let bench = Bench::start()?;
    let mut log = UsageLog::new(&Secret::new(bench.postgres.url()))?;
    log.probe().await?;
    refuse(&bench, "m-3", "22003").await?;
    assert_eq!(log.store_events(&one_each(1..=5, 1)).await?.rows, 5);
    log.store_accounts(100).await?;
    assert_eq!(bench.count("SELECT count(*) FROM quota_account WHERE merchant_id <> 'm-3'").await?, 4);
    assert_eq!(bench.count("SELECT count(*) FROM quota_account").await?, 4);
    assert!(!log.has_accounts());
    refuse_no_longer(&bench).await?;
    log.store(&one_each(3..=3, 6)).await?;
    assert_eq!(bench.count("SELECT seq FROM quota_account WHERE merchant_id = 'm-3'").await?, 6);
    Ok(())
}
