//! Thresholds that merchants set for themselves, and those of credit lines: raised once for each crossing, ended when usage falls,
//! and found by the sweeps where no payment crosses them.

use quota::{Action, AmountMinor, Code, Command, CreditTerms, Limits, MerchantId, Posting, PostingKind, Thresholds};
use serde_json::{Value, json};
use sluice_alerts::settings::{self, Settings};
use sluice_alerts::{OwnThresholds, Scope};
use sluice_jobs::Rolled;
use sluice_store::{AuditContext, CreditContext, Store as _};
use sqlx::PgPool;
use testkit::{Failure, Result};

use crate::alerts::{DAY_MS, Hand, MERCHANT, day, watch};
use crate::bench::{AT_MS, Bench};
use crate::engine::{Engine, audit, consume, refund};
use crate::sweeps::Sweeper;

const POLICIES: &str = "version: \"1\"\ndefault: {timezone: UTC, daily_amount: 1000}\n";

/// A merchant with a daily limit of 1,000.
struct Account {
    bench: Bench,
    engine: Engine,
    hand: Hand,
    pool: PgPool,
    /// The limit in force of its credit line; 0 without one.
    credit: u64,
}

impl Account {
    async fn open(credit: u64, own: Value) -> Result<Self> {
        let bench = Bench::start()?;
        let limits = if credit == 0 { day(1_000) } else { Limits::UNLIMITED };
        let hand = Hand::under(&bench, Some(watch(&limits, &[80, 100])?)).await?;
        let (engine, pool) = (Engine::open(&bench)?, bench.postgres.pool().await?);
        let account = Self { bench, engine, hand, pool, credit };
        account.set(own).await?;
        Ok(account)
    }

    /// Sets the merchant's own thresholds.
    async fn set(&self, own: Value) -> Result<()> {
        let thresholds: Vec<OwnThresholds> = serde_json::from_value(own)?;
        let settings = Settings { thresholds, ..Settings::default() };
        settings::save(&self.pool, &Scope::Merchant(MerchantId::parse(MERCHANT)?), settings, None, "ana").await?;
        Ok(())
    }

    async fn apply(&mut self, order: &str, action: Action, at_ms: i64) -> Result<()> {
        let command = self.engine.command(MERCHANT, order, action, at_ms)?;
        let (command, audit) = match AmountMinor::new(self.credit).filter(|limit| limit.get() > 0) {
            Some(_) => {
                let limit = AmountMinor::MAX;
                let credit = Some(CreditTerms { cycle: command.windows.ids.day, limit, uncapped_limit: limit });
                (Command { credit, ..command }, AuditContext { credit: Some(self.context()?), ..audit("proxy", "") })
            }
            None => {
                (Command { threshold_policy: Some(watch(&day(1_000), &[80, 100])?), ..command }, audit("proxy", ""))
            }
        };
        let code = self.engine.store.apply(&command, &audit).await?.record.code;
        if code.http_status() != 200 {
            return Err(Failure::new(format!("{order}: {}", code.as_str())));
        }
        self.hand.drain().await
    }

    fn context(&self) -> Result<CreditContext> {
        Ok(CreditContext {
            limit: self.credit,
            stage: CreditContext::CURRENT.into(),
            days_past_due: 0,
            oldest_due_day: None,
            amount_to_cure: 0,
            read_at_ms: None,
            thresholds: Thresholds::new([70, 100])?,
        })
    }

    /// Every alert in its order: its type, whom it is addressed to, and its end where it has one.
    async fn alerts(&self) -> Result<Vec<String>> {
        let statement = "SELECT concat_ws(' ', alert_type, array_to_string(recipients, '+'), resolve_reason) \
            FROM quota_alert ORDER BY alert_id";
        Ok(sqlx::query_scalar(statement).fetch_all(&self.pool).await?)
    }
}

