//! The mistakes found in other quota services, each tried on this one. Where time must pass, the test is one that has time
//! as a parameter; where an interface is not HTTP, it is that interface's. A test below checks that all of them exist.
//!
//! | mistake | tests |
//! |---|---|
//! | check and consume in two steps: overdraft under concurrency | `tests/api/mistakes.rs` `sixty_four_clients_race_for_a_limit`; `quota/tests/rule/table/mistakes.rs` `charges` |
//! | a version column without a version predicate | `tests/api/mistakes.rs` `of_changes_on_one_version_one_wins`; `tests/api/accounts.rs` `adjusted` |
//! | the last order's number stored, never compared: a retry consumes twice | `tests/api/mistakes.rs` `a_retry_consumes_once`; `tests/api/charges.rs` `an_order_is_consumed_once` |
//! | the policy client retries inside the payment, then fails open | `tests/api/mistakes.rs` `a_policy_service_that_hangs_opens_nothing`; `crates/policy-source/tests/policy/service.rs` `a_service_that_hangs_or_is_down_holds_up_one_payment_at_most` |
//! | a refusal answered with HTTP 200 | `tests/api/mistakes.rs` `a_refusal_is_never_a_success`; `tests/api/charges.rs` `refusals` |
//! | release lowers only what is pending | `tests/api/holds.rs` `releases` |
//! | release needs no earlier consume | `tests/api/holds.rs` `unknown_orders` |
//! | release can be repeated below zero | `tests/api/mistakes.rs` `returns_race_and_nothing_is_returned_twice`; `tests/api/holds.rs` `releases` |
//! | a refund taken from today's window though the charge was yesterday's | `quota/tests/rule/table/refunds.rs` `windows`; `quota/tests/rule/table/mistakes.rs` `releases` |
//! | reset jobs: no leader, local time, tick missed, counters forgotten, next reset set to now | `tests/api/accounts.rs` `reset`; `quota/tests/rule/table/mistakes.rs` `accounts`; `quota/src/window.rs` `q5_windows_end_where_the_next_begins`; `tests/journal/sweeps.rs` `one_server_closes_windows_at_a_time` |
//! | the usage log written after the fact from an unsynchronised read | `tests/api/mistakes.rs` `the_log_of_a_race_is_gapless_and_sums_up`; `crates/store/tests/store/main.rs` `no_event_no_charge` |
//! | the usage log's failure swallowed | `tests/end_to_end/outages.rs` `the_backlog_is_full`, `postgres_is_killed_and_comes_back` |
//! | the actor taken from the request body | `tests/api/access.rs` `actor` |
//! | no role or ownership check on any route | `tests/api/access.rs` `nothing_without_a_token`, `own_data_only`; `tests/contract/walk.rs` `a_stranger_is_refused_everything` |
//! | duplicates on concurrent initialise | `tests/api/mistakes.rs` `initialising_at_once_makes_one_account` |
//! | limits on pending, refunds, transactions, year stored and never checked | `tests/api/mistakes.rs` `limits_that_are_stored_are_checked`; `tests/api/charges.rs` `refusals` |
//! | a channel's own policy never outranks `all` | `tests/api/mistakes.rs` `a_channels_own_policy_outranks_all`; `crates/policy-source/tests/policy/scopes.rs` `a_channels_own_policy_outranks_the_one_for_all` |
//! | policy changes overwrite without history | `tests/api/mistakes.rs` `policy_changes_keep_their_history`; `crates/policy-source/tests/policy/states.rs` `a_policy_is_drafted_approved_by_another_and_activated` |
//! | returns are asynchronous and not idempotent | `tests/api/mistakes.rs` `returns_race_and_nothing_is_returned_twice` |
//! | holds leak when the process dies | `tests/api/mistakes.rs` `a_killed_server_leaks_no_hold`; `tests/journal/sweeps.rs` `expiry_capture_and_void_race_and_one_wins` |
//! | balances go negative because decrements are unconditional | `tests/api/accounts.rs` `adjusted`; `quota/tests/rule/table/mistakes.rs` `accounts` |
//! | batches of updates in memory are lost in a crash | `tests/api/mistakes.rs` `a_killed_server_leaks_no_hold` |

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::api::{Api, Caller, differences, expect};
use testkit::client::Answer;
use testkit::dirs::workspace;
use testkit::{Context, Failure, Result, Service, wait};
use tokio::task::JoinSet;

use crate::accounts;
use crate::charges::{account, charge};
use crate::suite::Suite;
use crate::{policies, usage_logs};

