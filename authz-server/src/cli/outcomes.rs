//! `outcomes`: lists unknown outcomes from Postgres, and resolves them by hand, as the API does.

use chrono::{DateTime, SecondsFormat, Utc};
use clap::Subcommand;
use quota::{ActorId, Currency, MerchantId};
use sluice_kit::database::PgPool;
use uuid::Uuid;

use super::{CliError, Outcome, columns, operations, show};
use sluice_decision::operations::Actor;
use sluice_decision::operations::resolve::{Resolved, resolve};
use sluice_journal::outcomes::read::{self, Filter, UnknownOutcome, Verdict};
use sluice_kit::database;
use sluice_settings::Settings;

/// Connections to Postgres that one command uses.
const CONNECTIONS_MAX: u32 = 2;
/// Most outcomes that one page reads.
const PAGE: i64 = 500;

#[derive(Debug, Subcommand)]
pub(super) enum OutcomesCommand {
    /// List outcomes that are unknown, the oldest first.
    ///
    /// Exits with 3 where there is none. What the proxy has reported is there within some seconds.
    #[command(after_long_help = "Examples:
  authz-server outcomes list
  authz-server outcomes list --merchant merchant-001 --older-than-secs 3600 --json")]
    List {
        /// Only those of this merchant.
        #[arg(long, value_parser = merchant, value_name = "MERCHANT")]
        merchant: Option<MerchantId>,
        /// Only those in this currency, as in USD.
        #[arg(long, value_parser = currency, value_name = "CURRENCY")]
        currency: Option<Currency>,
        /// Only those that are this old at least.
        #[arg(long, value_name = "SECONDS")]
        older_than_secs: Option<u32>,
        /// Those that are resolved as well.
        #[arg(long)]
        all: bool,
        /// Most outcomes to list.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000), value_name = "NUMBER")]
        limit: u32,
        /// Print JSON, for programs.
        #[arg(long)]
        json: bool,
    },
    /// Say what became of an outcome.
    ///
    /// `made` keeps the charge and books the capture, refund or void. `not_made` gives the charge back and cancels a reserved
    /// refund. Ask the gateway first: what is given back may be consumed again.
    #[command(after_long_help = "Example:
  authz-server outcomes resolve 0193f0e4-7b1c-7f00-8000-000000000001 not_made --reason \"not in the gateway's report\"")]
    Resolve {
        /// The outcome's id, as listed.
        #[arg(value_name = "ID")]
        id: Uuid,
        /// What became of it.
        verdict: Verdict,
        /// Why; kept with the outcome and in the usage log.
        #[arg(long, value_parser = reason)]
        reason: String,
        /// In whose name; kept with the outcome and in the usage log.
        #[arg(long = "as", default_value = "admin:cli", value_parser = actor, value_name = "NAME")]
        actor: ActorId,
        /// Print JSON, for programs.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn merchant(text: &str) -> Result<MerchantId, String> {
    MerchantId::parse(text).map_err(|error| error.to_string())
}

pub(super) fn currency(text: &str) -> Result<Currency, String> {
    Currency::parse(text).map_err(|error| error.to_string())
}

pub(super) fn actor(text: &str) -> Result<ActorId, String> {
    ActorId::parse(text).map_err(|error| error.to_string())
}

pub(super) fn reason(text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() || text.len() > sluice_store::REMARKS_BYTES_MAX {
        return Err(format!("must have 1 to {} bytes", sluice_store::REMARKS_BYTES_MAX));
    }
    Ok(text.to_owned())
}

pub(super) fn execute(command: &OutcomesCommand, settings: &Settings) -> Result<Outcome, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let pool = database::pool(&settings.postgres_url(), CONNECTIONS_MAX)?;
        match command {
            OutcomesCommand::List { merchant, currency, older_than_secs, all, limit, json } => {
                let filter = Filter {
                    merchant: merchant.clone(),
                    currency: *currency,
                    operation: None,
                    older_than_secs: older_than_secs.map(i64::from),
                    with_resolved: *all,
                };
                show(&list(&pool, &filter, i64::from(*limit)).await?, *json, "no outcome is unknown", table)
            }
            OutcomesCommand::Resolve { id, verdict, reason, actor, json } => {
                let (operations, _stop) = operations::open(settings, &pool, &[]).await?;
                let actor = Actor { id: actor.clone(), operator_type: "admin" };
                let Resolved { outcome, .. } = resolve(&pool, &operations, &actor, *id, *verdict, reason).await?;
                show(&[outcome], *json, "no outcome is unknown", table)
            }
        }
    })
}

async fn list(pool: &PgPool, filter: &Filter, limit: i64) -> Result<Vec<UnknownOutcome>, CliError> {
    let mut all: Vec<UnknownOutcome> = Vec::new();
    loop {
        let left = limit.saturating_sub(i64::try_from(all.len()).unwrap_or(i64::MAX));
        let after = all.last().map(|last| (last.since, last.outcome_id));
        let page = read::list(pool, filter, after, left.min(PAGE)).await?;
        let is_last = page.is_empty();
        all.extend(page);
        if is_last || i64::try_from(all.len()).unwrap_or(i64::MAX) >= limit {
            return Ok(all);
        }
    }
}

fn table(outcomes: &[UnknownOutcome]) -> String {
    let header = ["id", "since", "merchant", "order", "operation", "amount", "currency", "reason", "resolution"];
    let mut rows = vec![header.map(str::to_owned)];
    rows.extend(outcomes.iter().map(|outcome| {
        [
            outcome.outcome_id.to_string(),
            moment(outcome.since),
            outcome.merchant_id.clone(),
            outcome.order_no.clone(),
            outcome.operation.clone(),
            outcome.amount.to_string(),
            outcome.currency.clone(),
            outcome.reason.clone(),
            outcome.resolution.clone().unwrap_or_else(|| "open".to_owned()),
        ]
    }));
    columns(&rows)
}

fn moment(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}
