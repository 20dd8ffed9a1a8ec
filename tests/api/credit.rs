//! Credit lines: who may draft, approve and activate; a line that is used up, repaid and used again; statements, grades, pauses.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::api::{Api, Caller, differences, expect};
use testkit::client::{Answer, Call};
use testkit::{Result, wait};

use crate::charges::charge;
use crate::suite::Suite;

/// The journal stores within a second.
const STORED_WITHIN: Duration = Duration::from_secs(20);

pub(crate) fn add(suite: &mut Suite) {
    suite.add("credit::two_persons_open_a_line", two_persons);
    suite.add("credit::a_line_is_used_up_repaid_and_used_again", used_and_repaid);
    suite.add("credit::a_repayment_is_recorded_once_and_can_be_returned", repayments);
    suite.add("credit::a_change_is_another_version", versions);
    suite.add("credit::a_grade_is_set_by_two_persons", grades);
    suite.add("credit::pauses_and_write_offs_are_bounded", pauses_and_write_offs);
    suite.add("credit::a_closed_line_takes_no_payments", closed);
    suite.add("credit::a_line_of_another_system_goes_on_here", taken_over);
    suite.add("credit::mistakes_name_their_field", mistakes);
    suite.add("credit::a_merchant_sees_its_own_line", own_line);
}

pub(crate) fn line(merchant: &str, limit: i64) -> Value {
    json!({"line": {"merchant_id": merchant, "currency": "USD", "limit_base": limit}, "reason": "a new contract"})
}

pub(crate) fn path(merchant: &str, rest: &str) -> String {
    format!("/credit-lines/{merchant}/USD{rest}")
}

/// The second person.
fn ben(api: &Api) -> Result<Caller> {
    api.caller(json!({"sub": "ben", "role": "admin"}))
}

pub(crate) async fn patch(caller: &Caller, path: &str, body: &Value) -> Result<Answer> {
    let call = Call::post_json(path, body.to_string());
    caller.send(Call { method: "PATCH".to_owned(), ..call }).await
}

/// A line in force, drafted by Oleg and approved by Ana.
pub(crate) async fn open(api: &Api, merchant: &str, limit: i64) -> Result<()> {
    let (oleg, ana) = (api.operator()?, api.admin()?);
    expect(&oleg.post("/credit-lines", &line(merchant, limit)).await?, 201, &json!({"state": "draft"}));
    expect(&ana.post(&path(merchant, "/approve"), &json!({})).await?, 200, &json!({"state": "approved"}));
    expect(&ana.post(&path(merchant, "/activate"), &json!({})).await?, 200, &json!({"state": "active"}));
    known(&ana, merchant).await
}

/// The server knows the line, which it learns within a second.
pub(crate) async fn known(caller: &Caller, merchant: &str) -> Result<()> {
    wait::until_async("the server to know the line", STORED_WITHIN, || async {
        let account = caller.get(&format!("/quotas/merchant/{merchant}/currency/USD")).await?.json();
        Ok(account["credit"]["limit"].is_number().then_some(()))
    })
    .await
}

pub(crate) async fn consume(caller: &Caller, merchant: &str, order_no: &str, amount: u64) -> Result<Answer> {
    caller.post("/quotas/consume", &charge(merchant, order_no, amount)).await
}

/// The rows of an action in the usage log, once there are any.
pub(crate) async fn rows_of(caller: &Caller, merchant: &str, action: &str) -> Result<Vec<Value>> {
    wait::until_async("the usage log", STORED_WITHIN, || async {
        let log = caller.get(&format!("/usage-logs/merchant/{merchant}")).await?.json();
        let rows = log["items"].as_array().into_iter().flatten().filter(|row| row["action_type"] == action);
        Ok(Some(rows.cloned().collect::<Vec<_>>()).filter(|rows| !rows.is_empty()))
    })
    .await
}

/// Once the journal has so many repayments.
async fn stored_repayments(caller: &Caller, merchant: &str, count: usize) -> Result<Value> {
    wait::until_async("the journal's repayments", STORED_WITHIN, || async {
        let found = caller.get(&path(merchant, "/repayments")).await?.json();
        Ok((found["items"].as_array().map(Vec::len) == Some(count)).then_some(found))
    })
    .await
}

