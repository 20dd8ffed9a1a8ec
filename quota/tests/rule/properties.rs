//! Properties of the ledger under any sequence of commands: the promises, checked on the accounts, the orders and
//! the events.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;

use quota::{
    Account, Action, Adjust, AmountMinor, AttemptId, Calendar, Change, Charge, Code, Command, CounterName, CreditTerms,
    Currency, Effect, Event, HoldTerms, Ledger, Limits, Mark, MerchantId, OnExpiry, Operation, OperationId,
    OperationKind, Order, OrderNo, OrderState, Pace, PerPeriod, Period, Refund, Reset, Resolution, Settle, Subject,
    ThresholdLevels, ThresholdPolicy, Thresholds, Throttle, Weight, WindowLimits,
};

const NOW_MS: i64 = 1_795_296_600_000;
const ORDERS: u8 = 4;
/// The credit line; an overdue one is capped below it.
pub(crate) const CREDIT_MAX: u64 = 90;
const THROTTLE: Throttle = Throttle { per_minute: 600, burst: 2, delay_ms_max: 500, ceiling_percent: 130 };

/// The limits of every charge and refund.
fn limits() -> Limits {
    let window = |amount, count| WindowLimits { amount: minor(amount), count: minor(count), ..WindowLimits::UNLIMITED };
    let refunds = |window, amount| WindowLimits { refunded: minor(amount), ..window };
    let windows = PerPeriod {
        day: refunds(window(100, 8), 40),
        week: window(140, 10),
        month: refunds(window(170, 12), 70),
        year: window(230, 15),
    };
    Limits { windows, pending: minor(60) }
}

pub(crate) fn minor(amount: u64) -> AmountMinor {
    AmountMinor::new(amount).unwrap()
}

/// A step: a letter for the action, an order, an attempt or number, an amount, flags, and the time that passes before.
pub(crate) type Step = (u8, u8, u8, u64, u8, u32);

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seconds = prop_oneof![20 => 0..30_u32, 2 => 3_000..4_000_u32, 1 => 80_000..100_000_u32];
    let one = (0..17_u8, 0..ORDERS, 0..4_u8, 0..70_u64, any::<u8>(), seconds);
    proptest::collection::vec(one, 1..120)
}

fn action((letter, order, name, amount, flags, _): Step, paced: bool) -> Action {
    let pace = paced.then(|| Pace::of(&THROTTLE, &limits()));
    let replays_max = [None, None, Some(0), Some(1)][usize::from(flags >> 1) % 4];
    let refuse_unknown_credit = flags & 4 == 4;
    let weight = weight(flags);
    let charge = Charge {
        amount: minor(amount),
        weight,
        limits: limits(),
        refusal: None,
        pace,
        replays_max,
        refuse_unknown_credit,
    };
    let id = OperationId::of(&format!("{order} {name}"));
    let some = (flags % 4 != 0).then(|| minor(amount / 2));
    let settle = Settle { amount: some, id, last: flags & 8 == 8, over_capture_percent: 0, reported: false };
    let refund = Refund {
        amount: some,
        id,
        daily_max: limits().windows.day.refunded,
        monthly_max: limits().windows.month.refunded,
        reserve: flags & 16 == 16,
    };
    let on_expiry = if flags & 32 == 32 { OnExpiry::Settle } else { OnExpiry::Void };
    match letter {
        0 | 1 => Action::Consume(charge),
        2..=4 => Action::Hold(charge, HoldTerms { lifetime_secs: 3_600, on_expiry }),
        5 | 6 => Action::VoidAttempt,
        7 => Action::Void,
        8 | 9 => Action::Settle(settle),
        10 | 11 => Action::Refund(refund),
        12 => Action::Release(refund),
        13 if flags & 64 == 64 => Action::ExtendHold { until_secs: 1_795_300_000 + u32::from(flags) * 1_000 },
        13 => Action::Expire,
        14 => Action::MarkUnknown(Mark { subject: Subject::Charge, amount: None }),
        15 => Action::Resolve(Resolution::Made),
        _ => Action::Resolve(Resolution::NotMade),
    }
}

