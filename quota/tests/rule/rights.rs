//! Properties of rights, with holders that keep to the contract: they take no more than they have, report each payment once or
//! more often, return a right when it is over and reported, or are lost.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use quota::{
    Action, AttemptId, Calendar, Charge, Code, Command, Currency, Effect, Grant, HeldRight, Ledger, LimitName, Limits,
    MerchantId, Order, OrderNo, Period, ReleaseRight, Reply, Report, RightId, Share, Trust, Weight, WindowLimits,
};

use crate::properties::minor;

/// An evening: a day ends within a sequence.
const NOW_MS: i64 = 1_795_304_400_000;
const TRUST: Trust = Trust { above_percent: 20, share_percent: 30, ttl_ms: 60_000 };

/// A step: a letter for what happens, a number, an amount, and the seconds that pass before.
type Step = (u8, u8, u64, u32);

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let seconds = prop_oneof![20 => 0..20_u32, 2 => 60..200_u32, 1 => 10_000..30_000_u32];
    proptest::collection::vec((0..16_u8, any::<u8>(), 1..40_u64, seconds), 1..150)
}

fn limits() -> Limits {
    let window = |amount, count| WindowLimits { amount: minor(amount), count: minor(count), ..WindowLimits::UNLIMITED };
    Limits::UNLIMITED.with(Period::Day, window(1_000, 60)).with(Period::Week, window(1_500, 200))
}

/// A right in the hand of its holder.
struct Held {
    id: RightId,
    right: HeldRight,
    /// The day that its payments are counted in.
    day: u32,
    /// Payments that went on and are not reported yet.
    unreported: Vec<(OrderNo, u64)>,
}

struct World {
    ledger: Ledger,
    limits: Limits,
    trust: Trust,
    refusal: Option<Code>,
    held: Vec<Held>,
    now_ms: i64,
    number: u128,
    /// The orders of payments that went on, with what the gateway got of each, by the day that counts them.
    passed: BTreeMap<u32, BTreeMap<OrderNo, u64>>,
    voided: BTreeSet<OrderNo>,
}

impl World {
    fn new() -> Self {
        Self {
            ledger: Ledger::new(1),
            limits: limits(),
            trust: TRUST,
            refusal: None,
            held: Vec::new(),
            now_ms: NOW_MS,
            number: 0,
            passed: BTreeMap::new(),
            voided: BTreeSet::new(),
        }
    }

    fn command(&mut self, action: Action, order_no: Option<&OrderNo>) -> Command {
        self.number += 1;
        Command {
            merchant: MerchantId::parse("m").unwrap(),
            currency: Currency::parse("USD").unwrap(),
            order_no: order_no.cloned(),
            attempt: AttemptId::from_text(order_no.map_or("", OrderNo::as_str)),
            action,
            effect: Effect::Commit,
            decision_id: self.number.to_be_bytes(),
            now_ms: self.now_ms,
            windows: Calendar::UTC.windows_at(self.now_ms),
            order_ttl_secs: 400 * 86_400,
            backlog_max: u32::MAX,
            threshold_policy: None,
            credit: None,
            history: None,
            payment_no: None,
            operation_no: None,
            channel: None,
        }
    }

    fn apply(&mut self, action: Action, order_no: Option<&OrderNo>) -> Reply {
        let mut command = self.command(action, order_no);
        if action.is_of_merchant() {
            command.currency = Currency::NONE;
        }
        self.ledger.apply(&command)
    }

    fn day(&self) -> u32 {
        Calendar::UTC.windows_at(self.now_ms).ids.day
    }

    fn pass(&mut self, day: u32, order_no: OrderNo, amount: u64) {
        self.passed.entry(day).or_default().insert(order_no, amount);
    }

    fn new_order(&mut self) -> OrderNo {
        self.number += 1;
        OrderNo::parse(&format!("order-{}", self.number)).unwrap()
    }

    fn charge(&mut self, amount: u64) -> Code {
        let (order_no, day) = (self.new_order(), self.day());
        let charge = Charge {
            amount: minor(amount),
            weight: Weight::AMOUNT,
            limits: self.limits,
            refusal: self.refusal,
            pace: None,
            replays_max: None,
            refuse_unknown_credit: false,
        };
        let code = self.apply(Action::Consume(charge), Some(&order_no)).record.code;
        if code == Code::Admitted {
            self.pass(day, order_no, amount);
        }
        code
    }

