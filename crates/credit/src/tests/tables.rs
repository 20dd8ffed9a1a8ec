//! The tables of the design, literally: stages, limits, terms, and what their documents refuse.

use std::collections::BTreeSet;

use super::day;
use crate::{
    BasisPoints, CycleRule, DunningStep, EffectiveLimit, Ladder, LimitFactors, LimitOverride, Materiality, NoticeKind,
    Recipient, Stage, StageEffect, StageTable, Terms,
};

/// The default table: first and last day past due, cap, and what else the stage does.
#[test]
fn stages_follow_days_past_due() {
    use StageEffect::{ListedChannelsOnly, NoIncrease, NoNewCharges, NoTrust, RiskAlert, TwoPersonsToLift};
    let table: [(Stage, i64, i64, u32, &[StageEffect]); 6] = [
        (Stage::Current, i64::MIN, 0, 10_000, &[]),
        (Stage::Grace, 1, 5, 10_000, &[NoIncrease, NoTrust]),
        (Stage::Watch, 6, 30, 7_500, &[NoIncrease, NoTrust, RiskAlert]),
        (Stage::Restricted, 31, 60, 5_000, &[NoIncrease, NoTrust, RiskAlert, ListedChannelsOnly]),
        (Stage::Frozen, 61, 90, 0, &[NoIncrease, NoTrust, RiskAlert, ListedChannelsOnly, NoNewCharges]),
        (
            Stage::Defaulted,
            91,
            i64::MAX,
            0,
            &[NoIncrease, NoTrust, RiskAlert, ListedChannelsOnly, NoNewCharges, TwoPersonsToLift],
        ),
    ];
    let stages = StageTable::default();
    for (stage, first, last, cap, effects) in table {
        for days in [first, last] {
            assert_eq!(stages.stage_at(days), stage, "{days}");
            assert_eq!(stages.cap_bp(stages.level_at(days)), BasisPoints(cap), "{days}");
        }
        assert_eq!(stages.effects(stage), effects.iter().copied().collect::<BTreeSet<_>>(), "{stage:?}");
    }
    let names: Vec<&str> = Stage::ALL.iter().map(|stage| stage.as_str()).collect();
    assert_eq!(names, ["current", "grace", "watch", "restricted", "frozen", "defaulted"]);
}

/// One step up is the next higher cap.
#[test]
fn caps_rise_step_by_step() {
    let stages = StageTable::default();
    let table = [(0, 10_000), (3, 10_000), (6, 10_000), (31, 7_500), (61, 5_000), (91, 5_000)];
    for (days, cap) in table {
        let level = stages.step_up(stages.level_at(days));
        assert_eq!(stages.cap_bp(level), BasisPoints(cap), "{days}");
    }
}

#[test]
fn defaults_are_those_of_the_design() {
    let terms = Terms::default();
    assert_eq!(terms.validate(), Ok(()));
    assert_eq!(terms.cycle, CycleRule::Monthly { day: 1 });
    assert_eq!((terms.grace_days, terms.default_after_days, terms.probation_days), (5, 90, 90));
    assert_eq!((terms.minimum_bp, terms.materiality.bp), (BasisPoints(10_000), BasisPoints(100)));
    let days: Vec<i16> = terms.dunning.0.iter().map(|step| step.day).collect();
    assert_eq!(days, [-3, 0, 1, 7, 14, 30, 45, 60, 90]);
    let kind = |kind| terms.dunning.0.iter().filter(|step| step.kind == kind).map(|step| step.day).collect::<Vec<_>>();
    assert_eq!((kind(NoticeKind::Formal), kind(NoticeKind::Final)), (vec![30], vec![60]));
}