async fn two_persons(api: &Api) -> Result<()> {
    let (oleg, ana, ben) = (api.operator()?, api.admin()?, ben(api)?);
    let m = "credit-two-persons";
    let draft = expect(
        &ana.post("/credit-lines", &line(m, 10_000)).await?,
        201,
        &json!({"state": "draft", "version": 1, "limit_base": 10_000, "grade": "B", "created_by": "ana",
            "terms": {"due_days": 14, "grace_days": 5, "minimum_bp": 10_000, "cycle": {"monthly": {"day": 1}}}}),
    );
    expect(&ana.post("/credit-lines", &line(m, 10_000)).await?, 409, &json!({"code": "CONFLICT"}));
    expect(&ana.post(&path(m, "/activate"), &json!({})).await?, 409, &json!({"code": "CONFLICT"}));
    expect(&ana.post(&path(m, "/approve"), &json!({})).await?, 403, &json!({"code": "FORBIDDEN"}));
    expect(&oleg.post(&path(m, "/approve"), &json!({})).await?, 403, &json!({"code": "FORBIDDEN"}));
    let stale = json!({"expected_revision": draft["revision"].as_i64().unwrap_or_default() + 1});
    expect(&ben.post(&path(m, "/approve"), &stale).await?, 409, &json!({"code": "CONFLICT"}));
    expect(
        &ben.post(&path(m, "/approve"), &json!({})).await?,
        200,
        &json!({"state": "approved", "approved_by": "ben"}),
    );
    // A draft is no line yet: nothing bounds the account.
    expect(&consume(&oleg, m, "1", 20_000).await?, 200, &json!({"code": "ADMITTED", "credit": null}));
    expect(&ben.post(&path(m, "/activate"), &json!({})).await?, 200, &json!({"state": "active"}));
    known(&ana, m).await?;
    expect(
        &ana.get(&path(m, "")).await?,
        200,
        &json!({"line": {"state": "active"}, "pending": null, "today": {"limit": 10_000, "exposure": 0,
            "available": 10_000, "grade": "B", "billed": 0, "overdue": {"days_past_due": 0, "amount_to_cure": 0},
            "standing": {"stage": "current"}, "cycle": {"number": 1}}}),
    );
    let history = ana.get(&path(m, "/history")).await?.json();
    let actions: Vec<&str> =
        history["items"].as_array().into_iter().flatten().filter_map(|change| change["action"].as_str()).collect();
    assert_eq!(actions, ["activate", "approve", "create"], "{history}");
    Ok(())
}

async fn used_and_repaid(api: &Api) -> Result<()> {
    let oleg = api.operator()?;
    let m = "credit-used";
    open(api, m, 10_000).await?;
    expect(
        &consume(&oleg, m, "1", 8_000).await?,
        200,
        &json!({"credit": {"limit": 10_000, "exposure": 8_000, "available": 2_000, "unbilled": 8_000}}),
    );
    let refused = consume(&oleg, m, "2", 3_000).await?;
    let expected = json!({"limit": 10_000, "exposure": 8_000, "available": 2_000, "stage": "current", "days_past_due": 0,
        "amount_to_cure": 1_000});
    expect(&refused, 403, &json!({"code": "CREDIT_EXHAUSTED", "credit": expected, "details": null}));
    assert_eq!(refused.header("retry-after"), None);
    let repayment = json!({"repayment_no": "p-1", "amount": 1_000});
    expect(
        &oleg.post(&path(m, "/repayments"), &repayment).await?,
        200,
        &json!({"code": "APPLIED", "kind": "repayment", "number": "p-1", "replay": false,
            "credit": {"exposure": 7_000, "available": 3_000}}),
    );
    expect(&consume(&oleg, m, "2", 3_000).await?, 200, &json!({"credit": {"exposure": 10_000, "available": 0}}));
    // The usage log says why the payment was refused.
    let log = wait::until_async("the refusal in the usage log", STORED_WITHIN, || async {
        let log = oleg.get(&format!("/usage-logs/merchant/{m}?order_no=2")).await?.json();
        let refusal =
            log["items"].as_array().into_iter().flatten().find(|row| row["code"] == "CREDIT_EXHAUSTED").cloned();
        Ok(refusal)
    });
    assert_eq!(log.await?["failure_details"]["credit"]["amount_to_cure"], 1_000);
    // A refund gives room back.
    let refund = json!({"merchant_id": m, "currency": "USD", "order_no": "1", "refund_no": "r-1", "amount": 500});
    expect(
        &oleg.post("/quotas/refund", &refund).await?,
        200,
        &json!({"credit": {"exposure": 9_500, "available": 500, "unbilled": 10_500}}),
    );
    Ok(())
}

