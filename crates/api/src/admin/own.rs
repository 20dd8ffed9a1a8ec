//! `/self`: everything about a merchant in one answer, for its own callers.

use axum::extract::State;
use chrono::{DateTime, Utc};
use quota::{Account, Currency, MerchantId};
use serde::Serialize;
use sluice_alerts::Scope;
use sluice_alerts::read::{self, Alert, Filter};
use sluice_lines::{LineKey, LineToday, LineUsage, LineView};
use sluice_policy_source::EffectivePolicy;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::alerts::settings::{self, Shown};
use super::execute::{self, MerchantAccounts, no_decision};
use super::openapi::Problems;
use super::policies::problem_of;
use super::problem::{Answer, Kind, Problem};
use super::{Admin, Caller, Json, Permission, Role, credit};

/// Most credit lines of an answer: one for each currency.
const LINES_MAX: i64 = 200;
/// Most open alerts of an answer.
const ALERTS_MAX: i64 = 100;

pub(super) fn routes() -> OpenApiRouter<Admin> {
    OpenApiRouter::new().routes(routes!(own))
}

/// The caller's token.
#[derive(Debug, Serialize, ToSchema)]
struct OwnToken {
    /// Whom it names.
    #[schema(example = "token:0190b0a4-5b5e-7cc3-98c8-2f4c1d7e9a10")]
    subject: String,
    roles: Vec<Role>,
    permissions: Vec<Permission>,
    /// Absent where only a revocation ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<DateTime<Utc>>,
}

/// A merchant, as its own callers see it. A part that the token has no permission for is absent.
#[derive(Debug, Serialize, ToSchema)]
struct OwnView {
    #[schema(example = "merchant-001")]
    merchant_id: String,
    token: OwnToken,
    /// Every account with its usage; with `quotas:read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<MerchantAccounts>,
    /// The limits in force, of each currency that has an account or a credit line; with `quotas:read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    limits: Option<Vec<EffectivePolicy>>,
    /// Credit lines that are or were in force; with `credit:read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    credit: Option<Vec<LineView>>,
    /// Open alerts, the newest 100; with `alerts:read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    alerts: Option<Vec<Alert>>,
    /// Who is notified of them, and at which thresholds; with `alerts:read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<Shown>,
}

/// The caller's own merchant: usage, limits, credit lines, open alerts, settings, and what the token may do. For callers of one
/// merchant; others find a merchant's parts under its id.
#[utoipa::path(get, path = "/self", tag = "self", operation_id = "get_self",
    responses((status = OK, body = OwnView), Problems))]
async fn own(State(admin): State<Admin>, caller: Caller) -> Answer<Json<OwnView>> {
    let Some(merchant) = caller.merchant.clone() else {
        let detail = "the caller is of no single merchant: read /quotas/merchant/{merchant_id}, \
            /credit-lines?merchant_id=…, /alerts/merchant/{merchant_id} and /merchants/{merchant_id}/settings";
        return Err(Problem::new(Kind::Forbidden).detail(detail));
    };
    let may = |permission| caller.scopes.has(permission);
    let usage = match may(Permission::QuotasRead) {
        true => Some(execute::accounts(&admin, &caller, merchant.as_str()).await?),
        false => None,
    };
    let credit = if may(Permission::CreditRead) { Some(lines(&admin, &merchant).await?) } else { None };
    let limits = match &usage {
        Some(usage) => Some(limits(&admin, &merchant, usage, credit.as_deref().unwrap_or_default()).await),
        None => None,
    };
    let (alerts, settings) = match may(Permission::AlertsRead) {
        true => {
            let open = Filter { resolved: Some(false), ..Filter::default() };
            let alerts = read::list(&admin.pool, Some(&merchant), &open, None, ALERTS_MAX).await?;
            (Some(alerts), Some(settings::shown(&admin, &Scope::Merchant(merchant.clone())).await?))
        }
        false => (None, None),
    };
    let merchant_id = merchant.to_string();
    Ok(Json(OwnView { merchant_id, token: OwnToken::of(&caller), usage, limits, credit, alerts, settings }))
}

impl OwnToken {
    fn of(caller: &Caller) -> Self {
        Self {
            subject: caller.subject.to_string(),
            roles: caller.roles.clone(),
            permissions: caller.scopes.iter().collect(),
            expires_at: caller.expires_at_ms.and_then(DateTime::from_timestamp_millis),
        }
    }
}

/// The merchant's credit lines, by one read of their books and one of their accounts.
async fn lines(admin: &Admin, merchant: &MerchantId) -> Answer<Vec<LineView>> {
    let repository = credit::repository(admin);
    let keys = repository.keys(Some(merchant), None, LINES_MAX).await.map_err(problem_of)?;
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let records = repository.records(&keys).await.map_err(problem_of)?;
    let found = admin.operations.store().redis().accounts(merchant).await;
    let (accounts, _) = found.map_err(|error| no_decision(&error))?;
    let bands = admin.operations.lines().bands();
    let mut views = Vec::new();
    for key in &keys {
        // An answer that leaves out what cannot be read would look complete.
        let unreadable = || Problem::internal("a credit line", &key.1);
        let (line, record) =
            records.get(key).and_then(|record| Some((record.line()?, record))).ok_or_else(unreadable)?;
        let today = credit::today(admin, (&key.0, key.1)).await?;
        let today = LineToday::of(record, &bands, LineUsage::of(account(&accounts, key)), today);
        views.extend(LineView::of(line.clone(), record, today).for_merchant());
    }
    Ok(views)
}

fn account<'a>(accounts: &'a [(Currency, Account)], (_, currency): &LineKey) -> Option<&'a Account> {
    accounts.iter().find(|(other, _)| other == currency).map(|(_, account)| account)
}

/// The policy in force for each currency of the merchant; none where no policy is.
async fn limits(
    admin: &Admin,
    merchant: &MerchantId,
    usage: &MerchantAccounts,
    lines: &[LineView],
) -> Vec<EffectivePolicy> {
    let used = usage.accounts.iter().map(|account| account.currency.as_str());
    let mut currencies: Vec<Currency> = used
        .chain(lines.iter().map(|view| view.line.currency.as_str()))
        .filter_map(|code| Currency::parse(code).ok())
        .collect();
    currencies.sort_unstable_by_key(|currency| currency.code());
    currencies.dedup();
    let now_ms = admin.operations.clock().now_ms();
    let at = DateTime::from_timestamp_millis(now_ms).unwrap_or_default();
    let mut limits = Vec::new();
    for currency in currencies {
        let policy = admin.operations.policies().effective(merchant, currency, None, now_ms).await;
        limits.extend(policy.map(|policy| EffectivePolicy::new(merchant, currency, None, &policy, at)));
    }
    limits
}
