//! Tiers, who is of which, and overrides: what holds for a merchant, as it is changed.

use quota::Trust;
use sluice_kit::clock;
use sluice_policy_source::postgres::ScopeFilter;
use sluice_policy_source::postgres::model::{
    BindingInput, OverrideInput, PolicyInput, Tier, TierInput, TrustMode, UnknownMerchants,
};
use sqlx::types::chrono::DateTime;
use sqlx::types::{Uuid, chrono::Utc};
use testkit::Result;

use crate::bench::{DOCUMENT, Node, Person, WITHIN, code_of, daily_policy, field_of, postgres, put_in_force};

fn gold() -> TierInput {
    TierInput {
        tier_code: "gold".to_owned(),
        tier_level: 4,
        allowed_channels: None,
        allowed_currencies: Some(vec!["USD".to_owned(), "JPY".to_owned()]),
        remarks: None,
    }
}

fn binding(tier: &Tier, merchant: &str) -> BindingInput {
    BindingInput {
        merchant_id: merchant.to_owned(),
        tier_id: tier.tier_id,
        effective_date: None,
        expiry_date: None,
        change_reason: "grown".to_owned(),
    }
}

fn in_hours(hours: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(clock::now_ms() + hours * 3_600_000).unwrap_or_default()
}

#[tokio::test]
async fn a_merchant_has_its_tiers_limits_while_it_is_bound() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    let ann = Person::new("ann")?;
    let tier = repository.create_tier(ann.by(), &gold()).await?;
    assert_eq!(code_of(repository.create_tier(ann.by(), &gold()).await), "conflict");
    for (field, bad) in [
        ("tier_level", TierInput { tier_level: 6, ..gold() }),
        ("tier_code", TierInput { tier_code: "a b".to_owned(), ..gold() }),
        ("allowed_currencies", TierInput { allowed_currencies: Some(vec!["XXX".to_owned()]), ..gold() }),
    ] {
        assert_eq!(field_of(repository.create_tier(ann.by(), &bad).await)?, field);
    }
    let of_tier = PolicyInput { merchant_id: None, tier_id: Some(tier.tier_id), ..daily_policy("", 5_000) };
    let policy = put_in_force(&repository, &of_tier).await?;
    let bound = repository.bind(ann.by(), &binding(&tier, "m")).await?;
    node.wait_for_daily("m", 5_000, WITHIN).await?;
    assert_eq!(node.daily("other").await?, Some(1_000));
    // What the tier itself allows holds beside its policy, and what neither says is the file's.
    let in_force = node.policy("m", "USD", None).await?.map(|policy| {
        (policy.allowed_currencies.as_ref().map(std::collections::BTreeSet::len), policy.single_min.get())
    });
    assert_eq!(in_force, Some((Some(2), 10)));
    // Its own policy lies over the tier's.
    put_in_force(&repository, &daily_policy("m", 77)).await?;
    node.wait_for_daily("m", 77, WITHIN).await?;
    let own = node.policy("m", "USD", None).await?.map(|policy| policy.allowed_currencies.is_some());
    assert_eq!(own, Some(true));

    let second = repository.bind(ann.by(), &binding(&tier, "n")).await?;
    node.wait_for_daily("n", 5_000, WITHIN).await?;
    assert_eq!(code_of(repository.delete_tier(ann.by(), tier.tier_id).await), "conflict");
    repository.unbind(ann.by(), second.binding_id).await?;
    assert_eq!(code_of(repository.unbind(ann.by(), second.binding_id).await), "not_found");
    node.wait_for_daily("n", 1_000, WITHIN).await?;
    let in_force = ScopeFilter { in_force: true, ..ScopeFilter::default() };
    let bindings = repository.list_bindings(&in_force, None, 10).await?;
    assert_eq!(bindings.iter().map(|binding| binding.binding_id).collect::<Vec<_>>(), [bound.binding_id]);

    let wider = TierInput { allowed_currencies: None, ..gold() };
    assert_eq!(code_of(repository.update_tier(ann.by(), tier.tier_id, &wider, Some(7)).await), "conflict");
    repository.update_tier(ann.by(), tier.tier_id, &wider, Some(1)).await?;
    repository.unbind(ann.by(), bound.binding_id).await?;
    repository.deactivate(ann.by(), policy.policy_id).await?;
    repository.delete_tier(ann.by(), tier.tier_id).await?;
    assert_eq!(code_of(repository.get_tier(tier.tier_id).await), "not_found");
    let missing = BindingInput { tier_id: Uuid::nil(), ..binding(&tier, "m") };
    assert_eq!(field_of(repository.bind(ann.by(), &missing).await)?, "tier_id");
    let steps = repository.history(tier.tier_id, None, 10).await?;
    assert_eq!(steps.iter().map(|step| step.action.as_str()).collect::<Vec<_>>(), ["delete", "update", "create"]);
    Ok(())
}