async fn repayments(api: &Api) -> Result<()> {
    let oleg = api.operator()?;
    let m = "credit-repaid";
    open(api, m, 10_000).await?;
    consume(&oleg, m, "1", 5_000).await?;
    let repayment = json!({"repayment_no": "p-1", "amount": 2_000, "received_on": "2026-01-15"});
    let repaid = oleg.post(&path(m, "/repayments"), &repayment).await?;
    expect(&repaid, 200, &json!({"replay": false, "credit": {"exposure": 3_000}}));
    expect(
        &oleg.post(&path(m, "/repayments"), &repayment).await?,
        200,
        &json!({"replay": true, "credit": {"exposure": 3_000}, "decision_id": repaid.json()["decision_id"]}),
    );
    let other = json!({"repayment_no": "p-1", "amount": 2_001});
    expect(&oleg.post(&path(m, "/repayments"), &other).await?, 409, &json!({"code": "IDEMPOTENCY_CONFLICT"}));
    let listed = stored_repayments(&oleg, m, 1).await?;
    let first = &listed["items"][0];
    assert_eq!(first["received_on"], "2026-01-15", "{listed}");
    assert_eq!((&first["unapplied"], &first["is_reversed"]), (&json!(2_000), &json!(false)), "{listed}");
    let reason = json!({"reason": "the bank returned the debit"});
    for replay in [false, true] {
        expect(
            &oleg.post(&path(m, "/repayments/p-1/reverse"), &reason).await?,
            200,
            &json!({"kind": "repayment_reversal", "replay": replay, "credit": {"exposure": 5_000}}),
        );
    }
    expect(&oleg.post(&path(m, "/repayments/p-2/reverse"), &reason).await?, 404, &json!({"code": "NOT_FOUND"}));
    // More than is owed is a balance for later.
    let more = json!({"repayment_no": "p-2", "amount": 7_000});
    expect(
        &oleg.post(&path(m, "/repayments"), &more).await?,
        200,
        &json!({"credit": {"exposure": -2_000, "available": 12_000}}),
    );
    Ok(())
}

