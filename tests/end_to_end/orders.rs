//! Ways around the quota by an order that comes again, and suspension, through real Envoy with the wasm filter and with Envoy's own
//! ext_authz: before a gateway that does not know an order number again, whatever passes is paid.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::api::{ROOT, differences};
use testkit::books::{books_agree, journal_is_whole};
use testkit::client::{Answer, Call, Client, Payment, Protocol, send_once};
use testkit::policies::{DAILY_AMOUNT, SINGLE_MAX, SINGLE_MIN};
use testkit::stack::{Stack, StackOptions};
use testkit::{Failure, Result, policies, wait};
use tokio::task::JoinHandle;

use crate::suite::{Suite, patient};

/// The routes of payments, each with a name for its merchants.
const ROUTES: [(&str, &str); 2] = [("wasm", "/v1/payments"), ("native", "/native/v1/payments")];
/// Clients that pay while their merchant is suspended.
const CLIENTS: usize = 64;
/// So many payments must have passed before.
const PAID_BEFORE: usize = 200;
const PAID_WITHIN: Duration = Duration::from_secs(60);
const CURRENCIES: [&str; 4] = ["USD", "EUR", "GBP", "JPY"];

pub(crate) fn add(suite: &mut Suite) {
    for (route, path) in ROUTES {
        suite.shared(format!("orders::x5_what_gave_back_is_not_paid_again::{route}"), async move |stack: &Stack| {
            x5_what_gave_back_is_not_paid_again(stack, route, path).await
        });
    }
    let merchants = "fraud: {tier: roomy}\nreplays: {tier: roomy}";
    let options = || StackOptions { policies: Some(policies::with("v1", merchants)), ..patient() };
    suite.owned("orders::x6_repetitions_are_bounded_by_their_rule", bounded(options()), x6_repetitions_are_bounded);
    suite.owned("orders::b7_nothing_is_admitted_after_the_suspension", options(), b7_nothing_is_admitted_after);
}

/// The shipped rules, but that payments may be repeated three times, and native ones not at all.
fn bounded(options: StackOptions) -> StackOptions {
    let mut plugin = StackOptions::shipped_plugin().unwrap_or_default();
    for rule in plugin["rules"].as_array_mut().into_iter().flatten() {
        let name = rule["name"].as_str().unwrap_or_default().to_owned();
        match name.as_str() {
            "payments" => rule["replays"] = json!(3),
            "native-payments" => rule["replays"] = json!("refuse"),
            _ => {}
        }
        rule["timeout_ms"] = json!(10_000);
    }
    StackOptions { plugin: Some(plugin), ..options }
}

async fn operate(stack: &Stack, operation: &str, body: Value) -> Result<Value> {
    let token = format!("Bearer {}", stack.addresses().admin_token);
    let call = Call::post_json(&format!("{ROOT}/quotas/{operation}"), body.to_string()).header("authorization", &token);
    let answer = send_once(stack.server.admin_address(), Protocol::Http1, call).await?;
    ensure_eq!(answer.status, 200, "{operation}: {}", answer.json());
    Ok(answer.json())
}

fn check(answer: &Answer, status: u16, code: &str) -> Result<()> {
    ensure_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.json());
    Ok(())
}

/// X5: pay A, release A, pay A again, pay B; and the same with refunds of a part. A reserved refund closes nothing.
async fn x5_what_gave_back_is_not_paid_again(stack: &Stack, route: &str, path: &str) -> Result<()> {
    let ways = [("release", json!({})), ("refund", json!({"refund_no": "r-1", "amount": SINGLE_MAX - 1}))];
    for (way, more) in ways {
        let merchant = format!("x5-{way}-{route}");
        let pay = async |order: &str, amount: u64| {
            let payment = Payment::new(&merchant, &format!("{merchant}-{order}"), amount).path(path);
            stack.send(Protocol::Http1, payment.call()).await
        };
        check(&pay("A", SINGLE_MAX).await?, 200, "")?;
        check(&pay("A", SINGLE_MAX).await?, 200, "")?;
        let mut body = json!({"merchant_id": merchant, "currency": "USD", "order_no": format!("{merchant}-A")});
        if let (Some(body), Some(more)) = (body.as_object_mut(), more.as_object()) {
            body.extend(more.clone());
        }
        operate(stack, way, body).await?;
        for amount in [SINGLE_MAX, SINGLE_MIN] {
            check(&pay("A", amount).await?, 409, "ORDER_CLOSED")?;
        }
        let paid = stack.gateway.seen_order(&format!("{merchant}-A")).len();
        ensure_eq!(paid, 2, "the closed order reached the gateway");
        let left = DAILY_AMOUNT - if way == "release" { 0 } else { 1 };
        check(&pay("B", SINGLE_MAX).await?, 200, "")?;
        check(&pay("C", left - SINGLE_MAX).await?, 200, "")?;
        check(&pay("D", SINGLE_MIN).await?, 429, "DAILY_AMOUNT")?;
        books_agree(stack, &merchant).await?;
    }
    Ok(())
}