/// L_eff = floor(limit_base × min(grade_bp, stage_cap_bp) / 10,000), where 10,000 is no cap; then the override.
#[test]
fn limits_follow_grade_and_stage() {
    let table = [
        // base, grade, cap, limit, without the cap
        (1_000_000, 15_000, 10_000, 1_500_000, 1_500_000),
        (1_000_000, 10_000, 10_000, 1_000_000, 1_000_000),
        (1_000_000, 7_000, 10_000, 700_000, 700_000),
        (1_000_000, 4_000, 10_000, 400_000, 400_000),
        (1_000_000, 0, 10_000, 0, 0),
        (1_000_000, 15_000, 7_500, 750_000, 1_500_000),
        (1_000_000, 15_000, 5_000, 500_000, 1_500_000),
        (1_000_000, 7_000, 7_500, 700_000, 700_000),
        (1_000_000, 4_000, 5_000, 400_000, 400_000),
        (1_000_000, 15_000, 0, 0, 1_500_000),
        // Rounded down.
        (999, 7_500, 10_000, 749, 749),
        (1, 9_999, 5_000, 0, 0),
        // No larger than any amount.
        (crate::AMOUNT_MAX, 15_000, 10_000, crate::AMOUNT_MAX, crate::AMOUNT_MAX),
        (-1, 10_000, 10_000, 0, 0),
    ];
    for (limit_base, grade, cap, limit, uncapped) in table {
        let factors =
            LimitFactors { limit_base, multiplier_bp: BasisPoints(grade), cap_bp: BasisPoints(cap), overridden: None };
        let expected = EffectiveLimit { limit, uncapped, is_overridden: false };
        assert_eq!(factors.limit_on(day("2026-03-01")), expected, "{factors:?}");
        let overridden = Some(LimitOverride { limit: 123, expires_on: day("2026-03-01") });
        let by_hand = LimitFactors { overridden, ..factors };
        let in_force = EffectiveLimit { limit: 123, uncapped: 123, is_overridden: true };
        assert_eq!(by_hand.limit_on(day("2026-03-01")), in_force, "{factors:?}");
        assert_eq!(by_hand.limit_on(day("2026-03-02")), expected, "{factors:?}");
    }
}

#[test]
fn available_is_limit_less_net_exposure() {
    let table = [(1_000, 0, 1_000), (1_000, 999, 1), (1_000, 1_000, 0), (1_000, 1_500, 0), (0, -300, 300), (0, 0, 0)];
    for (limit, net, available) in table {
        let effective = EffectiveLimit { limit, uncapped: limit, is_overridden: false };
        assert_eq!(effective.available(net), available, "{limit} {net}");
    }
    assert_eq!(EffectiveLimit { limit: 0, uncapped: 0, is_overridden: false }.available(i64::MIN), i64::MAX);
}

#[test]
fn an_override_of_the_limit_says_what_is_wrong_with_it() {
    let check = |limit, expires_on| LimitOverride { limit, expires_on: day(expires_on) }.validate(day("2026-03-01"));
    assert_eq!(check(0, "2026-03-01"), Ok(()));
    let late = check(1, "2026-02-28").unwrap_err().to_string();
    assert_eq!(late, "`expires_on` is over: give 2026-03-01 or later");
    assert_eq!(check(-1, "2026-03-01").unwrap_err().to_string(), "`limit` is -1: give 0 to 9007199254740991");
}

/// Both thresholds must be exceeded.
#[test]
fn what_is_material_exceeds_both_thresholds() {
    let table = [
        // absolute, bp, past due, billed, material
        (0, 100, 0, 0, false),
        (0, 100, 1, 100, false),
        (0, 100, 2, 100, true),
        (500, 100, 500, 500, false),
        (500, 100, 501, 501, true),
        (500, 100, 501, 50_100, false),
        (500, 100, 501, 50_099, true),
        (0, 0, 1, 1_000_000, true),
    ];
    for (absolute, bp, past_due, billed, expected) in table {
        let materiality = Materiality { absolute, bp: BasisPoints(bp) };
        assert_eq!(materiality.is_exceeded(past_due, billed), expected, "{materiality:?} {past_due} {billed}");
    }
}

