//! The policies in force: where they come from and how a change is applied.
//!
//! Two sources make up the book that every server holds: the policy file, and over it the policies in Postgres. Where an
//! external policy service is configured, its answer for an account outranks the book; see [`service`].

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod effective;
mod file;
pub mod metrics;
mod open;
pub mod postgres;
pub mod service;
pub mod zones;

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use quota::{Calendar, Channel, Currency, MerchantId, Policy};
use sluice_policy::{PolicyBook, PolicyError, PolicySet};
use tracing::{error, info};

use crate::zones::Zones;
use crate::zones::metrics::ZoneMetrics;
use metrics::{PolicyMetrics, Source, Step};
use postgres::Rows;
use service::{AccountCalendar, Found, PolicyService};
use sluice_kit::health::Health;

pub use effective::EffectivePolicy;
pub use file::{FileSource, SourceError};
pub use open::{PolicyStartError, Sources, open};

/// The policies that decisions read. A change replaces the book whole; a decision keeps the one it began with.
#[derive(Debug)]
pub struct Policies {
    book: RwLock<Arc<PolicyBook>>,
    parts: Mutex<Parts>,
    service: Option<Arc<PolicyService>>,
    zones: Arc<Zones>,
    health: Arc<Health>,
    policy_metrics: Arc<PolicyMetrics>,
    zone_metrics: Arc<ZoneMetrics>,
}

/// What the book was made of.
#[derive(Clone, Debug, Default)]
struct Parts {
    file: Option<Arc<PolicySet>>,
    rows: Option<Arc<Rows>>,
    /// How often zone data was renewed.
    renewals: u64,
}

impl Parts {
    const fn is_empty(&self) -> bool {
        self.file.is_none() && self.rows.is_none()
    }

    /// Whether these are the very parts that `other` was copied from.
    fn are(&self, other: &Self) -> bool {
        self.file.as_ref().map(Arc::as_ptr) == other.file.as_ref().map(Arc::as_ptr)
            && self.rows.as_ref().map(Arc::as_ptr) == other.rows.as_ref().map(Arc::as_ptr)
            && self.renewals == other.renewals
    }

    fn compile(&self, zones: &Zones) -> Result<PolicyBook, PolicyError> {
        match (&self.file, self.rows.as_ref().filter(|rows| !rows.is_empty())) {
            (None, None) => Ok(PolicyBook::empty()),
            (Some(file), None) => file.compile(zones),
            (file, Some(rows)) => match rows.join(file.as_deref())?.compile(zones) {
                // Where there is no other source, tiers may exist before the first policy.
                Err(PolicyError::EnforcesNothing) if file.is_none() && rows.has_no_policy() => Ok(PolicyBook::empty()),
                compiled => compiled,
            },
        }
    }
}

/// The policy in the account's calendar, with its thresholds and its trust, each as far as it is known.
fn of_account(policy: &Arc<Policy>, calendar: Option<Calendar>, account: Option<&Arc<Policy>>) -> Arc<Policy> {
    let thresholds = account.and_then(|account| account.threshold_policy.as_ref());
    let trust = account.and_then(|account| account.trust);
    let calendar_known = calendar.is_some();
    let calendar = calendar.unwrap_or_else(|| policy.calendar.clone());
    if (&policy.calendar, policy.calendar_known, policy.threshold_policy.as_ref(), policy.trust)
        == (&calendar, calendar_known, thresholds, trust)
    {
        return Arc::clone(policy);
    }
    let threshold_policy = thresholds.map(Arc::clone);
    Arc::new(Policy { calendar, calendar_known, trust, threshold_policy, ..Policy::clone(policy) })
}

/// Compiles on a thread of its own: many policies take a while, in which the admin port must keep answering.
async fn compile_off_thread(
    compile: impl FnOnce() -> Result<(), PolicyError> + Send + 'static,
) -> Result<(), PolicyError> {
    match tokio::task::spawn_blocking(compile).await {
        Ok(compiled) => compiled,
        Err(broken) => match broken.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // It never ran: the runtime is being shut down.
            Err(_) => std::future::pending().await,
        },
    }
}

