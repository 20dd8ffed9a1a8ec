//! Payments that keep coming while parts break, each remembered with its answer; and the judgement of all of them at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use testkit::books::{books_agree, journal_is_whole, rights_returned, voids_done};
use testkit::client::{Client, Payment, Protocol};
use testkit::policies;
use testkit::stack::{Stack, StackOptions};
use testkit::{Context, Result, wait};
use tokio::task::JoinHandle;

/// Every payment's amount, in cents.
const CENTS: u64 = 100;
/// Merchants that are charged, so that several shards work.
const MERCHANTS: usize = 6;
/// Connections, half of them of each protocol.
const CLIENTS: usize = 8;
/// A client that is asked to come back later does.
const BACK_OFF: Duration = Duration::from_millis(40);
/// How long payments may take to be answered in the numbers that a scenario waits for.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
/// No payment takes longer with the shipped settings, whatever happens to the parts: half a second, and a busy machine.
pub(crate) const PROMPT: Duration = Duration::from_secs(4);
/// The same for a stack with more time than that.
pub(crate) const PATIENT: Duration = Duration::from_secs(15);

/// An order with the last answer that its client got.
struct Paid {
    merchant: String,
    order: String,
    /// Through Envoy's own filter.
    native: bool,
    status: u16,
    /// The longest that any of its answers took.
    took: Duration,
}

/// Clients at work.
pub(crate) struct Traffic {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<Vec<Paid>>>>,
}

/// A stack whose merchants have room for all payments, and whose journal takes a dead server's events over at once.
pub(crate) fn roomy(options: StackOptions) -> StackOptions {
    let merchants: Vec<String> =
        (0..MERCHANTS).map(|number| format!("{}: {{tier: roomy}}", merchant(number))).collect();
    let mut options = StackOptions { policies: Some(policies::with("roomy", &merchants.join("\n"))), ..options };
    options.server_env.insert("SLUICE_JOURNAL_LEASE_MS".to_owned(), "1000".to_owned());
    options
}

fn merchant(number: usize) -> String {
    format!("busy{}", number % MERCHANTS)
}

impl Traffic {
    /// Starts the clients. Every fifth payment fails at the gateway; every other client tries a payment again that was
    /// answered 503.
    pub(crate) async fn start(stack: &Stack) -> Result<Self> {
        Self::with_clients(stack, false).await
    }

    /// The same, half of them through Envoy's own filter. It voids nothing, so no payment of these fails at the gateway.
    pub(crate) async fn start_both_ways(stack: &Stack) -> Result<Self> {
        Self::with_clients(stack, true).await
    }

    async fn with_clients(stack: &Stack, both_ways: bool) -> Result<Self> {
        let mut traffic =
            Self { stop: Arc::default(), answered: Arc::default(), refused: Arc::default(), clients: Vec::new() };
        for number in 0..CLIENTS {
            let client = stack.client(Protocol::BOTH[number % 2]).await?;
            let worker = Worker {
                number,
                client,
                native: both_ways && number % 4 >= 2,
                stop: Arc::clone(&traffic.stop),
                answered: Arc::clone(&traffic.answered),
                refused: Arc::clone(&traffic.refused),
            };
            traffic.clients.push(tokio::spawn(worker.run()));
        }
        Ok(traffic)
    }

    /// Waits until so many more payments were answered, with whatever.
    pub(crate) async fn answers(&self, count: u64) -> Result<()> {
        self.count(&self.answered, count).await.context("payments answered")
    }

    /// Waits until so many more payments were answered 503.
    pub(crate) async fn refusals(&self, count: u64) -> Result<()> {
        self.count(&self.refused, count).await.context("payments answered 503")
    }

