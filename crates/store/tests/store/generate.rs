//! Command sequences, generated from a seed and biased to where the rule may break: window edges, limits ± 1, amounts near
//! 2^53, what is left of an order ± 1, repeated attempts and numbers, voids before their attempts, servers' clocks that lie by
//! milliseconds to decades, and a store's clock that moves by itself, now and then forth and back by days or years.

use std::collections::VecDeque;
use std::sync::Arc;

use quota::{
    Account, Action, AttemptId, Calendar, Charge, Code, Command, CreditTerms, Currency, Effect, Grant, HoldTerms,
    LAG_MS_MAX, Ledger, Limits, Mark, MerchantId, OnExpiry, OperationId, OperationKind, Order, OrderNo, OrderState,
    Period, Posting, PostingKind, REPLAYS_MAX, Refund, ReleaseRight, Report, Resolution, Right, RightId, Settle, Share,
    Subject, ThresholdPolicy, Thresholds, Trust, Weekday, Weight, WindowLimits,
};
use sluice_policy::ZoneSource;
use sluice_policy_source::zones::Zones;

use crate::figures::{self, amount};
use testkit::random::Random;

/// Commands of one kind of traffic.
const STRETCH: u64 = 300;
/// An ordinary capture or refund takes no more than one of so many parts of what is left.
const PART: u64 = 24;
/// Orders that the journal may return later.
const REMEMBERED: usize = 24;
/// Rights that may have ended.
const ENDED: usize = 6;
pub(crate) const MERCHANTS: [&str; 4] = ["m-1", "m-2", "m-3", "m-4"];
/// Of these accounts nothing else is asked than new charges, so that most are decided without anything out of the ordinary.
pub(crate) const PLAIN_MERCHANTS: [&str; 2] = ["p-1", "p-2"];
/// Their accounts have credit lines.
const CREDIT_MERCHANTS: [&str; 3] = ["m-2", "m-3", "p-2"];
pub(crate) const CURRENCIES: [&str; 2] = ["USD", "JPY"];

/// What a stretch of commands is like.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Traffic {
    Ordinary,
    /// Many at one order: first more attempts than it remembers, then as many voids.
    Crowd,
    /// Many captures and refunds of one order, more than it takes.
    Parts,
    /// More resets of one window than are distinguished.
    Resets,
    /// New orders with nothing to them but an amount.
    Plain,
}

impl Traffic {
    /// Whether time goes on and clocks lie meanwhile.
    const fn is_ordinary(self) -> bool {
        matches!(self, Self::Ordinary | Self::Plain)
    }
}

/// Commands that are asked for in one call.
pub(crate) struct Plan {
    pub(crate) size: usize,
    pub(crate) all_or_none: bool,
    /// What the store's clock shows.
    pub(crate) store_ms: i64,
    /// The day of that time.
    pub(crate) store_day: u32,
    merchants: Vec<&'static str>,
}

/// Makes one command after the other; it looks at the ledger to aim at what is left of a limit, a hold or an order.
pub(crate) struct Generator {
    random: Random,
    now_ms: i64,
    /// How far the store's clock is from its course.
    jump_ms: i64,
    /// When a hold ends that a command was about.
    hold_ends_ms: Option<i64>,
    calendar: Calendar,
    scale: u64,
    number: u128,
    seed: u64,
    remembered: VecDeque<Order>,
    /// Rights that may have ended, the latest first.
    ended: VecDeque<RightId>,
    threshold_policy: Option<Arc<ThresholdPolicy>>,
}

/// The order that a command is about, and how it stands.
struct Target<'a> {
    name: String,
    order: Option<&'a Order>,
    account: Account,
    is_merchant_suspended: bool,
    has_credit: bool,
    traffic: Traffic,
    /// The rights of the account, in the order of their ids.
    rights: Vec<(RightId, Right)>,
}

