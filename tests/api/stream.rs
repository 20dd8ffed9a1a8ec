//! The live stream: who receives what, going on with the last id, and its bounds.

use std::collections::BTreeSet;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http_body_util::Empty;
use hyper::Request;
use hyper::body::Bytes;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use sqlx::PgPool;
use testkit::api::{Api, Caller, expect};
use testkit::client::{Answer, Call};
use testkit::sse::{EventStream, Frame, Options};
use testkit::{Failure, Result, Service};
use uuid::Uuid;

use crate::charges::charge;
use crate::credit;
use crate::policies;
use crate::suite::Suite;
use crate::usage_logs;

pub(crate) fn add(suite: &mut Suite) {
    suite.add("stream::everybody_receives_what_they_may_and_asked_for", roles);
    suite.add("stream::alerts_are_sent_change_by_change", alerts);
    suite.add("stream::credit_lines_are_sent_change_by_change", credit_lines);
    suite.add("stream::what_is_no_place_or_question_is_refused", refusals);
    suite.add("stream::a_caller_has_so_many_streams_and_no_more", seats);
    suite.alone("stream::goes_on_across_a_restart_without_loss_or_repetition", restart);
    suite.alone("stream::rows_are_sent_when_they_become_visible_and_once", visibility);
    suite.alone("stream::it_ends_with_its_place_where_postgres_goes", without_postgres);
    suite.alone("stream::a_client_that_takes_nothing_gives_its_seat_back", no_window);
    suite.alone("stream::heartbeats_come_and_a_token_that_ends_ends_it", heartbeats);
}

async fn open(api: &Api, caller: &Caller, query: &str) -> Result<EventStream> {
    EventStream::open(api.server.admin_address(), caller.token(), &format!("/stream{query}"), Options::default()).await
}

async fn resume(api: &Api, caller: &Caller, query: &str, last_id: &str) -> Result<EventStream> {
    let options = Options { last_id: Some(last_id), ..Options::default() };
    EventStream::open(api.server.admin_address(), caller.token(), &format!("/stream{query}"), options).await
}

/// An open alert, of a merchant or of operators.
async fn raise(pool: &PgPool, merchant: Option<&str>, currency: Option<&str>) -> Result<Uuid> {
    let id = Uuid::from_u128(u128::from_be_bytes(random()?));
    let statement = "INSERT INTO quota_alert (alert_id, merchant_id, currency, subject, threshold, alert_type, alert_level, \
        current_used, max, usage_percent, message, raised_at) \
        VALUES ($1, $2, $3, $4, $5, $4, 'warning', 80, 100, 80, 'in words', now())";
    let (subject, threshold) = if merchant.is_some() { ("daily_amount", Some(80)) } else { ("over_capture", None) };
    let insert = sqlx::query(statement).bind(id).bind(merchant).bind(currency).bind(subject).bind(threshold);
    insert.execute(pool).await?;
    Ok(id)
}

fn random() -> Result<[u8; 16]> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| Failure::new(error.to_string()))?;
    Ok(bytes)
}

/// What an event is about, in short: merchant, order and code of a decision, or a change and whose alert it was.
fn short((name, data): &(String, Value)) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    match name.as_str() {
        "decision" => format!("{}/{} {}", text(&data["merchant_id"]), text(&data["order_no"]), text(&data["code"])),
        "alert" => format!("{} {}", text(&data["change"]), text(&data["alert"]["merchant_id"])),
        name => format!("{name}: {data}"),
    }
}

