//! What single events do to the books.

use super::{billed, day, no, on, recovered, repaid};
use crate::{AMOUNT_MAX, BookAccount, Books, BooksError, Change, CycleId, CycleRule, Event, Posting, Terms};

const FEBRUARY: CycleId = CycleId(20_260_201);

fn every_week() -> Terms {
    Terms { cycle: CycleRule::EveryDays { days: 7 }, due_days: 7, ..Terms::default() }
}

/// Open amounts, oldest due first, and what is unapplied.
fn open(books: &Books) -> (Vec<i64>, i64) {
    (books.obligations().iter().map(crate::Obligation::open).collect(), books.unapplied())
}

/// January and February with 100 each.
fn two_months() -> Vec<Event> {
    let terms = Terms::default();
    [billed(&terms, "2026-01-01", 100), billed(&terms, "2026-02-01", 100)].concat()
}

#[test]
fn a_cycle_becomes_a_statement() {
    let books = Books::replay(&two_months()).unwrap();
    let statement = books.obligations()[1].statement;
    assert_eq!((statement.number, statement.cycle, statement.amount, statement.minimum), (2, FEBRUARY, 100, 100));
    assert_eq!(statement.first_day, day("2026-02-01"));
    assert_eq!((statement.closed_on, statement.due_on), (day("2026-02-28"), day("2026-03-14")));
    assert_eq!((books.unbilled(), books.billed(), books.exposure()), (0, 200, 200));
    let part = Terms { minimum_bp: crate::BasisPoints(2_500), ..Terms::default() };
    let cycle = part.cycle.cycle_at(day("2026-01-01"), day("2026-01-05")).unwrap();
    assert_eq!(part.statement(&cycle, 101).minimum, 26);
}

/// Each row: events after January and February, then open amounts and what is unapplied.
#[test]
fn money_goes_to_what_is_due_first() {
    let credit = |date, cycle, amount| on(date, Change::Credited { cycle, amount });
    let bounce = |date, name| on(date, Change::RepaymentReversed { repayment_no: no(name) });
    let write_off = |date, amount| on(date, Change::WrittenOff { amount });
    let move_in = |date, amount| on(date, Change::TransferIn { transfer_no: no("t"), amount });
    let recover = |date, amount| recovered(date, "v", amount);
    let table: [(&str, Vec<Event>, [i64; 2], i64); 19] = [
        ("in part", vec![repaid("2026-03-02", "a", 30)], [70, 100], 0),
        ("over two", vec![repaid("2026-03-02", "a", 130)], [0, 70], 0),
        ("the rest is unapplied", vec![repaid("2026-03-02", "a", 250)], [0, 0], 50),
        ("twice is once", vec![repaid("2026-03-02", "a", 30), repaid("2026-03-02", "a", 30)], [70, 100], 0),
        ("a transfer", vec![move_in("2026-03-02", 120)], [0, 80], 0),
        ("bounced", vec![repaid("2026-03-02", "a", 250), bounce("2026-03-05", "a")], [100, 100], 0),
        (
            "bounced twice",
            vec![repaid("2026-03-02", "a", 50), bounce("2026-03-05", "a"), bounce("2026-03-06", "a")],
            [100, 100],
            0,
        ),
        (
            "what it paid is open again, and not what a later one paid",
            vec![repaid("2026-03-02", "a", 100), repaid("2026-03-03", "b", 100), bounce("2026-03-05", "a")],
            [100, 0],
            0,
        ),
        (
            "a balance that waited pays what is open again",
            vec![repaid("2026-03-02", "a", 100), repaid("2026-03-03", "b", 160), bounce("2026-03-05", "a")],
            [40, 0],
            0,
        ),
        ("a credit goes to its own cycle", vec![credit("2026-03-02", FEBRUARY, 40)], [100, 60], 0),
        ("and beyond it to the oldest", vec![credit("2026-03-02", FEBRUARY, 140)], [60, 0], 0),
        ("or waits", vec![repaid("2026-03-02", "a", 200), credit("2026-03-03", FEBRUARY, 40)], [0, 0], 40),
        ("written off, oldest first", vec![write_off("2026-03-02", 130)], [0, 70], 0),
        (
            "and what is written off already is not again",
            vec![write_off("2026-03-02", 60), write_off("2026-03-03", 60)],
            [0, 80],
            0,
        ),
        (
            "a repayment goes to what is open",
            vec![write_off("2026-03-02", 130), repaid("2026-03-03", "a", 110)],
            [0, 0],
            40,
        ),
        (
            "a recovery changes nothing that is open",
            vec![write_off("2026-03-02", 130), recover("2026-03-03", 110)],
            [0, 70],
            0,
        ),
        ("a write-off of more waits", vec![write_off("2026-03-02", 250)], [0, 0], 50),
        (
            "and takes what is open again",
            vec![repaid("2026-03-02", "a", 60), write_off("2026-03-03", 250), bounce("2026-03-04", "a")],
            [0, 0],
            50,
        ),
        (
            "money pays before it on the same day",
            vec![write_off("2026-03-02", 150), repaid("2026-03-02", "a", 100)],
            [0, 0],
            50,
        ),
    ];
    for (name, events, amounts, unapplied) in table {
        let all: Vec<Event> = two_months().into_iter().chain(events).collect();
        let books = Books::replay(&all).unwrap();
        assert_eq!(open(&books), (amounts.to_vec(), unapplied), "{name}");
        assert_eq!(books.balances().values().sum::<i64>(), 0, "{name}");
    }
}

