//! Runs of the scorecards: each close of a cycle and each change of a stage has one, however many servers sweep, whatever dies in
//! between; what they look at, how grades move, and that every server has them.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::civil::Date;
use quota::{Action, ActorId, Channel, Code, Command, OnExpiry};
use sluice_credit::{BasisPoints, Characteristic, Feature, Grade, Scorecard};
use sluice_kit::database::change::By;
use sluice_kit::metrics::Metrics;
use sluice_kit::shutdown;
use sluice_lines::{
    Credit, CreditDay, DisputeInput, DisputeRepository, Follower, GradeRow, OverrideRepository, RunRepository,
    ScorecardRepository, ScorecardRole, Scorecards, id_of,
};
use sluice_settings::Secret;
use sluice_store::Store;
use testkit::{Failure, Result, Service, wait};

use crate::alerts::MERCHANT;
use crate::bench::WITHIN;
use crate::credit_sweep::{AMOUNT, DUE_DAY, Life, at, day, key};
use crate::engine::{audit, consume, hold};

/// Each run, with the days from the opening of the line to the day that it is of.
const RUNS: &str = "SELECT concat_ws(' ', on_day - date '2026-11-20', CASE WHEN is_close THEN 'close' ELSE 'stage' END, stage, \
    days_past_due, grade, changed_on - date '2026-11-20') FROM credit_grade WHERE kind = 'scorecard' ORDER BY grade_id";

impl Life {
    async fn runs(&self) -> Result<Vec<String>> {
        self.texts(RUNS).await
    }

    fn overrides(&self) -> OverrideRepository {
        OverrideRepository::new(self.pool.clone())
    }

    fn cards(&self) -> ScorecardRepository {
        ScorecardRepository::new(self.pool.clone())
    }

    /// Drafts a card as one person, and activates it as another one.
    async fn activate(&self, card: &Scorecard, role: ScorecardRole) -> Result<()> {
        let (maker, checker) = (ActorId::parse("ana")?, ActorId::parse("ben")?);
        self.cards().put(By { actor: &maker, reason: None }, card, None).await?;
        self.cards().activate(By { actor: &checker, reason: None }, &card.version, role, None).await?;
        Ok(())
    }

    /// The decisions about the grade, the newest first, with their details.
    async fn decisions(&self) -> Result<Vec<GradeRow>> {
        Ok(RunRepository::new(self.pool.clone()).decisions(&key()?, 100).await?)
    }

    async fn grade(&self, on: Date) -> Result<Grade> {
        Ok(self.lines().record(&key()?).await?.grade(on))
    }

    /// What is counted at `/metrics` of both servers.
    fn counted(&self, series: &str) -> u64 {
        let text = self.servers.iter().map(|server| server.metrics.encode()).collect::<String>();
        let values = text.lines().filter_map(|line| line.strip_prefix(series)?.trim().parse::<u64>().ok());
        values.sum()
    }
}

/// A card that gives every account this score.
pub(crate) fn constant(version: &str, score: i32) -> Scorecard {
    let standard = Scorecard::default();
    let feature = |own: Characteristic| Characteristic {
        missing_points: 0,
        bins: own.bins.into_iter().map(|bin| sluice_credit::Bin { points: 0, ..bin }).collect(),
        ..own
    };
    Scorecard {
        version: version.to_owned(),
        base_points: score,
        characteristics: standard.characteristics.into_iter().map(feature).collect(),
        ..Scorecard::default()
    }
}

