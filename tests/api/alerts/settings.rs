//! Who is notified of which alerts: settings as they are set, shown and kept.

use futures_util::future::join_all;
use serde_json::{Value, json};
use testkit::Result;
use testkit::api::{Api, Caller, expect};
use testkit::client::{Answer, Call};

use super::admin;
use crate::suite::Suite;

/// Base64 of 24 bytes each.
pub(super) const OLD: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
pub(super) const NEW: &str = "whsec_bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3";

pub(crate) fn add(suite: &mut Suite) {
    suite.add("alerts::settings::no_one_is_notified_until_a_caller_sets_it", defaults);
    suite.add("alerts::settings::secrets_are_never_shown_and_rotate", secrets);
    suite.add("alerts::settings::of_changes_of_one_revision_one_is_made", revisions);
    suite.add("alerts::settings::what_cannot_be_read_can_be_replaced", unreadable);
    suite.add("alerts::settings::what_is_wrong_is_named", validation);
}

/// PUT with a JSON body.
pub(super) async fn put(caller: &Caller, path: &str, body: &Value) -> Result<Answer> {
    let mut call = Call::post_json(path, body.to_string());
    call.method = "PUT".to_owned();
    caller.send(call).await
}

/// Settings with one webhook, which is notified of everything.
pub(super) fn hook(url: &str, secrets: &[&str]) -> Value {
    json!({"channels": [{"id": "hook", "kind": "webhook", "url": url, "secrets": secrets}], "routes": [{"channels": ["hook"]}]})
}

async fn defaults(api: &Api) -> Result<()> {
    let nothing = json!({"scope": "merchant:notified-nothing", "revision": 0, "updated_at": null, "updated_by": null,
        "settings": {"channels": [], "routes": [], "digest_minutes": 60}});
    expect(&admin(api, "sara")?.get("/merchants/notified-nothing/settings").await?, 200, &nothing);
    Ok(())
}

async fn secrets(api: &Api) -> Result<()> {
    let (shop, pool) = (api.merchant("set-secrets")?, api.postgres.pool().await?);
    let path = "/merchants/set-secrets/settings";
    let slack = "https://hooks.slack.com/services/T0/B0/very-secret";
    let body = json!({
        "channels": [
            {"id": "hook", "kind": "webhook", "url": "https://example.com/alerts", "secrets": [OLD]},
            {"id": "mail", "kind": "email", "to": ["a@example.com"]},
            {"id": "phone", "kind": "bark", "url": "https://api.day.app", "device_key": "very-secret-key"},
            {"id": "g", "kind": "gotify", "url": "https://gotify.example.com", "token": "very-secret-token"},
            {"id": "chat", "kind": "slack", "url": slack},
        ],
        "routes": [
            {"types": ["daily", "suspended"], "levels": ["critical"], "thresholds": [100], "channels": ["hook", "phone"]},
            {"resolved": false, "channels": ["mail"], "delivery": "digest"},
        ],
        "digest_minutes": 30,
    });
    let masked = json!({"scope": "merchant:set-secrets", "revision": 1, "updated_by": "set-secrets-shop", "settings": {
        "channels": [
            {"id": "hook", "secrets": ["********1"]},
            {"id": "mail", "to": ["a@example.com"]},
            {"id": "phone", "device_key": "********"},
            {"id": "g", "token": "********"},
            {"id": "chat", "url": "https://hooks.slack.com/********"},
        ],
        "routes": [{"resolved": true, "delivery": "immediate"}, {"resolved": false, "delivery": "digest"}],
        "digest_minutes": 30,
    }});
    expect(&put(&shop, path, &body).await?, 200, &masked);
    let answer = shop.get(path).await?;
    let mut shown = expect(&answer, 200, &masked)["settings"].clone();
    let text = String::from_utf8_lossy(&answer.body);
    assert!(!text.contains("very-secret") && !text.contains("whsec_"), "{text}");
    // A new secret in front of the one that was shown; everything else as it was shown.
    shown["channels"][0]["secrets"] = json!([NEW, "********1"]);
    let two =
        json!({"revision": 2, "settings": {"channels": [{"secrets": ["********1", "********2"]}, {}, {}, {}, {}]}});
    expect(&put(&shop, path, &shown).await?, 200, &two);
    let kept = "SELECT document::text FROM alert_settings WHERE scope = 'merchant:set-secrets'";
    let document: String = sqlx::query_scalar(kept).fetch_one(&pool).await?;
    let channels = serde_json::from_str::<Value>(&document)?["channels"].clone();
    assert_eq!(channels[0]["secrets"], json!([NEW, OLD]));
    let rest = [&channels[2]["device_key"], &channels[3]["token"], &channels[4]["url"]];
    assert_eq!(rest, ["very-secret-key", "very-secret-token", slack]);
    // The old one is over.
    shown["channels"][0]["secrets"] = json!(["********1"]);
    expect(&put(&shop, path, &shown).await?, 200, &json!({"revision": 3}));
    let document: String = sqlx::query_scalar(kept).fetch_one(&pool).await?;
    assert_eq!(serde_json::from_str::<Value>(&document)?["channels"][0]["secrets"], json!([NEW]));
    // No caller learns a token by sending it to a server of its own.
    shown["channels"][3]["url"] = "https://elsewhere.example.com".into();
    expect(&put(&shop, path, &shown).await?, 400, &json!({"field": "channels[3].token"}));
    for line in api.server.log_lines() {
        let line = line.to_string();
        assert!(!line.contains("very-secret") && !line.contains(NEW) && !line.contains(OLD), "{line}");
    }
    Ok(())
}

