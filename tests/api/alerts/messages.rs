//! What was sent of alerts and how it arrived; tests, and sending it again.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::api::{Api, Caller, expect};
use testkit::gateway::Gateway;
use testkit::{Result, wait};

use super::settings::{NEW, OLD, hook, put};
use super::{Raised, admin, daily, items, raise};
use crate::policies;
use crate::suite::Suite;

/// How long the notifier may take to try what is due.
const TRIED_WITHIN: Duration = Duration::from_secs(30);
/// Nothing listens there, and it is no address that alerts may go to.
const NOWHERE: &str = "http://127.0.0.1:9/";

pub(crate) fn add(suite: &mut Suite) {
    suite.add("alerts::messages::an_alert_is_shown_with_its_messages_and_tries", shown);
    suite.add("alerts::messages::what_was_given_up_is_found_and_sent_again", again);
    suite.add("alerts::messages::a_test_makes_a_message_that_is_tried_at_once", test_send);
    suite.add("alerts::messages::tests_and_redeliveries_are_bounded_together", bounded);
    suite.alone("alerts::messages::what_has_arrived_is_on_record", arrived);
}

/// Puts a message into the table; gives its id.
async fn message(pool: &PgPool, alert: &str, kind: &str, scope: &str, state: &str) -> Result<String> {
    let statement = "INSERT INTO alert_message (message_id, alert_id, kind, scope, channel_id, channel_kind, alert_type, alert_level, \
            body, state, attempts, give_up_at, ended_at) \
        SELECT gen_random_uuid(), alert_id, $2, $3, 'hook', 'webhook', alert_type, alert_level, \
            '{\"type\": \"quota_alert.test\", \"timestamp\": \"2030-01-01T00:00:00Z\", \
              \"data\": {\"channel_id\": \"hook\", \"requested_by\": \"an-operator\", \"message\": \"m\"}}', $4, 2, now(), \
            CASE WHEN $4 IN ('sent', 'dead') THEN '2030-01-01T12:00:00Z'::timestamptz END \
        FROM quota_alert WHERE alert_id = $1::uuid RETURNING message_id::text";
    let query = sqlx::query_scalar(statement).bind(alert).bind(kind).bind(scope).bind(state);
    Ok(query.fetch_one(pool).await?)
}

async fn tried(pool: &PgPool, message: &str, attempt: i32, outcome: &str) -> Result<()> {
    let statement = "INSERT INTO alert_delivery (delivery_id, message_id, attempt, started_at, took_ms, outcome, status, response) \
        VALUES (gen_random_uuid(), $1::uuid, $2, '2030-01-01T12:00:00Z'::timestamptz + make_interval(secs => $2), 12, $3, 503, 'busy')";
    sqlx::query(statement).bind(message).bind(attempt).bind(outcome).execute(pool).await?;
    Ok(())
}

/// A message as its own path shows it, when it has so many tries.
async fn when_tried(caller: &Caller, id: &str, tries: usize) -> Result<Value> {
    wait::until_async(&format!("{tries} tries of {id}"), TRIED_WITHIN, || async {
        let shown = expect(&caller.get(&format!("/alerts/messages/{id}")).await?, 200, &json!({"message_id": id}));
        Ok(Some(shown).filter(|shown| shown["deliveries"].as_array().is_some_and(|list| list.len() >= tries)))
    })
    .await
}

async fn shown(api: &Api) -> Result<()> {
    let (mara, pool) = (admin(api, "mara")?, api.postgres.pool().await?);
    let m = "shown";
    let alert = raise(&pool, daily(m)).await?;
    let own = message(&pool, &alert, "raised", "merchant:shown", "dead").await?;
    for attempt in 1..=2 {
        tried(&pool, &own, attempt, "failed").await?;
    }
    let path = format!("/alerts/{alert}");
    expect(&mara.get(&path).await?, 200, &json!({"notification_sent": false, "notification_sent_at": null}));
    let theirs = message(&pool, &alert, "raised", "operators", "sent").await?;
    tried(&pool, &theirs, 1, "sent").await?;
    let sent_at = "2030-01-01T12:00:00Z";
    let notified = json!({"alert_id": alert, "notification_sent": true, "notification_sent_at": sent_at});
    let all = expect(&mara.get(&path).await?, 200, &notified);
    assert_eq!(all["messages"].as_array().map(Vec::len), Some(2), "{all}");
    // A merchant does not learn where operators are notified.
    let of_shop = json!({"notification_sent": false, "messages": [{"message_id": own, "scope": "merchant:shown",
        "state": "dead", "kind": "raised", "channel_id": "hook", "channel_kind": "webhook", "alert_type": "daily_80",
        "attempts": 2,
        "deliveries": [{"attempt": 2, "outcome": "failed", "status": 503, "response": "busy", "took_ms": 12}, {"attempt": 1}]}]});
    let shop = api.merchant(m)?;
    expect(&shop.get(&path).await?, 200, &of_shop);
    expect(&shop.get(&format!("/alerts/messages/{own}")).await?, 200, &of_shop["messages"][0]);
    expect(&shop.get(&format!("/alerts/messages/{theirs}")).await?, 404, &json!({"code": "NOT_FOUND"}));
    let redeliver = format!("/alerts/messages/{theirs}/redeliver");
    expect(&shop.post(&redeliver, &json!({})).await?, 404, &json!({"code": "NOT_FOUND"}));
    Ok(())
}

