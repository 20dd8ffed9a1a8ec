//! Credit lines over both ways in: the same calls have the same answers and the same refusals, for the same callers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::api::{Api, Caller};
use testkit::client::Call;
use testkit::{Failure, Result, wait};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use crate::bench::{self, CreditClient, credit_client};
use crate::members::{self, Route};
use crate::refusals::reason;

/// The merchants of the two ways in: what changes something is done over one of them to each.
const MERCHANTS: [&str; 2] = ["by-rest", "by-grpc"];
/// The merchant in the table.
const MERCHANT: &str = "MERCHANT";
/// Members of the account's last answer that had them, in the table.
const REMEMBERED: [(&str, &str); 2] = [("grade_id", "GRADE_ID"), ("next_cursor", "NEXT_CURSOR")];
/// What differs between two accounts.
const VOLATILE: [&str; 13] = [
    "at",
    "object_id",
    "alert_id",
    "line_id",
    "created_at",
    "updated_at",
    "approved_at",
    "recorded_at",
    "decision_id",
    "grade_id",
    "pause_id",
    "history_id",
    "next_cursor",
];
/// The journal stores, and servers read, within a second.
const KNOWN_WITHIN: Duration = Duration::from_secs(20);

/// Who calls.
#[derive(Clone, Copy, Debug)]
enum Who {
    /// Drafts and posts.
    Oleg,
    /// Approves.
    Ana,
    /// The merchant of the line.
    Shop,
    Other,
}

