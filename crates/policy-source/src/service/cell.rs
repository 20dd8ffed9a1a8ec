//! What is known of one account.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, Ordering};
use std::time::Duration;

use quota::{Channel, Currency, MerchantId, Policy};
use sluice_policy::ZoneSource;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{error, info, warn};

use super::accounts::{self, AccountCalendar};
use crate::metrics::Step;

/// The account, or a channel of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Account {
    pub merchant: MerchantId,
    pub currency: Currency,
    pub channel: Option<Channel>,
}

/// The service's answer.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// It was not queried yet.
    New,
    Known(Arc<Policy>),
    /// An earlier answer; there was no usable one since.
    LastKnown(Arc<Policy>),
    /// It answered that it has no policy.
    Absent,
    /// There was never a usable answer.
    Nothing,
}

impl State {
    /// The policy of the last usable answer, if that had one.
    pub(super) const fn policy(&self) -> Option<&Arc<Policy>> {
        match self {
            Self::Known(policy) | Self::LastKnown(policy) => Some(policy),
            Self::New | Self::Absent | Self::Nothing => None,
        }
    }

    /// The calendar that counts, by the answer for all channels.
    pub(super) fn calendar(&self) -> AccountCalendar {
        match self {
            Self::Known(policy) | Self::LastKnown(policy) => AccountCalendar::Answered(policy.calendar.clone()),
            Self::Absent => AccountCalendar::Configured,
            Self::New | Self::Nothing => AccountCalendar::Unknown,
        }
    }
}

/// One account.
#[derive(Debug)]
pub struct Cell {
    account: Account,
    state: watch::Sender<State>,
    used_at_ms: AtomicI64,
    /// The last fallback that was logged; 0 for none.
    logged: AtomicU8,
}

impl Cell {
    pub(super) fn new(account: Account) -> Self {
        Self {
            account,
            state: watch::Sender::new(State::New),
            used_at_ms: AtomicI64::new(i64::MIN),
            logged: AtomicU8::new(0),
        }
    }

    pub(super) const fn account(&self) -> &Account {
        &self.account
    }

    pub(super) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(super) fn is_new(&self) -> bool {
        matches!(*self.state.borrow(), State::New)
    }

    pub(super) fn use_at(&self, now_ms: i64) {
        self.used_at_ms.fetch_max(now_ms, Ordering::Relaxed);
    }

    pub(super) fn used_at_ms(&self) -> i64 {
        self.used_at_ms.load(Ordering::Relaxed)
    }

    /// Waits for the first answer, but no longer than `at_most`.
    pub(super) async fn wait(&self, at_most: Duration) {
        let mut state = self.state.subscribe();
        // Where no answer comes, in time or at all, the state stays new.
        let _ = timeout(at_most, state.wait_for(|state| !matches!(state, State::New))).await;
    }

    /// The service's answer.
    pub(super) fn known(&self, policy: Arc<Policy>) {
        self.state.send_replace(State::Known(policy));
        if self.logged.swap(0, Ordering::Relaxed) != 0 {
            let Account { merchant, currency, .. } = &self.account;
            info!(%merchant, %currency, "policy service answers for the account again");
        }
    }

    /// There was no answer that could be used.
    pub(super) fn unknown(&self) {
        self.state.send_modify(|state| {
            *state = match state {
                State::Known(policy) | State::LastKnown(policy) => State::LastKnown(Arc::clone(policy)),
                State::Absent => State::Absent,
                State::New | State::Nothing => State::Nothing,
            };
        });
        if matches!(*self.state.borrow(), State::LastKnown(_)) {
            self.log_fallback(Step::LastKnown);
        }
    }

    /// The service has no policy for the account.
    pub(super) fn absent(&self) {
        self.state.send_replace(State::Absent);
    }

    /// Applies the present data of the policy's zone.
    pub(super) fn renew_zone(&self, zones: &dyn ZoneSource) {
        self.state.send_modify(|state| match state {
            State::Known(policy) | State::LastKnown(policy) => {
                if let Some(calendar) = accounts::renewed(&policy.calendar, zones) {
                    *policy = Arc::new(Policy { calendar, ..Policy::clone(policy) });
                }
            }
            State::New | State::Absent | State::Nothing => {}
        });
    }

    /// Logs once that the account uses a fallback for the service's policy.
    pub(crate) fn log_fallback(&self, step: Step) {
        let number = step as u8 + 1;
        if self.logged.swap(number, Ordering::Relaxed) == number {
            return;
        }
        let Account { merchant, currency, channel } = &self.account;
        let (step, channel) = (step.into_str(), channel.as_ref().map(Channel::as_str));
        if number > Step::Configured as u8 + 1 {
            error!(%merchant, %currency, channel, step, "no policy available, the default limits hold for the account");
        } else {
            warn!(%merchant, %currency, channel, step, "policy service does not answer for the account");
        }
    }
}
