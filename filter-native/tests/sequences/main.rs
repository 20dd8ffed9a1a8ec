//! Sequences of events that no scenario has: payments begin, arrive in pieces, end, are reset; calls are answered in any order, late,
//! wrongly or never; configurations come and go; the module's thread panics. Whatever the order, nothing is used after its end,
//! each payment is answered, passed on or reset once, and what was charged and not passed on is voided.
//!
//! `PROPTEST_CASES` is the number of sequences. With more of them, and with the address sanitizer, docs/native-host.md says how.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test's helpers fail the test")]

#[expect(dead_code, reason = "shared with the filter's scenarios")]
#[path = "../../../filter/tests/filter_abi/answers.rs"]
mod answers;
#[path = "../../../filter/tests/filter_abi/native_host.rs"]
mod host;
mod model;
#[expect(dead_code, reason = "shared with the filter's scenarios")]
#[path = "../../../filter/tests/filter_abi/native_proxy.rs"]
mod proxy;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use model::{Event, World};

fn event() -> impl Strategy<Value = Event> {
    let any = any::<u8>;
    prop_oneof![
        4 => (any(), any()).prop_map(|(configuration, pieces)| Event::Begin { configuration, pieces }),
        4 => any().prop_map(Event::Piece),
        3 => any().prop_map(Event::Leave),
        4 => (any(), any()).prop_map(|(payment, answer)| Event::Gateway { payment, answer }),
        6 => (any(), any()).prop_map(|(call, answer)| Event::Answer { call, answer }),
        4 => any().prop_map(Event::Time),
        1 => any().prop_map(Event::Configure),
        1 => Just(Event::Refuse),
        1 => any().prop_map(Event::Drop),
        1 => Just(Event::Panic),
        1 => proptest::bool::ANY.prop_map(Event::EndWithin),
    ]
}

#[test]
fn no_order_of_events_loses_a_payment() {
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let tested = TestRunner::new(config).run(&vec(event(), 1..120), |events| {
        let mut world = World::new();
        for event in events {
            world.happens(event);
        }
        world.end();
        Ok(())
    });
    tested.unwrap();
}
