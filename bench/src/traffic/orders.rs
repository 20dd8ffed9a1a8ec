//! The orders of a run: everything about one is drawn from its number.

use std::time::Duration;

use quota::Code;

use super::order::{AtGateway, Decision, Leaves, Order, Pieces, Route, Unusable, merchant, prefix};
use testkit::policies;

/// How often things happen, in percent of all orders.
#[derive(Clone, Copy, Debug)]
pub struct Mix {
    /// Refused by the decision server.
    pub refused: u64,
    /// Admitted, and held back for a moment.
    pub delayed: u64,
    /// Left without a usable answer, each by itself, while the rest of their batch is answered.
    pub unusable: u64,
    /// Asked for alone where they come in a batch.
    pub alone: u64,
    /// Not made by the gateway.
    pub failing: u64,
    /// Left by their clients.
    pub left: u64,
}

impl Mix {
    /// Everything, each often enough to meet everything else.
    pub const ALL: Self = Self { refused: 20, delayed: 4, unusable: 6, alone: 4, failing: 20, left: 18 };
    /// Decided and delivered, whatever the decision.
    pub const CALM: Self = Self { refused: 30, delayed: 0, unusable: 0, alone: 0, failing: 10, left: 0 };
    /// What a sound server and its policies bring about.
    pub const REAL: Self = Self { refused: 20, delayed: 0, unusable: 0, alone: 0, failing: 20, left: 18 };
    /// Nothing but refusals.
    pub const REFUSED: Self = Self { refused: 100, delayed: 0, unusable: 0, alone: 0, failing: 0, left: 0 };
}

/// The orders of one run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Orders {
    /// Sets the orders of this run apart; another number makes other orders.
    pub seed: u32,
    pub mix: Mix,
    /// They are decided by the policies of [`Orders::policy_document`], not by a server that reads their numbers.
    pub real: bool,
}

/// Every property is drawn for itself.
#[derive(Clone, Copy)]
enum Draw {
    Route,
    Amount,
    Decision,
    Kind,
    Alone,
    Fails,
    Gateway,
    Wait,
    Leaves,
    Phase,
    Moment,
    Pieces,
    Padding,
    Id,
}

/// A client that leaves some time after its request does so within this: questions are decided and answered within it.
const LEAVES_WITHIN_US: u64 = 12_000;
/// Merchants that orders go to in turn.
pub(super) const MERCHANTS: u64 = 7;
/// The one whose day is used up.
pub(super) const CONTESTED: u64 = 6;
/// Statuses with which single questions fail: cancelled, unknown, too late, not found, overloaded, internal, away.
const STATUSES: [u32; 7] = [1, 2, 4, 5, 8, 13, 14];

impl Orders {
    /// The order of a number.
    pub(super) fn order(&self, number: u64) -> Order {
        let draw = |what: Draw, below: u64| mix(self.seed, number, what) % below.max(1);
        let percent = |what: Draw| draw(what, 100);
        let leaves = if percent(Draw::Leaves) < self.mix.left {
            leaves(percent(Draw::Phase), draw(Draw::Moment, LEAVES_WITHIN_US))
        } else {
            Leaves::Never
        };
        let decision = match self.decision(percent(Draw::Decision), draw(Draw::Kind, 1_000)) {
            decision if !self.real => decision,
            Decision::Refused(_) => Decision::Refused(Code::AboveSingleMax),
            _ if number % MERCHANTS == CONTESTED => Decision::Contested,
            _ => Decision::Admitted,
        };
        let amount = match (self.real, decision) {
            (false, _) => 100 + draw(Draw::Amount, 1_000_000),
            (true, Decision::Refused(_)) => policies::SINGLE_MAX + 1 + draw(Draw::Amount, 1_000),
            (true, _) => policies::SINGLE_MIN + draw(Draw::Amount, 1_000),
        };
        Order {
            number,
            route: match percent(Draw::Route) {
                0..70 => Route::Enforced,
                70..80 => Route::Lenient,
                80..90 => Route::Shadow,
                _ => Route::Sale,
            },
            amount,
            decision,
            alone: percent(Draw::Alone) < self.mix.alone,
            at_gateway: self.at_gateway(leaves, percent(Draw::Fails), percent(Draw::Gateway), draw(Draw::Wait, 20)),
            leaves,
            pieces: match percent(Draw::Pieces) {
                0..70 => Pieces::One,
                70..85 => Pieces::Two,
                85..90 => Pieces::Slow,
                _ => Pieces::Trailers,
            },
            padding: if percent(Draw::Padding) < 5 { 20_000 } else { 100 },
            real: self.real,
            seed: self.seed,
        }
    }

    /// The policies that decide real orders: room for everything, but for one merchant's day.
    pub(super) fn policy_document(orders: u64) -> String {
        let roomy = (0..MERCHANTS).filter(|number| *number != CONTESTED);
        let mut lines: Vec<String> = roomy.map(|number| format!("{}: {{tier: roomy}}", merchant(number))).collect();
        let count = contested_max(orders);
        lines.push(format!("{}: {{daily_amount: unlimited, daily_count: {count}}}", merchant(CONTESTED)));
        policies::with("traffic", &lines.join("\n"))
    }

