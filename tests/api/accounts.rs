//! Accounts changed by hand, and accounts as they are shown.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::api::{Api, Caller, expect};
use testkit::{Result, wait};

use crate::charges::{account, charge, question};
use crate::suite::Suite;

/// How long the journal may take to report what it knows.
pub(crate) const REPORTED_WITHIN: Duration = Duration::from_secs(30);

pub(crate) fn add(suite: &mut Suite) {
    suite.add("accounts::every_counter_is_adjusted_with_a_reason_and_a_version", adjusted);
    suite.add("accounts::a_reset_empties_its_window_with_all_counters", reset);
    suite.add("accounts::a_suspended_account_takes_no_charges_and_goes_on_with_the_rest", suspended);
    suite.add("accounts::b7_a_merchant_is_suspended_as_a_whole", b7_a_merchant_is_suspended_as_a_whole);
    suite.add("accounts::an_account_is_initialized_once", initialized);
    suite.add("accounts::a_merchant_has_an_account_for_each_currency", currencies);
    suite.add("accounts::accounts_are_listed_in_pages_with_filters", listed);
    suite.add("accounts::stats_sum_up_accounts_by_currency_and_day", stats);
}

fn of(merchant: &str, more: &Value) -> Value {
    let mut body = json!({"merchant_id": merchant, "currency": "USD"});
    body.as_object_mut().into_iter().for_each(|body| body.extend(more.as_object().cloned().unwrap_or_default()));
    body
}

fn adjust(merchant: &str, counter: &str, operation: &str, amount: u64) -> Value {
    of(merchant, &json!({"counter": counter, "operation": operation, "amount": amount, "reason": "found by a count"}))
}

async fn adjusted(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "adjusted";
    let counters = [
        "daily_used",
        "monthly_used",
        "yearly_used",
        "pending_amount",
        "refunded_today",
        "refunded_month",
        "refunded_year",
        "transactions_today",
        "transactions_month",
        "transactions_year",
    ];
    for (number, counter) in (1_u64..).zip(counters) {
        let steps = [("add", 900, 900), ("subtract", 200, 700), ("set", 40 + number, 40 + number)];
        for (operation, amount, after) in steps {
            let body = adjust(m, counter, operation, amount);
            expect(&ana.post("/quotas/adjust", &body).await?, 200, &json!({"code": "APPLIED", counter: after}));
        }
        expect(
            &ana.post("/quotas/adjust", &adjust(m, counter, "subtract", 1_000)).await?,
            400,
            &json!({"code": "BAD_AMOUNT"}),
        );
    }
    let all: serde_json::Map<String, Value> =
        (1_u64..).zip(counters).map(|(number, counter)| (counter.to_owned(), json!(40 + number))).collect();
    account(&ana, m, &Value::Object(all)).await?;

    // Of two changes that were decided on one version, one is made.
    let mut body = adjust(m, "daily_used", "set", 5);
    body["expected_version"] = 30.into();
    expect(&ana.post("/quotas/adjust", &body).await?, 200, &json!({"daily_used": 5, "version": 31}));
    body["amount"] = 6.into();
    expect(&ana.post("/quotas/adjust", &body).await?, 409, &json!({"code": "VERSION_CONFLICT"}));
    account(&ana, m, &json!({"daily_used": 5, "version": 31})).await?;
    let row = crate::usage_logs::of_merchant(&ana, m, "?code=VERSION_CONFLICT", 1).await?.remove(0);
    let expected = json!({"action_type": "adjust", "success": false, "code": "VERSION_CONFLICT", "operator_id": "ana",
        "operator_type": "admin", "reason": "found by a count", "counter": "daily_used", "expected_version": 30});
    assert_eq!(testkit::api::differences("", &row, &expected), [""; 0]);
    Ok(())
}

