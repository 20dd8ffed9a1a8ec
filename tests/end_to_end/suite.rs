//! The scenarios as trials of the test harness, each with the stack that it asks for.

use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use e2e::dirs::RunDir;
use e2e::stack::{Stack, StackOptions};
use e2e::{Failure, Result};
use libtest_mimic::{Arguments, Conclusion, Failed, Trial};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::policies;

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
        let start = || Stack::start(&options()).map(Arc::new).map_err(|failure| failure.to_string());
        stack.get_or_insert_with(start).clone().map_err(Failure::new)
    }
}

/// The shipped configuration with the suite's policies.
pub(crate) fn options() -> StackOptions {
    StackOptions { policies: Some(policies::document()), ..StackOptions::default() }
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
        let (told, conclusion) = std::sync::mpsc::channel();
        let (done, interrupted) = (told.clone(), told);
        std::thread::spawn(move || done.send(Some(libtest_mimic::run(&arguments, trials))));
        std::thread::spawn(move || wait_for_a_signal().map(|()| interrupted.send(None)));
        let conclusion: Option<Conclusion> = conclusion.recv().ok().flatten();
        drop(shared);
        conclusion.map_or(ExitCode::from(INTERRUPTED), |conclusion| conclusion.exit_code())
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
