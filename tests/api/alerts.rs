//! Alerts over the API: lists, acknowledging and resolving, figures, and alerts of real payments. Most rows are put into the
//! table as the journal writes them, so that each test has just the ones that it is about.

mod messages;
mod settings;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::api::{Api, Caller, expect};
use testkit::{Result, wait};

use crate::accounts::REPORTED_WITHIN;
use crate::charges::charge;
use crate::suite::Suite;

pub(crate) fn add(suite: &mut Suite) {
    suite.add("alerts::payments_raise_alerts_and_a_refund_ends_them", payments);
    suite.add("alerts::alerts_are_listed_in_pages_with_filters", listed);
    suite.add("alerts::an_alert_is_acknowledged_and_resolved_once", by_hand);
    suite.add("alerts::of_resolves_at_once_one_wins", race);
    suite.add("alerts::stats_count_alerts_by_type_level_and_merchant", stats);
    suite.add("alerts::a_merchant_sees_its_own_alerts_and_manages_none", access);
    settings::add(suite);
    messages::add(suite);
}

/// A row of `quota_alert`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raised<'a> {
    pub(crate) merchant: Option<&'a str>,
    pub(crate) subject: &'a str,
    pub(crate) threshold: Option<i32>,
    pub(crate) alert_type: &'a str,
    pub(crate) level: &'a str,
    pub(crate) window: i32,
    pub(crate) raised_at: &'a str,
    pub(crate) resolved_by: Option<&'a str>,
}

/// A day's 80 %, open.
pub(crate) fn daily(merchant: &str) -> Raised<'_> {
    Raised {
        merchant: Some(merchant),
        subject: "daily_amount",
        threshold: Some(80),
        alert_type: "daily_80",
        level: "warning",
        window: 20_300_101,
        raised_at: "2030-01-01T10:00:00Z",
        resolved_by: None,
    }
}

/// Puts an alert into the table; gives its id.
pub(crate) async fn raise(pool: &PgPool, raised: Raised<'_>) -> Result<String> {
    let statement = "INSERT INTO quota_alert (alert_id, merchant_id, currency, subject, threshold, alert_type, alert_level, \
            window_id, current_used, max, usage_percent, message, policy_version, raised_at, resolved_at, resolved_by, resolve_reason) \
        SELECT gen_random_uuid(), $1, CASE WHEN $1 IS NULL THEN NULL ELSE 'USD' END, $2, $3, $4, $5, $6, 4003, 5000, 80.0699, \
            'put in words', 'p-1', $7::timestamptz, CASE WHEN $8 IS NULL THEN NULL ELSE $7::timestamptz + interval '1 hour' END, $8, \
            CASE WHEN $8 IS NULL THEN NULL ELSE 'refund' END \
        RETURNING alert_id::text";
    let query = sqlx::query_scalar(statement).bind(raised.merchant).bind(raised.subject).bind(raised.threshold);
    let query = query.bind(raised.alert_type).bind(raised.level).bind(raised.window).bind(raised.raised_at);
    Ok(query.bind(raised.resolved_by).fetch_one(pool).await?)
}

/// An administrator whose rate is no other test's.
pub(crate) fn admin(api: &Api, name: &str) -> Result<Caller> {
    api.caller(json!({"sub": name, "role": "admin"}))
}

/// A list's items.
pub(crate) async fn items(caller: &Caller, path: &str) -> Result<Vec<Value>> {
    let page = expect(&caller.get(path).await?, 200, &json!({}));
    Ok(page["items"].as_array().cloned().unwrap_or_default())
}

/// The ids of a list.
pub(crate) async fn ids(caller: &Caller, path: &str) -> Result<Vec<String>> {
    let ids = items(caller, path).await?;
    Ok(ids.iter().map(|item| item["alert_id"].as_str().unwrap_or_default().to_owned()).collect())
}

