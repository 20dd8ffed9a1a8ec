//! what an account counts is what its events say they added.

use std::collections::BTreeMap;

use quota::{Event, Ledger, MerchantId, Period, WindowFigures};

use crate::generate::{CURRENCIES, MERCHANTS};

type Account = (String, &'static str);

/// Sums of what events moved, window by window and account by account.
#[derive(Default)]
pub(crate) struct Books {
    /// Amount, count and refunded amount.
    windows: BTreeMap<(Account, u32), [i128; 3]>,
    pending: BTreeMap<Account, i128>,
}

impl Books {
    /// Adds events, and checks the last figures of the windows that they closed.
    pub(crate) fn add(&mut self, events: &[Event]) -> Result<(), String> {
        for event in events {
            let account = (event.command.merchant.to_string(), event.command.currency.code());
            for closed in &event.closed {
                let counter = closed.counter;
                let told = [counter.amount, counter.count, counter.refunded].map(i128::from);
                let sums = self.windows.get(&(account.clone(), counter.id)).copied().unwrap_or_default();
                if sums != told {
                    return Err(format!("{account:?}: window {} closed with {told:?}, not {sums:?}", counter.id));
                }
            }
            for window in Period::ALL.map(|period| event.record.of(period)) {
                let sums = self.windows.entry((account.clone(), window.id)).or_default();
                sums.iter_mut().zip(moved(&window)).for_each(|(sum, moved)| *sum += moved);
            }
            let record = &event.record;
            *self.pending.entry(account).or_default() += difference(record.pending_before, record.pending_after);
        }
        Ok(())
    }

    /// Compares every account with the sums of its open windows.
    pub(crate) fn check(&self, ledger: &Ledger) -> Result<(), String> {
        for merchant in MERCHANTS {
            for code in CURRENCIES {
                let currency = quota::Currency::parse(code).unwrap();
                let Some(stored) = ledger.account(&MerchantId::parse(merchant).unwrap(), currency) else { continue };
                let account = (merchant.to_owned(), code);
                for counter in Period::ALL.map(|period| *stored.of(period)) {
                    let counted = [counter.amount, counter.count, counter.refunded].map(i128::from);
                    let sums = self.windows.get(&(account.clone(), counter.id)).copied().unwrap_or_default();
                    if sums != counted {
                        return Err(format!("{account:?}: window {} counts {counted:?}, not {sums:?}", counter.id));
                    }
                }
                let pending = self.pending.get(&account).copied().unwrap_or_default();
                if pending != i128::from(stored.pending) {
                    return Err(format!("{account:?}: {} are pending, not {pending}", stored.pending));
                }
            }
        }
        Ok(())
    }
}

fn moved(window: &WindowFigures) -> [i128; 3] {
    [
        difference(window.amount_before, window.amount_after),
        difference(window.count_before, window.count_after),
        difference(window.refunded_before, window.refunded_after),
    ]
}

fn difference(before: u64, after: u64) -> i128 {
    i128::from(after) - i128::from(before)
}
