//! What the generator is to do, and what came of it.

use std::net::SocketAddr;
use std::time::Duration;

use hdrhistogram::Histogram;

use testkit::{Failure, Result};

/// Size of a payment's body where a study says nothing else.
pub(super) const BODY_BYTES: usize = 250;
/// Amount of every payment, in cents.
pub(super) const AMOUNT_MINOR: u64 = 1_050;
/// Longest latency that is distinguished, in microseconds.
const LATENCY_MAX_US: u64 = 60_000_000;

/// Merchants with one prefix, numbered from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Payers {
    pub prefix: &'static str,
    pub count: u32,
}

impl Payers {
    /// A merchant's name; all of a prefix are equally long.
    pub(super) fn name(prefix: &str, number: usize) -> String {
        format!("{prefix}{number:06}")
    }
}

/// When each payment begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// Each connection's next one when its last one is answered.
    Closed,
    /// So many a second whatever the answers do. A payment's latency counts from when it was due, so that waiting behind a
    /// late answer is counted too.
    Fixed { per_second: f64 },
}

/// When a stretch is over.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stop {
    After(Duration),
    /// Each connection so many payments.
    Payments {
        each: u64,
    },
}

/// Which answers are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// 200 from the gateway, with the order's own number.
    Admitted,
    /// As admitted until the limit is reached, then a refusal with one of these statuses.
    Race { statuses: &'static [u16] },
    /// A refusal with this code that names the limit of the very merchant: `limit_base` and the merchant's number.
    Refused { code: &'static str, limit_base: u64 },
}

/// One stretch of load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub address: SocketAddr,
    pub connections: usize,
    pub stop: Stop,
    pub pace: Pace,
    pub payers: Payers,
    /// Each order is sent so many times, one after the other.
    pub repeats: u64,
    pub body_bytes: usize,
    /// The merchant also as a header, for filters that do not read bodies.
    pub merchant_header: bool,
    pub expect: Expect,
    /// Keeps this stretch's orders apart from all others.
    pub round: u64,
}

impl Plan {
    /// Payments as fast as they are answered, each of its own order.
    pub(super) fn new(address: SocketAddr, connections: usize, stop: Stop, payers: Payers, round: u64) -> Self {
        Self {
            address,
            connections,
            stop,
            pace: Pace::Closed,
            payers,
            repeats: 1,
            body_bytes: BODY_BYTES,
            merchant_header: false,
            expect: Expect::Admitted,
            round,
        }
    }

    /// The merchant of a connection's order: connections begin at different ones, so that all get their turn early.
    pub(super) fn payer(&self, connection: usize, order: u64) -> usize {
        let count = u64::from(self.payers.count);
        let begin = count * connection as u64 / self.connections as u64;
        (begin.wrapping_add(order) % count.max(1)) as usize
    }
}

/// What came of a stretch.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub plan: Plan,
    pub requests: u64,
    pub admitted: u64,
    /// Answers with another status, or for another order, than they should have had.
    pub wrong: u64,
    pub elapsed: Duration,
    /// Processor time of the generator.
    pub cpu: Duration,
    /// In microseconds.
    pub latency: Histogram<u64>,
    /// Orders charged, by the merchant's number. An order that is repeated counts once.
    pub by_payer: Vec<u32>,
}

impl Tally {
    pub(super) fn empty(plan: Plan) -> Result<Self> {
        let latency =
            Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).map_err(|error| Failure::new(error.to_string()))?;
        Ok(Self {
            plan,
            requests: 0,
            admitted: 0,
            wrong: 0,
            elapsed: Duration::ZERO,
            cpu: Duration::ZERO,
            latency,
            by_payer: vec![0; plan.payers.count as usize],
        })
    }

    /// Adds what came of another stretch of the same plan.
    pub(super) fn absorb(&mut self, other: &Self) {
        self.requests += other.requests;
        self.admitted += other.admitted;
        self.wrong += other.wrong;
        self.elapsed += other.elapsed;
        self.cpu += other.cpu;
        self.latency += &other.latency;
        self.by_payer.iter_mut().zip(&other.by_payer).for_each(|(own, other)| *own += other);
    }
}