async fn payments(api: &Api) -> Result<()> {
    let alba = admin(api, "alba")?;
    let m = "alerted";
    for order_no in 1..=5 {
        let body = charge(m, &order_no.to_string(), 1_000_000);
        expect(&alba.post("/quotas/consume", &body).await?, 200, &json!({"success": true}));
    }
    let path = format!("/alerts/merchant/{m}?type=daily");
    let raised = wait::until_async("both alerts", REPORTED_WITHIN, || async {
        Ok(Some(items(&alba, &path).await?).filter(|items| items.len() == 2))
    })
    .await?;
    let full = json!({"merchant_id": m, "currency": "USD", "alert_type": "daily_100", "alert_level": "critical",
        "subject": "daily_amount", "threshold": 100, "current_used": 5_000_000, "limit": 5_000_000, "usage_percent": 100,
        "is_resolved": false, "resolved_at": null, "resolved_by": null, "resolve_notes": null,
        "notification_sent": false, "notification_sent_at": null});
    let near = json!({"alert_type": "daily_80", "alert_level": "warning", "threshold": 80, "current_used": 4_000_000,
        "usage_percent": 80});
    assert_eq!(testkit::api::differences("", &raised[0], &full), [""; 0], "{}", raised[0]);
    assert_eq!(testkit::api::differences("", &raised[1], &near), [""; 0], "{}", raised[1]);
    expect(&alba.post("/quotas/release", &charge(m, "5", 1_000_000)).await?, 200, &json!({"success": true}));
    let ended = wait::until_async("the end of one", REPORTED_WITHIN, || async {
        Ok(Some(items(&alba, &format!("{path}&resolved=true")).await?).filter(|items| !items.is_empty()))
    })
    .await?;
    assert_eq!(ended.len(), 1, "{ended:?}");
    let expected = json!({"alert_id": raised[0]["alert_id"], "is_resolved": true, "resolved_by": "system"});
    assert_eq!(testkit::api::differences("", &ended[0], &expected), [""; 0], "{}", ended[0]);
    Ok(())
}

