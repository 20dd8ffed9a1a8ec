//! What the policy tests stand on: a private Postgres with the tables, the policy part of a server, and short words for what
//! people do with policies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quota::{ActorId, Channel, Currency, MerchantId, Policy};
use sluice_journal::postgres::UsageLog;
use sluice_kit::database::change::{By, ChangeError};
use sluice_kit::health::Health;
use sluice_kit::metrics::Metrics;
use sluice_kit::shutdown::{self, Stop};
use sluice_kit::{clock, database};
use sluice_policy_source::Policies;
use sluice_policy_source::postgres::PolicyRepository;
use sluice_policy_source::postgres::model::{LimitPolicy, PolicyInput};
use sluice_settings::{Live, Secret, Settings};
use sqlx::types::Uuid;
use testkit::dirs::RunDir;
use testkit::postgres::Postgres;
use testkit::{Failure, Result, wait};

/// How long anything may take to come true.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);
/// The policy file of most tests.
pub(crate) const DOCUMENT: &str = "{version: file, default: {single_min: 10, daily_amount: 1000}}";

/// A Postgres with the server's tables.
pub(crate) async fn postgres() -> Result<Postgres> {
    let postgres = Postgres::start()?;
    UsageLog::new(&Secret::new(postgres.url()))?.probe().await?;
    Ok(postgres)
}

/// The policy part of one server.
pub(crate) struct Node {
    pub(crate) policies: Arc<Policies>,
    pub(crate) health: Arc<Health>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) dir: Arc<RunDir>,
    stop: Stop,
}

impl Node {
    /// Starts as the server does, with a policy file where there is a text for one.
    pub(crate) async fn start(postgres_url: &str, document: Option<&str>, env: &[(&str, &str)]) -> Result<Self> {
        let dir = RunDir::new("policy")?;
        let file = dir.join("policies.yaml");
        let mut all = BTreeMap::from([("DATABASE_URL".to_owned(), postgres_url.to_owned())]);
        if let Some(document) = document {
            std::fs::write(&file, document)?;
            all.insert("SLUICE_POLICY_FILE".to_owned(), file.display().to_string());
        }
        all.extend(env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let settings = Settings::load(all.into_iter(), None)?;
        let metrics = Arc::new(Metrics::new());
        let health = Arc::new(Health::new(Arc::clone(&metrics)));
        let (policies, sources) = sluice_policy_source::open(&settings, &Live::fixed(&settings), &health).await?;
        let (stop, stopped) = shutdown::channel();
        sources.spawn(&policies, &stopped);
        Ok(Self { policies, health, metrics, dir, stop })
    }

    /// What people do with the policies of this server.
    pub(crate) fn repository(&self, postgres: &Postgres) -> Result<PolicyRepository> {
        Ok(PolicyRepository::new(database::pool(&Secret::new(postgres.url()), 3)?, Arc::clone(&self.policies)))
    }

    /// The policy in force now.
    pub(crate) async fn policy(
        &self,
        merchant: &str,
        currency: &str,
        channel: Option<&str>,
    ) -> Result<Option<Arc<Policy>>> {
        let channel = channel.map(Channel::parse).transpose()?;
        let (merchant, currency) = (MerchantId::parse(merchant)?, Currency::parse(currency)?);
        Ok(self.policies.effective(&merchant, currency, channel.as_ref(), clock::now_ms()).await)
    }

    /// The merchant's daily amount in USD; none without a policy.
    pub(crate) async fn daily(&self, merchant: &str) -> Result<Option<u64>> {
        Ok(self.policy(merchant, "USD", None).await?.map(|policy| policy.limits.windows.day.amount.get()))
    }

    /// Waits until the merchant's daily amount in USD is this.
    pub(crate) async fn wait_for_daily(&self, merchant: &str, daily: u64, within: Duration) -> Result<()> {
        let what = format!("{merchant} having {daily} a day");
        let waited = wait::until_async(&what, within, || async {
            Ok((self.daily(merchant).await? == Some(daily)).then_some(()))
        });
        waited.await.map_err(|failure| failure.while_doing(self.metrics.encode()))
    }

    /// Waits until a figure has a value.
    pub(crate) async fn wait_for_metric(&self, line: &str) -> Result<()> {
        let waited = wait::until_async(line, WITHIN, || async { Ok(self.has_metric(line).then_some(())) });
        waited.await.map_err(|failure| failure.while_doing(self.metrics.encode()))
    }

    pub(crate) fn has_metric(&self, line: &str) -> bool {
        self.metrics.encode().lines().any(|found| found == line)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.request();
    }
}

/// An actor without reasons.
pub(crate) struct Person(ActorId);

impl Person {
    pub(crate) fn new(name: &str) -> Result<Self> {
        Ok(Self(ActorId::parse(name)?))
    }

    pub(crate) fn by(&self) -> By<'_> {
        By { actor: &self.0, reason: None }
    }

    pub(crate) fn because<'a>(&'a self, reason: &'a str) -> By<'a> {
        By { actor: &self.0, reason: Some(reason) }
    }
}

/// A policy for a merchant with a daily limit.
pub(crate) fn daily_policy(merchant: &str, daily: u64) -> PolicyInput {
    PolicyInput {
        merchant_id: Some(merchant.to_owned()),
        channel: "all".to_owned(),
        daily_limit: Some(daily),
        ..PolicyInput::default()
    }
}

/// Drafted by ann, approved and activated by bob.
pub(crate) async fn put_in_force(repository: &PolicyRepository, input: &PolicyInput) -> Result<LimitPolicy> {
    let (ann, bob) = (Person::new("ann")?, Person::new("bob")?);
    let drafted = repository.create(ann.by(), input).await?;
    repository.approve(bob.by(), drafted.policy_id, None).await?;
    Ok(repository.activate(bob.by(), drafted.policy_id, None).await?)
}

/// The next version of a policy, drafted by ann, approved and activated by bob.
pub(crate) async fn replace(repository: &PolicyRepository, policy: Uuid, input: &PolicyInput) -> Result<LimitPolicy> {
    let (ann, bob) = (Person::new("ann")?, Person::new("bob")?);
    repository.update(ann.by(), policy, input, None).await?;
    repository.approve(bob.by(), policy, None).await?;
    Ok(repository.activate(bob.by(), policy, None).await?)
}

/// The field that a refusal names.
pub(crate) fn field_of<T>(result: std::result::Result<T, ChangeError>) -> Result<String> {
    match result {
        Err(ChangeError::Invalid { field, .. }) => Ok(field),
        Err(other) => Err(Failure::new(format!("refused otherwise: {other}"))),
        Ok(_) => Err(Failure::new("accepted")),
    }
}

/// The code of a refusal.
pub(crate) fn code_of<T>(result: std::result::Result<T, ChangeError>) -> &'static str {
    result.map_or_else(|error| error.code(), |_| "accepted")
}