/// Clients of a race, each with a connection of its own.
const CLIENTS: u64 = 64;

pub(crate) fn add(suite: &mut Suite) {
    suite.alone("mistakes::each_names_tests_that_exist", named_tests_exist);
    suite.add("mistakes::sixty_four_clients_race_for_a_limit", sixty_four_clients_race_for_a_limit);
    suite.add("mistakes::the_log_of_a_race_is_gapless_and_sums_up", the_log_of_a_race_is_gapless_and_sums_up);
    suite.add("mistakes::of_changes_on_one_version_one_wins", of_changes_on_one_version_one_wins);
    suite.add("mistakes::a_retry_consumes_once", a_retry_consumes_once);
    suite.add("mistakes::a_refusal_is_never_a_success", a_refusal_is_never_a_success);
    suite.add("mistakes::returns_race_and_nothing_is_returned_twice", returns_race_and_nothing_is_returned_twice);
    suite.add("mistakes::initialising_at_once_makes_one_account", initialising_at_once_makes_one_account);
    suite.add("mistakes::limits_that_are_stored_are_checked", limits_that_are_stored_are_checked);
    suite.add("mistakes::a_channels_own_policy_outranks_all", a_channels_own_policy_outranks_all);
    suite.add("mistakes::policy_changes_keep_their_history", policy_changes_keep_their_history);
    suite.alone("mistakes::a_policy_service_that_hangs_opens_nothing", a_policy_service_that_hangs_opens_nothing);
    suite.alone("mistakes::a_killed_server_leaks_no_hold", a_killed_server_leaks_no_hold);
}

/// Every file and function that the table above names.
async fn named_tests_exist() -> Result<()> {
    let rows: Vec<&str> = include_str!("mistakes.rs").lines().filter_map(|line| line.strip_prefix("//! | ")).collect();
    assert!(rows.len() > 20, "{rows:?}");
    for row in rows.iter().skip(1) {
        let tests = row.rsplit_once(" | ").map(|(_, tests)| tests).unwrap_or_default();
        let (mut file, mut named) = (String::new(), 0);
        for word in tests.split('`').skip(1).step_by(2) {
            if word.ends_with(".rs") {
                file = std::fs::read_to_string(workspace().join(word)).context(word)?;
            } else {
                let found = file.contains(&format!("fn {word}(")) || file.contains(&format!("::{word}\""));
                assert!(found, "no {word} where this says so: {row}");
                named += 1;
            }
        }
        assert!(named > 0, "no test is named in: {row}");
    }
    Ok(())
}