impl Policies {
    /// Begins with the policies of a file and of Postgres, as far as there are any, and with the policy service, if one is
    /// configured.
    ///
    /// # Errors
    /// [`PolicyError`] names the field where they contradict each other.
    pub fn of_sources(
        file: Option<PolicySet>,
        rows: Option<Rows>,
        service: Option<Arc<PolicyService>>,
        zones: Arc<Zones>,
        health: Arc<Health>,
    ) -> Result<Self, PolicyError> {
        let parts = Parts { file: file.map(Arc::new), rows: rows.map(Arc::new), renewals: 0 };
        let book = Arc::new(parts.compile(&zones)?);
        let policy_metrics: Arc<PolicyMetrics> = health.metrics().part();
        let zone_metrics = health.metrics().part();
        for (source, given) in [(Source::File, parts.file.is_some()), (Source::Postgres, parts.rows.is_some())] {
            if given {
                policy_metrics.read(source, true);
            }
        }
        info!(version = %book.version(), merchants = book.merchants(), service = service.is_some(), "policies are in force");
        let policies = Self {
            book: RwLock::new(Arc::clone(&book)),
            parts: Mutex::new(parts),
            service,
            zones,
            health,
            policy_metrics,
            zone_metrics,
        };
        policies.publish(&book);
        Ok(policies)
    }

    /// Begins with a book that is never changed.
    #[must_use]
    pub fn new(book: PolicyBook, health: Arc<Health>) -> Self {
        let (policy_metrics, zone_metrics) = (health.metrics().part(), health.metrics().part());
        let book = Arc::new(book);
        let policies = Self {
            book: RwLock::new(Arc::clone(&book)),
            parts: Mutex::default(),
            service: None,
            zones: Arc::new(Zones::compiled_in()),
            health,
            policy_metrics,
            zone_metrics,
        };
        policies.publish(&book);
        policies
    }

