//! Transfers of credit: all or nothing, once, within the sender's limit.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use testkit::api::{Api, Caller, expect};
use testkit::client::Answer;
use testkit::{Result, wait};

use crate::credit::{consume, known, line, open, patch, path, rows_of};

use crate::suite::Suite;

/// The server reads a line again within a second of the journal.
const KNOWN_WITHIN: Duration = Duration::from_secs(20);

pub(crate) fn add(suite: &mut Suite) {
    suite.add("transfers::credit_moves_from_one_account_to_another_once", once);
    suite.add("transfers::what_the_sender_cannot_give_is_refused_for_good", refused);
    suite.add("transfers::a_line_that_is_past_due_gives_nothing_away", past_due);
    suite.add("transfers::mistakes_name_their_field", mistakes);
    suite.add("transfers::each_side_sees_its_own", own);
    suite.add("transfers::lists_have_what_the_caller_may_see", listed);
}

fn transfer(number: &str, from: &str, to: &str, amount: i64) -> Value {
    json!({"transfer_no": number, "from_merchant_id": from, "to_merchant_id": to, "currency": "USD", "amount": amount,
        "reason": "invited"})
}

async fn exposure(caller: &Caller, merchant: &str) -> Result<i64> {
    let line = caller.get(&path(merchant, "")).await?.json();
    Ok(line["today"]["exposure"].as_i64().unwrap_or(i64::MIN))
}

async fn once(api: &Api) -> Result<()> {
    let oleg = api.operator()?;
    let (from, to) = ("transfers-from", "transfers-to");
    open(api, from, 10_000).await?;
    open(api, to, 1_000).await?;
    let body = transfer("t-1", from, to, 4_000);
    let expected =
        json!({"transfer_no": "t-1", "state": "completed", "code": null, "amount": 4_000, "requested_by": "oleg"});
    let first = expect(&oleg.post("/transfers", &body).await?, 200, &expected);
    let again = expect(&oleg.post("/transfers", &body).await?, 200, &expected);
    assert_eq!(first, again);
    assert_eq!((exposure(&oleg, from).await?, exposure(&oleg, to).await?), (4_000, -4_000));
    expect(&consume(&oleg, to, "1", 5_000).await?, 200, &json!({"credit": {"exposure": 1_000, "available": 0}}));
    expect(&consume(&oleg, from, "1", 6_001).await?, 403, &json!({"code": "CREDIT_EXHAUSTED"}));
    expect(&consume(&oleg, from, "2", 6_000).await?, 200, &json!({"credit": {"unbilled": 10_000}}));
    for (merchant, action, decision) in
        [(from, "transfer_out", "reserve_decision"), (to, "transfer_in", "credit_decision")]
    {
        let rows = rows_of(&oleg, merchant, action).await?;
        assert_eq!(rows.len(), 1, "{merchant}");
        let (id, amount) = (&rows[0]["event_id"], &rows[0]["amount"]);
        assert_eq!(
            (id, amount, &rows[0]["remarks"]),
            (&first[decision], &json!(4_000), &json!("invited")),
            "{merchant}"
        );
    }
    let other = transfer("t-1", from, to, 4_001);
    expect(&oleg.post("/transfers", &other).await?, 409, &json!({"code": "IDEMPOTENCY_CONFLICT"}));
    Ok(())
}

