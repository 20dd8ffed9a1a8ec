//! `inspect`: what Redis holds of an account or an order, decoded, and nothing else: windows that are over still show.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use clap::{Args, Subcommand};
use quota::{Account, Counter, Currency, MerchantId, OnExpiry, OperationKind, Order, OrderNo, OrderState, Origin, shard_of};
use serde::Serialize;
use uuid::Uuid;

use super::{CliError, Outcome, print, tell};
use crate::clock;
use crate::settings::Settings;
use crate::store::{RedisStore, RedisStoreConfig, StoreError, keys};

/// How long a person waits for Redis; payments wait much less.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Subcommand)]
pub(super) enum InspectCommand {
    /// Show an account: its windows, what is pending, and whether it is suspended.
    ///
    /// Figures are those of the last change: a window that is over still shows, and counts as empty for the next payment.
    /// Exits with 3 where nothing is stored.
    #[command(after_long_help = "Examples:
  authz-server inspect account merchant-001 USD
  authz-server inspect account merchant-001 USD --json | jq .windows.day.amount")]
    Account {
        /// The merchant's id.
        #[arg(value_parser = merchant)]
        merchant: MerchantId,
        /// ISO 4217 alphabetic code, as in USD.
        #[arg(value_parser = currency)]
        currency: Currency,
        #[command(flatten)]
        format: Format,
    },
    /// Show an order: its state, its attempts, captures and refunds.
    ///
    /// Exits with 3 where nothing is stored: the order never came here, or was forgotten after SLUICE_ORDER_TTL_SECS.
    #[command(after_long_help = "Example:\n  authz-server inspect order merchant-001 ORDER-001")]
    Order {
        /// The merchant's id.
        #[arg(value_parser = merchant)]
        merchant: MerchantId,
        /// The order's number.
        #[arg(value_parser = order_no)]
        order_no: OrderNo,
        #[command(flatten)]
        format: Format,
    },
}

#[derive(Debug, Args)]
pub(super) struct Format {
    /// Print JSON, for programs.
    #[arg(long)]
    json: bool,
}

fn merchant(text: &str) -> Result<MerchantId, String> {
    MerchantId::parse(text).map_err(|error| error.to_string())
}

fn currency(text: &str) -> Result<Currency, String> {
    Currency::parse(text).map_err(|error| error.to_string())
}

fn order_no(text: &str) -> Result<OrderNo, String> {
    OrderNo::parse(text).map_err(|error| error.to_string())
}

pub(super) fn execute(command: &InspectCommand, settings: &Settings) -> Result<Outcome, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let config = RedisStoreConfig { url: settings.redis_url(), shards: settings.shards, timeout: TIMEOUT };
        let store = RedisStore::open(&config)?;
        // Keys would be looked for in the wrong place.
        let (configured, recorded) = (settings.shards, store.recorded_shards().await?);
        if let Some(stored) = recorded.filter(|stored| *stored != configured) {
            return Err(StoreError::Shards { stored, configured }.into());
        }
        match command {
            InspectCommand::Account { merchant, currency, format } => {
                let shard = shard_of(merchant, configured);
                let place = Place { shard, key: keys::account(shard, merchant, *currency) };
                let account = store.account(merchant, *currency).await?;
                let shown = account.map(|account| AccountShown::of(merchant, *currency, &account));
                show(&place, shown, format.json)
            }
            InspectCommand::Order { merchant, order_no, format } => {
                let shard = shard_of(merchant, configured);
                let place = Place { shard, key: keys::order(shard, merchant, Some(order_no)) };
                let order = store.order(merchant, order_no).await?;
                let shown = order.map(|order| OrderShown::of(merchant, order_no, &order, clock::now_ms()));
                show(&place, shown, format.json)
            }
        }
    })
}

/// Where in Redis something is.
#[derive(Debug, Serialize)]
struct Place {
    shard: u16,
    key: String,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document<'a, T: Serialize> {
    found: bool,
    #[serde(flatten)]
    place: &'a Place,
    #[serde(flatten)]
    content: Option<&'a T>,
}

fn show<T: Serialize + Shown>(place: &Place, content: Option<T>, json: bool) -> Result<Outcome, CliError> {
    let outcome = if content.is_some() { Outcome::Done } else { Outcome::No };
    if json {
        let document = Document { found: content.is_some(), place, content: content.as_ref() };
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
        return Ok(outcome);
    }
    let Some(content) = content else {
        tell(&format!("nothing is stored at {} (shard {})", place.key, place.shard));
        return Ok(outcome);
    };
    let mut rows = content.rows();
    rows.push(("key", place.key.clone()));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    print(&rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect::<String>())?;
    Ok(outcome)
}

/// What a person reads, line by line.
trait Shown {
    fn rows(&self) -> Vec<(&'static str, String)>;
}

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
    month: CounterShown,
    year: CounterShown,
}

#[derive(Debug, Serialize)]
struct AccountShown {
    merchant_id: String,
    currency: &'static str,
    version: u64,
    windows: WindowsShown,
    pending_amount: u64,
    suspended_at: Option<String>,
    /// Until when charges past their limits are paced.
    paced_until: Option<String>,
}

impl AccountShown {
    fn of(merchant: &MerchantId, currency: Currency, account: &Account) -> Self {
        Self {
            merchant_id: merchant.to_string(),
            currency: currency.code(),
            version: account.version,
            windows: WindowsShown {
                day: CounterShown::of(&account.day),
                month: CounterShown::of(&account.month),
                year: CounterShown::of(&account.year),
            },
            pending_amount: account.pending,
            suspended_at: moment_ms(account.suspended_at_ms),
            paced_until: moment_ms(account.paced_until_us / 1000),
        }
    }
}

