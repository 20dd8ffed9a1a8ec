//! Group commit: commands that arrive during a call of the store wait, and go together in the next call.
//!
//! A call costs the store and the connection about the same with one command as with ten. A command that finds no call under
//! way is sent at once: no command waits for others.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use quota::Reply;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Call, Store, StoreError};

/// Most commands in one call: some 2 ms of Redis, which serves no other client meanwhile.
const CALL_COMMANDS_MAX: usize = 128;

type Results = Vec<Result<Reply, StoreError>>;

/// A [`Store`] whose callers share calls. The calls are made by tasks on the runtime that calls first.
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
    /// Whether a task serves the queue.
    is_served: bool,
}

/// The commands of one caller for one call: [`CALL_COMMANDS_MAX`] at most.
#[derive(Debug)]
struct Group {
    commands: Vec<Call>,
    reply_to: oneshot::Sender<Results>,
}

impl<S: Store> GroupCommit<S> {
    /// Shares calls of `store`.
    #[must_use]
    pub fn new(store: Arc<S>) -> Self {
        Self { shared: Arc::new(Shared { store, queue: Mutex::default() }) }
    }

    /// Queues the commands of one call at once, and waits for their results at most as long as one call of the store may take.
    /// Commands that were not sent by then never are; the outcome of the others is unknown.
    fn submit(&self, commands: Vec<Call>) -> impl Future<Output = Results> + use<S> {
        let limit = self.shared.store.timeout();
        let count = commands.len();
        let (reply_to, reply) = oneshot::channel();
        if self.shared.put(Group { commands, reply_to }) {
            tokio::spawn(Arc::clone(&self.shared).serve());
        }
        async move {
            let error = match timeout(limit, reply).await {
                Ok(Ok(results)) => return results,
                Ok(Err(_)) => StoreError::Unavailable("the call was aborted".to_owned()),
                Err(_) => StoreError::Timeout { after_ms: limit.as_millis() },
            };
            vec![Err(error); count]
        }
    }
}

impl<S: Store> Shared<S> {
    /// Queues a group; `true` where no task serves the queue yet.
    fn put(&self, group: Group) -> bool {
        let mut queue = self.queue();
        queue.waiting.push_back(group);
        !std::mem::replace(&mut queue.is_served, true)
    }

    /// Makes calls until the queue is empty.
    async fn serve(self: Arc<Self>) {
        let _served = Served(&self);
        loop {
            let groups = self.next();
            let (mut commands, mut callers) = (Vec::new(), Vec::with_capacity(groups.len()));
            for Group { commands: own, reply_to } in groups {
                callers.push((own.len(), reply_to));
                commands.extend(own);
            }
            if callers.is_empty() {
                return;
            }
            let mut results = self.store.apply_each(&commands).await.into_iter();
            for (count, reply_to) in callers {
                // A caller that gave up gets no result: it voids its charge itself.
                let _ = reply_to.send(results.by_ref().take(count).collect());
            }
        }
    }

    /// The groups of the next call, without those whose callers gave up. Where there are none, the queue is not served any
    /// more.
    fn next(&self) -> Vec<Group> {
        let mut queue = self.queue();
        let (mut groups, mut count) = (Vec::new(), 0_usize);
        while let Some(group) = queue.waiting.pop_front() {
            if group.reply_to.is_closed() {
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

/// Lets the next caller serve the queue if a call panics.
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

    /// A batch of several calls waits for each call separately: a late call costs the others nothing.
    async fn apply_each(&self, batch: &[Call]) -> Vec<Result<Reply, StoreError>> {
        // Nearly every batch is one call.
        if (1..=CALL_COMMANDS_MAX).contains(&batch.len()) {
            return self.submit(batch.to_vec()).await;
        }
        let calls: Vec<_> = batch.chunks(CALL_COMMANDS_MAX).map(|part| self.submit(part.to_vec())).collect();
        join_all(calls).await.into_iter().flatten().collect()
    }

    /// Not grouped: one call cannot be both all-or-none and each by itself.
    async fn apply_all(&self, batch: &[Call]) -> Result<Vec<Reply>, StoreError> {
        self.shared.store.apply_all(batch).await
    }
}

#[cfg(test)]
mod tests;
