//! The rights of this proxy: which account's payments are admitted without a call, when the next right is asked for, and when one is
//! returned. What is admitted is reported by follow-ups.
//!
//! A right is asked for with the check of a payment, or with a report, and has the id of that attempt: it can be returned even if the
//! answer was lost. It is returned once it is not used any more and all of its payments are reported. One whose reports are lost is
//! never returned: the server counts it until an operator does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use proto::right::{Answer, Grant};
use quota::{AmountMinor, HeldRight, Share};
use sluice_rules::Request;

use crate::follow_up::{FollowUp, Kind};

/// Most accounts whose payments may be admitted from rights. One takes some 500 bytes.
pub const ACCOUNTS_MAX: usize = 1024;
/// With so many payments that the server has not acknowledged, others are decided by the server.
pub const UNREPORTED_MAX: u32 = 4096;
/// After a refusal no right of the account is asked for during so many milliseconds.
pub const PAUSE_MS: u64 = 1_000;
/// After so many milliseconds a request for a right counts as unanswered.
pub const UNANSWERED_MS: u64 = 10_000;
/// How many payments the first right of an account is to cover.
const FIRST_COUNT: u64 = 16;
/// A right is renewed when less than one of so many parts of it is left.
const LOW_PART: u64 = 4;

/// A right, shared with the reports of its payments.
pub struct SharedRight {
    /// 32 hexadecimal digits.
    pub id: Arc<str>,
    /// How many of its payments the server has not acknowledged.
    unreported: AtomicU32,
    /// The same of all rights of this proxy.
    all_unreported: Arc<AtomicU32>,
    cluster: Arc<str>,
    /// The encoded request to end it.
    release: Vec<u8>,
}

impl SharedRight {
    /// The server has a payment of it.
    pub fn reported(&self) {
        self.unreported.fetch_sub(1, Ordering::AcqRel);
        self.all_unreported.fetch_sub(1, Ordering::AcqRel);
    }

    /// A payment of it will never be reported: the right is not returned.
    pub fn lost(&self) {
        self.all_unreported.fetch_sub(1, Ordering::AcqRel);
    }

    fn admitted(&self) {
        self.unreported.fetch_add(1, Ordering::AcqRel);
        self.all_unreported.fetch_add(1, Ordering::AcqRel);
    }

    fn is_reported(&self) -> bool {
        self.unreported.load(Ordering::Acquire) == 0
    }

    fn end(&self) -> FollowUp {
        FollowUp::new(Kind::ReleaseRight, Arc::clone(&self.cluster), self.release.clone(), format!("right {}", self.id))
    }
}

impl PartialEq for SharedRight {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for SharedRight {}

impl fmt::Debug for SharedRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRight")
            .field("id", &self.id)
            .field("unreported", &self.unreported)
            .finish_non_exhaustive()
    }
}

/// A right in use.
#[derive(Debug)]
struct Held {
    shared: Arc<SharedRight>,
    right: HeldRight,
    grant: Grant,
    /// When half of its time is over.
    half_ms: u64,
}

impl Held {
    /// Whether the next one is to be asked for.
    fn is_low(&self, now_ms: u64) -> bool {
        let (left, granted) = (self.right.left(), self.grant.granted);
        let low = |left: u64, granted: u64| left.saturating_mul(LOW_PART) < granted;
        now_ms >= self.half_ms || low(left.amount, granted.amount) || low(left.count, granted.count)
    }

    /// What the next one is to cover: twice as much as this one, where it was nearly used up, else twice what was used of it.
    fn next(&self) -> Share {
        let (left, granted) = (self.right.left(), self.grant.granted);
        let next = |left: u64, granted: u64, least: u64| {
            let used = granted.saturating_sub(left);
            let used = if left < granted.div_euclid(LOW_PART) { granted } else { used };
            used.saturating_mul(2).clamp(least, AmountMinor::MAX.get())
        };
        Share { amount: next(left.amount, granted.amount, 1), count: next(left.count, granted.count, 2) }
    }
}

