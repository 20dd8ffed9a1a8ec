//! what an account counts is what its events say they added.

use std::collections::BTreeMap;

use quota::{ClosedCycle, CreditUsage, Event, Ledger, MerchantId, PerPeriod, Period, WindowUsage};

use crate::generate::{CURRENCIES, MERCHANTS, PLAIN_MERCHANTS};

type Account = (String, &'static str);

/// Sums of what events moved, window by window and account by account.
#[derive(Default)]
pub(crate) struct Books {
    /// Amount, count and refunded amount.
    windows: BTreeMap<(Account, Period, u32), [i128; 3]>,
    pending: BTreeMap<Account, i128>,
    /// The usage of each credit line after its last change.
    credit: BTreeMap<Account, CreditUsage>,
    /// The version and the windows of each account, as far as events show.
    accounts: BTreeMap<Account, (u64, PerPeriod<u32>)>,
}

impl Books {
    /// Adds events, and checks the last figures of the windows that they closed.
    pub(crate) fn add(&mut self, events: &[Event]) -> Result<(), String> {
        for event in events {
            let account = (event.command.merchant.to_string(), event.command.currency.code());
            for closed in &event.closed {
                let counter = closed.counter;
                let stated = [counter.amount, counter.count, counter.refunded].map(i128::from);
                let sums = self.windows.get(&(account.clone(), closed.period, counter.id)).copied().unwrap_or_default();
                if sums != stated {
                    return Err(format!("{account:?}: window {} closed with {stated:?}, not {sums:?}", counter.id));
                }
            }
            let is_change = self.follow(&account, event);
            for (period, window) in event.record.windows.iter() {
                let sums = self.windows.entry((account.clone(), period, window.id)).or_default();
                sums.iter_mut().zip(moved(window)).for_each(|(sum, moved)| *sum += moved);
            }
            self.follow_credit(&account, event, is_change)?;
            let record = &event.record;
            *self.pending.entry(account).or_default() += difference(record.pending_before, record.pending_after);
        }
        Ok(())
    }

    /// A reset brings an account back that was in windows which had not begun: what it counted there counts here from now on.
    fn follow(&mut self, account: &Account, event: &Event) -> bool {
        let record = &event.record;
        let (version, left) = self.accounts.get(account).copied().unwrap_or_default();
        if record.code.http_status() != 200 || record.version <= version {
            return false;
        }
        self.accounts.insert(account.clone(), (record.version, record.windows.map(|window| window.id)));
        for (period, window) in record.windows.iter().filter(|(period, window)| window.id < *left.of(*period)) {
            // Later ones of its kind begin anew when their time comes.
            self.windows.retain(|(of, kind, id), _| of != account || *kind != period || *id <= window.id);
            let before = [window.amount_before, window.count_before, window.refunded_before].map(i128::from);
            self.windows.insert((account.clone(), period, window.id), before);
        }
        true
    }

    /// Each event begins with the exposure that the one before it left, and a cycle closes with what it has billed.
    fn follow_credit(&mut self, account: &Account, event: &Event, is_change: bool) -> Result<(), String> {
        // A refused command of a batch was decided after those before it, which were taken back.
        let Some(record) = event.record.credit.filter(|_| is_change) else { return Ok(()) };
        let known = self.credit.entry(account.clone()).or_default();
        let closes = record.cycle > known.cycle && known.cycle > 0;
        let closed = closes.then_some(ClosedCycle { cycle: known.cycle, amount: known.unbilled });
        let unbilled = if record.cycle == known.cycle { known.unbilled } else { 0 };
        let expected = (known.exposure, unbilled, closed);
        let got = (record.exposure_before, record.unbilled_before, event.closed_cycle);
        if got != expected {
            return Err(format!("{account:?}: an event begins with {got:?}, not {expected:?}"));
        }
        *known = record.after();
        Ok(())
    }

    /// Compares every account with the sums of its open windows.
    pub(crate) fn check(&self, ledger: &Ledger) -> Result<(), String> {
        for merchant in MERCHANTS.into_iter().chain(PLAIN_MERCHANTS) {
            for code in CURRENCIES {
                let currency = quota::Currency::parse(code).unwrap();
                let Some(stored) = ledger.account(&MerchantId::parse(merchant).unwrap(), currency) else { continue };
                let account = (merchant.to_owned(), code);
                for (period, counter) in stored.windows.iter() {
                    let counted = [counter.amount, counter.count, counter.refunded].map(i128::from);
                    let sums = self.windows.get(&(account.clone(), period, counter.id)).copied().unwrap_or_default();
                    if sums != counted {
                        return Err(format!("{account:?}: window {} counts {counted:?}, not {sums:?}", counter.id));
                    }
                }
                let pending = self.pending.get(&account).copied().unwrap_or_default();
                let credit = self.credit.get(&account).copied();
                if credit.unwrap_or_default() != stored.credit.unwrap_or_default() {
                    return Err(format!("{account:?}: the credit line has {:?}, not {credit:?}", stored.credit));
                }
                if pending != i128::from(stored.pending) {
                    return Err(format!("{account:?}: {} are pending, not {pending}", stored.pending));
                }
            }
        }
        Ok(())
    }
}

fn moved(window: &WindowUsage) -> [i128; 3] {
    [
        difference(window.amount_before, window.amount_after),
        difference(window.count_before, window.count_after),
        difference(window.refunded_before, window.refunded_after),
    ]
}

fn difference(before: u64, after: u64) -> i128 {
    i128::from(after) - i128::from(before)
}