async fn listed(api: &Api) -> Result<()> {
    let (alan, pool) = (admin(api, "alan")?, api.postgres.pool().await?);
    let m = "alert-lists";
    let at = |raised_at, window| Raised { raised_at, window, ..daily(m) };
    let rows = [
        at("2030-01-01T10:00:00Z", 20_300_101),
        Raised { resolved_by: Some("system"), ..at("2030-01-02T10:00:00Z", 20_300_102) },
        Raised {
            threshold: Some(100),
            alert_type: "daily_100",
            level: "critical",
            ..at("2030-01-02T10:00:00Z", 20_300_102)
        },
        Raised { subject: "daily_count", alert_type: "daily_count_80", ..at("2030-01-03T10:00:00Z", 20_300_103) },
        Raised {
            subject: "suspended",
            threshold: None,
            alert_type: "suspended",
            level: "critical",
            ..at("2030-01-04T10:00:00Z", 20_300_104)
        },
    ];
    for row in rows {
        raise(&pool, row).await?;
    }
    let base = format!("/alerts/merchant/{m}");
    let all = ids(&alan, &base).await?;
    assert_eq!(all.len(), rows.len());
    for (query, count) in [
        ("type=daily_80", 2),
        ("type=daily", 3),
        ("type=daily_count", 1),
        ("type=daily_count_80", 1),
        ("type=daily_90", 0),
        ("type=suspended", 1),
        ("type=monthly", 0),
        ("level=critical", 2),
        ("level=warning", 3),
        ("resolved=true", 1),
        ("resolved=false", 4),
        ("acknowledged=true", 0),
        ("currency=USD", 5),
        ("currency=EUR", 0),
        ("from=2030-01-02T10:00:00Z", 4),
        ("to=2030-01-02T10:00:00Z", 1),
        ("from=2030-01-02T00:00:00Z&to=2030-01-04T10:00:00Z&level=warning", 2),
    ] {
        assert_eq!(ids(&alan, &format!("{base}?{query}")).await?.len(), count, "{query}");
        assert_eq!(ids(&alan, &format!("/alerts?merchant_id={m}&{query}")).await?.len(), count, "{query}");
    }
    assert_eq!(ids(&alan, &format!("/alerts/unresolved?merchant_id={m}")).await?.len(), 4);
    assert_eq!(ids(&alan, &format!("/alerts/unresolved?merchant_id={m}&type=daily&level=critical")).await?.len(), 1);
    // Two of one moment: no page leaves one out or has one twice.
    for (list, expected) in [
        (format!("{base}?limit=2"), all.clone()),
        (format!("/alerts/unresolved?merchant_id={m}&limit=1"), ids(&alan, &format!("{base}?resolved=false")).await?),
    ] {
        let (mut found, mut next) = (Vec::new(), Some(list.clone()));
        while let Some(path) = next {
            let page = expect(&alan.get(&path).await?, 200, &json!({}));
            let ids = page["items"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|item| item["alert_id"].as_str().unwrap_or_default());
            found.extend(ids.map(str::to_owned));
            next = page["next_cursor"].as_str().map(|cursor| format!("{list}&cursor={cursor}"));
        }
        assert_eq!(found, expected, "{list}");
    }
    for (query, field) in [
        ("type=hourly", "type"),
        ("type=suspended_80", "type"),
        ("level=info", "level"),
        ("resolved=1", "resolved"),
        ("currency=XXY", "currency"),
        ("from=2030-01-02T00:00:00Z&to=2030-01-02T00:00:00Z", "from"),
        ("limit=0", "limit"),
        ("cursor=x", "cursor"),
        ("merchant_id=other", "merchant_id"),
        ("until=now", "until"),
    ] {
        expect(&alan.get(&format!("{base}?{query}")).await?, 400, &json!({"code": "BAD_REQUEST", "field": field}));
    }
    let first = items(&alan, &format!("{base}?to=2030-01-02T00:00:00Z")).await?.remove(0);
    let expected = json!({"usage_percent": 80.06, "current_used": 4003, "limit": 5000, "window_id": 20_300_101,
        "message": "put in words", "policy_version": "p-1"});
    assert_eq!(testkit::api::differences("", &first, &expected), [""; 0], "{first}");
    Ok(())
}

async fn by_hand(api: &Api) -> Result<()> {
    let (alma, oleg, pool) = (admin(api, "alma")?, api.operator()?, api.postgres.pool().await?);
    let m = "alert-hands";
    let id = raise(&pool, daily(m)).await?;
    let acknowledge = format!("/alerts/{id}/acknowledge");
    let resolve = format!("/alerts/{id}/resolve");
    let taken = json!({"acknowledged_by": "oleg", "acknowledge_notes": "calling them", "is_resolved": false});
    let body = json!({"notes": "calling them"});
    let answer = expect(&oleg.post(&acknowledge, &body).await?, 200, &taken);
    let problem = expect(&alma.post(&acknowledge, &json!({})).await?, 409, &json!({"code": "CONFLICT"}));
    says(&problem, "acknowledged by oleg", &answer["acknowledged_at"]);
    assert_eq!(ids(&alma, &format!("/alerts/unresolved?merchant_id={m}&acknowledged=true")).await?, [id.as_str()]);
    let done = json!({"is_resolved": true, "resolved_by": "alma", "resolve_notes": "a new contract", "resolve_reason": "by_hand",
        "acknowledged_by": "oleg"});
    let answer = expect(&alma.post(&resolve, &json!({"notes": "a new contract"})).await?, 200, &done);
    let problem = expect(&oleg.post(&resolve, &json!({"notes": "me too"})).await?, 409, &json!({"code": "CONFLICT"}));
    says(&problem, "resolved by alma", &answer["resolved_at"]);
    let problem = expect(&oleg.post(&acknowledge, &json!({})).await?, 409, &json!({"code": "CONFLICT"}));
    says(&problem, "resolved by alma", &answer["resolved_at"]);
    expect(&alma.get(&format!("/alerts/{id}")).await?, 200, &done);
    let unknown = "0190a1b2-0000-7000-8000-000000000000";
    for action in ["acknowledge", "resolve"] {
        let path = format!("/alerts/{unknown}/{action}");
        expect(&alma.post(&path, &json!({})).await?, 404, &json!({"code": "NOT_FOUND"}));
        let path = format!("/alerts/{id}/{action}");
        expect(&alma.post(&path, &json!({"notes": "n".repeat(2001)})).await?, 400, &json!({"field": "notes"}));
        expect(&alma.post(&path, &json!({"by": "boss"})).await?, 400, &json!({"field": "by"}));
    }
    Ok(())
}