#[tokio::test]
async fn a_channels_own_policy_outranks_the_one_for_all() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    put_in_force(&repository, &PolicyInput { priority: 100, ..daily_policy("m", 50) }).await?;
    put_in_force(&repository, &PolicyInput { channel: "card".to_owned(), ..daily_policy("m", 60) }).await?;
    let yen = PolicyInput { currency: Some("JPY".to_owned()), priority: -1, ..daily_policy("m", 70) };
    put_in_force(&repository, &yen).await?;
    node.wait_for_metric("sluice_policy_source_up{source=\"postgres\"} 1").await?;
    let table = [("USD", None, 50), ("USD", Some("card"), 60), ("USD", Some("wire"), 50), ("JPY", None, 70)];
    node.wait_for_daily("m", 50, WITHIN).await?;
    testkit::wait::until_async("all three policies", WITHIN, || async {
        let yen = node.policy("m", "JPY", None).await?;
        Ok(yen.is_some_and(|policy| policy.limits.windows.day.amount.get() == 70).then_some(()))
    })
    .await?;
    for (currency, channel, daily) in table {
        let policy = node.policy("m", currency, channel).await?;
        assert_eq!(policy.map(|policy| policy.limits.windows.day.amount.get()), Some(daily), "{currency} {channel:?}");
    }
    Ok(())
}

#[tokio::test]
async fn an_override_holds_for_its_time_once_another_has_approved_it() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    let (ann, bob) = (Person::new("ann")?, Person::new("bob")?);
    let sale = OverrideInput {
        merchant_id: "m".to_owned(),
        channel: "all".to_owned(),
        daily_limit: Some(9_000),
        effective_date: in_hours(-1),
        expiry_date: in_hours(1),
        reason: "sale".to_owned(),
        ..OverrideInput::default()
    };
    for (field, bad) in [
        ("daily_limit", OverrideInput { daily_limit: None, ..sale.clone() }),
        ("expiry_date", OverrideInput { expiry_date: in_hours(-1), ..sale.clone() }),
        ("reason", OverrideInput { reason: " ".to_owned(), ..sale.clone() }),
        ("merchant_id", OverrideInput { merchant_id: String::new(), ..sale.clone() }),
    ] {
        assert_eq!(field_of(repository.create_override(ann.by(), &bad).await)?, field);
    }
    let asked = repository.create_override(ann.by(), &sale).await?;
    let later = OverrideInput { effective_date: in_hours(2), expiry_date: in_hours(3), ..sale };
    let later = repository.create_override(ann.by(), &later).await?;
    repository.approve_override(bob.by(), later.override_id).await?;
    assert_eq!(code_of(repository.approve_override(ann.by(), asked.override_id).await), "four_eyes");
    // Not approved, or not yet: neither holds.
    let marker = put_in_force(&repository, &daily_policy("marker", 1)).await?;
    node.wait_for_daily("marker", 1, WITHIN).await?;
    assert_eq!(node.daily("m").await?, Some(1_000));
    repository.approve_override(bob.by(), asked.override_id).await?;
    assert_eq!(code_of(repository.approve_override(bob.by(), asked.override_id).await), "conflict");
    node.wait_for_daily("m", 9_000, WITHIN).await?;
    let policy = node.policy("m", "USD", None).await?;
    let named = policy.is_some_and(|policy| policy.version.starts_with(&format!("override:{}", asked.override_id)));
    assert!(named);
    let in_force = ScopeFilter { in_force: true, ..ScopeFilter::default() };
    assert_eq!(repository.list_overrides(&in_force, None, 10).await?.len(), 1);
    repository.revoke_override(ann.by(), asked.override_id).await?;
    assert_eq!(code_of(repository.revoke_override(ann.by(), asked.override_id).await), "not_found");
    node.wait_for_daily("m", 1_000, WITHIN).await?;
    assert_eq!(repository.get_override(asked.override_id).await?.revoked_by.as_deref(), Some("ann"));
    assert_eq!(marker.version, 1);
    Ok(())
}

/// Each of the two alone goes with the rest; both together would leave a binding without its tier.
#[tokio::test]
async fn of_two_changes_that_contradict_each_other_one_is_made() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    let ann = Person::new("ann")?;
    for round in 0..20 {
        let input = TierInput { tier_code: format!("tier-{round}"), ..gold() };
        let tier = repository.create_tier(ann.by(), &input).await?;
        let bound = binding(&tier, &format!("m-{round}"));
        let (deleted, bound) =
            tokio::join!(repository.delete_tier(ann.by(), tier.tier_id), repository.bind(ann.by(), &bound));
        assert_ne!(deleted.is_ok(), bound.is_ok(), "round {round}: {deleted:?}, {bound:?}");
    }
    Ok(())
}