/// From the opening to 31 days past due: a run at each close and at each change of the stage, on its day, and no other.
#[tokio::test]
async fn each_close_and_each_stage_has_one_run() -> Result<()> {
    let mut life = Life::open().await?;
    life.activate(&constant("steady", 630), ScorecardRole::Champion).await?;
    life.live(1..=DUE_DAY + 32).await?;
    let runs = [
        "30 close current 0 B 0",
        "44 stage grace 1 B 0",
        "49 stage watch 6 B 0",
        "60 close watch 17 B 0",
        "74 stage restricted 31 B 0",
    ];
    assert_eq!(life.runs().await?, runs);
    life.repay(DUE_DAY + 32, AMOUNT).await?;
    life.live(DUE_DAY + 33..=DUE_DAY + 40).await?;
    assert_eq!(life.runs().await?.get(5..), Some(&["76 stage current 0 B 0".to_owned()][..]));
    assert_eq!(life.counted("sluice_credit_scorecard_runs_total{cause=\"close\"}"), 2);
    assert_eq!(life.counted("sluice_credit_scorecard_runs_total{cause=\"stage\"}"), 4);
    // A line that is closed keeps its grade.
    let actor = ActorId::parse("ben")?;
    life.lines().close(By { actor: &actor, reason: None }, &key()?, None, day(85)).await?;
    life.live(86..=95).await?;
    assert_eq!(life.runs().await?.len(), 6);
    Ok(())
}

/// The standard card is run to be looked at. It has no effect, and neither has any other before two persons have put it in force.
#[tokio::test]
async fn no_grade_moves_before_a_scorecard_was_activated() -> Result<()> {
    let mut life = Life::open().await?;
    life.live(1..=DUE_DAY + 32).await?;
    let scored = "SELECT string_agg(concat_ws(' ', scorecard, scored, grade), ', ' ORDER BY grade_id) FROM credit_grade \
        WHERE kind = 'scorecard'";
    let scored = life.texts(scored).await?.concat();
    assert!(scored.contains("standard-1 E B") || scored.contains("standard-1 D B"), "{scored}");
    assert!(life.runs().await?.iter().all(|run| run.ends_with("B 0")), "{:?}", life.runs().await?);
    life.activate(&constant("strict", 500), ScorecardRole::Champion).await?;
    life.live(DUE_DAY + 33..=DUE_DAY + 62).await?;
    assert!(life.runs().await?.last().is_some_and(|run| run.contains(" E ")), "{:?}", life.runs().await?);
    Ok(())
}

/// What runs late is of the day that it was due on, and the closes come before the stage of today.
#[tokio::test]
async fn what_was_missed_runs_once_in_its_order() -> Result<()> {
    let mut life = Life::open().await?;
    life.activate(&constant("steady", 630), ScorecardRole::Champion).await?;
    life.apply(30, "o-2", consume(500)).await?;
    life.apply(60, "o-3", consume(500)).await?;
    life.live(80..=81).await?;
    let runs = ["30 close current 0 B 0", "60 close watch 17 B 0", "80 stage restricted 37 B 0"];
    assert_eq!(life.runs().await?, runs);
    Ok(())
}

/// Two servers that make the same run at once: one row, whatever their leader's lock does. The database has none of a second close,
/// nor one that does not follow.
#[tokio::test]
async fn of_two_servers_one_makes_a_run() -> Result<()> {
    let mut life = Life::open().await?;
    life.apply(30, "o-2", consume(500)).await?;
    let record = life.lines().record(&key()?).await?;
    let due = record.due_run(&record.books().0, day(30)).ok_or_else(|| Failure::new("no run is due"))?;
    let (runs, cards, key) = (RunRepository::new(life.pool.clone()), Scorecards::default(), key()?);
    let (one, two) = tokio::join!(runs.run(&key, &record, due, &cards), runs.run(&key, &record, due, &cards));
    assert_eq!([one?, two?].iter().flatten().count(), 1);
    assert_eq!(runs.run(&key, &record, due, &cards).await?, None);
    assert_eq!(life.runs().await?.len(), 1);
    let again = "INSERT INTO credit_grade (merchant_id, currency, kind, grade, on_day, changed_on, requested_by, is_close, \
            scorecard, score, scored, run, follows, cycle, stage, days_past_due) \
        SELECT merchant_id, currency, kind, grade, on_day, changed_on, requested_by, is_close, scorecard, score, scored, run, \
            grade_id, cycle, stage, days_past_due FROM credit_grade WHERE kind = 'scorecard'";
    let refused = life.execute(again).await;
    assert!(refused.is_err_and(|failure| failure.to_string().contains("credit_grade_cycle")));
    let changed = life.execute("UPDATE credit_grade SET grade = 'A'").await;
    assert!(changed.is_err_and(|failure| failure.to_string().contains("kept for the record")));
    Ok(())
}