async fn reset(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "reset";
    expect(&ana.post("/quotas/consume", &charge(m, "1", 5_000)).await?, 200, &json!({"transactions_today": 1}));
    let refund = of(m, &json!({"order_no": "1", "refund_no": "r1", "amount": 1_000}));
    expect(&ana.post("/quotas/refund", &refund).await?, 200, &json!({"daily_used": 4_000, "refunded_today": 1_000}));
    let day = json!({"daily_used": 0, "transactions_today": 0, "refunded_today": 0});
    let month = json!({"monthly_used": 0, "transactions_month": 0, "refunded_month": 0});
    let year = json!({"yearly_used": 0, "transactions_year": 0, "refunded_year": 0});
    let rest = json!({"monthly_used": 4_000, "yearly_used": 4_000, "transactions_month": 1, "refunded_month": 1_000});
    let body = |window: &str| of(m, &json!({"window": window, "reason": "a new contract"}));
    let daily = expect(&ana.post("/quotas/reset", &body("daily")).await?, 200, &day);
    assert_eq!(testkit::api::differences("", &daily, &rest), [""; 0]);
    expect(&ana.post("/quotas/reset", &body("monthly")).await?, 200, &month);
    expect(&ana.post("/quotas/reset", &body("yearly")).await?, 200, &year);
    // What was consumed before a reset is not returned into what came after it.
    expect(&ana.post("/quotas/consume", &charge(m, "2", 700)).await?, 200, &json!({"daily_used": 700}));
    expect(
        &ana.post("/quotas/release", &charge(m, "1", 4_000)).await?,
        200,
        &json!({"daily_used": 700, "refunded_today": 4_000}),
    );
    let all = expect(&ana.post("/quotas/reset", &body("all")).await?, 200, &day);
    for window in [&month, &year] {
        assert_eq!(testkit::api::differences("", &all, window), [""; 0]);
    }
    let mut stale = body("all");
    stale["expected_version"] = 1.into();
    expect(&ana.post("/quotas/reset", &stale).await?, 409, &json!({"code": "VERSION_CONFLICT"}));
    Ok(())
}

async fn suspended(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "suspended";
    expect(&ana.post("/quotas/consume", &charge(m, "1", 5_000)).await?, 200, &json!({"is_suspended": false}));
    expect(&ana.post("/quotas/hold", &charge(m, "2", 3_000)).await?, 200, &json!({"is_suspended": false}));
    let body = of(m, &json!({"reason": "chargebacks"}));
    expect(&ana.post("/quotas/suspend", &body).await?, 200, &json!({"is_suspended": true, "replay": false}));
    expect(&ana.post("/quotas/suspend", &body).await?, 200, &json!({"is_suspended": true, "replay": true}));
    for path in ["/quotas/consume", "/quotas/hold"] {
        expect(&ana.post(path, &charge(m, "3", 500)).await?, 403, &json!({"code": "SUSPENDED"}));
    }
    expect(&ana.post("/quotas/check", &question(m, 500)).await?, 200, &json!({"allowed": false, "code": "SUSPENDED"}));
    let settle = of(m, &json!({"order_no": "2"}));
    expect(&ana.post("/quotas/settle", &settle).await?, 200, &json!({"pending_amount": 0}));
    expect(&ana.post("/quotas/release", &charge(m, "1", 5_000)).await?, 200, &json!({"daily_used": 3_000}));
    let shown = reported(&ana, m, |account| account["suspended_by"] == "ana").await?;
    let members = json!({"is_suspended": true, "suspended_reason": "chargebacks", "suspended_by": "ana", "last_updated_by": "ana"});
    assert_eq!(testkit::api::differences("", &shown, &members), [""; 0]);
    assert!(shown["suspended_at"].is_string(), "{shown}");
    expect(
        &ana.post("/quotas/resume", &of(m, &json!({"reason": "settled"}))).await?,
        200,
        &json!({"is_suspended": false}),
    );
    expect(&ana.post("/quotas/consume", &charge(m, "3", 500)).await?, 200, &json!({"daily_used": 3_500}));
    let none = json!({"is_suspended": false, "suspended_at": null, "suspended_by": null, "suspended_reason": null});
    account(&ana, m, &none).await
}

