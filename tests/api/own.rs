//! What a merchant sees and sets itself: its own line without the operators' notes, everything about it in one answer, its own
//! access tokens, and when it is warned.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::api::{Api, Caller, expect};
use testkit::client::{Answer, Call};
use testkit::{Result, wait};

use crate::charges::charge;
use crate::credit::{open, patch, path};
use crate::suite::Suite;

/// The journal stores within a second.
const STORED_WITHIN: Duration = Duration::from_secs(20);
/// The limit of merchants that no policy names.
const DAILY_LIMIT: u64 = 5_000_000;

pub(crate) fn add(suite: &mut Suite) {
    suite.add("own::a_merchant_reads_no_drafts_and_no_notes", no_notes);
    suite.add("own::one_answer_has_everything", everything);
    suite.add("own::a_merchant_makes_and_revokes_its_own_tokens", tokens);
    suite.add("own::a_merchant_sets_when_it_is_warned", thresholds);
}

async fn put(caller: &Caller, path: &str, body: &Value) -> Result<Answer> {
    let call = Call::post_json(path, body.to_string());
    caller.send(Call { method: "PUT".to_owned(), ..call }).await
}

async fn delete(caller: &Caller, path: &str) -> Result<Answer> {
    caller.send(Call::new("DELETE", path)).await
}

async fn no_notes(api: &Api) -> Result<()> {
    let (oleg, ana) = (api.operator()?, api.admin()?);
    let m = "own-notes";
    let shop = api.merchant(m)?;
    let line = json!({"merchant_id": m, "currency": "USD", "limit_base": 10_000, "remarks": "a secret remark",
        "metadata": {"note": "a secret datum"}});
    let secret = |what: &str| format!("a secret {what}");
    expect(&oleg.post("/credit-lines", &json!({"line": line, "reason": secret("reason")})).await?, 201, &json!({}));
    // A draft is no line of the merchant's yet.
    expect(&shop.get(&path(m, "")).await?, 404, &json!({"code": "NOT_FOUND"}));
    assert_eq!(expect(&shop.get("/credit-lines").await?, 200, &json!({}))["items"], json!([]));
    for step in ["/approve", "/activate"] {
        expect(&ana.post(&path(m, step), &json!({"reason": secret("reason")})).await?, 200, &json!({}));
    }
    let next = json!({"line": {"limit_base": 77_777}, "reason": secret("plan")});
    expect(&patch(&oleg, &path(m, ""), &next).await?, 200, &json!({"version": 2}));
    let grade = json!({"grade": "C", "reason": secret("rumour"), "expires_on": "2099-12-31"});
    let asked = expect(&oleg.post(&path(m, "/grade"), &grade).await?, 201, &json!({"grade": "C"}));
    let pause = json!({"from": "2026-12-01", "to": "2026-12-05", "reason": secret("promise")});
    expect(&ana.post(&path(m, "/pauses"), &pause).await?, 201, &json!({}));
    let decisions = async || Ok::<_, testkit::Failure>(shop.get(&path(m, "/grade")).await?.json()["decisions"].clone());
    let before = decisions().await?;
    assert!(before.as_array().is_some_and(|rows| rows.iter().all(|row| row["kind"] != "override")), "{before}");
    let approve = format!("/grade/{}/approve", asked["grade_id"]);
    expect(&ana.post(&path(m, &approve), &json!({})).await?, 200, &json!({}));
    let shown = json!({"kind": "override", "grade": "C", "reason": null, "requested_by": "operators",
        "approved_by": "operators"});
    expect(&shop.get(&path(m, "/grade")).await?, 200, &json!({"grade": "C", "overridden": shown}));
    let own = json!({"version": 1, "limit_base": 10_000, "remarks": null, "metadata": null, "created_by": "operators",
        "approved_by": "operators", "edited_by": []});
    expect(&shop.get(&path(m, "")).await?, 200, &json!({"line": own, "pending": null, "today": {"grade": "C"}}));
    expect(&shop.get("/credit-lines").await?, 200, &json!({"items": [own]}));
    expect(&shop.get(&path(m, "/pauses")).await?, 200, &json!({"items": [{"reason": "", "approved_by": "operators"}]}));
    for (path, operators) in [
        ("/credit-lines", false),
        ("/self", false),
        (&path(m, ""), true),
        (&path(m, "/grade"), true),
        (&path(m, "/pauses"), true),
    ] {
        let text = String::from_utf8_lossy(&shop.get(path).await?.body).into_owned();
        let hidden = ["secret", "\"oleg\"", "\"ana\"", "77777"].into_iter().find(|word| text.contains(word));
        assert_eq!(hidden, None, "{path}: {text}");
        // Operators read them.
        let text = String::from_utf8_lossy(&oleg.get(path).await?.body).into_owned();
        assert!(!operators || text.contains("secret"), "{path}: {text}");
    }
    Ok(())
}