/// A server that dies between a close and its run has closed the cycle; the run follows with the next sweep, as of its day. Cycles
/// close and notices go out meanwhile.
#[tokio::test]
async fn a_close_without_its_run_has_it_later() -> Result<()> {
    let mut life = Life::open().await?;
    life.activate(&constant("steady", 630), ScorecardRole::Champion).await?;
    life.sweep(30).await?;
    assert_eq!(life.runs().await?, [""; 0]);
    life.execute("ALTER TABLE credit_grade ADD CONSTRAINT broken CHECK (kind <> 'scorecard') NOT VALID").await?;
    let broken = life.servers[0].credit(at(DUE_DAY - 3)).await;
    assert!(broken.is_err(), "{broken:?}");
    let sent = "SELECT step::text FROM credit_notice";
    assert_eq!(life.texts(sent).await?, ["-3"]);
    life.execute("ALTER TABLE credit_grade DROP CONSTRAINT broken").await?;
    life.sweep(DUE_DAY - 2).await?;
    assert_eq!(life.runs().await?, ["30 close current 0 B 0"]);
    Ok(())
}

/// What a run looked at: the usage log of the days before, disputes, and how it says why.
#[tokio::test]
async fn a_run_knows_what_the_account_did() -> Result<()> {
    let mut life = Life::open().await?;
    life.apply(1, "h-1", hold(700, 60, OnExpiry::Void)).await?;
    life.apply(1, "h-2", hold(300, 400 * 86_400, OnExpiry::Void)).await?;
    life.servers[0].holds(at(2)).await?;
    for (number, channel) in [("c-1", "card"), ("c-2", "card"), ("c-3", "wallet"), ("c-4", "bank")] {
        let command = life.engine.command(MERCHANT, number, consume(1_000), at(3))?;
        life.engine.apply(&Command { channel: Some(Channel::parse(channel)?), ..command }).await?;
    }
    let void = life.engine.command(MERCHANT, "c-4", Action::VoidAttempt, at(3))?;
    let voided = life.engine.store.apply(&void, &audit("proxy", "upstream_5xx")).await?;
    assert_eq!(voided.record.code, Code::Voided);
    let mut refused = life.engine.command(MERCHANT, "c-5", consume(9_000), at(4))?;
    if let Action::Consume(charge) = &mut refused.action {
        charge.refusal = Some(Code::AboveSingleMax);
    }
    life.engine.apply(&refused).await?;
    // Neither a repetition nor a payment of another currency or of the day of the run counts.
    life.engine.run(MERCHANT, "c-1", consume(1_000), at(4)).await?;
    life.hand.drain().await?;
    let (actor, disputes) = (ActorId::parse("oleg")?, DisputeRepository::new(life.pool.clone()));
    for (dispute_no, opened_on) in [("d-1", day(3)), ("d-2", day(29)), ("d-2", day(29)), ("d-3", day(31))] {
        let input =
            DisputeInput { dispute_no: dispute_no.to_owned(), opened_on: Some(opened_on), amount: 5, remarks: None };
        disputes.record(By { actor: &actor, reason: None }, &key()?, &input, day(40)).await?;
    }
    life.apply(30, "o-2", consume(777)).await?;
    life.sweep(31).await?;
    let decisions = life.decisions().await?;
    let run = decisions.first().and_then(|row| row.run.as_ref()).ok_or_else(|| Failure::new("no run"))?;
    let expected = [
        // One of eight was refused, one of seven failed, one of two holds expired.
        (Feature::RefusedRatioBp, 1_250),
        (Feature::GatewayFailedRatioBp, 1_428),
        (Feature::ExpiredHoldRatioBp, 5_000),
        (Feature::PeakHourShareBp, 10_000),
        // 12,000 on day 0, 1,000 on day 1, 4,000 on day 3, and nothing on 27 days: √(30 × 161,000,000 − 17,000²) / 17,000.
        (Feature::DailyAmountVolatilityBp, 39_639),
        (Feature::DistinctChannels, 3),
        (Feature::MonthsOpen, 1),
        (Feature::Disputes, 2),
        (Feature::Downgrades, 0),
        (Feature::WorstDpd, 0),
    ];
    for (feature, value) in expected {
        assert_eq!(run.inputs.get(feature), Some(value), "{feature:?} of {:?}", run.inputs);
    }
    // Nothing was due: whether it is paid is not known.
    assert_eq!(run.inputs.get(Feature::CyclesPaidInFullInRow), None);
    let sum: i32 = run.champion.points.iter().map(|own| own.points).sum();
    assert_eq!(run.champion.score, Scorecard::default().base_points + sum);
    assert_eq!(run.champion.reasons.len(), 4);
    Ok(())
}

