//! A merchant's own view, tokens and settings over both ways in: the same calls have the same answers and the same refusals, for the
//! same callers.

use std::time::Duration;

use proto::quota_v1::{CreateAccessTokenRequest, GetSelfRequest, RevokeAccessTokenRequest};
use serde_json::{Value, json};
use testkit::api::Api;
use testkit::{Result, wait};
use tonic::{Code, Request};

use crate::bench::{self, merchant_client_on};
use crate::both::{Both, MERCHANT, MERCHANTS, Row, Who};
use crate::refusals::reason;

/// The journal stores, and servers read, within a second.
const KNOWN_WITHIN: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_merchants_see_and_set_up_is_the_same_over_both() -> Result<()> {
    let api = bench::start(&[("SLUICE_SMTP_URL", "smtp://127.0.0.1:1"), ("SLUICE_SMTP_FROM", "sluice@example.com")])?;
    for merchant in MERCHANTS {
        used(&api, merchant).await?;
    }
    let mut both = Both::new(&api).await?;
    seen(&mut both).await?;
    tokens(&mut both).await?;
    settings(&mut both).await?;
    both.done(vec![("get_self", Who::Shop, json!({}))]).await?;
    assert_eq!(both.left_out("MerchantService"), [""; 0], "operations that are not called here");
    Ok(())
}

/// A merchant with a credit line, an account, and an alert of its daily limit.
async fn used(api: &Api, merchant: &str) -> Result<()> {
    let (oleg, ana) = (api.operator()?, api.admin()?);
    let line = json!({"line": {"merchant_id": merchant, "currency": "USD", "limit_base": 90_000_000}});
    assert_eq!(oleg.post("/credit-lines", &line).await?.status, 201, "{merchant}");
    for step in ["approve", "activate"] {
        let path = format!("/credit-lines/{merchant}/USD/{step}");
        assert_eq!(ana.post(&path, &json!({})).await?.status, 200, "{path}");
    }
    let account = format!("/quotas/merchant/{merchant}/currency/USD");
    wait::until_async("the server to know the line", KNOWN_WITHIN, || async {
        Ok(ana.get(&account).await?.json()["credit"]["limit"].is_number().then_some(()))
    })
    .await?;
    for number in 1..=5 {
        let charge = json!({"merchant_id": merchant, "currency": "USD", "order_no": format!("{merchant}-{number}"),
            "amount": 900_000});
        assert_eq!(ana.post("/quotas/consume", &charge).await?.status, 200, "{merchant}");
    }
    // Alerts are stored before the account.
    wait::until_async("the journal's account", KNOWN_WITHIN, || async {
        Ok((ana.get(&account).await?.json()["last_order_no"] == format!("{merchant}-5")).then_some(()))
    })
    .await
}

async fn seen(both: &mut Both<'_>) -> Result<()> {
    both.refused(vec![(("get_self", Who::Ana, json!({})), "FORBIDDEN", None)]).await?;
    let own = both.same(("get_self", Who::Shop, json!({}))).await?.unwrap_or_default();
    let found = [
        &own["usage"]["accounts"][0]["daily_used"],
        &own["usage"]["accounts"][0]["credit"]["exposure"],
        &own["usage"]["accounts"][0]["limits"][0]["max"],
        &own["limits"][0]["daily_limit"],
        &own["limits"][0]["trust_ttl_ms"],
        &own["credit"][0]["today"]["exposure"],
        &own["alerts"][0]["limit"],
        &own["settings"]["revision"],
    ];
    let expected = [4_500_000, 4_500_000, 5_000_000, 5_000_000, 2_000, 4_500_000, 5_000_000, 0].map(Value::from);
    assert_eq!(found, expected.each_ref(), "{own}");
    // One without an account has the same parts, and nothing in them.
    let other = both.same(("get_self", Who::Other, json!({}))).await?.unwrap_or_default();
    assert_eq!([&other["limits"], &other["credit"], &other["alerts"]], [&json!([]); 3], "{other}");
    Ok(())
}

