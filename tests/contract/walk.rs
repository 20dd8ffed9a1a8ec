//! Every documented operation, called with valid input in an order in which each finds what it works on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::api::{Api, Caller, ROOT};
use testkit::checks::ask;
use testkit::client::Call;
use testkit::gateway::Gateway;
use testkit::process::run;
use testkit::rights::ended_long_ago;
use testkit::{Result, wait};

/// Whose quota the walk is about.
const MERCHANT: &str = "walked";
/// What answers a merchant that names no merchant: its own data.
const NARROWED: [&str; 17] = [
    "/rights",
    "/quotas/list",
    "/quotas/stats",
    "/outcomes/unknown",
    "/usage-logs/order/{order_no}",
    "/usage-logs/stats",
    "/alerts",
    "/alerts/unresolved",
    "/alerts/stats",
    "/alerts/messages",
    "/credit-lines",
    "/credit/ageing",
    "/credit/statements",
    "/credit/stats",
    "/transfers",
    "/access-tokens",
    "/self",
];
/// What an id alone names: another's is answered as one that nothing has.
const HIDDEN: [&str; 5] = [
    "/alerts/{alert_id}",
    "/alerts/messages/{message_id}",
    "/alerts/messages/{message_id}/redeliver",
    "/transfers/{transfer_no}",
    "/access-tokens/{id}",
];
/// How long the journal may take to raise an alert, and the notifier to send it.
const NOTIFIED_WITHIN: Duration = Duration::from_secs(30);

/// Never answered to the end: tests/api/stream.rs reads it.
pub(crate) const ENDLESS: &str = "/stream";

/// A call as it was sent, and what came of it.
#[derive(Debug)]
pub(crate) struct Step {
    method: &'static str,
    /// As the document has it.
    template: &'static str,
    call: Call,
    status: u16,
    content_type: Option<String>,
    body: Value,
}

/// Sends calls one after the other and remembers them.
struct Walk {
    ana: Caller,
    /// Approves what the other one drafted.
    boss: Caller,
    steps: Vec<Step>,
}

impl Walk {
    /// GET or DELETE of a path with this in the place of its parameter, and this query.
    async fn get(&mut self, method: &'static str, template: &'static str, id: &Value, query: &str) -> Result<Value> {
        let path = format!("{}{query}", fill(template, id));
        let caller = self.ana.clone();
        self.send(&caller, method, template, Call::new(method, &path)).await
    }

    /// POST, PUT or PATCH.
    async fn put(&mut self, method: &'static str, template: &'static str, id: &Value, body: Value) -> Result<Value> {
        let mut call = Call::post_json(&fill(template, id), body.to_string());
        method.clone_into(&mut call.method);
        let decides = ["/approve", "/activate", "/deactivate"].iter().any(|end| template.ends_with(end));
        let caller = if decides { self.boss.clone() } else { self.ana.clone() };
        self.send(&caller, method, template, call).await
    }

    async fn post(&mut self, template: &'static str, body: Value) -> Result<Value> {
        self.put("POST", template, &Value::Null, body).await
    }

    async fn send(
        &mut self,
        caller: &Caller,
        method: &'static str,
        template: &'static str,
        call: Call,
    ) -> Result<Value> {
        let answer = caller.send(call.clone()).await?;
        let text = String::from_utf8_lossy(&answer.body);
        assert!((200..300).contains(&answer.status), "{method} {}: {} {text}", call.path, answer.status);
        let content_type = answer.header("content-type").map(str::to_owned);
        let body = answer.json();
        self.steps.push(Step { method, template, call, status: answer.status, content_type, body: body.clone() });
        Ok(body)
    }
}

