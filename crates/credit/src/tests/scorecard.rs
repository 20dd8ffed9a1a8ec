//! Scores, bands, how a grade moves, and what a scorecard's document refuses.

use std::collections::BTreeSet;

use super::{billed, day, repaid};
use crate::{
    BasisPoints, Books, Event, Feature, Grade, GradeMove, GradeOverride, GradeRecord, GradeRun, Inputs, LineHistory,
    Scorecard, ScorecardRun, Stage, StageEffect, Standing, Statement, Terms, grade_in_force,
};

fn standing(stage: Stage) -> Standing {
    Standing {
        stage,
        days_past_due: 0,
        cap_bp: BasisPoints::FULL,
        effects: BTreeSet::new(),
        in_default_since: None,
        probation_until: None,
        left_default_on: None,
    }
}

/// Least score, multiplier: the bands of the design, both sides of each edge.
#[test]
fn bands_follow_the_score() {
    let table = [
        (i32::MAX, Grade::A, 15_000),
        (660, Grade::A, 15_000),
        (659, Grade::B, 10_000),
        (620, Grade::B, 10_000),
        (619, Grade::C, 7_000),
        (580, Grade::C, 7_000),
        (579, Grade::D, 4_000),
        (540, Grade::D, 4_000),
        (539, Grade::E, 0),
        (i32::MIN, Grade::E, 0),
    ];
    let bands = Scorecard::default().bands;
    for (score, grade, multiplier) in table {
        let band = bands.of_score(score).unwrap();
        assert_eq!((band.grade, band.multiplier_bp.0, bands.grade_of(score)), (grade, multiplier, grade), "{score}");
    }
    assert_eq!(Grade::ALL.map(Grade::as_str), ["A", "B", "C", "D", "E"]);
}

#[test]
fn the_standard_card_is_valid_and_complete() {
    let card = Scorecard::default();
    assert_eq!(card.validate(), Ok(()));
    let features: Vec<Feature> = card.characteristics.iter().map(|own| own.feature).collect();
    assert_eq!(features, Feature::ALL);
    for feature in Feature::ALL {
        assert_eq!(serde_json::to_string(&feature).unwrap(), format!("\"{}\"", feature.as_str()));
    }
    let best = |own: &crate::Characteristic| own.bins.iter().map(|bin| bin.points).max().unwrap();
    let most: i32 = card.characteristics.iter().map(best).sum();
    assert_eq!(card.base_points + most, 692);
    let unknown = card.evaluate(&Inputs::default());
    assert_eq!((unknown.score, unknown.grade), (588, Grade::C));
}

/// One row for each kind of account: what changes from the best one, the score and the reasons.
#[test]
fn scores_are_sums_with_reasons() {
    use Feature::{
        CyclesPaidInFullInRow, DunningLevel, MonthsOpen, RefusedRatioBp, TimesOver30Dpd, UtilisationBp, WorstDpd,
    };
    let best = [
        (MonthsOpen, 36),
        (CyclesPaidInFullInRow, 24),
        (Feature::RepaymentsInThreeCycles, 9),
        (Feature::RepaidRatioBp, 10_000),
    ];
    let table: [(&[(Feature, i64)], i32, Grade, &[Feature]); 6] = [
        (&[], 692, Grade::A, &[]),
        (&[(RefusedRatioBp, 501)], 689, Grade::A, &[RefusedRatioBp]),
        (&[(MonthsOpen, 4), (UtilisationBp, 8_001)], 661, Grade::A, &[MonthsOpen, UtilisationBp]),
        (
            &[(WorstDpd, 12), (DunningLevel, 2), (CyclesPaidInFullInRow, 1)],
            645,
            Grade::B,
            &[WorstDpd, CyclesPaidInFullInRow, DunningLevel],
        ),
        (
            &[
                (WorstDpd, 75),
                (TimesOver30Dpd, 1),
                (DunningLevel, 6),
                (CyclesPaidInFullInRow, 0),
                (UtilisationBp, 9_900),
            ],
            547,
            Grade::D,
            &[WorstDpd, CyclesPaidInFullInRow, UtilisationBp, DunningLevel],
        ),
        (
            &[
                (WorstDpd, 91),
                (TimesOver30Dpd, 2),
                (DunningLevel, 7),
                (CyclesPaidInFullInRow, 0),
                (UtilisationBp, 9_900),
            ],
            504,
            Grade::E,
            // What costs the same stands in the order of the features.
            &[WorstDpd, CyclesPaidInFullInRow, TimesOver30Dpd, UtilisationBp],
        ),
    ];
    for (changes, score, grade, reasons) in table {
        let mut inputs = Inputs::default();
        Feature::ALL.iter().for_each(|feature| inputs.set(*feature, 0));
        best.iter().chain(changes).for_each(|(feature, value)| inputs.set(*feature, *value));
        let got = Scorecard::default().evaluate(&inputs);
        assert_eq!((got.score, got.grade, got.reasons.as_slice()), (score, grade, reasons), "{changes:?}");
        assert_eq!(got.score, 600 + got.points.iter().map(|own| own.points).sum::<i32>(), "{changes:?}");
    }
}