/// The text of a refusal names the member and says what to give.
#[test]
fn terms_say_what_is_wrong_with_them() {
    fn terms(change: impl Fn(&mut Terms)) -> Terms {
        let mut terms = Terms::default();
        change(&mut terms);
        terms
    }
    let order = "current, grace, watch, restricted, frozen, defaulted";
    let table = [
        (terms(|t| t.cycle = CycleRule::Monthly { day: 29 }), "`cycle.monthly.day` is 29: give 1 to 28".to_owned()),
        (terms(|t| t.cycle = CycleRule::Monthly { day: 0 }), "`cycle.monthly.day` is 0: give 1 to 28".to_owned()),
        (
            terms(|t| t.cycle = CycleRule::EveryDays { days: 0 }),
            "`cycle.every_days.days` is 0: give 1 to 366".to_owned(),
        ),
        (terms(|t| t.due_days = 3_651), "`due_days` is 3651: give 0 to 3650".to_owned()),
        (terms(|t| t.minimum_bp.0 = 0), "`minimum_bp` is 0: give 1 to 10000".to_owned()),
        (terms(|t| t.minimum_bp.0 = 10_001), "`minimum_bp` is 10001: give 1 to 10000".to_owned()),
        (terms(|t| t.materiality.absolute = -1), "`materiality.absolute` is -1: give 0 to 9007199254740991".to_owned()),
        (terms(|t| t.materiality.bp.0 = 10_000), "`materiality.bp` is 10000: give 0 to 9999".to_owned()),
        (terms(|t| t.probation_days = 3_651), "`probation_days` is 3651: give 0 to 3650".to_owned()),
        (
            terms(|t| t.stages.0.clear()),
            "`stages` is empty: give a row for `current` and one for `defaulted`".to_owned(),
        ),
        (
            terms(|t| _ = t.stages.0.remove(0)),
            "`stages[0].stage` must be `current`: begin the table with it".to_owned(),
        ),
        (terms(|t| _ = t.stages.0.pop()), "`stages[4].stage` must be `defaulted`: end the table with it".to_owned()),
        (terms(|t| t.stages.0[0].cap_bp.0 = 9_999), "`stages[0].cap_bp` is 9999: give 10000 to 10000".to_owned()),
        (terms(|t| t.stages.0[0].from_dpd = 1), "`stages[0].from_dpd` is 1: give 0 to 0".to_owned()),
        (
            terms(|t| t.default_after_days = 120),
            "`stages[5].from_dpd` is 91: give 121, the day after `default_after_days`".to_owned(),
        ),
        (terms(|t| t.grace_days = 10), "`stages[2].from_dpd` is 6: give 11, the day after `grace_days`".to_owned()),
        (terms(|t| t.grace_days = 0), "`grace_days` is 0: give 1 to 65535".to_owned()),
        (terms(|t| t.stages.0.retain(|row| row.stage != Stage::Grace)), "`grace_days` is 5: give 0 to 0".to_owned()),
        (
            terms(|t| t.stages.0[4].stage = Stage::Watch),
            format!("`stages[4].stage` is out of order: give {order}, each at most once"),
        ),
        (
            terms(|t| t.stages.0[4].from_dpd = 31),
            "`stages[4].from_dpd` is 31: give more than the 31 of the row before".to_owned(),
        ),
        (
            terms(|t| t.stages.0[3].cap_bp.0 = 7_501),
            "`stages[3].cap_bp` is 7501: give at most the 7500 of the row before".to_owned(),
        ),
        (terms(|t| t.dunning.0[1].day = -3), "`dunning[1].day` is -3: give days in rising order, each once".to_owned()),
        (
            terms(|t| t.dunning.0[2].channels.clear()),
            "`dunning[2].channels` is empty: name a channel, or remove the step".to_owned(),
        ),
        (
            terms(|t| t.dunning.0[2].template.clear()),
            "`dunning[2].template` is no name: give 1 to 64 visible ASCII characters".to_owned(),
        ),
        (
            terms(|t| t.dunning.0[2].recipients.clear()),
            "`dunning[2].recipients` is empty: give `merchant`, `operators` or both".to_owned(),
        ),
        (terms(|t| t.dunning = Ladder(vec![step(0); 51])), "`dunning` has 51 steps: give at most 50".to_owned()),
    ];
    for (terms, problem) in table {
        assert_eq!(terms.validate().map_err(|error| error.to_string()), Err(problem));
    }
}

fn step(day: i16) -> DunningStep {
    DunningStep {
        day,
        channels: BTreeSet::from(["email".to_owned()]),
        template: "text".to_owned(),
        kind: NoticeKind::Reminder,
        recipients: BTreeSet::from([Recipient::Merchant]),
    }
}

/// Documents are read as they are written, a missing member has its default, and an unknown one is refused.
#[test]
fn terms_are_documents() {
    let terms = Terms { cycle: CycleRule::EveryDays { days: 14 }, due_days: 7, ..Terms::default() };
    let text = serde_json::to_string(&terms).unwrap();
    assert_eq!(serde_json::from_str::<Terms>(&text).unwrap(), terms);
    let short = r#"{"cycle": {"every_days": {"days": 14}}, "due_days": 7}"#;
    assert_eq!(serde_json::from_str::<Terms>(short).unwrap(), terms);
    let own = r#"{"stages": [{"stage": "current", "from_dpd": 0, "cap_bp": 10000},
        {"stage": "watch", "from_dpd": 1, "cap_bp": 2500, "also": ["risk_alert", "no_new_charges"]},
        {"stage": "defaulted", "from_dpd": 91, "cap_bp": 0}], "grace_days": 0}"#;
    let own = serde_json::from_str::<Terms>(own).unwrap();
    assert_eq!(own.validate(), Ok(()));
    assert_eq!(own.stages.effects(Stage::Defaulted).len(), 2);
    for unknown in
        [r#"{"due": 7}"#, r#"{"materiality": {"percent": 1}}"#, r#"{"cycle": {"monthly": {"day": 1, "of": 2}}}"#]
    {
        assert!(serde_json::from_str::<Terms>(unknown).is_err(), "{unknown}");
    }
}
