//! How a change in Postgres reaches every server, and what holds while Postgres is away or says nonsense.

use std::time::{Duration, Instant};

use sluice_kit::health::Health;
use sluice_policy_source::PolicyStartError;
use sluice_policy_source::postgres::PolicyFilter;
use sluice_policy_source::postgres::model::TierInput;
use sluice_settings::{Live, Settings};
use testkit::{Failure, Result, Service};

use crate::bench::{DOCUMENT, Node, WITHIN, daily_policy, postgres, put_in_force, replace};

/// The promise: a change reaches every server within a second.
const ONE_SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_change_reaches_every_server_within_a_second() -> Result<()> {
    let postgres = postgres().await?;
    let first = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let second = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = first.repository(&postgres)?;
    let active = put_in_force(&repository, &daily_policy("m", 1)).await?;
    // From here on both are known to listen.
    first.wait_for_daily("m", 1, WITHIN).await?;
    second.wait_for_daily("m", 1, WITHIN).await?;
    for daily in 2..12 {
        replace(&repository, active.policy_id, &daily_policy("m", daily)).await?;
        let committed = Instant::now();
        for node in [&first, &second] {
            node.wait_for_daily("m", daily, ONE_SECOND.saturating_sub(committed.elapsed())).await?;
        }
    }
    let version = second.policy("m", "USD", None).await?.map(|policy| policy.version.to_string());
    assert!(version.is_some_and(|version| version.contains(&format!("policy:{}@11", active.policy_id))));
    Ok(())
}

#[tokio::test]
async fn while_postgres_is_away_the_last_policies_hold() -> Result<()> {
    let mut postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    let active = put_in_force(&repository, &daily_policy("m", 1)).await?;
    node.wait_for_daily("m", 1, WITHIN).await?;
    postgres.stop()?;
    node.wait_for_metric("sluice_policy_source_up{source=\"postgres\"} 0").await?;
    assert_eq!(node.daily("m").await?, Some(1));
    // A server that starts meanwhile has the file.
    let late = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    assert_eq!(late.daily("m").await?, Some(1_000));
    postgres.restart()?;
    late.wait_for_daily("m", 1, WITHIN).await?;
    node.wait_for_metric("sluice_policy_source_up{source=\"postgres\"} 1").await?;
    // Both are notified again as before.
    replace(&repository, active.policy_id, &daily_policy("m", 2)).await?;
    node.wait_for_daily("m", 2, ONE_SECOND).await?;
    late.wait_for_daily("m", 2, ONE_SECOND).await
}

#[tokio::test]
async fn rows_with_an_error_change_nothing() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    let good = put_in_force(&repository, &daily_policy("m", 1)).await?;
    node.wait_for_daily("m", 1, WITHIN).await?;
    // By hand, past everything that the server checks.
    let pool = postgres.pool().await?;
    let bad = "INSERT INTO limit_policy (merchant_id, daily_limit, timezone, created_by, edited_by, state, approved_by, approved_at) \
        VALUES ('n', 5, 'Mars/Base', 'x', ARRAY['x'], 'active', 'y', now())";
    sqlx::query(bad).execute(&pool).await?;
    node.wait_for_metric("sluice_policy_source_up{source=\"postgres\"} 0").await?;
    assert_eq!((node.daily("m").await?, node.daily("n").await?), (Some(1), Some(1_000)));
    // A server that starts now enforces what it can, and says what it cannot.
    let late = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    assert_eq!(late.daily("m").await?, Some(1_000));
    assert!(late.has_metric("sluice_policy_source_up{source=\"postgres\"} 0"), "{}", late.metrics.encode());
    sqlx::query("UPDATE limit_policy SET state = 'inactive' WHERE merchant_id = 'n'").execute(&pool).await?;
    node.wait_for_metric("sluice_policy_source_up{source=\"postgres\"} 1").await?;
    late.wait_for_daily("m", 1, WITHIN).await?;
    assert_eq!(good.version, 1);
    Ok(())
}

#[tokio::test]
async fn a_file_that_contradicts_the_rows_changes_nothing() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    let mut policy = daily_policy("m", 1);
    policy.single_trans_max = Some(20);
    put_in_force(&repository, &policy).await?;
    node.wait_for_daily("m", 1, WITHIN).await?;
    let file = node.dir.join("policies.yaml");
    std::fs::write(&file, "{version: file2, default: {single_min: 21, daily_amount: 2000}}")?;
    node.wait_for_metric("sluice_policy_source_up{source=\"file\"} 0").await?;
    assert_eq!((node.daily("m").await?, node.daily("n").await?), (Some(1), Some(1_000)));
    std::fs::write(&file, "{version: file3, default: {single_min: 20, daily_amount: 3000}}")?;
    node.wait_for_daily("n", 3_000, WITHIN).await?;
    let merged = node.policy("m", "USD", None).await?;
    let merged =
        merged.map(|policy| (policy.single_min.get(), policy.single_max.get(), policy.limits.windows.day.amount.get()));
    assert_eq!(merged, Some((20, 20, 1)));
    Ok(())
}

/// Without any policy nothing would be enforced, so the server does not start; policies in Postgres alone are enough.
#[tokio::test]
async fn a_server_without_any_policy_does_not_start() -> Result<()> {
    let postgres = postgres().await?;
    match start_without_file(&postgres.url()).await? {
        Err(PolicyStartError::NothingEnforced { .. }) => {}
        Err(other) => return Err(Failure::new(format!("refused otherwise: {other}"))),
        Ok(()) => return Err(Failure::new("started")),
    }
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    let active = put_in_force(&repository, &daily_policy("m", 1)).await?;
    let alone = Node::start(&postgres.url(), None, &[]).await?;
    assert_eq!((alone.daily("m").await?, alone.daily("n").await?), (Some(1), None));
    assert!(alone.health.states().policy.up);
    // When the last one ends, payments are refused rather than passed, and operators are notified.
    repository.deactivate(crate::bench::Person::new("ann")?.by(), active.policy_id).await?;
    alone.wait_for_metric("sluice_enforcement_active 0").await?;
    assert_eq!(alone.daily("m").await?, None);
    assert!(!alone.health.states().policy.up);
    // From here one can begin anew, as on a server that never had any.
    let tier = TierInput {
        tier_code: "gold".to_owned(),
        tier_level: 1,
        allowed_channels: None,
        allowed_currencies: None,
        remarks: None,
    };
    let repository = alone.repository(&postgres)?;
    repository.create_tier(crate::bench::Person::new("ann")?.by(), &tier).await?;
    put_in_force(&repository, &daily_policy("m", 3)).await?;
    alone.wait_for_daily("m", 3, WITHIN).await?;
    // A policy that lifts everything would enforce nothing.
    let mut nothing = daily_policy("m", 1);
    nothing.daily_limit = Some(quota::AmountMinor::MAX.get());
    let last = repository.list(&PolicyFilter::default(), None, 1).await?.remove(0);
    let refused = replace(&repository, last.policy_id, &nothing).await;
    assert!(refused.is_err_and(|failure| failure.to_string().contains("enforces nothing")));
    assert_eq!(alone.daily("m").await?, Some(3));
    Ok(())
}

async fn start_without_file(url: &str) -> Result<std::result::Result<(), PolicyStartError>> {
    let env = [("DATABASE_URL".to_owned(), url.to_owned())];
    let settings = Settings::load(env.into_iter(), None)?;
    let health = std::sync::Arc::new(Health::new(std::sync::Arc::new(sluice_kit::metrics::Metrics::new())));
    Ok(sluice_policy_source::open(&settings, &Live::fixed(&settings), &health).await.map(drop))
}