/// B7: without a currency the merchant is suspended as a whole, in currencies that it has and that it has not; its accounts, each by
/// itself, besides.
async fn b7_a_merchant_is_suspended_as_a_whole(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "whole";
    let pay = |order: &str, currency: &str| {
        let mut body = charge(m, order, 500);
        body["currency"] = currency.into();
        body
    };
    for currency in ["USD", "EUR"] {
        expect(&ana.post("/quotas/consume", &pay(currency, currency)).await?, 200, &json!({"is_suspended": false}));
    }
    let body = json!({"merchant_id": m, "reason": "stolen cards"});
    let applied = json!({"success": true, "code": "APPLIED", "replay": false, "merchant_id": m, "is_suspended": true, "version": 1});
    let answer = expect(&ana.post("/quotas/suspend", &body).await?, 200, &applied);
    assert!(answer["suspended_at"].is_string() && answer.get("currency").is_none(), "{answer}");
    expect(&ana.post("/quotas/suspend", &body).await?, 200, &json!({"replay": true, "version": 1}));
    // A first payment, one in a currency that was never used, and the repetition of one that was admitted.
    for (order, currency) in [("new", "USD"), ("new", "JPY"), ("USD", "USD"), ("EUR", "EUR")] {
        let refused =
            json!({"code": "SUSPENDED", "details": {"suspended": "merchant"}, "detail": "The merchant is suspended."});
        expect(&ana.post("/quotas/consume", &pay(order, currency)).await?, 403, &refused);
    }
    let own = json!({"merchant_id": m, "currency": "EUR", "reason": "another reason"});
    expect(&ana.post("/quotas/suspend", &own).await?, 200, &json!({"currency": "EUR", "is_suspended": true}));
    b7_both_are_shown(&ana, m).await?;
    // Each is ended by its own word. What gives back goes on.
    expect(
        &ana.post("/quotas/release", &pay("USD", "USD")).await?,
        200,
        &json!({"daily_used": 0, "is_suspended": true}),
    );
    let body = json!({"merchant_id": m, "reason": "cleared"});
    expect(
        &ana.post("/quotas/resume", &body).await?,
        200,
        &json!({"is_suspended": false, "suspended_at": null, "version": 2}),
    );
    let refused = json!({"code": "SUSPENDED", "details": {"suspended": "account"}});
    expect(&ana.post("/quotas/consume", &pay("new", "EUR")).await?, 403, &refused);
    expect(&ana.post("/quotas/consume", &pay("new", "JPY")).await?, 200, &json!({"is_suspended": false}));
    // Of a merchant without any account: it is shown all the same, and a batch takes the word too.
    let batch = json!({"operations": [{"action": "suspend", "merchant_id": "whole-none", "reason": "unknown"}]});
    let answer = expect(&ana.post("/quotas/batch", &batch).await?, 200, &json!({"succeeded": 1}));
    assert_eq!(answer["results"][0]["merchant"]["is_suspended"], true, "{answer}");
    let shown = json!({"merchant_id": "whole-none", "is_suspended": true, "accounts": []});
    expect(&ana.get("/quotas/merchant/whole-none").await?, 200, &shown);
    for (body, field) in [
        (json!({"merchant_id": m}), "reason"),
        (json!({"merchant_id": m, "reason": " "}), "reason"),
        (json!({"merchant_id": m, "currency": "", "reason": "r"}), "currency"),
    ] {
        expect(&ana.post("/quotas/suspend", &body).await?, 400, &json!({"field": field}));
    }
    let shop = api.merchant(m)?.post("/quotas/suspend", &json!({"merchant_id": m, "reason": "r"})).await?;
    expect(&shop, 403, &json!({"code": "FORBIDDEN"}));
    Ok(())
}