async fn roles(api: &Api) -> Result<()> {
    let (ana, oleg, shop) = (api.admin()?, api.operator()?, api.merchant("roles-1")?);
    let pool = api.postgres.pool().await?;
    let table: [(&Caller, &str, &[&str]); 8] = [
        (&shop, "", &["roles-1/1 ADMITTED", "roles-1/2 BELOW_SINGLE_MIN", "raised roles-1", "roles-1/end ADMITTED"]),
        (
            &shop,
            "?kinds=decisions&merchant_id=roles-1",
            &["roles-1/1 ADMITTED", "roles-1/2 BELOW_SINGLE_MIN", "roles-1/end ADMITTED"],
        ),
        (&shop, "?code=BELOW_SINGLE_MIN&kinds=decisions", &["roles-1/2 BELOW_SINGLE_MIN"]),
        (&shop, "?kinds=alerts", &["raised roles-1"]),
        (&oleg, "?merchant_id=roles-2", &["roles-2/1 ADMITTED", "raised roles-2", "roles-2/end ADMITTED"]),
        (&oleg, "?merchant_id=roles-2&currency=EUR", &["raised roles-2"]),
        (&ana, "?kinds=alerts&currency=EUR", &["raised roles-2"]),
        (
            &ana,
            "?merchant_id=roles-1&kinds=decisions,alerts",
            &["roles-1/1 ADMITTED", "roles-1/2 BELOW_SINGLE_MIN", "raised roles-1", "roles-1/end ADMITTED"],
        ),
    ];
    let mut streams = Vec::new();
    for (caller, query, expected) in table {
        let stream = open(api, caller, query).await?;
        assert_eq!(stream.headers["content-type"], "text/event-stream");
        assert_eq!(stream.headers["cache-control"], "no-store");
        streams.push((stream, query, expected));
    }
    let mut all = open(api, &oleg, "").await?;
    for (merchant, order, amount) in [("roles-1", "1", 500), ("roles-1", "2", 99), ("roles-2", "1", 500)] {
        ana.post("/quotas/consume", &charge(merchant, order, amount)).await?;
    }
    raise(&pool, Some("roles-1"), Some("USD")).await?;
    raise(&pool, Some("roles-2"), Some("EUR")).await?;
    raise(&pool, None, None).await?;
    for merchant in ["roles-1", "roles-2"] {
        ana.post("/quotas/consume", &charge(merchant, "end", 500)).await?;
    }
    for (stream, query, expected) in &mut streams {
        // Alerts and decisions of one moment come in either order.
        let received: BTreeSet<String> = stream.events(expected.len()).await?.iter().map(short).collect();
        let expected: BTreeSet<String> = expected.iter().map(|&text| text.to_owned()).collect();
        assert_eq!(received, expected, "{query}");
    }
    // Who sees all merchants receives what concerns none of them, too.
    let mut received = BTreeSet::new();
    while !(received.contains("raised -") && received.contains("roles-2/end ADMITTED")) {
        received.extend(all.events(1).await?.iter().map(short));
    }
    expect(&refused(api, &shop, "?merchant_id=roles-2", None).await?, 403, &json!({"code": "FORBIDDEN"}));
    Ok(())
}

async fn ask(
    api: &Api,
    caller: &Caller,
    query: &str,
    last_id: Option<&str>,
) -> Result<std::result::Result<EventStream, Answer>> {
    let options = Options { last_id, ..Options::default() };
    EventStream::ask(api.server.admin_address(), caller.token(), &format!("/stream{query}"), options).await
}

/// The answer of a stream that is not opened.
async fn refused(api: &Api, caller: &Caller, query: &str, last_id: Option<&str>) -> Result<Answer> {
    match ask(api, caller, query, last_id).await? {
        Ok(_) => Err(Failure::new(format!("a stream was opened: {query} {last_id:?}"))),
        Err(answer) => Ok(answer),
    }
}

