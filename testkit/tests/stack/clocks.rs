//! Servers whose clocks are wrong, on one Redis with those whose are right.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proto::extension::{ACTION_CONSUME, ACTION_HOLD, ACTION_SETTLE};
use quota::{
    Account, Action, AmountMinor, AttemptId, Calendar, Charge, Command, Currency, Effect, Limits, MerchantId, OrderNo,
};
use serde_json::{Value, json};
use sluice_kit::clock;
use sluice_settings::Secret;
use sluice_store::{AuditContext, RedisStore, RedisStoreConfig, Store, StoreTime};
use testkit::api::{Api, expect};
use testkit::dirs::RunDir;
use testkit::server::{ReadyWhen, Server, ServerOptions};
use testkit::{Result, wait};

use crate::checks::{ask_alone, check, codes, connect};

const POLICIES: &str = "version: clocks\ndefault: {timezone: UTC, daily_amount: 1000}\n";
const DAY_MS: i64 = 86_400_000;
const YEAR_MS: i64 = 366 * DAY_MS;
const SHARDS: u16 = 64;
const WITHIN: Duration = Duration::from_secs(30);

/// A second server on the stores of the first, with a clock of its own.
struct Shifted {
    server: Server,
    file: PathBuf,
}

impl Shifted {
    fn start(api: &mut Api, shift_ms: i64) -> Result<Self> {
        let dir = RunDir::new("clocks")?;
        let file = dir.join("shift");
        fs::write(&file, shift_ms.to_string())?;
        let mut options: ServerOptions = api.server.options().clone();
        options.env.insert("TEST_CLOCK_SHIFT_FILE".to_owned(), file.display().to_string());
        options.env.insert("SLUICE_HOLD_SWEEP_MS".to_owned(), "100".to_owned());
        options.ready_when = ReadyWhen::Healthy;
        Ok(Self { server: Server::start_in(Arc::clone(&dir), options)?, file })
    }

    /// Sets the clock to another shift.
    fn set(&self, shift_ms: i64) -> Result<()> {
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, shift_ms.to_string())?;
        Ok(fs::rename(fresh, &self.file)?)
    }

    /// The dependencies as a path of readiness shows them, when they are as wanted.
    async fn until_ready(&self, path: &str, status: u16) -> Result<Value> {
        wait::until_async(path, WITHIN, async || {
            let (found, body) = self.server.get(path)?;
            Ok((found == status).then(|| serde_json::from_str::<Value>(&body)).transpose()?)
        })
        .await
    }

    fn logged(&self, message: &str) -> usize {
        let lines = self.server.log_lines();
        lines.iter().filter(|line| line.to_string().contains(message)).count()
    }
}

fn redis(api: &Api) -> Result<RedisStore> {
    let config = RedisStoreConfig { url: Secret::new(api.redis.url()), shards: SHARDS, timeout: WITHIN };
    Ok(RedisStore::open(&config)?)
}

async fn account(api: &Api) -> Result<Account> {
    Ok(redis(api)?.account(&MerchantId::parse("m")?, Currency::parse("USD")?).await?.unwrap_or_default())
}

/// The alerts of clocks, as in `clock_skew` while one is open and `clock_skew: recovered` when it is over.
async fn alerts(api: &Api) -> Result<Vec<String>> {
    let pool = api.postgres.pool().await?;
    let statement = "SELECT alert_type || coalesce(': ' || resolve_reason, '') FROM quota_alert \
        WHERE alert_type = 'clock_skew' ORDER BY raised_at";
    let alerts = sqlx::query_scalar(statement).fetch_all(&pool).await?;
    pool.close().await;
    Ok(alerts)
}

async fn until_alerts(api: &Api, expected: &[&str]) -> Result<()> {
    wait::until_async("alerts of the clock", WITHIN, async || Ok((alerts(api).await? == expected).then_some(()))).await
}