/// One account, by what its payments have in common.
#[derive(Debug, Default)]
struct Account {
    current: Option<Held>,
    /// Not used any more; payments of them may still be on their way to the server.
    ended: Vec<Arc<SharedRight>>,
    is_asked_for: bool,
    /// Until then none is asked for.
    quiet_until_ms: u64,
    /// What the next one is to cover.
    next: Option<Share>,
}

/// A request for a right that has no answer yet, or none that says whether it was granted.
#[derive(Debug)]
struct Ask {
    account: Arc<str>,
    since_ms: u64,
    right: Arc<SharedRight>,
    /// Its account still waits for it.
    is_awaited: bool,
}

#[derive(Debug, Default)]
struct Rights {
    accounts: BTreeMap<Arc<str>, Account>,
    /// By the id of the right.
    asks: BTreeMap<Arc<str>, Ask>,
    unreported: Arc<AtomicU32>,
    /// The name of an account, while it is looked for.
    name: String,
}

/// What a payment of a trusted rule gets.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// The right that admits it; without one the server decides it.
    pub right: Option<Arc<SharedRight>>,
    /// It asks for a right as large as this.
    pub wanted: Option<Share>,
}

/// The rights of this proxy: of one worker, or of all of them where they share memory.
pub struct Holder {
    /// Milliseconds of a clock that never goes back.
    now_ms: Box<dyn Fn() -> u64 + Send + Sync>,
    rights: Mutex<Rights>,
}

impl fmt::Debug for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Holder").finish_non_exhaustive()
    }
}

impl Holder {
    /// Without rights yet.
    #[must_use]
    pub fn new(now_ms: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self { now_ms: Box::new(now_ms), rights: Mutex::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Rights) -> T) -> T {
        // Every change leaves whole values behind, also where it panics.
        change(&mut self.rights.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Admits a payment from a right of its account, if there is one, and says whether it asks for the next one. `id` is that of
    /// its attempt, `release` makes the request to end the right that it asks for.
    pub fn take(&self, cluster: &Arc<str>, request: &Request, id: &str, release: impl FnOnce() -> Vec<u8>) -> Taken {
        let now_ms = (self.now_ms)();
        let amount = request.amount.unwrap_or(AmountMinor::ZERO);
        self.with(|rights| {
            let unreported = Arc::clone(&rights.unreported);
            let Some((name, account)) = rights.account(cluster, request) else { return Taken::default() };
            let mut taken = Taken::default();
            let has_room = unreported.load(Ordering::Acquire) < UNREPORTED_MAX;
            if let Some(held) = account.current.as_mut().filter(|_| has_room) {
                let grant = &held.grant;
                let counted = AmountMinor::new(grant.weight.counts(amount.get()));
                let fits = (grant.single_min..=grant.single_max).contains(&amount);
                if counted.is_some_and(|counted| fits && held.right.take(counted, now_ms)) {
                    held.shared.admitted();
                    taken.right = Some(Arc::clone(&held.shared));
                }
            }
            let is_low = account.current.as_ref().is_none_or(|held| taken.right.is_none() || held.is_low(now_ms));
            if is_low && !account.is_asked_for && now_ms >= account.quiet_until_ms {
                account.is_asked_for = true;
                let next = account.current.as_ref().map(Held::next).or(account.next);
                let first = Share { amount: amount.get().saturating_mul(FIRST_COUNT), count: FIRST_COUNT };
                taken.wanted =
                    Some(next.unwrap_or(first).min(Share { amount: AmountMinor::MAX.get(), count: u64::MAX }));
                let id: Arc<str> = id.into();
                let right = Arc::new(SharedRight {
                    id: Arc::clone(&id),
                    unreported: AtomicU32::new(0),
                    all_unreported: unreported,
                    cluster: Arc::clone(cluster),
                    release: release(),
                });
                rights.asks.insert(id, Ask { account: name, since_ms: now_ms, right, is_awaited: true });
            }
            taken
        })
    }

    /// The answer to the request for the right `id`; `None` if there was none, or it says nothing about the right.
    pub fn answered(&self, id: &str, answer: Option<Answer>) {
        let now_ms = (self.now_ms)();
        self.with(|rights| rights.answered(id, answer, now_ms));
    }

    /// Whether it has no account.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.with(|rights| rights.accounts.is_empty() && rights.asks.is_empty())
    }

    /// What is due at a tick: rights that are returned, and requests that were never answered.
    #[must_use]
    pub fn due(&self) -> Vec<FollowUp> {
        if self.is_empty() {
            return Vec::new();
        }
        let now_ms = (self.now_ms)();
        self.with(|rights| rights.due(now_ms))
    }
}

impl Rights {
    /// The account of a request, with its name; `None` where there are too many.
    fn account(&mut self, cluster: &str, request: &Request) -> Option<(Arc<str>, &mut Account)> {
        self.name.clear();
        let channel = request.channel.as_ref().map_or("", quota::Channel::as_str);
        // None of them has a line feed in it, except a cluster, which is the first.
        for part in [request.merchant.as_str(), "\n", request.currency.code(), "\n", channel, "\n", cluster] {
            self.name.push_str(part);
        }
        if !self.accounts.contains_key(self.name.as_str()) {
            if self.accounts.len() >= ACCOUNTS_MAX {
                return None;
            }
            self.accounts.insert(self.name.as_str().into(), Account::default());
        }
        let (name, _) = self.accounts.get_key_value(self.name.as_str())?;
        let name = Arc::clone(name);
        self.accounts.get_mut(&name).map(|account| (name, account))
    }

