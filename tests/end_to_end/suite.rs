//! The scenarios as trials of the test harness, each with the stack that it asks for.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use testkit::dirs::{self, RunDir};
use testkit::envoy::EnvoyConfig;
use testkit::policies;
use testkit::stack::{Stack, StackOptions};
use testkit::{Failure, Result};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

/// Scenarios at a time, where the command line does not say: they wait more than they work.
const THREADS: usize = 2;
/// The exit code of a process that Ctrl-C ended, as shells have it.
const INTERRUPTED: u8 = 130;

/// Every scenario of the suite.
pub(crate) struct Suite {
    shared: Arc<Shared>,
    trials: Vec<Trial>,
}

/// The stack of the scenarios that break nothing, started by the first of them.
#[derive(Default)]
struct Shared(Mutex<Option<std::result::Result<Arc<Stack>, String>>>);

impl Shared {
    fn stack(&self) -> Result<Arc<Stack>> {
        let mut stack = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let start = || Stack::start(&patient()).map(Arc::new).map_err(|failure| failure.to_string());
        stack.get_or_insert_with(start).clone().map_err(Failure::new)
    }
}

/// The shipped configuration with the suite's policies: for scenarios in which parts do not answer.
pub(crate) fn prompt() -> StackOptions {
    StackOptions { policies: Some(policies::document()), ..StackOptions::default() }
}

/// The same with so much time for an answer that a busy machine is not taken for a part that hangs: for all others.
pub(crate) fn patient() -> StackOptions {
    let mut options = StackOptions { change: Some(wait_longer), ..prompt() };
    for (name, millis) in [("SLUICE_REDIS_TIMEOUT_MS", "8000"), ("SLUICE_CHECK_TIMEOUT_MS", "9000")] {
        options.server_env.insert(name.to_owned(), millis.to_owned());
    }
    options
}

/// Ten seconds for a check instead of half a second, in either filter.
pub(crate) fn wait_longer(config: &mut EnvoyConfig) -> Result<()> {
    let mut plugin = config.plugin()?;
    for rule in plugin["rules"].as_array_mut().into_iter().flatten() {
        rule["timeout_ms"] = 10_000.into();
    }
    config.set_plugin(&plugin)?;
    let grpc_service = &mut config.http_filter("envoy.filters.http.ext_authz")?["typed_config"]["grpc_service"];
    grpc_service["timeout"] = "10s".into();
    // The base interval bounds each try as well.
    for interval in ["base_interval", "max_interval"] {
        grpc_service["retry_policy"]["retry_back_off"][interval] = "5s".into();
    }
    Ok(())
}

impl Suite {
    pub(crate) fn new() -> Self {
        Self { shared: Arc::default(), trials: Vec::new() }
    }

    /// A scenario that sends payments of its own merchants and leaves all parts alone.
    pub(crate) fn shared<F>(&mut self, name: impl Into<String>, test: F)
    where
        F: AsyncFnOnce(&Stack) -> Result<()> + Send + 'static,
    {
        let shared = Arc::clone(&self.shared);
        self.alone(name, async move || {
            let stack = shared.stack()?;
            let _logs = Logs(stack.dir());
            test(&stack).await.inspect_err(|_| stack.dir().keep())
        });
    }

    /// A scenario with a stack of its own, which it may break.
    pub(crate) fn owned<F>(&mut self, name: impl Into<String>, options: StackOptions, test: F)
    where
        F: AsyncFnOnce(&mut Stack) -> Result<()> + Send + 'static,
    {
        self.alone(name, async move || {
            let mut stack = Stack::start(&options)?;
            test(&mut stack).await.inspect_err(|_| stack.dir().keep())
        });
    }

    /// A scenario that starts what it needs itself.
    pub(crate) fn alone<F>(&mut self, name: impl Into<String>, test: F)
    where
        F: AsyncFnOnce() -> Result<()> + Send + 'static,
    {
        self.trials.push(Trial::test(name, move || {
            let failed = |failure: Failure| Failed::from(failure.to_string());
            runtime().and_then(|runtime| runtime.block_on(test())).map_err(failed)
        }));
    }

    /// Runs what the command line asks for. Ctrl-C and SIGTERM end all parts too.
    pub(crate) fn run(self, arguments: &Arguments) -> ExitCode {
        let mut arguments = arguments.clone();
        arguments.test_threads.get_or_insert(THREADS);
        let Self { shared, trials } = self;
        let (ended, end) = std::sync::mpsc::channel();
        let interrupted = ended.clone();
        let run = move || catch_unwind(AssertUnwindSafe(|| libtest_mimic::run(&arguments, trials))).ok();
        std::thread::spawn(move || ended.send(run()));
        std::thread::spawn(move || wait_for_a_signal().map(|()| interrupted.send(None)));
        let conclusion: Option<Conclusion> = end.recv().ok().flatten();
        drop(shared);
        let Some(conclusion) = conclusion else {
            // All started processes die with this one.
            dirs::abandon();
            return ExitCode::from(INTERRUPTED);
        };
        conclusion.exit_code()
    }
}

/// Keeps the logs of the shared stack where a scenario panics.
struct Logs<'a>(&'a RunDir);

impl Drop for Logs<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.keep();
        }
    }
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

fn wait_for_a_signal() -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        Ok(())
    })
}