/// An operation, who calls it, and its parameters and members as REST has them.
type Row = (&'static str, Who, Value);
/// An answer, or a refusal's code, field and detail.
type Outcome = std::result::Result<Value, Value>;

/// Calls an operation by its method.
macro_rules! call {
    ($client:ident, $operation:ident, $members:ident; $($name:ident)+) => {
        match $operation {
            $(stringify!($name) => {
                let message = Request::new(serde_json::from_value($members)?);
                $client.$name(message).await.map(|answer| serde_json::to_value(answer.into_inner()))
            })+
            other => return Err(Failure::new(format!("{other} is not called here: add it"))),
        }
    };
}

struct Both<'a> {
    api: &'a Api,
    channel: Channel,
    routes: BTreeMap<String, Route>,
    called: BTreeSet<String>,
    /// What each merchant's answers had last of [`REMEMBERED`].
    remembered: [BTreeMap<&'static str, Value>; 2],
}

impl Both<'_> {
    fn caller(&self, who: Who, merchant: &str) -> Result<Caller> {
        match who {
            Who::Oleg => self.api.operator(),
            Who::Ana => self.api.admin(),
            Who::Shop => self.api.merchant(merchant),
            Who::Other => self.api.merchant("other"),
        }
    }

    fn route(&self, operation: &str) -> Result<&Route> {
        self.routes.get(operation).ok_or_else(|| Failure::new(format!("docs/openapi.json has no {operation}")))
    }

    async fn rest(&self, caller: &Caller, operation: &str, members: Value) -> Result<Outcome> {
        let route = self.route(operation)?;
        let mut members = members.as_object().cloned().unwrap_or_default();
        let mut path = route.path.clone();
        for parameter in route.operation["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap_or_default();
            let place = format!("{{{name}}}");
            if path.contains(&place) {
                path = path.replace(&place, &plain(&members.remove(name).unwrap_or_default()));
            }
        }
        let call = if route.method == "GET" {
            let query: Vec<String> = members.iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
            Call::new("GET", &format!("{path}?{}", query.join("&")))
        } else {
            let call = Call::post_json(&path, Value::Object(members).to_string());
            Call { method: route.method.clone(), ..call }
        };
        let answer = caller.send(call).await?;
        let mut body = answer.json();
        if answer.status >= 300 {
            let detail = body["detail"].as_str().unwrap_or_default();
            return Ok(Err(json!({"code": body["code"], "field": body["field"], "detail": detail})));
        }
        without_null(&mut body);
        Ok(Ok(body))
    }

    async fn grpc(&self, caller: &Caller, operation: &str, mut members: Value) -> Result<Outcome> {
        let mut removed = Vec::new();
        nulls(&members["line"], "", &mut removed);
        if !removed.is_empty() {
            members["remove"] = json!(removed);
            without_null(&mut members);
        }
        let mut client = credit_client(self.channel.clone(), caller)?;
        let answer = call!(client, operation, members;
            list_credit_lines create_credit_line get_credit_line update_credit_line approve_credit_line
            activate_credit_line close_credit_line credit_line_history list_statements get_statement credit_statements
            repay list_repayments reverse_repayment write_off pause list_pauses get_grade request_grade approve_grade
            get_dunning credit_ageing credit_stats);
        Ok(match answer {
            Ok(message) => {
                let mut message = message?;
                without_null(&mut message);
                Ok(message)
            }
            Err(status) => Err(refusal(&status)),
        })
    }

    /// Calls an operation over both, and compares.
    async fn same(&mut self, (operation, who, members): Row) -> Result<Outcome> {
        self.called.insert(operation.to_owned());
        let is_read = self.route(operation)?.method == "GET";
        let mut outcomes = Vec::new();
        for (place, merchant) in MERCHANTS.into_iter().enumerate() {
            let caller = self.caller(who, merchant)?;
            let members = placed(&members, merchant, &self.remembered[place]);
            if is_read {
                let rest = self.rest(&caller, operation, members.clone()).await?;
                let grpc = self.grpc(&caller, operation, members.clone()).await?;
                assert_eq!(grpc, rest, "{operation} by {who:?} of {members}");
                outcomes.push(rest);
            } else if place == 0 {
                outcomes.push(self.rest(&caller, operation, members).await?);
            } else {
                outcomes.push(self.grpc(&caller, operation, members).await?);
            }
        }
        for (remembered, outcome) in self.remembered.iter_mut().zip(&outcomes) {
            for (member, name) in REMEMBERED {
                let value = outcome.as_ref().ok().and_then(|answer| answer.get(member));
                remembered.extend(value.map(|value| (name, value.clone())));
            }
        }
        let of_both: Vec<Outcome> = outcomes.iter().map(comparable).collect();
        assert_eq!(of_both[1], of_both[0], "{operation} by {who:?}: {members}");
        Ok(outcomes.swap_remove(0))
    }

    /// Those that succeed.
    async fn done(&mut self, rows: Vec<Row>) -> Result<()> {
        for row in rows {
            let what = format!("{row:?}");
            let outcome = self.same(row).await?;
            assert!(outcome.is_ok(), "{what}: {outcome:?}");
        }
        Ok(())
    }

    /// Those that are refused, with this code and field.
    async fn refused(&mut self, rows: Vec<(Row, &str, Option<&str>)>) -> Result<()> {
        for (row, code, field) in rows {
            let what = format!("{row:?}");
            let refusal = self.same(row).await?.expect_err(&what);
            assert_eq!((refusal["code"].as_str(), refusal["field"].as_str()), (Some(code), field), "{what}: {refusal}");
        }
        Ok(())
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn refusal(status: &Status) -> Value {
    let violation = status.get_details_bad_request().and_then(|mut request| request.field_violations.pop());
    let field = violation.map(|own| own.field);
    let detail = match &field {
        Some(field) => status.message().split_once(&format!(" {field}: ")).map(|(_, detail)| detail),
        None => status.message().split_once(". ").map(|(_, detail)| detail),
    };
    json!({"code": reason(status), "field": field, "detail": detail.unwrap_or_default()})
}

/// Members that are null are absent in a message.
fn without_null(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(without_null);
        }
        Value::Array(items) => items.iter_mut().for_each(without_null),
        _ => {}
    }
}

/// The paths of what is null.
fn nulls(value: &Value, path: &str, found: &mut Vec<String>) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if value.is_null() { found.push(path) } else { nulls(value, &path, found) }
    }
}