/// The challenger is evaluated beside the champion and moves nothing. What became of the lines stands beside the grades of both.
#[tokio::test]
async fn a_challenger_has_no_effect() -> Result<()> {
    let mut life = Life::open().await?;
    life.activate(&constant("steady", 630), ScorecardRole::Champion).await?;
    life.activate(&constant("strict", 500), ScorecardRole::Challenger).await?;
    life.live(30..=DUE_DAY + 32).await?;
    assert_eq!(life.grade(day(75)).await?, Grade::B);
    let runs = RunRepository::new(life.pool.clone());
    let results = runs.results("strict").await?;
    assert_eq!((results.champion_mean_score, results.challenger_mean_score), (Some(630), Some(500)));
    let pairs: Vec<_> = results
        .matrix
        .iter()
        .map(|pair| (pair.champion, pair.challenger, pair.outcomes.runs, pair.outcomes.followed, pair.outcomes.late))
        .collect();
    // Of five runs four are followed, and the last one, which follows them all, found more than 30 days past due.
    assert_eq!(pairs, [(Grade::B, Grade::E, 5, 4, 4)]);
    let of_e =
        results.grades.iter().find(|own| own.grade == Grade::E).map(|own| (own.champion.runs, own.challenger.runs));
    assert_eq!(of_e, Some((0, 5)));
    let page = runs.trial_runs("strict", None, 2).await?;
    let last = page.last().ok_or_else(|| Failure::new("no runs"))?;
    assert_eq!((page.len(), last.challenger.score, last.champion.grade), (2, 500, Grade::B));
    let rest = runs.trial_runs("strict", Some(last.grade_id), 10).await?;
    assert_eq!(rest.len(), 3);
    // One that is retired runs no more.
    let actor = ActorId::parse("ben")?;
    life.cards().retire(By { actor: &actor, reason: None }, "strict", None).await?;
    life.live(90..=91).await?;
    assert_eq!((runs.results("strict").await?.runs, life.runs().await?.len()), (5, 6));
    Ok(())
}

/// A good score raises the grade one notch, at a close, 90 days after the last change, and where the close before had it too.
#[tokio::test]
async fn a_grade_rises_after_two_closes_and_90_days() -> Result<()> {
    let mut life = Life::open().await?;
    life.repay(1, AMOUNT).await?;
    life.activate(&constant("fair", 630), ScorecardRole::Champion).await?;
    life.live(29..=91).await?;
    // The first close with the better card: 91 days are over, and one score says nothing yet.
    life.activate(&constant("kind", 700), ScorecardRole::Champion).await?;
    life.live(119..=151).await?;
    let runs = [
        "30 close current 0 B 0",
        "60 close current 0 B 0",
        "90 close current 0 B 0",
        "120 close current 0 B 0",
        "150 close current 0 A 150",
    ];
    assert_eq!(life.runs().await?, runs);
    assert_eq!(life.counted("sluice_credit_grade_changes_total{direction=\"up\"}"), 1);
    // Down at once, over all grades.
    life.activate(&constant("strict", 500), ScorecardRole::Champion).await?;
    life.live(180..=181).await?;
    assert_eq!(life.runs().await?.last().map(String::as_str), Some("180 close current 0 E 180"));
    assert_eq!(life.counted("sluice_credit_grade_changes_total{direction=\"down\"}"), 1);
    // The better card again: the fall is an input, and 90 days begin anew.
    life.activate(&constant("kinder", 700), ScorecardRole::Champion).await?;
    life.live(210..=241).await?;
    assert_eq!(life.grade(day(241)).await?, Grade::E);
    let last = life.decisions().await?;
    let inputs = last.first().and_then(|row| row.run.as_ref()).map(|run| run.inputs.clone()).unwrap_or_default();
    assert_eq!(inputs.get(Feature::Downgrades), Some(1));
    Ok(())
}