/// The challenger is evaluated as the champion is, and kept beside it.
#[test]
fn a_challenger_has_no_effect() {
    let champion = Scorecard::default();
    let mut challenger = Scorecard { version: "trial-2".to_owned(), base_points: 500, ..Scorecard::default() };
    challenger.characteristics.truncate(3);
    let run = ScorecardRun::new(&champion, Some(&challenger), &Inputs::default());
    assert_eq!(run.champion, champion.evaluate(&Inputs::default()));
    assert_eq!(run.challenger, Some(challenger.evaluate(&Inputs::default())));
    let text = serde_json::to_string(&run).unwrap();
    assert_eq!(serde_json::from_str::<ScorecardRun>(&text).unwrap(), run);
    assert_eq!(ScorecardRun::new(&champion, None, &Inputs::default()).challenger, None);
}

/// Down any number at once; up one notch after two closes above the band and 10 points, and 90 days.
#[test]
fn grades_move_down_at_once_and_up_by_one() {
    use Grade::{A, B, C, D, E};
    use GradeMove::{Down, Unchanged, Up};
    let change = "2026-01-01";
    let table = [
        // grade, at a close, day, score, at the close before, move
        (A, true, "2026-01-02", 539, Some(700), Down(E)),
        (A, false, "2026-01-02", 620, Some(700), Down(B)),
        (B, false, "2026-01-02", 619, None, Down(C)),
        (C, true, "2026-01-02", 580, None, Unchanged),
        (C, true, "2026-04-01", 630, Some(630), Up(B)),
        // Up one notch, however good.
        (D, true, "2026-04-01", 700, Some(700), Up(C)),
        (E, true, "2026-04-01", 550, Some(700), Up(D)),
        // The margin, at both closes.
        (C, true, "2026-04-01", 629, Some(630), Unchanged),
        (C, true, "2026-04-01", 630, Some(629), Unchanged),
        (C, true, "2026-04-01", 630, None, Unchanged),
        // The 90 days.
        (C, true, "2026-03-31", 700, Some(700), Unchanged),
        // At closes only.
        (C, false, "2026-04-01", 700, Some(700), Unchanged),
        (A, true, "2027-04-01", 700, Some(700), Unchanged),
    ];
    let card = Scorecard::default();
    let current = standing(Stage::Current);
    for (grade, is_close, on, score, previous_close_score, expected) in table {
        let record = GradeRecord { grade, changed_on: day(change) };
        let run = GradeRun { on: day(on), score, is_close, previous_close_score, standing: &current };
        assert_eq!(card.bands.next_grade(card.movement, record, &run), expected, "{grade:?} {run:?}");
    }
}