async fn tokens(both: &mut Both<'_>) -> Result<()> {
    use Who::{Ana, Other, Shop};
    let create = |who, more: &Value| -> Row {
        let mut new = json!({"name": "reports", "role": "merchant", "permissions": ["quotas:read"]});
        for (name, value) in more.as_object().into_iter().flatten() {
            new[name] = value.clone();
        }
        ("create_access_token", who, new)
    };
    let on_token = |operation, who| (operation, who, json!({"id": "TOKEN_ID"}));
    let unknown = |operation, who| (operation, who, json!({"id": "0190b0a4-5b5e-7cc3-98c8-2f4c1d7e9a10"}));
    both.refused(vec![
        (create(Shop, &json!({"name": ""})), "BAD_REQUEST", Some("name")),
        (create(Shop, &json!({"role": "guest"})), "BAD_REQUEST", Some("role")),
        (create(Shop, &json!({"role": "operator"})), "FORBIDDEN", None),
        (create(Shop, &json!({"merchant_id": "other"})), "FORBIDDEN", None),
        (create(Shop, &json!({"permissions": []})), "BAD_REQUEST", Some("permissions")),
        (create(Shop, &json!({"permissions": ["credit:post"]})), "BAD_REQUEST", Some("permissions")),
        (create(Shop, &json!({"expires_at": "2099-01-01T00:00:00Z"})), "BAD_REQUEST", Some("expires_at")),
        (create(Ana, &json!({})), "BAD_REQUEST", Some("merchant_id")),
    ])
    .await?;
    both.done(vec![
        create(Shop, &json!({})),
        ("list_access_tokens", Shop, json!({"active": true})),
        ("list_access_tokens", Other, json!({})),
        on_token("rotate_access_token", Ana),
    ])
    .await?;
    both.refused(vec![
        (on_token("rotate_access_token", Shop), "FORBIDDEN", None),
        (on_token("revoke_access_token", Other), "NOT_FOUND", None),
        (unknown("revoke_access_token", Shop), "NOT_FOUND", None),
        (unknown("rotate_access_token", Ana), "NOT_FOUND", None),
        (("revoke_access_token", Shop, json!({"id": "x"})), "BAD_REQUEST", Some("id")),
        (("list_access_tokens", Shop, json!({"limit": 0})), "BAD_REQUEST", Some("limit")),
        (("list_access_tokens", Shop, json!({"cursor": "!"})), "BAD_REQUEST", Some("cursor")),
    ])
    .await?;
    both.done(vec![
        on_token("revoke_access_token", Shop),
        ("list_access_tokens", Shop, json!({"limit": 1})),
        ("list_access_tokens", Shop, json!({"cursor": "NEXT_CURSOR"})),
        // All that the role grants, which is absent in the answer.
        create(Ana, &json!({"merchant_id": MERCHANT, "permissions": null})),
    ])
    .await
}

async fn settings(both: &mut Both<'_>) -> Result<()> {
    use Who::{Ana, Oleg, Other, Shop};
    let get = |who| ("get_merchant_settings", who, json!({"merchant_id": MERCHANT}));
    let set = |who, settings: &Value| -> Row {
        ("set_merchant_settings", who, json!({"merchant_id": MERCHANT, "settings": settings, "expected_revision": 0}))
    };
    let thresholds = |list: Value| json!({"channels": [], "routes": [], "thresholds": [list]});
    both.done(vec![get(Shop), get(Oleg)]).await?;
    both.refused(vec![
        (get(Other), "FORBIDDEN", None),
        (set(Other, &thresholds(json!({"percents": [50]}))), "FORBIDDEN", None),
        (set(Shop, &thresholds(json!({"percents": [0]}))), "BAD_REQUEST", Some("thresholds[0].percents")),
        (
            set(Shop, &thresholds(json!({"types": ["suspended"], "percents": [50]}))),
            "BAD_REQUEST",
            Some("thresholds[0].types[0]"),
        ),
        (
            set(Shop, &json!({"channels": [], "routes": [{"channels": ["none"]}]})),
            "BAD_REQUEST",
            Some("routes[0].channels[0]"),
        ),
    ])
    .await?;
    let secret = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
    let given = json!({
        "channels": [
            {"id": "hook", "kind": "webhook", "url": "https://1.1.1.1/hook", "secrets": [secret]},
            {"id": "push", "kind": "bark", "url": "https://1.1.1.1", "device_key": "a-key"},
            {"id": "notes", "kind": "gotify", "url": "https://1.1.1.1", "token": "a-token"},
            {"id": "chat", "kind": "slack", "url": "https://1.1.1.1/services/a-secret"},
            {"id": "team", "kind": "teams", "url": "https://1.1.1.1/workflows/a-secret"},
            {"id": "mail", "kind": "email", "to": ["risk@example.com"]},
        ],
        "routes": [
            {"channels": ["mail"], "types": ["yearly"], "levels": ["critical"], "thresholds": [100], "resolved": false,
                "delivery": "digest"},
            {"channels": ["hook", "chat"], "types": ["yearly_count"]},
        ],
        "digest_minutes": 30,
        "thresholds": [
            {"types": ["yearly"], "percents": [50, 90]},
            {"currency": "USD", "types": ["monthly"], "remaining_below": [500_000]},
        ],
    });
    let stored = both.same(set(Shop, &given)).await?.unwrap_or_default();
    assert_eq!(
        (&stored["revision"], &stored["settings"]["routes"][1]["resolved"]),
        (&json!(1), &json!(true)),
        "{stored}"
    );
    let text = stored.to_string();
    for hidden in [secret, "a-key", "a-token", "a-secret"] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
    let conflict = set(Shop, &given);
    let again = json!({"merchant_id": MERCHANT, "settings": stored["settings"], "expected_revision": 1});
    both.refused(vec![(conflict, "VERSION_CONFLICT", None)]).await?;
    both.done(vec![("set_merchant_settings", Shop, again), get(Shop), get(Ana)]).await?;
    let test =
        |who, channel: &str| ("test_merchant_settings", who, json!({"merchant_id": MERCHANT, "channel_id": channel}));
    both.done(vec![test(Shop, "mail")]).await?;
    both.refused(vec![
        (test(Shop, "none"), "BAD_REQUEST", Some("channel_id")),
        (test(Other, "mail"), "FORBIDDEN", None),
    ])
    .await
}

