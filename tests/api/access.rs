//! Who may ask what: nothing without a token, a merchant its own data only, and every change in the name of the token's
//! subject.

use serde_json::{Value, json};
use testkit::Result;
use testkit::api::{Api, expect};
use testkit::client::Call;

use crate::accounts;
use crate::charges::{account, charge, question};
use crate::suite::Suite;
use crate::usage_logs;

pub(crate) fn add(suite: &mut Suite) {
    suite.add("access::no_operation_is_open_without_a_token", nothing_without_a_token);
    suite.add("access::a_merchant_sees_and_checks_its_own_data_only", own_data_only);
    suite.add("access::an_operator_operates_and_manages_quotas", operators);
    suite.add("access::the_actor_is_the_tokens_subject", actor);
    suite.add("access::what_is_open_shows_nothing_of_merchants", open_paths);
}

/// Method and path of every documented operation, with something in the place of each parameter.
pub(crate) fn operations() -> Result<Vec<(String, String)>> {
    let document: Value = serde_json::from_str(&sluice_api::admin::openapi::document())?;
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        let path = path.strip_prefix(testkit::api::ROOT).unwrap_or(path);
        let parts = path.split('/').map(|part| match part {
            "{currency}" => "USD",
            part if part.starts_with('{') && part.ends_with("id}") && !part.contains("merchant") => {
                "0190a1b2-0000-7000-8000-000000000000"
            }
            part if part.starts_with('{') => "unknown",
            part => part,
        });
        let path = parts.collect::<Vec<_>>().join("/");
        let methods = methods.as_object().into_iter().flatten();
        operations.extend(methods.map(|(method, _)| (method.to_uppercase(), path.clone())));
    }
    Ok(operations)
}

async fn nothing_without_a_token(api: &Api) -> Result<()> {
    let operations = operations()?;
    assert!(operations.len() >= 20, "{operations:?}");
    let long_ago = api.caller(json!({"sub": "ana", "role": "admin", "exp": 1_000_000_000}))?;
    let callers = [
        ("no token", api.anonymous(), "UNAUTHENTICATED"),
        ("nonsense", api.bearer("nonsense"), "INVALID_TOKEN"),
        ("an unknown access token", api.bearer(&format!("slc_{}", "A".repeat(43))), "INVALID_TOKEN"),
        ("yesterday's token", long_ago, "INVALID_TOKEN"),
    ];
    for (method, path) in &operations {
        for (what, caller, code) in &callers {
            let answer = caller.send(Call::new(method, path)).await?;
            assert_eq!((answer.status, answer.code().as_str()), (401, *code), "{what}: {method} {path}");
            assert!(answer.header("www-authenticate").is_some(), "{what}: {method} {path}");
        }
        let root = api.caller(json!({"sub": "ana", "role": "root"}))?;
        let answer = root.send(Call::new(method, path)).await?;
        assert_eq!((answer.status, answer.code().as_str()), (403, "FORBIDDEN"), "an unknown role: {method} {path}");
    }
    Ok(())
}

async fn own_data_only(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    for m in ["mine", "theirs"] {
        expect(&ana.post("/quotas/consume", &charge(m, "1", 500)).await?, 200, &json!({"success": true}));
        usage_logs::of_merchant(&ana, m, "", 1).await?;
        accounts::wait_for_list(&ana, &format!("?merchant_id={m}"), 1).await?;
    }
    let shop = api.merchant("mine")?;
    let forbidden = json!({"code": "FORBIDDEN"});
    expect(&shop.post("/quotas/check", &question("mine", 500)).await?, 200, &json!({"allowed": true}));
    expect(&shop.post("/quotas/check", &question("theirs", 500)).await?, 403, &forbidden);
    expect(&shop.post("/quotas/check", &question("unknown", 500)).await?, 403, &forbidden);
    let check = |m: &str| json!({"action": "check", "merchant_id": m, "currency": "USD", "amount": 500});
    let batch = |operations: Value| json!({"operations": operations});
    expect(&shop.post("/quotas/batch", &batch(json!([check("mine")]))).await?, 200, &json!({"failed": 0}));
    expect(&shop.post("/quotas/batch", &batch(json!([check("mine"), check("theirs")]))).await?, 403, &forbidden);
    for path in [
        "/quotas/merchant/{}",
        "/quotas/merchant/{}/currency/USD",
        "/quotas/list?merchant_id={}",
        "/usage-logs/merchant/{}",
        "/usage-logs/order/1?merchant_id={}",
        "/usage-logs/stats?merchant_id={}",
        "/limit-policies/effective?merchant_id={}",
    ] {
        expect(&shop.get(&path.replace("{}", "mine")).await?, 200, &json!({}));
        expect(&shop.get(&path.replace("{}", "theirs")).await?, 403, &forbidden);
    }
    // Where no merchant is named, only the own data are there.
    for path in ["/quotas/list", "/usage-logs/order/1"] {
        let page = expect(&shop.get(path).await?, 200, &json!({}));
        let items = page["items"].as_array().cloned().unwrap_or_default();
        assert!(!items.is_empty() && items.iter().all(|item| item["merchant_id"] == "mine"), "{path}: {page}");
    }
    let of_order = json!({"merchant_id": "mine", "currency": "USD", "order_no": "1"});
    let by_hand = json!({"merchant_id": "mine", "currency": "USD", "reason": "r"});
    let with = |mut body: Value, name: &str, value: Value| {
        body[name] = value;
        body
    };
    let changes = [
        ("/quotas/consume", charge("mine", "2", 500)),
        ("/quotas/hold", charge("mine", "2", 500)),
        ("/quotas/settle", of_order.clone()),
        ("/quotas/void", of_order.clone()),
        ("/quotas/release", of_order.clone()),
        ("/quotas/refund", with(of_order, "refund_no", "r1".into())),
        ("/quotas/reset", with(by_hand.clone(), "window", "all".into())),
        (
            "/quotas/adjust",
            with(
                with(with(by_hand.clone(), "counter", "daily_used".into()), "operation", "set".into()),
                "amount",
                0.into(),
            ),
        ),
        ("/quotas/suspend", by_hand.clone()),
        ("/quotas/resume", by_hand),
        ("/quotas/initialize", json!({"merchant_id": "mine", "currency": "USD"})),
        (
            "/quotas/batch",
            batch(json!([check("mine"), {"action": "consume", "merchant_id": "mine", "currency": "USD",
            "order_no": "2", "amount": 500}])),
        ),
        ("/access-tokens", json!({"name": "n", "role": "admin"})),
    ];
    for (path, body) in changes {
        let answer = shop.post(path, &body).await?;
        assert_eq!((answer.status, answer.code().as_str()), (403, "FORBIDDEN"), "{path}");
    }
    account(&ana, "mine", &json!({"daily_used": 500, "version": 1})).await
}