async fn alerts(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let pool = api.postgres.pool().await?;
    let mut stream = open(api, &ana, "?merchant_id=alarmed&kinds=alerts").await?;
    let id = raise(&pool, Some("alarmed"), Some("USD")).await?;
    let (_, raised) = stream.events(1).await?.remove(0);
    assert_eq!(
        testkit::api::differences(
            "",
            &raised,
            &json!({"change": "raised", "alert": {"alert_id": id, "merchant_id": "alarmed",
        "currency": "USD", "alert_level": "warning", "current_used": 80, "limit": 100, "is_resolved": false}})
        ),
        [""; 0]
    );
    let notes = json!({"notes": "seen"});
    expect(&ana.post(&format!("/alerts/{id}/acknowledge"), &notes).await?, 200, &json!({}));
    expect(&ana.post(&format!("/alerts/{id}/resolve"), &notes).await?, 200, &json!({}));
    let changes = stream.events(2).await?;
    assert_eq!(changes.iter().map(short).collect::<Vec<_>>(), ["acknowledged alarmed", "resolved alarmed"]);
    assert_eq!(
        (&changes[1].1["alert"]["resolved_by"], &changes[1].1["alert"]["is_resolved"]),
        (&json!("ana"), &json!(true))
    );
    // What changes nothing that is sent is no change.
    sqlx::query("UPDATE quota_alert SET message = 'other words' WHERE alert_id = $1").bind(id).execute(&pool).await?;
    raise(&pool, Some("alarmed"), Some("EUR")).await?;
    let next = stream.events(1).await?;
    assert_eq!(next[0].1["alert"]["currency"], "EUR");
    Ok(())
}

/// What a line goes through, up to its close: who may read it receives it as it may be read.
async fn credit_lines(api: &Api) -> Result<()> {
    let (m, other) = ("changed-1", "changed-2");
    let (oleg, ana, shop) = (api.operator()?, api.admin()?, api.merchant(m)?);
    let grant = json!({"name": "no credit", "role": "operator", "permissions": ["quotas:read", "alerts:read"]});
    let made = expect(&ana.post("/access-tokens", &grant).await?, 201, &json!({}));
    let program = api.bearer(made["token"].as_str().unwrap_or_default());
    expect(&refused(api, &program, "?kinds=credit_lines", None).await?, 403, &json!({"code": "FORBIDDEN"}));
    let of_line = format!("?kinds=credit_lines&merchant_id={m}");
    let mut of_operator = open(api, &oleg, &of_line).await?;
    let mut of_shop = open(api, &shop, "?kinds=credit_lines,alerts&currency=USD").await?;
    let mut of_other = open(api, &api.merchant(other)?, "?kinds=credit_lines").await?;
    let mut of_program = open(api, &program, &format!("?merchant_id={m}")).await?;

    credit::open(api, m, 100_000).await?;
    let change = json!({"line": {"terms": {"due_days": 30}, "remarks": "agreed by phone"}, "reason": "as agreed"});
    expect(&credit::patch(&oleg, &credit::path(m, ""), &change).await?, 200, &json!({"state": "draft"}));
    for step in ["/approve", "/activate"] {
        expect(&ana.post(&credit::path(m, step), &json!({})).await?, 200, &json!({"version": 2}));
    }
    let asked = json!({"grade": "D", "reason": "a late annual report", "expires_on": "2099-12-31"});
    let asked = expect(&oleg.post(&credit::path(m, "/grade"), &asked).await?, 201, &json!({}));
    let approve = credit::path(m, &format!("/grade/{}/approve", asked["grade_id"]));
    expect(&ana.post(&approve, &json!({})).await?, 200, &json!({}));
    close_cycle(api, m).await?;
    let received = of_operator.events(3).await?;
    let names = |events: &[(String, Value)]| -> Vec<String> {
        let name = |(event, data): &(String, Value)| format!("{event} {}", data["change"].as_str().unwrap_or_default());
        events.iter().map(name).collect()
    };
    let expected =
        ["line_activated", "line_changed", "grade_changed", "statement_closed"].map(|own| format!("credit_line {own}"));
    assert_eq!(names(&received), expected[..3]);
    let middle = of_operator.last_id().unwrap_or_default().to_owned();
    drop(of_operator);
    let mut of_operator = resume(api, &oleg, &of_line, &middle).await?;
    assert_eq!(names(&of_operator.events(1).await?), expected[3..]);
    expect(&ana.post("/quotas/consume", &charge(m, "before", 500)).await?, 200, &json!({}));
    expect(&ana.post(&credit::path(m, "/close"), &json!({})).await?, 200, &json!({"state": "closed"}));
    assert_eq!(names(&of_operator.events(1).await?), ["credit_line line_closed"]);

    let line = json!({"merchant_id": m, "currency": "USD", "line": {"version": 2, "terms": {"due_days": 30},
        "created_by": "oleg", "approved_by": "ana", "remarks": "agreed by phone"}});
    let grade = json!({"grade": {"grade": "D", "grade_before": "B", "kind": "override", "on_day": asked["on_day"],
        "expires_on": "2099-12-31", "due_days": null, "minimum_bp": null}});
    let statement = json!({"statement": {"number": 1, "cycle": 20_260_101, "first_day": "2026-01-01", "closed_on": "2026-01-31",
        "due_on": "2026-02-14", "amount": 900, "minimum": 450}});
    for (place, expected) in [(1, &line), (2, &grade)] {
        assert_eq!(testkit::api::differences("", &received[place].1, expected), [""; 0]);
    }
    let own = of_shop.events(5).await?;
    assert_eq!(names(&own), [&expected[..], &["credit_line line_closed".to_owned()]].concat());
    let own_line = json!({"line": {"version": 2, "terms": {"due_days": 30}, "created_by": "operators",
        "approved_by": "operators", "edited_by": [], "remarks": null}});
    for (place, expected) in [(1, &own_line), (2, &grade), (3, &statement), (4, &own_line)] {
        assert_eq!(testkit::api::differences("", &own[place].1, expected), [""; 0]);
    }
    // Who may not read credit lines receives everything else, and another merchant its own.
    let mut event = of_program.events(1).await?.remove(0);
    while short(&event) != format!("{m}/before ADMITTED") {
        assert_eq!(event.0, "decision", "{event:?}");
        event = of_program.events(1).await?.remove(0);
    }
    credit::open(api, other, 100_000).await?;
    let first = of_other.events(1).await?;
    assert_eq!((names(&first), &first[0].1["merchant_id"]), (vec![expected[0].clone()], &json!(other)));
    Ok(())
}

