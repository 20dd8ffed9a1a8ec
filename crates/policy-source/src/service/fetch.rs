//! Queries the policy service: for new accounts at once, for those in use at an interval.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quota::Channel;
use sluice_kit::shutdown::Shutdown;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tracing::error;

use super::answer::{Answer, AnswerError};
use super::{Account, Cell, PolicyService};
use crate::metrics::Source;
use sluice_kit::clock;
use sluice_kit::health::Health;
use sluice_kit::http::{Client, HttpError};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Requests under way for new accounts, and as many for those in use.
const REQUESTS_MAX: usize = 16;
/// An account that was not used for so long is not queried any more, and evicted.
const IDLE_MAX: Duration = Duration::from_secs(900);
/// The status for an account without a policy.
const NOT_FOUND: u16 = 404;
/// The service's path, the same as our own.
const PATH: &str = "/api/v1/limit-policies/effective";

/// Queries the service, beside the decisions, on another thread.
#[derive(Clone, Debug)]
pub struct PolicyFetcher {
    service: Arc<PolicyService>,
    client: Client,
    url: Arc<str>,
    /// Where an outage is reported.
    health: Option<Arc<Health>>,
}

impl PolicyFetcher {
    /// Queries `base_url`, as in `http://policies:8080`.
    ///
    /// # Errors
    /// [`HttpError`] for a URL that cannot be used.
    pub fn new(service: Arc<PolicyService>, base_url: &str) -> Result<Self, HttpError> {
        let url: Arc<str> = format!("{}{PATH}", base_url.trim_end_matches('/')).into();
        if let Err(problem) = sluice_kit::http::check_url(&url) {
            return Err(HttpError::Url { url: "POLICY_SERVICE_URL".to_owned(), problem });
        }
        Ok(Self { service, client: Client::new(REQUEST_TIMEOUT)?, url, health: None })
    }

    /// Reports whether the service answers.
    #[must_use]
    pub fn reporting(mut self, health: Arc<Health>) -> Self {
        self.health = Some(health);
        self
    }

    /// Serves until `shutdown` is `true`. `interval` returns how long to wait before the accounts are queried again.
    pub async fn run(
        self,
        new: mpsc::Receiver<Arc<Cell>>,
        interval: impl Fn() -> Duration + Send,
        mut shutdown: Shutdown,
    ) {
        tokio::select! {
            () = shutdown.requested() => {}
            () = self.serve(new) => {}
            () = self.refresh(interval) => {}
        }
    }

    /// New accounts, several at a time.
    async fn serve(&self, mut new: mpsc::Receiver<Arc<Cell>>) {
        let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
        let mut requests = JoinSet::new();
        while let Some(cell) = new.recv().await {
            // Never closed, so there is a permit in the end.
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            while requests.try_join_next().is_some() {}
            let fetcher = self.clone();
            requests.spawn(async move {
                fetcher.fetch(&cell).await;
                drop(permit);
            });
        }
    }

    async fn refresh(&self, interval: impl Fn() -> Duration + Send) {
        loop {
            tokio::time::sleep(interval()).await;
            self.refresh_all().await;
        }
    }

    /// Queries every account in use, and evicts the others.
    pub async fn refresh_all(&self) {
        let idle_ms = i64::try_from(IDLE_MAX.as_millis()).unwrap_or(i64::MAX);
        let idle_before_ms = clock::now_ms().saturating_sub(idle_ms);
        let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
        let mut requests = JoinSet::new();
        let cells = self.service.lock().all_cells();
        for cell in cells {
            // While the service does not answer, idle accounts are kept: they could not be queried again.
            if cell.used_at_ms() < idle_before_ms && !self.service.failing.load(Ordering::Relaxed) {
                self.service.evict(cell.account());
                continue;
            }
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            while requests.try_join_next().is_some() {}
            let fetcher = self.clone();
            requests.spawn(async move {
                fetcher.fetch(&cell).await;
                drop(permit);
            });
        }
        while requests.join_next().await.is_some() {}
    }

    async fn fetch(&self, cell: &Cell) {
        let url = self.url_of(cell.account());
        let read = self.client.get_bytes(&url, ANSWER_BYTES_MAX).await;
        let metrics = &self.service.metrics;
        match read {
            Ok(body) => {
                self.turn(None);
                match Answer::read(&body).and_then(|answer| answer.policy(cell.account(), &body, &*self.service.zones))
                {
                    Ok(policy) => {
                        metrics.read(Source::Service, true);
                        cell.known(Arc::new(policy));
                    }
                    Err(error) => {
                        metrics.read(Source::Service, false);
                        self.refused(cell, &error);
                    }
                }
            }
            // A 404 without JSON is from a proxy that does not know the path, or from another program.
            Err(HttpError::Status { status: NOT_FOUND, is_json: true, .. }) => {
                self.turn(None);
                metrics.read(Source::Service, true);
                cell.absent();
            }
            Err(error) => {
                // The payer chooses the channel: an error status for one channel is no outage.
                if cell.account().channel.is_none() || !matches!(error, HttpError::Status { .. }) {
                    self.turn(Some(&error));
                }
                metrics.read(Source::Service, false);
                cell.unknown();
            }
        }
    }

    fn refused(&self, cell: &Cell, problem: &AnswerError) {
        let Account { merchant, currency, .. } = cell.account();
        error!(%merchant, %currency, %problem, "policy service answer refused");
        cell.unknown();
    }

    /// Records whether the service answers.
    fn turn(&self, error: Option<&HttpError>) {
        self.service.failing.store(error.is_some(), Ordering::Relaxed);
        if let Some(health) = &self.health {
            health.policy_service(error.map(ToString::to_string));
        }
    }

    fn url_of(&self, account: &Account) -> String {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("merchant_id", account.merchant.as_str());
        query.append_pair("currency", account.currency.code());
        if let Some(channel) = account.channel.as_ref().map(Channel::as_str) {
            query.append_pair("channel", channel);
        }
        format!("{}?{}", self.url, query.finish())
    }
}
