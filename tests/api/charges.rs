//! `check` and `consume`: what is answered, what is refused and how, and what no request is.

use serde_json::{Value, json};
use testkit::api::{Api, Caller, expect};
use testkit::client::{Call, Part};
use testkit::{Result, wait};

use crate::accounts::REPORTED_WITHIN;
use crate::suite::Suite;

pub(crate) fn add(suite: &mut Suite) {
    suite.add("charges::a_check_consumes_nothing_and_states_what_is_left", a_check_consumes_nothing);
    suite.add("charges::an_order_is_consumed_once", an_order_is_consumed_once);
    suite.add("charges::refusals_have_the_status_code_and_figures_of_the_proxy", refusals);
    suite.add("charges::a_refusal_states_what_stands_in_the_way", a_refusal_states_what_stands_in_the_way);
    suite.add("charges::the_answer_to_a_paced_payment_states_when_to_come_again", pacing);
    suite.add("charges::what_is_no_request_is_refused_and_consumes_nothing", no_requests);
    suite.add("charges::an_idempotency_key_repeats_the_first_answer", idempotency_key);
}

/// A body that consumes.
pub(crate) fn charge(merchant: &str, order_no: &str, amount: u64) -> Value {
    json!({"merchant_id": merchant, "order_no": order_no, "amount": amount, "currency": "USD"})
}

/// A body that checks.
pub(crate) fn question(merchant: &str, amount: u64) -> Value {
    json!({"merchant_id": merchant, "amount": amount, "currency": "USD"})
}

async fn a_check_consumes_nothing(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let asked = json!({"allowed": true, "code": "ADMITTED", "remaining_daily": 450_000, "remaining_monthly": 99_950_000,
        "remaining_yearly": null, "binding_limit": "daily_amount", "fits": 10});
    for _ in 0..2 {
        let answer = ana.post("/quotas/check", &question("figures", 50_000)).await?;
        let body = expect(&answer, 200, &asked);
        let names: Vec<&Value> = body["limits"].as_array().into_iter().flatten().map(|limit| &limit["name"]).collect();
        assert_eq!(names, ["daily_amount", "monthly_amount"]);
        assert!(body["resets_at"].is_string(), "{body}");
    }
    assert_eq!(ana.get("/quotas/merchant/figures").await?.status, 404, "no check makes an account");
    expect(&ana.post("/quotas/consume", &charge("figures", "1", 460_000)).await?, 200, &json!({"success": true}));
    let refused = json!({"allowed": false, "code": "DAILY_AMOUNT", "remaining_daily": 40_000, "binding_limit": "daily_amount",
        "fits": 0});
    let body = expect(&ana.post("/quotas/check", &question("figures", 50_000)).await?, 200, &refused);
    assert!(body["resets_at"].is_string(), "{body}");
    let hard = json!({"allowed": false, "code": "BELOW_SINGLE_MIN", "fits": 0});
    expect(&ana.post("/quotas/check", &question("figures", 99)).await?, 200, &hard);
    Ok(())
}

