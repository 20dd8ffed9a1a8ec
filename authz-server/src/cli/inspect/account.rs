//! An account as it is stored.

use chrono::{DateTime, SecondsFormat};
use quota::{Account, Calendar, Counter, Currency, Merchant, MerchantId};
use serde::Serialize;

use super::Shown;
use sluice_api::admin::rights::RightView;

#[derive(Debug, Serialize)]
struct CounterShown {
    /// As in 20261121, 202611 or 2026; 0 before the first charge.
    window: u32,
    /// How often the window was reset.
    epoch: u8,
    amount: u64,
    transactions: u64,
    refunded: u64,
}

impl CounterShown {
    fn of(counter: &Counter) -> Self {
        let Counter { id, epoch, amount, count, refunded } = *counter;
        Self { window: id, epoch, amount, transactions: count, refunded }
    }

    fn text(&self) -> String {
        let Self { window, epoch, amount, transactions, refunded } = self;
        let reset = if *epoch > 0 { format!(", reset {epoch} times") } else { String::new() };
        format!("window {window}: used {amount} in {transactions} transactions, refunded {refunded}{reset}")
    }
}

#[derive(Debug, Serialize)]
struct WindowsShown {
    day: CounterShown,
    week: CounterShown,
    month: CounterShown,
    year: CounterShown,
}

/// The account's rights that have not ended: what they have left is part of what the windows have used.
#[derive(Debug, Default, Serialize)]
pub(super) struct RightsShown {
    outstanding: u64,
    left_amount: u64,
    /// A number of payments.
    left_count: u64,
    /// Those whose holder is lost.
    orphaned: u64,
}

impl RightsShown {
    pub(super) fn of(rights: &[RightView]) -> Self {
        rights.iter().fold(Self::default(), |sum, right| Self {
            outstanding: sum.outstanding.saturating_add(1),
            left_amount: sum.left_amount.saturating_add(right.left_amount),
            left_count: sum.left_count.saturating_add(right.left_count),
            orphaned: sum.orphaned.saturating_add(u64::from(right.orphaned)),
        })
    }

    fn text(&self) -> String {
        let Self { outstanding, left_amount, left_count, orphaned } = self;
        if *outstanding == 0 {
            return "none outstanding".to_owned();
        }
        format!("{outstanding} outstanding: {left_amount} in {left_count} transactions left, {orphaned} orphaned")
    }
}

#[derive(Debug, Serialize)]
pub(super) struct AccountShown {
    merchant_id: String,
    currency: &'static str,
    version: u64,
    windows: WindowsShown,
    /// The day has begun nowhere yet: a server's clock was ahead. A reset brings the account back.
    in_future_window: bool,
    pending_amount: u64,
    rights: RightsShown,
    suspended_at: Option<String>,
    /// Since when the merchant is suspended as a whole.
    merchant_suspended_at: Option<String>,
    /// Until when charges past their limits are paced.
    paced_until: Option<String>,
}

impl AccountShown {
    /// The account as it stands at `now_ms`, milliseconds since the epoch.
    pub(super) fn of(
        merchant: &MerchantId,
        currency: Currency,
        account: &Account,
        state: Merchant,
        rights: RightsShown,
        now_ms: i64,
    ) -> Self {
        Self {
            merchant_id: merchant.to_string(),
            currency: currency.code(),
            version: account.version,
            windows: WindowsShown {
                day: CounterShown::of(&account.windows.day),
                week: CounterShown::of(&account.windows.week),
                month: CounterShown::of(&account.windows.month),
                year: CounterShown::of(&account.windows.year),
            },
            in_future_window: account.windows.day.id > Calendar::latest_day_at(now_ms),
            pending_amount: account.pending,
            rights,
            suspended_at: moment_ms(account.suspended_at_ms),
            merchant_suspended_at: moment_ms(state.suspended_at_ms),
            paced_until: moment_ms(account.paced_until_us / 1000),
        }
    }
}

impl Shown for AccountShown {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("account", format!("{} {}, amounts in minor units", self.merchant_id, self.currency)),
            ("day", self.windows.day.text()),
            ("week", self.windows.week.text()),
            ("month", self.windows.month.text()),
            ("year", self.windows.year.text()),
            ("pending", self.pending_amount.to_string()),
            ("rights", self.rights.text()),
            ("suspended", since(self.suspended_at.as_deref())),
            ("merchant suspended", since(self.merchant_suspended_at.as_deref())),
            ("version", self.version.to_string()),
        ];
        if self.in_future_window {
            rows.push((
                "windows",
                "not begun yet: a server's clock was ahead; a reset brings the account back".to_owned(),
            ));
        }
        rows.extend(self.paced_until.as_ref().map(|until| ("paced until", until.clone())));
        rows
    }
}

/// A merchant's own state as it is stored.
#[derive(Debug, Serialize)]
pub(super) struct MerchantShown {
    merchant_id: String,
    version: u64,
    suspended_at: Option<String>,
}

impl MerchantShown {
    pub(super) fn of(merchant: &MerchantId, state: Merchant) -> Self {
        Self {
            merchant_id: merchant.to_string(),
            version: state.version,
            suspended_at: moment_ms(state.suspended_at_ms),
        }
    }
}

impl Shown for MerchantShown {
    fn rows(&self) -> Vec<(&'static str, String)> {
        vec![
            ("merchant", self.merchant_id.clone()),
            ("suspended", since(self.suspended_at.as_deref())),
            ("version", self.version.to_string()),
        ]
    }
}

fn since(at: Option<&str>) -> String {
    at.map_or_else(|| "no".to_owned(), |at| format!("since {at}"))
}

fn moment_ms(millis: u64) -> Option<String> {
    let at = DateTime::from_timestamp_millis(i64::try_from(millis).ok().filter(|millis| *millis > 0)?)?;
    Some(at.to_rfc3339_opts(SecondsFormat::Millis, true))
}