/// A statement of the account, of long before its line: no cycle ends while the test runs.
async fn close_cycle(api: &Api, merchant: &str) -> Result<()> {
    let statement = "INSERT INTO credit_statement (merchant_id, currency, number, cycle, first_day, closed_on, due_on, amount, minimum, \
            event_id) \
        VALUES ($1, 'USD', 1, 20260101, '2026-01-01', '2026-01-31', '2026-02-14', 900, 450, gen_random_uuid()) \
        ON CONFLICT (merchant_id, currency, cycle) DO NOTHING";
    let pool = api.postgres.pool().await?;
    // The second time it is there already, and nothing has changed.
    for _ in 0..2 {
        sqlx::query(statement).bind(merchant).execute(&pool).await?;
    }
    Ok(())
}

async fn refusals(api: &Api) -> Result<()> {
    let ana = api.admin()?;
    let stream = open_at_once(api, &ana).await?;
    let id = |change: &dyn Fn(&mut Value)| {
        let mut place: Value = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(&stream)?)?;
        change(&mut place);
        Ok::<_, Failure>(BASE64_URL_SAFE_NO_PAD.encode(place.to_string()))
    };
    let old =
        id(&|place| place[1]["taken_secs"] = json!(place[1]["taken_secs"].as_i64().unwrap_or_default() - 2_600_000))?;
    let foreign = id(&|place| place[1]["told"] = json!("999999999:999999999:"))?;
    let restored = id(&|place| place[1]["database"] = json!("7710736753319067267/00000002"))?;
    for (last_id, detail) in [
        ("", "is no id of this stream"),
        ("7", "is no id of this stream"),
        ("nonsense", "is no id of this stream"),
        (&stream[1..], "is no id of this stream"),
        (&old, "older than 30 days"),
        (&foreign, "another database"),
        (&restored, "another database"),
    ] {
        let answer = refused(api, &ana, "", Some(last_id)).await?;
        let body = expect(&answer, 400, &json!({"code": "BAD_REQUEST", "field": "last-event-id"}));
        assert!(body["detail"].as_str().is_some_and(|text| text.contains(detail)), "{last_id}: {body}");
    }
    assert!(ask(api, &ana, "", Some(&stream)).await?.is_ok());
    for (query, field) in [
        ("?kinds=", "kinds"),
        ("?kinds=alerts,nonsense", "kinds"),
        ("?kinds=credit-lines", "kinds"),
        ("?merchant_id=a:b", "merchant_id"),
        ("?currency=usd1", "currency"),
        ("?code=NONSENSE", "code"),
        ("?x=1", "x"),
    ] {
        let answer = refused(api, &ana, query, None).await?;
        expect(&answer, 400, &json!({"code": "BAD_REQUEST", "field": field}));
    }
    Ok(())
}