impl Shown for AccountShown {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let mut rows = vec![
            ("account", format!("{} {}, amounts in minor units", self.merchant_id, self.currency)),
            ("day", self.windows.day.text()),
            ("month", self.windows.month.text()),
            ("year", self.windows.year.text()),
            ("pending", self.pending_amount.to_string()),
            ("suspended", self.suspended_at.as_ref().map_or_else(|| "no".to_owned(), |at| format!("since {at}"))),
            ("version", self.version.to_string()),
        ];
        rows.extend(self.paced_until.as_ref().map(|until| ("paced until", until.clone())));
        rows
    }
}

#[derive(Debug, Serialize)]
struct OriginShown {
    window: u32,
    epoch: u8,
}

impl OriginShown {
    const fn of(origin: Origin) -> Self {
        Self { window: origin.id, epoch: origin.epoch }
    }
}

#[derive(Debug, Serialize)]
struct OriginsShown {
    day: OriginShown,
    month: OriginShown,
    year: OriginShown,
}

#[derive(Debug, Serialize)]
struct OperationShown {
    kind: &'static str,
    amount: u64,
    /// A hash of the caller's number.
    id: String,
    decision_id: Uuid,
}

#[derive(Debug, Serialize)]
struct OrderShown {
    merchant_id: String,
    order_no: String,
    currency: &'static str,
    state: &'static str,
    amount: u64,
    captured: u64,
    held: u64,
    refunded: u64,
    /// When the open hold ends by itself.
    hold_until: Option<String>,
    /// `void` or `settle`, of an open hold.
    on_expiry: Option<&'static str>,
    charged_in: OriginsShown,
    live_attempts: Vec<String>,
    voided_attempts: Vec<String>,
    /// The charge is not returned by voids any more.
    pinned: bool,
    operations: Vec<OperationShown>,
    decision_id: Uuid,
    /// From then on the order counts as unknown.
    expires_at: Option<String>,
    expired: bool,
}

impl OrderShown {
    fn of(merchant: &MerchantId, order_no: &OrderNo, order: &Order, now_ms: i64) -> Self {
        let held = order.state == OrderState::Held;
        let operation = |operation: &quota::Operation| OperationShown {
            kind: kind(operation.kind),
            amount: operation.amount.get(),
            id: Uuid::from_bytes(operation.id.0).simple().to_string(),
            decision_id: Uuid::from_bytes(operation.decision_id),
        };
        Self {
            merchant_id: merchant.to_string(),
            order_no: order_no.to_string(),
            currency: order.currency.code(),
            state: order.state.as_str(),
            amount: order.amount.get(),
            captured: order.captured(),
            held: order.held(),
            refunded: order.refunded,
            hold_until: moment_secs(order.hold.until_secs).filter(|_| held),
            on_expiry: held.then_some(match order.hold.on_expiry {
                OnExpiry::Void => "void",
                OnExpiry::Settle => "settle",
            }),
            charged_in: OriginsShown {
                day: OriginShown::of(order.charged_in.day),
                month: OriginShown::of(order.charged_in.month),
                year: OriginShown::of(order.charged_in.year),
            },
            live_attempts: order.live.iter().map(ToString::to_string).collect(),
            voided_attempts: order.voided.iter().map(ToString::to_string).collect(),
            pinned: order.pinned,
            operations: order.operations.iter().map(operation).collect(),
            decision_id: Uuid::from_bytes(order.decision_id),
            expires_at: moment_secs(order.expires_at_secs),
            expired: i64::from(order.expires_at_secs) <= now_ms / 1000,
        }
    }
}

impl Shown for OrderShown {
    fn rows(&self) -> Vec<(&'static str, String)> {
        let OriginsShown { day, month, year } = &self.charged_in;
        let expires_at = self.expires_at.as_deref().unwrap_or("never");
        let mut rows = vec![
            ("order", format!("{} of {}, amounts in minor units of {}", self.order_no, self.merchant_id, self.currency)),
            ("state", self.state.to_owned()),
            ("amount", self.amount.to_string()),
            ("captured", self.captured.to_string()),
            ("held", self.held.to_string()),
            ("refunded", self.refunded.to_string()),
            ("charged in", format!("day {}, month {}, year {}", day.window, month.window, year.window)),
            ("decision", self.decision_id.to_string()),
            ("kept until", format!("{expires_at}{}", if self.expired { ", so it counts as unknown" } else { "" })),
        ];
        if let Some((until, on_expiry)) = self.hold_until.as_ref().zip(self.on_expiry) {
            rows.push(("hold ends", format!("{until}, then: {on_expiry}")));
        }
        rows.extend(self.live_attempts.iter().map(|id| ("live attempt", id.clone())));
        rows.extend(self.voided_attempts.iter().map(|id| ("voided attempt", id.clone())));
        rows.extend(self.pinned.then(|| ("pinned", "voids do not return the charge any more".to_owned())));
        rows.extend(self.operations.iter().map(|operation| {
            (operation.kind, format!("{}, decision {}", operation.amount, operation.decision_id))
        }));
        rows
    }
}

const fn kind(kind: OperationKind) -> &'static str {
    match kind {
        OperationKind::Capture => "capture",
        OperationKind::Reservation => "reserved refund",
        OperationKind::Refund => "refund",
        OperationKind::Release => "release",
    }
}

fn moment_ms(millis: u64) -> Option<String> {
    let at = DateTime::from_timestamp_millis(i64::try_from(millis).ok().filter(|millis| *millis > 0)?)?;
    Some(at.to_rfc3339_opts(SecondsFormat::Millis, true))
}

fn moment_secs(secs: u32) -> Option<String> {
    let at = DateTime::from_timestamp(i64::from(secs), 0).filter(|_| secs > 0)?;
    Some(at.to_rfc3339_opts(SecondsFormat::Secs, true))
}
