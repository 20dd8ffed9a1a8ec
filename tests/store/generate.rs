//! Command sequences, generated from a seed and biased to where the rule may break: window edges, limits ± 1, amounts near
//! 2^53, repeated attempts, voids before their attempts, clocks that lag.

use quota::{
    Action, AmountMinor, AttemptId, Calendar, Code, Command, Consume, Currency, Ledger, Limits, MerchantId, OrderNo,
    Period, WindowLimits,
};

const MAX: u64 = AmountMinor::MAX.get();
/// Commands of one kind of traffic.
const STRETCH: u64 = 300;

/// SplitMix64: the same seed gives the same sequence on every machine.
pub(crate) struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }

    fn one_in(&mut self, number: u64) -> bool {
        self.below(number) == 0
    }
}

/// Makes one command after the other; it looks at the ledger to aim at what is left of a limit.
pub(crate) struct Generator {
    random: Random,
    now_ms: i64,
    calendar: Calendar,
    scale: u64,
    number: u128,
    seed: u64,
}

impl Generator {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let zone = random.pick(&["UTC", "Asia/Shanghai", "America/New_York", "Pacific/Apia", "America/Sao_Paulo"]);
        let calendar = Calendar::new(zone.parse().unwrap(), random.pick(&[0, 0, 6, 23])).unwrap();
        // From an ordinary evening, a year's last hours, a leap day and a day of 23 hours on.
        let now_ms = random.pick(&[1_795_296_600_000, 1_798_754_390_000, 1_835_395_190_000, 1_772_945_990_000]);
        let scale = random.pick(&[1, 100, 10_000, MAX / 2, MAX]);
        Self { random, now_ms, calendar, scale, number: 0, seed }
    }

    /// `waiting` tells how many events wait in the shard of a merchant.
    pub(crate) fn command(&mut self, ledger: &Ledger, waiting: impl Fn(&MerchantId) -> u64) -> Command {
        self.number += 1;
        // Every fourth stretch is a crowd at one order: first more attempts than it remembers, then as many voids.
        let stretch = self.number as u64 / STRETCH;
        let crowd = stretch.is_multiple_of(4);
        let merchant = MerchantId::parse(if crowd { "m-1" } else { self.random.pick(&["m-1", "m-2", "m-3"]) }).unwrap();
        let currency = Currency::parse(self.random.pick(&["USD", "USD", "USD", "JPY"])).unwrap();
        // Few orders and attempts at a time, so that most come again; the range moves on, so that new ones come too.
        let order = if crowd { stretch } else { self.number as u64 / 60 + self.random.below(8) };
        let attempts = if crowd || self.random.one_in(12) { 80 } else { 5 };
        let fresh = AttemptId::from_text(&format!("{order} {}", self.random.below(attempts)));
        // A crowd does not last: time stands nearly still, so that no order is forgotten meanwhile.
        let now_ms = if crowd { self.soon() } else { self.moment() };
        let windows = self.calendar.windows_at(now_ms);
        let order_no = OrderNo::parse(&format!("order-{order}")).unwrap();
        let leaving = crowd && self.number as u64 % STRETCH >= STRETCH / 2;
        let live = ledger.order(&merchant, &order_no).filter(|_| leaving).and_then(|order| order.live.first().copied());
        let voids_in_ten = match (crowd, leaving) {
            (false, _) => 3,
            (true, false) => 0,
            (true, true) => 8,
        };
        let action = if self.random.below(10) < voids_in_ten {
            Action::Void
        } else {
            Action::Consume(self.consume(ledger, &merchant, currency, order))
        };
        let backlog_max = if self.random.one_in(50) { waiting(&merchant) + self.random.below(3) } else { 1_000_000 };
        Command {
            merchant,
            currency,
            order_no,
            attempt: live.filter(|_| self.random.one_in(2)).unwrap_or(fresh),
            action,
            decision_id: ((u128::from(self.seed) << 64) | self.number).to_be_bytes(),
            now_ms,
            windows,
            order_ttl_secs: self.random.pick(&[3_600, 86_400, 34_560_000]),
            backlog_max: u32::try_from(backlog_max).unwrap(),
            payment_no: None,
            channel: None,
        }
    }

    fn soon(&mut self) -> i64 {
        self.now_ms += self.random.below(100) as i64;
        self.now_ms
    }

    /// Mostly a little later; sometimes at the edge of a window, sometimes back by up to two days.
    fn moment(&mut self) -> i64 {
        self.now_ms += match self.random.below(100) {
            0..=89 => self.random.below(2_000) as i64,
            90..=95 => self.random.below(7_200_000) as i64,
            _ => self.step_to_edge(),
        };
        if self.random.one_in(20) { self.now_ms - self.random.below(172_800_000) as i64 } else { self.now_ms }
    }

    fn step_to_edge(&mut self) -> i64 {
        let period = self.random.pick(&[Period::Day, Period::Day, Period::Day, Period::Month, Period::Year]);
        let ids = self.calendar.windows_at(self.now_ms);
        let id = match period {
            Period::Day => ids.day,
            Period::Month => ids.month,
            Period::Year => ids.year,
        };
        let end = self.calendar.ends_at_ms(period, id).unwrap();
        (end - self.now_ms) + self.random.pick(&[-1_000, -1, 0, 1, 1_000])
    }

    fn consume(&mut self, ledger: &Ledger, merchant: &MerchantId, currency: Currency, order: u64) -> Consume {
        let limits = self.limits();
        let refusal = self.random.one_in(15).then(|| {
            self.random.pick(&[
                Code::PolicyMissing,
                Code::ChannelNotAllowed,
                Code::AboveSingleMax,
                Code::BelowSingleMin,
            ])
        });
        let order_no = OrderNo::parse(&format!("order-{order}")).unwrap();
        let known = ledger.order(merchant, &order_no).filter(|_| self.random.below(10) < 8);
        let amount = match known {
            Some(order) => order.amount,
            None => self.amount(ledger, merchant, currency, &limits),
        };
        Consume { amount, limits, refusal }
    }

    fn limits(&mut self) -> Limits {
        Limits { day: self.window_limits(), month: self.window_limits(), year: self.window_limits() }
    }

    fn amount(&mut self, ledger: &Ledger, merchant: &MerchantId, currency: Currency, limits: &Limits) -> AmountMinor {
        let account = ledger.account(merchant, currency).copied().unwrap_or_default();
        let left = [
            limits.day.amount.get().saturating_sub(account.day.amount),
            limits.month.amount.get().saturating_sub(account.month.amount),
            limits.year.amount.get().saturating_sub(account.year.amount),
        ];
        let near = self.random.pick(&left).saturating_add(self.random.below(3)).saturating_sub(1);
        let small = self.random.below(self.scale / 8 + 2);
        let minor = match self.random.below(12) {
            0..=3 => near,
            4..=9 => small,
            10 => MAX - self.random.below(3),
            _ => self.random.below(3),
        };
        AmountMinor::new(minor.min(MAX)).unwrap()
    }

    fn window_limits(&mut self) -> WindowLimits {
        WindowLimits { amount: self.limit(self.scale), count: self.limit(40) }
    }

    fn limit(&mut self, scale: u64) -> AmountMinor {
        let max = match self.random.below(8) {
            0 => 0,
            1..=3 => MAX,
            4 => scale,
            _ => self.random.below(scale + 1),
        };
        AmountMinor::new(max).unwrap()
    }
}