async fn everything(api: &Api) -> Result<()> {
    let m = "own-everything";
    open(api, m, 10_000).await?;
    let (ana, shop) = (api.admin()?, api.merchant(m)?);
    expect(&ana.post("/quotas/consume", &charge(m, "1", 4_000)).await?, 200, &json!({"success": true}));
    let answer = expect(
        &shop.get("/self").await?,
        200,
        &json!({
            "merchant_id": m,
            "token": {"subject": "own-everything-shop", "roles": ["merchant"], "expires_at": "2100-01-01T00:00:00Z"},
            "usage": {"accounts": [{"currency": "USD", "daily_used": 4_000}]},
            "limits": [{"currency": "USD", "daily_limit": DAILY_LIMIT}],
            "credit": [{"line": {"limit_base": 10_000}, "pending": null,
                "today": {"exposure": 4_000, "available": 6_000, "overdue": {"amount_to_cure": 0}}}],
            "alerts": [],
            "settings": {"scope": format!("merchant:{m}"), "revision": 0},
        }),
    );
    let permissions = answer["token"]["permissions"].as_array().map_or(0, Vec::len);
    assert_eq!(permissions, 7, "{answer}");
    let detail = expect(&ana.get("/self").await?, 403, &json!({"code": "FORBIDDEN"}))["detail"].to_string();
    assert!(detail.contains("/quotas/merchant/{merchant_id}"), "{detail}");
    // What a token has no permission for is absent.
    let new = json!({"name": "reports", "role": "merchant", "permissions": ["quotas:read"]});
    let made = expect(&shop.post("/access-tokens", &new).await?, 201, &json!({}));
    let narrow = api.bearer(made["token"].as_str().unwrap_or_default());
    let answer = expect(&narrow.get("/self").await?, 200, &json!({"token": {"permissions": ["quotas:read"]}}));
    let members: Vec<&String> = answer.as_object().into_iter().flat_map(serde_json::Map::keys).collect();
    assert_eq!(members, ["limits", "merchant_id", "token", "usage"], "{answer}");
    Ok(())
}

async fn tokens(api: &Api) -> Result<()> {
    let m = "own-tokens";
    let (ana, shop, other) = (api.admin()?, api.merchant(m)?, api.merchant("own-tokens-other")?);
    let new = json!({"name": "backend", "role": "merchant"});
    let made = expect(
        &shop.post("/access-tokens", &new).await?,
        201,
        &json!({"access_token": {"merchant_id": m, "created_by": "own-tokens-shop", "role": "merchant",
            "permissions": ["alerts:configure", "alerts:read", "credit:read", "policies:read", "quotas:check", "quotas:read"]}}),
    );
    assert!(made["access_token"]["expires_at"].is_string(), "{made}");
    let id = made["access_token"]["id"].as_str().unwrap_or_default().to_owned();
    let program = api.bearer(made["token"].as_str().unwrap_or_default());
    expect(&program.get("/self").await?, 200, &json!({"merchant_id": m}));
    // A token makes no tokens: they would outlive it.
    expect(&program.post("/access-tokens", &new).await?, 403, &json!({"code": "FORBIDDEN"}));
    let of_operators = json!({"name": "o", "role": "operator", "merchant_id": m});
    expect(&shop.post("/access-tokens", &of_operators).await?, 403, &json!({"code": "FORBIDDEN"}));
    let more = json!({"name": "x", "role": "merchant", "permissions": ["quotas:operate"]});
    expect(&shop.post("/access-tokens", &more).await?, 400, &json!({"field": "permissions"}));
    let long = json!({"name": "x", "role": "merchant", "expires_at": "2099-01-01T00:00:00Z"});
    expect(&shop.post("/access-tokens", &long).await?, 400, &json!({"field": "expires_at"}));
    // One of an operator of the merchant is no token of the merchant's.
    let made = expect(&ana.post("/access-tokens", &of_operators).await?, 201, &json!({}));
    let foreign = made["access_token"]["id"].as_str().unwrap_or_default().to_owned();
    let listed = expect(&shop.get("/access-tokens").await?, 200, &json!({"items": [{"id": id}]}));
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
    for (caller, id) in [(&other, &id), (&shop, &foreign)] {
        expect(&delete(caller, &format!("/access-tokens/{id}")).await?, 404, &json!({"code": "NOT_FOUND"}));
    }
    for number in 1..20 {
        let new = json!({"name": format!("backend {number}"), "role": "merchant"});
        expect(&shop.post("/access-tokens", &new).await?, 201, &json!({}));
    }
    expect(&shop.post("/access-tokens", &new).await?, 409, &json!({"code": "CONFLICT"}));
    // Operators see and revoke it, and its merchant reads who did.
    assert_eq!(delete(&ana, &format!("/access-tokens/{id}")).await?.status, 204);
    assert_eq!(program.get("/self").await?.status, 401);
    expect(&shop.get("/access-tokens?active=false").await?, 200, &json!({"items": [{"id": id, "revoked_by": "ana"}]}));
    let made = expect(&shop.post("/access-tokens", &new).await?, 201, &json!({}));
    let id = made["access_token"]["id"].as_str().unwrap_or_default();
    assert_eq!(delete(&shop, &format!("/access-tokens/{id}")).await?.status, 204);
    assert_eq!(api.bearer(made["token"].as_str().unwrap_or_default()).get("/self").await?.status, 401);
    Ok(())
}