async fn revisions(api: &Api) -> Result<()> {
    let sven = admin(api, "sven")?;
    let path = "/merchants/set-revisions/settings";
    let body = hook("https://example.com/alerts", &[OLD]);
    let at = |revision: u64| format!("{path}?expected_revision={revision}");
    expect(&put(&sven, &at(1), &body).await?, 409, &json!({"code": "VERSION_CONFLICT"}));
    expect(&sven.get(path).await?, 200, &json!({"revision": 0}));
    expect(&put(&sven, &at(0), &body).await?, 200, &json!({"revision": 1, "updated_by": "sven"}));
    expect(&put(&sven, &at(0), &body).await?, 409, &json!({"code": "VERSION_CONFLICT"}));
    let callers = (0..6).map(|number| admin(api, &format!("setter-{number}"))).collect::<Result<Vec<_>>>()?;
    let (both, one) = ("/merchants/set-first/settings".to_owned(), at(1));
    let first = format!("{both}?expected_revision=0");
    for path in [&one, &first] {
        let answers = join_all(callers.iter().map(|caller| put(caller, path, &body))).await;
        let statuses = answers.into_iter().map(|answer| Ok(answer?.status)).collect::<Result<Vec<u16>>>()?;
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{path}: {statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 5, "{path}: {statuses:?}");
    }
    expect(&sven.get(path).await?, 200, &json!({"revision": 2}));
    expect(&sven.get(&both).await?, 200, &json!({"revision": 1}));
    Ok(())
}

async fn unreadable(api: &Api) -> Result<()> {
    let (sina, pool) = (admin(api, "sina")?, api.postgres.pool().await?);
    let path = "/merchants/set-unreadable/settings";
    let body = hook("https://example.com/alerts", &[OLD]);
    expect(&put(&sina, path, &body).await?, 200, &json!({"revision": 1}));
    let broken = "UPDATE alert_settings SET document = '{\"channels\": 1}' WHERE scope = 'merchant:set-unreadable'";
    sqlx::query(broken).execute(&pool).await?;
    // It has no secrets that a mask could stand for.
    let masked = hook("https://example.com/alerts", &["********1"]);
    expect(&put(&sina, path, &masked).await?, 400, &json!({"field": "channels[0].secrets[0]"}));
    expect(&put(&sina, path, &body).await?, 200, &json!({"revision": 2}));
    expect(&sina.get(path).await?, 200, &json!({"revision": 2}));
    Ok(())
}

async fn validation(api: &Api) -> Result<()> {
    let sam = admin(api, "sam")?;
    let good = hook("https://example.com/alerts", &[OLD]);
    let with = |place: &str, value: Value| {
        let mut body = good.clone();
        body.pointer_mut(place).into_iter().for_each(|found| *found = value.clone());
        body
    };
    let table = [
        (json!({"channels": [], "quiet_hours": 1}), Some("quiet_hours")),
        (with("/routes/0", json!({})), Some("routes[0].channels")),
        (with("/routes/0/channels", json!(["fax"])), Some("routes[0].channels[0]")),
        (with("/routes/0", json!({"channels": ["hook"], "types": ["daily_80"]})), Some("routes[0].types[0]")),
        (with("/routes/0", json!({"channels": ["hook"], "types": ["drift"]})), Some("routes[0].types[0]")),
        (with("/routes/0", json!({"channels": ["hook"], "delivery": "later"})), Some("routes[0].delivery")),
        (with("/routes/0", json!({"channels": ["hook"], "thresholds": [0]})), Some("routes[0].thresholds[0]")),
        (with("/channels/0/url", json!("ftp://example.com")), Some("channels[0].url")),
        (with("/channels/0/url", json!("https://me:word@example.com")), Some("channels[0].url")),
        (with("/channels/0/secrets", json!(["short"])), Some("channels[0].secrets[0]")),
        (with("/channels/0/secrets", json!(["********1"])), Some("channels[0].secrets[0]")),
        (with("/channels/0/kind", json!("fax")), Some("channels[0]")),
        (with("/channels/0/kind", json!("email")), Some("channels[0]")),
        (with("/channels/0/id", json!("Hook")), Some("channels[0].id")),
        (json!({}), Some("channels")),
        (json!({"channels": []}), Some("routes")),
        (json!([]), None),
    ];
    for (body, field) in table {
        let answer = put(&sam, "/merchants/set-wrong/settings", &body).await?;
        let problem = expect(&answer, 400, &json!({"code": "BAD_REQUEST"}));
        let found = problem["field"].as_str();
        let names = field.is_none() || found.zip(field).is_some_and(|(found, field)| found.starts_with(field));
        assert!(names, "{body}: {problem}");
    }
    expect(&sam.get("/merchants/set-wrong/settings").await?, 200, &json!({"revision": 0}));
    let of_operators = with("/routes/0", json!({"channels": ["hook"], "types": ["drift"], "levels": ["critical"]}));
    let mut later = of_operators;
    // Nothing goes to this channel while other tests raise alerts.
    later["routes"] = json!([]);
    expect(&put(&sam, "/operators/settings", &later).await?, 200, &json!({"scope": "operators"}));
    expect(&put(&sam, "/merchants/a%20b/settings", &good).await?, 400, &json!({"field": "merchant_id"}));
    Ok(())
}
