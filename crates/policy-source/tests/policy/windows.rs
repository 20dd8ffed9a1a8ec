//! A limit that is changed in the middle of a window takes effect with the next payment, through Envoy and a real server.

use std::sync::Arc;
use std::time::Duration;

use sluice_kit::database;
use sluice_kit::health::Health;
use sluice_kit::metrics::Metrics;
use sluice_policy::PolicyBook;
use sluice_policy_source::Policies;
use sluice_policy_source::postgres::PolicyRepository;
use sluice_policy_source::postgres::model::PolicyInput;
use sluice_policy_source::zones::Zones;
use sluice_settings::Secret;
use testkit::client::{Payment, Protocol};
use testkit::stack::{Stack, StackOptions};
use testkit::{Result, wait};

use crate::bench::{daily_policy, put_in_force, replace};

/// A change reaches the server within a second; a busy machine may take longer to answer.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(10);

/// A policy whose day does not end during the test: it begins twelve hours from now.
fn of_the_day(daily: u64) -> PolicyInput {
    let hour = sluice_kit::clock::now_ms() / 3_600_000 % 24;
    PolicyInput { cutoff_hour: u32::try_from((hour + 12) % 24).ok(), ..daily_policy("mid-window", daily) }
}

#[tokio::test]
async fn a_limit_that_changes_in_mid_window_holds_for_the_next_payment() -> Result<()> {
    let document = "{version: base, default: {daily_amount: 1000000}}".to_owned();
    let stack = Stack::start(&StackOptions { policies: Some(document.clone()), ..StackOptions::default() })?;
    let pool = database::pool(&Secret::new(stack.postgres.url()), 2)?;
    let health = Arc::new(Health::new(Arc::new(Metrics::new())));
    let policies = Arc::new(Policies::new(PolicyBook::from_yaml(&document, &Zones::compiled_in())?, health));
    let repository = PolicyRepository::new(pool, policies);
    let active = put_in_force(&repository, &of_the_day(10_000)).await?;
    in_force(&stack, &format!("{}@1", active.policy_id)).await?;
    assert_eq!(pay(&stack, "a", 6_000).await?, 200);
    assert_eq!(pay(&stack, "b", 6_000).await?, 429);

    replace(&repository, active.policy_id, &of_the_day(12_000)).await?;
    in_force(&stack, &format!("{}@2", active.policy_id)).await?;
    assert_eq!(pay(&stack, "c", 6_000).await?, 200);

    // Lowered below what is used: nothing is taken back, and nothing more is admitted.
    replace(&repository, active.policy_id, &of_the_day(5_000)).await?;
    in_force(&stack, &format!("{}@3", active.policy_id)).await?;
    assert_eq!(pay(&stack, "d", 100).await?, 429);
    let used = stack.account("mid-window", "USD").await?.map(|account| account.windows.day.amount);
    assert_eq!(used, Some(12_000));
    Ok(())
}

/// Waits until payments are decided by this version, asked by ones that every version refuses.
async fn in_force(stack: &Stack, version: &str) -> Result<()> {
    let mut tried = 0;
    wait::until_async(version, IN_FORCE_WITHIN, || {
        tried += 1;
        let order = format!("probe-{version}-{tried}");
        async move {
            pay(stack, &order, 2_000_000).await?;
            // Any probe's line: the last one's may still be on its way to the log.
            let named =
                |line: &serde_json::Value| line["policy_version"].as_str().is_some_and(|found| found.contains(version));
            Ok(stack.server.decisions().iter().any(named).then_some(()))
        }
    })
    .await
}

async fn pay(stack: &Stack, order: &str, cents: u64) -> Result<u16> {
    Ok(stack.send(Protocol::Http2, Payment::new("mid-window", order, cents).call()).await?.status)
}