fn placed(members: &Value, merchant: &str, remembered: &BTreeMap<&str, Value>) -> Value {
    let text = members.to_string().replace(MERCHANT, merchant);
    let text =
        remembered.iter().fold(text, |text, (name, value)| text.replace(&format!("\"{name}\""), &value.to_string()));
    serde_json::from_str(&text).unwrap_or_default()
}

/// An outcome without what differs between two accounts.
fn comparable(outcome: &Outcome) -> Outcome {
    let plain = |value: &Value| {
        let mut value = value.clone();
        mask(&mut value);
        let text = MERCHANTS.iter().fold(value.to_string(), |text, merchant| text.replace(merchant, MERCHANT));
        serde_json::from_str(&text).unwrap_or_default()
    };
    outcome.as_ref().map(plain).map_err(plain)
}

fn mask(value: &mut Value) {
    match value {
        Value::Object(members) => members.iter_mut().for_each(|(name, value)| {
            if VOLATILE.contains(&name.as_str()) { *value = json!("…") } else { mask(value) }
        }),
        Value::Array(items) => items.iter_mut().for_each(mask),
        _ => {}
    }
}

/// The members of an operation on the line.
fn on_line(more: &Value) -> Value {
    let mut members = json!({"merchant_id": MERCHANT, "currency": "USD"});
    for (name, value) in more.as_object().into_iter().flatten() {
        members[name] = value.clone();
    }
    members
}

fn row(operation: &'static str, who: Who, more: &Value) -> Row {
    (operation, who, on_line(more))
}

fn draft(more: &Value) -> Value {
    let mut line = on_line(&json!({"limit_base": 10_000}));
    for (name, value) in more.as_object().into_iter().flatten() {
        line[name] = value.clone();
    }
    without_null(&mut line);
    json!({"line": line, "reason": "a new contract"})
}

#[tokio::test]
async fn credit_lines_are_the_same_over_both() -> Result<()> {
    let api = bench::start(&[])?;
    let routes = members::routes(&members::document()?);
    let channel = bench::channel(&api).await?;
    let mut both = Both { api: &api, channel, routes, called: BTreeSet::new(), remembered: Default::default() };
    drafted(&mut both).await?;
    opened(&mut both).await?;
    owed(&mut both).await?;
    paid(&mut both).await?;
    judged(&mut both).await?;
    listed(&mut both).await?;
    let close = |who| row("close_credit_line", who, &json!({"reason": "left"}));
    both.refused(vec![(close(Who::Oleg), "FORBIDDEN", None)]).await?;
    both.done(vec![close(Who::Ana)]).await?;
    both.refused(vec![(close(Who::Ana), "CONFLICT", None)]).await?;
    let operations: BTreeSet<String> = both.routes.keys().cloned().collect();
    assert_eq!(both.called, operations, "each operation is called");
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

/// Statements, which are put into the tables: no cycle ends while the test runs.
async fn owed(both: &mut Both<'_>) -> Result<()> {
    let pool = both.api.postgres.pool().await?;
    for (shard, merchant) in MERCHANTS.into_iter().enumerate() {
        for (number, month, due_on) in [(1, "07", "2026-08-14"), (2, "09", "2099-10-14")] {
            let cycle = format!("2026{month}01");
            sqlx::query(
                "INSERT INTO credit_statement VALUES ($1, 'USD', $2, $3::int, $3::date, $3::date + 29, $4::date, 500, 500, \
                    gen_random_uuid())",
            )
            .bind(merchant)
            .bind(number)
            .bind(&cycle)
            .bind(due_on)
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
    let mut client: CreditClient = credit_client(channel.clone(), &ana)?;
    let line = json!({"line": {"merchant_id": "keyed", "currency": "USD", "limit_base": 10_000}});
    let draft: proto::quota_v1::CreateCreditLineRequest = serde_json::from_value(line)?;
    credit_client(channel, &oleg)?.create_credit_line(draft).await?;
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
    Ok(())
}
