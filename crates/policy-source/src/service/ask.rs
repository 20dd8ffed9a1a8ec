//! Asks the policy service: for new accounts at once, for those in use again and again.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use quota::Channel;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tracing::error;

use super::answer::{Answer, AnswerError};
use super::{Account, Cell, PolicyService};
use crate::figures::Source;
use sluice_kit::clock;
use sluice_kit::health::Health;
use sluice_kit::http::{Client, HttpError};

/// How long one request may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Largest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Requests under way for new accounts, and as many for those in use.
const REQUESTS_MAX: usize = 16;
/// An account that was not used for so long is not asked for any more, and forgotten.
const IDLE_MAX: Duration = Duration::from_secs(900);
/// The status that says that the service has no policy for the account.
const NOT_FOUND: u16 = 404;
/// The service's path, the same as our own.
const PATH: &str = "/api/v1/limit-policies/effective";

/// What asks the service. It runs beside the decisions, on another thread.
#[derive(Clone, Debug)]
pub struct Asker {
    service: Arc<PolicyService>,
    client: Client,
    url: Arc<str>,
    /// Where an outage is reported.
    health: Option<Arc<Health>>,
}

impl Asker {
    /// Asks at `base_url`, as in `http://policies:8080`.
    ///
    /// # Errors
    /// [`HttpError`] for a URL that cannot be asked.
    pub fn new(service: Arc<PolicyService>, base_url: &str) -> Result<Self, HttpError> {
        let url: Arc<str> = format!("{}{PATH}", base_url.trim_end_matches('/')).into();
        if let Err(problem) = sluice_kit::http::check_url(&url) {
            return Err(HttpError::Url { url: "POLICY_SERVICE_URL".to_owned(), problem });
        }
        Ok(Self { service, client: Client::new(REQUEST_TIMEOUT)?, url, health: None })
    }

    /// Reports whether the service gives answers.
    #[must_use]
    pub fn reporting(mut self, health: Arc<Health>) -> Self {
        self.health = Some(health);
        self
    }

    /// Serves until `shutdown` says `true`. `interval` says each time how long to wait before accounts are asked for again.
    pub async fn run(
        self,
        new: mpsc::Receiver<Arc<Cell>>,
        interval: impl Fn() -> Duration + Send,
        mut shutdown: watch::Receiver<bool>,
    ) {
        tokio::select! {
            _ = shutdown.wait_for(|stop| *stop) => {}
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
            let asker = self.clone();
            requests.spawn(async move {
                asker.ask(&cell).await;
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

    /// Asks for every account in use, and forgets the others.
    pub async fn refresh_all(&self) {
        let idle_ms = i64::try_from(IDLE_MAX.as_millis()).unwrap_or(i64::MAX);
        let idle_before_ms = clock::now_ms().saturating_sub(idle_ms);
        let permits = Arc::new(Semaphore::new(REQUESTS_MAX));
        let mut requests = JoinSet::new();
        let cells = self.service.lock().all_cells();
        for cell in cells {
            // What is idle is better kept than forgotten while nobody could be asked for it anew.
            if cell.used_at_ms() < idle_before_ms && !self.service.failing.load(Ordering::Relaxed) {
                self.service.forget(cell.account());
                continue;
            }
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            while requests.try_join_next().is_some() {}
            let asker = self.clone();
            requests.spawn(async move {
                asker.ask(&cell).await;
                drop(permit);
            });
        }
        while requests.join_next().await.is_some() {}
    }

    async fn ask(&self, cell: &Cell) {
        let url = self.url_of(cell.account());
        let read = self.client.get_bytes(&url, ANSWER_BYTES_MAX).await;
        let figures = &self.service.figures;
        match read {
            Ok(body) => {
                self.turn(None);
                match Answer::read(&body).and_then(|answer| answer.policy(cell.account(), &body, &*self.service.zones))
                {
                    Ok(policy) => {
                        figures.read(Source::Service, true);
                        cell.known(Arc::new(policy));
                    }
                    Err(error) => {
                        figures.read(Source::Service, false);
                        self.refused(cell, &error);
                    }
                }
            }
            // A 404 that is no JSON is a proxy's that does not know the path, or another program's.
            Err(HttpError::Status { status: NOT_FOUND, is_json: true, .. }) => {
                self.turn(None);
                figures.read(Source::Service, true);
                cell.absent();
            }
            Err(error) => {
                // Who pays chooses the channel: what the service makes of one says nothing of the others.
                if cell.account().channel.is_none() || !matches!(error, HttpError::Status { .. }) {
                    self.turn(Some(&error));
                }
                figures.read(Source::Service, false);
                cell.unknown();
            }
        }
    }

    fn refused(&self, cell: &Cell, problem: &AnswerError) {
        let Account { merchant, currency, .. } = cell.account();
        error!(%merchant, %currency, %problem, "an answer of the policy service is refused");
        cell.unknown();
    }

    /// Notes whether the service gives answers.
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