async fn versions(api: &Api) -> Result<()> {
    let (oleg, ana) = (api.operator()?, api.admin()?);
    let m = "credit-versions";
    open(api, m, 10_000).await?;
    let body = json!({"line": {"limit_base": 20_000, "terms": {"due_days": 30}}, "expected_revision": 99});
    expect(&patch(&oleg, &path(m, ""), &body).await?, 409, &json!({"code": "CONFLICT"}));
    let body = json!({"line": {"limit_base": 20_000, "terms": {"due_days": 30}}, "reason": "more volume"});
    let changed = expect(
        &patch(&oleg, &path(m, ""), &body).await?,
        200,
        &json!({"version": 2, "state": "draft", "limit_base": 20_000, "terms": {"due_days": 30, "grace_days": 5}}),
    );
    // What is in force stays.
    expect(&consume(&oleg, m, "1", 10_001).await?, 403, &json!({"code": "CREDIT_EXHAUSTED"}));
    expect(
        &ana.get(&path(m, "")).await?,
        200,
        &json!({"line": {"version": 1, "limit_base": 10_000}, "pending": {"version": 2, "revision": changed["revision"]}}),
    );
    expect(&ana.post(&path(m, "/approve"), &json!({})).await?, 200, &json!({"state": "approved"}));
    // A change voids the approval.
    let body = json!({"line": {"remarks": "as discussed"}});
    expect(&patch(&oleg, &path(m, ""), &body).await?, 200, &json!({"state": "draft", "approved_by": null}));
    expect(&ana.post(&path(m, "/approve"), &json!({})).await?, 200, &json!({"state": "approved"}));
    expect(&ana.post(&path(m, "/activate"), &json!({})).await?, 200, &json!({"state": "active", "version": 2}));
    wait::until_async("the new limit", STORED_WITHIN, || async {
        let today = ana.get(&format!("/quotas/merchant/{m}/currency/USD")).await?.json();
        Ok((today["credit"]["limit"] == 20_000).then_some(()))
    })
    .await?;
    expect(&consume(&oleg, m, "2", 10_001).await?, 200, &json!({"credit": {"limit": 20_000}}));
    for (name, value) in [("merchant_id", "other"), ("currency", "EUR"), ("grade", "A")] {
        let fixed = json!({"line": {name: value}});
        expect(&patch(&oleg, &path(m, ""), &fixed).await?, 400, &json!({"field": name}));
    }
    // A misspelt member removes nothing, and its author is not left to believe that it did.
    for (line, field) in [
        (json!({"expires": null}), "line.expires"),
        (json!({"expires": "2099-12-31"}), "line.expires"),
        (json!({"terms": {"due_day": null}}), "line.terms.due_day"),
        (json!({"terms": {"cycle": {"weekly": null}}}), "line.terms.cycle.weekly"),
        (json!({"revision": null}), "line.revision"),
    ] {
        let answer = patch(&oleg, &path(m, ""), &json!({"line": line})).await?;
        expect(&answer, 400, &json!({"code": "BAD_REQUEST", "field": field}));
    }
    let removed = json!({"line": {"remarks": null, "metadata": null, "terms": {"listed_channels": null}}});
    expect(&patch(&oleg, &path(m, ""), &removed).await?, 200, &json!({"version": 3, "remarks": null}));
    Ok(())
}

async fn grades(api: &Api) -> Result<()> {
    let (oleg, ana) = (api.operator()?, api.admin()?);
    let m = "credit-grades";
    open(api, m, 10_000).await?;
    expect(&ana.get(&path(m, "/grade")).await?, 200, &json!({"grade": "B", "decided": "B", "overridden": null}));
    let body = json!({"grade": "A", "reason": "audited accounts", "expires_on": "2099-12-31"});
    let asked =
        expect(&oleg.post(&path(m, "/grade"), &body).await?, 201, &json!({"kind": "override", "approved_by": null}));
    expect(&ana.get(&path(m, "/grade")).await?, 200, &json!({"grade": "B"}));
    let approve = path(m, &format!("/grade/{}/approve", asked["grade_id"]));
    expect(&oleg.post(&approve, &json!({})).await?, 403, &json!({"code": "FORBIDDEN"}));
    expect(&ana.post(&approve, &json!({})).await?, 200, &json!({"approved_by": "ana"}));
    expect(&ana.post(&approve, &json!({})).await?, 409, &json!({"code": "CONFLICT"}));
    expect(
        &ana.get(&path(m, "/grade")).await?,
        200,
        &json!({"grade": "A", "decided": "B", "overridden": {"grade": "A"}}),
    );
    expect(&ana.get(&path(m, "")).await?, 200, &json!({"today": {"grade": "A", "limit": 15_000}}));
    let over = json!({"grade": "A", "reason": "x", "expires_on": "2020-01-01"});
    expect(&oleg.post(&path(m, "/grade"), &over).await?, 400, &json!({"field": "expires_on"}));
    Ok(())
}