    /// The policies of file and Postgres in force.
    #[must_use]
    pub fn current(&self) -> Arc<PolicyBook> {
        Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there is any source of a policy.
    #[must_use]
    pub fn any(&self) -> bool {
        self.service.is_some() || !self.current().is_empty()
    }

    /// The policy for a charge. It waits only at the policy service's first query for an account, and then no longer than
    /// [`service::FIRST_ANSWER_MAX`].
    pub async fn effective(
        &self,
        merchant: &MerchantId,
        currency: Currency,
        channel: Option<&Channel>,
        now_ms: i64,
    ) -> Option<Arc<Policy>> {
        let Some(service) = &self.service else {
            return self.current().effective(merchant, currency, channel, now_ms).cloned();
        };
        let found = service.policy(merchant, currency, channel, now_ms).await;
        let (step, policy) = self.chosen(service, &found, (merchant, currency, channel), now_ms);
        if let Some(step) = step {
            self.policy_metrics.stepped_down(step);
        }
        if let (Some(step @ (Step::Configured | Step::Defaults)), Some(cell)) = (step, &found.cell) {
            cell.log_fallback(step);
        }
        Some(policy)
    }

    /// The policy for a charge by what is known now: no query, no wait, nothing is cached or counted. For callers that go through
    /// many accounts.
    #[must_use]
    pub fn peek(
        &self,
        merchant: &MerchantId,
        currency: Currency,
        channel: Option<&Channel>,
        now_ms: i64,
    ) -> Option<Arc<Policy>> {
        let Some(service) = &self.service else {
            return self.current().effective(merchant, currency, channel, now_ms).cloned();
        };
        let found = service.peek(merchant, currency, channel);
        Some(self.chosen(service, &found, (merchant, currency, channel), now_ms).1)
    }

    /// The policy by the service's answer, in the account's own calendar as far as that is known.
    fn chosen(
        &self,
        service: &PolicyService,
        found: &Found,
        (merchant, currency, channel): (&MerchantId, Currency, Option<&Channel>),
        now_ms: i64,
    ) -> (Option<Step>, Arc<Policy>) {
        let book = self.current();
        let (step, policy) = match (&found.policy, book.effective(merchant, currency, channel, now_ms)) {
            (Some(policy), _) => (found.is_last_known.then_some(Step::LastKnown), policy),
            (None, Some(policy)) => (Some(Step::Configured), policy),
            (None, None) => (Some(Step::Defaults), service.defaults()),
        };
        let (calendar, account) = match &found.calendar {
            AccountCalendar::Answered(calendar) => (Some(calendar.clone()), found.account.as_ref()),
            AccountCalendar::Configured => {
                let configured = book.effective(merchant, currency, None, now_ms).unwrap_or(service.defaults());
                (Some(configured.calendar.clone()), Some(configured))
            }
            AccountCalendar::Unknown => (None, None),
        };
        (step, of_account(policy, calendar, account))
    }

    /// Puts the policies of another file in force.
    ///
    /// # Errors
    /// [`PolicyError`] names the field; nothing changes then.
    pub fn replace_file(&self, file: PolicySet) -> Result<(), PolicyError> {
        let file = Arc::new(file);
        self.replace(Source::File, |parts| parts.file = Some(Arc::clone(&file)))
    }

    /// Puts other policies of Postgres in force.
    ///
    /// # Errors
    /// [`PolicyError`] names the row and the field; nothing changes then.
    pub fn replace_rows(&self, rows: Rows) -> Result<(), PolicyError> {
        let rows = Arc::new(rows);
        self.replace(Source::Postgres, |parts| parts.rows = Some(Arc::clone(&rows)))
    }

    /// Whether rows are consistent with the present file.
    ///
    /// # Errors
    /// [`PolicyError`] names the row and the field.
    pub async fn try_rows(&self, rows: Rows) -> Result<(), PolicyError> {
        let file = self.parts().file;
        let parts = Parts { file, rows: Some(Arc::new(rows)), renewals: 0 };
        let zones = Arc::clone(&self.zones);
        compile_off_thread(move || parts.compile(&zones).map(drop)).await
    }

    /// Records whether a source could be read.
    pub fn source_read(&self, source: Source, usable: bool) {
        self.policy_metrics.read(source, usable);
    }

    fn replace(&self, source: Source, change: impl Fn(&mut Parts)) -> Result<(), PolicyError> {
        let compiled = self.put_in_force(change);
        self.policy_metrics.read(source, compiled.is_ok());
        let [before, book] = compiled?;
        if before.version() != book.version() {
            info!(source = source.into_str(), from = %before.version(), to = %book.version(), "policies changed");
            self.publish(&book);
        }
        Ok(())
    }

    /// Applies zone data that was renewed since the last time. Returns the names of zones that changed.
    ///
    /// # Errors
    /// [`PolicyError`] names the field; the policies in force stay.
    pub fn renew_zones(&self) -> Result<Vec<String>, PolicyError> {
        let changed = self.zones.refresh();
        self.zone_metrics.set(&self.zones.data());
        if changed.is_empty() {
            return Ok(changed);
        }
        if let Some(service) = &self.service {
            service.renew_zones();
        }
        // A book that was given as a whole has no parts to compile again.
        if !self.parts().is_empty() {
            self.put_in_force(|parts| parts.renewals += 1)?;
        }
        info!(zones = changed.join(","), "time zone data changed, policies compiled again");
        Ok(changed)
    }

    /// The time zones that policies are compiled with.
    #[must_use]
    pub const fn zones(&self) -> &Arc<Zones> {
        &self.zones
    }

    fn parts(&self) -> Parts {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Compiles the changed parts and puts them in force. Returns the books before and after.
    fn put_in_force(&self, change: impl Fn(&mut Parts)) -> Result<[Arc<PolicyBook>; 2], PolicyError> {
        loop {
            let before = self.parts();
            let mut changed = before.clone();
            change(&mut changed);
            // Outside of the lock: the check of a change must not wait while many policies are compiled.
            let book = Arc::new(changed.compile(&self.zones)?);
            let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
            if !parts.are(&before) {
                continue;
            }
            *parts = changed;
            let mut current = self.book.write().unwrap_or_else(PoisonError::into_inner);
            let before = std::mem::replace(&mut *current, Arc::clone(&book));
            return Ok([before, book]);
        }
    }

    /// Publishes in `/ready` and the gauges what is in force.
    fn publish(&self, book: &PolicyBook) {
        let version = match (book.is_empty(), self.service.is_some()) {
            (false, _) => Some(book.version().as_ref()),
            (true, true) => Some("service"),
            (true, false) => None,
        };
        self.policy_metrics.set_document(version);
        if version.is_some() {
            self.health.policy_active();
        } else {
            error!("no policy is in force, every payment is refused");
            self.health.policy_missing("no policy is in force");
        }
    }
}
