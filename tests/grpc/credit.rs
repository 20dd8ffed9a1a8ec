//! Credit lines over both ways in: the same calls have the same answers and the same refusals, for the same callers.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::{Result, wait};
use tonic::{Code, Request};

use crate::bench::{self, CreditClient, credit_client_on};
use crate::both::{Both, MERCHANT, MERCHANTS, Row, Who, refusal, without_null};
use crate::refusals::reason;
use crate::scorecards;

/// The journal stores, and servers read, within a second.
const KNOWN_WITHIN: Duration = Duration::from_secs(20);

/// The members of an operation on the line.
fn on_line(more: &Value) -> Value {
    let mut members = json!({"merchant_id": MERCHANT, "currency": "USD"});
    for (name, value) in more.as_object().into_iter().flatten() {
        members[name] = value.clone();
    }
    members
}

pub(crate) fn row(operation: &'static str, who: Who, more: &Value) -> Row {
    (operation, who, on_line(more))
}

fn draft(more: &Value) -> Value {
    let mut line = on_line(&json!({"limit_base": 10_000, "taken_over_from": "2024-01-15"}));
    for (name, value) in more.as_object().into_iter().flatten() {
        line[name] = value.clone();
    }
    without_null(&mut line);
    json!({"line": line, "reason": "a new contract"})
}

#[tokio::test]
async fn credit_lines_are_the_same_over_both() -> Result<()> {
    let api = bench::start(&[])?;
    let mut both = Both::new(&api).await?;
    drafted(&mut both).await?;
    opened(&mut both).await?;
    owed(&mut both).await?;
    paid(&mut both).await?;
    judged(&mut both).await?;
    scorecards::scored(&mut both).await?;
    scorecards::disputed(&mut both).await?;
    listed(&mut both).await?;
    moved(&mut both).await?;
    let close = |who| row("close_credit_line", who, &json!({"reason": "left"}));
    both.refused(vec![(close(Who::Oleg), "FORBIDDEN", None)]).await?;
    both.done(vec![close(Who::Ana)]).await?;
    both.refused(vec![(close(Who::Ana), "CONFLICT", None)]).await?;
    assert_eq!(both.left_out("CreditService"), [""; 0], "operations that are not called here");
    Ok(())
}

async fn drafted(both: &mut Both<'_>) -> Result<()> {
    use Who::{Ana, Oleg, Shop};
    let create = |who, more: &Value| ("create_credit_line", who, draft(more));
    let update = |line: &Value| row("update_credit_line", Oleg, &json!({"line": line, "reason": "as discussed"}));
    both.refused(vec![
        (create(Shop, &json!({})), "FORBIDDEN", None),
        (create(Oleg, &json!({"currency": "usd"})), "BAD_REQUEST", Some("currency")),
        (create(Oleg, &json!({"limit_base": null})), "BAD_REQUEST", Some("line.limit_base")),
        (create(Oleg, &json!({"grade": "Z"})), "BAD_REQUEST", Some("line.grade")),
        (create(Oleg, &json!({"terms": {"minimum_bp": 0}})), "BAD_REQUEST", Some("terms.minimum_bp")),
        (create(Oleg, &json!({"terms": {"stages": []}})), "BAD_REQUEST", Some("terms.stages")),
        (create(Oleg, &json!({"override_limit": 5})), "BAD_REQUEST", Some("override_until")),
        (row("get_credit_line", Oleg, &json!({})), "NOT_FOUND", None),
        (update(&json!({"remarks": "x"})), "NOT_FOUND", None),
    ])
    .await?;
    let terms =
        json!({"cycle": {"every_days": {"days": 7}}, "due_days": 7, "listed_channels": ["card"], "dunning": []});
    both.done(vec![
        create(Oleg, &json!({"terms": terms, "metadata": {"contract": [7, {"a": 1.5}]}, "expires_on": "2099-12-31"})),
        row("get_credit_line", Oleg, &json!({})),
    ])
    .await?;
    both.refused(vec![
        (create(Oleg, &json!({})), "CONFLICT", None),
        (update(&json!({"currency": "EUR"})), "BAD_REQUEST", Some("currency")),
        (update(&json!({"expires_on": "2020-01-01"})), "BAD_REQUEST", Some("expires_on")),
        (update(&json!({"expires": null})), "BAD_REQUEST", Some("line.expires")),
        (
            update(&json!({"terms": {"materiality": {"percent": null}}})),
            "BAD_REQUEST",
            Some("line.terms.materiality.percent"),
        ),
        (row("update_credit_line", Oleg, &json!({"line": {}, "expected_revision": 99})), "CONFLICT", None),
        (row("approve_credit_line", Oleg, &json!({})), "FORBIDDEN", None),
        (row("activate_credit_line", Ana, &json!({})), "CONFLICT", None),
    ])
    .await?;
    both.done(vec![
        update(&json!({"limit_base": 20_000, "override_limit": 5_000, "override_until": "2099-01-01"})),
        // What is null is removed, and what is not there stays, also inside of the terms.
        update(&json!({"expires_on": null, "override_limit": null, "override_until": null, "metadata": null,
            "terms": {"listed_channels": null, "cycle": {"every_days": null, "monthly": {"day": 1}}}})),
    ])
    .await?;
    let line = both.same(row("get_credit_line", Oleg, &json!({}))).await?.unwrap_or_default()["line"].clone();
    let found = [&line["limit_base"], &line["terms"]["due_days"], &line["terms"]["cycle"], &line["terms"]["dunning"]];
    assert_eq!(found, [&json!(20_000), &json!(7), &json!({"monthly": {"day": 1}}), &json!([])], "{line}");
    assert_eq!((line.get("expires_on"), line["terms"].get("listed_channels")), (None, None), "{line}");
    Ok(())
}