async fn pauses_and_write_offs(api: &Api) -> Result<()> {
    let (oleg, ana) = (api.operator()?, api.admin()?);
    let m = "credit-pauses";
    open(api, m, 10_000).await?;
    let pause = json!({"from": "2026-12-01", "to": "2026-12-10", "reason": "pays in two parts"});
    expect(&oleg.post(&path(m, "/pauses"), &pause).await?, 403, &json!({"code": "FORBIDDEN"}));
    expect(
        &ana.post(&path(m, "/pauses"), &pause).await?,
        201,
        &json!({"from_day": "2026-12-01", "approved_by": "ana"}),
    );
    let wrong = json!({"from": "2026-12-10", "to": "2026-12-01", "reason": "x"});
    expect(&ana.post(&path(m, "/pauses"), &wrong).await?, 400, &json!({"field": "to"}));
    expect(&ana.get(&path(m, "/pauses")).await?, 200, &json!({"items": [{"reason": "pays in two parts"}]}));
    let write_off = json!({"write_off_no": "w-1", "amount": 1, "reason": "insolvent"});
    expect(&ana.post(&path(m, "/write-off"), &write_off).await?, 400, &json!({"field": "amount"}));
    let recovery = json!({"repayment_no": "v-1", "amount": 1, "is_recovery": true});
    expect(&oleg.post(&path(m, "/repayments"), &recovery).await?, 400, &json!({"field": "amount"}));
    Ok(())
}

async fn closed(api: &Api) -> Result<()> {
    let (oleg, ana) = (api.operator()?, api.admin()?);
    let m = "credit-closed";
    open(api, m, 10_000).await?;
    consume(&oleg, m, "1", 4_000).await?;
    expect(&ana.post(&path(m, "/close"), &json!({"reason": "left"})).await?, 200, &json!({"state": "closed"}));
    wait::until_async("the server to know the close", STORED_WITHIN, || async {
        let check =
            oleg.post("/quotas/check", &json!({"merchant_id": m, "currency": "USD", "amount": 1})).await?.json();
        Ok((check["code"] == "CREDIT_FROZEN").then_some(()))
    })
    .await?;
    expect(&consume(&oleg, m, "2", 1).await?, 403, &json!({"code": "CREDIT_FROZEN", "credit": {"exposure": 4_000}}));
    // What is owed can be repaid, and orders of before go on.
    let refund = json!({"merchant_id": m, "currency": "USD", "order_no": "1", "refund_no": "r-1", "amount": 1_000});
    expect(&oleg.post("/quotas/refund", &refund).await?, 200, &json!({"credit": {"exposure": 3_000}}));
    let repayment = json!({"repayment_no": "p-1", "amount": 3_000});
    expect(&oleg.post(&path(m, "/repayments"), &repayment).await?, 200, &json!({"credit": {"exposure": 0}}));
    expect(&ana.post(&path(m, "/close"), &json!({})).await?, 409, &json!({"code": "CONFLICT"}));
    // Another line may follow.
    expect(&oleg.post("/credit-lines", &line(m, 500)).await?, 201, &json!({"state": "draft", "version": 1}));
    Ok(())
}

async fn mistakes(api: &Api) -> Result<()> {
    let oleg = api.operator()?;
    let m = "credit-mistakes";
    let with = |name: &str, value: Value| {
        let mut body = line(m, 1);
        body["line"][name] = value;
        body
    };
    let table = [
        (with("merchant_id", json!("a b")), "merchant_id"),
        (with("currency", json!("usd")), "currency"),
        (with("limit_base", json!(-1)), "limit_base"),
        (with("override_limit", json!(5)), "override_until"),
        (with("override_until", json!("2099-01-01")), "override_limit"),
        (with("expires_on", json!("2020-01-01")), "expires_on"),
        (with("terms", json!({"minimum_bp": 0})), "terms.minimum_bp"),
        (with("terms", json!({"cycle": {"monthly": {"day": 29}}})), "terms.cycle.monthly.day"),
        (with("terms", json!({"stages": []})), "terms.stages"),
    ];
    for (body, field) in table {
        expect(&oleg.post("/credit-lines", &body).await?, 400, &json!({"field": field}));
    }
    expect(&oleg.get(&path(m, "")).await?, 404, &json!({"code": "NOT_FOUND"}));
    expect(&oleg.get(&path(m, "/statements")).await?, 404, &json!({"code": "NOT_FOUND"}));
    let repayment = json!({"repayment_no": "p-1", "amount": 5});
    // Without a line nothing is owed.
    expect(&oleg.post(&path(m, "/repayments"), &repayment).await?, 404, &json!({"code": "NOT_FOUND"}));
    open(api, m, 1_000).await?;
    for (body, field) in [
        (json!({"repayment_no": "", "amount": 5}), "repayment_no"),
        (json!({"repayment_no": "p-1", "amount": 0}), "amount"),
        (json!({"repayment_no": "p-1", "amount": 5, "received_on": "2099-01-01"}), "received_on"),
    ] {
        expect(&oleg.post(&path(m, "/repayments"), &body).await?, 400, &json!({"field": field}));
    }
    expect(&oleg.get(&path(m, "/statements")).await?, 200, &json!({"items": []}));
    expect(&oleg.get(&path(m, "/statements/1")).await?, 404, &json!({"code": "NOT_FOUND"}));
    Ok(())
}

