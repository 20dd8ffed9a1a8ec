//! Draft, approved by another person, active, inactive: and every step on the record.

use sluice_policy_source::postgres::PolicyFilter;
use sluice_policy_source::postgres::model::{BreachAction, PolicyInput, PolicyState, PolicyStatus, TrustMode};
use sqlx::types::Uuid;
use testkit::Result;

use crate::bench::{DOCUMENT, Node, Person, code_of, daily_policy, field_of, postgres, put_in_force, replace};

#[tokio::test]
async fn a_policy_is_drafted_approved_by_another_and_activated() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    let (ann, bob, cid) = (Person::new("ann")?, Person::new("bob")?, Person::new("cid")?);

    let drafted = repository.create(ann.because("new contract"), &daily_policy("m", 500)).await?;
    let id = drafted.policy_id;
    assert_eq!((drafted.version, drafted.state, drafted.status), (1, PolicyState::Draft, PolicyStatus::Pending));
    assert_eq!(code_of(repository.activate(bob.by(), id, None).await), "conflict");
    assert_eq!(code_of(repository.approve(ann.by(), id, None).await), "four_eyes");
    // Each person who changed the draft is an author of it.
    let changed = repository.update(bob.by(), id, &daily_policy("m", 600), Some(1)).await?;
    assert_eq!(
        (changed.version, changed.revision, changed.edited_by),
        (1, 2, vec!["ann".to_owned(), "bob".to_owned()])
    );
    assert_eq!(code_of(repository.approve(bob.by(), id, None).await), "four_eyes");
    assert_eq!(code_of(repository.approve(cid.by(), id, Some(1)).await), "conflict");
    let approved = repository.approve(cid.because("checked"), id, Some(2)).await?;
    assert_eq!((approved.state, approved.status), (PolicyState::Approved, PolicyStatus::Pending));
    assert_eq!(approved.approved_by.as_deref(), Some("cid"));
    // A change voids the approval.
    repository.update(ann.by(), id, &daily_policy("m", 700), None).await?;
    assert_eq!(code_of(repository.activate(cid.by(), id, None).await), "conflict");
    repository.approve(cid.by(), id, None).await?;
    let active = repository.activate(ann.by(), id, None).await?;
    assert_eq!((active.status, active.daily_limit), (PolicyStatus::Active, Some(700)));
    assert_eq!(code_of(repository.activate(ann.by(), id, None).await), "conflict");

    // The next version is drafted beside the active one, and takes its place when it is activated.
    let next = repository.update(ann.by(), id, &daily_policy("m", 800), None).await?;
    assert_eq!((next.version, next.state), (2, PolicyState::Draft));
    assert_eq!(repository.get(id, Some(1)).await?.state, PolicyState::Active);
    repository.approve(bob.by(), id, None).await?;
    repository.activate(bob.by(), id, None).await?;
    assert_eq!(repository.get(id, Some(1)).await?.state, PolicyState::Inactive);
    assert_eq!(repository.get(id, None).await?.daily_limit, Some(800));
    repository.deactivate(bob.because("contract ended"), id).await?;
    assert_eq!(code_of(repository.deactivate(bob.by(), id).await), "conflict");

    let history = repository.history(id, None, 100).await?;
    let steps: Vec<(&str, &str)> =
        history.iter().rev().map(|change| (change.actor.as_str(), change.action.as_str())).collect();
    let expected = [
        ("ann", "create"),
        ("bob", "update"),
        ("cid", "approve"),
        ("ann", "update"),
        ("cid", "approve"),
        ("ann", "activate"),
        ("ann", "update"),
        ("bob", "approve"),
        ("bob", "activate"),
        ("bob", "activate"),
        ("bob", "deactivate"),
    ];
    assert_eq!(steps, expected);
    let last = &history[0];
    assert_eq!(last.reason.as_deref(), Some("contract ended"));
    let state = |row: &Option<serde_json::Value>| row.as_ref().and_then(|row| row["state"].as_str().map(str::to_owned));
    assert_eq!((state(&last.old).as_deref(), state(&last.new).as_deref()), (Some("active"), Some("inactive")));
    let earlier = repository.history(id, Some(last.history_id), 1).await?;
    assert_eq!(earlier.len(), 1);
    assert!(earlier[0].history_id < last.history_id);
    Ok(())
}