async fn an_order_is_consumed_once(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let mut body = charge("once", "1", 50_000);
    body["payment_no"] = "P-1".into();
    body["channel"] = "card".into();
    body["remarks"] = "first".into();
    body["metadata"] = json!({"shop": [1, 2]});
    let counters = json!({"daily_used": 50_000, "monthly_used": 50_000, "yearly_used": 50_000, "pending_amount": 0,
        "transactions_today": 1, "transactions_month": 1, "transactions_year": 1, "refunded_today": 0, "version": 1});
    let first = expect(&ana.post("/quotas/consume", &body).await?, 200, &counters);
    let members = json!({"success": true, "code": "ADMITTED", "replay": false, "merchant_id": "once", "currency": "USD",
        "amount": 50_000, "is_suspended": false, "order": {"order_no": "1", "state": "charged", "amount": 50_000}});
    assert_eq!(testkit::api::differences("", &first, &members), [""; 0]);
    assert!(first["policy_version"].as_str().is_some_and(|version| version.starts_with("api#")), "{first}");

    let again = expect(&ana.post("/quotas/consume", &charge("once", "1", 50_000)).await?, 200, &counters);
    assert_eq!((&again["replay"], &again["decision_id"]), (&json!(true), &first["decision_id"]));
    let conflict = json!({"code": "IDEMPOTENCY_CONFLICT"});
    expect(&ana.post("/quotas/consume", &charge("once", "1", 50_001)).await?, 409, &conflict);
    body["currency"] = "EUR".into();
    expect(&ana.post("/quotas/consume", &body).await?, 409, &conflict);
    expect(&ana.post("/quotas/hold", &charge("once", "1", 50_000)).await?, 409, &conflict);
    expect(&ana.get("/quotas/merchant/once/currency/USD").await?, 200, &counters);
    assert_eq!(ana.get("/quotas/merchant/once/currency/EUR").await?.status, 404);
    // Numbers are each merchant's own.
    expect(&ana.post("/quotas/consume", &charge("once-more", "1", 700)).await?, 200, &json!({"daily_used": 700}));
    Ok(())
}

async fn refusals(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let with = |mut body: Value, name: &str, value: &str| {
        body[name] = value.into();
        body
    };
    let hard = [
        (charge("hard", "1", 99), "BELOW_SINGLE_MIN"),
        (charge("hard", "1", 1_000_001), "ABOVE_SINGLE_MAX"),
        (charge("choosy", "1", 500), "CHANNEL_NOT_ALLOWED"),
        (with(charge("choosy", "1", 500), "channel", "cash"), "CHANNEL_NOT_ALLOWED"),
        (with(charge("choosy", "1", 501), "channel", "wallet"), "ABOVE_SINGLE_MAX"),
        (with(with(charge("choosy", "1", 500), "channel", "card"), "currency", "JPY"), "CURRENCY_NOT_ALLOWED"),
    ];
    for (body, code) in hard {
        let answer = ana.post("/quotas/consume", &body).await?;
        let problem =
            expect(&answer, 403, &json!({"code": code, "type": format!("urn:sluice:problem:{}", code.to_lowercase())}));
        assert_eq!((answer.header("retry-after"), problem.get("limit")), (None, None), "time does not lift {code}");
        assert!(problem["decision_id"].is_string(), "{problem}");
    }
    let amount = |name: &'static str| json!({"name": name, "max": 1_500, "used": 1_000, "remaining": 500});
    let count = |name: &'static str| json!({"name": name, "max": 1, "used": 1, "remaining": 0});
    let lifted_by_time = [
        ("limited-daily", "DAILY_AMOUNT", amount("daily_amount")),
        ("limited-monthly", "MONTHLY_AMOUNT", amount("monthly_amount")),
        ("limited-yearly", "YEARLY_AMOUNT", amount("yearly_amount")),
        ("limited-daily-count", "DAILY_COUNT", count("daily_count")),
        ("limited-monthly-count", "MONTHLY_COUNT", count("monthly_count")),
        ("limited-yearly-count", "YEARLY_COUNT", count("yearly_count")),
    ];
    for (merchant, code, limit) in lifted_by_time {
        let first =
            expect(&ana.post("/quotas/consume", &charge(merchant, "1", 1_000)).await?, 200, &json!({"version": 1}));
        let answer = ana.post("/quotas/consume", &charge(merchant, "2", 501)).await?;
        let problem = expect(&answer, 429, &json!({"code": code, "limit": limit}));
        let wait: u64 = answer.header("retry-after").unwrap_or_default().parse()?;
        let resets_at = problem["limit"]["resets_at"].as_str().unwrap_or_default();
        assert!(wait >= 1 && resets_at.ends_with('Z'), "{wait} {problem}");
        let account = ana.get(&format!("/quotas/merchant/{merchant}/currency/USD")).await?;
        let untouched = json!({"daily_used": 1_000, "transactions_today": 1, "version": first["version"]});
        expect(&account, 200, &untouched);
    }
    // A refused order may be tried again, with what fits.
    expect(&ana.post("/quotas/consume", &charge("limited-daily", "2", 500)).await?, 200, &json!({"daily_used": 1_500}));
    Ok(())
}

