//! Which accounts are cached, and which of their channels.
//!
//! Merchants come from the routes' rules, channels from the payer. So channels are bounded within their account: however many
//! are invented, they evict no other account, and no channel for which the service has an answer of its own.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use quota::{Calendar, Channel, Currency, MerchantId, Policy};
use sluice_policy::ZoneSource;
use tokio::sync::mpsc;

use super::cell::{Account, Cell, State};

/// Accounts whose answers are kept; the one that was used longest ago makes room.
const ACCOUNTS_MAX: usize = 100_000;
/// Accounts whose calendar is kept although nothing else of them is.
const CALENDARS_MAX: usize = 200_000;
/// Channels of one account whose answers are kept, beside the one for all of them.
pub(super) const CHANNELS_MAX: usize = 16;

type Key = (MerchantId, Currency);

/// Whose calendar an account's windows follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccountCalendar {
    /// That of the service's answer for all channels.
    Answered(Calendar),
    /// The service has no policy for the account: that of the policies of Postgres and the file.
    Configured,
    /// The service has not answered yet.
    Unknown,
}

/// The cells of an account and one of its channels.
#[derive(Clone, Debug)]
pub(super) struct Cells {
    pub all: Arc<Cell>,
    /// `None` for a payment without a channel, and for one that found no room.
    pub channel: Option<Arc<Cell>>,
}

/// The cached accounts.
#[derive(Debug)]
pub(super) struct Accounts {
    known: LruCache<Key, Slots>,
    /// Of evicted accounts: closing their windows needs no limits.
    calendars: LruCache<Key, AccountCalendar>,
}

#[derive(Debug)]
struct Slots {
    all: Arc<Cell>,
    channels: Vec<Arc<Cell>>,
}

impl Accounts {
    pub(super) fn new() -> Self {
        let bound = |max| NonZeroUsize::new(max).unwrap_or(NonZeroUsize::MIN);
        Self { known: LruCache::new(bound(ACCOUNTS_MAX)), calendars: LruCache::new(bound(CALENDARS_MAX)) }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    /// The account's cells. New ones are put into the queue; what finds no room there is not cached.
    pub(super) fn cells(
        &mut self,
        merchant: &MerchantId,
        currency: Currency,
        channel: Option<&Channel>,
        queue: &mpsc::Sender<Arc<Cell>>,
    ) -> Cells {
        let key = (merchant.clone(), currency);
        if let Some(slots) = self.known.get_mut(&key) {
            return slots.cells(channel, queue);
        }
        let all = Arc::new(Cell::new(Account { merchant: merchant.clone(), currency, channel: None }));
        let mut slots = Slots { all, channels: Vec::new() };
        if queue.try_send(Arc::clone(&slots.all)).is_err() {
            return Cells { all: slots.all, channel: None };
        }
        let cells = slots.cells(channel, queue);
        if let Some((key, evicted)) = self.known.push(key, slots) {
            self.keep_calendar(key, &evicted.all.state());
        }
        cells
    }

    /// What is cached of an account, as it is: the service is not queried, and the account does not count as used.
    pub(super) fn peek(&self, merchant: &MerchantId, currency: Currency, channel: Option<&Channel>) -> Option<Cells> {
        let slots = self.known.peek(&(merchant.clone(), currency))?;
        Some(Cells { all: Arc::clone(&slots.all), channel: channel.and_then(|channel| slots.channel(channel)) })
    }

    /// The calendar of an account, given the answer for all its channels.
    pub(super) fn calendar(&self, merchant: &MerchantId, currency: Currency, all: Option<&State>) -> AccountCalendar {
        match all.map_or(AccountCalendar::Unknown, State::calendar) {
            AccountCalendar::Unknown => {
                let kept = self.calendars.peek(&(merchant.clone(), currency));
                kept.cloned().unwrap_or(AccountCalendar::Unknown)
            }
            answered => answered,
        }
    }

    /// Applies the present data of every account's zone.
    pub(super) fn renew_zones(&mut self, zones: &dyn ZoneSource) {
        self.all_cells().iter().for_each(|cell| cell.renew_zone(zones));
        for (_, kept) in &mut self.calendars {
            if let AccountCalendar::Answered(calendar) = kept
                && let Some(renewed) = renewed(calendar, zones)
            {
                *calendar = renewed;
            }
        }
    }

    /// Every cell that is kept.
    pub(super) fn all_cells(&self) -> Vec<Arc<Cell>> {
        let slots = self.known.iter().map(|(_, slots)| slots);
        slots.flat_map(|slots| std::iter::once(&slots.all).chain(&slots.channels)).map(Arc::clone).collect()
    }

    /// Evicts an account, or one channel of it; it is queried again when it is next used.
    pub(super) fn evict(&mut self, account: &Account) {
        let key = (account.merchant.clone(), account.currency);
        match &account.channel {
            Some(_) => {
                if let Some(slots) = self.known.peek_mut(&key) {
                    slots.channels.retain(|cell| cell.account() != account);
                }
            }
            None => {
                if let Some(slots) = self.known.pop(&key) {
                    self.keep_calendar(key, &slots.all.state());
                }
            }
        }
    }

    fn keep_calendar(&mut self, key: Key, all: &State) {
        let calendar = all.calendar();
        if calendar != AccountCalendar::Unknown {
            self.calendars.put(key, calendar);
        }
    }
}

impl Slots {
    fn channel(&self, channel: &Channel) -> Option<Arc<Cell>> {
        self.channels.iter().find(|cell| cell.account().channel.as_ref() == Some(channel)).map(Arc::clone)
    }