/// Most amounts count as they are; others for a share, or each payment for the same.
fn weight(flags: u8) -> Weight {
    match flags >> 4 & 7 {
        1 => Weight::share(3_333).unwrap(),
        3 => Weight::share(17_001).unwrap(),
        5 => Weight::price(minor(9)),
        6 => Weight::price(minor(0)),
        _ => Weight::AMOUNT,
    }
}

fn command(step: Step, action: Action, now_ms: i64, number: usize) -> Command {
    let (_, order, name, _, flags, _) = step;
    Command {
        merchant: MerchantId::parse("m").unwrap(),
        currency: Currency::parse("USD").unwrap(),
        order_no: Some(order_no(order)),
        attempt: AttemptId::from_text(&format!("{order} {name}")),
        action,
        effect: if flags & 192 == 192 { Effect::DryRun } else { Effect::Commit },
        decision_id: (number as u128).to_be_bytes(),
        now_ms,
        windows: Calendar::UTC.windows_at(now_ms),
        order_ttl_secs: 400 * 86_400,
        backlog_max: u32::MAX,
        threshold_policy: Some(Arc::new(threshold_policy(name))),
        credit: credit(name, now_ms),
        history: None,
        payment_no: None,
        operation_no: None,
        channel: None,
    }
}

/// A credit line in the month's cycle; sometimes it is not known.
fn credit(name: u8, now_ms: i64) -> Option<CreditTerms> {
    let month = Calendar::UTC.windows_at(now_ms).ids.month;
    let terms =
        CreditTerms { cycle: month * 100 + 1, limit: minor(CREDIT_MAX), uncapped_limit: minor(CREDIT_MAX + 40) };
    (name != 1).then_some(terms)
}

/// Thresholds of the limits; sometimes of lower limits, or with another list.
fn threshold_policy(name: u8) -> ThresholdPolicy {
    let lowered = limits().with(Period::Day, WindowLimits { amount: minor(50), ..limits().windows.day });
    let watched = if name == 3 { lowered } else { limits() };
    let percents: &[u32] = if name == 2 { &[50, 80, 100] } else { &[80, 100] };
    ThresholdPolicy::new(&watched, Thresholds::new(percents.iter().copied()).unwrap())
}

fn order_no(order: u8) -> OrderNo {
    OrderNo::parse(&format!("order-{order}")).unwrap()
}

/// The commands of the steps, in the order of time.
pub(crate) fn commands(steps: &[Step], paced: bool) -> Vec<Command> {
    let mut now_ms = NOW_MS;
    let command = |(number, step): (usize, &Step)| {
        now_ms += i64::from(step.5) * 1000;
        command(*step, action(*step, paced), now_ms, number + 1)
    };
    steps.iter().enumerate().map(command).collect()
}

/// The same with resets and corrections by hand in between.
fn commands_by_hand(steps: &[Step]) -> Vec<Command> {
    let mut commands = commands(steps, true);
    for (command, (letter, _, name, amount, flags, _)) in commands.iter_mut().zip(steps) {
        let counter = CounterName::ALL[usize::from(*letter) % CounterName::ALL.len()];
        let change = [Change::Add, Change::Subtract, Change::Set][usize::from(*name) % 3](minor(*amount));
        match flags % 16 {
            1 => command.action = Action::Adjust(Adjust { counter, change, expected_version: None }),
            2 => {
                let windows = PerPeriod {
                    day: flags & 32 == 32,
                    week: flags & 128 == 128,
                    month: flags & 64 == 64,
                    year: name % 2 == 0,
                };
                command.action = Action::Reset(Reset { windows, expected_version: None });
            }
            3 => command.action = Action::Suspend,
            4 | 5 => command.action = Action::Resume,
            6 => command.action = Action::Roll,
            7 => (command.action, command.currency) = (Action::SuspendMerchant, Currency::NONE),
            8 | 9 => (command.action, command.currency) = (Action::ResumeMerchant, Currency::NONE),
            _ => {}
        }
    }
    commands
}

fn threshold_policy_of(command: &Command) -> &ThresholdPolicy {
    command.threshold_policy.as_deref().unwrap()
}

pub(crate) fn account(ledger: &Ledger) -> Account {
    let merchant = MerchantId::parse("m").unwrap();
    ledger.account(&merchant, Currency::parse("USD").unwrap()).copied().unwrap_or_default()
}