async fn refused(api: &Api) -> Result<()> {
    let oleg = api.operator()?;
    let (from, to) = ("transfers-poor", "transfers-rich");
    open(api, from, 1_000).await?;
    open(api, to, 1_000).await?;
    let body = transfer("t-2", from, to, 1_001);
    let refused = oleg.post("/transfers", &body).await?;
    expect(&refused, 403, &json!({"code": "CREDIT_EXHAUSTED", "credit": {"available": 1_000, "exposure": 0}}));
    expect(&oleg.get("/transfers/t-2").await?, 200, &json!({"state": "refused", "code": "CREDIT_EXHAUSTED"}));
    // With room for it, another number is another transfer; this one stays refused.
    let repayment = json!({"repayment_no": "p-1", "amount": 500});
    expect(&oleg.post(&path(from, "/repayments"), &repayment).await?, 200, &json!({"credit": {"exposure": -500}}));
    expect(&oleg.post("/transfers", &body).await?, 403, &json!({"code": "CREDIT_EXHAUSTED"}));
    assert_eq!((exposure(&oleg, from).await?, exposure(&oleg, to).await?), (-500, 0));
    let body = transfer("t-3", from, to, 1_001);
    expect(&oleg.post("/transfers", &body).await?, 200, &json!({"state": "completed"}));
    assert_eq!((exposure(&oleg, from).await?, exposure(&oleg, to).await?), (501, -1_001));
    Ok(())
}

/// Ten days past due, with room in its limit: what it gave away could come back as a payment of what is due.
async fn past_due(api: &Api) -> Result<()> {
    let (oleg, ana) = (api.operator()?, api.admin()?);
    let (from, to) = ("transfers-late", "transfers-late-friend");
    open(api, to, 1_000).await?;
    let mut draft = line(from, 10_000);
    draft["line"]["taken_over_from"] = json!("2026-01-15");
    expect(&oleg.post("/credit-lines", &draft).await?, 201, &json!({"state": "draft"}));
    for step in ["/approve", "/activate"] {
        expect(&ana.post(&path(from, step), &json!({})).await?, 200, &json!({}));
    }
    known(&ana, from).await?;
    let due_on = (Utc::now() - TimeDelta::days(10)).date_naive();
    let open = json!({"obligations": [{"closed_on": "2026-03-31", "due_on": due_on, "amount": 1_000}]});
    expect(&oleg.post(&path(from, "/obligations"), &open).await?, 200, &json!({}));
    wait::until_async("the server to know what is past due", KNOWN_WITHIN, || async {
        let account = ana.get(&format!("/quotas/merchant/{from}/currency/USD")).await?.json();
        Ok((account["credit"]["limit"] == 7_500).then_some(()))
    })
    .await?;
    expect(&oleg.post("/transfers", &transfer("t-7", from, to, 1)).await?, 403, &json!({"code": "CREDIT_RESTRICTED"}));
    assert_eq!((exposure(&oleg, from).await?, exposure(&oleg, to).await?), (1_000, 0));
    Ok(())
}

async fn mistakes(api: &Api) -> Result<()> {
    let (oleg, ana) = (api.operator()?, api.admin()?);
    let (from, to) = ("transfers-bounded", "transfers-closed");
    open(api, from, 10_000).await?;
    open(api, to, 10_000).await?;
    let bounded = json!({"line": {"terms": {"transfer_max": 500}}});
    expect(&patch(&oleg, &path(from, ""), &bounded).await?, 200, &json!({"state": "draft"}));
    for step in ["/approve", "/activate"] {
        assert_eq!(ana.post(&path(from, step), &json!({})).await?.status, 200, "{step}");
    }
    let with = |member: &str, value: Value| {
        let mut body = transfer("t-4", from, to, 100);
        body[member] = value;
        body
    };
    let table = [
        (with("to_merchant_id", json!(from)), "BAD_REQUEST", "to_merchant_id"),
        (with("to_merchant_id", json!("transfers-none")), "BAD_REQUEST", "to_merchant_id"),
        (with("from_merchant_id", json!("transfers-none")), "BAD_REQUEST", "from_merchant_id"),
        (with("from_merchant_id", json!("a b")), "BAD_REQUEST", "from_merchant_id"),
        (with("currency", json!("EUR")), "BAD_REQUEST", "from_merchant_id"),
        (with("currency", json!("XXXX")), "BAD_REQUEST", "currency"),
        (with("transfer_no", json!("")), "BAD_REQUEST", "transfer_no"),
        (with("amount", json!(0)), "BAD_AMOUNT", "amount"),
        (with("amount", json!(-1)), "BAD_AMOUNT", "amount"),
        (with("amount", json!(501)), "BAD_REQUEST", "amount"),
        (with("reason", json!("a\u{0}b")), "BAD_REQUEST", "reason"),
    ];
    for (body, code, field) in table {
        let answer: Answer = oleg.post("/transfers", &body).await?;
        assert_eq!((&answer.json()["code"], &answer.json()["field"]), (&json!(code), &json!(field)), "{body}");
    }
    expect(&ana.post(&path(to, "/close"), &json!({})).await?, 200, &json!({"state": "closed"}));
    let answer = oleg.post("/transfers", &transfer("t-4", from, to, 100)).await?;
    expect(&answer, 400, &json!({"field": "to_merchant_id"}));
    expect(&oleg.get("/transfers/t-4").await?, 404, &json!({"code": "NOT_FOUND"}));
    assert_eq!(exposure(&oleg, from).await?, 0);
    Ok(())
}