/// The bound that was passed, what is allowed, and the first amount of the order: in the problem and in the usage log.
async fn a_refusal_states_what_stands_in_the_way(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let m = "telling";
    expect(&ana.post("/quotas/consume", &charge(m, "1", 1_000)).await?, 200, &json!({}));
    expect(&ana.post("/quotas/hold", &charge(m, "2", 1_000)).await?, 200, &json!({}));
    let of = |order: &str, more: Value| {
        let mut body = json!({"merchant_id": m, "currency": "USD", "order_no": order});
        body.as_object_mut().into_iter().for_each(|body| body.extend(more.as_object().cloned().unwrap_or_default()));
        body
    };
    let refund = |amount: u64| of("1", json!({"refund_no": "r", "amount": amount}));
    expect(&ana.post("/quotas/refund", &refund(300)).await?, 200, &json!({}));
    let in_yen = json!({"merchant_id": m, "currency": "JPY", "order_no": "1", "amount": 1_000});
    let down = json!({"merchant_id": m, "currency": "USD", "counter": "daily_used", "operation": "subtract", "amount": 1_701,
        "reason": "too much"});
    let choosy = |channel: &str, amount: u64| {
        let mut body = charge("choosy", "telling", amount);
        body["channel"] = channel.into();
        body
    };
    let usd = |amount: u64| format!("{amount} minor units of USD.");
    let table = [
        (
            "consume",
            charge(m, "9", 99),
            "BELOW_SINGLE_MIN",
            json!({"single_min": 100}),
            format!("The minimum for one payment is {}", usd(100)),
        ),
        (
            "hold",
            charge(m, "9", 1_000_001),
            "ABOVE_SINGLE_MAX",
            json!({"single_max": 1_000_000}),
            format!("The maximum for one payment is {}", usd(1_000_000)),
        ),
        (
            "consume",
            choosy("wallet", 501),
            "ABOVE_SINGLE_MAX",
            json!({"single_max": 500}),
            format!("The maximum for one payment is {}", usd(500)),
        ),
        (
            "consume",
            choosy("cash", 500),
            "CHANNEL_NOT_ALLOWED",
            json!({"allowed_channels": ["card", "wallet"]}),
            "Allowed channels: card, wallet.".to_owned(),
        ),
        (
            "hold",
            charge(m, "2", 1_001),
            "IDEMPOTENCY_CONFLICT",
            json!({"first_amount": 1_000, "first_currency": "USD"}),
            format!("The first request was for {}", usd(1_000)),
        ),
        (
            "refund",
            refund(301),
            "IDEMPOTENCY_CONFLICT",
            json!({"first_amount": 300, "first_currency": "USD"}),
            format!("The first request was for {}", usd(300)),
        ),
        (
            "refund",
            {
                let mut body = in_yen;
                body["refund_no"] = "y".into();
                body
            },
            "IDEMPOTENCY_CONFLICT",
            json!({"first_amount": 1_000, "first_currency": "USD"}),
            format!("The first request was for {}", usd(1_000)),
        ),
        (
            "adjust",
            down,
            "BAD_AMOUNT",
            json!({"counter": "daily_used", "value": 1_700, "would_be": -1}),
            "daily_used is 1700 and would become -1, which is not 0 to 9007199254740991.".to_owned(),
        ),
    ];
    for (operation, body, code, details, detail) in table {
        let answer = ana.post(&format!("/quotas/{operation}"), &body).await?;
        let problem = expect(&answer, answer.status, &json!({"code": code, "details": details, "detail": detail}));
        let id = problem["decision_id"].as_str().unwrap_or_default().to_owned();
        wait::until_async("the refusal in the usage log", REPORTED_WITHIN, || async {
            let merchant = body["merchant_id"].as_str().unwrap_or_default();
            let rows = ana.get(&format!("/usage-logs/merchant/{merchant}?success=false")).await?.json();
            let rows = rows["items"].as_array().cloned().unwrap_or_default();
            let row = rows.into_iter().find(|row| row["event_id"] == id.as_str());
            Ok(row.map(|row| assert_eq!(row["failure_details"], details, "{row}")))
        })
        .await?;
    }
    Ok(())
}