async fn operators(api: &Api) -> Result<()> {
    let oleg = api.operator()?;
    expect(&oleg.post("/quotas/consume", &charge("operated", "1", 500)).await?, 200, &json!({"success": true}));
    let suspend = json!({"merchant_id": "operated", "currency": "USD", "reason": "r"});
    expect(&oleg.post("/quotas/suspend", &suspend).await?, 200, &json!({"is_suspended": true}));
    expect(&oleg.get("/quotas/stats").await?, 200, &json!({}));
    expect(
        &oleg.post("/access-tokens", &json!({"name": "n", "role": "operator"})).await?,
        403,
        &json!({"code": "FORBIDDEN"}),
    );
    // An operator of one merchant operates that one.
    let own = api.caller(json!({"sub": "own", "role": "operator", "merchant_id": "operated-2"}))?;
    expect(&own.post("/quotas/consume", &charge("operated-2", "1", 500)).await?, 200, &json!({"success": true}));
    expect(&own.post("/quotas/consume", &charge("operated", "2", 500)).await?, 403, &json!({"code": "FORBIDDEN"}));
    Ok(())
}

async fn actor(api: &Api) -> Result<()> {
    let (ana, oleg) = (api.admin()?, api.operator()?);
    let m = "acted-on";
    expect(&ana.post("/quotas/consume", &charge(m, "1", 500)).await?, 200, &json!({"success": true}));
    expect(&oleg.post("/quotas/release", &charge(m, "1", 500)).await?, 200, &json!({"success": true}));
    // A caller that names another actor in the body is refused, and nothing is done in that name.
    for field in ["operator_id", "operator_type", "actor", "last_updated_by", "suspended_by"] {
        let mut body = charge(m, "2", 500);
        body[field] = "boss".into();
        expect(&oleg.post("/quotas/consume", &body).await?, 400, &json!({"field": field}));
    }
    let new = json!({"name": "a shop's backend", "role": "operator"});
    let made = expect(&ana.post("/access-tokens", &new).await?, 201, &json!({"access_token": {"created_by": "ana"}}));
    let program = api.bearer(made["token"].as_str().unwrap_or_default());
    expect(&program.post("/quotas/consume", &charge(m, "3", 500)).await?, 200, &json!({"success": true}));
    let rows = usage_logs::of_merchant(&ana, m, "", 3).await?;
    let actors: Vec<_> = rows.iter().map(|row| (row["operator_id"].clone(), row["operator_type"].clone())).collect();
    let token = format!("token:{}", made["access_token"]["id"].as_str().unwrap_or_default());
    let named = |id: &str, kind: &str| (json!(id), json!(kind));
    assert_eq!(actors, [named(&token, "api"), named("oleg", "admin"), named("ana", "admin")]);
    Ok(())
}

async fn open_paths(api: &Api) -> Result<()> {
    for path in ["/health", "/ready", "/metrics", "/openapi.json", "/swagger/index.html"] {
        let (status, body) = api.server.get(path)?;
        assert_eq!((status, body.is_empty()), (200, false), "{path}");
        assert!(!body.contains("merchant-001\"") || path == "/openapi.json", "{path}: {body}");
    }
    Ok(())
}