impl Target<'_> {
    fn left(&self) -> u64 {
        self.order.map_or(0, |order| order.captured().saturating_sub(order.refunded))
    }

    fn held(&self) -> u64 {
        self.order.map_or(0, Order::held)
    }
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let zone = random.pick(&["UTC", "Asia/Shanghai", "America/New_York", "Pacific/Apia", "America/Sao_Paulo"]);
        let calendar = Calendar::new(Zones::compiled_in().zone(zone).unwrap(), random.pick(&[0, 0, 6, 23])).unwrap();
        let calendar = calendar.with_week_start(random.pick(&[Weekday::Monday, Weekday::Sunday, Weekday::Saturday]));
        // From an ordinary evening, a year's last hours, a leap day and a day of 23 hours on.
        let now_ms = random.pick(&[1_795_296_600_000, 1_798_754_390_000, 1_835_395_190_000, 1_772_945_990_000]);
        let scale = random.pick(&[1, 100, 10_000, figures::MAX / 2, figures::MAX]);
        Self {
            random,
            now_ms,
            jump_ms: 0,
            hold_ends_ms: None,
            calendar,
            scale,
            number: 0,
            seed,
            remembered: VecDeque::new(),
            ended: VecDeque::new(),
            threshold_policy: None,
        }
    }

    /// How many commands come next, and of whom: of one merchant where all or none of them are to be done, else of several shards.
    pub(crate) fn plan(&mut self) -> Plan {
        let merchant = match self.traffic() {
            Traffic::Ordinary => self.random.pick(&MERCHANTS),
            Traffic::Plain => self.random.pick(&PLAIN_MERCHANTS),
            Traffic::Crowd | Traffic::Parts | Traffic::Resets => MERCHANTS[0],
        };
        let all_or_none = self.random.one_in(8);
        let size = match (all_or_none, self.random.below(4)) {
            (true, _) => 1 + self.random.below(4),
            (false, 0) => 1,
            (false, _) => 2 + self.random.below(23),
        };
        let alone = all_or_none || self.traffic() != Traffic::Ordinary;
        let mut merchants = if alone { Vec::new() } else { MERCHANTS.to_vec() };
        merchants.push(merchant);
        let store_ms = self.moment(size);
        let store_day = self.calendar.windows_at(store_ms).ids.day;
        Plan { size: size as usize, all_or_none, store_ms, store_day, merchants }
    }

    /// The traffic of the next command.
    fn traffic(&self) -> Traffic {
        let stretch = (self.number as u64 + 1) / STRETCH;
        match stretch % 8 {
            0 | 4 => Traffic::Crowd,
            2 | 5 => Traffic::Parts,
            6 => Traffic::Plain,
            7 if self.seed.is_multiple_of(4) => Traffic::Resets,
            _ => Traffic::Ordinary,
        }
    }

    /// `waiting` returns how many events wait in the shard of a merchant.
    pub(crate) fn command(&mut self, plan: &Plan, ledger: &Ledger, waiting: impl Fn(&MerchantId) -> u64) -> Command {
        let traffic = self.traffic();
        self.number += 1;
        let merchant = MerchantId::parse(self.random.pick(&plan.merchants)).unwrap();
        // Few orders at a time, so that most come again; the range moves on, so that new ones come too.
        let place = match traffic {
            Traffic::Ordinary | Traffic::Resets => self.number as u64 / 60 + self.random.below(8),
            Traffic::Crowd | Traffic::Parts => self.number as u64 / STRETCH,
            Traffic::Plain => self.number as u64,
        };
        let name = format!("order-{place}");
        let order_no = OrderNo::parse(&name).unwrap();
        let stored = ledger.order(&merchant, &order_no);
        let any_currency = Currency::parse(self.random.pick(&["USD", "USD", "USD", "JPY"])).unwrap();
        let currency = match traffic {
            // They are of one account.
            Traffic::Resets => Currency::parse(CURRENCIES[0]).unwrap(),
            Traffic::Ordinary | Traffic::Crowd | Traffic::Parts | Traffic::Plain => {
                stored.filter(|_| self.random.percent(94)).map_or(any_currency, |order| order.currency)
            }
        };
        let ends_ms = stored.filter(|order| order.held() > 0).map(|order| i64::from(order.hold.until_secs) * 1000);
        let soon = ends_ms.filter(|ends| (0..172_800_000).contains(&(ends - self.now_ms)));
        self.hold_ends_ms = self.hold_ends_ms.or(soon);
        let now_ms = plan.store_ms + if traffic.is_ordinary() { self.lie() } else { 0 };
        let windows = self.calendar.windows_at(now_ms);
        let account = ledger.account(&merchant, currency).copied().unwrap_or_default().rolled(windows);
        let known = stored.filter(|order| i64::from(order.expires_at_secs) > now_ms / 1000);
        let is_merchant_suspended = ledger.merchant(&merchant).is_some_and(|merchant| merchant.suspended_at_ms > 0);
        let has_credit = CREDIT_MERCHANTS.contains(&merchant.as_str());
        let of_account = |(of, in_currency, ..): &(&MerchantId, Currency, RightId, &Right)| {
            **of == merchant && *in_currency == currency
        };
        let mut rights: Vec<_> =
            ledger.rights().filter(of_account).map(|(_, _, right, state)| (right, *state)).collect();
        rights.sort_by_key(|(right, _)| right.0);
        let target = Target { name, order: known, account, is_merchant_suspended, has_credit, traffic, rights };
        let is_of_another_currency = known.is_some_and(|order| order.currency != currency);
        let action = match traffic {
            Traffic::Ordinary if self.relist() => Action::Roll,
            Traffic::Ordinary if is_of_another_currency && self.random.one_in(3) => self.operation(b'l', &target),
            Traffic::Ordinary | Traffic::Crowd | Traffic::Parts | Traffic::Resets | Traffic::Plain => {
                self.action(&target)
            }
        };
        let currency = if action.is_of_merchant() { Currency::NONE } else { currency };
        let attempt = self.attempt(&target, &action);
        let effect = if self.random.one_in(12) && !matches!(traffic, Traffic::Resets | Traffic::Plain) {
            self.random.pick(&[Effect::DryRun, Effect::DryRunJournaled])
        } else {
            Effect::Commit
        };
        let history = if traffic == Traffic::Plain { None } else { self.history(known) };
        // Mostly none for plain charges: what is marked has to be looked at.
        let threshold_policy =
            if traffic == Traffic::Plain && !self.seed.is_multiple_of(5) { None } else { self.watch(&target.account) };
        let backlog_max = if self.random.one_in(16) { waiting(&merchant) + self.random.below(3) } else { 1_000_000 };
        let nameless =
            is_of_account(&action) || (is_charge(&action) && effect != Effect::Commit && self.random.one_in(2));
        let credit = self.credit(&target, &action, &windows);
        Command {
            merchant,
            currency,
            order_no: Some(order_no).filter(|_| !nameless),
            attempt,
            action,
            effect,
            decision_id: ((u128::from(self.seed) << 64) | self.number).to_be_bytes(),
            now_ms,
            windows,
            order_ttl_secs: if traffic == Traffic::Plain {
                3_600
            } else {
                self.random.pick(&[3_600, 86_400, 34_560_000])
            },
            backlog_max: u32::try_from(backlog_max).unwrap(),
            threshold_policy,
            credit,
            history: history.filter(|_| !nameless).map(Box::new),
            payment_no: None,
            operation_no: None,
            channel: None,
        }
    }

    /// The credit line in a cycle of a month, or of a day; sometimes it is not known, or capped. Its limit is mostly one that the
    /// command just fits into, or just does not.
    fn credit(&mut self, target: &Target, action: &Action, windows: &quota::WindowIds) -> Option<CreditTerms> {
        if !target.has_credit || action.is_of_merchant() || self.random.one_in(20) {
            return None;
        }
        // Of holders of rights some have theirs already.
        if self.is_of_rights() && target.account.credit.is_none() && self.random.percent(90) {
            return None;
        }
        let exposure = target.account.credit.map_or(0, |credit| credit.exposure);
        let asked = action.amount().map_or(0, |amount| amount.get().cast_signed());
        let edge = u64::try_from(exposure.saturating_add(asked)).unwrap_or_default();
        let random = &mut self.random;
        let limit = match random.below(8) {
            0 => 0,
            1 | 2 => random.near(edge.min(figures::MAX)),
            _ => figures::MAX,
        };
        let limit = amount(limit.min(figures::MAX));
        let uncapped_limit =
            if random.one_in(2) { limit } else { amount(random.near(edge.min(figures::MAX))).max(limit) };
        let cycle = if self.seed.is_multiple_of(2) { windows.ids.day } else { windows.ids.month * 100 + 1 };
        Some(CreditTerms { cycle, limit, uncapped_limit })
    }

    /// A posting whose amount its number determines, or one about what is owed.
    fn posting(&mut self, target: &Target) -> Posting {
        let owed = target.account.credit.map_or(0, |credit| credit.exposure.unsigned_abs());
        let minor = match self.random.below(6) {
            0 => self.random.near(owed),
            1 => self.random.below(2),
            _ => 1 + target.name.len() as u64 * 7 % self.scale.max(2),
        };
        let [others @ .., recovery, opening] = PostingKind::ALL;
        let other = self.random.pick(&others);
        // In some sequences, so that the seeds that show the rarest mutants still show them.
        let kind = match self.seed % 8 {
            3 if self.number.is_multiple_of(3) => recovery,
            6 if self.number.is_multiple_of(3) => opening,
            _ => other,
        };
        Posting { kind, amount: amount(minor.min(figures::MAX)) }
    }

    /// Mostly the same for many commands, as under a policy that seldom changes. Every third sequence has none, and so more
    /// accounts without anything out of the ordinary.
    fn watch(&mut self, account: &Account) -> Option<Arc<ThresholdPolicy>> {
        if !self.seed.is_multiple_of(3) && self.random.one_in(6) {
            self.threshold_policy = figures::watch(&mut self.random, account, self.scale).map(Arc::new);
        }
        self.threshold_policy.clone()
    }

    /// Now and then other thresholds take the place of those in force, as many of them; whether it was so.
    fn relist(&mut self) -> bool {
        let Some(watch) = self.threshold_policy.as_ref().filter(|watch| watch.thresholds().percents().len() == 2)
        else {
            return false;
        };
        if !self.random.one_in(50) {
            return false;
        }
        let first = self.random.pick(&[79, 80, 81]);
        let thresholds = Thresholds::new([first, 100]).unwrap();
        self.threshold_policy = Some(Arc::new(ThresholdPolicy::of(*watch.maxima(), thresholds)));
        true
    }

    /// What the store's clock shows at a call of so many commands: mostly a little more than before; sometimes the edge of a
    /// window or the end of a hold.
    fn moment(&mut self, size: u64) -> i64 {
        if !self.traffic().is_ordinary() {
            // It does not last: time stands nearly still, so that neither order nor window is over meanwhile.
            self.now_ms += self.random.below(100) as i64;
            return self.now_ms + self.jump_ms;
        }
        self.jump();
        let ends_ms = self.hold_ends_ms.take().filter(|ends| *ends >= self.now_ms);
        if let Some(ends_ms) = ends_ms.filter(|_| self.random.one_in(2)) {
            self.now_ms = ends_ms + self.random.pick(&[-1, 0, 1, 1_000]);
            return self.now_ms + self.jump_ms;
        }
        self.now_ms += match self.random.below(40) {
            0..=31 => self.random.below(2_000 * size) as i64,
            32..=34 => self.random.below(7_200_000) as i64,
            _ => self.step_to_edge(),
        };
        self.now_ms + self.jump_ms
    }

    /// The store's clock goes forth by a day to centuries, as where another host took over, and back after a while. In some
    /// sequences only: accounts stay where it took them, until they are reset or their time comes.
    fn jump(&mut self) {
        const DAY_MS: i64 = 86_400_000;
        let back = self.jump_ms != 0 && self.random.one_in(8);
        if back {
            self.jump_ms = 0;
        } else if self.seed % 4 == 1 && self.random.one_in(40) {
            let days = self.random.pick(&[1, 2, 8, 31, 366, 3_653]);
            self.jump_ms = if self.seed % 8 == 5 && self.random.one_in(8) { 80_000 * DAY_MS } else { days * DAY_MS };
        }
    }

    /// How far a command's time is from the store's: mostly not at all.
    fn lie(&mut self) -> i64 {
        let lag_ms = LAG_MS_MAX as i64;
        let random = &mut self.random;
        let far = match random.below(100) {
            0..=69 => return 0,
            70..=77 => random.below(300) as i64,
            78..=81 => return random.pick(&[-lag_ms - 1_000, -lag_ms - 1, -lag_ms, 1 - lag_ms]),
            82..=84 => return random.pick(&[1, 999, 1_000]),
            85..=89 => random.below(10_000) as i64,
            90..=94 => random.below(172_800_000) as i64,
            95..=97 => random.below(864_000_000) as i64,
            _ => random.below(1_000_000_000_000) as i64,
        };
        if random.one_in(3) { far } else { -far }
    }

    fn step_to_edge(&mut self) -> i64 {
        let period =
            self.random.pick(&[Period::Day, Period::Day, Period::Day, Period::Week, Period::Month, Period::Year]);
        let ids = self.calendar.windows_at(self.now_ms);
        let end = self.calendar.ends_at_ms(period, *ids.ids.of(period)).unwrap();
        (end - self.now_ms) + self.random.pick(&[-1_000, -1, 0, 1, 1_000])
    }

    /// Mostly one that the order's state is made for.
    fn action(&mut self, target: &Target) -> Action {
        // Not for long: a suspended merchant takes no charge.
        if target.is_merchant_suspended && self.random.one_in(4) {
            return Action::ResumeMerchant;
        }
        if target.traffic == Traffic::Plain && self.random.percent(96) {
            let charge = Charge { refusal: None, pace: None, ..self.charge(target) };
            return if self.random.percent(96) { Action::Consume(charge) } else { Action::Hold(charge, self.terms()) };
        }
        if target.traffic == Traffic::Plain && self.random.one_in(2) {
            return Action::SuspendMerchant;
        }
        if self.random.one_in(300) {
            return self.random.pick(&[Action::SuspendMerchant, Action::SuspendMerchant, Action::ResumeMerchant]);
        }
        match target.traffic {
            Traffic::Resets if self.random.percent(95) => return figures::reset_of_day(),
            Traffic::Crowd => return self.crowd(target),
            Traffic::Parts => return self.part(target),
            Traffic::Ordinary | Traffic::Resets | Traffic::Plain => {}
        }
        if self.is_of_rights() && self.random.one_in(2) {
            return self.right(target);
        }
        if target.has_credit && self.random.one_in(10) {
            return Action::Post(self.posting(target));
        }
        if self.random.one_in(12) {
            return figures::account_action(&mut self.random, &target.account, self.scale);
        }
        let state = target.order.map_or(OrderState::Open, |order| order.state);
        let of_any = [b'c', b'h', b'a', b'v', b's', b'r', b'l', b'x', b'u', b'm', b'n'];
        let of_state: &[u8] = match state {
            OrderState::Open => b"ccccchhhhhha",
            OrderState::Charged => b"ccccaaaarrrrrrrrrrlluuummn",
            OrderState::Held => b"hhhhhhaassssssssssssvvxxxxllrruuuummn",
            OrderState::Settled => b"hhssssaarrrrrrrrrrllvvuum",
            OrderState::Voided => &of_any,
        };
        let letter = if self.random.one_in(8) { self.random.pick(&of_any) } else { self.random.pick(of_state) };
        self.operation(letter, target)
    }

    /// Whether holders have rights. In some sequences, so that the seeds that show the rarest mutants still show them.
    const fn is_of_rights(&self) -> bool {
        self.seed % 16 == 3
    }

    /// Mostly about a right that is there.
    fn right(&mut self, target: &Target) -> Action {
        let fresh = RightId(((u128::from(self.seed) << 64) | self.number).to_be_bytes());
        // Sometimes one that has ended.
        let place = self.random.below(ENDED as u64) as usize;
        let ended = self.ended.get(place).copied().unwrap_or(fresh);
        let known = if target.rights.is_empty() { None } else { Some(self.random.pick(&target.rights)) };
        let known = known.filter(|_| self.random.percent(90));
        let right = known.map_or(ended, |(right, _)| right);
        if let Some((right, _)) = known {
            self.ended.truncate(ENDED - 1);
            self.ended.push_front(right);
        }
        match self.random.below(37) {
            0 | 34..=36 => figures::reset_of_day(),
            1 | 2 => self.grant(target, right),
            3..=10 => self.grant(target, fresh),
            11..=27 => self.report(target, right, known.map_or(0, |(_, right)| right.left.amount)),
            28..=31 => Action::ReleaseRight(ReleaseRight { right, by_holder: self.random.one_in(2) }),
            _ => Action::OrphanRight(right),
        }
    }

    fn grant(&mut self, target: &Target, right: RightId) -> Action {
        let random = &mut self.random;
        let trust = Trust {
            above_percent: random.pick(&[0, 1, 20, 33, 100]),
            share_percent: random.pick(&[1, 5, 33, 100]),
            ttl_ms: random.pick(&[0, 1_000, 60_000, 200_000_000]),
        };
        let wanted = Share {
            amount: random.pick(&[0, 1, 1_000, self.scale, figures::MAX]).min(figures::MAX),
            count: random.pick(&[0, 1, 2, 3, 1_000, figures::MAX]),
        };
        let limits = if random.one_in(2) { Limits::UNLIMITED } else { figures::limits(random, self.scale) };
        let refusal = random.one_in(16).then_some(Code::ChannelNotAllowed);
        let edge = target.account.of(Period::Day);
        // Sometimes a limit that leaves next to nothing above the threshold.
        let limits = if random.one_in(4) {
            let of = |used: u64, more: u64| amount(used.saturating_add(more).min(figures::MAX));
            let (more, count) = (random.below(40), random.below(40));
            let window =
                WindowLimits { amount: of(edge.amount, more), count: of(edge.count, count), ..limits.of(Period::Day) };
            limits.with(Period::Day, window)
        } else {
            limits
        };
        Action::Grant(Grant { right, wanted, trust, limits, weight: self.any_weight(), refusal })
    }

    fn report(&mut self, target: &Target, right: RightId, left: u64) -> Action {
        let random = &mut self.random;
        let same = target.order.filter(|order| order.state.is_charged() && random.percent(70));
        let minor = match same {
            Some(order) => order.amount,
            None if random.one_in(4) => amount(random.near(left).min(figures::MAX)),
            None => amount(random.below(left.min(1_000) / 4 + 2)),
        };
        Action::Report(Report { right, amount: minor, weight: self.any_weight() })
    }

    fn operation(&mut self, letter: u8, target: &Target) -> Action {
        match letter {
            b'c' => Action::Consume(self.charge(target)),
            b'h' => Action::Hold(self.charge(target), self.terms()),
            b'a' => Action::VoidAttempt,
            b'v' => Action::Void,
            b's' => Action::Settle(self.settle(target)),
            b'r' => Action::Refund(self.refund(target)),
            b'l' => Action::Release(self.refund(target)),
            b'u' => Action::MarkUnknown(self.mark(target)),
            b'm' => Action::Resolve(Resolution::Made),
            b'n' => Action::Resolve(Resolution::NotMade),
            // Sometimes for longer, sometimes not beyond what it is already.
            _ if self.number % 4 == 3 => {
                let until_secs = target.order.map_or(0, |order| order.hold.until_secs);
                Action::ExtendHold {
                    until_secs: until_secs.saturating_add(self.number as u32 % 7 * 40).saturating_sub(40),
                }
            }
            _ => Action::Expire,
        }
    }

    /// Mostly of the charge, else of a number that was taken, or may be.
    fn mark(&mut self, target: &Target) -> Mark {
        let subject = match self.random.below(8) {
            0 => Subject::Capture(self.number(target, &[OperationKind::Capture]).0),
            1 | 2 => Subject::Refund(self.number(target, &[OperationKind::Refund, OperationKind::Reservation]).0),
            3 => Subject::Void,
            _ => Subject::Charge,
        };
        let minor = amount(self.random.below(self.scale.max(2)));
        Mark { subject, amount: self.random.one_in(2).then_some(minor) }
    }

    fn is_leaving(&self) -> bool {
        self.number as u64 % STRETCH >= STRETCH / 2
    }

    fn crowd(&mut self, target: &Target) -> Action {
        let voids_in_ten = if self.is_leaving() { 8 } else { 0 };
        if self.random.below(10) < voids_in_ten {
            return Action::VoidAttempt;
        }
        let holds = target.order.is_some_and(|order| matches!(order.state, OrderState::Held | OrderState::Settled));
        self.operation(if holds { b'h' } else { b'c' }, target)
    }

    fn part(&mut self, target: &Target) -> Action {
        let is_open = target.order.is_none_or(|order| !order.state.is_charged());
        if is_open {
            return Action::Hold(self.charge(target), self.terms());
        }
        if self.random.one_in(16) {
            return figures::reset_of_day();
        }
        let letter = if self.is_leaving() { self.random.pick(b"rrrrrrral") } else { self.random.pick(b"sssssssrx") };
        self.operation(letter, target)
    }

    fn attempt(&mut self, target: &Target, action: &Action) -> AttemptId {
        let aims = matches!(action, Action::VoidAttempt | Action::MarkUnknown(_));
        let known = target.order.filter(|_| aims && self.random.percent(70));
        let live = known.and_then(|order| order.live.first().copied());
        let reserved = known.and_then(|order| {
            let reserved = order.operations.iter().find(|operation| operation.kind == OperationKind::Reservation);
            reserved.map(|operation| operation.attempt)
        });
        let aimed = if self.random.one_in(2) { reserved.or(live) } else { live.or(reserved) };
        let many = target.traffic == Traffic::Crowd || self.random.one_in(12);
        let fresh = self.random.below(if many { 80 } else { 5 });
        aimed.unwrap_or_else(|| attempt_id(target, fresh))
    }

    /// Of an order that the store does not know, sometimes what the journal remembers of another one; seldom of a known one too.
    fn history(&mut self, known: Option<&Order>) -> Option<Order> {
        if let Some(order) = known.filter(|_| self.random.one_in(10)) {
            self.remembered.truncate(REMEMBERED - 1);
            // Some as they were written before an order said that it gave back.
            let given_back = order.given_back && (order.state != OrderState::Voided || self.random.one_in(2));
            self.remembered.push_front(Order { given_back, ..order.clone() });
        }
        let asks = self.random.one_in(if known.is_some() { 40 } else { 6 });
        let place = self.random.below(REMEMBERED as u64) as usize;
        self.remembered.get(place).filter(|_| asks).cloned()
    }

    fn charge(&mut self, target: &Target) -> Charge {
        let random = &mut self.random;
        let limits = figures::limits(random, self.scale);
        let refusal = random.one_in(20).then(|| {
            random.pick(&[
                Code::PolicyMissing,
                Code::MerchantUnknown,
                Code::ChannelNotAllowed,
                Code::AboveSingleMax,
                Code::BelowSingleMin,
            ])
        });
        let same = target.order.filter(|order| order.state.is_charged() && random.percent(80));
        let minor = match same {
            Some(order) => order.amount,
            // Enough for many parts.
            None if target.traffic == Traffic::Parts => amount(1_000 + random.below(9_000)),
            None => figures::charge_amount(random, &target.account, &limits, self.scale),
        };
        let generous = target.traffic == Traffic::Parts && random.percent(80);
        let limits = if generous { quota::Limits::UNLIMITED } else { limits };
        let weight = self.weight();
        let limits = self.near(weight.counts(minor.get()), target, limits);
        let random = &mut self.random;
        let pace = random.one_in(2).then(|| figures::pace(random, &limits, self.scale));
        // Few, so that repetitions come to their end; in a crowd sometimes more than attempts are remembered.
        let most = if target.traffic == Traffic::Crowd { u64::from(REPLAYS_MAX) + 1 } else { 3 };
        let replays_max = random.one_in(3).then(|| random.below(most) as u8);
        // In some sequences only, and often enough: seldom is a line not known.
        let refuse_unknown_credit = (self.seed % 4 == 3 || self.is_weighed()) && self.number.is_multiple_of(2);
        Charge { amount: minor, weight, limits, refusal, pace, replays_max, refuse_unknown_credit }
    }

    /// Whether payments have weights. In some sequences, so that the seeds that show the rarest mutants still show them.
    const fn is_weighed(&self) -> bool {
        matches!(self.seed % 16, 0 | 12)
    }

    fn weight(&mut self) -> Weight {
        if self.is_weighed() { self.any_weight() } else { Weight::AMOUNT }
    }

    fn any_weight(&mut self) -> Weight {
        let random = &mut self.random;
        match random.below(4) {
            0 => Weight::AMOUNT,
            1 => Weight::price(amount(random.pick(&[0, 1, 7, figures::MAX]).min(self.scale))),
            _ => Weight::share(random.pick(&[0, 1, 3_333, 9_999, 10_001, 25_000, Weight::BP_MAX])).unwrap(),
        }
    }

    /// Sometimes a limit that what a weighed charge counts just fits into, or just does not.
    fn near(&mut self, counted: u64, target: &Target, limits: Limits) -> Limits {
        if !self.is_weighed() || !self.random.one_in(4) {
            return limits;
        }
        let window = limits.of(Period::Day);
        let edge = target.account.of(Period::Day).amount.saturating_add(counted).min(figures::MAX);
        let pending = target.account.pending.saturating_add(counted).min(figures::MAX);
        if self.random.one_in(2) {
            return Limits { pending: amount(self.random.near(pending)), ..limits };
        }
        limits.with(Period::Day, WindowLimits { amount: amount(self.random.near(edge)), ..window })
    }

    fn terms(&mut self) -> HoldTerms {
        HoldTerms {
            lifetime_secs: self.random.pick(&[1, 60, 3_600, 86_400, 34_560_000]),
            on_expiry: self.random.pick(&[OnExpiry::Void, OnExpiry::Settle]),
        }
    }

    /// A number that was taken before, with its amount, or one of a few.
    fn number(&mut self, target: &Target, of: &[OperationKind]) -> (OperationId, Option<u64>) {
        let taken = target.order.into_iter().flat_map(|order| &order.operations);
        let taken: Vec<_> = taken.filter(|operation| of.contains(&operation.kind)).collect();
        if !taken.is_empty() && self.random.one_in(4) {
            let operation = self.random.pick(&taken);
            return (operation.id, Some(operation.amount.get()).filter(|_| self.random.percent(80)));
        }
        let numbers = if target.traffic == Traffic::Parts { 400 } else { 12 };
        (OperationId::of(&format!("{} {}", target.name, self.random.below(numbers))), None)
    }

    fn settle(&mut self, target: &Target) -> Settle {
        let (id, taken) = self.number(target, &[OperationKind::Capture]);
        let percent = self.random.pick(&[0, 0, 1, 10, 33, 100]);
        let held = target.held();
        let most = held.saturating_add(target.order.map_or(0, |order| over_capture(order.amount.get(), percent)));
        let minor = match self.random.below(if target.traffic == Traffic::Parts { 40 } else { 10 }) {
            0 => None,
            1 => Some(self.random.near(held)),
            2 => Some(self.random.near(most)),
            3 => Some(self.random.below(3)),
            _ => Some(1 + self.random.below(held / PART + 1)),
        };
        let last = self.random.one_in(if target.traffic == Traffic::Parts { 60 } else { 3 });
        Settle {
            amount: taken.or(minor).map(amount),
            id,
            last,
            over_capture_percent: percent,
            reported: self.random.one_in(6),
        }
    }

    fn refund(&mut self, target: &Target) -> Refund {
        let of = [OperationKind::Reservation, OperationKind::Refund, OperationKind::Release];
        let (id, taken) = self.number(target, &of);
        let left = target.left();
        let minor = match self.random.below(if target.traffic == Traffic::Parts { 40 } else { 8 }) {
            0 => None,
            1 | 2 => Some(self.random.near(left)),
            3 => Some(self.random.below(3)),
            _ => Some(1 + self.random.below(left / PART + 1)),
        };
        let minor = taken.or(minor);
        let (daily, monthly) = figures::refund_limits(&mut self.random, &target.account, minor.unwrap_or(left));
        Refund { amount: minor.map(amount), id, daily_max: daily, monthly_max: monthly, reserve: self.random.one_in(3) }
    }
}

/// Of some orders such that the bytes of one id stand across two others that follow each other.
fn attempt_id(target: &Target, number: u64) -> AttemptId {
    if target.traffic == Traffic::Ordinary && target.name.ends_with('0') {
        let ids = [1_u128 << 120, 1, 2];
        return AttemptId(ids[(number % 3) as usize].to_be_bytes());
    }
    AttemptId::from_text(&format!("{} {number}", target.name))
}

fn over_capture(amount: u64, percent: u8) -> u64 {
    u64::try_from(u128::from(amount) * u128::from(percent) / 100).unwrap()
}

const fn is_charge(action: &Action) -> bool {
    matches!(action, Action::Consume(_) | Action::Hold(..))
}

const fn is_of_account(action: &Action) -> bool {
    matches!(
        action,
        Action::Adjust(_)
            | Action::Reset(_)
            | Action::Suspend
            | Action::Resume
            | Action::SuspendMerchant
            | Action::ResumeMerchant
            | Action::Initialize
            | Action::Grant(_)
            | Action::ReleaseRight(_)
            | Action::OrphanRight(_)
            | Action::Roll
    )
}