async fn again(api: &Api) -> Result<()> {
    let (mina, pool) = (admin(api, "mina")?, api.postgres.pool().await?);
    let m = "sent-again";
    let alert = raise(&pool, daily(m)).await?;
    let dead = message(&pool, &alert, "raised", "merchant:sent-again", "dead").await?;
    let sent = message(&pool, &alert, "resolved", "merchant:sent-again", "sent").await?;
    let list = |query: &str| format!("/alerts/messages?merchant_id={m}&{query}");
    for (query, expected) in [("state=dead", &dead), ("state=sent", &sent)] {
        let found = items(&mina, &list(query)).await?;
        assert_eq!(found.iter().map(|item| &item["message_id"]).collect::<Vec<_>>(), [expected], "{query}");
    }
    for (query, count) in [("state=pending", 0), ("channel_id=hook", 2), ("channel_id=mail", 0), ("limit=1", 1)] {
        assert_eq!(items(&mina, &list(query)).await?.len(), count, "{query}");
    }
    assert_eq!(items(&mina, &list(&format!("alert_id={alert}"))).await?.len(), 2);
    expect(&mina.get(&list("state=lost")).await?, 400, &json!({"field": "state"}));
    let path = format!("/alerts/messages/{dead}/redeliver");
    // The channel is gone: there is nothing to send it to.
    expect(&mina.post(&path, &json!({})).await?, 409, &json!({"code": "CONFLICT"}));
    let settings = format!("/merchants/{m}/settings");
    let mut quiet = hook(NOWHERE, &[OLD]);
    quiet["routes"] = json!([]);
    expect(&put(&mina, &settings, &quiet).await?, 200, &json!({"revision": 1}));
    let answer = mina.post(&path, &json!({})).await?;
    let pending = json!({"message_id": dead, "state": "pending", "ended_at": null, "by_hand": "mina"});
    let due = expect(&answer, 202, &pending);
    assert!(due["give_up_at"].as_str() > due["next_try_at"].as_str(), "{due}");
    let tried = when_tried(&mina, &dead, 1).await?;
    assert_eq!(tried["deliveries"][0]["by_hand"], "mina", "{tried}");
    // While it waits for its next try there is nothing to ask for.
    assert_eq!(tried["state"], "pending", "{tried}");
    let problem = expect(&mina.post(&path, &json!({})).await?, 409, &json!({"code": "CONFLICT"}));
    assert!(problem["detail"].as_str().unwrap_or_default().contains("pending"), "{problem}");
    let shop = api.merchant(m)?;
    let path = format!("/alerts/messages/{sent}/redeliver");
    expect(&shop.post(&path, &json!({})).await?, 202, &json!({"by_hand": format!("{m}-shop")}));
    let unknown = "/alerts/messages/0190a1b2-0000-7000-8000-000000000000/redeliver";
    expect(&mina.post(unknown, &json!({})).await?, 404, &json!({"code": "NOT_FOUND"}));
    Ok(())
}

async fn test_send(api: &Api) -> Result<()> {
    let shop = api.merchant("sent-tests")?;
    let path = "/merchants/sent-tests/settings";
    let none = shop.post(&format!("{path}/test"), &json!({"channel_id": "hook"})).await?;
    expect(&none, 400, &json!({"field": "channel_id"}));
    expect(&put(&shop, path, &hook(NOWHERE, &[OLD])).await?, 200, &json!({"revision": 1}));
    let answer = shop.post(&format!("{path}/test"), &json!({"channel_id": "hook"})).await?;
    let made = expect(
        &answer,
        202,
        &json!({"kind": "test", "alert_id": null, "scope": "merchant:sent-tests",
        "channel_id": "hook", "channel_kind": "webhook", "state": "pending", "attempts": 0,
        "by_hand": "sent-tests-shop"}),
    );
    let id = made["message_id"].as_str().unwrap_or_default();
    assert_eq!(answer.header("location"), Some(format!("/api/v1/alerts/messages/{id}").as_str()));
    let tried = when_tried(&shop, id, 1).await?;
    let refused = json!({"deliveries": [{"outcome": "failed", "by_hand": "sent-tests-shop"}]});
    let latest = json!({"deliveries": [tried["deliveries"][0]]});
    assert_eq!(testkit::api::differences("", &latest, &refused), [""; 0], "{tried}");
    Ok(())
}

