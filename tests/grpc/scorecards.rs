//! Scorecards and disputes over both ways in: a challenger of each, what it made of its line, and what its line's payers dispute.

use serde_json::{Value, json};
use sluice_credit::{Feature, Inputs, Scorecard, ScorecardRun};
use testkit::Result;

use crate::both::{Both, MERCHANT, MERCHANTS, Row, Who};
use crate::credit::row;

/// Points for days past due, and bands and a movement of its own. The best grade is for one channel.
fn card(version: &str) -> Value {
    let bands = [("A", Some(660)), ("B", Some(620)), ("C", Some(580)), ("D", Some(570)), ("E", None)];
    let bands = bands.map(|(grade, from_score)| {
        let mut band = json!({"grade": grade, "from_score": from_score, "multiplier_bp": 5_000, "trust_share_bp": 500,
            "threshold_percents": [80, 100], "channels": (grade == "A").then_some(["card"])});
        if grade == "D" {
            (band["due_days"], band["minimum_bp"]) = (json!(7), json!(10_000));
        }
        band
    });
    json!({"version": version, "base_points": 600, "characteristics": [{"feature": "worst_dpd", "missing_points": 0,
            "bins": [{"from": null, "to": 0, "points": 20}, {"from": 1, "to": null, "points": -40}]}],
        "bands": bands, "movement": {"margin_points": 5, "days_between_changes": 30}})
}

fn trial() -> String {
    format!("trial-{MERCHANT}")
}

fn put(who: Who, name: &str, value: &Value) -> Row {
    let mut members = json!({"card": card(&trial()), "reason": "fitted to our accounts"});
    members["card"][name] = value.clone();
    ("put_scorecard", who, members)
}

fn on_card(operation: &'static str, who: Who, more: &Value) -> Row {
    let mut members = json!({"version": trial()});
    for (name, value) in more.as_object().into_iter().flatten() {
        members[name] = value.clone();
    }
    (operation, who, members)
}

fn activate(who: Who, more: &Value) -> Row {
    on_card("activate_scorecard", who, more)
}

/// As a challenger.
fn agreed() -> Value {
    json!({"role": "challenger", "reason": "as agreed"})
}

/// Drafted by one, in force by another, with what came of it, and ended.
pub(crate) async fn scored(both: &mut Both<'_>) -> Result<()> {
    drafted(both).await?;
    ran(both).await?;
    ended(both).await?;
    listed(both).await
}

async fn drafted(both: &mut Both<'_>) -> Result<()> {
    use Who::{Ana, Oleg, Shop};
    let own = json!(format!("own-{MERCHANT}"));
    let gap = json!([{"feature": "worst_dpd", "missing_points": 0,
        "bins": [{"from": null, "to": 0, "points": 1}, {"from": 2, "to": null, "points": 0}]}]);
    both.refused(vec![
        (put(Shop, "base_points", &json!(600)), "FORBIDDEN", None),
        (put(Oleg, "version", &json!("standard-1")), "BAD_REQUEST", Some("card.version")),
        (put(Oleg, "characteristics", &gap), "BAD_REQUEST", Some("card.characteristics[0].bins[1].from")),
        // Bands that are empty differ from those that are not set.
        (put(Oleg, "bands", &json!([])), "BAD_REQUEST", Some("card.bands")),
        (put(Oleg, "movement", &json!({"margin_points": -1})), "BAD_REQUEST", Some("card.movement.margin_points")),
        (on_card("get_scorecard", Ana, &json!({})), "NOT_FOUND", None),
        (activate(Ana, &agreed()), "NOT_FOUND", None),
        (activate(Ana, &json!({"version": "standard-1", "role": "champion"})), "CONFLICT", None),
    ])
    .await?;
    // Without bands and movement it has the standard ones.
    let mut plain = card(&trial());
    if let Some(members) = plain.as_object_mut() {
        members.retain(|name, _| name != "bands" && name != "movement");
    }
    both.done(vec![
        ("put_scorecard", Oleg, json!({"card": plain, "expected_revision": 0})),
        put(Oleg, "movement", &json!({"margin_points": 7})),
        put(Ana, "version", &own),
        on_card("get_scorecard", Ana, &json!({})),
    ])
    .await?;
    both.refused(vec![
        (on_card("get_scorecard", Shop, &json!({})), "FORBIDDEN", None),
        (("list_scorecards", Shop, json!({})), "FORBIDDEN", None),
        (activate(Oleg, &agreed()), "FORBIDDEN", None),
        (activate(Ana, &json!({"version": own, "role": "challenger"})), "FORBIDDEN", None),
        (activate(Ana, &json!({"role": "judge"})), "BAD_REQUEST", Some("role")),
        (activate(Ana, &json!({"role": "challenger", "expected_revision": 1})), "CONFLICT", None),
        (on_card("retire_scorecard", Ana, &json!({})), "CONFLICT", None),
    ])
    .await
}