/// B7: account, merchant, list, stats, alerts and the usage log show who is suspended, since when, why and by whom.
async fn b7_both_are_shown(ana: &Caller, m: &str) -> Result<()> {
    let whole = json!({"is_suspended": true, "is_merchant_suspended": true, "suspended_at": null, "suspended_by": null,
        "merchant_suspended_reason": "stolen cards", "merchant_suspended_by": "ana"});
    let shown = reported(ana, m, |account| account["merchant_suspended_by"] == "ana").await?;
    assert_eq!(testkit::api::differences("", &shown, &whole), [""; 0]);
    assert!(shown["merchant_suspended_at"].is_string(), "{shown}");
    let both = wait::until_async("both suspensions of an account", REPORTED_WITHIN, || async {
        let account = ana.get(&format!("/quotas/merchant/{m}/currency/EUR")).await?.json();
        Ok(Some(account).filter(|account| account["suspended_by"] == "ana"))
    })
    .await?;
    let members = json!({"suspended_reason": "another reason", "merchant_suspended_reason": "stolen cards"});
    assert_eq!(testkit::api::differences("", &both, &members), [""; 0]);
    let merchant = json!({"is_suspended": true, "suspended_reason": "stolen cards", "suspended_by": "ana"});
    let all = expect(&ana.get(&format!("/quotas/merchant/{m}")).await?, 200, &merchant);
    assert_eq!(all["accounts"].as_array().map(Vec::len), Some(2), "{all}");
    for (query, items) in [("is_suspended=true", 2), ("is_merchant_suspended=true", 2), ("is_suspended=false", 0)] {
        wait_for_list(ana, &format!("?merchant_id={m}&{query}"), items).await?;
    }
    let stats = expect(&ana.get("/quotas/stats").await?, 200, &json!({}));
    assert!(stats["suspended_merchants"].as_u64() >= Some(1), "{stats}");
    let alerts = wait::until_async("the alert of a merchant", REPORTED_WITHIN, || async {
        let alerts = expect(&ana.get(&format!("/alerts/merchant/{m}")).await?, 200, &json!({}));
        let items = alerts["items"].as_array().cloned().unwrap_or_default();
        Ok(Some(items).filter(|items| items.len() == 2))
    })
    .await?;
    let of_merchant: Vec<&Value> = alerts.iter().filter(|alert| alert["currency"].is_null()).collect();
    let message = "The merchant was suspended in all currencies by ana: stolen cards";
    let expected = json!([{"alert_type": "suspended", "alert_level": "critical", "message": message}]);
    assert_eq!(testkit::api::differences("", &json!(of_merchant), &expected), [""; 0]);
    let logs = expect(&ana.get(&format!("/usage-logs/merchant/{m}?action=suspend_merchant")).await?, 200, &json!({}));
    let row =
        json!([{"action_type": "suspend_merchant", "currency": null, "reason": "stolen cards", "operator_id": "ana"}]);
    assert_eq!(testkit::api::differences("", &logs["items"], &row), [""; 0]);
    Ok(())
}

/// An account when the journal has reported enough of it.
async fn reported(caller: &Caller, merchant: &str, enough: impl Fn(&Value) -> bool) -> Result<Value> {
    wait::until_async("what the journal knows of an account", REPORTED_WITHIN, || async {
        let account = caller.get(&format!("/quotas/merchant/{merchant}/currency/USD")).await?.json();
        Ok(Some(account).filter(|account| enough(account)))
    })
    .await
}

async fn initialized(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let body = of("initialized", &json!({}));
    let first = json!({"code": "APPLIED", "replay": false, "daily_used": 0, "version": 1});
    expect(&ana.post("/quotas/initialize", &body).await?, 200, &first);
    expect(&ana.post("/quotas/initialize", &body).await?, 200, &json!({"replay": true, "version": 1}));
    let listed = wait_for_list(&ana, "?merchant_id=initialized", 1).await?;
    let zero = json!({"merchant_id": "initialized", "currency": "USD", "daily_used": 0, "transactions_today": 0});
    assert_eq!(testkit::api::differences("", &listed[0], &zero), [""; 0]);
    Ok(())
}

async fn currencies(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "polyglot";
    for (currency, amount) in [("USD", 500), ("EUR", 600), ("JPY", 700)] {
        let mut body = charge(m, currency, amount);
        body["currency"] = currency.into();
        body["payment_no"] = format!("P-{currency}").into();
        expect(&ana.post("/quotas/consume", &body).await?, 200, &json!({"daily_used": amount, "currency": currency}));
    }
    let shown = expect(&ana.get("/quotas/merchant/polyglot").await?, 200, &json!({"merchant_id": m}));
    let mut accounts: Vec<(&str, u64)> = Vec::new();
    for account in shown["accounts"].as_array().into_iter().flatten() {
        accounts.push((
            account["currency"].as_str().unwrap_or_default(),
            account["daily_used"].as_u64().unwrap_or_default(),
        ));
    }
    accounts.sort_unstable();
    assert_eq!(accounts, [("EUR", 600), ("JPY", 700), ("USD", 500)]);
    let account = reported(&ana, m, |account| account["last_order_no"].is_string()).await?;
    let members =
        json!({"last_order_no": "USD", "last_payment_no": "P-USD", "last_updated_by": "ana", "is_suspended": false});
    assert_eq!(testkit::api::differences("", &account, &members), [""; 0]);
    for at in ["daily_reset_at", "monthly_reset_at", "yearly_reset_at"] {
        assert!(account[at].is_string(), "{at}: {account}");
    }
    let limit = json!({"name": "daily_amount", "max": 5_000_000, "used": 500, "remaining": 4_999_500});
    assert_eq!(testkit::api::differences("", &account["limits"][0], &limit), [""; 0]);
    Ok(())
}

