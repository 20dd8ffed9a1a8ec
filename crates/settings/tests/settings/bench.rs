//! What the settings tests stand on: a private Postgres with the tables, the settings part of a server with its own
//! environment, and a configuration service whose answer a test chooses.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::Value;
use sluice_journal::postgres::UsageLog;
use sluice_kit::database;
use sluice_kit::metrics::Metrics;
use sluice_kit::shutdown::{self, Stop};
use sluice_settings::runtime::{self, AuditEntry, Change, ChangeError, Changed, HistoryQuery, Repository, Source};
use sluice_settings::{Live, Secret, Setting, Settings};
use testkit::ports::{self, loopback};
use testkit::postgres::Postgres;
use testkit::{Failure, Result, wait};
use tokio::sync::oneshot;
use tokio::task::JoinHandle as Task;

/// How long anything may take to come true.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);
/// Between two looks, where a test is about what is found by looking.
pub(crate) const OFTEN: Duration = Duration::from_millis(20);
/// Where a test is about notifications: no look comes in time.
pub(crate) const NEVER: Duration = Duration::from_secs(86_400);

/// A Postgres with the server's tables.
pub(crate) async fn postgres() -> Result<Postgres> {
    let postgres = Postgres::start()?;
    UsageLog::new(&Secret::new(postgres.url()))?.probe().await?;
    Ok(postgres)
}

/// The settings part of one server.
pub(crate) struct Node {
    pub(crate) live: Live,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) repository: Repository,
    stop: Stop,
    task: Task<()>,
}

impl Node {
    /// Starts with `env`, and returns when the first reading is over.
    pub(crate) async fn start(postgres: &Postgres, refresh: Duration, env: &[(&str, &str)]) -> Result<Self> {
        let settings = settings(postgres, env)?;
        let live = Live::fixed(&settings);
        let metrics = Arc::new(Metrics::new());
        let pool = database::pool(&settings.postgres_url(), 4)?;
        let repository = Repository::new(&settings, live.clone(), pool, &metrics);
        let source = Source::of(&settings)?.ok_or_else(|| Failure::new("these settings have no source"))?;
        let (stop, stopped) = shutdown::channel();
        let (first, first_read) = oneshot::channel();
        let follow = runtime::follow(source, refresh, live.clone(), metrics.part(), stopped, first);
        let task = tokio::spawn(follow);
        first_read.await?;
        Ok(Self { live, metrics, repository, stop, task })
    }

    pub(crate) async fn change(&self, actor: &str, changes: Value) -> std::result::Result<Changed, ChangeError> {
        self.change_on(actor, changes, None).await
    }

    pub(crate) async fn change_on(
        &self,
        actor: &str,
        changes: Value,
        expected_version: Option<u64>,
    ) -> std::result::Result<Changed, ChangeError> {
        // Every test gives an object; anything else would be refused as a change of nothing.
        let changes = changes.as_object().cloned().unwrap_or_default().into_iter().collect();
        self.repository.change(actor, Change { changes, reason: "a test".to_owned(), expected_version }).await
    }

    pub(crate) async fn history(&self) -> Result<Vec<AuditEntry>> {
        Ok(self.repository.history(HistoryQuery { limit: 1000, ..HistoryQuery::default() }).await?.items)
    }

    pub(crate) fn setting(&self, key: &str) -> Result<Setting> {
        let found = self.live.list().into_iter().find(|setting| setting.key == key);
        found.ok_or_else(|| Failure::new(format!("no setting {key}")))
    }

    /// Waits until the setting has the value.
    pub(crate) async fn wait_for(&self, key: &str, value: &str) -> Result<()> {
        let what = format!("{key} being {value}");
        let waited = wait::until_async(&what, WITHIN, || async {
            Ok((self.setting(key)?.value.as_deref() == Some(value)).then_some(()))
        });
        waited.await.map_err(|failure| failure.while_doing(self.metrics.encode()))
    }