async fn own(api: &Api) -> Result<()> {
    let oleg = api.operator()?;
    let (from, to) = ("transfers-own", "transfers-friend");
    open(api, from, 1_000).await?;
    open(api, to, 1_000).await?;
    let body = transfer("t-5", from, to, 10);
    let narrowed = api.caller(json!({"sub": "own-operator", "role": "operator", "merchant_id": from}))?;
    for caller in [api.merchant(from)?, narrowed] {
        expect(&caller.post("/transfers", &body).await?, 403, &json!({"code": "FORBIDDEN"}));
    }
    expect(&oleg.post("/transfers", &body).await?, 200, &json!({"state": "completed"}));
    for merchant in [from, to] {
        let seen = json!({"amount": 10, "state": "completed", "requested_by": "operators", "reason": null});
        let seen = expect(&api.merchant(merchant)?.get("/transfers/t-5").await?, 200, &seen);
        let decisions = (seen["reserve_decision"].is_null(), seen["credit_decision"].is_null());
        assert_eq!(decisions, (merchant == to, merchant == from), "{seen}");
        // Neither does the usage log say who made it, and with which words.
        let action = if merchant == from { "transfer_out" } else { "transfer_in" };
        let rows = rows_of(&api.merchant(merchant)?, merchant, action).await?;
        assert_eq!((&rows[0]["operator_id"], &rows[0]["remarks"]), (&json!("operators"), &Value::Null), "{rows:?}");
    }
    // Why the sender was refused is between it and the operators.
    expect(
        &oleg.post("/transfers", &transfer("t-6", from, to, 5_000)).await?,
        403,
        &json!({"code": "CREDIT_EXHAUSTED"}),
    );
    for (merchant, code) in [(from, json!("CREDIT_EXHAUSTED")), (to, Value::Null)] {
        let seen = api.merchant(merchant)?.get("/transfers/t-6").await?;
        expect(&seen, 200, &json!({"state": "refused", "code": code}));
    }
    let other = api.merchant("transfers-other")?.get("/transfers/t-5").await?;
    expect(&other, 404, &json!({"code": "NOT_FOUND"}));
    Ok(())
}

/// The numbers of a list, and whether there is more.
async fn numbers(caller: &Caller, query: &str) -> Result<(Vec<String>, Value)> {
    let page = expect(&caller.get(&format!("/transfers{query}")).await?, 200, &json!({}));
    let number = |item: &Value| item["transfer_no"].as_str().unwrap_or_default().to_owned();
    let items = page["items"].as_array().into_iter().flatten().map(number).collect();
    Ok((items, page["next_cursor"].clone()))
}