#[tokio::test]
async fn what_is_invalid_is_refused_with_its_field() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    let ann = Person::new("ann")?;
    let base = || daily_policy("m", 5);
    let time = |text: &str| text.parse().ok();
    let trusting = |above_percent, share_percent, ttl_ms| PolicyInput {
        trust: Some(TrustMode::On),
        trust_above_percent: Some(above_percent),
        trust_share_percent: Some(share_percent),
        trust_ttl_ms: Some(ttl_ms),
        ..base()
    };
    let table: Vec<(&str, PolicyInput)> = vec![
        ("daily_limit", PolicyInput { daily_limit: None, ..base() }),
        ("daily_limit", PolicyInput { daily_limit: Some(1 << 53), ..base() }),
        ("max_transactions_yearly", PolicyInput { max_transactions_yearly: Some(u64::MAX), ..base() }),
        ("single_trans_min", PolicyInput { single_trans_min: Some(6), single_trans_max: Some(5), ..base() }),
        ("merchant_id", PolicyInput { merchant_id: Some("m:1".to_owned()), ..base() }),
        ("tier_id", PolicyInput { tier_id: Some(Uuid::nil()), ..base() }),
        ("tier_id", PolicyInput { merchant_id: None, tier_id: Some(Uuid::nil()), ..base() }),
        ("channel", PolicyInput { channel: String::new(), ..base() }),
        ("currency", PolicyInput { currency: Some("usd".to_owned()), ..base() }),
        ("timezone", PolicyInput { timezone: Some("Mars/Base".to_owned()), ..base() }),
        ("timezone", PolicyInput { channel: "card".to_owned(), timezone: Some("UTC".to_owned()), ..base() }),
        ("cutoff_hour", PolicyInput { cutoff_hour: Some(24), ..base() }),
        ("allowed_currencies", PolicyInput { allowed_currencies: Some(vec!["XX".to_owned()]), ..base() }),
        ("allowed_channels", PolicyInput { allowed_channels: Some(vec![String::new()]), ..base() }),
        ("breach", PolicyInput { breach: Some(BreachAction::Throttle), throttle_burst: Some(1), ..base() }),
        ("breach", PolicyInput { throttle_burst: Some(1), ..base() }),
        ("trust", PolicyInput { trust: Some(TrustMode::On), trust_ttl_ms: Some(2_000), ..base() }),
        ("trust", PolicyInput { trust: Some(TrustMode::Off), ..trusting(20, 5, 2_000) }),
        ("trust", PolicyInput { trust_share_percent: Some(5), ..base() }),
        ("trust", PolicyInput { channel: "card".to_owned(), ..trusting(20, 5, 2_000) }),
        ("trust", PolicyInput { channel: "card".to_owned(), trust: Some(TrustMode::Off), ..base() }),
        ("trust_above_percent", trusting(100, 5, 2_000)),
        ("trust_above_percent", trusting(256, 5, 2_000)),
        ("trust_share_percent", trusting(20, 0, 2_000)),
        ("trust_share_percent", trusting(20, 51, 2_000)),
        ("trust_ttl_ms", trusting(20, 5, 99)),
        ("trust_ttl_ms", trusting(20, 5, 60_001)),
        ("thresholds", PolicyInput { thresholds: Some(vec![0]), ..base() }),
        ("thresholds", PolicyInput { thresholds: Some(vec![1_001]), ..base() }),
        ("thresholds", PolicyInput { thresholds: Some(vec![80, 80]), ..base() }),
        ("thresholds", PolicyInput { thresholds: Some((1..=9).collect()), ..base() }),
        ("thresholds", PolicyInput { channel: "card".to_owned(), thresholds: Some(vec![90]), ..base() }),
        (
            "throttle_per_minute",
            PolicyInput {
                breach: Some(BreachAction::Throttle),
                throttle_per_minute: Some(0),
                throttle_burst: Some(1),
                throttle_delay_ms_max: Some(0),
                throttle_ceiling_percent: Some(100),
                ..base()
            },
        ),
        ("hold_lifetime_secs", PolicyInput { hold_lifetime_secs: Some(0), ..base() }),
        ("over_capture_percent", PolicyInput { over_capture_percent: Some(101), ..base() }),
        (
            "expiry_date",
            PolicyInput {
                effective_date: time("2027-01-01T00:00:00Z"),
                expiry_date: time("2027-01-01T00:00:00Z"),
                ..base()
            },
        ),
        ("remarks", PolicyInput { remarks: Some("x".repeat(2_001)), ..base() }),
        ("metadata", PolicyInput { metadata: Some(serde_json::json!({"a": "x".repeat(9_000)})), ..base() }),
    ];
    for (field, input) in table {
        assert_eq!(field_of(repository.create(ann.by(), &input).await)?, field, "{input:?}");
    }
    assert!(repository.list(&PolicyFilter::default(), None, 10).await?.is_empty());
    // What this merchant would inherit contradicts it: the file's smallest payment is 10.
    let contradicting = PolicyInput { single_trans_max: Some(9), ..base() };
    let drafted = repository.create(ann.by(), &contradicting).await?;
    let bob = Person::new("bob")?;
    repository.approve(bob.by(), drafted.policy_id, None).await?;
    let field = field_of(repository.activate(bob.by(), drafted.policy_id, None).await)?;
    assert!(field.ends_with("single_trans_min"), "{field}");
    assert_eq!(repository.get(drafted.policy_id, None).await?.state, PolicyState::Approved);
    // A policy stays whose it is.
    assert_eq!(
        field_of(repository.update(ann.by(), drafted.policy_id, &daily_policy("n", 5), None).await)?,
        "merchant_id"
    );
    assert_eq!(code_of(repository.get(Uuid::nil(), None).await), "not_found");
    assert_eq!(code_of(repository.approve(bob.by(), Uuid::nil(), None).await), "not_found");
    let blank = repository.create(ann.because(" "), &daily_policy("m", 5)).await;
    assert_eq!(field_of(blank)?, "reason");
    Ok(())
}