/// A list when it has so many items: the journal stores accounts some time after their events.
pub(crate) async fn wait_for_list(caller: &Caller, query: &str, items: usize) -> Result<Vec<Value>> {
    wait::until_async("a list of accounts", REPORTED_WITHIN, || async {
        let page = expect(&caller.get(&format!("/quotas/list{query}")).await?, 200, &json!({}));
        let listed = page["items"].as_array().cloned().unwrap_or_default();
        Ok(Some(listed).filter(|listed| listed.len() == items))
    })
    .await
}

async fn listed(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "listed";
    // Lists are ordered by merchant and currency.
    let currencies = ["AUD", "CHF", "EUR", "GBP", "USD"];
    for currency in currencies {
        let mut body = charge(m, currency, 500);
        body["currency"] = currency.into();
        expect(&ana.post("/quotas/consume", &body).await?, 200, &json!({"success": true}));
    }
    let suspend = json!({"merchant_id": m, "currency": "GBP", "reason": "a test"});
    expect(&ana.post("/quotas/suspend", &suspend).await?, 200, &json!({"is_suspended": true}));
    wait_for_list(&ana, "?merchant_id=listed&is_suspended=true", 1).await?;
    let all = wait_for_list(&ana, "?merchant_id=listed", 5).await?;
    let names: Vec<&Value> = all.iter().map(|account| &account["currency"]).collect();
    assert_eq!(names, currencies);
    assert_eq!(wait_for_list(&ana, "?merchant_id=listed&currency=EUR", 1).await?[0]["currency"], "EUR");
    assert_eq!(wait_for_list(&ana, "?merchant_id=listed&is_suspended=false", 4).await?.len(), 4);

    let (mut read, mut cursor, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page =
            expect(&ana.get(&format!("/quotas/list?merchant_id=listed&limit=2{cursor}")).await?, 200, &json!({}));
        read.extend(page["items"].as_array().cloned().unwrap_or_default());
        pages += 1;
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!((pages, read.len()), (3, 5));
    assert_eq!(read.iter().map(|account| &account["currency"]).collect::<Vec<_>>(), currencies);
    for (query, field) in [
        ("?cursor=nonsense", "cursor"),
        ("?limit=0", "limit"),
        ("?limit=100000", "limit"),
        ("?is_suspended=maybe", "is_suspended"),
        ("?currency=XYZ", "currency"),
        ("?merchant_id=a:b", "merchant_id"),
        ("?page=2", "page"),
    ] {
        expect(&ana.get(&format!("/quotas/list{query}")).await?, 400, &json!({"field": field}));
    }
    Ok(())
}

async fn stats(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    // A currency that no other test uses.
    for (merchant, amount) in [("stats-1", 500), ("stats-2", 700)] {
        let mut body = charge(merchant, "1", amount);
        body["currency"] = "NOK".into();
        expect(&ana.post("/quotas/hold", &body).await?, 200, &json!({"success": true}));
    }
    let of_currency = |stats: &Value, list: &str| {
        stats[list].as_array().into_iter().flatten().find(|row| row["currency"] == "NOK").cloned().unwrap_or_default()
    };
    let stats = wait::until_async("stats of two accounts", REPORTED_WITHIN, || async {
        let stats = expect(&ana.get("/quotas/stats").await?, 200, &json!({}));
        let accounts = &of_currency(&stats, "currencies")["accounts"];
        Ok((accounts == 2).then_some(stats))
    })
    .await?;
    let currency = json!({"accounts": 2, "suspended_accounts": 0, "pending_amount": 1_200});
    assert_eq!(testkit::api::differences("", &of_currency(&stats, "currencies"), &currency), [""; 0]);
    let day = json!({"accounts": 2, "daily_used": 1_200, "transactions_today": 2, "refunded_today": 0});
    assert_eq!(testkit::api::differences("", &of_currency(&stats, "days"), &day), [""; 0]);
    // A merchant's own.
    let own = expect(&api.merchant("stats-1")?.get("/quotas/stats").await?, 200, &json!({}));
    assert_eq!(own["currencies"].as_array().map(Vec::len), Some(1), "{own}");
    assert_eq!(own["currencies"][0]["pending_amount"], 500, "{own}");
    Ok(())
}
