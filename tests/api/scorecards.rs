//! Scorecards: who may read, draft and activate them, what is refused, and what is in force; disputes.

use serde_json::{Value, json};
use sluice_credit::{Feature, Inputs, Scorecard, ScorecardRun};
use testkit::Result;
use testkit::api::{Api, Caller, differences, expect};
use testkit::client::{Answer, Call};

use crate::policies;
use crate::suite::Suite;

pub(crate) fn add(suite: &mut Suite) {
    // The scorecard in force is that of all accounts.
    suite.alone("scorecards::two_persons_put_a_scorecard_in_force", two_persons);
    suite.alone("scorecards::a_challenger_is_promoted_or_ended", challengers);
    suite.alone("scorecards::mistakes_name_their_field", mistakes);
    suite.alone("scorecards::disputes_are_recorded_once", disputes);
    suite.alone("scorecards::a_grade_decides_terms_of_statements", terms);
    suite.alone("scorecards::a_run_is_explained_and_trials_are_not_for_merchants", runs);
}

fn start() -> Result<Api> {
    Api::start(&policies::document(), &[])
}

/// Points for days past due, and nothing else.
fn card(version: &str) -> Value {
    json!({"version": version, "base_points": 600, "characteristics": [{"feature": "worst_dpd", "missing_points": 0,
        "bins": [{"from": null, "to": 0, "points": 20}, {"from": 1, "to": null, "points": -40}]}]})
}

/// The standard bands, each with these members.
fn bands(more: Value) -> Value {
    let mut bands = json!(Scorecard::default().bands);
    for band in bands.as_array_mut().into_iter().flatten() {
        for (name, value) in more.as_object().into_iter().flatten() {
            band[name] = value.clone();
        }
    }
    bands
}

async fn put(caller: &Caller, card: Value) -> Result<Answer> {
    let body = json!({"card": card, "reason": "fitted to our accounts"});
    let call = Call::post_json("/scorecards", body.to_string());
    caller.send(Call { method: "PUT".to_owned(), ..call }).await
}

fn versions(list: &Value) -> Vec<(&str, &str)> {
    let items = list["items"].as_array().into_iter().flatten();
    items.filter_map(|row| Some((row["card"]["version"].as_str()?, row["state"].as_str()?))).collect()
}