/// What was open in another system is owed here, and was never unbilled.
#[test]
fn a_statement_is_brought_forward_once() {
    let terms = Terms::default();
    let cycle = terms.cycle.cycle_at(day("2026-01-01"), day("2026-01-05")).unwrap();
    let statement = terms.statement(&cycle, 70);
    let taken_over = on("2026-03-02", Change::BroughtForward(statement));
    let events = [taken_over.clone(), taken_over, repaid("2026-03-03", "a", 100)];
    let books = Books::replay(&events).unwrap();
    assert_eq!((open(&books), books.unbilled(), books.exposure(), books.prepaid()), ((vec![0], 30), 0, 0, 30));
    assert_eq!(books.balances()[&BookAccount::BroughtForward], -70);
    assert_eq!(books.balances().values().sum::<i64>(), 0);
    let other = on("2026-03-04", Change::BroughtForward(terms.statement(&cycle, 71)));
    assert_eq!(books.clone().apply(&other), Err(BooksError::CycleConflict(statement.cycle)));
}

/// The claim goes on: nothing counts as paid before it is recovered.
#[test]
fn a_write_off_is_no_payment() {
    let mut events = two_months();
    events.push(on("2026-03-02", Change::WrittenOff { amount: 130 }));
    let books = Books::replay(&events).unwrap();
    let january = &books.obligations()[0];
    assert_eq!((january.open(), january.unpaid(), january.written_off(), january.paid()), (0, 100, 100, 0));
    assert_eq!(january.paid_in_full_on(), None);
    // A repayment is for what is open; a recovery pays the claim.
    events.push(repaid("2026-03-03", "a", 70));
    let books = Books::replay(&events).unwrap();
    assert_eq!((open(&books), books.obligations()[0].unpaid()), ((vec![0, 0], 0), 100));
    events.push(recovered("2026-03-04", "v", 100));
    let books = Books::replay(&events).unwrap();
    let january = &books.obligations()[0];
    assert_eq!((january.unpaid(), january.written_off(), january.paid_in_full_on()), (0, 0, Some(day("2026-03-04"))));
    assert_eq!((january.paid(), books.recoverable(), open(&books)), (100, 30, (vec![0, 0], 0)));
}