async fn bounded(api: &Api) -> Result<()> {
    let maya = admin(api, "maya")?;
    let path = "/merchants/sent-often/settings";
    let mut quiet = hook(NOWHERE, &[OLD]);
    quiet["routes"] = json!([]);
    expect(&put(&maya, path, &quiet).await?, 200, &json!({"revision": 1}));
    let pool = api.postgres.pool().await?;
    let test = format!("{path}/test");
    let body = json!({"channel_id": "hook"});
    let mut last = Value::Null;
    for _ in 0..5 {
        last = expect(&maya.post(&test, &body).await?, 202, &json!({"kind": "test"}))["message_id"].clone();
    }
    // What was asked for counts when it was tried as well as before.
    when_tried(&maya, last.as_str().unwrap_or_default(), 1).await?;
    let alert = raise(&pool, Raised { resolved_by: Some("system"), ..daily("sent-often") }).await?;
    let (mut redelivered, scope) = (Vec::new(), "merchant:sent-often");
    for (kind, of) in [("raised", scope), ("resolved", scope), ("raised", "merchant:sent-else")] {
        redelivered.push(format!("/alerts/messages/{}/redeliver", message(&pool, &alert, kind, of, "sent").await?));
    }
    let sent = "UPDATE alert_message SET state = 'sent', by_hand = NULL WHERE scope = 'merchant:sent-often'";
    for number in 0..5 {
        expect(&maya.post(&redelivered[number % 2], &json!({})).await?, 202, &json!({"state": "pending"}));
        when_tried(&maya, redelivered[number % 2].split('/').nth(3).unwrap_or_default(), number / 2 + 1).await?;
        sqlx::query(sent).execute(&pool).await?;
    }
    for (path, body) in [(&redelivered[0], json!({})), (&test, body)] {
        let answer = maya.post(path, &body).await?;
        expect(&answer, 429, &json!({"code": "RATE_LIMITED"}));
        assert!(answer.header("retry-after").is_some());
    }
    // Others have their own ten.
    expect(&put(&maya, "/merchants/sent-else/settings", &quiet).await?, 200, &json!({"revision": 1}));
    expect(&maya.post(&redelivered[2], &json!({})).await?, 202, &json!({"state": "pending"}));
    Ok(())
}

/// A test and an alert arrive at a receiver, under the ids that the API shows.
async fn arrived() -> Result<()> {
    let api = Api::start(&policies::document(), &[("SLUICE_ALERT_ALLOW_NETWORKS", "127.0.0.0/8")])?;
    let receiver = Gateway::start()?;
    let (ana, oleg) = (api.admin()?, api.operator()?);
    let url = format!("http://{}/alerts", receiver.address());
    expect(&oleg.get("/operators/settings").await?, 200, &json!({"scope": "operators", "revision": 0}));
    expect(&put(&oleg, "/operators/settings", &hook(&url, &[NEW, OLD])).await?, 200, &json!({"updated_by": "oleg"}));
    let answer = oleg.post("/operators/settings/test", &json!({"channel_id": "hook"})).await?;
    let test = expect(&answer, 202, &json!({"scope": "operators"}))["message_id"].clone();
    let test = when_tried(&ana, test.as_str().unwrap_or_default(), 1).await?;
    let sent =
        json!({"state": "sent", "attempts": 1, "deliveries": [{"outcome": "sent", "status": 200, "by_hand": "oleg"}]});
    assert_eq!(testkit::api::differences("", &test, &sent), [""; 0], "{test}");
    let body = json!({"merchant_id": "sent-for-real", "currency": "USD", "reason": "chargebacks"});
    expect(&ana.post("/quotas/suspend", &body).await?, 200, &json!({"is_suspended": true}));
    let alert = wait::until_async("an alert that was sent", TRIED_WITHIN, || async {
        let open = items(&ana, "/alerts/merchant/sent-for-real").await?;
        Ok(open.into_iter().find(|alert| alert["notification_sent"] == true))
    })
    .await?;
    assert!(alert["notification_sent_at"].is_string(), "{alert}");
    let detail =
        expect(&ana.get(&format!("/alerts/{}", alert["alert_id"].as_str().unwrap_or_default())).await?, 200, &alert);
    let message = &detail["messages"][0];
    assert_eq!((&message["kind"], &message["state"]), (&json!("raised"), &json!("sent")), "{detail}");
    // Sent again, it is the same message to the receiver.
    let path = format!("/alerts/messages/{}/redeliver", message["message_id"].as_str().unwrap_or_default());
    expect(&ana.post(&path, &json!({})).await?, 202, &json!({"state": "pending"}));
    when_tried(&ana, message["message_id"].as_str().unwrap_or_default(), 2).await?;
    let seen = receiver.seen();
    let header = |number: usize, name: &str| seen.get(number).and_then(|seen| seen.headers.get(name)?.to_str().ok());
    let ids: Vec<_> = (0..seen.len()).map(|number| header(number, "webhook-id")).collect();
    let expected = [&test, message, message].map(|message| message["message_id"].as_str());
    assert_eq!(ids, expected);
    assert_eq!(header(0, "webhook-signature").map(|text| text.split(' ').count()), Some(2), "both secrets sign");
    Ok(())
}