async fn thresholds(api: &Api) -> Result<()> {
    let m = "own-thresholds";
    let (ana, shop) = (api.admin()?, api.merchant(m)?);
    let settings = |thresholds: Value| json!({"channels": [], "routes": [], "thresholds": thresholds});
    let path = format!("/merchants/{m}/settings");
    for (list, field) in [
        (json!({"percents": [0]}), "thresholds[0].percents"),
        (json!({"types": ["suspended"], "percents": [50]}), "thresholds[0].types[0]"),
        (json!({"currency": "usd", "percents": [50]}), "thresholds[0].currency"),
        (json!({"remaining_below": [50]}), "thresholds[0].remaining_below"),
        (
            json!({"currency": "USD", "types": ["daily", "daily_count"], "remaining_below": [50]}),
            "thresholds[0].remaining_below",
        ),
        (json!({"currency": "USD", "types": ["daily"], "remaining_below": [0]}), "thresholds[0].remaining_below[0]"),
    ] {
        expect(&put(&shop, &path, &settings(json!([list]))).await?, 400, &json!({"field": field}));
    }
    let lists = json!([{"currency": "USD", "types": ["daily"], "remaining_below": [DAILY_LIMIT - 400]}]);
    expect(&put(&ana, "/operators/settings", &settings(lists.clone())).await?, 400, &json!({"field": "thresholds"}));
    expect(&put(&shop, &path, &settings(lists.clone())).await?, 200, &json!({"settings": {"thresholds": lists}}));
    expect(&shop.get(&path).await?, 200, &json!({"settings": {"thresholds": lists}}));
    expect(&ana.post("/quotas/consume", &charge(m, "1", 400)).await?, 200, &json!({"success": true}));
    expect(&ana.post("/quotas/consume", &charge(m, "2", 100)).await?, 200, &json!({"success": true}));
    let alerts = wait::until_async("the merchant's alert", STORED_WITHIN, || async {
        let answer = shop.get("/self").await?.json();
        Ok(answer["alerts"].get(0).is_some().then(|| answer["alerts"].clone()))
    })
    .await?;
    let alert = &alerts[0];
    for (kind, count) in [("daily", 1), ("daily_remaining", 1), ("daily_80", 0), ("monthly_remaining", 0)] {
        let found = expect(&shop.get(&format!("/alerts?type={kind}")).await?, 200, &json!({}));
        assert_eq!(found["items"].as_array().map(Vec::len), Some(count), "{kind}");
    }
    let expected = json!({"alert_type": "daily_remaining", "is_own": true, "remaining_below": DAILY_LIMIT - 400,
        "threshold": null, "current_used": 500, "limit": DAILY_LIMIT, "alert_level": "warning"});
    for (name, value) in expected.as_object().into_iter().flatten() {
        assert_eq!(&alert[name], value, "{name}: {alert}");
    }
    Ok(())
}