/// What is written off beyond what is open takes the next statement, and what was recovered of it pays that.
#[test]
fn a_write_off_takes_later_statements() {
    let mut events = two_months();
    events.push(on("2026-03-02", Change::WrittenOff { amount: 1_000 }));
    events.push(recovered("2026-03-03", "v", 204));
    let books = Books::replay(&events).unwrap();
    assert_eq!((open(&books), books.recoverable(), books.prepaid()), ((vec![0, 0], 800), 796, 800));
    events.extend(billed(&Terms::default(), "2026-03-01", 10).map(|event| Event { on: day("2026-04-01"), ..event }));
    let books = Books::replay(&events).unwrap();
    let march = &books.obligations()[2];
    assert_eq!((open(&books), march.paid(), march.written_off(), march.unpaid()), ((vec![0, 0, 0], 790), 4, 6, 6));
}

/// A prepaid balance is applied at once to what becomes an obligation, which is then paid in time.
#[test]
fn a_balance_pays_what_is_billed() {
    let mut books = Books::default();
    books.apply(&repaid("2026-01-01", "a", 150)).unwrap();
    assert_eq!((books.exposure(), books.prepaid()), (0, 150));
    for event in billed(&Terms::default(), "2026-01-01", 100) {
        books.apply(&event).unwrap();
    }
    assert_eq!(open(&books), (vec![0], 50));
    assert_eq!(books.obligations()[0].paid_in_full_on(), Some(day("2026-01-31")));
    assert_eq!((books.exposure(), books.prepaid(), books.net()), (0, 50, -50));
}

#[test]
fn a_transfer_out_is_billed_with_the_cycle() {
    let mut books = Books::default();
    books.apply(&repaid("2026-01-01", "a", 150)).unwrap();
    books.apply(&on("2026-01-02", Change::TransferOut { transfer_no: no("t"), amount: 60 })).unwrap();
    assert_eq!((books.unbilled(), books.prepaid()), (60, 90));
    let again = books.clone();
    books.apply(&on("2026-01-03", Change::TransferOut { transfer_no: no("t"), amount: 60 })).unwrap();
    assert_eq!(books, again);
}

#[test]
fn postings_name_both_sides() {
    let mut books = Books::default();
    let mut post = |event: &Event| -> Vec<(BookAccount, i64)> {
        books.apply(event).unwrap().into_iter().map(|Posting { account, amount }| (account, amount)).collect()
    };
    use BookAccount::{Cash, Held, Obligation, Payments, Unapplied, Unbilled, WriteOffs};
    let usage = |held, unbilled| on("2026-01-05", Change::Usage { held, unbilled });
    let january = CycleId(20_260_101);
    assert_eq!(post(&usage(100, 0)), [(Held, 100), (Payments, -100)]);
    assert_eq!(post(&usage(-100, 90)), [(Held, -100), (Unbilled, 90), (Payments, 10)]);
    let [_, close] = billed(&Terms::default(), "2026-01-01", 90);
    assert_eq!(post(&close), [(Unbilled, -90), (Obligation(january), 90)]);
    assert_eq!(post(&close), []);
    let repayment = repaid("2026-02-02", "a", 100);
    assert_eq!(post(&repayment), [(Obligation(january), -90), (Unapplied, -10), (Cash, 100)]);
    assert_eq!(post(&repayment), []);
    let reversal = on("2026-02-03", Change::RepaymentReversed { repayment_no: no("a") });
    assert_eq!(post(&reversal), [(Obligation(january), 90), (Unapplied, 10), (Cash, -100)]);
    assert_eq!(
        post(&on("2026-02-04", Change::WrittenOff { amount: 90 })),
        [(Obligation(january), -90), (WriteOffs, 90)]
    );
    let credit = on("2026-02-05", Change::Credited { cycle: january, amount: 20 });
    assert_eq!(post(&credit), [(Unapplied, -20), (Payments, 20)]);
    assert_eq!(post(&recovered("2026-02-06", "v", 50)), [(Cash, 50), (WriteOffs, -50)]);
    assert_eq!(post(&recovered("2026-02-06", "v", 50)), []);
}