/// D at most in a default and after it, whatever the score, and no rise in a stage without increases.
#[test]
fn default_holds_the_grade_down() {
    use GradeMove::{Down, Unchanged, Up};
    let defaulted = standing(Stage::Defaulted);
    let after = Standing { left_default_on: Some(day("2026-06-01")), ..standing(Stage::Current) };
    let grace = Standing { effects: BTreeSet::from([StageEffect::NoIncrease]), ..standing(Stage::Grace) };
    let table = [
        // standing, grade, changed on, day, score, move
        (&defaulted, Grade::A, "2026-01-01", "2026-05-01", 700, Down(Grade::D)),
        (&defaulted, Grade::D, "2026-01-01", "2026-05-01", 700, Unchanged),
        (&defaulted, Grade::A, "2026-01-01", "2026-05-01", 500, Down(Grade::E)),
        (&defaulted, Grade::E, "2026-01-01", "2026-05-01", 700, Unchanged),
        // Nothing was decided in the default.
        (&after, Grade::B, "2026-01-01", "2026-06-01", 700, Down(Grade::D)),
        (&after, Grade::D, "2026-01-01", "2026-08-29", 700, Unchanged),
        (&after, Grade::D, "2026-01-01", "2026-08-30", 700, Up(Grade::C)),
        // It rose since.
        (&after, Grade::C, "2026-08-30", "2026-09-30", 700, Unchanged),
        (&after, Grade::C, "2026-08-30", "2026-11-28", 700, Up(Grade::B)),
        (&grace, Grade::C, "2026-01-01", "2026-05-01", 700, Unchanged),
        (&grace, Grade::C, "2026-01-01", "2026-05-01", 500, Down(Grade::E)),
    ];
    let card = Scorecard::default();
    for (standing, grade, changed_on, on, score, expected) in table {
        let record = GradeRecord { grade, changed_on: day(changed_on) };
        let run = GradeRun { on: day(on), score, is_close: true, previous_close_score: Some(score), standing };
        assert_eq!(card.bands.next_grade(card.movement, record, &run), expected, "{record:?} {run:?}");
    }
}

#[test]
fn an_override_counts_when_a_second_person_approved_it() {
    let request = GradeOverride {
        grade: Grade::A,
        reason: "guarantee of the parent company".to_owned(),
        expires_on: day("2026-06-30"),
        requested_by: "ann".to_owned(),
        approved_by: None,
    };
    let by = |person: &str| GradeOverride { approved_by: Some(person.to_owned()), ..request.clone() };
    let table = [
        (None, "2026-06-01", Grade::C),
        (Some(request.clone()), "2026-06-01", Grade::C),
        (Some(by("ann")), "2026-06-01", Grade::C),
        (Some(by("bob")), "2026-06-01", Grade::A),
        (Some(by("bob")), "2026-06-30", Grade::A),
        (Some(by("bob")), "2026-07-01", Grade::C),
    ];
    for (own, date, expected) in table {
        assert_eq!(grade_in_force(Grade::C, own.as_ref(), day(date)), expected, "{own:?} {date}");
    }
    let table = [
        (request.clone(), Ok(())),
        (by("bob"), Ok(())),
        (by("ann"), Err("`approved_by` is the person who requested it: a second person must approve it")),
        (GradeOverride { reason: " ".to_owned(), ..request.clone() }, Err("`reason` is empty: say why")),
        (
            GradeOverride { expires_on: day("2026-05-31"), ..request.clone() },
            Err("`expires_on` is over: give 2026-06-01 or later"),
        ),
        (
            GradeOverride { requested_by: String::new(), ..request },
            Err("`requested_by` is empty: name the person who requests it"),
        ),
    ];
    for (own, expected) in table {
        let got = own.validate(day("2026-06-01")).map_err(|error| error.to_string());
        assert_eq!(got, expected.map_err(str::to_owned), "{own:?}");
    }
}

