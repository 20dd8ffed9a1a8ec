//! Orders by the thousand whose answers can be distinguished, each scenario for a moment; `cargo soak` runs the same
//! ones for as long as it is asked to. And that they notice what they are there for.

use bench::traffic::{SCENARIOS, Scale, misdelivered_answers_are_noticed};

use crate::suite::Suite;

/// Every run of the suite sends the same orders.
const SEED: u32 = 1;

pub(crate) fn add(suite: &mut Suite) {
    for scenario in SCENARIOS {
        suite.alone(format!("thousands::{}", scenario.name), async move || {
            let tally = scenario.run(Scale { orders: scenario.orders, seed: SEED, release: false }).await?;
            println!("{}: {}", scenario.name, tally.line());
            Ok(())
        });
    }
    suite.alone("thousands::misdelivered_answers_are_noticed", misdelivered_answers_are_noticed);
}