/// X8: a policy for everybody says that unknown merchants are refused; policies, bindings and overrides make a merchant known.
#[tokio::test]
async fn x8_unknown_merchants_are_refused_by_a_policy_for_everybody() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    let ann = Person::new("ann")?;
    let tier = repository.create_tier(ann.by(), &gold()).await?;
    repository.bind(ann.by(), &binding(&tier, "bound")).await?;
    put_in_force(&repository, &daily_policy("named", 5_000)).await?;
    let refuse = Some(UnknownMerchants::Refuse);
    for (field, bad) in [
        ("unknown_merchants", PolicyInput { unknown_merchants: refuse, ..daily_policy("m", 5) }),
        ("unknown_merchants", PolicyInput { unknown_merchants: refuse, channel: "card".to_owned(), ..everybody() }),
        (
            "unknown_merchants",
            PolicyInput { unknown_merchants: refuse, currency: Some("USD".to_owned()), ..everybody() },
        ),
    ] {
        assert_eq!(field_of(repository.create(ann.by(), &bad).await)?, field);
    }
    let policy = put_in_force(&repository, &PolicyInput { unknown_merchants: refuse, ..everybody() }).await?;
    assert_eq!(policy.unknown_merchants, refuse);
    node.wait_for_daily("unknown", 2_000, WITHIN).await?;
    for (merchant, unknown) in [("unknown", true), ("bound", false), ("named", false)] {
        let policy = node.policy(merchant, "USD", None).await?;
        assert_eq!(policy.map(|policy| policy.merchant_unknown), Some(unknown), "{merchant}");
    }
    Ok(())
}

fn everybody() -> PolicyInput {
    PolicyInput { merchant_id: None, ..daily_policy("", 2_000) }
}

/// The percentages at which usage is reported lie over those of the wider policy, as any other field.
#[tokio::test]
async fn thresholds_are_inherited_and_replaced() -> Result<()> {
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(DOCUMENT), &[]).await?;
    let repository = node.repository(&postgres)?;
    for (merchant, thresholds) in [("all", Some(vec![100, 50, 120])), ("none", Some(Vec::new())), ("default", None)] {
        let input = PolicyInput { thresholds: thresholds.clone(), ..daily_policy(merchant, 5_000) };
        assert_eq!(put_in_force(&repository, &input).await?.thresholds, thresholds);
        node.wait_for_daily(merchant, 5_000, WITHIN).await?;
    }
    for (merchant, percents) in
        [("all", &[50, 100, 120][..]), ("none", &[]), ("default", &[80, 100]), ("other", &[80, 100])]
    {
        let policy = node.policy(merchant, "USD", None).await?;
        let watch = policy.as_ref().and_then(|policy| policy.threshold_policy.clone());
        let found = watch.as_ref().map(|watch| watch.thresholds().percents());
        assert_eq!(found, Some(percents), "{merchant}");
    }
    Ok(())
}

/// A row gives trust, switches off what the file gives, or inherits it.
#[tokio::test]
async fn trust_is_inherited_and_replaced() -> Result<()> {
    const TRUSTING: &str = "{version: file, default: {daily_amount: 1000, \
         trust: {above_percent: 10, share_percent: 1, ttl_ms: 100}}}";
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(TRUSTING), &[]).await?;
    let repository = node.repository(&postgres)?;
    let of = |merchant: &str, trust, [above_percent, share_percent, ttl_ms]: [Option<u32>; 3]| PolicyInput {
        trust,
        trust_above_percent: above_percent,
        trust_share_percent: share_percent,
        trust_ttl_ms: ttl_ms,
        ..daily_policy(merchant, 5_000)
    };
    let terms = |above_percent, share_percent, ttl_ms| Some(Trust { above_percent, share_percent, ttl_ms });
    let table = [
        ("on", of("on", Some(TrustMode::On), [Some(0), Some(50), Some(60_000)]), terms(0, 50, 60_000)),
        ("off", of("off", Some(TrustMode::Off), [None; 3]), None),
        ("inherits", of("inherits", None, [None; 3]), terms(10, 1, 100)),
    ];
    for (merchant, input, expected) in table {
        let made = put_in_force(&repository, &input).await?;
        let given = (made.trust, made.trust_above_percent, made.trust_share_percent, made.trust_ttl_ms);
        let asked = (input.trust, input.trust_above_percent, input.trust_share_percent, input.trust_ttl_ms);
        assert_eq!(given, asked, "{merchant}");
        node.wait_for_daily(merchant, 5_000, WITHIN).await?;
        let policy = node.policy(merchant, "USD", None).await?;
        assert_eq!(policy.map(|policy| policy.trust), Some(expected), "{merchant}");
    }
    Ok(())
}
