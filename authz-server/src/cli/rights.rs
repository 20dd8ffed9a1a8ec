//! `rights`: lists what Redis has of rights that have not ended, and ends one, as the API does.

use chrono::SecondsFormat;
use clap::Subcommand;
use quota::{ActorId, Currency, MerchantId};
use sluice_api::admin::rights::{LIMIT_MAX, RightFilter, RightView};
use sluice_decision::decider::Decision;
use sluice_decision::operations::body::ReleaseRightRequest;
use sluice_decision::operations::{Actor, Invalid, OperationAnswer, OperationRequest};
use sluice_kit::database;
use sluice_settings::Settings;
use sluice_store::{RedisStore, StoreError};
use thiserror::Error;
use uuid::Uuid;

use super::outcomes::{actor, currency, merchant, reason};
use super::{CliError, Outcome, columns, operations, print, show};

/// Connections to Postgres that one command uses.
const CONNECTIONS_MAX: u32 = 2;

#[derive(Debug, Subcommand)]
pub(super) enum RightsCommand {
    /// List rights that have not ended: what is set aside of accounts for holders that admit payments without a call.
    ///
    /// Amounts are as the amount limits count them. Exits with 3 where there is none.
    #[command(after_long_help = "Examples:
  authz-server rights list --merchant merchant-001 --currency USD
  authz-server rights list --orphaned --json")]
    List {
        /// Only those of this merchant.
        #[arg(long, value_parser = merchant, value_name = "MERCHANT")]
        merchant: Option<MerchantId>,
        /// Only those in this currency, as in USD.
        #[arg(long, value_parser = currency, value_name = "CURRENCY")]
        currency: Option<Currency>,
        /// Only those whose holder is lost.
        #[arg(long)]
        orphaned: bool,
        /// Most rights to list.
        #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "NUMBER")]
        limit: u32,
        /// Print JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// End a right that its holder has not returned, and give back what no payment was reported for.
    ///
    /// Only one that is over: its holder may admit payments from it until then. Released again, nothing changes.
    #[command(after_long_help = "Example:
  authz-server rights release 5c1f0a90-0000-0000-0000-00000000002a --merchant merchant-001 --currency USD \\
    --reason \"the proxy was replaced\"")]
    Release {
        /// The right's id, as listed.
        #[arg(value_name = "RIGHT_ID")]
        right_id: Uuid,
        /// The merchant of its account.
        #[arg(long, value_parser = merchant, value_name = "MERCHANT")]
        merchant: MerchantId,
        /// The currency of its account, as in USD.
        #[arg(long, value_parser = currency, value_name = "CURRENCY")]
        currency: Currency,
        /// Why; kept in the usage log.
        #[arg(long, value_parser = reason)]
        reason: String,
        /// In whose name; kept in the usage log.
        #[arg(long = "as", default_value = "admin:cli", value_parser = actor, value_name = "NAME")]
        actor: ActorId,
        /// Print JSON, for programs.
        #[arg(long)]
        json: bool,
    },
}

/// Why a right is not released.
#[derive(Debug, Error)]
pub(super) enum RightsError {
    #[error("refused with {code}: {sentence}")]
    Refused { code: &'static str, sentence: &'static str },
    #[error("{}: {}", .0.field, .0.problem)]
    Invalid(Invalid),
}

pub(super) fn execute(command: &RightsCommand, settings: &Settings) -> Result<Outcome, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match command {
            RightsCommand::List { merchant, currency, orphaned, limit, json } => {
                let store = operations::store(settings).await?;
                let orphaned = orphaned.then_some(true);
                let filter = RightFilter { merchant: merchant.clone(), currency: *currency, orphaned };
                let limit = usize::try_from(*limit).unwrap_or(usize::MAX);
                show(
                    &outstanding(&store, settings.shards, &filter, limit).await?,
                    *json,
                    "no right is outstanding",
                    table,
                )
            }
            RightsCommand::Release { right_id, merchant, currency, reason, actor, json } => {
                let release = ReleaseRightRequest {
                    merchant_id: merchant.to_string(),
                    currency: currency.code().to_owned(),
                    right_id: right_id.to_string(),
                    reason: reason.clone(),
                };
                released(&release_right(settings, actor, release).await?, *json)
            }
        }
    })
}

/// Rights that have not ended, `limit` at most.
pub(super) async fn outstanding(
    store: &RedisStore,
    shards: u16,
    filter: &RightFilter,
    limit: usize,
) -> Result<Vec<RightView>, StoreError> {
    let page_max = usize::try_from(LIMIT_MAX).unwrap_or(usize::MAX);
    let (mut all, mut place) = (Vec::new(), None);
    loop {
        let left = limit.saturating_sub(all.len());
        let (page, next) = filter.page(store, shards, place, left.min(page_max)).await?;
        all.extend(page);
        if next.is_none() || all.len() >= limit {
            return Ok(all);
        }
        place = next;
    }
}

async fn release_right(
    settings: &Settings,
    actor: &ActorId,
    release: ReleaseRightRequest,
) -> Result<OperationAnswer, CliError> {
    let pool = database::pool(&settings.postgres_url(), CONNECTIONS_MAX)?;
    let (operations, _stop) = operations::open(settings, &pool, &[]).await?;
    let actor = Actor { id: actor.clone(), operator_type: "admin" };
    let request = OperationRequest::ReleaseRight(release).try_into().map_err(RightsError::Invalid)?;
    let done = operations.execute(&actor, request).await?;
    if done.is_refused() { Err(refused(&done).into()) } else { Ok(OperationAnswer::of(&done)) }
}

const fn refused(done: &Decision) -> RightsError {
    let code = done.reply.record.code;
    RightsError::Refused { code: code.as_str(), sentence: code.title() }
}

fn released(answer: &OperationAnswer, json: bool) -> Result<Outcome, CliError> {
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(answer)?))?;
    } else if answer.replay {
        print("the account has no such right: it was released before, or there was none\n")?;
    } else {
        let OperationAnswer { merchant_id, currency, amount, decision_id, .. } = answer;
        print(&format!("released: {amount} returned to {merchant_id} {currency}, decision {decision_id}\n"))?;
    }
    Ok(Outcome::Done)
}

fn table(rights: &[RightView]) -> String {
    let header = ["id", "merchant", "currency", "granted", "left", "until", "day", "state"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(rights.iter().map(|right| {
        [
            right.right_id.to_string(),
            right.merchant_id.clone(),
            right.currency.clone(),
            format!("{} in {}", right.granted_amount, right.granted_count),
            format!("{} in {}", right.left_amount, right.left_count),
            right.until.to_rfc3339_opts(SecondsFormat::Millis, true),
            right.day.to_string(),
            if right.orphaned { "orphaned" } else { "held" }.to_owned(),
        ]
    }));
    columns(&rows)
}