fn fill(template: &str, id: &Value) -> String {
    let parts = template.split('/').map(|part| match part {
        "{merchant_id}" => MERCHANT,
        "{order_no}" => "1",
        "{currency}" => "USD",
        part if part.starts_with('{') => id.as_str().unwrap_or_default(),
        part => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

/// Walks through the whole API.
pub(crate) async fn all(api: &Api) -> Result<Vec<Step>> {
    let boss = api.caller(json!({"sub": "boss", "role": "admin"}))?;
    let mut walk = Walk { ana: api.admin()?, boss, steps: Vec::new() };
    policies(&mut walk).await?;
    tiers(&mut walk).await?;
    overrides(&mut walk).await?;
    quotas(&mut walk).await?;
    rights(&mut walk, api).await?;
    outcomes(&mut walk, api).await?;
    alerts(&mut walk).await?;
    logs_and_settings(&mut walk).await?;
    // Last: a line that is closed takes no payments.
    credit(&mut walk, api).await?;
    tokens(&mut walk).await?;
    Ok(walk.steps)
}

async fn policies(walk: &mut Walk) -> Result<()> {
    let policy = json!({"policy": {"merchant_id": MERCHANT, "daily_limit": 5_000_000}, "reason": "a contract"});
    let made = walk.post("/limit-policies", policy.clone()).await?;
    let id = &made["policy_id"];
    walk.put("PUT", "/limit-policies/{policy_id}", id, policy).await?;
    for decision in [
        "/limit-policies/{policy_id}/approve",
        "/limit-policies/{policy_id}/activate",
        "/limit-policies/{policy_id}/deactivate",
    ] {
        walk.put("POST", decision, id, json!({"reason": "as agreed"})).await?;
    }
    walk.get("GET", "/limit-policies", id, "?merchant_id=walked").await?;
    walk.get("GET", "/limit-policies/{policy_id}", id, "").await?;
    walk.get("GET", "/limit-policies/{policy_id}/history", id, "?limit=2").await?;
    walk.get("DELETE", "/limit-policies/{policy_id}", id, "").await?;
    walk.get("GET", "/limit-policies/effective", id, "?merchant_id=walked&currency=EUR&channel=card").await.map(drop)
}

async fn tiers(walk: &mut Walk) -> Result<()> {
    let tier = json!({"tier_code": "walked", "tier_level": 2});
    let made = walk.post("/tiers", tier.clone()).await?;
    let id = made["tier_id"].clone();
    walk.put("PUT", "/tiers/{tier_id}", &id, tier).await?;
    walk.get("GET", "/tiers", &id, "").await?;
    walk.get("GET", "/tiers/{tier_id}", &id, "").await?;
    let binding = json!({"merchant_id": MERCHANT, "tier_id": id, "change_reason": "grown"});
    let bound = walk.post("/merchant-tiers", binding).await?;
    walk.get("GET", "/merchant-tiers", &id, "?merchant_id=walked").await?;
    walk.get("DELETE", "/merchant-tiers/{binding_id}", &bound["binding_id"], "").await?;
    let spare = walk.post("/tiers", json!({"tier_code": "spare", "tier_level": 3})).await?;
    walk.get("DELETE", "/tiers/{tier_id}", &spare["tier_id"], "").await.map(drop)
}

async fn overrides(walk: &mut Walk) -> Result<()> {
    let sale = json!({"merchant_id": MERCHANT, "daily_limit": 9_000_000, "reason": "a sale",
        "effective_date": "2090-01-01T00:00:00Z", "expiry_date": "2090-01-02T00:00:00Z"});
    let made = walk.post("/policy-overrides", sale).await?;
    let id = &made["override_id"];
    walk.get("GET", "/policy-overrides", id, "?merchant_id=walked").await?;
    walk.get("GET", "/policy-overrides/{override_id}", id, "").await?;
    walk.put("POST", "/policy-overrides/{override_id}/approve", id, json!({"reason": "as agreed"})).await?;
    walk.put("POST", "/policy-overrides/{override_id}/revoke", id, json!({"reason": "no sale"})).await.map(drop)
}

async fn quotas(walk: &mut Walk) -> Result<()> {
    let of = |more: Value| {
        let mut body = json!({"merchant_id": MERCHANT, "currency": "USD"});
        body.as_object_mut().into_iter().for_each(|body| body.extend(more.as_object().cloned().unwrap_or_default()));
        body
    };
    let nothing = Value::Null;
    walk.post("/quotas/initialize", of(json!({}))).await?;
    walk.post("/quotas/check", of(json!({"amount": 500}))).await?;
    walk.post("/quotas/consume", of(json!({"order_no": "1", "amount": 500, "metadata": {"shop": 7}}))).await?;
    walk.post("/quotas/refund", of(json!({"order_no": "1", "refund_no": "r1", "amount": 100}))).await?;
    walk.post("/quotas/release", of(json!({"order_no": "1"}))).await?;
    for order_no in ["2", "3"] {
        walk.post("/quotas/hold", of(json!({"order_no": order_no, "amount": 500}))).await?;
    }
    walk.post("/quotas/settle", of(json!({"order_no": "2", "amount": 300, "capture_no": "c1", "final": false})))
        .await?;
    let later = (chrono::Utc::now() + chrono::Duration::days(30)).to_rfc3339();
    walk.post("/quotas/extend-hold", of(json!({"order_no": "3", "hold_until": later}))).await?;
    walk.post("/quotas/void", of(json!({"order_no": "3"}))).await?;
    let adjust = json!({"counter": "daily_used", "operation": "add", "amount": 7, "reason": "found"});
    walk.post("/quotas/adjust", of(adjust)).await?;
    walk.post("/quotas/suspend", of(json!({"reason": "chargebacks"}))).await?;
    walk.get("GET", "/quotas/merchant/{merchant_id}/currency/{currency}", &nothing, "").await?;
    walk.post("/quotas/resume", of(json!({"reason": "settled"}))).await?;
    let charge = |order_no: &str, amount: u64| of(json!({"action": "consume", "order_no": order_no, "amount": amount}));
    walk.post(
        "/quotas/batch",
        json!({"operations": [charge("4", 500), of(json!({"action": "check", "amount": 500}))]}),
    )
    .await?;
    walk.post("/quotas/batch", json!({"operations": [charge("5", 500), charge("6", 100_000_001)]})).await?;
    walk.post("/quotas/reset", of(json!({"window": "daily", "reason": "a new contract"}))).await?;
    walk.get("GET", "/quotas/merchant/{merchant_id}", &nothing, "").await?;
    walk.get("GET", "/quotas/list", &nothing, "?limit=1").await?;
    walk.get("GET", "/quotas/stats", &nothing, "").await.map(drop)
}

/// Of a right that a payment was granted and that its holder does not return.
async fn rights(walk: &mut Walk, api: &Api) -> Result<()> {
    const RIGHT: &str = "5c1f0a90-0000-0000-0000-00000000002a";
    // The shipped policies grant rights to merchants of its tier.
    const TRUSTED: &str = "merchant-001";
    let attempt = RIGHT.replace('-', "");
    let payment = [("merchant", TRUSTED), ("currency", "USD"), ("order_no", "1"), ("attempt", attempt.as_str())];
    let wanted = [("action", "consume"), ("amount_minor", "500"), ("right_wanted", "5 5000")];
    assert_eq!(ask(api.server.grpc_address(), &[&payment[..], &wanted].concat()).await?, "ADMITTED");
    let nothing = Value::Null;
    let found = walk.get("GET", "/rights", &nothing, "?currency=USD&orphaned=false&limit=1").await?;
    assert_eq!(found["items"][0]["right_id"], RIGHT, "{found}");
    walk.get("GET", "/rights", &nothing, "?limit=500").await?;
    let release = json!({"merchant_id": TRUSTED, "currency": "USD", "right_id": RIGHT, "reason": "a new proxy"});
    ended_long_ago(&api.redis, TRUSTED, RIGHT).await?;
    walk.post("/quotas/release-right", release).await.map(drop)
}

/// Of a payment that the gateway left open, as the proxy reports it.
async fn outcomes(walk: &mut Walk, api: &Api) -> Result<()> {
    let payment =
        [("merchant", MERCHANT), ("currency", "USD"), ("order_no", "7"), ("attempt", "a"), ("amount_minor", "500")];
    let report = [("action", "unknown"), ("outcome_of", "consume"), ("reason", "status_503")];
    for (more, code) in [(&[("action", "consume")][..], "ADMITTED"), (&report[..], "APPLIED")] {
        assert_eq!(ask(api.server.grpc_address(), &[&payment[..], more].concat()).await?, code);
    }
    let ana = walk.ana.clone();
    let outcome = until(&ana, &format!("/outcomes/unknown?merchant_id={MERCHANT}"), |answer| {
        answer["items"][0]["outcome_id"].is_string().then(|| answer["items"][0]["outcome_id"].clone())
    })
    .await?;
    let made = json!({"outcome": "made", "reason": "the gateway's report has it"});
    walk.get("GET", "/outcomes/unknown", &Value::Null, "?limit=1").await?;
    walk.put("POST", "/outcomes/{outcome_id}/resolve", &outcome, made).await?;
    walk.get("GET", "/outcomes/unknown", &Value::Null, "?resolved=true").await.map(drop)
}

async fn alerts(walk: &mut Walk) -> Result<()> {
    let nothing = Value::Null;
    let receiver = Gateway::start()?;
    let hook = json!({"id": "hook", "kind": "webhook", "url": format!("http://{}/", receiver.address()),
        "secrets": ["whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"]});
    let settings = json!({"channels": [hook, {"id": "mail", "kind": "email", "to": ["a@example.com"]},
            {"id": "phone", "kind": "bark", "url": "https://api.day.app", "device_key": "key"},
            {"id": "g", "kind": "gotify", "url": "https://gotify.example.com", "token": "token"},
            {"id": "chat", "kind": "slack", "url": "https://hooks.slack.com/services/T/B/X"}],
        "routes": [{"types": ["suspended"], "channels": ["hook"]},
            {"types": ["yearly"], "levels": ["critical"], "thresholds": [100], "channels": ["mail"], "delivery": "digest"}]});
    let mut tests = Vec::new();
    for path in ["/operators/settings", "/merchants/{merchant_id}/settings"] {
        walk.put("PUT", path, &nothing, settings.clone()).await?;
        walk.get("GET", path, &nothing, "").await?;
    }
    for path in ["/operators/settings/test", "/merchants/{merchant_id}/settings/test"] {
        tests.push(walk.post(path, json!({"channel_id": "hook"})).await?["message_id"].clone());
    }
    for reason in ["chargebacks", "more of them"] {
        walk.post("/quotas/suspend", json!({"merchant_id": MERCHANT, "currency": "EUR", "reason": reason})).await?;
    }
    let ana = walk.ana.clone();
    let alert = until(&ana, &format!("/alerts/unresolved?merchant_id={MERCHANT}&type=suspended"), |answer| {
        answer["items"][0]["alert_id"].is_string().then(|| answer["items"][0]["alert_id"].clone())
    })
    .await?;
    let message = tests.pop().unwrap_or_default();
    let path = format!("/alerts/messages/{}", message.as_str().unwrap_or_default());
    until(&ana, &path, |answer| (answer["state"] == "sent").then_some(())).await?;
    let path = format!("/alerts/{}", alert.as_str().unwrap_or_default());
    until(&ana, &path, |answer| (answer["notification_sent"] == true).then_some(())).await?;
    walk.get("GET", "/alerts/{alert_id}", &alert, "").await?;
    for query in ["", "?limit=1"] {
        walk.get("GET", "/alerts", &nothing, query).await?;
        walk.get("GET", "/alerts/unresolved", &nothing, query).await?;
        walk.get("GET", "/alerts/messages", &nothing, query).await?;
    }
    walk.get("GET", "/alerts/merchant/{merchant_id}", &nothing, "?type=suspended&level=critical&resolved=false")
        .await?;
    walk.get("GET", "/alerts/stats", &nothing, "").await?;
    walk.put("POST", "/alerts/{alert_id}/acknowledge", &alert, json!({"notes": "calling them"})).await?;
    walk.put("POST", "/alerts/{alert_id}/resolve", &alert, json!({"notes": "they paid"})).await?;
    walk.get("GET", "/alerts/{alert_id}", &alert, "").await?;
    walk.get("GET", "/alerts/messages/{message_id}", &message, "").await?;
    walk.put("POST", "/alerts/messages/{message_id}/redeliver", &message, json!({})).await.map(drop)
}

/// Asks, beside the walk, until the answer has what is waited for.
async fn until<T>(caller: &Caller, path: &str, found: impl Fn(&Value) -> Option<T>) -> Result<T> {
    wait::until_async(path, NOTIFIED_WITHIN, || async { Ok(found(&caller.get(path).await?.json())) }).await
}

/// A line in force with a statement, which is put into the tables: no cycle ends while the test runs.
async fn credit(walk: &mut Walk, api: &Api) -> Result<()> {
    const LINE: &str = "/credit-lines/{merchant_id}/{currency}";
    let nothing = Value::Null;
    let line =
        json!({"merchant_id": MERCHANT, "currency": "USD", "limit_base": 1_000_000, "taken_over_from": "2026-07-15"});
    walk.post("/credit-lines", json!({"line": line, "reason": "a contract"})).await?;
    walk.put("PATCH", LINE, &nothing, json!({"line": {"terms": {"due_days": 30}}, "reason": "as agreed"})).await?;
    walk.put("POST", "/credit-lines/{merchant_id}/{currency}/approve", &nothing, json!({"reason": "agreed"})).await?;
    walk.put("POST", "/credit-lines/{merchant_id}/{currency}/activate", &nothing, json!({})).await?;
    let open = json!({"obligations": [{"closed_on": "2026-08-31", "due_on": "2030-09-30", "amount": 50}], "reason": "from the former system"});
    walk.put("POST", "/credit-lines/{merchant_id}/{currency}/obligations", &nothing, open).await?;
    let pool = api.postgres.pool().await?;
    for statement in [
        "INSERT INTO credit_statement VALUES ('walked', 'USD', 1, 20260901, '2026-09-01', '2026-09-30', '2099-10-30', 500, 500, \
            gen_random_uuid())",
        "INSERT INTO credit_entry (event_id, kind, merchant_id, currency, shard, seq, at, business_day, cycle, amount) \
            VALUES (gen_random_uuid(), 'cycle_closed', 'walked', 'USD', 0, 1, now(), 20261001, 20260901, 500)",
    ] {
        sqlx::query(statement).execute(&pool).await?;
    }
    pool.close().await;
    let repayment =
        json!({"repayment_no": "walked-1", "amount": 100, "received_on": "2026-10-02", "remarks": "by transfer"});
    walk.put("POST", "/credit-lines/{merchant_id}/{currency}/repayments", &nothing, repayment).await?;
    let ana = walk.ana.clone();
    until(&ana, &format!("/credit-lines/{MERCHANT}/USD/repayments"), |answer| {
        answer["items"][0]["repayment_no"].is_string().then_some(())
    })
    .await?;
    let reverse = "/credit-lines/{merchant_id}/{currency}/repayments/{repayment_no}/reverse";
    walk.put("POST", reverse, &json!("walked-1"), json!({"reason": "it bounced"})).await?;
    let write_off = json!({"write_off_no": "walked-w-1", "amount": 5, "reason": "a rounding"});
    walk.put("POST", "/credit-lines/{merchant_id}/{currency}/write-off", &nothing, write_off).await?;
    let pause = json!({"from": "2026-12-01", "to": "2026-12-05", "reason": "pays next week"});
    walk.put("POST", "/credit-lines/{merchant_id}/{currency}/pauses", &nothing, pause).await?;
    let grade = json!({"grade": "A", "reason": "audited accounts", "expires_on": "2099-12-31"});
    let grade = walk.put("POST", "/credit-lines/{merchant_id}/{currency}/grade", &nothing, grade).await?;
    let approve = "/credit-lines/{merchant_id}/{currency}/grade/{grade_id}/approve";
    walk.put("POST", approve, &json!(grade["grade_id"].to_string()), json!({})).await?;
    let dispute = json!({"dispute_no": "walked-d-1", "opened_on": "2026-10-02", "amount": 100});
    walk.put("POST", "/credit-lines/{merchant_id}/{currency}/disputes", &nothing, dispute).await?;
    scorecards(walk).await?;
    for template in [
        LINE,
        "/credit-lines/{merchant_id}/{currency}/disputes",
        "/credit-lines/{merchant_id}/{currency}/history",
        "/credit-lines/{merchant_id}/{currency}/statements",
        "/credit-lines/{merchant_id}/{currency}/repayments",
        "/credit-lines/{merchant_id}/{currency}/pauses",
        "/credit-lines/{merchant_id}/{currency}/grade",
        "/credit-lines/{merchant_id}/{currency}/dunning",
        "/credit-lines",
        "/credit/ageing",
        "/credit/statements",
        "/credit/stats",
    ] {
        walk.get("GET", template, &nothing, "").await?;
    }
    for template in ["/credit-lines/{merchant_id}/{currency}/statements", "/credit/statements"] {
        walk.get("GET", template, &nothing, "?format=csv").await?;
    }
    walk.get("GET", "/credit-lines/{merchant_id}/{currency}/statements/{number}", &json!("1"), "").await?;
    let friend = json!({"line": {"merchant_id": "walked-friend", "currency": "USD", "limit_base": 1_000}});
    let (ana, boss) = (walk.ana.clone(), walk.boss.clone());
    assert_eq!(ana.post("/credit-lines", &friend).await?.status, 201);
    for step in ["approve", "activate"] {
        let path = format!("/credit-lines/walked-friend/USD/{step}");
        assert_eq!(boss.post(&path, &json!({})).await?.status, 200, "{step}");
    }
    let transfer = json!({"transfer_no": "walked-t-1", "from_merchant_id": MERCHANT, "to_merchant_id": "walked-friend",
        "currency": "USD", "amount": 10, "reason": "an invitation"});
    walk.post("/transfers", transfer).await?;
    walk.get("GET", "/transfers/{transfer_no}", &json!("walked-t-1"), "").await?;
    walk.get("GET", "/transfers", &nothing, "?state=completed").await?;
    let own = api.merchant(MERCHANT)?;
    walk.send(&own, "GET", "/self", Call::new("GET", "/self")).await?;
    walk.put("POST", "/credit-lines/{merchant_id}/{currency}/close", &nothing, json!({"reason": "done"}))
        .await
        .map(drop)
}

/// One on trial.
async fn scorecards(walk: &mut Walk) -> Result<()> {
    let (nothing, version) = (Value::Null, json!("walked-1"));
    let card = json!({"version": version, "base_points": 600, "characteristics": [{"feature": "disputes", "missing_points": 0,
        "bins": [{"from": null, "to": 0, "points": 10}, {"from": 1, "to": null, "points": -10}]}]});
    walk.put("PUT", "/scorecards", &nothing, json!({"card": card, "reason": "a trial"})).await?;
    walk.put("POST", "/scorecards/{version}/activate", &version, json!({"role": "challenger"})).await?;
    walk.get("GET", "/scorecards", &nothing, "").await?;
    for template in ["/scorecards/{version}", "/scorecards/{version}/results", "/scorecards/{version}/history"] {
        walk.get("GET", template, &version, "").await?;
    }
    walk.put("POST", "/scorecards/{version}/retire", &version, json!({"reason": "no better"})).await.map(drop)
}

async fn logs_and_settings(walk: &mut Walk) -> Result<()> {
    let nothing = Value::Null;
    for query in ["?action=consume&success=true&limit=1", "?format=csv"] {
        walk.get("GET", "/usage-logs/merchant/{merchant_id}", &nothing, query).await?;
    }
    walk.get("GET", "/usage-logs/order/{order_no}", &nothing, "").await?;
    walk.get("GET", "/usage-logs/stats", &nothing, "").await?;
    walk.get("GET", "/settings", &nothing, "").await?;
    walk.put("PATCH", "/settings", &nothing, json!({"changes": {"admin_page_max": 150}, "reason": "a walk"})).await?;
    walk.get("GET", "/settings/history", &nothing, "?key=admin_page_max").await.map(drop)
}

async fn tokens(walk: &mut Walk) -> Result<()> {
    let new = json!({"name": "a walk", "role": "operator", "permissions": ["quotas:read"], "expires_at": "2090-01-01T00:00:00Z"});
    let made = walk.post("/access-tokens", new).await?;
    let rotated = walk.put("POST", "/access-tokens/{id}/rotate", &made["access_token"]["id"], json!({})).await?;
    walk.get("GET", "/access-tokens", &Value::Null, "?active=true").await?;
    walk.get("DELETE", "/access-tokens/{id}", &rotated["access_token"]["id"], "").await.map(drop)
}

/// Method and path of every operation that the document has.
pub(crate) fn documented() -> Result<BTreeSet<String>> {
    let document: Value = serde_json::from_str(&sluice_api::admin::openapi::document())?;
    let mut operations = BTreeSet::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        let methods = methods.as_object().into_iter().flatten();
        let path = path.strip_prefix(ROOT).unwrap_or(path);
        operations.extend(methods.map(|(method, _)| format!("{} {path}", method.to_uppercase())));
    }
    Ok(operations)
}

/// Nothing is documented that the walk does not call.
pub(crate) fn covers_the_document(steps: &[Step]) -> Result<()> {
    let called: BTreeSet<String> = steps.iter().map(|step| format!("{} {}", step.method, step.template)).collect();
    let mut documented = documented()?;
    assert!(documented.remove(&format!("GET {ENDLESS}")));
    assert_eq!(called, documented, "left: what the walk calls; right: what is documented");
    Ok(())
}

/// Every answer has a status, a content type and a form that the document gives it.
pub(crate) fn answers_are_as_described(python: &Path, api: &Api, steps: &[Step]) -> Result<()> {
    let answers: Vec<Value> = steps
        .iter()
        .map(|step| {
            let media = step.content_type.as_deref().and_then(|text| text.split(';').next());
            let body = if media == Some("text/csv") { Value::from("a file") } else { step.body.clone() };
            json!({"path": format!("{ROOT}{}", step.template), "method": step.method.to_lowercase(), "status": step.status,
                "content_type": media, "body": body})
        })
        .collect();
    let (document, file) = (api.dir().join("openapi.json"), api.dir().join("answers.json"));
    std::fs::write(&document, sluice_api::admin::openapi::document())?;
    std::fs::write(&file, Value::from(answers).to_string())?;
    let script = testkit::dirs::workspace().join("tests/contract/validate.py");
    run(Command::new(python).arg(script).arg(document).arg(file)).map(drop)
}

/// The same calls by another merchant: refused, or answered with nothing of this one.
pub(crate) async fn a_stranger_is_refused_everything(api: &Api, steps: &[Step]) -> Result<()> {
    let stranger = api.merchant("stranger")?;
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for step in steps {
        let answer = stranger.send(step.call.clone()).await?;
        let text = String::from_utf8_lossy(&answer.body);
        let what = format!("{} {}: {} {text}", step.method, step.call.path, answer.status);
        if step.method == "GET" && NARROWED.contains(&step.template) {
            assert!(answer.status == 200 && !text.contains(MERCHANT), "{what}");
            *seen.entry(step.template).or_default() += 1;
        } else if HIDDEN.contains(&step.template) {
            assert_eq!((answer.status, answer.code().as_str()), (404, "NOT_FOUND"), "{what}");
        } else {
            assert_eq!((answer.status, answer.code().as_str()), (403, "FORBIDDEN"), "{what}");
        }
    }
    assert_eq!(seen.len(), NARROWED.len(), "{seen:?}");
    Ok(())
}