#[test]
fn a_card_says_what_is_wrong_with_it() {
    fn card(change: impl Fn(&mut Scorecard)) -> Scorecard {
        let mut card = Scorecard::default();
        change(&mut card);
        card
    }
    let table = [
        (card(|c| c.version.clear()), "`version` is no name: give 1 to 64 visible ASCII characters"),
        (card(|c| c.base_points = 10_001), "`base_points` is 10001: give -10000 to 10000"),
        (card(|c| c.characteristics.clear()), "`characteristics` is empty: give the points of a feature"),
        (
            card(|c| c.characteristics[1].feature = Feature::RefusedRatioBp),
            "`characteristics[1].feature` `refused_ratio_bp` has points already: give each feature once",
        ),
        (card(|c| c.characteristics[2].bins.clear()), "`characteristics[2].bins` is empty: give at least one bin"),
        (
            card(|c| c.characteristics[0].bins[0].from = Some(0)),
            "`characteristics[0].bins[0].from` must be null: the first bin has no first value",
        ),
        (
            card(|c| c.characteristics[0].bins[4].to = Some(10_000)),
            "`characteristics[0].bins[4].to` must be null: the last bin has no last value",
        ),
        (
            card(|c| c.characteristics[0].bins[1].from = Some(500)),
            "`characteristics[0].bins[1].from` leaves a gap or an overlap: give one more than `to` of the bin before",
        ),
        (
            card(|c| c.characteristics[0].bins[1].from = Some(502)),
            "`characteristics[0].bins[1].from` leaves a gap or an overlap: give one more than `to` of the bin before",
        ),
        (
            card(|c| c.characteristics[0].bins[1].to = None),
            "`characteristics[0].bins[2].from` leaves a gap or an overlap: give one more than `to` of the bin before",
        ),
        (
            card(|c| c.characteristics[0].bins[1].to = Some(400)),
            "`characteristics[0].bins[1].to` is less than `from`: give at least that",
        ),
        (
            card(|c| c.characteristics[0].bins[1].points = 10_001),
            "`characteristics[0].bins[1].points` is 10001: give -10000 to 10000",
        ),
        (card(|c| c.bands.0.swap(0, 1)), "`bands` must have the grades A, B, C, D and E in this order, each once"),
        (
            card(|c| c.bands.0[1].from_score = Some(660)),
            "`bands[1].from_score` does not fall: give less than that of the band before",
        ),
        (card(|c| c.bands.0[1].from_score = None), "`bands[1].from_score` is missing"),
        (
            card(|c| c.bands.0[4].from_score = Some(1)),
            "`bands[4].from_score` must be null: the last band has no least score",
        ),
        (
            card(|c| c.bands.0[1].multiplier_bp.0 = 15_001),
            "`bands[1].multiplier_bp` rises: give at most that of the band before",
        ),
        (card(|c| c.bands.0[0].trust_share_bp.0 = 10_001), "`bands[0].trust_share_bp` is 10001: give 0 to 10000"),
        (
            card(|c| c.bands.0[0].threshold_percents = vec![80, 80]),
            "`bands[0].threshold_percents` cannot be used: 80 is listed twice",
        ),
        (
            card(|c| c.bands.0[0].channels = Some(BTreeSet::from([String::new()]))),
            "`bands[0].channels` has a name that is no channel: give 1 to 32 visible ASCII characters",
        ),
        (card(|c| c.bands.0[3].due_days = Some(3_651)), "`bands[3].due_days` is 3651: give 0 to 3650"),
        (card(|c| c.bands.0[3].minimum_bp = Some(BasisPoints(0))), "`bands[3].minimum_bp` is 0: give 1 to 10000"),
        (
            card(|c| c.bands.0[3].minimum_bp = Some(BasisPoints(10_001))),
            "`bands[3].minimum_bp` is 10001: give 1 to 10000",
        ),
        (card(|c| c.movement.margin_points = -1), "`movement.margin_points` is -1: give 0 to 1000"),
    ];
    for (card, problem) in table {
        assert_eq!(card.validate().map_err(|error| error.to_string()), Err(problem.to_owned()));
    }
    let text = serde_json::to_string(&Scorecard::default()).unwrap();
    assert_eq!(serde_json::from_str::<Scorecard>(&text).unwrap(), Scorecard::default());
    // A release of before reads a card without terms.
    assert!(!text.contains("due_days") && !text.contains("minimum_bp"), "{text}");
    let with_terms = card(|c| {
        c.bands.0[3].due_days = Some(0);
        c.bands.0[3].minimum_bp = Some(BasisPoints(1));
    });
    assert_eq!(with_terms.validate(), Ok(()));
    let text = serde_json::to_string(&with_terms).unwrap();
    assert_eq!(serde_json::from_str::<Scorecard>(&text).unwrap(), with_terms);
}