/// The id that a stream begins with.
async fn open_at_once(api: &Api, caller: &Caller) -> Result<String> {
    let mut stream = open(api, caller, "").await?;
    stream.frame().await?;
    Ok(stream.last_id().unwrap_or_default().to_owned())
}

async fn seats(api: &Api) -> Result<()> {
    let crowd = api.caller(json!({"sub": "crowd", "role": "operator"}))?;
    let mut open = Vec::new();
    for _ in 0..8 {
        open.push(self::open(api, &crowd, "").await?);
    }
    let answer = refused(api, &crowd, "", None).await?;
    expect(&answer, 429, &json!({"code": "RATE_LIMITED"}));
    assert!(answer.header("retry-after").is_some());
    drop(open);
    // The server learns of the end when it next sends, or reads that the connection is closed.
    testkit::wait::until_async("a seat", std::time::Duration::from_secs(20), || async {
        Ok(ask(api, &crowd, "", None).await?.ok())
    })
    .await
    .map(drop)
}

/// Payments go on while one reader comes and goes and its server is stopped: together its streams send each decision
/// once.
async fn restart() -> Result<()> {
    let mut api = Api::start(&policies::document(), &[])?;
    let ana = api.admin()?;
    let pool = api.postgres.pool().await?;
    let mut received: Vec<String> = Vec::new();
    let mut last_id = open_at_once(&api, &ana).await?;
    let mut orders = 0;
    for round in 0..6 {
        for _ in 0..40 {
            orders += 1;
            let merchant = format!("resumed-{}", orders % 7);
            let order = charge(&merchant, &orders.to_string(), 500);
            expect(&ana.post("/quotas/consume", &order).await?, 200, &json!({"success": true}));
        }
        // A part of them, so that the next stream begins in the middle of what was read at once.
        let mut stream = resume(&api, &ana, "", &last_id).await?;
        let events = stream.events(23 + round).await?;
        received.extend(events.iter().map(|(_, row)| row["event_id"].as_str().unwrap_or_default().to_owned()));
        last_id = stream.last_id().unwrap_or_default().to_owned();
        drop(stream);
        if round % 2 == 0 {
            api.server.restart()?;
        }
    }
    let mut stream = resume(&api, &ana, "", &last_id).await?;
    let rest = stream.events(orders - received.len()).await?;
    received.extend(rest.iter().map(|(_, row)| row["event_id"].as_str().unwrap_or_default().to_owned()));
    let stored: Vec<(Uuid,)> = sqlx::query_as("SELECT event_id FROM usage_log").fetch_all(&pool).await?;
    let stored: BTreeSet<String> = stored.iter().map(|(id,)| id.to_string()).collect();
    let once: BTreeSet<String> = received.iter().cloned().collect();
    assert_eq!((received.len(), once.len()), (orders, orders), "some were sent twice");
    assert_eq!(once, stored);
    // The stop of a server ends a stream with a word.
    api.server.stop()?;
    let last = stream.event().await?;
    assert_eq!(last.map(|(name, data)| (name, data["code"].clone())), Some(("ended".to_owned(), json!("STOPPING"))));
    Ok(())
}