/// X6: the same order 120 times. The rule says how many of them reach the gateway, whatever becomes of the others; and none does
/// of a suspended merchant, however often it was admitted before.
async fn x6_repetitions_are_bounded(stack: &mut Stack) -> Result<()> {
    for ((route, path), passed) in ROUTES.into_iter().zip([4, 1]) {
        let payment = Payment::new("replays", &format!("x6-{route}"), SINGLE_MIN).path(path);
        let mut clients = Vec::new();
        for number in 0..12 {
            clients.push(stack.client(Protocol::BOTH[number % 2]).await?);
        }
        let sending: Vec<JoinHandle<Result<usize>>> = clients
            .into_iter()
            .map(|client| {
                let payment = payment.clone();
                tokio::spawn(async move { repeat(client, &payment, 10).await })
            })
            .collect();
        let mut admitted = 0;
        for sending in sending {
            admitted += sending.await??;
        }
        ensure_eq!((admitted, stack.gateway.seen_order(&format!("x6-{route}")).len()), (passed, passed), "{route}");
    }
    let merchant = json!({"merchant_id": "replays", "currency": "USD", "reason": "x6"});
    operate(stack, "suspend", merchant.clone()).await?;
    for (route, path) in ROUTES {
        let payment = Payment::new("replays", &format!("x6-{route}"), SINGLE_MIN).path(path);
        let answer = stack.send(Protocol::Http1, payment.call()).await?;
        check(&answer, 403, "SUSPENDED")?;
        ensure_eq!(answer.json()["details"]["suspended"], "account");
    }
    operate(stack, "resume", merchant).await?;
    let payment = Payment::new("replays", "x6-wasm", SINGLE_MIN).path("/v1/payments");
    check(&stack.send(Protocol::Http1, payment.call()).await?, 409, "REPLAY_REFUSED")
}

/// Sends a payment again and again; gives how often it passed.
async fn repeat(mut client: Client, payment: &Payment, times: usize) -> Result<usize> {
    let mut admitted = 0;
    for _ in 0..times {
        let answer = client.send(payment.call()).await?;
        match (answer.status, answer.code().as_str()) {
            (200, "") => admitted += 1,
            (409, "REPLAY_REFUSED") => {}
            other => return Err(Failure::new(format!("{other:?}"))),
        }
    }
    Ok(admitted)
}

/// B7: while 64 clients pay in several currencies on both routes, the merchant is suspended as a whole. What is sent after that
/// answer is refused, first payments and repetitions, also in a currency that was never used.
async fn b7_nothing_is_admitted_after(stack: &mut Stack) -> Result<()> {
    let state = Arc::new(Race::default());
    let mut running = Vec::new();
    for number in 0..CLIENTS {
        let client = stack.client(Protocol::BOTH[number % 2]).await?;
        running.push(tokio::spawn(pay(client, number, Arc::clone(&state))));
    }
    wait::until_async("payments before the suspension", PAID_WITHIN, || async {
        Ok((state.paid.load(Ordering::Relaxed) >= PAID_BEFORE).then_some(()))
    })
    .await?;
    let answer = operate(stack, "suspend", json!({"merchant_id": "fraud", "reason": "stolen cards"})).await?;
    let suspended = Instant::now();
    let expected =
        json!({"code": "APPLIED", "replay": false, "is_suspended": true, "merchant_id": "fraud", "version": 1});
    ensure_eq!(differences("", &answer, &expected), Vec::<String>::new());
    // A few more of each client.
    let refused = state.refused.load(Ordering::Relaxed);
    wait::until_async("refusals after the suspension", PAID_WITHIN, || async {
        Ok((state.refused.load(Ordering::Relaxed) >= refused + 4 * CLIENTS).then_some(()))
    })
    .await?;
    state.stop.store(true, Ordering::Relaxed);
    for running in running {
        let late = running.await??.into_iter().filter(|sent| *sent > suspended).count();
        ensure_eq!(late, 0, "admitted although they were sent after the suspension");
    }
    for (_, path) in ROUTES {
        let unused = Payment::new("fraud", "b7-unused", SINGLE_MIN).currency("CHF").path(path);
        let answer = stack.send(Protocol::Http1, unused.call()).await?;
        check(&answer, 403, "SUSPENDED")?;
        ensure_eq!(answer.json()["details"]["suspended"], "merchant");
    }
    operate(stack, "resume", json!({"merchant_id": "fraud", "reason": "cleared"})).await?;
    let again = Payment::new("fraud", "b7-unused", SINGLE_MIN).currency("CHF");
    check(&stack.send(Protocol::Http1, again.call()).await?, 200, "")?;
    journal_is_whole(stack).await
}

#[derive(Default)]
struct Race {
    stop: AtomicBool,
    paid: std::sync::atomic::AtomicUsize,
    refused: std::sync::atomic::AtomicUsize,
}

/// Pays, every other time an order that was paid before; gives when those were sent that passed.
async fn pay(mut client: Client, number: usize, state: Arc<Race>) -> Result<Vec<Instant>> {
    let mut passed = Vec::new();
    let mut round = 0;
    while !state.stop.load(Ordering::Relaxed) {
        let currency = CURRENCIES[number % CURRENCIES.len()];
        let (_, path) = ROUTES[number / 2 % ROUTES.len()];
        let order = format!("b7-{number}-{}", round / 2);
        let payment = Payment::new("fraud", &order, SINGLE_MIN).currency(currency).path(path);
        let sent = Instant::now();
        let answer = client.send(payment.call()).await?;
        match (answer.status, answer.code().as_str()) {
            (200, "") => {
                passed.push(sent);
                state.paid.fetch_add(1, Ordering::Relaxed);
            }
            (403, "SUSPENDED") => drop(state.refused.fetch_add(1, Ordering::Relaxed)),
            other => return Err(Failure::new(format!("{order}: {other:?}"))),
        }
        round += 1;
    }
    Ok(passed)
}