    /// Waits for this many more failures of a kind.
    pub(crate) async fn wait_for_failures(&self, kind: &str, more: u64) -> Result<()> {
        let name = format!("sluice_settings_failures_total{{kind=\"{kind}\"}}");
        let enough = self.metric(&name) + more;
        let waited = wait::until_async(&name, WITHIN, || async { Ok((self.metric(&name) >= enough).then_some(())) });
        waited.await.map_err(|failure| failure.while_doing(self.metrics.encode()))
    }

    /// Waits until the last reading is in force, or is not.
    pub(crate) async fn wait_until_current(&self, current: bool) -> Result<()> {
        let waited = wait::until_async("whether the settings are up to date", WITHIN, || async {
            let reported = self.metric("sluice_settings_current") == u64::from(current);
            Ok((reported && self.repository.list().up_to_date == current).then_some(()))
        });
        waited.await
    }

    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.metrics.encode();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.unwrap_or_default()
    }

    /// Stops as the server does.
    pub(crate) async fn stop(self) -> Result<()> {
        self.stop.request();
        Ok(self.task.await?)
    }
}

/// Settings of a server that takes changes; `env` goes before.
pub(crate) fn settings(postgres: &Postgres, env: &[(&str, &str)]) -> Result<Settings> {
    let url = postgres.url();
    let base = [("SLUICE_POLICY_FILE", "/p.yaml"), ("DATABASE_URL", url.as_str()), ("ENABLE_CONFIG_CLIENT", "true")];
    let all: BTreeMap<&str, &str> = base.into_iter().chain(env.iter().copied()).collect();
    let all = all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
    Ok(Settings::load(all, None)?)
}

/// A configuration service on a port of its own, which stays the same while it is down.
pub(crate) struct Service {
    address: SocketAddr,
    answer: Arc<Mutex<String>>,
    running: Option<(Arc<AtomicBool>, JoinHandle<()>)>,
}

impl Service {
    /// One that is down.
    pub(crate) fn down() -> Result<Self> {
        Ok(Self { address: loopback(ports::free()?), answer: Arc::default(), running: None })
    }

    /// One that answers with a document.
    pub(crate) fn with(document: &str) -> Result<Self> {
        let mut service = Self::down()?;
        service.say(document);
        service.start()?;
        Ok(service)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/settings", self.address)
    }

    /// Answers with status 200 and this body from now on.
    pub(crate) fn say(&self, body: &str) {
        self.answer_with("200 OK", "", body);
    }

    pub(crate) fn answer_with(&self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        let answer =
            format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}");
        *self.answer.lock().unwrap_or_else(PoisonError::into_inner) = answer;
    }

    pub(crate) fn start(&mut self) -> Result<()> {
        let listener = TcpListener::bind(self.address)?;
        let (ended, answer) = (Arc::new(AtomicBool::new(false)), Arc::clone(&self.answer));
        let end = Arc::clone(&ended);
        let serve = move || {
            for stream in listener.incoming() {
                if end.load(Ordering::Acquire) {
                    return;
                }
                let answer = answer.lock().unwrap_or_else(PoisonError::into_inner).clone();
                // A client that went away is none of this thread's business.
                let _ = stream.and_then(|stream| exchange(stream, &answer));
            }
        };
        self.running = Some((ended, std::thread::spawn(serve)));
        Ok(())
    }

    /// Stops listening: connections are refused.
    pub(crate) fn stop(&mut self) {
        if let Some((ended, thread)) = self.running.take() {
            ended.store(true, Ordering::Release);
            let _ = TcpStream::connect(self.address);
            let _ = thread.join();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Reads a request's head and answers.
fn exchange(mut stream: TcpStream, answer: &str) -> std::io::Result<()> {
    stream.set_read_timeout(Some(WITHIN))?;
    let mut head: Vec<u8> = Vec::new();
    let mut part = [0; 1024];
    while !head.windows(4).any(|four| four == b"\r\n\r\n") {
        match stream.read(&mut part)? {
            0 => return Ok(()),
            length => head.extend(part.iter().take(length)),
        }
    }
    stream.write_all(answer.as_bytes())
}