/// There is one challenger for all lines.
async fn ended(both: &mut Both<'_>) -> Result<()> {
    use Who::{Ana, Oleg};
    let retire = |who, more: &Value| on_card("retire_scorecard", who, more);
    let turn = [
        activate(Ana, &agreed()),
        activate(Ana, &agreed()),
        put(Oleg, "base_points", &json!(1)),
        retire(Oleg, &json!({})),
        retire(Ana, &json!({"expected_revision": 2})),
        retire(Ana, &json!({"reason": "no better", "expected_revision": 3})),
    ];
    let codes: Vec<Value> = both
        .in_turn(&turn)
        .await?
        .into_iter()
        .map(|outcome| outcome.map_or_else(|refusal| refusal["code"].clone(), |row| row["state"].clone()))
        .collect();
    assert_eq!(codes, ["challenger", "CONFLICT", "CONFLICT", "FORBIDDEN", "CONFLICT", "retired"]);
    Ok(())
}

async fn listed(both: &mut Both<'_>) -> Result<()> {
    use Who::{Ana, Oleg, Shop};
    both.done(vec![
        on_card("scorecard_history", Ana, &json!({"limit": 2})),
        on_card("scorecard_history", Ana, &json!({"cursor": "NEXT_CURSOR"})),
        ("list_scorecards", Oleg, json!({"limit": 1})),
        ("list_scorecards", Oleg, json!({"cursor": "NEXT_CURSOR"})),
    ])
    .await?;
    both.refused(vec![
        (on_card("scorecard_history", Shop, &json!({})), "FORBIDDEN", None),
        (on_card("scorecard_results", Shop, &json!({})), "FORBIDDEN", None),
        (on_card("scorecard_results", Ana, &json!({"limit": 0})), "BAD_REQUEST", Some("limit")),
        (("list_scorecards", Ana, json!({"cursor": "!"})), "BAD_REQUEST", Some("cursor")),
    ])
    .await
}