async fn pacing(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    expect(&ana.post("/quotas/consume", &charge("paced", "1", 1_000)).await?, 200, &json!({"code": "ADMITTED"}));
    expect(&ana.post("/quotas/consume", &charge("paced", "2", 100)).await?, 200, &json!({"daily_used": 1_100}));
    let answer = ana.post("/quotas/consume", &charge("paced", "3", 100)).await?;
    expect(&answer, 429, &json!({"code": "THROTTLED"}));
    let wait: u64 = answer.header("retry-after").unwrap_or_default().parse()?;
    assert!((1..=60).contains(&wait), "one a minute: {wait}");
    let answer = ana.post("/quotas/consume", &charge("paced", "4", 1_901)).await?;
    expect(&answer, 429, &json!({"code": "DAILY_AMOUNT", "limit": {"used": 1_100}}));
    Ok(())
}

/// What is wrong, the path, the body, and the answer's status, code and field.
type Slip = (&'static str, &'static str, Value, u16, &'static str, Option<&'static str>);

fn slips() -> Vec<Slip> {
    let with = |name: &str, value: Value| {
        let mut body = charge("slips", "1", 500);
        body[name] = value;
        body
    };
    let consume = |what, name, value, code| (what, "/quotas/consume", with(name, value), 400, code, Some(name));
    let bad = "BAD_REQUEST";
    let at = |path, body, field| ("", path, body, 400, bad, field);
    let of_order = |more: Value| {
        let mut body = json!({"merchant_id": "slips", "currency": "USD", "order_no": "1"});
        body.as_object_mut().into_iter().for_each(|body| body.extend(more.as_object().cloned().unwrap_or_default()));
        body
    };
    vec![
        consume("nothing", "amount", 0.into(), "BAD_AMOUNT"),
        consume("less than nothing", "amount", (-500).into(), "BAD_AMOUNT"),
        consume("more than doubles count", "amount", (1_u64 << 53).into(), "BAD_AMOUNT"),
        consume("more than 63 bits", "amount", u64::MAX.into(), bad),
        consume("a fraction", "amount", json!(500.5), bad),
        consume("a text", "amount", "500".into(), bad),
        consume("no currency", "currency", "XYZ".into(), bad),
        consume("small letters", "currency", "usd".into(), bad),
        consume("no merchant", "merchant_id", "".into(), bad),
        consume("a colon divides keys", "merchant_id", "a:b".into(), bad),
        consume("a long merchant", "merchant_id", "m".repeat(65).into(), bad),
        consume("a long order", "order_no", "o".repeat(129).into(), bad),
        consume("no channel", "channel", "a card".into(), bad),
        consume("long remarks", "remarks", "r".repeat(1025).into(), bad),
        consume("NUL", "remarks", "a\0b".into(), bad),
        consume("a list for an object", "metadata", json!([]), bad),
        consume("much metadata", "metadata", json!({"a": "x".repeat(5000)}), bad),
        consume("an unknown field", "amonut", 500.into(), bad),
        consume("the actor is the token's", "operator_id", "boss".into(), bad),
        consume("the actor is the token's", "operator_type", "system".into(), bad),
        at("/quotas/check", json!({"merchant_id": "slips", "currency": "USD"}), Some("amount")),
        at("/quotas/settle", of_order(json!({"final": false})), Some("capture_no")),
        at("/quotas/refund", of_order(json!({})), Some("refund_no")),
        at("/quotas/refund", of_order(json!({"refund_no": ""})), Some("refund_no")),
        at("/quotas/void", of_order(json!({"amount": 1})), Some("amount")),
        at(
            "/quotas/reset",
            json!({"merchant_id": "slips", "currency": "USD", "window": "hourly", "reason": "r"}),
            Some("window"),
        ),
        at("/quotas/suspend", json!({"merchant_id": "slips", "currency": "USD", "reason": " "}), Some("reason")),
        at("/quotas/initialize", json!({"merchant_id": "slips", "currency": "USD", "reason": "r"}), Some("reason")),
        at("/quotas/batch", json!({"operations": []}), Some("operations")),
    ]
}