    fn cells(&mut self, channel: Option<&Channel>, queue: &mpsc::Sender<Arc<Cell>>) -> Cells {
        let channel = channel.and_then(|channel| self.channel(channel).or_else(|| self.add(channel, queue)));
        Cells { all: Arc::clone(&self.all), channel }
    }

    fn add(&mut self, channel: &Channel, queue: &mpsc::Sender<Arc<Cell>>) -> Option<Arc<Cell>> {
        if self.channels.len() >= CHANNELS_MAX {
            let spare = self.spare()?;
            self.channels.swap_remove(spare);
        }
        let account = Account { channel: Some(channel.clone()), ..self.all.account().clone() };
        let cell = Arc::new(Cell::new(account));
        queue.try_send(Arc::clone(&cell)).ok()?;
        self.channels.push(Arc::clone(&cell));
        Some(cell)
    }

    /// The index of the channel that was used longest ago among those that can be evicted: those whose answer does not differ
    /// from the account's own. So no account has more than a few queries in the queue, either.
    fn spare(&self) -> Option<usize> {
        let all = self.all.state();
        let indexed = self.channels.iter().enumerate();
        let spare = indexed.filter(|(_, cell)| match cell.state() {
            State::New => false,
            State::Known(policy) | State::LastKnown(policy) => !differs(&policy, all.policy()),
            State::Absent | State::Nothing => true,
        });
        spare.min_by_key(|(_, cell)| cell.used_at_ms()).map(|(index, _)| index)
    }
}

/// The calendar by the present data of its zone; `None` where it is the same.
pub(super) fn renewed(calendar: &Calendar, zones: &dyn ZoneSource) -> Option<Calendar> {
    let zone = zones.zone(calendar.zone_name()).ok()?;
    Some(calendar.with_zone(zone)).filter(|renewed| renewed != calendar)
}

/// Whether a channel's policy says something else than the account's. Versions name the answers; calendar, thresholds and trust are
/// the account's.
fn differs(channel: &Policy, all: Option<&Arc<Policy>>) -> bool {
    all.is_none_or(|all| {
        let Policy { version, calendar, calendar_known, trust, threshold_policy, .. } = all.as_ref();
        let alike = Policy {
            version: Arc::clone(version),
            calendar: calendar.clone(),
            calendar_known: *calendar_known,
            trust: *trust,
            threshold_policy: threshold_policy.clone(),
            ..channel.clone()
        };
        alike != **all
    })
}

#[cfg(test)]
mod tests;