/// Two closes above the band do not raise a grade that has changed within 90 days.
#[tokio::test]
async fn a_grade_does_not_rise_within_90_days() -> Result<()> {
    let mut life = Life::open().await?;
    life.repay(1, AMOUNT).await?;
    life.activate(&constant("kind", 700), ScorecardRole::Champion).await?;
    life.live(29..=91).await?;
    assert_eq!(life.runs().await?, ["30 close current 0 B 0", "60 close current 0 B 0", "90 close current 0 A 90"]);
    Ok(())
}

/// A grade that two persons have set counts, whatever a run decides; then the decided one does.
#[tokio::test]
async fn an_override_beats_a_run() -> Result<()> {
    let mut life = Life::open().await?;
    let (maker, checker) = (ActorId::parse("ana")?, ActorId::parse("ben")?);
    let by = By { actor: &maker, reason: Some("audited accounts") };
    let asked = life.overrides().request(by, &key()?, Grade::A, day(40), day(1)).await?;
    life.overrides().approve(By { actor: &checker, reason: None }, &key()?, asked.grade_id, day(1)).await?;
    life.activate(&constant("strict", 500), ScorecardRole::Champion).await?;
    life.live(30..=31).await?;
    assert_eq!(life.runs().await?, ["30 close current 0 E 30"]);
    assert_eq!((life.grade(day(40)).await?, life.grade(day(41)).await?), (Grade::A, Grade::E));
    Ok(())
}

/// A card that gives every account grade D, with these terms for it.
fn of_d(version: &str, due_days: u16, minimum_bp: Option<u32>) -> Scorecard {
    let mut card = constant(version, 550);
    for band in card.bands.0.iter_mut().filter(|band| band.grade == Grade::D) {
        band.due_days = Some(due_days);
        band.minimum_bp = minimum_bp.map(BasisPoints);
    }
    card
}