    fn answered(&mut self, id: &str, answer: Option<Answer>, now_ms: u64) {
        let Some(ask) = self.asks.get_mut(id) else { return };
        let account = self.accounts.get_mut(&ask.account).filter(|_| ask.is_awaited);
        let Some(account) = account else { return };
        account.is_asked_for = false;
        let Some(Answer::Granted(grant)) = answer else {
            account.quiet_until_ms = now_ms.saturating_add(PAUSE_MS);
            // Without an answer it may have been granted: it is returned later, so that this does not overtake the request.
            ask.is_awaited = false;
            if answer.is_some() {
                self.asks.remove(id);
            }
            return;
        };
        let Some(Ask { since_ms, right, .. }) = self.asks.remove(id) else { return };
        let ttl_ms = u64::from(grant.ttl_ms);
        account.end_current();
        account.current = Some(Held {
            shared: right,
            // From the request on: the server may have granted it at once.
            right: HeldRight::new(grant.granted, since_ms.saturating_add(ttl_ms)),
            grant,
            half_ms: since_ms.saturating_add(ttl_ms.div_euclid(2)),
        });
    }

    fn due(&mut self, now_ms: u64) -> Vec<FollowUp> {
        let mut due = Vec::new();
        let accounts = &mut self.accounts;
        self.asks.retain(|_, ask| {
            let is_waiting = now_ms < ask.since_ms.saturating_add(UNANSWERED_MS);
            if !is_waiting {
                if let Some(account) = accounts.get_mut(&ask.account).filter(|_| ask.is_awaited) {
                    account.is_asked_for = false;
                }
                due.push(ask.right.end());
            }
            is_waiting
        });
        self.accounts.retain(|_, account| {
            if account.current.as_ref().is_some_and(|held| held.right.is_over(now_ms)) {
                account.end_current();
            }
            account.ended.retain(|right| {
                let is_reported = right.is_reported();
                if is_reported {
                    due.push(right.end());
                }
                !is_reported
            });
            let is_idle = account.current.is_none() && account.ended.is_empty() && !account.is_asked_for;
            !is_idle || now_ms < account.quiet_until_ms
        });
        due
    }
}

impl Account {
    fn end_current(&mut self) {
        if let Some(held) = self.current.take() {
            self.next = Some(held.next());
            self.ended.push(held.shared);
        }
    }
}

#[cfg(test)]
mod tests;