#[test]
fn what_contradicts_the_books_is_refused_and_changes_nothing() {
    let mut books = Books::replay(&two_months()).unwrap();
    books.apply(&repaid("2026-03-02", "a", 10)).unwrap();
    books.apply(&on("2026-03-02", Change::TransferIn { transfer_no: no("t"), amount: 5 })).unwrap();
    books.apply(&on("2026-03-02", Change::TransferOut { transfer_no: no("t"), amount: 5 })).unwrap();
    books.apply(&on("2026-03-02", Change::WrittenOff { amount: 5 })).unwrap();
    books.apply(&recovered("2026-03-02", "v", 3)).unwrap();
    let [_, other] = billed(&Terms::default(), "2026-02-01", 101);
    let table = [
        (repaid("2026-03-02", "a", 11), BooksError::RepaymentConflict(no("a"))),
        (repaid("2026-03-03", "a", 10), BooksError::RepaymentConflict(no("a"))),
        (repaid("2026-03-02", "b", -1), BooksError::Amount(-1)),
        (repaid("2026-03-02", "b", AMOUNT_MAX + 1), BooksError::Amount(AMOUNT_MAX + 1)),
        (recovered("2026-03-02", "v", 2), BooksError::RecoveryConflict(no("v"))),
        (recovered("2026-03-03", "v", 3), BooksError::RecoveryConflict(no("v"))),
        (recovered("2026-03-03", "w", 3), BooksError::RecoveryTooLarge { amount: 3, written_off: 2 }),
        (recovered("2026-03-03", "w", -1), BooksError::Amount(-1)),
        (on("2026-03-02", Change::RepaymentReversed { repayment_no: no("t") }), BooksError::RepaymentUnknown(no("t"))),
        (
            on("2026-03-02", Change::TransferIn { transfer_no: no("t"), amount: 6 }),
            BooksError::TransferConflict(no("t")),
        ),
        (
            on("2026-03-02", Change::TransferOut { transfer_no: no("t"), amount: 6 }),
            BooksError::TransferConflict(no("t")),
        ),
        (on("2026-03-02", Change::Credited { cycle: FEBRUARY, amount: -5 }), BooksError::Amount(-5)),
        (on("2026-03-02", Change::WrittenOff { amount: -5 }), BooksError::Amount(-5)),
        (on("2026-03-02", Change::Usage { held: i64::MIN, unbilled: 0 }), BooksError::Amount(i64::MAX)),
        (other, BooksError::CycleConflict(FEBRUARY)),
    ];
    let before = books.clone();
    for (event, error) in table {
        assert_eq!(books.apply(&event), Err(error), "{event:?}");
        assert_eq!(books, before, "{event:?}");
    }
}

/// Sums stay far from the largest number.
#[test]
fn the_books_have_a_bound() {
    let mut books = Books::default();
    let usage = on("2026-01-01", Change::Usage { held: AMOUNT_MAX, unbilled: 0 });
    let error = (0..1_000).find_map(|_| books.apply(&usage).err());
    assert_eq!(error, Some(BooksError::TooLarge));
}

/// The second statement is due before the first one where terms became shorter: what is due first is paid first.
#[test]
fn allocation_follows_the_due_date_and_not_the_cycle() {
    let long = Terms { due_days: 60, ..every_week() };
    let [used, close] = billed(&long, "2026-01-01", 100);
    let [then, next] = billed(&every_week(), "2026-01-08", 50);
    let books = Books::replay(&[used, close, then, next, repaid("2026-01-16", "a", 60)]).unwrap();
    let amounts: Vec<_> = books.obligations().iter().map(|own| (own.statement.number, own.open())).collect();
    assert_eq!(amounts, [(2, 0), (1, 90)]);
}

/// A clock that lags does not open a day again.
#[test]
fn an_earlier_date_counts_as_the_same_day() {
    let mut books = Books::replay(&two_months()).unwrap();
    let date = books.obligations()[1].statement.closed_on;
    books.apply(&repaid("2026-02-27", "a", 10)).unwrap();
    let allocation = &books.obligations()[0].allocations()[0];
    assert!(allocation.allocated_on > date);
    assert_eq!(allocation.value_on, day("2026-02-27"));
}
