//! The tests as trials of the test harness, all with one server: each keeps to merchants of its own.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};
use testkit::api::Api;
use testkit::{Failure, Result};
use tokio::runtime::Builder;

use crate::policies;

/// Tests at a time, where the command line does not say.
const THREADS: usize = 2;

/// Channels that could work: there is a mail server, which nothing is sent to, and merchants' may be on this machine.
const CHANNELS: [(&str, &str); 3] = [
    ("SLUICE_SMTP_URL", "smtp://127.0.0.1:1"),
    ("SLUICE_SMTP_FROM", "sluice@example.com"),
    ("SLUICE_ALERT_MERCHANT_NETWORKS", "127.0.0.1/32"),
];

/// Every test of this target.
#[derive(Default)]
pub(crate) struct Suite {
    shared: Arc<Shared>,
    trials: Vec<Trial>,
}

/// The server, started by the first test that needs it.
#[derive(Default)]
struct Shared(Mutex<Option<std::result::Result<Arc<Api>, String>>>);

impl Shared {
    fn api(&self) -> Result<Arc<Api>> {
        let mut api = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start =
            || Api::start(&policies::document(), &CHANNELS).map(Arc::new).map_err(|failure| failure.to_string());
        api.get_or_insert_with(start).clone().map_err(Failure::new)
    }
}

impl Suite {
    /// A test of the shared server.
    pub(crate) fn add<F>(&mut self, name: &str, test: F)
    where
        F: AsyncFnOnce(&Api) -> Result<()> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        self.alone(name, async move || {
            let api = shared.api()?;
            let _logs = Logs(&api);
            test(&api).await.inspect_err(|_| api.dir().keep())
        });
    }

    /// A test that starts what it needs itself.
    pub(crate) fn alone<F>(&mut self, name: &str, test: F)
    where
        F: AsyncFnOnce() -> Result<()> + Send + 'static,
    {
        self.trials.push(Trial::test(name, move || {
            let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
            runtime.block_on(test()).map_err(|failure| Failed::from(failure.to_string()))
        }));
    }

    /// Runs what the command line asks for, and stops the server.
    pub(crate) fn run(self) -> ExitCode {
        let mut arguments = Arguments::from_args();
        arguments.test_threads.get_or_insert(THREADS);
        let Self { shared, trials } = self;
        let conclusion = libtest_mimic::run(&arguments, trials);
        drop(shared);
        conclusion.exit_code()
    }
}

/// Keeps the server's logs where a test panics.
struct Logs<'a>(&'a Api);

impl Drop for Logs<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.dir().keep();
        }
    }
}
