//! Atomic batches: applied as a whole or not at all.

use quota::{Change, Code, CounterName, Period};

use super::row::Expected::{Day, DecisionId, Journaled, Month, Pending, Refunded, Version};
use super::row::{Row, amount};

/// Rows of one merchant that are sent as one batch, with the rows before it and after it.
#[derive(Clone)]
pub(crate) struct Batch {
    pub(crate) name: &'static str,
    pub(crate) before: Vec<Row>,
    pub(crate) together: Vec<Row>,
    pub(crate) after: Vec<Row>,
}

/// Every batch, each for an empty store. Rows are numbered through all three lists.
pub(crate) fn batches() -> Vec<Batch> {
    vec![all(), none(), on_each_other(), replays(), both_currencies()]
}

fn all() -> Batch {
    use Code::{Admitted, Applied};
    Batch {
        name: "all of it",
        before: vec![Row::consume("a", "1", 10).gives(Admitted, [])],
        together: vec![
            Row::consume("b", "2", 20).gives(Admitted, [Day(30, 2), Version(2), Journaled(true)]),
            Row::hold("c", "3", 30).gives(Admitted, [Day(60, 3), Pending(30)]),
            Row::refund("a", "r1", 5).gives(Applied, [Day(55, 3), Refunded(5, 5, 5), Version(4)]),
        ],
        after: vec![Row::settle("c", "c1", None).gives(Applied, [Day(55, 3), Pending(0), Version(5)])],
    }
}

fn none() -> Batch {
    use Code::{Admitted, BatchRefused, DailyAmount, OrderUnknown};
    Batch {
        name: "none of it",
        before: vec![Row::consume("a", "1", 10).gives(Admitted, [])],
        together: vec![
            // Commands before and after the refused one get the same answer: another command was refused.
            Row::consume("b", "2", 20).gives(BatchRefused, [Day(0, 0), Version(0), Journaled(false), DecisionId(1)]),
            Row::consume("c", "3", 71).gives(DailyAmount, [Day(30, 2), Journaled(true)]),
            Row::consume("d", "4", 1).gives(BatchRefused, [Day(0, 0), Journaled(false)]),
        ],
        after: vec![
            Row::refund("b", "r1", 1).gives(OrderUnknown, [Day(10, 1), Version(1)]),
            // A refused order may be tried again.
            Row::consume("c", "5", 71).gives(Admitted, [Day(81, 2), Version(2)]),
        ],
    }
}

fn on_each_other() -> Batch {
    use Code::{Admitted, Applied};
    Batch {
        name: "each on what the one before it made",
        before: Vec::new(),
        together: vec![
            Row::hold("a", "1", 60).gives(Admitted, [Pending(60)]),
            Row::settle("a", "c1", 25).gives(Applied, [Pending(35)]),
            Row::settle("a", "c2", 15).last().gives(Applied, [Day(40, 1), Pending(0)]),
            Row::refund("a", "r1", None).gives(Applied, [Day(0, 1), Refunded(40, 40, 40)]),
            Row::adjust(CounterName::Amount(Period::Day), Change::Add(amount(40)))
                .expecting_version(4)
                .gives(Applied, [Day(40, 1)]),
            Row::consume("b", "2", 60).gives(Admitted, [Day(100, 2), Month(60, 2), Version(6)]),
        ],
        after: Vec::new(),
    }
}

fn replays() -> Batch {
    use Code::{Admitted, Voided};
    Batch {
        name: "a batch that comes twice",
        before: vec![
            Row::consume("a", "1", 10).gives(Admitted, []),
            Row::hold("b", "2", 20).gives(Admitted, []),
            Row::void("b").gives(Voided, [Day(10, 1)]),
        ],
        together: vec![
            Row::consume("a", "1", 10).replayed(Admitted, [Day(10, 1), DecisionId(0), Journaled(false)]),
            Row::void("b").replayed(Voided, [Day(10, 1), Pending(0), Journaled(false)]),
        ],
        after: vec![Row::consume("a", "3", 10).replayed(Admitted, [Day(10, 1), Version(3)])],
    }
}

fn both_currencies() -> Batch {
    use Code::{Admitted, BatchRefused, DailyAmount};
    Batch {
        name: "accounts of two currencies",
        before: vec![Row::consume("a", "1", 10).gives(Admitted, [])],
        together: vec![
            Row::consume("b", "2", 20).currency("EUR").gives(BatchRefused, [Day(0, 0), Version(0)]),
            Row::consume("c", "3", 91).gives(DailyAmount, [Day(10, 1)]),
        ],
        after: vec![Row::consume("b", "4", 30).currency("EUR").gives(Admitted, [Day(30, 1), Version(1)])],
    }
}
