//! Deciding commands: one call of the script for all of them, sent again only where that is safe.

use std::sync::atomic::Ordering;
use std::time::Duration;

use quota::{Action, Command, Reply};
use redis::aio::ConnectionManager;
use redis::{ErrorKind, RedisError, ServerErrorKind};
use tokio::time::Instant;

use super::call::{self, COMMANDS_MAX, CommandWithContext, Mode, Results};
use super::{RedisStore, link};
use crate::{Call, Store, StoreError, Use};
use sluice_kit::clock;
use sluice_kit::telemetry::spans::{self, ScriptCall};

impl Store for RedisStore {
    fn timeout(&self) -> Duration {
        self.live.as_ref().map_or(self.timeout, |live| live.current().redis_timeout())
    }

    fn now_ms(&self) -> i64 {
        self.verified.clock.now_ms()
    }

    async fn apply_each(&self, batch: &[Call]) -> Vec<Result<Reply, StoreError>> {
        let mut results = Vec::with_capacity(batch.len());
        for part in batch.chunks(COMMANDS_MAX) {
            let part = borrowed(part);
            match self.run(&part, false).await {
                Ok(replies) => results.extend(replies),
                Err(error) => results.extend(part.iter().map(|_| Err(error.clone()))),
            }
        }
        results
    }

    async fn apply_all(&self, batch: &[Call]) -> Result<Vec<Reply>, StoreError> {
        self.run(&borrowed(batch), true).await?.into_iter().collect()
    }
}

fn borrowed(batch: &[Call]) -> Vec<CommandWithContext<'_>> {
    batch.iter().map(|call| (&call.0, &call.1)).collect()
}

impl RedisStore {
    /// Sends all commands in one call; returns a result for each.
    async fn run(
        &self,
        batch: &[CommandWithContext<'_>],
        all_or_none: bool,
    ) -> Result<Vec<Result<Reply, StoreError>>, StoreError> {
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        if !self.verified.shards.load(Ordering::Relaxed) {
            self.verify().await?;
        }
        if self.verified.evicts.load(Ordering::Relaxed) {
            let why = format!("redis at {} may evict keys, nothing is decided on it", self.link.address());
            return Err(StoreError::Unavailable(why));
        }
        if let Some(trouble) = self.clock_trouble() {
            return Err(StoreError::Clock(trouble));
        }
        let (call, began) = (ScriptCall::begin(), Instant::now());
        let results = self.bounded(self.call_script(batch, all_or_none)).await.and_then(|results| results);
        self.metrics.took(Use::Decide, began.elapsed());
        let trace = |(index, (command, audit)): (usize, &CommandWithContext<'_>)| {
            let reply = results.as_ref().ok().and_then(|results| results.get(index)?.as_ref().ok());
            spans::under(audit.trace, reply.map_or(command.decision_id, |reply| reply.event_id))
        };
        call.end(
            batch.iter().enumerate().map(trace),
            results.as_ref().err().map(|error| error as &dyn std::fmt::Display),
        );
        results
    }

    /// Calls the script, once more where the connection was lost.
    ///
    /// Sending again is safe where a repetition is recognised by its attempt or operation. The second call's event has an
    /// id of its own, so it is never mistaken for the first one's. Other commands are not sent again: whether they were applied
    /// is unknown.
    async fn call_script(&self, batch: &[CommandWithContext<'_>], all_or_none: bool) -> Result<Results, RedisError> {
        let error = match self.invoke(batch, all_or_none).await {
            Err(error) if link::is_lost(&error) => error,
            result => return result,
        };
        let again = |(command, _): &&CommandWithContext<'_>| is_repeatable(&command.action);
        let repeated: Vec<&CommandWithContext<'_>> = batch.iter().filter(again).collect();
        if repeated.is_empty() || (all_or_none && repeated.len() < batch.len()) {
            return Err(error);
        }
        let renamed: Vec<Command> = repeated.iter().map(|(command, _)| renamed(command)).collect();
        let repeated: Vec<CommandWithContext<'_>> =
            renamed.iter().zip(repeated).map(|(command, (_, audit))| (command, *audit)).collect();
        let results = self.invoke(&repeated, all_or_none).await?;
        Ok(results.map(|replies| {
            let mut replies = replies.into_iter();
            let reply = |command: &CommandWithContext<'_>| {
                let result = if again(&command) { replies.next() } else { None };
                result.unwrap_or_else(|| Err(self.unavailable(&error)))
            };
            batch.iter().map(reply).collect()
        }))
    }

    /// Calls the script on the primary. A server that is not the primary any more has applied nothing, so all commands are sent
    /// again on a new connection.
    async fn invoke(&self, batch: &[CommandWithContext<'_>], all_or_none: bool) -> Result<Results, RedisError> {
        let rolling_upgrade =
            self.rolling_upgrade || self.live.as_ref().is_some_and(|live| live.current().rolling_upgrade);
        let mode = Mode { all_or_none, rolling_upgrade };
        let call = &call::call(self.script.get_hash(), self.shards, &self.time, batch, mode);
        let invoke = |mut connection: ConnectionManager| async move {
            let value = match call.query_async(&mut connection).await {
                // Redis was restarted, or does not have the script yet.
                Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {
                    self.script.load_async(&mut connection).await?;
                    call.query_async(&mut connection).await?
                }
                result => result?,
            };
            Ok(call::replies(&value, batch, self.clock()))
        };
        let is_refused = |result: &Result<Results, RedisError>| match result {
            Ok(results) => results.as_ref().is_ok_and(|results| call::is_refused(results)),
            Err(_) => link::is_refused(result),
        };
        self.link.call(invoke, is_refused).await
    }
}

/// Whether the command may be sent twice although the first call may have applied it.
const fn is_repeatable(action: &Action) -> bool {
    !matches!(action, Action::Adjust(_) | Action::Reset(_))
}

fn renamed(command: &Command) -> Command {
    Command { decision_id: clock::decision_id(), ..command.clone() }
}