    fn grant(&mut self, wanted: Share) {
        let (right, day) = (RightId(self.number.to_be_bytes()), self.day());
        let Self { limits, trust, refusal, .. } = *self;
        let grant = Grant { right, wanted, trust, limits, weight: Weight::AMOUNT, refusal };
        let reply = self.apply(Action::Grant(grant), None);
        if reply.record.code == Code::Applied {
            let window = reply.record.windows.day;
            let granted = Share { amount: reply.record.amount, count: window.count_after - window.count_before };
            let until_ms = self.ledger.rights().find(|(.., id, _)| *id == right).unwrap().3.until_ms;
            self.held.push(Held { id: right, right: HeldRight::new(granted, until_ms), day, unreported: Vec::new() });
        }
    }

    fn spend(&mut self, which: u8, amount: u64) {
        let (order_no, now_ms) = (self.new_order(), self.now_ms.unsigned_abs());
        let count = self.held.len().max(1);
        let Some(held) = self.held.get_mut(usize::from(which) % count) else { return };
        if held.right.take(minor(amount), now_ms) {
            held.unreported.push((order_no.clone(), amount));
            let day = held.day;
            self.pass(day, order_no, amount);
        }
    }

    /// Reports the oldest payment of a holder, twice: nothing comes of the second time. What was voided before its report stays
    /// with the right.
    fn report(&mut self, which: u8) {
        let count = self.held.len().max(1);
        let Some(held) = self.held.get_mut(usize::from(which) % count).filter(|held| !held.unreported.is_empty())
        else {
            return;
        };
        let (id, (order_no, amount)) = (held.id, held.unreported.remove(0));
        let report = Action::Report(Report { right: id, amount: minor(amount), weight: Weight::AMOUNT });
        let before = *self.account();
        let reply = self.apply(report, Some(&order_no));
        assert_eq!(*self.account(), before, "no counter moves");
        if self.voided.contains(&order_no) {
            assert_eq!(reply.record.code, Code::AttemptVoided);
            return;
        }
        assert_eq!((reply.record.code, reply.record.replay), (Code::Admitted, false));
        let again = self.apply(report, Some(&order_no));
        assert_eq!((again.record.code, again.record.replay, again.event_seq), (Code::Admitted, true, None));
    }

    /// A right that is over is returned once all of it is reported.
    fn release(&mut self, which: u8) {
        let (now_ms, count) = (self.now_ms.unsigned_abs(), self.held.len().max(1));
        let at = usize::from(which) % count;
        if self.held.get(at).is_some_and(|held| held.right.is_over(now_ms) && held.unreported.is_empty()) {
            let held = self.held.remove(at);
            let release = Action::ReleaseRight(ReleaseRight { right: held.id, by_holder: true });
            assert_eq!(self.apply(release, None).record.code, Code::Applied);
            assert!(self.apply(release, None).record.replay);
        }
    }

    fn void(&mut self, which: u8) {
        let orders: Vec<OrderNo> = self.passed.values().flat_map(BTreeMap::keys).cloned().collect();
        if let Some(order_no) = orders.get(usize::from(which) % orders.len().max(1)) {
            self.apply(Action::VoidAttempt, Some(order_no));
            self.voided.insert(order_no.clone());
        }
    }

    fn account(&self) -> &quota::Account {
        static NONE: std::sync::LazyLock<quota::Account> = std::sync::LazyLock::new(quota::Account::default);
        let merchant = MerchantId::parse("m").unwrap();
        self.ledger.account(&merchant, Currency::parse("USD").unwrap()).unwrap_or(&NONE)
    }

    fn order(&self, order_no: &OrderNo) -> Option<&Order> {
        self.ledger.order(&MerchantId::parse("m").unwrap(), order_no)
    }