    /// How many payments were answered 503 so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    async fn count(&self, counter: &AtomicU64, count: u64) -> Result<()> {
        let until = counter.load(Ordering::Relaxed) + count;
        wait::until_async(&format!("{count} more"), ANSWERED_WITHIN, || async {
            ensure!(!self.clients.iter().any(JoinHandle::is_finished), "a client gave up");
            Ok((counter.load(Ordering::Relaxed) >= until).then_some(()))
        })
        .await
    }

    /// Stops the clients and judges: every order whose client received 200 is charged exactly once, every other one is
    /// not charged; counters and journal agree; no event is missing and no payment took longer than `longest`. Gives
    /// the number of 503.
    pub(crate) async fn judge(self, stack: &Stack, longest: Duration) -> Result<u64> {
        self.judge_each(stack, longest, |_| false).await
    }

    /// The same after a server was killed. What it charged without an answer is voided by the filter, and by nothing where Envoy's own
    /// filter asked: there the order stays charged, and a client that tries again is admitted without another charge.
    pub(crate) async fn judge_after_a_kill(self, stack: &Stack, longest: Duration) -> Result<u64> {
        self.judge_each(stack, longest, |paid| paid.native && paid.status == 503).await
    }

    async fn judge_each(self, stack: &Stack, longest: Duration, may_be_charged: fn(&Paid) -> bool) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let mut paid = Vec::new();
        for client in self.clients {
            paid.extend(client.await??);
        }
        voids_done(stack).await?;
        rights_returned(stack).await?;
        for given_up in ["sluice_void_lost", "sluice_report_lost"] {
            ensure!(stack.envoy.metric(given_up)?.abs() < 0.5, "{given_up}");
        }
        for number in 0..MERCHANTS {
            let merchant = merchant(number);
            let paid: Vec<&Paid> = paid.iter().filter(|paid| paid.merchant == merchant).collect();
            let slow = paid.iter().find(|paid| paid.took > longest);
            ensure!(slow.is_none(), "{:?} took {:?}", slow.map(|paid| &paid.order), slow.map(|paid| paid.took));
            orders_are_charged_as_answered(stack, &merchant, &paid, may_be_charged).await.context(merchant)?;
        }
        journal_is_whole(stack).await?;
        Ok(self.refused.load(Ordering::Relaxed))
    }
}

async fn orders_are_charged_as_answered(
    stack: &Stack,
    merchant: &str,
    paid: &[&Paid],
    may_be_charged: fn(&Paid) -> bool,
) -> Result<()> {
    let mut charged: BTreeMap<String, (i128, i128)> = BTreeMap::new();
    let mut from_rights = (0, 0);
    for entry in books_agree(stack, merchant).await? {
        let (mut amount, mut count) = entry.day_change();
        if entry.charged_a_right() {
            (amount, count) = (amount + i128::from(CENTS), count + 1);
            from_rights = (from_rights.0 + amount, from_rights.1 + count);
        }
        let sum = charged.entry(entry.order_no).or_default();
        *sum = (sum.0 + amount, sum.1 + count);
    }
    let rights = charged.remove("").unwrap_or_default();
    ensure_eq!(rights, from_rights, "what rights set aside and did not return, and what was charged from them");
    let seen: BTreeSet<String> = stack.gateway.seen().into_iter().filter_map(|seen| seen.order_no).collect();
    for paid in paid {
        let Paid { order, status, .. } = paid;
        let (once, never) = ((i128::from(CENTS), 1), (0, 0));
        let expected = if *status == 200 { once } else { never };
        let is = charged.remove(order).unwrap_or_default();
        if is != once || !may_be_charged(paid) {
            ensure_eq!(is, expected, "{order} was answered {status}");
        }
        ensure!(*status == 503 || seen.contains(order), "{order} was answered {status} and the gateway never saw it");
        ensure!(*status != 503 || !seen.contains(order), "{order} was answered 503 and went to the gateway");
    }
    ensure!(charged.is_empty(), "orders that no client paid: {charged:?}");
    Ok(())
}

struct Worker {
    number: usize,
    client: Client,
    /// Through Envoy's own filter.
    native: bool,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Worker {
    async fn run(mut self) -> Result<Vec<Paid>> {
        let mut paid = Vec::new();
        while !self.stop.load(Ordering::Relaxed) {
            let merchant = merchant(self.number + paid.len());
            let order = format!("{merchant}-{}-{}", self.number, paid.len());
            let mut payment = Payment::new(&merchant, &order, CENTS);
            if self.native {
                payment = payment.path("/native/v1/payments");
            } else if paid.len() % 5 == 4 {
                payment = payment.gateway("fail-422");
            }
            let (status, took) = self.pay(&order, &payment).await?;
            paid.push(Paid { merchant, order, native: self.native, status, took });
        }
        Ok(paid)
    }

    async fn pay(&mut self, order: &str, payment: &Payment) -> Result<(u16, Duration)> {
        let mut longest = Duration::ZERO;
        loop {
            let since = Instant::now();
            let answer = self.client.send(payment.call()).await.context(order)?;
            longest = longest.max(since.elapsed());
            self.answered.fetch_add(1, Ordering::Relaxed);
            ensure!(matches!(answer.status, 200 | 422 | 503), "{order}: {} {}", answer.status, answer.json());
            if answer.status != 503 {
                return Ok((answer.status, longest));
            }
            // Envoy's own filter has no body for this.
            let is_known = self.native || ["AUTHZ_UNAVAILABLE", "STORE_UNAVAILABLE"].contains(&answer.code().as_str());
            ensure!(is_known, "{order}: {}", answer.json());
            self.refused.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(BACK_OFF).await;
            if self.number.is_multiple_of(2) || self.stop.load(Ordering::Relaxed) {
                return Ok((503, longest));
            }
        }
    }
}