async fn own_line(api: &Api) -> Result<()> {
    let m = "credit-own";
    open(api, m, 10_000).await?;
    let (shop, other) = (api.merchant(m)?, api.merchant("credit-other")?);
    expect(&shop.get(&path(m, "")).await?, 200, &json!({"today": {"limit": 10_000}}));
    for rest in ["/statements", "/repayments", "/grade", "/pauses"] {
        assert_eq!(shop.get(&path(m, rest)).await?.status, 200, "{rest}");
        assert_eq!(other.get(&path(m, rest)).await?.status, 403, "{rest}");
    }
    expect(&other.get(&path(m, "")).await?, 403, &json!({"code": "FORBIDDEN"}));
    expect(&shop.get("/credit-lines").await?, 200, &json!({"items": [{"merchant_id": m}]}));
    expect(&shop.get("/credit/ageing").await?, 200, &json!({"currencies": [{"currency": "USD", "lines": 1}]}));
    expect(
        &shop.get("/credit/stats").await?,
        200,
        &json!({"currencies": [{"currency": "USD", "lines": 1, "limit": 10_000, "stages": {"current": 1}, "grades": {"B": 1}}]}),
    );
    let repayment = json!({"repayment_no": "p-1", "amount": 5});
    // Also not with the rights of an operator: no merchant declares that it has paid.
    let narrowed = api.caller(json!({"sub": "own-operator", "role": "operator", "merchant_id": m}))?;
    for caller in [&shop, &narrowed] {
        expect(&caller.post(&path(m, "/repayments"), &repayment).await?, 403, &json!({"code": "FORBIDDEN"}));
        let reason = json!({"reason": "x"});
        let reversed = caller.post(&path(m, "/repayments/p-1/reverse"), &reason).await?;
        expect(&reversed, 403, &json!({"code": "FORBIDDEN"}));
    }
    expect(&shop.post("/credit-lines", &line(m, 1)).await?, 403, &json!({"code": "FORBIDDEN"}));
    Ok(())
}

