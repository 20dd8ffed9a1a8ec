//! The inputs about behaviour.

use crate::{Behaviour, Feature, Inputs};

fn inputs(behaviour: &Behaviour) -> Inputs {
    let mut inputs = Inputs::default();
    behaviour.add_to(&mut inputs);
    inputs
}

#[test]
fn ratios_are_of_what_there_was() {
    use Feature::{
        DailyAmountVolatilityBp, DistinctChannels, ExpiredHoldRatioBp, GatewayFailedRatioBp, PeakHourShareBp,
        RefusedRatioBp,
    };
    let all = Behaviour {
        charges: 200,
        refused: 50,
        gateway_failed: 3,
        holds: 7,
        expired_holds: 2,
        hours: vec![100, 300, 0, 200],
        days: vec![200, 400],
        channels: 4,
    };
    let table: [(Behaviour, &[(Feature, i64)]); 4] = [
        (
            all.clone(),
            &[
                (RefusedRatioBp, 2_500),
                (GatewayFailedRatioBp, 200),
                (ExpiredHoldRatioBp, 2_857),
                (PeakHourShareBp, 5_000),
                (DailyAmountVolatilityBp, 3_333),
                (DistinctChannels, 4),
            ],
        ),
        // Nothing happened: nothing is known.
        (Behaviour { days: vec![0; 90], hours: vec![0; 24], ..Behaviour::default() }, &[]),
        // Only refusals.
        (Behaviour { charges: 5, refused: 5, days: vec![0], ..Behaviour::default() }, &[(RefusedRatioBp, 10_000)]),
        (
            Behaviour { holds: 0, days: vec![600], hours: vec![600], ..all },
            &[(RefusedRatioBp, 2_500), (GatewayFailedRatioBp, 200), (PeakHourShareBp, 10_000), (DistinctChannels, 4)],
        ),
    ];
    for (behaviour, expected) in table {
        assert_eq!(inputs(&behaviour).0.into_iter().collect::<Vec<_>>(), expected, "{behaviour:?}");
    }
}

/// Against the formula in floats, from equal days to one day of all, and up to the largest sums.
#[test]
fn volatility_is_that_of_the_formula() {
    let table: [(Vec<i64>, Option<i64>); 9] = [
        (vec![], None),
        (vec![5], None),
        (vec![0, 0], None),
        (vec![7; 90], Some(0)),
        (vec![0, 1], Some(10_000)),
        (vec![1, 2, 3], Some(4_082)),
        ((0..90).map(|day| if day == 17 { 1 } else { 0 }).collect(), Some(94_339)),
        (vec![i64::MAX, i64::MAX], Some(0)),
        (vec![i64::MAX, 0, i64::MAX], Some(7_071)),
    ];
    for (days, expected) in table {
        let found = inputs(&Behaviour { days: days.clone(), ..Behaviour::default() });
        assert_eq!(found.get(Feature::DailyAmountVolatilityBp), expected, "{days:?}");
        let count = days.len() as f64;
        let mean = days.iter().map(|amount| *amount as f64).sum::<f64>() / count;
        let variance = days.iter().map(|amount| (*amount as f64 - mean).powi(2)).sum::<f64>() / count;
        let exact = 10_000.0 * variance.sqrt() / mean;
        assert!(expected.is_none_or(|found| (exact - found as f64).abs() <= 1.0), "{days:?}: {exact}");
    }
}