/// What a grade decides of a statement's terms; the rest is the line's: 14 days and a quarter.
#[test]
fn a_grade_decides_due_date_and_minimum() {
    let terms = Terms { minimum_bp: BasisPoints(2_500), ..Terms::default() };
    let cycle = terms.cycle.cycle_at(day("2026-01-01"), day("2026-01-05")).unwrap();
    let table = [
        // the band's days and minimum, due date and minimum of 101
        (None, None, "2026-02-14", 26),
        (Some(7), None, "2026-02-07", 26),
        (Some(0), None, "2026-01-31", 26),
        (None, Some(10_000), "2026-02-14", 101),
        (Some(30), Some(5_000), "2026-03-02", 51),
    ];
    for (due_days, minimum_bp, due_on, minimum) in table {
        let mut band = Scorecard::default().bands.0.remove(3);
        (band.due_days, band.minimum_bp) = (due_days, minimum_bp.map(BasisPoints));
        let statement = terms.with_grade(band.terms()).statement(&cycle, 101);
        assert_eq!((statement.due_on, statement.minimum), (day(due_on), minimum), "{due_days:?} {minimum_bp:?}");
        let plain = terms.statement(&cycle, 101);
        assert_eq!(Statement { due_on: plain.due_on, minimum: plain.minimum, ..statement }, plain);
    }
}

/// What the books say of a year: paid late once, in time since.
#[test]
fn inputs_follow_from_statements_and_payments() {
    let terms = Terms::default();
    let mut events: Vec<Event> = Vec::new();
    // Amount, and the day of the repayment; due on the 14th of the month after.
    let months = [
        ("2026-01-01", 400, "2026-03-20"),
        ("2026-02-01", 100, "2026-03-20"),
        ("2026-03-01", 500, "2026-04-10"),
        ("2026-04-01", 300, "2026-05-11"),
        ("2026-05-01", 100, "2026-06-05"),
    ];
    for (month, amount, paid) in months {
        events.extend(billed(&terms, month, amount));
        events.push(repaid(paid, &format!("for {month}").replace(' ', "-"), amount));
    }
    let events: Vec<Event> = events.into_iter().filter(|event| event.on <= day("2026-06-05")).collect();
    let books = Books::replay(&events).unwrap();
    let history = LineHistory { terms: &terms, obligations: books.obligations(), pauses: &[] };
    let inputs = history.payment_inputs(day("2026-01-20"), 1_000, day("2026-06-10"));
    let table = [
        (Feature::MonthsOpen, Some(4)),
        (Feature::CyclesPaidInFullInRow, Some(3)),
        // 48, 20, 10, 11 and 5 days.
        (Feature::MeanDaysToPay, Some(18)),
        (Feature::UtilisationBp, Some(3_000)),
        (Feature::RepaymentsInThreeCycles, Some(3)),
        (Feature::RepaidRatioBp, Some(10_000)),
        (Feature::WorstDpd, Some(33)),
        (Feature::TimesOver30Dpd, Some(1)),
        (Feature::DunningLevel, Some(4)),
        (Feature::RefusedRatioBp, None),
    ];
    for (feature, expected) in table {
        assert_eq!(inputs.get(feature), expected, "{feature:?}");
    }
    let later = history.payment_inputs(day("2026-01-20"), 0, day("2027-06-10"));
    let of_later = [Feature::UtilisationBp, Feature::MeanDaysToPay, Feature::WorstDpd].map(|own| later.get(own));
    assert_eq!(of_later, [None, None, Some(0)]);
    let empty = LineHistory { obligations: &[], ..history }.payment_inputs(day("2026-06-10"), 1_000, day("2026-06-10"));
    assert_eq!(empty.0.len(), 4);
    let summary = history.summary(&books, day("2026-03-19"));
    assert_eq!((summary.overdue.days_past_due, summary.standing.stage), (33, Stage::Restricted));
    assert_eq!((summary.exposure, summary.prepaid, summary.open_obligations), (0, 0, 0));
}