/// A server eight days ahead, and one eight days behind: it rolls no account, ends no hold and decides nothing, and says so;
/// the other one goes on. When its clock is right it decides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_a_server_whose_clock_is_off_neither_decides_nor_sweeps() -> Result<()> {
    let mut api = Api::start(POLICIES, &[])?;
    let good = connect(&format!("http://{}", api.server.grpc_address())).await?;
    let asked = vec![check(ACTION_CONSUME, "paid"), check(ACTION_HOLD, "held")];
    assert_eq!(codes(&good, asked).await?, ["ADMITTED"; 2]);
    let before = account(&api).await?;
    let shifted = Shifted::start(&mut api, 8 * DAY_MS)?;
    let bad = connect(&format!("http://{}", shifted.server.grpc_address())).await?;
    let caller = testkit::api::Caller::new(shifted.server.admin_address(), api.operator()?.token());
    let mut recovered = 0;
    for (shift_ms, direction) in [(8 * DAY_MS, "ahead of"), (-8 * DAY_MS, "behind")] {
        shifted.set(shift_ms)?;
        for path in ["/ready", "/ready/payments"] {
            let body = shifted.until_ready(path, 503).await?;
            let detail = body["dependencies"]["clock"]["detail"].as_str().unwrap_or_default().to_owned();
            for part in [direction, "NTP", "691"] {
                assert!(detail.contains(part), "{part} in {body}");
            }
            assert_eq!(
                (&body["payments"], &body["dependencies"]["redis"]["up"]),
                (&json!("not decided"), &json!(true))
            );
        }
        let open = [vec!["clock_skew: recovered"; recovered], vec!["clock_skew"]].concat();
        until_alerts(&api, &open).await?;
        let offset = shifted.server.metric("sluice_clock_offset_seconds", &[])?;
        assert!((offset.abs() - 691_200.0).abs() < 60.0 && (offset > 0.0) == (shift_ms > 0), "{offset}");
        // It decides nothing, on either way, and changes nothing by hand.
        assert_eq!(codes(&bad, vec![check(ACTION_CONSUME, "other")]).await?, ["STORE_UNAVAILABLE"]);
        assert_eq!(ask_alone(&bad, &check(ACTION_CONSUME, "other")).await?, "STORE_UNAVAILABLE");
        let reset = json!({"merchant_id": "m", "currency": "USD", "window": "daily", "reason": "a test"});
        let answer = caller.post("/quotas/reset", &reset).await?;
        let problem = expect(&answer, 503, &json!({"code": "STORE_UNAVAILABLE"}));
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("NTP")), "{problem}");
        // Its sweeps ran all the while.
        assert_eq!(account(&api).await?, before, "{direction}");
        shifted.set(0)?;
        let _ready = shifted.until_ready("/ready", 200).await?;
        recovered += 1;
        until_alerts(&api, &vec!["clock_skew: recovered"; recovered]).await?;
        assert_eq!(shifted.logged("the clock is off: this server neither decides nor sweeps"), recovered);
        assert_eq!(shifted.logged("the clock is right again: this server decides and sweeps"), recovered);
    }
    assert_eq!(ask_alone(&bad, &check(ACTION_CONSUME, "other")).await?, "ADMITTED");
    assert_eq!(ask_alone(&good, &check(ACTION_SETTLE, "held")).await?, "APPLIED");
    let after = account(&api).await?;
    assert_eq!((after.windows.day.id, after.windows.day.amount, after.pending), (before.windows.day.id, 300, 0));
    Ok(())
}

/// An account that a server of before left in 2036: a payment counts there, and a reset brings the account into the windows
/// of now, with what was counted meanwhile where it is not reset, and no more given back than was counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f1_a_reset_brings_a_frozen_account_back() -> Result<()> {
    let api = Api::start(POLICIES, &[])?;
    let caller = api.operator()?;
    let future_ms = clock::now_ms() + 10 * YEAR_MS;
    let store = redis(&api)?.with_time(StoreTime::OfCommands);
    let _frozen = store.apply(&payment(future_ms)?, &AuditContext::default()).await?;
    let frozen = account(&api).await?;
    assert_eq!(frozen.windows.day.id, Calendar::UTC.windows_at(future_ms).ids.day);
    let of = |order_no: &str| json!({"merchant_id": "m", "currency": "USD", "order_no": order_no, "amount": 400});
    expect(&caller.post("/quotas/consume", &of("meanwhile")).await?, 200, &json!({"daily_used": 500}));
    assert_eq!(account(&api).await?.windows.day.id, frozen.windows.day.id, "a payment leaves it there");

    let reset = json!({"merchant_id": "m", "currency": "USD", "window": "daily", "reason": "a clock in 2036"});
    expect(&caller.post("/quotas/reset", &reset).await?, 200, &json!({"daily_used": 0, "monthly_used": 500}));
    let windows = Calendar::UTC.windows_at(clock::now_ms());
    let back = account(&api).await?;
    assert_eq!(
        (back.windows.day.id, back.windows.month.id, back.windows.year.id),
        (windows.ids.day, windows.ids.month, windows.ids.year)
    );
    assert_eq!((back.windows.day.amount, back.windows.month.amount, back.windows.year.amount), (0, 500, 500));
    assert!(back.windows.day.epoch >= 128 && back.windows.month.epoch >= 128, "{back:?}");
    // What was paid before is refunded, and nothing given back of what was not counted since.
    expect(&caller.post("/quotas/consume", &of("after")).await?, 200, &json!({"daily_used": 400}));
    let mut refund = of("meanwhile");
    refund["refund_no"] = "r-1".into();
    expect(&caller.post("/quotas/refund", &refund).await?, 200, &json!({"daily_used": 400}));
    let pool = api.postgres.pool().await?;
    let row = wait::until_async("the reset's row", WITHIN, async || {
        let statement = "SELECT daily_window, daily_used_before, daily_used_after, monthly_used_after FROM usage_log \
            WHERE action_type = 'reset'";
        Ok(sqlx::query_as::<_, (i32, i64, i64, i64)>(statement).fetch_optional(&pool).await?)
    });
    assert_eq!(row.await?, (i32::try_from(windows.ids.day)?, 500, 0, 500));
    pool.close().await;
    Ok(())
}

/// A payment of 1.00 as a server with that clock made it.
fn payment(now_ms: i64) -> Result<Command> {
    let amount = AmountMinor::new(100).unwrap_or_default();
    Ok(Command {
        merchant: MerchantId::parse("m")?,
        currency: Currency::parse("USD")?,
        order_no: Some(OrderNo::parse("frozen")?),
        attempt: AttemptId::from_text("frozen"),
        action: Action::Consume(Charge {
            amount,
            weight: quota::Weight::AMOUNT,
            limits: Limits::UNLIMITED,
            refusal: None,
            pace: None,
            replays_max: None,
            refuse_unknown_credit: false,
        }),
        effect: Effect::Commit,
        decision_id: clock::decision_id(),
        now_ms,
        windows: Calendar::UTC.windows_at(now_ms),
        order_ttl_secs: 3_600,
        backlog_max: 1_000_000,
        threshold_policy: None,
        credit: None,
        history: None,
        payment_no: None,
        operation_no: None,
        channel: None,
    })
}