pub(crate) fn orders(ledger: &Ledger) -> Vec<Order> {
    let merchant = MerchantId::parse("m").unwrap();
    (0..ORDERS).filter_map(|order| ledger.order(&merchant, &order_no(order)).cloned()).collect()
}

/// every counter of the account is within its limit, or within the ceiling of the pace where there is one.
fn within(account: &Account, windows: &Limits) -> bool {
    let inside = |period| {
        let counter = account.of(period);
        let max = windows.of(period);
        let refunds = limits().of(period).refunded;
        counter.amount <= max.amount.get() && counter.count <= max.count.get() && counter.refunded <= refunds.get()
    };
    Period::ALL.into_iter().all(inside) && account.pending <= limits().pending.get()
}

/// What an order has consumed and not returned, and whether it counts as a charge.
fn consumed(order: &Order) -> (u64, u64) {
    let refunds = order.operations.iter().filter(|operation| operation.kind == OperationKind::Refund);
    let refunded: u64 = refunds.map(|operation| operation.amount.get()).sum();
    let (amount, count) = match order.state {
        OrderState::Open | OrderState::Voided => (0, 0),
        OrderState::Charged | OrderState::Held => (order.amount.get() - refunded, 1),
        OrderState::Settled => (order.settled - refunded, 1),
    };
    (order.weight.counts(amount), count)
}

/// What all holds have pending.
fn held(ledger: &Ledger) -> u64 {
    orders(ledger).iter().map(|order| order.weight.counts(order.held())).sum()
}