async fn two_persons() -> Result<()> {
    let api = start()?;
    let (oleg, ana, shop) = (api.operator()?, api.admin()?, api.merchant("cards-shop")?);
    let standard = ana.get("/scorecards").await?.json();
    assert_eq!(versions(&standard), [("standard-1", "draft")], "{standard}");
    expect(&ana.get("/scorecards/standard-1").await?, 200, &json!({"state": "draft", "scorecard_id": null}));
    expect(&put(&oleg, card("a-1")).await?, 200, &json!({"state": "draft", "created_by": "oleg", "revision": 1}));
    expect(&put(&ana, card("a-1")).await?, 200, &json!({"edited_by": ["oleg", "ana"], "revision": 2}));
    let champion = json!({"role": "champion", "reason": "as agreed", "expected_revision": 1});
    expect(&api.operator()?.post("/scorecards/a-1/activate", &champion).await?, 403, &json!({"code": "FORBIDDEN"}));
    let ben = api.caller(json!({"sub": "ben", "role": "admin"}))?;
    expect(&ben.post("/scorecards/a-1/activate", &champion).await?, 409, &json!({"code": "CONFLICT"}));
    let champion = json!({"role": "champion", "reason": "as agreed"});
    // Who edited it is one of its authors.
    let own = ana.post("/scorecards/a-1/activate", &champion).await?;
    expect(&own, 403, &json!({"code": "FORBIDDEN"}));
    assert!(own.json()["detail"].as_str().is_some_and(|text| text.starts_with("another person")), "{}", own.json());
    let activated = ben.post("/scorecards/a-1/activate", &champion).await?;
    expect(&activated, 200, &json!({"state": "champion", "activated_by": "ben"}));
    expect(&ben.post("/scorecards/a-1/activate", &champion).await?, 409, &json!({"code": "CONFLICT"}));
    expect(&put(&oleg, card("a-1")).await?, 409, &json!({"code": "CONFLICT"}));
    let list = ana.get("/scorecards").await?.json();
    assert_eq!(versions(&list), [("a-1", "champion"), ("standard-1", "draft")], "{list}");
    let first = ana.get("/scorecards?limit=1").await?.json();
    let next = format!("/scorecards?limit=1&cursor={}", first["next_cursor"].as_str().unwrap_or_default());
    let second = ana.get(&next).await?.json();
    assert_eq!((versions(&first), versions(&second)), (vec![("a-1", "champion")], vec![("standard-1", "draft")]));
    assert_eq!(second["next_cursor"], Value::Null);
    let history = ana.get("/scorecards/a-1/history").await?.json();
    let actions: Vec<(&str, &str)> = history["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|change| Some((change["action"].as_str()?, change["actor"].as_str()?)))
        .collect();
    assert_eq!(actions, [("activate", "ben"), ("draft", "ana"), ("draft", "oleg")], "{history}");
    // What decides about merchants is not shown to them.
    for path in ["/scorecards", "/scorecards/a-1", "/scorecards/a-1/results", "/scorecards/a-1/history"] {
        expect(&shop.get(path).await?, 403, &json!({"code": "FORBIDDEN"}));
    }
    expect(&put(&shop, card("a-2")).await?, 403, &json!({"code": "FORBIDDEN"}));
    for (path, body) in [("/scorecards/a-1/activate", &champion), ("/scorecards/a-1/retire", &json!({}))] {
        expect(&shop.post(path, body).await?, 403, &json!({"code": "FORBIDDEN"}));
    }
    Ok(())
}

async fn challengers() -> Result<()> {
    let api = start()?;
    let (oleg, ana) = (api.operator()?, api.admin()?);
    for version in ["c-1", "c-2"] {
        put(&oleg, card(version)).await?;
        let challenger = json!({"role": "challenger"});
        let path = format!("/scorecards/{version}/activate");
        expect(&ana.post(&path, &challenger).await?, 200, &json!({"state": "challenger"}));
    }
    let list = ana.get("/scorecards").await?.json();
    let expected = [("c-2", "challenger"), ("c-1", "retired"), ("standard-1", "draft")];
    assert_eq!(versions(&list), expected, "{list}");
    let none = json!({"version": "c-2", "runs": 0, "champion_mean_score": null, "matrix": [], "items": []});
    expect(&ana.get("/scorecards/c-2/results").await?, 200, &none);
    // Promoted: there is no challenger then, and the first one may come back.
    expect(
        &ana.post("/scorecards/c-2/activate", &json!({"role": "champion"})).await?,
        200,
        &json!({"state": "champion"}),
    );
    expect(
        &ana.post("/scorecards/c-2/activate", &json!({"role": "challenger"})).await?,
        409,
        &json!({"code": "CONFLICT"}),
    );
    expect(&ana.post("/scorecards/c-2/retire", &json!({})).await?, 409, &json!({"code": "CONFLICT"}));
    expect(
        &ana.post("/scorecards/c-1/activate", &json!({"role": "challenger"})).await?,
        200,
        &json!({"state": "challenger"}),
    );
    expect(&oleg.post("/scorecards/c-1/retire", &json!({})).await?, 403, &json!({"code": "FORBIDDEN"}));
    expect(
        &ana.post("/scorecards/c-1/retire", &json!({"reason": "no better"})).await?,
        200,
        &json!({"state": "retired"}),
    );
    Ok(())
}

async fn mistakes() -> Result<()> {
    let api = start()?;
    let (oleg, ana) = (api.operator()?, api.admin()?);
    let with = |name: &str, value: Value| {
        let mut card = card("m-1");
        card[name] = value;
        card
    };
    let gap = json!([{"feature": "worst_dpd", "missing_points": 0,
        "bins": [{"from": null, "to": 0, "points": 1}, {"from": 2, "to": null, "points": 0}]}]);
    for (card, field) in [
        (with("version", json!("a b")), "card.version"),
        // Another card than the standard one by its name.
        (with("version", json!("standard-1")), "card.version"),
        (with("base_points", json!(100_000)), "card.base_points"),
        (with("characteristics", json!([])), "card.characteristics"),
        (with("characteristics", gap), "card.characteristics[0].bins[1].from"),
        (with("bands", json!([])), "card.bands"),
        (with("bands", bands(json!({"due_days": 3_651}))), "card.bands[0].due_days"),
        (with("bands", bands(json!({"minimum_bp": 0}))), "card.bands[0].minimum_bp"),
        (with("bands", bands(json!({"grace_days": 1}))), "card.bands[0].grace_days"),
        (with("movement", json!({"margin_points": -1})), "card.movement.margin_points"),
    ] {
        expect(&put(&oleg, card).await?, 400, &json!({"field": field}));
    }
    let unknown = json!({"role": "champion"});
    expect(&ana.post("/scorecards/none/activate", &unknown).await?, 404, &json!({"code": "NOT_FOUND"}));
    expect(&ana.post("/scorecards/standard-1/activate", &unknown).await?, 409, &json!({"code": "CONFLICT"}));
    expect(&ana.get("/scorecards/none").await?, 404, &json!({"code": "NOT_FOUND"}));
    expect(&ana.get("/scorecards/none/results").await?, 404, &json!({"code": "NOT_FOUND"}));
    Ok(())
}

/// A line in force.
async fn open(api: &Api, merchant: &str) -> Result<()> {
    let line = json!({"line": {"merchant_id": merchant, "currency": "USD", "limit_base": 10_000}});
    api.operator()?.post("/credit-lines", &line).await?;
    for step in ["approve", "activate"] {
        let path = format!("/credit-lines/{merchant}/USD/{step}");
        expect(&api.admin()?.post(&path, &json!({})).await?, 200, &json!({}));
    }
    Ok(())
}

/// A run, which is put into the table: no cycle ends while the test runs. Its stage is the line's, so that no other is due.
async fn runs() -> Result<()> {
    let (api, m) = (start()?, "cards-run");
    let (oleg, ana, shop) = (api.operator()?, api.admin()?, api.merchant(m)?);
    open(&api, m).await?;
    put(&oleg, card("trial")).await?;
    ana.post("/scorecards/trial/activate", &json!({"role": "challenger"})).await?;
    let inputs = Inputs([(Feature::WorstDpd, 12), (Feature::Disputes, 4)].into_iter().collect());
    let trial: Scorecard = serde_json::from_value(card("trial"))?;
    let evaluated = ScorecardRun::new(&Scorecard::default(), Some(&trial), &inputs);
    let details = json!({"has_effect": true, "inputs": inputs, "champion": evaluated.champion, "challenger": evaluated.challenger});
    let statement = "INSERT INTO credit_grade (merchant_id, currency, kind, grade, on_day, changed_on, requested_by, is_close, \
            scorecard, score, scored, challenger, challenger_score, challenger_grade, run, follows, cycle, stage, days_past_due) \
        SELECT merchant_id, currency, 'scorecard', 'D', on_day, on_day, 'system:scorecard', true, $1, $2, $3, 'trial', 560, 'D', \
            $4::jsonb, grade_id, 20260901, 'current', 0 FROM credit_grade WHERE merchant_id = $5";
    let pool = api.postgres.pool().await?;
    let query = sqlx::query(statement).bind(&evaluated.champion.version).bind(evaluated.champion.score);
    let query = query.bind(evaluated.champion.grade.as_str()).bind(details.to_string());
    query.bind(m).execute(&pool).await?;
    pool.close().await;
    let explained = json!({"inputs": {"worst_dpd": 12, "disputes": 4}, "champion": {"version": "standard-1",
        "reasons": ["months_open", "worst_dpd", "cycles_paid_in_full_in_row", "disputes"]}});
    let path = format!("/credit-lines/{m}/USD/grade");
    let seen = expect(&ana.get(&path).await?, 200, &json!({"grade": "D", "decided": "D", "overridden": null}));
    let own = expect(&shop.get(&path).await?, 200, &json!({"grade": "D"}));
    for (answer, has_challenger) in [(&seen, true), (&own, false)] {
        let row = &answer["decisions"][0];
        assert_eq!(
            (&row["kind"], &row["stage"], &row["is_close"]),
            (&json!("scorecard"), &json!("current"), &json!(true))
        );
        let differences = differences("run", &row["run"], &explained);
        assert!(differences.is_empty(), "{differences:?} in {row}");
        let points = row["run"]["champion"]["points"].as_array().into_iter().flatten();
        assert!(
            points.clone().any(|own| *own == json!({"feature": "disputes", "value": 4, "points": -12, "cost": 14}))
        );
        assert_eq!(row["run"]["challenger"].is_object(), has_challenger, "{row}");
    }
    let results = json!({"runs": 1, "challenger_mean_score": 560, "items": [{"merchant_id": m, "on_day": seen["decisions"][0]["on_day"],
            "challenger": {"version": "trial", "score": 560, "grade": "D"}}],
        "matrix": [{"champion": "D", "challenger": "D", "runs": 1, "followed": 0, "late": 0}]});
    expect(&ana.get("/scorecards/trial/results?limit=1").await?, 200, &results);
    Ok(())
}

/// From the activation of a scorecard on: each decision has the terms of its grade's band, and the line those of its decision.
async fn terms() -> Result<()> {
    let (api, m) = (start()?, "cards-terms");
    let (oleg, ana, shop) = (api.operator()?, api.admin()?, api.merchant(m)?);
    open(&api, "cards-before").await?;
    let mut card = card("t-1");
    card["bands"] = bands(json!({"due_days": 7}));
    card["bands"][3]["due_days"] = json!(3);
    card["bands"][3]["minimum_bp"] = json!(5_000);
    expect(
        &put(&oleg, card).await?,
        200,
        &json!({"card": {"bands": [{"due_days": 7}, {}, {}, {"minimum_bp": 5_000}, {}]}}),
    );
    let champion = json!({"role": "champion"});
    expect(&ana.post("/scorecards/t-1/activate", &champion).await?, 200, &json!({"state": "champion"}));
    open(&api, m).await?;
    let (line, grade) = (format!("/credit-lines/{m}/USD"), format!("/credit-lines/{m}/USD/grade"));
    let of_band = json!({"due_days": 7, "minimum_bp": 10_000});
    for caller in [&ana, &shop] {
        let opening = json!({"kind": "opening", "due_days": 7, "minimum_bp": null});
        expect(&caller.get(&grade).await?, 200, &json!({"statement_terms": of_band, "decisions": [opening]}));
        // The line's own terms stay what they were agreed to be.
        let expected = json!({"line": {"terms": {"due_days": 14}}, "today": {"statement_terms": of_band}});
        expect(&caller.get(&line).await?, 200, &expected);
    }
    // One that was opened before has its own terms until its next decision.
    let own = json!({"statement_terms": {"due_days": 14, "minimum_bp": 10_000}, "decisions": [{"due_days": null}]});
    expect(&ana.get("/credit-lines/cards-before/USD/grade").await?, 200, &own);
    let asked = json!({"grade": "D", "reason": "a late annual report", "expires_on": "2099-12-31"});
    let asked = expect(&oleg.post(&grade, &asked).await?, 201, &json!({"due_days": null, "approved_on": null}));
    expect(&ana.get(&grade).await?, 200, &json!({"grade": "B", "statement_terms": of_band}));
    let approve = format!("{grade}/{}/approve", asked["grade_id"]);
    let approved = json!({"due_days": 3, "minimum_bp": 5_000, "approved_on": asked["on_day"]});
    expect(&ana.post(&approve, &json!({})).await?, 200, &approved);
    let of_d = json!({"due_days": 3, "minimum_bp": 5_000});
    for caller in [&ana, &shop] {
        let expected = json!({"grade": "D", "decided": "B", "statement_terms": of_d, "overridden": {"due_days": 3}});
        expect(&caller.get(&grade).await?, 200, &expected);
        expect(&caller.get(&line).await?, 200, &json!({"today": {"grade": "D", "statement_terms": of_d}}));
    }
    Ok(())
}

async fn disputes() -> Result<()> {
    let api = start()?;
    let (oleg, ana, m) = (api.operator()?, api.admin()?, "cards-disputed");
    let path = format!("/credit-lines/{m}/USD/disputes");
    let dispute =
        json!({"dispute_no": "d-1", "opened_on": "2026-01-15", "amount": 2_500, "remarks": "goods not received"});
    expect(&oleg.post(&path, &dispute).await?, 404, &json!({"code": "NOT_FOUND"}));
    open(&api, m).await?;
    let recorded = json!({"opened_on": "2026-01-15", "amount": 2_500, "recorded_by": "oleg"});
    let first = expect(&oleg.post(&path, &dispute).await?, 201, &recorded);
    // Repeated, by anyone: the first one is answered.
    expect(&ana.post(&path, &dispute).await?, 201, &json!({"dispute_id": first["dispute_id"], "recorded_by": "oleg"}));
    let other = json!({"dispute_no": "d-1", "opened_on": "2026-01-15", "amount": 2_501});
    expect(&oleg.post(&path, &other).await?, 409, &json!({"code": "CONFLICT"}));
    for (body, field) in [
        (json!({"dispute_no": "", "amount": 5}), "dispute_no"),
        (json!({"dispute_no": "d-2", "amount": 0}), "amount"),
        (json!({"dispute_no": "d-2", "amount": 5, "opened_on": "2099-01-01"}), "opened_on"),
    ] {
        expect(&oleg.post(&path, &body).await?, 400, &json!({"field": field}));
    }
    expect(&oleg.post(&path, &json!({"dispute_no": "d-2", "amount": 5})).await?, 201, &json!({"remarks": null}));
    let (shop, other) = (api.merchant(m)?, api.merchant("cards-other")?);
    expect(&shop.get(&path).await?, 200, &json!({"items": [{"dispute_no": "d-2"}, {"dispute_no": "d-1"}]}));
    expect(&shop.post(&path, &dispute).await?, 403, &json!({"code": "FORBIDDEN"}));
    expect(&other.get(&path).await?, 403, &json!({"code": "FORBIDDEN"}));
    // When the scorecard runs next: at the cycle's close.
    let grade = shop.get(&format!("/credit-lines/{m}/USD/grade")).await?.json();
    assert_eq!(grade["next_run"]["is_close"], true, "{grade}");
    Ok(())
}