    fn check(&self) {
        let account = self.account();
        for limit in LimitName::ALL.into_iter().filter(|limit| limit.is_of_charges()) {
            assert!(limit.used_of(account) <= limit.max(&limits()), "Q-1: {limit:?} {account:?}");
        }
        // What the gateway got in a day and was not voided is within the limit, whatever is reported of it.
        for (day, orders) in &self.passed {
            let kept = orders.iter().filter(|(order_no, _)| !self.voided.contains(*order_no));
            let (amount, count) = kept.fold((0, 0), |(sum, count), (_, amount)| (sum + amount, count + 1));
            assert!(amount <= 1_000 && count <= 60, "Q-1: {amount} in {count} of {day}");
        }
        // the day counts its orders, and what rights have left.
        let day = account.windows.day;
        let is_of_day = |origin: quota::Origin| origin.id == day.id && origin.epoch == day.epoch;
        let orders = self.passed.values().flat_map(BTreeMap::keys).filter_map(|order_no| self.order(order_no));
        let charged = orders.filter(|order| order.state.is_charged() && is_of_day(order.charged_in.day));
        let (amount, count) = charged.fold((0, 0), |(sum, count), order| (sum + order.net(), count + 1));
        let rights = self.ledger.rights().filter(|(.., right)| is_of_day(right.counted_in.day));
        let left = rights.fold(Share::default(), |sum, (.., right)| Share {
            amount: sum.amount + right.left.amount,
            count: sum.count + right.left.count,
        });
        assert_eq!((day.amount, day.count), (amount + left.amount, count + left.count), "Q-4");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1_000) })]

    #[test]
    fn q1_q2_q3_q4_hold_with_rights(steps in steps()) {
        let mut world = World::new();
        for (letter, number, amount, seconds) in steps {
            world.now_ms += i64::from(seconds) * 1_000;
            match letter {
                0 | 1 => _ = world.charge(amount),
                2..=4 => world.grant(Share { amount: amount * 10, count: 8 }),
                5..=9 => world.spend(number, amount),
                10..=12 => world.report(number),
                13 => world.release(number),
                14 if number % 8 == 0 && !world.held.is_empty() => {
                    // The holder is lost, with what it has not reported.
                    let lost = world.held.remove(usize::from(number) % world.held.len());
                    world.apply(Action::OrphanRight(lost.id), None);
                }
                14 => world.release(number),
                _ => world.void(number),
            }
            world.check();
        }
    }
}

/// Milliseconds between the payments of [`lasts_ms`].
const EVERY_MS: i64 = 10;

/// What a change of an account does, and what the store answers to payments afterwards.
type Changed = (&'static str, fn(&mut World), Code);

/// How many milliseconds after a change the last payment goes on without a call. Every payment that no right admits asks for
/// one, and then for a decision of its own.
fn lasts_ms((name, change, code): Changed) -> i64 {
    let mut world = World::new();
    world.limits =
        Limits::UNLIMITED.with(Period::Day, WindowLimits { amount: minor(1_000_000), ..WindowLimits::UNLIMITED });
    let changed_ms = world.now_ms + 5_000;
    let mut last_ms = 0;
    while world.now_ms < changed_ms + 3 * i64::from(TRUST.ttl_ms) {
        if world.now_ms == changed_ms {
            change(&mut world);
        }
        if world.spends_at_once() {
            last_ms = world.now_ms;
        } else if world.charge(1) != code {
            assert!(world.now_ms < changed_ms, "{name}");
        }
        world.now_ms += EVERY_MS;
    }
    assert!(last_ms >= changed_ms, "{name}: nothing went on without a call until then");
    last_ms - changed_ms
}

impl World {
    /// A payment of 1 from the newest right, or from another one that is granted for it.
    fn spends_at_once(&mut self) -> bool {
        let spends = |world: &mut Self| {
            let now_ms = world.now_ms.unsigned_abs();
            world.held.last_mut().is_some_and(|held| held.right.take(minor(1), now_ms))
        };
        spends(self) || {
            self.grant(Share { amount: 40_000, count: 40_000 });
            spends(self)
        }
    }
}

/// A suspension, a lowered limit, a restriction and a policy without trust take effect within `ttl_ms`.
#[test]
fn each_change_takes_effect_within_the_lifetime_of_a_right() {
    let changes: [Changed; 5] = [
        ("account suspended", |world| _ = world.apply(Action::Suspend, None), Code::Suspended),
        ("merchant suspended", |world| _ = world.apply(Action::SuspendMerchant, None), Code::Suspended),
        (
            "limit lowered",
            |world| {
                world.limits =
                    Limits::UNLIMITED.with(Period::Day, WindowLimits { amount: minor(10), ..WindowLimits::UNLIMITED });
            },
            Code::DailyAmount,
        ),
        ("restricted", |world| world.refusal = Some(Code::CreditRestricted), Code::CreditRestricted),
        ("trust switched off", |world| world.trust = Trust::NONE, Code::Admitted),
    ];
    for changed in changes {
        let ms = lasts_ms(changed);
        assert!(ms < i64::from(TRUST.ttl_ms), "{}: {ms} ms", changed.0);
    }
}

/// Nothing is admitted from a right after the end of its day.
#[test]
fn a_right_ends_with_its_day() {
    let mut world = World::new();
    let midnight_ms = Calendar::UTC.windows_at(NOW_MS).until_ms;
    world.now_ms = midnight_ms - i64::from(TRUST.ttl_ms) / 2;
    world.grant(Share { amount: 1, count: 1 });
    let right = world.held[0].right;
    let takes = |now_ms: i64| { right }.take(minor(1), now_ms.unsigned_abs());
    assert!(takes(midnight_ms - 1));
    assert!(!takes(midnight_ms));
}