/// A refusal names who did it and when, to the millisecond.
fn says(problem: &Value, who: &str, at: &Value) {
    let (detail, at) = (problem["detail"].as_str().unwrap_or_default(), at.as_str().unwrap_or_default());
    let moment = at.get(..19).unwrap_or("?");
    assert!(detail.contains(who) && detail.contains(moment), "{detail} {at}");
}

async fn race(api: &Api) -> Result<()> {
    let pool = api.postgres.pool().await?;
    for round in 0..5 {
        let id = raise(&pool, Raised { window: 20_300_201 + round, ..daily("alert-race") }).await?;
        let path = format!("/alerts/{id}/resolve");
        let callers = (0..8).map(|number| admin(api, &format!("racer-{number}"))).collect::<Result<Vec<_>>>()?;
        let body = json!({});
        let answers = join_all(callers.iter().map(|caller| caller.post(&path, &body))).await;
        let answers = answers.into_iter().collect::<Result<Vec<_>>>()?;
        let (won, lost): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
        assert_eq!((won.len(), lost.len()), (1, 7));
        let winner = won.iter().map(|answer| answer.json()["resolved_by"].as_str().unwrap_or_default().to_owned());
        let winner: String = winner.collect();
        for answer in lost {
            let problem = expect(answer, 409, &json!({"code": "CONFLICT"}));
            assert!(problem["detail"].as_str().unwrap_or_default().contains(&format!("by {winner} at")), "{problem}");
        }
    }
    Ok(())
}

async fn stats(api: &Api) -> Result<()> {
    let (alec, pool) = (admin(api, "alec")?, api.postgres.pool().await?);
    let of = |merchant, window| Raised { window, raised_at: "2031-05-01T10:00:00Z", ..daily(merchant) };
    let acknowledged = raise(&pool, of("stats-1", 1)).await?;
    raise(&pool, of("stats-1", 2)).await?;
    raise(&pool, Raised { resolved_by: Some("system"), ..of("stats-2", 1) }).await?;
    let full = Raised { threshold: Some(100), alert_type: "daily_100", level: "critical", ..of("stats-2", 1) };
    raise(&pool, full).await?;
    raise(&pool, Raised { raised_at: "2031-06-01T00:00:00Z", ..of("stats-2", 3) }).await?;
    expect(&alec.post(&format!("/alerts/{acknowledged}/acknowledge"), &json!({})).await?, 200, &json!({}));
    let may = "from=2031-05-01T00:00:00Z&to=2031-06-01T00:00:00Z";
    let counts = |count: i64, open: i64, acknowledged: i64, resolved: i64| json!({"count": count, "open": open, "acknowledged": acknowledged, "resolved": resolved});
    let of = |name: &str, value: &str, mut counts: Value| {
        counts[name] = value.into();
        counts
    };
    let answer = expect(&alec.get(&format!("/alerts/stats?{may}")).await?, 200, &counts(4, 2, 1, 1));
    let expected = json!({
        "by_type": [of("alert_type", "daily_80", counts(3, 1, 1, 1)), of("alert_type", "daily_100", counts(1, 1, 0, 0))],
        "by_level": [of("alert_level", "warning", counts(3, 1, 1, 1)), of("alert_level", "critical", counts(1, 1, 0, 0))],
        "by_merchant": [of("merchant_id", "stats-1", counts(2, 1, 1, 0)), of("merchant_id", "stats-2", counts(2, 1, 0, 1))],
    });
    assert_eq!(testkit::api::differences("", &answer, &expected), [""; 0], "{answer}");
    expect(&alec.get(&format!("/alerts/stats?{may}&merchant_id=stats-2")).await?, 200, &counts(2, 1, 0, 1));
    expect(&alec.get(&format!("/alerts/stats?{may}&currency=EUR")).await?, 200, &counts(0, 0, 0, 0));
    expect(&api.merchant("stats-1")?.get(&format!("/alerts/stats?{may}")).await?, 200, &counts(2, 1, 1, 0));
    let long = "/alerts/stats?from=2030-01-01T00:00:00Z&to=2031-06-01T00:00:00Z";
    expect(&alec.get(long).await?, 400, &json!({"field": "from"}));
    Ok(())
}