async fn no_requests(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    for (what, path, body, status, code, field) in slips() {
        let answer = ana.post(path, &body).await?;
        let problem = answer.json();
        let found = (answer.status, problem["code"].as_str().unwrap_or_default(), problem["field"].as_str());
        assert_eq!(found, (status, code, field), "{what} {path} {body}: {problem}");
    }
    let text = charge("slips", "1", 500).to_string();
    let post = |body: &str| Call::post_json("/quotas/consume", body.to_owned());
    let untyped = |body: &str| Call::new("POST", "/quotas/consume").part(Part::Data(body.to_owned().into()));
    let long = format!("{{\"remarks\": \"{}\"}}", "x".repeat(1 << 20));
    let calls = [
        (untyped(&text).header("content-type", "text/plain"), 415, "UNSUPPORTED_CONTENT"),
        (untyped(&text).header("content-type", "application/x-www-form-urlencoded"), 415, "UNSUPPORTED_CONTENT"),
        // What names no type is read as JSON.
        (untyped(&text[1..]), 400, "BAD_REQUEST"),
        (post(&text[1..]), 400, "BAD_REQUEST"),
        (post(&format!("{text}{text}")), 400, "BAD_REQUEST"),
        (post(&text.replace("500", "500,\"amount\":600")), 400, "BAD_REQUEST"),
        (post(""), 400, "BAD_REQUEST"),
        (post("[]"), 400, "BAD_REQUEST"),
        (post(&long), 413, "BODY_TOO_LARGE"),
        (Call::new("GET", "/quotas/consume"), 405, "METHOD_NOT_ALLOWED"),
        (Call::new("GET", "/quotas/nonsense"), 404, "NOT_FOUND"),
        (Call::new("GET", "/quotas/merchant/a:b"), 400, "BAD_REQUEST"),
        (Call::new("GET", "/quotas/merchant/slips/currency/XYZ"), 400, "BAD_REQUEST"),
    ];
    for (call, status, code) in calls {
        let (method, path) = (call.method.clone(), call.path.clone());
        let answer = ana.send(call).await?;
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path}");
    }
    assert_eq!(ana.get("/quotas/merchant/slips").await?.status, 404, "none of them made an account");
    Ok(())
}

async fn idempotency_key(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let add = json!({"merchant_id": "keyed", "currency": "USD", "counter": "daily_used", "operation": "add", "amount": 700,
        "reason": "imported"});
    let call = Call::post_json("/quotas/adjust", add.to_string()).header("idempotency-key", "import-7");
    let first = ana.send(call.clone()).await?;
    expect(&first, 200, &json!({"code": "APPLIED", "daily_used": 700}));
    let again = ana.send(call.clone()).await?;
    assert_eq!((again.status, &again.body), (200, &first.body));
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), (None, Some("true")));
    let other = call.clone().part(Part::Data(" ".into()));
    expect(&ana.send(other).await?, 422, &json!({"code": "IDEMPOTENCY_KEY_REUSED"}));
    // The key is the caller's own.
    expect(&api.operator()?.send(call).await?, 200, &json!({"daily_used": 1_400}));
    account(&ana, "keyed", &json!({"daily_used": 1_400, "version": 2})).await
}

/// Checks a merchant's account in dollars.
pub(crate) async fn account(caller: &Caller, merchant: &str, members: &Value) -> Result<()> {
    let answer = caller.get(&format!("/quotas/merchant/{merchant}/currency/USD")).await?;
    expect(&answer, 200, members);
    Ok(())
}
