//! `inspect`: what Redis holds of an account, a merchant or an order, decoded, and nothing else: windows that are over still show.

mod account;
mod order;

use account::{AccountShown, MerchantShown, RightsShown};
use clap::{Args, Subcommand};
use order::OrderShown;
use quota::{Currency, MerchantId, OrderNo, shard_of};
use serde::Serialize;

use super::{CliError, Outcome, operations, print, print_to_stderr, rights};
use sluice_api::admin::rights::RightFilter;
use sluice_kit::clock;
use sluice_settings::Settings;
use sluice_store::{Store, keys};

/// Most rights of an account that are summed.
const RIGHTS_MAX: usize = 10_000;

#[derive(Debug, Subcommand)]
pub(super) enum InspectCommand {
    /// Show an account: its windows, what is pending, its outstanding rights, and whether it or its merchant is suspended.
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
    /// Show a merchant's own state: whether it is suspended as a whole, in every currency.
    ///
    /// Exits with 3 where nothing is stored: the merchant was never suspended as a whole. Its accounts are shown by `account`.
    #[command(after_long_help = "Example:\n  authz-server inspect merchant merchant-001")]
    Merchant {
        /// The merchant's id.
        #[arg(value_parser = merchant)]
        merchant: MerchantId,
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
        let (store, configured) = (operations::store(settings).await?, settings.shards);
        match command {
            InspectCommand::Account { merchant, currency, format } => {
                let shard = shard_of(merchant, configured);
                let location = Location { shard, key: keys::account(shard, merchant, *currency) };
                let (account, state) = store.account_of_merchant(merchant, *currency).await?;
                store.compare_clocks().await?;
                let now_ms = store.now_ms();
                let filter =
                    RightFilter { merchant: Some(merchant.clone()), currency: Some(*currency), orphaned: None };
                let held = RightsShown::of(&rights::outstanding(&store, configured, &filter, RIGHTS_MAX).await?);
                let shown = account.map(|account| AccountShown::of(merchant, *currency, &account, state, held, now_ms));
                show(&location, shown, format.json)
            }
            InspectCommand::Merchant { merchant, format } => {
                let shard = shard_of(merchant, configured);
                let location = Location { shard, key: keys::merchant(shard, merchant) };
                let state = store.merchant(merchant).await?;
                show(&location, state.map(|state| MerchantShown::of(merchant, state)), format.json)
            }
            InspectCommand::Order { merchant, order_no, format } => {
                let shard = shard_of(merchant, configured);
                let location = Location { shard, key: keys::order(shard, merchant, Some(order_no)) };
                let order = store.order(merchant, order_no).await?;
                let shown = order.map(|order| OrderShown::of(merchant, order_no, &order, clock::now_ms()));
                show(&location, shown, format.json)
            }
        }
    })
}

/// Where in Redis something is.
#[derive(Debug, Serialize)]
struct Location {
    shard: u16,
    key: String,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Document<'a, T: Serialize> {
    found: bool,
    #[serde(flatten)]
    location: &'a Location,
    #[serde(flatten)]
    content: Option<&'a T>,
}

fn show<T: Serialize + Shown>(location: &Location, content: Option<T>, json: bool) -> Result<Outcome, CliError> {
    let outcome = if content.is_some() { Outcome::Done } else { Outcome::No };
    if json {
        let document = Document { found: content.is_some(), location, content: content.as_ref() };
        print(&format!("{}\n", serde_json::to_string_pretty(&document)?))?;
        return Ok(outcome);
    }
    let Some(content) = content else {
        print_to_stderr(&format!("nothing is stored at {} (shard {})", location.key, location.shard));
        return Ok(outcome);
    };
    let mut rows = content.rows();
    rows.push(("key", location.key.clone()));
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    print(&rows.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect::<String>())?;
    Ok(outcome)
}

/// What a person reads, line by line.
trait Shown {
    fn rows(&self) -> Vec<(&'static str, String)>;
}