#[tokio::test]
async fn a_token_is_in_one_answer_and_ends_with_its_revocation() -> Result<()> {
    let api = bench::start(&[])?;
    let channel = bench::channel(&api).await?;
    let mut shop = merchant_client_on(channel.clone(), Some(api.merchant("keyed")?.token()))?;
    let create = || -> Result<Request<CreateAccessTokenRequest>> {
        let mut request = Request::new(serde_json::from_value(json!({"name": "backend", "role": "merchant"}))?);
        request.metadata_mut().insert("idempotency-key", "K-1".parse()?);
        Ok(request)
    };
    let made = shop.create_access_token(create()?).await?.into_inner();
    let (token, kept) = (made.token.clone().unwrap_or_default(), made.access_token.clone().unwrap_or_default());
    assert!(token.starts_with("slc_"), "{made:?}");
    assert!(!format!("{made:?}").contains(&token), "its secret is shown");
    let again = shop.create_access_token(create()?).await?;
    assert_eq!(again.metadata().get("idempotency-replayed").map(|value| value.as_bytes()), Some(&b"true"[..]));
    assert_eq!((&again.get_ref().token, &again.get_ref().access_token), (&None, &Some(kept.clone())));
    let mut program = merchant_client_on(channel, Some(&token))?;
    assert_eq!(program.get_self(GetSelfRequest {}).await?.into_inner().merchant_id, "keyed");
    assert_eq!(api.bearer(&token).get("/self").await?.status, 200);
    // A token makes no tokens: they would outlive it.
    let refused = program.create_access_token(create()?).await.expect_err("a token");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::PermissionDenied, "FORBIDDEN"), "{refused:?}");
    shop.revoke_access_token(RevokeAccessTokenRequest { id: kept.id.clone() }).await?;
    let refused = program.get_self(GetSelfRequest {}).await.expect_err("revoked");
    assert_eq!((refused.code(), reason(&refused).as_str()), (Code::Unauthenticated, "INVALID_TOKEN"), "{refused:?}");
    assert_eq!(api.bearer(&token).get("/self").await?.status, 401);
    // What is done by hand is in the audit log, as over REST.
    let path = format!("/api/v1/access-tokens/{}", kept.id);
    let line = wait::until_async("the revocation's line", KNOWN_WITHIN, || async {
        let mut lines = api.server.log_lines().into_iter().filter(|line| line["message"] == "change by hand");
        Ok(lines.find(|line| line["path"] == path))
    })
    .await?;
    assert_eq!((&line["actor"], &line["client"]), (&json!("keyed-shop"), &json!("127.0.0.1")), "{line}");
    Ok(())
}