/// A step: what is done to an order on a day, and the alerts that are new or have ended since.
type Step = (&'static str, Action, i64, &'static [&'static str]);

async fn check(mut account: Account, steps: &[Step]) -> Result<()> {
    let mut expected: Vec<String> = Vec::new();
    for (number, (order, action, on_day, news)) in steps.iter().enumerate() {
        account.apply(order, *action, AT_MS + on_day * DAY_MS + number as i64).await?;
        for news in *news {
            let open = news.rsplit_once(' ').map(|(open, _)| open);
            match open.and_then(|open| expected.iter_mut().rev().find(|known| *known == open)) {
                Some(known) => *known = (*news).to_owned(),
                None => expected.push((*news).to_owned()),
            }
        }
        let found = account.alerts().await?;
        assert_eq!(found, expected, "step {number}: {action:?} {order}");
    }
    Ok(())
}

/// Operators keep the policy's thresholds, and the merchant has its own in their place.
#[tokio::test]
async fn each_is_raised_once_to_its_own_audience() -> Result<()> {
    let own = json!([
        {"types": ["daily"], "percents": [50, 80]},
        {"currency": "USD", "types": ["daily"], "remaining_below": [100]},
        {"currency": "EUR", "percents": [1]},
    ]);
    check(
        Account::open(0, own).await?,
        &[
            ("a", consume(499), 0, &[]),
            ("b", consume(1), 0, &["daily_50 merchant"]),
            ("b", consume(1), 0, &[]),
            ("c", consume(300), 0, &["daily_80 operators", "daily_80 merchant"]),
            // Exactly 100 are left: not less.
            ("d", consume(100), 0, &[]),
            ("e", consume(1), 0, &["daily_remaining merchant"]),
            ("f", consume(99), 0, &["daily_100 operators"]),
            (
                "a",
                Action::Refund(refund(101, "1")),
                0,
                &["daily_100 operators refund", "daily_remaining merchant refund"],
            ),
            ("g", consume(2), 0, &["daily_remaining merchant"]),
            (
                "h",
                consume(500),
                1,
                &[
                    "daily_50 merchant window_closed",
                    "daily_80 operators window_closed",
                    "daily_80 merchant window_closed",
                    "daily_remaining merchant window_closed",
                    "daily_50 merchant",
                ],
            ),
        ],
    )
    .await
}

/// What a line uses of its limit, with the thresholds of its grade, and what brings it down again.
#[tokio::test]
async fn a_credit_line_has_thresholds() -> Result<()> {
    let own = json!([{"currency": "USD", "types": ["credit_utilisation"], "remaining_below": [250]}]);
    let repayment = |amount| {
        Action::Post(Posting { kind: PostingKind::Repayment, amount: AmountMinor::new(amount).unwrap_or_default() })
    };
    check(
        Account::open(1_000, json!([])).await?,
        &[
            ("a", consume(699), 0, &[]),
            ("b", consume(1), 0, &["credit_utilisation_70"]),
            ("c", consume(299), 0, &[]),
            ("d", consume(1), 0, &["credit_utilisation_100"]),
            ("p-1", repayment(1), 0, &["credit_utilisation_100 repayment"]),
            ("p-2", repayment(300), 0, &["credit_utilisation_70 repayment"]),
            ("e", consume(10), 0, &["credit_utilisation_70"]),
            ("b", Action::Refund(refund(1, "1")), 0, &[]),
            ("c", Action::Refund(refund(299, "1")), 0, &["credit_utilisation_70 refund"]),
        ],
    )
    .await?;
    check(
        Account::open(1_000, own).await?,
        &[
            ("a", consume(750), 0, &["credit_utilisation_70 operators"]),
            ("b", consume(1), 0, &["credit_utilisation_remaining merchant"]),
            ("p-1", repayment(1), 0, &["credit_utilisation_remaining merchant repayment"]),
        ],
    )
    .await
}

/// Thresholds and limits that change without a payment: the sweep raises and ends what follows from them, once.
#[tokio::test]
async fn the_sweep_counts_them_anew() -> Result<()> {
    let mut account = Account::open(0, json!([])).await?;
    account.apply("a", consume(600), AT_MS).await?;
    assert!(account.alerts().await?.is_empty());
    let daily = |percents: &[u32]| json!([{"types": ["daily"], "percents": percents}]);
    let raised = POLICIES.replace("1000", "10000");
    let table = [
        (daily(&[50, 90]), POLICIES, &["daily_50 merchant"][..]),
        (daily(&[50, 90]), POLICIES, &["daily_50 merchant"]),
        (daily(&[60, 90]), POLICIES, &["daily_50 merchant thresholds_changed", "daily_60 merchant"]),
        (daily(&[60, 90]), &raised, &["daily_50 merchant thresholds_changed", "daily_60 merchant limit_raised"]),
        (
            daily(&[60]),
            POLICIES,
            &["daily_50 merchant thresholds_changed", "daily_60 merchant limit_raised", "daily_60 merchant"],
        ),
    ];
    for (own, policies, expected) in &table {
        account.set(own.clone()).await?;
        let sweeper = Sweeper::open(&account.bench, policies)?;
        assert_eq!(sweeper.thresholds(AT_MS + 1_000).await?, Rolled::Accounts(0), "{own} {policies}");
        assert_eq!(account.alerts().await?, *expected, "{own} {policies}");
    }
    // A day that is over is another sweep's.
    let before = account.alerts().await?;
    Sweeper::open(&account.bench, POLICIES)?.thresholds(AT_MS + DAY_MS).await?;
    assert_eq!(account.alerts().await?, before);
    // One that was resolved by hand comes again with the next crossing only.
    let by_hand = "UPDATE quota_alert SET resolved_at = raised_at, resolved_by = 'ben', resolve_reason = 'by_hand' \
        WHERE resolved_at IS NULL";
    sqlx::query(by_hand).execute(&account.pool).await?;
    let before = account.alerts().await?;
    Sweeper::open(&account.bench, POLICIES)?.thresholds(AT_MS + 1_000).await?;
    assert_eq!(account.alerts().await?, before);
    account.apply("a", Action::Refund(refund(1, "1")), AT_MS + 2_000).await?;
    account.apply("b", consume(1), AT_MS + 3_000).await?;
    assert_eq!(account.alerts().await?.last().map(String::as_str), Some("daily_60 merchant"));
    Ok(())
}

/// An account whose later events are stored before it: they may have raised or ended what the sweep would raise. What was refused has
/// changed nothing, and holds nothing back.
#[tokio::test]
async fn the_sweep_waits_for_accounts_that_are_behind() -> Result<()> {
    let refused = |amount| {
        let Action::Consume(charge) = consume(amount) else { return consume(amount) };
        Action::Consume(quota::Charge { refusal: Some(Code::ChannelNotAllowed), ..charge })
    };
    let daily = json!([{"types": ["daily"], "percents": [50]}]);
    for (what, later, is_held_back) in [
        ("a refusal", refused(1), false),
        ("a charge", consume(1), true),
        ("a refund", Action::Refund(refund(1, "1")), true),
    ] {
        let mut account = Account::open(0, json!([])).await?;
        account.apply("a", consume(600), AT_MS).await?;
        sqlx::query("CREATE TABLE kept AS SELECT * FROM quota_account").execute(&account.pool).await?;
        let order = if is_held_back && what == "a refund" { "a" } else { "b" };
        account.engine.run(MERCHANT, order, later, AT_MS + 1).await?;
        account.hand.drain().await?;
        let later_rows =
            "SELECT count(*) FROM usage_log JOIN kept USING (merchant_id, shard) WHERE usage_log.seq > kept.seq";
        let rows: i64 = sqlx::query_scalar(later_rows).fetch_one(&account.pool).await?;
        assert_eq!(rows, 1, "{what}");
        let stored = "SELECT seq FROM quota_account";
        let seq: i64 = sqlx::query_scalar(stored).fetch_one(&account.pool).await?;
        for statement in ["DELETE FROM quota_account", "INSERT INTO quota_account SELECT * FROM kept"] {
            sqlx::query(statement).execute(&account.pool).await?;
        }
        account.set(daily.clone()).await?;
        let sweeper = Sweeper::open(&account.bench, POLICIES)?;
        sweeper.thresholds(AT_MS + 1_000).await?;
        let raised = ["daily_50 merchant"];
        assert_eq!(account.alerts().await?, &raised[usize::from(is_held_back)..], "{what}");
        // Once the account is stored, its alert is raised.
        sqlx::query("UPDATE quota_account SET seq = $1").bind(seq).execute(&account.pool).await?;
        sweeper.thresholds(AT_MS + 2_000).await?;
        assert_eq!(account.alerts().await?, raised, "{what}");
    }
    Ok(())
}