async fn access(api: &Api) -> Result<()> {
    let (alva, pool) = (admin(api, "alva")?, api.postgres.pool().await?);
    let own = raise(&pool, daily("alert-own")).await?;
    let other = raise(&pool, daily("alert-other")).await?;
    let operators = Raised {
        merchant: None,
        subject: "drift",
        threshold: None,
        alert_type: "drift",
        level: "critical",
        ..daily("")
    };
    let operators = raise(&pool, operators).await?;
    let shop = api.merchant("alert-own")?;
    let bound = api.caller(json!({"sub": "bound", "role": "operator", "merchant_id": "alert-own"}))?;
    let forbidden = json!({"code": "FORBIDDEN"});
    for caller in [&shop, &bound] {
        assert_eq!(ids(caller, "/alerts/merchant/alert-own").await?, [own.as_str()]);
        assert_eq!(ids(caller, "/alerts").await?, [own.as_str()]);
        assert_eq!(ids(caller, "/alerts/unresolved").await?, [own.as_str()]);
        expect(&caller.get(&format!("/alerts/{own}")).await?, 200, &json!({"alert_id": own}));
        for path in [
            "/alerts/merchant/alert-other",
            "/alerts?merchant_id=alert-other",
            "/alerts/unresolved?merchant_id=alert-other",
            "/alerts/stats?merchant_id=alert-other",
            "/alerts/messages?merchant_id=alert-other",
            "/merchants/alert-other/settings",
            "/operators/settings",
        ] {
            expect(&caller.get(path).await?, 403, &forbidden);
        }
        // Another's id is answered as one that nothing has.
        for id in [&other, &operators] {
            expect(&caller.get(&format!("/alerts/{id}")).await?, 404, &json!({"code": "NOT_FOUND"}));
        }
        expect(&caller.post("/operators/settings/test", &json!({"channel_id": "a"})).await?, 403, &forbidden);
        let test = caller.post("/merchants/alert-other/settings/test", &json!({"channel_id": "a"})).await?;
        expect(&test, 403, &forbidden);
    }
    for action in ["acknowledge", "resolve"] {
        expect(&shop.post(&format!("/alerts/{own}/{action}"), &json!({})).await?, 403, &forbidden);
        expect(&bound.post(&format!("/alerts/{other}/{action}"), &json!({})).await?, 404, &json!({}));
        expect(&bound.post(&format!("/alerts/{own}/{action}"), &json!({})).await?, 200, &json!({"alert_id": own}));
    }
    expect(&alva.post(&format!("/alerts/{operators}/resolve"), &json!({})).await?, 200, &json!({"merchant_id": null}));
    let new = json!({"name": "reads quotas", "role": "operator", "permissions": ["quotas:read"]});
    let made = expect(&alva.post("/access-tokens", &new).await?, 201, &json!({}));
    let reader = api.bearer(made["token"].as_str().unwrap_or_default());
    for path in ["/alerts", "/alerts/unresolved", "/alerts/stats", "/alerts/messages", "/operators/settings"] {
        expect(&reader.get(path).await?, 403, &forbidden);
    }
    Ok(())
}
