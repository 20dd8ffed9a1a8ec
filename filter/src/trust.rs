//! The rights of this proxy: which account's payments are admitted without a call, when the next right is asked for, and when one is
//! returned. What is admitted is reported by follow-ups.
//!
//! A right is asked for with the check of a payment, or with a report, and has the id of that attempt: it can be returned even if the
//! answer was lost. It is returned once it is not used any more and all of its payments are reported. One whose reports are lost is
//! never returned: the server counts it until an operator does.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
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
/// The same without an answer: each unanswered request has to be followed by a release.
pub const PAUSE_UNANSWERED_MS: u64 = 10_000;
/// After so many milliseconds a request for a right counts as unanswered: longer than a rule waits for an answer.
pub const UNANSWERED_MS: u64 = 40_000;
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
    /// A payment of it will never be reported, so it is never returned.
    is_lost: AtomicBool,
    /// The unreported payments of all rights of this proxy.
    all_unreported: Arc<AtomicU32>,
    cluster: Arc<str>,
    /// The encoded request to end it.
    release: Vec<u8>,
}

impl SharedRight {
    fn is_reported(&self) -> bool {
        self.unreported.load(Ordering::Acquire) == 0
    }

    fn end(&self) -> FollowUp {
        FollowUp::new(Kind::ReleaseRight, Arc::clone(&self.cluster), self.release.clone(), format!("right {}", self.id))
    }
}

impl fmt::Debug for SharedRight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedRight")
            .field("id", &self.id)
            .field("unreported", &self.unreported)
            .finish_non_exhaustive()
    }
}

/// A payment of a right, shared by all copies of its report. It is acknowledged once; without that it is lost with the last copy.
#[derive(Debug)]
pub struct Unreported {
    right: Arc<SharedRight>,
    is_acknowledged: AtomicBool,
}

impl Unreported {
    fn of(right: &Arc<SharedRight>) -> Arc<Self> {
        right.unreported.fetch_add(1, Ordering::AcqRel);
        right.all_unreported.fetch_add(1, Ordering::AcqRel);
        Arc::new(Self { right: Arc::clone(right), is_acknowledged: AtomicBool::new(false) })
    }

    /// The right's id.
    #[must_use]
    pub fn right_id(&self) -> &Arc<str> {
        &self.right.id
    }

    /// The server has it.
    pub fn acknowledge(&self) {
        if !self.is_acknowledged.swap(true, Ordering::AcqRel) {
            less(&self.right.unreported);
            less(&self.right.all_unreported);
        }
    }
}

impl Drop for Unreported {
    fn drop(&mut self) {
        if !self.is_acknowledged.load(Ordering::Acquire) {
            self.right.is_lost.store(true, Ordering::Release);
            less(&self.right.all_unreported);
        }
    }
}

impl PartialEq for Unreported {
    fn eq(&self, other: &Self) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Unreported {}

/// One less, if there is one.
fn less(number: &AtomicU32) {
    let _ = number.fetch_update(Ordering::AcqRel, Ordering::Acquire, |number| number.checked_sub(1));
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
    /// It is admitted from a right; without one the server decides it.
    pub right: Option<Arc<Unreported>>,
    /// It asks for a right as large as this.
    pub wanted: Option<Share>,
}

/// The rights of this proxy: of one worker, or of all of them where they share memory.
pub struct Holder {
    /// Milliseconds of a clock that never goes back; `None` if it cannot be read.
    now_ms: Box<dyn Fn() -> Option<u64> + Send + Sync>,
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
    pub fn new(now_ms: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        Self { now_ms: Box::new(now_ms), rights: Mutex::default() }
    }

    fn with<T>(&self, change: impl FnOnce(&mut Rights) -> T) -> T {
        // Every change leaves whole values behind, also where it panics.
        change(&mut self.rights.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Admits a payment from a right of its account, if there is one, and says whether it asks for the next one. `id` is that of
    /// its attempt, `release` makes the request to end the right that it asks for.
    pub fn take(&self, cluster: &Arc<str>, request: &Request, id: &str, release: impl FnOnce() -> Vec<u8>) -> Taken {
        // Without a clock no right is used or asked for.
        let Some(now_ms) = (self.now_ms)() else { return Taken::default() };
        let amount = request.amount.unwrap_or(AmountMinor::ZERO);
        self.with(|rights| {
            let unreported = Arc::clone(&rights.unreported);
            let Some((name, account)) = rights.account(cluster, request) else { return Taken::default() };
            let mut taken = Taken::default();
            let has_room = unreported.load(Ordering::Acquire) < UNREPORTED_MAX;
            let mut counts = amount.get();
            if let Some(held) = account.current.as_mut() {
                let grant = &held.grant;
                counts = grant.weight.counts(amount.get());
                // Whatever its right has left, the server decides it.
                if !has_room || !(grant.single_min..=grant.single_max).contains(&amount) {
                    return taken;
                }
                if AmountMinor::new(counts).is_some_and(|counted| held.right.take(counted, now_ms)) {
                    taken.right = Some(Unreported::of(&held.shared));
                }
            }
            let is_low = account.current.as_ref().is_none_or(|held| taken.right.is_none() || held.is_low(now_ms));
            if is_low && has_room && !account.is_asked_for && now_ms >= account.quiet_until_ms {
                account.is_asked_for = true;
                let first = Share { amount: counts.saturating_mul(FIRST_COUNT), count: FIRST_COUNT };
                let mut next = account.current.as_ref().map(Held::next).or(account.next).unwrap_or(first);
                // The next one is to have room for payments as large as this.
                next.amount = next.amount.max(if taken.right.is_none() { first.amount } else { counts });
                taken.wanted = Some(next.min(Share { amount: AmountMinor::MAX.get(), count: u64::MAX }));
                let id: Arc<str> = id.into();
                let right = Arc::new(SharedRight {
                    id: Arc::clone(&id),
                    unreported: AtomicU32::new(0),
                    is_lost: AtomicBool::new(false),
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
        self.with(|rights| rights.answered(id, answer));
    }

    /// The request for the right `id` was never sent.
    pub fn not_asked(&self, id: &str) {
        self.with(|rights| {
            rights.answered(id, Some(Answer::Refused));
        });
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
        let Some(now_ms) = (self.now_ms)() else { return Vec::new() };
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

    fn answered(&mut self, id: &str, answer: Option<Answer>) {
        let Some(ask) = self.asks.get_mut(id) else { return };
        let account = self.accounts.get_mut(&ask.account).filter(|_| ask.is_awaited);
        let Some(account) = account else { return };
        account.is_asked_for = false;
        let Some(Answer::Granted(grant)) = answer else {
            let pause_ms = if answer.is_some() { PAUSE_MS } else { PAUSE_UNANSWERED_MS };
            account.quiet_until_ms = ask.since_ms.saturating_add(pause_ms);
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
            // One that has lost a payment stays counted.
            account.ended.retain(|right| !right.is_lost.load(Ordering::Acquire));
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
