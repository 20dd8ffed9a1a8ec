//! Group commit: while one call of the store is under way, commands that arrive wait, and go together in the next one.
//!
//! A call costs the store and the line to it about the same whether it carries one command or ten. A command that finds no
//! call under way goes at once, so nobody waits for company.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use quota::{Command, Reply};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Notes, Store, StoreError};

/// Most commands in one call: some 2 ms of Redis, which serves nobody else meanwhile.
const CALL_COMMANDS_MAX: usize = 128;

type Results = Vec<Result<Reply, StoreError>>;

/// A [`Store`] whose callers share calls. What is left to it is done by tasks of the runtime that calls first.
#[derive(Debug)]
pub struct GroupCommit<S> {
    shared: Arc<Shared<S>>,
}

#[derive(Debug)]
struct Shared<S> {
    store: Arc<S>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Group>,
    /// A task takes what waits.
    is_served: bool,
}

/// What one caller asks for in one call: [`CALL_COMMANDS_MAX`] commands at most.
#[derive(Debug)]
struct Group {
    commands: Vec<(Command, Notes)>,
    tell: oneshot::Sender<Results>,
}

impl<S: Store> GroupCommit<S> {
    /// Shares calls of `store`.
    #[must_use]
    pub fn new(store: Arc<S>) -> Self {
        Self { shared: Arc::new(Shared { store, queue: Mutex::default() }) }
    }

    /// Puts the commands of one call into the queue at once, and waits for their results no longer than one call of the store
    /// may take. Commands that were not asked for by then never are; of the others nobody knows.
    fn ask(&self, commands: Vec<(Command, Notes)>) -> impl Future<Output = Results> + use<S> {
        let limit = self.shared.store.timeout();
        let count = commands.len();
        let (tell, told) = oneshot::channel();
        if self.shared.put(Group { commands, tell }) {
            tokio::spawn(Arc::clone(&self.shared).serve());
        }
        async move {
            let error = match timeout(limit, told).await {
                Ok(Ok(results)) => return results,
                Ok(Err(_)) => StoreError::Unavailable("the call broke off".to_owned()),
                Err(_) => StoreError::Timeout { after_ms: limit.as_millis() },
            };
            vec![Err(error); count]
        }
    }
}

impl<S: Store> Shared<S> {
    /// Puts a group into the queue; `true` where nobody serves it yet.
    fn put(&self, group: Group) -> bool {
        let mut queue = self.queue();
        queue.waiting.push_back(group);
        !std::mem::replace(&mut queue.is_served, true)
    }

    /// Makes calls until nothing waits.
    async fn serve(self: Arc<Self>) {
        let _served = Served(&self);
        loop {
            let groups = self.next();
            let (mut commands, mut callers) = (Vec::new(), Vec::with_capacity(groups.len()));
            for Group { commands: own, tell } in groups {
                callers.push((own.len(), tell));
                commands.extend(own);
            }
            if callers.is_empty() {
                return;
            }
            let mut results = self.store.apply_each(&commands).await.into_iter();
            for (count, tell) in callers {
                // A caller that has given up is told nothing: it takes its charge back by itself.
                let _ = tell.send(results.by_ref().take(count).collect());
            }
        }
    }

    /// The groups of the next call, without those whose callers have given up. Where none waits, nobody serves the queue any
    /// more.
    fn next(&self) -> Vec<Group> {
        let mut queue = self.queue();
        let (mut groups, mut count) = (Vec::new(), 0_usize);
        while let Some(group) = queue.waiting.pop_front() {
            if group.tell.is_closed() {
                continue;
            }
            if !groups.is_empty() && count + group.commands.len() > CALL_COMMANDS_MAX {
                queue.waiting.push_front(group);
                break;
            }
            count += group.commands.len();
            groups.push(group);
        }
        queue.is_served = !groups.is_empty();
        groups
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets the next caller serve the queue, should a call break off.
struct Served<'a, S: Store>(&'a Shared<S>);

impl<S: Store> Drop for Served<'_, S> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.queue().is_served = false;
        }
    }
}

impl<S: Store> Store for GroupCommit<S> {
    fn timeout(&self) -> Duration {
        self.shared.store.timeout()
    }

    fn now_ms(&self) -> i64 {
        self.shared.store.now_ms()
    }

    async fn apply(&self, command: &Command, notes: &Notes) -> Result<Reply, StoreError> {
        let results = self.ask(vec![(command.clone(), notes.clone())]).await;
        results.into_iter().next().unwrap_or_else(|| Err(StoreError::Corrupt("no reply".to_owned())))
    }

    /// What takes several calls waits for each of them by itself: a late one costs the others nothing.
    async fn apply_each(&self, batch: &[(Command, Notes)]) -> Vec<Result<Reply, StoreError>> {
        let calls: Vec<_> = batch.chunks(CALL_COMMANDS_MAX).map(|part| self.ask(part.to_vec())).collect();
        join_all(calls).await.into_iter().flatten().collect()
    }

    /// These go by themselves: one call cannot be half all or none.
    async fn apply_all(&self, batch: &[(Command, Notes)]) -> Result<Vec<Reply>, StoreError> {
        self.shared.store.apply_all(batch).await
    }
}

#[cfg(test)]
mod tests;