/// A statement is made by the terms that were copied into the decision about the grade of the day on which its cycle closed, and keeps
/// them whatever scorecard is activated later. The line's own terms are 14 days and all of it.
#[tokio::test]
async fn a_statement_has_the_terms_of_its_grade() -> Result<()> {
    let statements = "SELECT concat_ws(' ', number, due_on - closed_on, minimum) FROM credit_statement ORDER BY number";
    let mut life = Life::open().await?;
    // Paid in advance, so that no stage changes.
    life.repay(1, 10 * AMOUNT).await?;
    let charge = consume(1_000);
    // The line was opened before any scorecard was activated, and the first run is that of the first close.
    life.activate(&of_d("strict", 5, Some(2_500)), ScorecardRole::Champion).await?;
    life.live(30..=31).await?;
    assert_eq!(life.texts(statements).await?, ["1 14 12000"]);
    life.apply(32, "o-2", charge).await?;
    life.live(60..=61).await?;
    // The next run copies the terms of the next scorecard: that of the close of the third cycle.
    life.activate(&of_d("lenient", 20, None), ScorecardRole::Champion).await?;
    life.apply(62, "o-3", charge).await?;
    let strict = ["1 14 12000", "2 5 250", "3 5 250"];
    assert_eq!(life.texts(statements).await?, strict[..2]);
    life.live(90..=91).await?;
    life.apply(92, "o-4", charge).await?;
    life.live(120..=121).await?;
    assert_eq!(life.texts(statements).await?, [&strict[..], &["4 20 1000"]].concat());
    // An override has the terms of its grade from its approval on, and no longer than it lasts.
    let mut generous = of_d("generous", 9, None);
    for band in generous.bands.0.iter_mut().filter(|band| band.grade == Grade::A) {
        band.due_days = Some(45);
    }
    life.activate(&generous, ScorecardRole::Champion).await?;
    let (maker, checker) = (ActorId::parse("ana")?, ActorId::parse("ben")?);
    let by = By { actor: &maker, reason: Some("audited accounts") };
    let asked = life.overrides().request(by, &key()?, Grade::A, day(149), day(122)).await?;
    assert_eq!((asked.due_days, asked.approved_on), (None, None));
    let by = By { actor: &checker, reason: None };
    let approved = life.overrides().approve(by, &key()?, asked.grade_id, day(123)).await?;
    assert_eq!((approved.due_days, approved.approved_on), (Some(45), Some(day(123))));
    life.apply(124, "o-5", charge).await?;
    life.live(150..=151).await?;
    life.apply(152, "o-6", charge).await?;
    life.live(180..=181).await?;
    let all = ["1 14 12000", "2 5 250", "3 5 250", "4 20 1000", "5 45 1000", "6 9 1000"];
    assert_eq!(life.texts(statements).await?, all);
    let kept = "SELECT concat_ws(' ', grade, due_days, minimum_bp) FROM credit_grade WHERE kind <> 'override' ORDER BY grade_id";
    assert_eq!(life.texts(kept).await?, ["B", "D 5 2500", "D 5 2500", "D 20", "D 20", "D 9", "D 9"]);
    let changed = life.execute("UPDATE credit_grade SET due_days = 1").await;
    assert!(changed.is_err_and(|failure| failure.to_string().contains("kept for the record")));
    Ok(())
}

/// A grade that a run changed, and the bands of another champion, are in force on a server that follows: limit and channels. Without
/// Postgres the last ones count.
#[tokio::test]
async fn servers_have_grades_and_bands_at_once() -> Result<()> {
    let mut life = Life::open().await?;
    let metrics = Metrics::new();
    let (lines, follower) = Follower::open(&Secret::new(life.bench.postgres.url()), &metrics)?;
    follower.first_reading(WITHIN).await;
    let (stop, shutdown) = shutdown::channel();
    let following = tokio::spawn(follower.run(shutdown));
    let (merchant, currency) = key()?;
    let today = id_of(day(31));
    let limit = async |expected: i64| {
        wait::until_async("the limit on the server", WITHIN, || async {
            let Credit::Line(day) = lines.on(&merchant, currency, today).await else { return Ok(None) };
            Ok((day.limit.limit == expected).then_some(day))
        })
        .await
    };
    limit(1_000_000).await?;
    life.activate(&constant("poor", 590), ScorecardRole::Champion).await?;
    life.live(30..=31).await?;
    let day_31: Arc<CreditDay> = limit(700_000).await?;
    assert_eq!((day_31.grade, day_31.refuses(Some(&Channel::parse("wallet")?))), (Grade::C, None));

    let mut narrow = constant("narrow", 590);
    for band in narrow.bands.0.iter_mut().filter(|band| band.grade == Grade::C) {
        band.multiplier_bp = BasisPoints(6_000);
        band.channels = Some(BTreeSet::from(["card".to_owned()]));
    }
    life.activate(&narrow, ScorecardRole::Champion).await?;
    let day_31 = limit(600_000).await?;
    for (channel, expected) in
        [(Some("card"), None), (Some("wallet"), Some(Code::CreditChannel)), (None, Some(Code::CreditChannel))]
    {
        let channel = channel.map(Channel::parse).transpose()?;
        assert_eq!(day_31.refuses(channel.as_ref()), expected, "{channel:?}");
    }
    life.bench.postgres.stop()?;
    wait::until_async("the server to notice", WITHIN, || async { Ok(lines.outdated_since_ms()) }).await?;
    assert_eq!(lines.bands().of_grade(Grade::C).map(|band| band.multiplier_bp.0), Some(6_000));
    limit(600_000).await?;
    stop.request();
    following.await.map_err(|error| Failure::new(error.to_string()))
}