/// Sends all requests at once; gives the answers in their order.
async fn at_once(caller: &Caller, requests: Vec<(&'static str, Value)>) -> Result<Vec<Answer>> {
    let mut tasks = JoinSet::new();
    for (number, (path, body)) in requests.into_iter().enumerate() {
        let caller = caller.clone();
        tasks.spawn(async move { caller.post(path, &body).await.map(|answer| (number, answer)) });
    }
    let mut answers = tasks.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    answers.sort_by_key(|(number, _)| *number);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

fn with_status(answers: &[Answer], status: u16) -> u64 {
    answers.iter().filter(|answer| answer.status == status).count() as u64
}

async fn race(api: &Api, merchant: &str) -> Result<Vec<Answer>> {
    const EACH: u64 = 20_000;
    let requests = (0..CLIENTS).map(|n| ("/quotas/consume", charge(merchant, &format!("race-{n}"), EACH)));
    let answers = at_once(&api.admin()?, requests.collect()).await?;
    assert_eq!((with_status(&answers, 200), with_status(&answers, 429)), (50, 14), "1,000,000 in pieces of 20,000");
    Ok(answers)
}

async fn sixty_four_clients_race_for_a_limit(api: &Api) -> Result<()> {
    let answers = race(api, "race").await?;
    // Each admitted one was answered with a state of its own: no two decided on the same figures.
    let mut used: Vec<u64> = answers.iter().filter_map(|answer| answer.json()["daily_used"].as_u64()).collect();
    used.sort_unstable();
    assert_eq!(used, (1..=50).map(|n| n * 20_000).collect::<Vec<_>>());
    for refused in answers.iter().filter(|answer| answer.status == 429) {
        expect(
            refused,
            429,
            &json!({"code": "DAILY_AMOUNT", "limit": {"max": 1_000_000, "used": 1_000_000, "remaining": 0}}),
        );
    }
    account(&api.admin()?, "race", &json!({"daily_used": 1_000_000, "transactions_today": 50, "version": 50})).await
}

async fn the_log_of_a_race_is_gapless_and_sums_up(api: &Api) -> Result<()> {
    race(api, "race-2").await?;
    let mut rows = usage_logs::of_merchant(&api.admin()?, "race-2", "?success=true&limit=200", 50).await?;
    rows.sort_by_key(|row| row["account_version"].as_u64());
    for (number, row) in (0..).zip(&rows) {
        let figures = json!({"daily_before": number * 20_000, "daily_after": (number + 1) * 20_000, "account_version": number + 1});
        assert_eq!(differences("", row, &figures), [""; 0], "{row}");
    }
    usage_logs::of_merchant(&api.admin()?, "race-2", "?success=false&limit=200", 14).await.map(drop)
}

async fn of_changes_on_one_version_one_wins(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    expect(&ana.post("/quotas/consume", &charge("versioned", "1", 500)).await?, 200, &json!({"version": 1}));
    let change = |n: u64| {
        json!({"merchant_id": "versioned", "currency": "USD", "counter": "daily_used", "operation": "add", "amount": 100 + n,
            "reason": "a race", "expected_version": 1})
    };
    let answers = at_once(&ana, (0..CLIENTS).map(|n| ("/quotas/adjust", change(n))).collect()).await?;
    assert_eq!((with_status(&answers, 200), with_status(&answers, 409)), (1, CLIENTS - 1));
    let won = answers.iter().find(|answer| answer.status == 200).map(Answer::json).unwrap_or_default();
    account(&ana, "versioned", &json!({"daily_used": won["daily_used"], "version": 2})).await
}

async fn a_retry_consumes_once(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let requests = (0..CLIENTS).map(|_| ("/quotas/consume", charge("retried", "the-order", 500))).collect();
    let answers = at_once(&ana, requests).await?;
    let bodies: Vec<Value> =
        answers.iter().map(|answer| expect(answer, 200, &json!({"success": true, "daily_used": 500}))).collect();
    assert_eq!(bodies.iter().filter(|body| body["replay"] == false).count(), 1);
    assert!(bodies.iter().all(|body| body["decision_id"] == bodies[0]["decision_id"]), "all get the first answer");
    // Also after other orders came in between.
    expect(&ana.post("/quotas/consume", &charge("retried", "another", 700)).await?, 200, &json!({"daily_used": 1_200}));
    let again = json!({"replay": true, "daily_used": 1_200, "transactions_today": 2});
    expect(&ana.post("/quotas/consume", &charge("retried", "the-order", 500)).await?, 200, &again);
    Ok(())
}

async fn a_refusal_is_never_a_success(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let refused = |api: &Api| api.server.metric("quota_operations_total", &["DAILY_AMOUNT"]);
    let before = refused(api)?;
    for n in 0..3 {
        let answer = ana.post("/quotas/consume", &charge("figures-2", &format!("{n}"), 1_000_000)).await?;
        expect(&answer, 200, &json!({"success": true}));
    }
    let over = json!({"operations": [
        {"action": "consume", "merchant_id": "figures-2", "currency": "USD", "order_no": "a", "amount": 1_000_000},
        {"action": "consume", "merchant_id": "figures-2", "currency": "USD", "order_no": "b", "amount": 1_000_000},
        {"action": "consume", "merchant_id": "figures-2", "currency": "USD", "order_no": "c", "amount": 100},
    ]});
    expect(&ana.post("/quotas/batch", &over).await?, 207, &json!({"succeeded": 2, "failed": 1}));
    let answer = ana.post("/quotas/consume", &charge("figures-2", "d", 100)).await?;
    let problem = expect(&answer, 429, &json!({"code": "DAILY_AMOUNT"}));
    assert_eq!((problem.get("success"), problem.get("allowed")), (None, None), "{problem}");
    assert!(refused(api)? >= before + 2.0, "metrics count refusals");
    Ok(())
}

async fn returns_race_and_nothing_is_returned_twice(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    for (order_no, amount) in [("kept", 9_000), ("released", 5_000)] {
        expect(
            &ana.post("/quotas/consume", &charge("returns", order_no, amount)).await?,
            200,
            &json!({"success": true}),
        );
    }
    let requests = (0..CLIENTS).map(|_| ("/quotas/release", charge("returns", "released", 5_000))).collect();
    let answers = at_once(&ana, requests).await?;
    assert_eq!(with_status(&answers, 200), CLIENTS);
    assert_eq!(answers.iter().filter(|answer| answer.json()["replay"] == false).count(), 1);
    account(&ana, "returns", &json!({"daily_used": 9_000, "refunded_today": 5_000})).await?;
    // Refunds under numbers of their own: as many as fit into the order.
    let refund = |n: u64| json!({"merchant_id": "returns", "currency": "USD", "order_no": "kept", "refund_no": format!("r{n}"), "amount": 2_000});
    let answers = at_once(&ana, (0..CLIENTS).map(|n| ("/quotas/refund", refund(n))).collect()).await?;
    assert_eq!((with_status(&answers, 200), with_status(&answers, 403)), (4, CLIENTS - 4));
    account(&ana, "returns", &json!({"daily_used": 1_000, "monthly_used": 1_000, "yearly_used": 1_000})).await
}

async fn initialising_at_once_makes_one_account(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let body = json!({"merchant_id": "newborn", "currency": "USD"});
    let answers = at_once(&ana, (0..CLIENTS).map(|_| ("/quotas/initialize", body.clone())).collect()).await?;
    assert_eq!(with_status(&answers, 200), CLIENTS);
    assert_eq!(answers.iter().filter(|answer| answer.json()["replay"] == false).count(), 1);
    assert_eq!(usage_logs::of_merchant(&ana, "newborn", "", 1).await?[0]["action_type"], "initialize");
    accounts::wait_for_list(&ana, "?merchant_id=newborn", 1).await?;
    Ok(())
}

async fn limits_that_are_stored_are_checked(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "limited-pending";
    expect(&ana.post("/quotas/hold", &charge(m, "1", 1_000)).await?, 200, &json!({"pending_amount": 1_000}));
    let answer = ana.post("/quotas/hold", &charge(m, "2", 501)).await?;
    let limit = json!({"name": "pending_amount", "max": 1_500, "used": 1_000, "remaining": 500});
    expect(&answer, 429, &json!({"code": "PENDING_AMOUNT", "limit": limit}));
    assert_eq!(answer.header("retry-after"), None, "no time lifts it, captures do");
    expect(&ana.post("/quotas/consume", &charge(m, "3", 501)).await?, 200, &json!({"pending_amount": 1_000}));
    let settle = json!({"merchant_id": m, "currency": "USD", "order_no": "1"});
    expect(&ana.post("/quotas/settle", &settle).await?, 200, &json!({"pending_amount": 0}));
    expect(&ana.post("/quotas/hold", &charge(m, "2", 501)).await?, 200, &json!({"pending_amount": 501}));
    for (m, code) in [("limited-refunds-daily", "REFUND_DAILY"), ("limited-refunds-monthly", "REFUND_MONTHLY")] {
        expect(&ana.post("/quotas/consume", &charge(m, "1", 5_000)).await?, 200, &json!({"success": true}));
        let refund = |number: &str, amount: u64| json!({"merchant_id": m, "currency": "USD", "order_no": "1", "refund_no": number, "amount": amount});
        expect(&ana.post("/quotas/refund", &refund("r1", 400)).await?, 200, &json!({"refunded_today": 400}));
        let answer = ana.post("/quotas/refund", &refund("r2", 101)).await?;
        expect(&answer, 429, &json!({"code": code, "limit": {"max": 500, "used": 400, "remaining": 100}}));
        assert!(answer.header("retry-after").is_some(), "{code}");
        account(&ana, m, &json!({"daily_used": 4_600, "refunded_today": 400})).await?;
    }
    Ok(())
}

async fn a_channels_own_policy_outranks_all(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    for (channel, single_max) in [("wallet", 500), ("card", 1_000_000)] {
        let path = format!("/limit-policies/effective?merchant_id=choosy&channel={channel}");
        expect(&ana.get(&path).await?, 200, &json!({"channel": channel, "single_max": single_max}));
        let mut body = charge("choosy", &format!("{channel}-over"), single_max + 1);
        body["channel"] = channel.into();
        expect(&ana.post("/quotas/consume", &body).await?, 403, &json!({"code": "ABOVE_SINGLE_MAX"}));
        body["amount"] = single_max.into();
        expect(&ana.post("/quotas/consume", &body).await?, 200, &json!({"success": true}));
    }
    Ok(())
}

async fn policy_changes_keep_their_history(api: &Api) -> Result<()> {
    let (ana, boss) = (api.admin()?, api.caller(json!({"sub": "boss", "role": "admin"}))?);
    let policy = |limit: u64| json!({"merchant_id": "contracted", "daily_limit": limit, "single_trans_max": 1_000});
    let draft = json!({"policy": policy(2_000), "reason": "a new contract"});
    let made =
        expect(&ana.post("/limit-policies", &draft).await?, 201, &json!({"created_by": "ana", "status": "pending"}));
    let path = format!("/limit-policies/{}", made["policy_id"].as_str().unwrap_or_default());
    let why = json!({"reason": "as agreed"});
    expect(&ana.post(&format!("{path}/approve"), &why).await?, 403, &json!({"code": "FORBIDDEN"}));
    expect(
        &boss.post(&format!("{path}/approve"), &why).await?,
        200,
        &json!({"approved_by": "boss", "status": "pending"}),
    );
    expect(&boss.post(&format!("{path}/activate"), &why).await?, 200, &json!({"status": "active"}));
    wait::until_async("the policy in force", Duration::from_secs(10), || async {
        let policy = ana.get("/limit-policies/effective?merchant_id=contracted").await?.json();
        Ok((policy["daily_limit"] == 2_000).then_some(()))
    })
    .await?;
    expect(
        &ana.post("/quotas/consume", &charge("contracted", "1", 1_001)).await?,
        403,
        &json!({"code": "ABOVE_SINGLE_MAX"}),
    );
    let history = expect(&ana.get(&format!("{path}/history")).await?, 200, &json!({}));
    let changes: Vec<_> =
        history["items"].as_array().into_iter().flatten().map(|change| (&change["actor"], &change["reason"])).collect();
    let (boss, ana) = (json!("boss"), json!("ana"));
    let (agreed, contract) = (json!("as agreed"), json!("a new contract"));
    assert_eq!(changes, [(&boss, &agreed), (&boss, &agreed), (&ana, &contract)], "{history}");
    Ok(())
}

/// The service takes connections and never answers: the policy that is configured here holds, and soon.
async fn a_policy_service_that_hangs_opens_nothing() -> Result<()> {
    let silent = TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", silent.local_addr()?);
    let api = Api::start(&policies::document(), &[("POLICY_SERVICE_URL", &url)])?;
    let ana = api.admin()?;
    let asked = std::time::Instant::now();
    let merchant = "limited-daily";
    expect(&ana.post("/quotas/consume", &charge(merchant, "1", 1_000)).await?, 200, &json!({"daily_used": 1_000}));
    expect(&ana.post("/quotas/consume", &charge(merchant, "2", 501)).await?, 429, &json!({"code": "DAILY_AMOUNT"}));
    expect(&ana.post("/quotas/consume", &charge(merchant, "3", 500)).await?, 200, &json!({"daily_used": 1_500}));
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(6), "three payments waited {took:?}: as long as one does where it retries");
    Ok(())
}

/// The server is killed with a hold open, and another one goes on: nothing was in its memory alone.
async fn a_killed_server_leaks_no_hold() -> Result<()> {
    // What the killed one had read and not stored is taken over at once, not after half a minute.
    let mut api = Api::start(&policies::document(), &[("SLUICE_JOURNAL_LEASE_MS", "1000")])?;
    let ana = api.admin()?;
    let m = "survivor";
    expect(&ana.post("/quotas/consume", &charge(m, "charged", 700)).await?, 200, &json!({"daily_used": 700}));
    let held =
        expect(&ana.post("/quotas/hold", &charge(m, "held", 5_000)).await?, 200, &json!({"pending_amount": 5_000}));
    api.server.kill()?;
    api.server.restart()?;
    account(&ana, m, &json!({"daily_used": 5_700, "pending_amount": 5_000, "version": 2})).await?;
    expect(
        &ana.post("/quotas/hold", &charge(m, "held", 5_000)).await?,
        200,
        &json!({"replay": true, "pending_amount": 5_000}),
    );
    let due: u64 = redis::cmd("ZCARD")
        .arg(due_key(m)?)
        .query_async(&mut api.redis.connection().await?)
        .await
        .context("counting holds that will be due")?;
    assert_eq!(due, 1, "its end is in the store: {held}");
    let void = json!({"merchant_id": m, "currency": "USD", "order_no": "held"});
    expect(&ana.post("/quotas/void", &void).await?, 200, &json!({"daily_used": 700, "pending_amount": 0}));
    usage_logs::of_merchant(&ana, m, "", 3).await.map(drop)
}

fn due_key(merchant: &str) -> Result<String> {
    const SHARDS: u16 = 64;
    let merchant = quota::MerchantId::parse(merchant).map_err(|error| Failure::new(error.to_string()))?;
    Ok(sluice_store::keys::expiry(quota::shard_of(&merchant, SHARDS)))
}