/// Runs, which are put into the table: no cycle ends while the test runs. The second one finds the line late.
async fn ran(both: &mut Both<'_>) -> Result<()> {
    let pool = both.api.postgres.pool().await?;
    let inputs = Inputs([(Feature::WorstDpd, 12), (Feature::Disputes, 4)].into_iter().collect());
    for merchant in MERCHANTS {
        let version = trial().replace(MERCHANT, merchant);
        let trial: Scorecard = serde_json::from_value(card(&version))?;
        let run = ScorecardRun::new(&Scorecard::default(), Some(&trial), &inputs);
        let details =
            json!({"has_effect": true, "inputs": inputs, "champion": run.champion, "challenger": run.challenger});
        for (cycle, stage, days_past_due) in [(Some(20_260_901), "current", 0), (None, "watch", 40)] {
            sqlx::query(
                "INSERT INTO credit_grade (merchant_id, currency, kind, grade, on_day, changed_on, requested_by, is_close, \
                        scorecard, score, scored, challenger, challenger_score, challenger_grade, run, follows, cycle, stage, \
                        days_past_due) \
                    SELECT merchant_id, currency, 'scorecard', grade, on_day, on_day, 'system:scorecard', $1::int IS NOT NULL, \
                        'standard-1', $2, $3, $4, 560, 'E', $5::jsonb, grade_id, $1, $6, $7 FROM credit_grade \
                    WHERE merchant_id = $8 AND kind <> 'override' ORDER BY grade_id DESC LIMIT 1",
            )
            .bind(cycle)
            .bind(run.champion.score)
            .bind(run.champion.grade.as_str())
            .bind(&version)
            .bind(details.to_string())
            .bind(stage)
            .bind(days_past_due)
            .bind(merchant)
            .execute(&pool)
            .await?;
        }
    }
    pool.close().await;
    let explained = |who| row("get_grade", who, &json!({}));
    for (who, has_challenger) in [(Who::Ana, true), (Who::Shop, false)] {
        let grade = both.same(explained(who)).await?.unwrap_or_default();
        let decision = &grade["decisions"][0];
        assert_eq!((&decision["stage"], &decision["days_past_due"]), (&json!("watch"), &json!(40)), "{grade}");
        assert_eq!(decision["run"]["inputs"], json!({"worst_dpd": 12, "disputes": 4}), "{grade}");
        assert_eq!(decision["run"]["challenger"].is_object(), has_challenger, "{grade}");
        assert!(grade["next_run"]["on"].is_string(), "{grade}");
    }
    let results = |more: &Value| on_card("scorecard_results", Who::Oleg, more);
    let first = both.same(results(&json!({"limit": 1}))).await?.unwrap_or_default();
    assert_eq!((&first["runs"], &first["challenger_mean_score"]), (&json!(2), &json!(560)), "{first}");
    let pair = &first["matrix"][0];
    assert_eq!([&pair["runs"], &pair["followed"], &pair["late"]], [&json!(2), &json!(1), &json!(1)], "{first}");
    both.done(vec![results(&json!({"cursor": "NEXT_CURSOR"}))]).await
}

/// What payers dispute, once each.
pub(crate) async fn disputed(both: &mut Both<'_>) -> Result<()> {
    use Who::{Ana, Oleg, Other, Shop};
    let dispute = |who, number: &str, amount: i64| {
        let members =
            json!({"dispute_no": number, "opened_on": "2026-01-15", "amount": amount, "remarks": "not received"});
        row("record_dispute", who, &members)
    };
    both.refused(vec![
        (dispute(Shop, "D-1", 50), "FORBIDDEN", None),
        (dispute(Oleg, "", 50), "BAD_REQUEST", Some("dispute_no")),
        (dispute(Oleg, "D-1", 0), "BAD_REQUEST", Some("amount")),
        (
            row("record_dispute", Oleg, &json!({"dispute_no": "D-1", "amount": 5, "opened_on": "2099-01-01"})),
            "BAD_REQUEST",
            Some("opened_on"),
        ),
    ])
    .await?;
    both.done(vec![
        dispute(Oleg, "D-1", 50),
        dispute(Ana, "D-1", 50),
        row("record_dispute", Oleg, &json!({"dispute_no": "D-2", "amount": 5})),
    ])
    .await?;
    both.refused(vec![
        (dispute(Oleg, "D-1", 51), "CONFLICT", None),
        (row("list_disputes", Other, &json!({})), "FORBIDDEN", None),
        (row("list_disputes", Ana, &json!({"limit": 0})), "BAD_REQUEST", Some("limit")),
    ])
    .await?;
    both.done(vec![
        row("list_disputes", Shop, &json!({"limit": 1})),
        row("list_disputes", Ana, &json!({"cursor": "NEXT_CURSOR"})),
    ])
    .await
}
