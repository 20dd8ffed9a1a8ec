//! Operators' commands on an account.

use super::{Case, Verdict};
use crate::command::storable;
use crate::{Adjust, AmountMinor, Change, Code, Counter, Period, Reset, WindowIds};

impl Case<'_> {
    pub(super) fn adjust(&self, adjust: &Adjust) -> Verdict {
        if self.is_another_version(adjust.expected_version) {
            return self.answer(Code::VersionConflict);
        }
        let mut after = self.account;
        let counter = adjust.counter.of_mut(&mut after);
        let changed = match adjust.change {
            Change::Add(more) => AmountMinor::new(*counter + more.get()),
            Change::Subtract(less) => counter.checked_sub(less.get()).and_then(AmountMinor::new),
            Change::Set(value) => Some(value),
        };
        match changed {
            Some(value) => {
                *counter = value.get();
                self.answer(Code::Applied).account(after)
            }
            None => self.answer(Code::BadAmount),
        }
    }

    pub(super) fn reset(&self, reset: &Reset) -> Verdict {
        if self.is_another_version(reset.expected_version) {
            return self.answer(Code::VersionConflict);
        }
        let mut after = self.account;
        if self.is_ahead() {
            after = after.brought_back(self.command.windows);
            after.paced_until_us = after.paced_until_us.min(self.now_ms * 1000);
        }
        for period in Period::ALL.into_iter().filter(|period| *reset.windows.of(*period)) {
            let counter = after.of_mut(period);
            *counter = Counter { id: counter.id, epoch: counter.epoch.wrapping_add(1), ..Counter::default() };
        }
        self.answer(Code::Applied).account(after)
    }

    /// Whether the account is in windows that the store's time has not reached, and the command has the current ones: it does
    /// not where its day has ended by the store's time.
    fn is_ahead(&self) -> bool {
        let WindowIds { ids, until_ms, .. } = &self.command.windows;
        self.stored.windows.day.id > ids.day && storable(self.store_ms) < storable(*until_ms)
    }

    fn is_another_version(&self, expected: Option<u64>) -> bool {
        expected.is_some_and(|expected| expected != self.account.version)
    }

    pub(super) fn suspend(&self, suspended: bool) -> Verdict {
        if (self.account.suspended_at_ms > 0) == suspended {
            return self.answer(Code::Applied).replayed().unjournaled();
        }
        let mut after = self.account;
        after.suspended_at_ms = if suspended { self.now_ms.max(1) } else { 0 };
        self.answer(Code::Applied).account(after)
    }

    pub(super) fn initialize(&self) -> Verdict {
        if self.exists {
            return self.answer(Code::Applied).replayed().unjournaled();
        }
        self.answer(Code::Applied).account(self.account)
    }

    pub(super) fn roll(&self) -> Verdict {
        if !self.exists || (self.account == self.stored && self.levels(&self.account) == self.account.levels) {
            return self.answer(Code::Applied).replayed().unjournaled();
        }
        self.answer(Code::Applied).account(self.account)
    }
}