/// A line of another system goes on here: its cycles are counted from there, and what was open there is due here.
async fn taken_over(api: &Api) -> Result<()> {
    let (oleg, ana) = (api.operator()?, api.admin()?);
    let m = "credit-taken-over";
    let mut draft = line(m, 10_000);
    draft["line"]["taken_over_from"] = json!("2026-01-15");
    draft["line"]["terms"] = json!({"minimum_bp": 5_000});
    expect(&oleg.post("/credit-lines", &draft).await?, 201, &json!({"taken_over_from": "2026-01-15"}));
    for step in ["/approve", "/activate"] {
        expect(&ana.post(&path(m, step), &json!({})).await?, 200, &json!({}));
    }
    known(&ana, m).await?;
    let owed = |closed_on: &str, amount: i64| json!({"closed_on": closed_on, "amount": amount});
    let table = [
        (json!([]), "BAD_REQUEST", "obligations"),
        (json!([owed("2026-02-27", 1)]), "BAD_REQUEST", "obligations[0].closed_on"),
        (json!([owed("2025-12-31", 1)]), "BAD_REQUEST", "obligations[0].closed_on"),
        (json!([owed("2099-01-31", 1)]), "BAD_REQUEST", "obligations[0].closed_on"),
        (json!([owed("2026-02-28", 1), owed("2026-02-28", 2)]), "BAD_REQUEST", "obligations[1].closed_on"),
        (json!([owed("2026-02-28", 0)]), "BAD_AMOUNT", "obligations[0].amount"),
        (
            json!([{"closed_on": "2026-02-28", "due_on": "2026-02-27", "amount": 1}]),
            "BAD_REQUEST",
            "obligations[0].due_on",
        ),
    ];
    for (obligations, code, field) in table {
        let answer = oleg.post(&path(m, "/obligations"), &json!({"obligations": obligations})).await?;
        assert_eq!((&answer.json()["code"], &answer.json()["field"]), (&json!(code), &json!(field)), "{obligations}");
    }
    let obligations = json!({"reason": "the former system", "obligations": [
        {"closed_on": "2026-03-31", "due_on": "2035-04-30", "amount": 11_000}, owed("2026-02-28", 500)]});
    for replay in [false, true] {
        let expected = json!({"obligations": [
            {"number": "USD-20260201", "amount": 500, "replay": replay},
            {"number": "USD-20260301", "amount": 11_000, "replay": replay, "credit": {"exposure": 11_500, "unbilled": 0}}]});
        expect(&oleg.post(&path(m, "/obligations"), &obligations).await?, 200, &expected);
    }
    let statements = wait::until_async("the statements", STORED_WITHIN, || async {
        let found = oleg.get(&path(m, "/statements")).await?.json();
        Ok((found["items"].as_array().map(Vec::len) == Some(2)).then_some(found))
    });
    let statements = statements.await?;
    let expected = json!({"items": [
        {"number": 2, "first_day": "2026-03-01", "due_on": "2035-04-30", "amount": 11_000, "minimum": 5_500, "status": "open"},
        {"number": 1, "first_day": "2026-02-01", "due_on": "2026-03-14", "amount": 500, "minimum": 250, "status": "past_due"}]});
    assert_eq!(differences("", &statements, &expected), Vec::<String>::new(), "{statements}");
    // What was due months ago has consequences at once.
    wait::until_async("the server to know what is past due", STORED_WITHIN, || async {
        let refused = consume(&oleg, m, "1", 1).await?.json();
        Ok((refused["code"] == "CREDIT_FROZEN" && refused["credit"]["exposure"] == 11_500).then_some(()))
    })
    .await?;
    for received_on in ["-009999-12-31", "1900-01-01", "2099-01-01"] {
        let repayment = json!({"repayment_no": "p-0", "amount": 1, "received_on": received_on});
        let answer = oleg.post(&path(m, "/repayments"), &repayment).await?;
        expect(&answer, 400, &json!({"code": "BAD_REQUEST", "field": "received_on"}));
    }
    let repayment = json!({"repayment_no": "p-1", "amount": 2_000});
    expect(&oleg.post(&path(m, "/repayments"), &repayment).await?, 200, &json!({"credit": {"exposure": 9_500}}));
    // The line that was made last counts, also where it was opened elsewhere before the one that is closed.
    let m = "credit-taken-over-again";
    open(api, m, 1_000).await?;
    expect(&ana.post(&path(m, "/close"), &json!({})).await?, 200, &json!({"state": "closed"}));
    let mut draft = line(m, 2_000);
    draft["line"]["taken_over_from"] = json!("2020-01-15");
    expect(&oleg.post("/credit-lines", &draft).await?, 201, &json!({"state": "draft"}));
    for step in ["/approve", "/activate"] {
        expect(&ana.post(&path(m, step), &json!({})).await?, 200, &json!({}));
    }
    wait::until_async("the server to know the second line", STORED_WITHIN, || async {
        let line = ana.get(&path(m, "")).await?.json();
        Ok((consume(&oleg, m, "1", 1_500).await?.status == 200 && line["today"]["limit"] == 2_000).then_some(()))
    })
    .await?;
    // Only a line of another system has such statements.
    open_here(api, "credit-opened-here").await
}

async fn open_here(api: &Api, merchant: &str) -> Result<()> {
    open(api, merchant, 1_000).await?;
    let body = json!({"obligations": [{"closed_on": "2026-03-31", "amount": 5}]});
    expect(&api.operator()?.post(&path(merchant, "/obligations"), &body).await?, 409, &json!({"code": "CONFLICT"}));
    let later = json!({"line": {"taken_over_from": "2026-01-01"}});
    let changed = patch(&api.operator()?, &path(merchant, ""), &later).await?;
    expect(&changed, 400, &json!({"field": "taken_over_from"}));
    Ok(())
}