async fn listed(api: &Api) -> Result<()> {
    let oleg = api.operator()?;
    let [a, b, c] = ["transfers-list-a", "transfers-list-b", "transfers-list-c"];
    for merchant in [a, b, c] {
        open(api, merchant, 1_000).await?;
    }
    // A number of signs that JSON writes as two is in a cursor as well.
    let quoted = "\"".repeat(128);
    let mut times = Vec::new();
    for (number, from, to, amount, status) in
        [("l-1", a, b, 10, 200), ("l-2", b, c, 20, 200), ("l-3", a, c, 5_000, 403), (quoted.as_str(), c, a, 1, 200)]
    {
        assert_eq!(oleg.post("/transfers", &transfer(number, from, to, amount)).await?.status, status, "{number}");
        let found = numbers(&oleg, &format!("?merchant_id={from}&limit=1")).await?;
        assert_eq!(found.0, [number]);
        let page = oleg.get(&format!("/transfers?merchant_id={from}&limit=1")).await?.json();
        times.push(page["items"][0]["requested_at"].as_str().unwrap_or_default().to_owned());
    }
    let second = &times[1];
    let table = [
        (format!("?merchant_id={a}"), vec![quoted.as_str(), "l-3", "l-1"]),
        (format!("?merchant_id={b}"), vec!["l-2", "l-1"]),
        (format!("?merchant_id={a}&state=refused"), vec!["l-3"]),
        (format!("?merchant_id={c}&state=completed"), vec![quoted.as_str(), "l-2"]),
        (format!("?merchant_id={b}&from={second}"), vec!["l-2"]),
        (format!("?merchant_id={b}&to={second}"), vec!["l-1"]),
        (format!("?merchant_id={a}&currency=USD"), vec![quoted.as_str(), "l-3", "l-1"]),
        (format!("?merchant_id={a}&currency=EUR"), vec![]),
        ("?merchant_id=transfers-list-none".to_owned(), vec![]),
    ];
    for (query, expected) in &table {
        assert_eq!(&numbers(&oleg, query).await?.0, expected, "{query}");
    }
    // Page by page, the newest first.
    let (mut found, mut cursor) = (Vec::new(), Value::Null);
    loop {
        let cursor_of = cursor.as_str().map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let (page, next) = numbers(&oleg, &format!("?merchant_id={a}&limit=1{cursor_of}")).await?;
        found.extend(page);
        match next {
            Value::Null => break,
            next => cursor = next,
        }
    }
    assert_eq!(found, [quoted.as_str(), "l-3", "l-1"]);
    // Merchants see their own, as in the answer about one.
    let seen = json!({"items": [{"transfer_no": "l-2", "requested_by": "operators", "reason": null},
        {"transfer_no": "l-1", "reserve_decision": null}]});
    expect(&api.merchant(b)?.get("/transfers").await?, 200, &seen);
    for (merchant, code) in [(a, json!("CREDIT_EXHAUSTED")), (c, Value::Null)] {
        let seen = api.merchant(merchant)?.get("/transfers?state=refused").await?;
        expect(&seen, 200, &json!({"items": [{"transfer_no": "l-3", "code": code}]}));
    }
    let of_another = api.merchant(b)?.get(&format!("/transfers?merchant_id={a}")).await?;
    expect(&of_another, 403, &json!({"code": "FORBIDDEN"}));
    assert_eq!(numbers(&api.merchant("transfers-list-none")?, "").await?.0, [""; 0]);
    for (query, field) in [
        ("?state=open", "state"),
        ("?from=soon", "from"),
        ("?from=2026-01-02T00:00:00Z&to=2026-01-02T00:00:00Z", "from"),
        ("?cursor=bm8", "cursor"),
        ("?limit=0", "limit"),
        ("?currency=USDX", "currency"),
        ("?format=csv&limit=5", "limit"),
    ] {
        expect(&oleg.get(&format!("/transfers{query}")).await?, 400, &json!({"field": field}));
    }
    let file = oleg.get(&format!("/transfers?merchant_id={b}&format=csv")).await?;
    let text = String::from_utf8_lossy(&file.body).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("transfer_no,from_merchant_id,to_merchant_id,currency,amount,state,code,"), "{text}");
    assert!(lines[1].starts_with(&format!("l-2,{b},{c},USD,20,completed,,invited,oleg,")), "{text}");
    let file = api.merchant(b)?.get("/transfers?format=csv").await?;
    let text = String::from_utf8_lossy(&file.body).into_owned();
    assert!(text.contains(&format!("l-2,{b},{c},USD,20,completed,,,operators,")), "{text}");
    Ok(())
}