/// Stores a copy of a decision under a number and a new id.
async fn copy(connection: &mut sqlx::PgConnection, of: Uuid, seq: i64) -> Result<Uuid> {
    let id = Uuid::from_u128(u128::from_be_bytes(random()?));
    let statement = "INSERT INTO usage_log SELECT (row).* FROM (SELECT jsonb_populate_record(u, jsonb_build_object( \
        'event_id', $1, 'seq', $2, 'stored_txid', txid_current())) AS row FROM usage_log u WHERE event_id = $3 OFFSET 0) AS rows";
    sqlx::query(statement).bind(id).bind(seq).bind(of).execute(connection).await?;
    Ok(id)
}

/// Transactions that end in another order than they began, numbers that come again and later than higher ones: each row
/// is sent when it is there, whichever reader read on meanwhile.
async fn visibility() -> Result<()> {
    let api = Api::start(&policies::document(), &[])?;
    let ana = api.admin()?;
    let pool = api.postgres.pool().await?;
    ana.post("/quotas/consume", &charge("seen", "1", 500)).await?;
    let rows = usage_logs::of_merchant(&ana, "seen", "", 1).await?;
    let of = rows[0]["event_id"].as_str().and_then(|id| id.parse().ok()).unwrap_or_default();
    let mut stream = open(&api, &ana, "?kinds=decisions").await?;
    stream.frame().await?;
    let before = stream.last_id().unwrap_or_default().to_owned();
    let ids = |events: &[(String, Value)]| -> Vec<Uuid> {
        let id = |(_, row): &(String, Value)| row["event_id"].as_str().and_then(|id| id.parse().ok());
        events.iter().filter_map(id).collect()
    };

    let mut early = pool.begin().await?;
    let late = copy(&mut early, of, 10).await?;
    let mut aborted = pool.begin().await?;
    copy(&mut aborted, of, 11).await?;
    let mut own = pool.acquire().await?;
    let first = copy(&mut own, of, 20).await?;
    assert_eq!(ids(&stream.events(1).await?), [first]);
    let middle = stream.last_id().unwrap_or_default().to_owned();
    // A number below those sent and one that stands for two events.
    let second = copy(&mut own, of, 5).await?;
    assert_eq!(ids(&stream.events(1).await?), [second]);
    let third = copy(&mut own, of, 5).await?;
    assert_eq!(ids(&stream.events(1).await?), [third]);
    let fresh = stream.last_id().unwrap_or_default().to_owned();
    aborted.rollback().await?;
    early.commit().await?;
    assert_eq!(ids(&stream.events(1).await?), [late]);
    let fourth = copy(&mut own, of, 30).await?;
    assert_eq!(ids(&stream.events(1).await?), [fourth]);
    for (place, expected) in [
        (&before, BTreeSet::from([late, first, second, third, fourth])),
        (&middle, BTreeSet::from([late, second, third, fourth])),
        (&fresh, BTreeSet::from([late, fourth])),
    ] {
        let mut again = resume(&api, &ana, "?kinds=decisions", place).await?;
        let received = ids(&again.events(expected.len()).await?);
        assert_eq!(received.iter().copied().collect::<BTreeSet<_>>(), expected);
        // Nothing of it comes again before what is new.
        let last = copy(&mut own, of, 40).await?;
        assert_eq!(ids(&again.events(1).await?), [last]);
        let place = again.last_id().unwrap_or_default().to_owned();
        drop(again);
        let next = copy(&mut own, of, 41).await?;
        assert_eq!(ids(&resume(&api, &ana, "?kinds=decisions", &place).await?.events(1).await?), [next]);
        sqlx::query("DELETE FROM usage_log WHERE event_id = ANY($1)").bind(vec![last, next]).execute(&mut *own).await?;
    }
    Ok(())
}