/// sums of the amounts that the events moved, window by window; each window closes with its sum.
fn check_events(events: &[Event], account: &Account) {
    let mut windows = BTreeMap::<(Period, u32), [i128; 3]>::new();
    let mut pending = 0;
    for event in events.iter().filter(|event| !event.command.action.is_of_merchant()) {
        for closed in &event.closed {
            let counter = closed.counter;
            let reported = [counter.amount, counter.count, counter.refunded].map(i128::from);
            assert_eq!(windows.get(&(closed.period, counter.id)).copied().unwrap_or_default(), reported, "{event:?}");
        }
        for (period, window) in event.record.windows.iter() {
            let sums = windows.entry((period, window.id)).or_default();
            let before = [window.amount_before, window.count_before, window.refunded_before].map(i128::from);
            let after = [window.amount_after, window.count_after, window.refunded_after].map(i128::from);
            // Each begins with the values after the one before it.
            assert_eq!(*sums, before, "{event:?}");
            *sums = after;
        }
        assert_eq!(pending, event.record.pending_before, "{event:?}");
        pending = event.record.pending_after;
    }
    for (period, counter) in account.windows.iter() {
        let sums = windows.get(&(period, counter.id)).copied().unwrap_or_default();
        assert_eq!(sums, [counter.amount, counter.count, counter.refunded].map(i128::from));
    }
    assert_eq!(pending, account.pending);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn q1_nothing_is_above_its_limit(steps in steps(), paced in any::<bool>()) {
        let mut ledger = Ledger::new(1);
        let windows = if paced { Pace::of(&THROTTLE, &limits()).ceiling } else { limits() };
        for command in commands(&steps, paced) {
            let _reply = ledger.apply(&command);
            prop_assert!(within(&account(&ledger), &windows), "{:?}: {:?}", command.action, account(&ledger));
        }
    }

    #[test]
    fn q2_what_is_refused_or_dry_changes_nothing(steps in steps()) {
        let mut ledger = Ledger::new(1);
        for command in commands_by_hand(&steps) {
            let before = (account(&ledger), orders(&ledger));
            let reply = ledger.apply(&command);
            if command.effect != Effect::Commit || reply.record.code.http_status() != 200 {
                prop_assert_eq!((account(&ledger), orders(&ledger)), before, "{:?}", command.action);
            }
        }
    }

    #[test]
    fn q3_what_comes_again_changes_nothing(steps in steps()) {
        let mut ledger = Ledger::new(1);
        for command in commands(&steps, true) {
            let first = ledger.apply(&command);
            let before = (account(&ledger), orders(&ledger));
            let again = ledger.apply(&Command { decision_id: [255; 16], ..command.clone() });
            if command.effect == Effect::Commit && first.record.code.http_status() == 200 {
                prop_assert_eq!((account(&ledger), orders(&ledger)), before, "{:?}", command.action);
                prop_assert_eq!(again.event_seq, None, "{:?}", command.action);
            }
        }
    }

    /// While no window ends, the account's counters equal the sums of the orders.
    #[test]
    fn q4_the_orders_make_up_the_account(steps in steps()) {
        let mut ledger = Ledger::new(1);
        let mut in_one_day = steps;
        in_one_day.iter_mut().for_each(|step| step.5 %= 30);
        for command in commands(&in_one_day, true) {
            let _reply = ledger.apply(&command);
            let (account, orders) = (account(&ledger), orders(&ledger));
            let consumed = orders.iter().map(consumed).fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            for period in Period::ALL {
                let counter = account.of(period);
                prop_assert_eq!((counter.amount, counter.count), consumed, "{:?}", &command.action);
                prop_assert_eq!(counter.refunded, orders.iter().map(|order| order.refunded).sum::<u64>());
            }
            prop_assert_eq!(account.pending, held(&ledger));
        }
    }

    /// Also after windows end, the pending amount equals the sum of the orders' holds.
    #[test]
    fn q4_what_is_pending_is_held(steps in steps()) {
        let mut ledger = Ledger::new(1);
        for command in commands(&steps, true) {
            let _reply = ledger.apply(&command);
            prop_assert_eq!(account(&ledger).pending, held(&ledger));
        }
    }

    /// An order that is given back in parts returns exactly what it had consumed: the figures of its events add up to nothing.
    #[test]
    fn q4_an_order_returns_what_it_counted(steps in steps()) {
        let mut ledger = Ledger::new(1);
        for command in commands(&steps, true) {
            let before = command.order_no.as_ref().and_then(|order_no| ledger.order(&command.merchant, order_no)).cloned();
            let windows = account(&ledger).rolled(command.windows).windows;
            let reply = ledger.apply(&command);
            let order = command.order_no.as_ref().and_then(|order_no| ledger.order(&command.merchant, order_no));
            let counts = |order: Option<&Order>| order.map_or(0, |order| order.weight.counts(order.net()));
            let (counted, counts_now) = (counts(before.as_ref()), counts(order));
            let weighed = reply.record.weighed.map(|weighed| weighed.counted);
            let returned = counted.saturating_sub(counts_now);
            let consumed = counts_now.saturating_sub(counted);
            if command.effect != Effect::Commit || reply.record.replay || reply.record.code.http_status() != 200 {
                prop_assert_eq!((returned, consumed), (0, 0));
                continue;
            }
            // What a capture takes out of what is held is captured or returned; the others return or consume the figure.
            let captures = matches!(reply.record.code, Code::Applied) && matches!(command.action, Action::Settle(_) | Action::Expire);
            if let Some(weighed) = weighed.filter(|_| captures) {
                let freed = reply.record.pending_before - reply.record.pending_after;
                prop_assert_eq!(weighed, freed + consumed - returned, "{:?}", &reply);
            }
            let is_new = before.as_ref().is_none_or(|order| order.state == OrderState::Open);
            if let Some(weighed) = weighed.filter(|_| !captures) {
                prop_assert_eq!(weighed, if is_new { consumed } else { returned }, "{:?}", &reply);
            }
            let day = account(&ledger).windows.day;
            if day.id == windows.day.id {
                let grown = day.amount.saturating_sub(windows.day.amount);
                prop_assert_eq!(grown, consumed, "{:?}", &reply);
            }
        }
    }

    #[test]
    fn q4_the_events_make_up_the_account(steps in steps()) {
        let mut ledger = Ledger::new(1);
        for command in commands_by_hand(&steps) {
            let _reply = ledger.apply(&command);
        }
        let events = ledger.drain();
        check_events(&events, &account(&ledger));
    }

    /// The events alone show which alerts are open: those whose threshold usage has reached, under the limits of the last change
    /// to the account; and each crossing event is a change.
    #[test]
    fn an_alert_is_open_exactly_while_usage_is_at_its_threshold(steps in steps()) {
        let mut ledger = Ledger::new(1);
        let mut reported = ThresholdLevels::default();
        for command in commands_by_hand(&steps) {
            let _reply = ledger.apply(&command);
            let mut changed = false;
            for event in ledger.drain() {
                for closed in &event.closed {
                    reported = reported.without(closed.period);
                }
                if let Some(crossing) = &event.crossing {
                    prop_assert_eq!(crossing.before, reported, "{:?}", &event);
                    prop_assert_ne!(crossing.before, crossing.after);
                    reported = crossing.after;
                }
                let of_account = !event.command.action.is_of_merchant();
                changed = of_account && matches!(event.record.code.http_status(), 200) && !event.record.replay;
            }
            let account = account(&ledger);
            prop_assert_eq!(account.levels, reported, "{:?}", &command.action);
            let of_order = matches!(
                command.action,
                Action::VoidAttempt | Action::MarkUnknown(_) | Action::Resolve(_) | Action::ExtendHold { .. }
            );
            if changed && account.version > 0 && !of_order {
                prop_assert_eq!(threshold_policy_of(&command).levels(&account), reported, "{:?}", &command.action);
            }
        }
    }

    /// X5, X6, B7: no charge is admitted, new or repeated, for an order that returned quota, for a suspended account or merchant,
    /// or beyond the repetitions that its rule allows.
    #[test]
    fn x5_x6_b7_what_is_closed_or_suspended_is_never_admitted(steps in steps()) {
        let mut ledger = Ledger::new(1);
        for command in commands_by_hand(&steps) {
            let (Action::Consume(charge) | Action::Hold(charge, _)) = command.action else {
                let _reply = ledger.apply(&command);
                continue;
            };
            let order = command.order_no.as_ref().and_then(|order_no| ledger.order(&command.merchant, order_no)).cloned();
            let suspended = account(&ledger).suspended_at_ms > 0
                || ledger.merchant(&command.merchant).is_some_and(|merchant| merchant.suspended_at_ms > 0);
            let reply = ledger.apply(&command);
            if reply.record.code.http_status() == 200 {
                prop_assert!(!suspended, "{:?}", &command);
                prop_assert!(!order.as_ref().is_some_and(Order::is_closed), "{:?} {:?}", &command, &order);
                let others = order.filter(|order| !order.live.contains(&command.attempt) && reply.record.replay);
                if let Some((order, max)) = others.zip(charge.replays_max) {
                    prop_assert!(order.live.len() <= usize::from(max), "{:?} {:?}", &command, &order);
                }
            }
        }
    }

    /// X5: an order is closed exactly from the first operation that returned quota of it, or ended its hold.
    #[test]
    fn x5_what_gives_back_closes(steps in steps()) {
        let mut ledger = Ledger::new(1);
        for command in commands(&steps, true) {
            let before = account(&ledger).rolled(command.windows);
            let reply = ledger.apply(&command);
            let order = command.order_no.as_ref().and_then(|order_no| ledger.order(&command.merchant, order_no));
            let gave = before.windows.day.amount > account(&ledger).windows.day.amount && command.effect == Effect::Commit;
            let by_operation =
                matches!(command.action, Action::Refund(_) | Action::Release(_) | Action::Void | Action::Expire);
            if gave && by_operation {
                prop_assert!(order.is_some_and(Order::is_closed), "{:?}: {:?}", &command, &reply);
            }
            if let Some(order) = order.filter(|order| order.given_back) {
                let ended = |operation: &Operation| {
                    matches!(operation.kind, OperationKind::Refund | OperationKind::Release)
                };
                let expired = !matches!(order.state, OrderState::Charged | OrderState::Held);
                prop_assert!(order.operations.iter().any(ended) || expired, "{:?}", &order);
            }
        }
    }

    #[test]
    fn q2_a_batch_is_done_as_a_whole_or_not_at_all(steps in steps(), size in 1..6_usize) {
        let mut ledger = Ledger::new(1);
        for batch in commands_by_hand(&steps).chunks(size) {
            let before = (account(&ledger), orders(&ledger));
            let mut one_by_one = ledger.clone();
            let replies = ledger.apply_all_or_none(batch);
            if replies.iter().all(|reply| reply.record.code.http_status() == 200) {
                let expected: Vec<_> = batch.iter().map(|command| one_by_one.apply(command)).collect();
                prop_assert_eq!(&replies, &expected);
                prop_assert_eq!(account(&ledger), account(&one_by_one));
            } else {
                prop_assert_eq!((account(&ledger), orders(&ledger)), before);
            }
        }
    }
}