/// A client that writes past the server meets the same rules.
#[tokio::test]
async fn the_tables_keep_the_rules_by_themselves() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    let active = put_in_force(&repository, &daily_policy("m", 5)).await?;
    let drafted = repository.create(Person::new("ann")?.by(), &daily_policy("n", 5)).await?;
    let pool = postgres.pool().await?;
    let table = [
        ("UPDATE limit_policy SET daily_limit = 6 WHERE policy_id = $1", active.policy_id),
        ("UPDATE limit_policy SET state = 'draft' WHERE policy_id = $1", active.policy_id),
        ("DELETE FROM limit_policy WHERE policy_id = $1", active.policy_id),
        ("DELETE FROM limit_policy_history WHERE object_id = $1", active.policy_id),
        ("UPDATE limit_policy_history SET actor = 'mallory' WHERE object_id = $1", active.policy_id),
        (
            "UPDATE limit_policy SET state = 'active', approved_by = 'bob', approved_at = now() WHERE policy_id = $1",
            drafted.policy_id,
        ),
        (
            "UPDATE limit_policy SET state = 'approved', approved_by = 'ann', approved_at = now() WHERE policy_id = $1",
            drafted.policy_id,
        ),
        ("UPDATE limit_policy SET state = 'approved' WHERE policy_id = $1", drafted.policy_id),
        ("UPDATE limit_policy SET daily_limit = 9007199254740992 WHERE policy_id = $1", drafted.policy_id),
        ("UPDATE limit_policy SET breach = 'throttle' WHERE policy_id = $1", drafted.policy_id),
        ("UPDATE limit_policy SET thresholds = '{80, 1001}' WHERE policy_id = $1", drafted.policy_id),
        ("UPDATE limit_policy SET trust = 'on' WHERE policy_id = $1", drafted.policy_id),
        ("UPDATE limit_policy SET trust = 'off', trust_ttl_ms = 2000 WHERE policy_id = $1", drafted.policy_id),
        (
            "UPDATE limit_policy SET trust = 'on', trust_above_percent = 20, trust_share_percent = 51, trust_ttl_ms = 2000 \
             WHERE policy_id = $1",
            drafted.policy_id,
        ),
        ("UPDATE limit_policy SET channel = 'card', trust = 'off' WHERE policy_id = $1", drafted.policy_id),
    ];
    for (statement, policy) in table {
        assert!(sqlx::query(statement).bind(policy).execute(&pool).await.is_err(), "{statement}");
    }
    assert!(sqlx::query("TRUNCATE limit_policy_history").execute(&pool).await.is_err());
    // A change by hand is on the record, under the database's user.
    let by_hand = "UPDATE limit_policy SET remarks = 'by hand' WHERE policy_id = $1";
    sqlx::query(by_hand).bind(drafted.policy_id).execute(&pool).await?;
    let last = repository.history(drafted.policy_id, None, 1).await?.remove(0);
    assert_eq!((last.actor.as_str(), last.action.as_str()), ("database:sluice", "update"));
    Ok(())
}

#[tokio::test]
async fn policies_are_listed_by_what_they_are_for() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    let ann = Person::new("ann")?;
    let active = put_in_force(&repository, &daily_policy("a", 1)).await?;
    replace(&repository, active.policy_id, &daily_policy("a", 2)).await?;
    for number in 0..5 {
        repository.create(ann.by(), &daily_policy("b", number)).await?;
    }
    let of = |merchant: &str| PolicyFilter { merchant_id: Some(merchant.to_owned()), ..PolicyFilter::default() };
    let statuses: Vec<PolicyStatus> =
        repository.list(&of("a"), None, 10).await?.into_iter().map(|policy| policy.status).collect();
    assert_eq!(statuses, [PolicyStatus::Active, PolicyStatus::Inactive]);
    let pending = PolicyFilter { status: Some(PolicyStatus::Pending), ..of("b") };
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page = repository.list(&pending, after, 2).await?;
        let Some(last) = page.last() else { break };
        after = Some((last.created_at, last.policy_id));
        seen.extend(page.into_iter().filter_map(|policy| policy.daily_limit));
    }
    assert_eq!(seen, [4, 3, 2, 1, 0]);
    let deleted = repository.delete(ann.by(), active.policy_id).await?;
    assert_eq!(deleted.status, PolicyStatus::Inactive);
    let active = PolicyFilter { state: Some(PolicyState::Active), ..PolicyFilter::default() };
    assert!(repository.list(&active, None, 10).await?.is_empty());
    Ok(())
}