    fn decision(&self, percent: u64, kind: u64) -> Decision {
        let Mix { refused, delayed, unusable, .. } = self.mix;
        if percent < refused {
            return Decision::Refused(match kind % 5 {
                0 => Code::DailyAmount,
                1 => Code::AboveSingleMax,
                2 => Code::IdempotencyConflict,
                3 => Code::MonthlyCount,
                _ => Code::Suspended,
            });
        }
        if percent < refused + delayed {
            return Decision::Delayed(u32::try_from(5 + kind % 60).unwrap_or_default());
        }
        if percent < refused + delayed + unusable {
            let status = usize::try_from(kind / 8).map_or(0, |at| at % STATUSES.len());
            return Decision::Unusable(match kind % 8 {
                0 => Unusable::Store,
                1 => Unusable::Empty,
                2 => Unusable::NoCode,
                3 => Unusable::Contradicts,
                _ => Unusable::Status(STATUSES[status]),
            });
        }
        if kind.is_multiple_of(10) { Decision::Replayed } else { Decision::Admitted }
    }

    fn at_gateway(&self, leaves: Leaves, fails: u64, kind: u64, wait: u64) -> AtGateway {
        let wait = Duration::from_millis(5 + wait);
        let status = match kind % 10 {
            0 | 1 => 201,
            2 => 409,
            _ => 200,
        };
        let failure = [400, 402, 422, 500, 503];
        let failure = failure[usize::try_from(kind).map_or(0, |at| at % failure.len())];
        let fails = fails < self.mix.failing;
        match (leaves, kind) {
            (Leaves::AtTheHead, _) => AtGateway::AnswersSlowly(if fails { failure } else { status }, wait),
            (_, 0..8) if fails => AtGateway::Resets,
            (_, 8..16) if fails => AtGateway::ResetsAfterHead,
            _ if fails => AtGateway::Answers(failure),
            (_, 0..80) => AtGateway::Answers(status),
            (_, 80..90) => AtGateway::AnswersLate(status, wait),
            _ => AtGateway::AnswersSlowly(status, wait),
        }
    }

    /// The number of an order by its name; `None` where it is no order of this run.
    pub(super) fn number_of(&self, name: &str) -> Option<u64> {
        let rest = name.strip_prefix(&self.prefix())?;
        u64::from_str_radix(rest, 16).ok()
    }

    /// Every order's name begins so.
    pub(super) fn prefix(&self) -> String {
        prefix(self.seed)
    }
}

/// Payments that the contested merchant's day has room for.
pub(super) const fn contested_max(orders: u64) -> u64 {
    orders / MERCHANTS / 3 + 1
}

fn leaves(phase: u64, moment_us: u64) -> Leaves {
    match phase {
        0..10 => Leaves::InTheHead,
        10..25 => Leaves::InTheBody,
        25..80 => Leaves::After(Duration::from_micros(moment_us)),
        80..92 => Leaves::AtTheHead,
        _ => Leaves::ByHalf,
    }
}

/// Two numbers for an id.
pub(super) fn id(seed: u32, number: u64) -> (u64, u64) {
    (mix(seed, number, Draw::Id), mix(!seed, number, Draw::Id))
}

/// SplitMix64 (Steele, Lea and Flood, 2014) of seed, number and property.
fn mix(seed: u32, number: u64, what: Draw) -> u64 {
    let mut state = (u64::from(seed) << 32) ^ number.wrapping_mul(0xD134_2543_DE82_EF95) ^ ((what as u64) << 56);
    state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_follow_from_their_names() {
        let orders = Orders { seed: 7, mix: Mix::ALL, real: false };
        for number in [0, 1, 15, 16, 99_999] {
            let order = orders.order(number);
            assert_eq!(orders.number_of(&order.name()), Some(number));
            assert_eq!(orders.order(number), order);
        }
        assert_eq!(orders.number_of("o00000008-1"), None);
        assert_ne!(orders.order(1).decision_id(), orders.order(2).decision_id());
    }

    #[test]
    fn every_kind_comes_up() {
        let orders = Orders { seed: 1, mix: Mix::ALL, real: false };
        let drawn: Vec<Order> = (0..10_000).map(|number| orders.order(number)).collect();
        let share = |of: &dyn Fn(&Order) -> bool| drawn.iter().filter(|order| of(order)).count() / 100;
        assert!((18..=22).contains(&share(&|order| matches!(order.decision, Decision::Refused(_)))));
        assert!((5..=7).contains(&share(&|order| matches!(order.decision, Decision::Unusable(_)))));
        assert!((16..=20).contains(&share(&|order| order.leaves != Leaves::Never)));
        assert!((18..=22).contains(&share(&|order| match order.at_gateway {
            AtGateway::Answers(status) | AtGateway::AnswersSlowly(status, _) => status >= 400 && status != 409,
            AtGateway::Resets | AtGateway::ResetsAfterHead => true,
            AtGateway::AnswersLate(..) => false,
        })));
    }
}