async fn heartbeats() -> Result<()> {
    let api = Api::start(&policies::document(), &[("SLUICE_STREAM_HEARTBEAT_SECS", "1")])?;
    let ana = api.admin()?;
    let mut stream = open(&api, &ana, "").await?;
    for _ in 0..3 {
        assert_eq!(stream.frame().await?, Some(Frame::Beat));
        let place = stream.last_id().unwrap_or_default();
        assert!(ask(&api, &ana, "", Some(place)).await?.is_ok(), "{place}");
    }
    // Clocks may differ by half a minute: this token runs out in some seconds.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let leaving = api.caller(json!({"sub": "leaving", "role": "operator", "exp": now - 26}))?;
    let mut ends = open(&api, &leaving, "").await?;
    let last = ends.event().await?;
    assert_eq!(
        last.map(|(name, data)| (name, data["code"].clone())),
        Some(("ended".to_owned(), json!("INVALID_TOKEN")))
    );
    assert_eq!(ends.frame().await?, None);
    // And one that is revoked.
    let made = ana.post("/access-tokens", &json!({"name": "dashboard", "role": "operator"})).await?;
    let token = expect(&made, 201, &json!({}));
    let program = api.bearer(token["token"].as_str().unwrap_or_default());
    let mut ends = open(&api, &program, "").await?;
    assert_eq!(ends.frame().await?, Some(Frame::Beat));
    let revoke = format!("/access-tokens/{}", token["access_token"]["id"].as_str().unwrap_or_default());
    assert!(ana.send(Call::new("DELETE", &revoke)).await?.status < 300);
    let last = ends.event().await?;
    assert_eq!(
        last.map(|(name, data)| (name, data["code"].clone())),
        Some(("ended".to_owned(), json!("INVALID_TOKEN")))
    );
    Ok(())
}

async fn without_postgres() -> Result<()> {
    let mut api = Api::start(&policies::document(), &[("SLUICE_STREAM_HEARTBEAT_SECS", "60")])?;
    let ana = api.admin()?;
    let mut stream = open(&api, &ana, "?kinds=decisions").await?;
    stream.frame().await?;
    api.postgres.stop()?;
    let (_, last) = stream.events(1).await?.remove(0);
    // The first thing that came was an id, too.
    assert_eq!((last["code"].as_str(), stream.ids), (Some("DATABASE_UNAVAILABLE"), 2));
    api.postgres.restart()?;
    let order = testkit::wait::until_async("a payment", std::time::Duration::from_secs(30), || async {
        let answer = ana.post("/quotas/consume", &charge("returned", "1", 500)).await?;
        Ok((answer.status == 200).then_some(()))
    });
    order.await?;
    let mut again = resume(&api, &ana, "?kinds=decisions", stream.last_id().unwrap_or_default()).await?;
    assert_eq!(short(&again.events(1).await?[0]), "returned/1 ADMITTED");
    Ok(())
}

/// Over HTTP/2, where a client that takes nothing leaves no bytes unsent.
async fn no_window() -> Result<()> {
    let api = Api::start(&policies::document(), &[("SLUICE_STREAM_HEARTBEAT_SECS", "1")])?;
    let address = api.server.admin_address();
    let socket = TokioIo::new(tokio::net::TcpStream::connect(address).await?);
    let mut client = http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = client.initial_stream_window_size(0).handshake(socket).await?;
    let driver = tokio::spawn(connection);
    let request = Request::get(format!("http://{address}{}/stream", testkit::api::ROOT));
    let request = request.header("authorization", format!("Bearer {}", api.admin()?.token()));
    let answer = sender.send_request(request.body(Empty::<Bytes>::new())?).await?;
    assert_eq!((answer.status().as_u16(), api.server.metric("sluice_streams", &[])?), (200, 1.0));
    testkit::wait::until("its seat", std::time::Duration::from_secs(20), || {
        Ok((api.server.metric("sluice_streams", &[])? == 0.0).then_some(()))
    })?;
    assert!(!driver.is_finished(), "the connection is there");
    drop(answer);
    driver.abort();
    Ok(())
}