async fn opened(both: &mut Both<'_>) -> Result<()> {
    use Who::{Ana, Other, Shop};
    let revision = json!({"reason": "agreed", "expected_revision": 3});
    both.refused(vec![(row("approve_credit_line", Ana, &json!({"expected_revision": 1})), "CONFLICT", None)]).await?;
    both.done(vec![
        row("approve_credit_line", Ana, &json!({"reason": "agreed"})),
        row("activate_credit_line", Ana, &json!({})),
        row("get_credit_line", Shop, &json!({})),
        row("credit_line_history", Ana, &json!({"limit": 2})),
    ])
    .await?;
    both.refused(vec![
        (row("activate_credit_line", Ana, &revision), "CONFLICT", None),
        (row("get_credit_line", Other, &json!({})), "FORBIDDEN", None),
        (row("credit_line_history", Shop, &json!({})), "FORBIDDEN", None),
        (row("credit_line_history", Ana, &json!({"limit": 0})), "BAD_REQUEST", Some("limit")),
        (row("credit_line_history", Ana, &json!({"cursor": "!"})), "BAD_REQUEST", Some("cursor")),
    ])
    .await?;
    for merchant in MERCHANTS {
        let ana = both.api.admin()?;
        wait::until_async("the server to know the line", KNOWN_WITHIN, || async {
            let account = ana.get(&format!("/quotas/merchant/{merchant}/currency/USD")).await?.json();
            Ok(account["credit"]["limit"].is_number().then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Statements, which are put into the tables: no cycle ends while the test runs. One is past due by days of grace, so that the limit
/// is the same before and after the server has read it.
async fn owed(both: &mut Both<'_>) -> Result<()> {
    let pool = both.api.postgres.pool().await?;
    for (shard, merchant) in MERCHANTS.into_iter().enumerate() {
        for (number, month) in [(1, "07"), (2, "09")] {
            let cycle = format!("2026{month}01");
            sqlx::query(
                "INSERT INTO credit_statement SELECT $1, 'USD', $2, $3::int, $3::date, $3::date + 29, \
                    CASE $2 WHEN 1 THEN (now() AT TIME ZONE 'utc')::date - 2 ELSE '2099-10-14' END, 500, 500, gen_random_uuid()",
            )
            .bind(merchant)
            .bind(number)
            .bind(&cycle)
            .execute(&pool)
            .await?;
            sqlx::query(
                "INSERT INTO credit_entry (event_id, kind, merchant_id, currency, shard, seq, at, business_day, cycle, amount) \
                    VALUES (gen_random_uuid(), 'cycle_closed', $1, 'USD', $4, $3, $2::timestamptz + interval '30 days', \
                    $2::int + 30, $2::int, 500)",
            )
            .bind(merchant)
            .bind(&cycle)
            .bind(number)
            .bind(i32::try_from(shard).unwrap_or_default())
            .execute(&pool)
            .await?;
        }
    }
    pool.close().await;
    let late = both.same(row("list_statements", Who::Oleg, &json!({}))).await?.unwrap_or_default();
    let statuses: Vec<&Value> = late["items"].as_array().into_iter().flatten().map(|own| &own["status"]).collect();
    assert_eq!(statuses, ["open", "past_due"], "{late}");
    Ok(())
}

async fn paid(both: &mut Both<'_>) -> Result<()> {
    use Who::{Ana, Oleg, Other, Shop};
    let repay = |who, more: &Value| {
        let mut members = on_line(&json!({"repayment_no": "P-1", "amount": 300, "received_on": "2026-08-20"}));
        for (name, value) in more.as_object().into_iter().flatten() {
            members[name] = value.clone();
        }
        ("repay", who, members)
    };
    let reverse = |number: &str| row("reverse_repayment", Oleg, &json!({"repayment_no": number, "reason": "bounced"}));
    let write_off = |who, amount: i64| {
        row("write_off", who, &json!({"write_off_no": "W-1", "amount": amount, "reason": "a rounding"}))
    };
    both.refused(vec![
        (repay(Shop, &json!({})), "FORBIDDEN", None),
        (repay(Oleg, &json!({"amount": 0})), "BAD_AMOUNT", Some("amount")),
        (repay(Oleg, &json!({"amount": -5})), "BAD_AMOUNT", Some("amount")),
        (repay(Oleg, &json!({"repayment_no": ""})), "BAD_REQUEST", Some("repayment_no")),
        (repay(Oleg, &json!({"received_on": "2099-01-01"})), "BAD_REQUEST", Some("received_on")),
        (repay(Oleg, &json!({"received_on": "soon"})), "BAD_REQUEST", Some("received_on")),
        (repay(Oleg, &json!({"is_recovery": true})), "BAD_REQUEST", Some("amount")),
        (write_off(Oleg, 5), "FORBIDDEN", None),
        (write_off(Ana, 5_000), "BAD_REQUEST", Some("amount")),
        (
            row("write_off", Ana, &json!({"write_off_no": "W-1", "amount": 5, "reason": ""})),
            "BAD_REQUEST",
            Some("reason"),
        ),
    ])
    .await?;
    both.done(vec![repay(Oleg, &json!({})), repay(Oleg, &json!({})), repay(Oleg, &json!({"repayment_no": "P-2"}))])
        .await?;
    both.refused(vec![(repay(Oleg, &json!({"amount": 301})), "IDEMPOTENCY_CONFLICT", None)]).await?;
    stored(both, 2).await?;
    let first = both.same(row("list_repayments", Shop, &json!({"limit": 1}))).await?.unwrap_or_default();
    assert_eq!(first["items"].as_array().map(Vec::len), Some(1), "{first}");
    let rest = json!({"limit": 1, "cursor": "NEXT_CURSOR"});
    both.refused(vec![(reverse("P-9"), "NOT_FOUND", None), (row("list_repayments", Other, &rest), "FORBIDDEN", None)])
        .await?;
    both.done(vec![
        row("list_repayments", Oleg, &rest),
        row("get_statement", Shop, &json!({"number": 1})),
        reverse("P-2"),
        write_off(Ana, 5),
        write_off(Ana, 5),
    ])
    .await?;
    both.refused(vec![(row("get_statement", Shop, &json!({"number": 9})), "NOT_FOUND", None)]).await
}

/// Once the journal has the repayments of both.
async fn stored(both: &Both<'_>, count: usize) -> Result<()> {
    let ana = both.api.admin()?;
    for merchant in MERCHANTS {
        wait::until_async("the journal's repayments", KNOWN_WITHIN, || async {
            let found = ana.get(&format!("/credit-lines/{merchant}/USD/repayments")).await?.json();
            Ok((found["items"].as_array().map(Vec::len) == Some(count)).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// What was open in another system, and what a friend gives.
async fn moved(both: &mut Both<'_>) -> Result<()> {
    use Who::{Ana, Oleg, Other, Shop};
    let take_over = |who, closed_on: &str| {
        let open = json!({"closed_on": closed_on, "due_on": "2033-01-31", "amount": 5});
        row("take_over_obligations", who, &json!({"obligations": [open], "reason": "moved"}))
    };
    both.refused(vec![
        (take_over(Shop, "2025-01-31"), "FORBIDDEN", None),
        (take_over(Oleg, "2025-01-30"), "BAD_REQUEST", Some("obligations[0].closed_on")),
    ])
    .await?;
    both.done(vec![take_over(Oleg, "2025-01-31"), take_over(Oleg, "2025-01-31")]).await?;
    for merchant in MERCHANTS {
        let line =
            json!({"line": {"merchant_id": format!("{merchant}-friend"), "currency": "USD", "limit_base": 1_000}});
        assert_eq!(both.api.operator()?.post("/credit-lines", &line).await?.status, 201);
        for step in ["approve", "activate"] {
            let path = format!("/credit-lines/{merchant}-friend/USD/{step}");
            assert_eq!(both.api.admin()?.post(&path, &json!({})).await?.status, 200, "{path}");
        }
    }
    let give_as = |number: &str, who, amount: i64| {
        let members = json!({"transfer_no": format!("{number}-{MERCHANT}"), "from_merchant_id": format!("{MERCHANT}-friend"),
            "to_merchant_id": MERCHANT, "currency": "USD", "amount": amount, "reason": "invited"});
        ("transfer", who, members)
    };
    let give = |who, amount: i64| give_as("T", who, amount);
    let list = |who, more: Value| ("list_transfers", who, more);
    let find = |who, number: &str| ("get_transfer", who, json!({"transfer_no": number}));
    let number = format!("T-{MERCHANT}");
    both.refused(vec![(give(Shop, 10), "FORBIDDEN", None), (give(Oleg, 0), "BAD_AMOUNT", Some("amount"))]).await?;
    both.done(vec![give(Oleg, 10), give(Ana, 10), find(Shop, &number), find(Ana, &number)]).await?;
    both.done(vec![
        give_as("U", Oleg, 5),
        list(Shop, json!({})),
        list(Other, json!({})),
        list(Oleg, json!({"merchant_id": MERCHANT, "limit": 1})),
        list(Oleg, json!({"merchant_id": MERCHANT, "cursor": "NEXT_CURSOR"})),
        list(
            Ana,
            json!({"merchant_id": MERCHANT, "currency": "USD", "state": "completed", "from": "2026-01-01T00:00:00Z",
                "to": "2099-01-01T00:00:00Z"}),
        ),
    ])
    .await?;
    let none = both.same(list(Ana, json!({"merchant_id": MERCHANT, "to": "2026-01-01T00:00:00Z"}))).await?;
    assert_eq!(none.unwrap_or_default()["items"], json!([]));
    both.refused(vec![
        (list(Shop, json!({"merchant_id": "other"})), "FORBIDDEN", None),
        (list(Ana, json!({"state": "open"})), "BAD_REQUEST", Some("state")),
        (list(Ana, json!({"cursor": "bm8"})), "BAD_REQUEST", Some("cursor")),
        (list(Ana, json!({"from": "2026-01-02T00:00:00Z", "to": "2026-01-02T00:00:00Z"})), "BAD_REQUEST", Some("from")),
        (give(Oleg, 11), "IDEMPOTENCY_CONFLICT", None),
        (find(Other, &number), "NOT_FOUND", None),
        (find(Ana, "T-none"), "NOT_FOUND", None),
    ])
    .await
}

async fn judged(both: &mut Both<'_>) -> Result<()> {
    use Who::{Ana, Oleg, Other, Shop};
    let pause = |who, to: &str| row("pause", who, &json!({"from": "2026-12-01", "to": to, "reason": "two parts"}));
    let grade = |grade: &str, expires_on: &str| {
        row("request_grade", Oleg, &json!({"grade": grade, "reason": "audited", "expires_on": expires_on}))
    };
    let approve = |who| row("approve_grade", who, &json!({"grade_id": "GRADE_ID", "reason": "seen"}));
    both.refused(vec![
        (pause(Oleg, "2026-12-10"), "FORBIDDEN", None),
        (pause(Ana, "2026-11-10"), "BAD_REQUEST", Some("to")),
        (pause(Ana, ""), "BAD_REQUEST", Some("to")),
        (grade("A", "2020-01-01"), "BAD_REQUEST", Some("expires_on")),
        (grade("F", "2099-12-31"), "BAD_REQUEST", Some("grade")),
    ])
    .await?;
    both.done(vec![pause(Ana, "2026-12-10"), row("list_pauses", Shop, &json!({})), grade("A", "2099-12-31")]).await?;
    both.refused(vec![(approve(Oleg), "FORBIDDEN", None), (row("get_grade", Other, &json!({})), "FORBIDDEN", None)])
        .await?;
    both.done(vec![approve(Ana), row("get_grade", Shop, &json!({})), row("get_dunning", Shop, &json!({}))]).await?;
    both.refused(vec![(approve(Ana), "CONFLICT", None), (row("get_dunning", Other, &json!({})), "FORBIDDEN", None)])
        .await
}

async fn listed(both: &mut Both<'_>) -> Result<()> {
    use Who::{Oleg, Shop};
    both.done(vec![
        ("list_credit_lines", Oleg, json!({"currency": "USD", "state": "active", "limit": 1})),
        ("list_credit_lines", Shop, json!({})),
        row("get_credit_line", Oleg, &json!({})),
        row("list_statements", Shop, &json!({"limit": 1})),
        ("credit_statements", Oleg, json!({"from": "2026-07-01", "to": "2026-07-31", "limit": 1})),
        ("credit_statements", Oleg, json!({"merchant_id": MERCHANT, "currency": "USD", "limit": 1})),
        ("credit_statements", Oleg, json!({"merchant_id": MERCHANT, "currency": "USD", "cursor": "NEXT_CURSOR"})),
        ("credit_statements", Shop, json!({})),
        ("credit_ageing", Oleg, json!({})),
        ("credit_stats", Oleg, json!({})),
        ("credit_stats", Shop, json!({})),
    ])
    .await?;
    both.refused(vec![
        (("list_credit_lines", Oleg, json!({"state": "open"})), "BAD_REQUEST", Some("state")),
        (("list_credit_lines", Shop, json!({"merchant_id": "other"})), "FORBIDDEN", None),
        (("credit_statements", Oleg, json!({"from": "2026-08-01", "to": "2026-07-31"})), "BAD_REQUEST", Some("from")),
        (("credit_statements", Oleg, json!({"from": "July"})), "BAD_REQUEST", Some("from")),
        (("credit_statements", Oleg, json!({"cursor": "bm8"})), "BAD_REQUEST", Some("cursor")),
    ])
    .await
}

/// A pause has no number of its own, so that without a key two requests are two pauses.
#[tokio::test]
async fn a_key_makes_credit_operations_idempotent_over_grpc() -> Result<()> {
    let api = bench::start(&[])?;
    let (oleg, ana) = (api.operator()?, api.admin()?);
    let channel = bench::channel(&api).await?;
    let mut client: CreditClient = credit_client_on(channel.clone(), Some(ana.token()))?;
    let line = json!({"line": {"merchant_id": "keyed", "currency": "USD", "limit_base": 10_000}});
    let draft: proto::quota_v1::CreateCreditLineRequest = serde_json::from_value(line)?;
    credit_client_on(channel, Some(oleg.token()))?.create_credit_line(draft).await?;
    let pause = |to: &str, key: &str| -> Result<Request<proto::quota_v1::PauseRequest>> {
        let members = json!({"merchant_id": "keyed", "currency": "USD", "from": "2026-12-01", "to": to, "reason": "x"});
        let mut request = Request::new(serde_json::from_value(members)?);
        request.metadata_mut().insert("idempotency-key", key.parse()?);
        Ok(request)
    };
    let first = client.pause(pause("2026-12-05", "K-1")?).await?;
    assert!(first.metadata().get("idempotency-replayed").is_none());
    let again = client.pause(pause("2026-12-05", "K-1")?).await?;
    assert_eq!(again.metadata().get("idempotency-replayed").map(|value| value.as_bytes()), Some(&b"true"[..]));
    assert_eq!(again.get_ref(), first.get_ref());
    let other = client.pause(pause("2026-12-06", "K-1")?).await.expect_err("another message");
    assert_eq!((other.code(), reason(&other).as_str()), (Code::InvalidArgument, "IDEMPOTENCY_KEY_REUSED"), "{other:?}");
    let wrong = client.pause(pause("2026-12-05", "a b")?).await.expect_err("no key");
    assert_eq!((wrong.code(), refusal(&wrong)["field"].as_str()), (Code::InvalidArgument, Some("idempotency-key")));
    // A refusal is kept as well, with its field.
    for _ in 0..2 {
        let refused = client.pause(pause("2026-11-05", "K-2")?).await.expect_err("ends before it begins");
        assert_eq!((refused.code(), refusal(&refused)["field"].as_str()), (Code::InvalidArgument, Some("to")));
    }
    client.pause(pause("2026-12-05", "K-3")?).await?;
    let pauses = ana.get("/credit-lines/keyed/USD/pauses").await?.json();
    assert_eq!(pauses["items"].as_array().map(Vec::len), Some(2), "{pauses}");
    // What is done by hand is in the audit log, as over REST.
    let line = wait::until_async("the change's line", KNOWN_WITHIN, || async {
        let mut lines = api.server.log_lines().into_iter().filter(|line| line["message"] == "change by hand");
        Ok(lines.find(|line| line["path"] == "/api/v1/credit-lines/keyed/USD/pauses"))
    })
    .await?;
    assert_eq!((&line["actor"], &line["client"]), (&json!("ana"), &json!("127.0.0.1")), "{line}");
    Ok(())
}
