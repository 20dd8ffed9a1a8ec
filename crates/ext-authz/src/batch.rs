//! Several checks of the proxy filter in one call: decided together, each answered by itself.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use proto::batch::batch_authorization_server::BatchAuthorization;
use proto::batch::{ALONE, BatchCheckRequest, BatchCheckResponse, BatchCheckResult, CHECKS_MAX};
use proto::envoy::CheckRequest;
use quota::{Mode, Policy};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tracing::debug;

use super::answer::Answer;
use super::ask::{self, Ask, Asked};
use super::{CheckService, Decider, command, word};
use sluice_store::{Store, StoreError};

#[tonic::async_trait]
impl<S: Store> BatchAuthorization for CheckService<S> {
    async fn batch_check(&self, request: Request<BatchCheckRequest>) -> Result<Response<BatchCheckResponse>, Status> {
        let checks = request.into_inner().checks;
        let count = checks.len();
        if count > CHECKS_MAX {
            return Err(Status::invalid_argument(format!("{count} checks in one call, {CHECKS_MAX} are the most")));
        }
        let decider = Arc::clone(&self.decider);
        let limit = decider.live.current().check_timeout();
        let (tell, told) = oneshot::channel();
        // Decisions run to their end although the caller may go. The filter takes back what it was not told of.
        self.tasks.spawn(async move { drop(tell.send(decider.answer_each(checks).await)) });
        let results = match timeout(limit, told).await {
            Ok(Ok(results)) => results,
            Ok(Err(_)) => return Err(Status::internal("the decisions broke off")),
            Err(_) => {
                // Each decision tells of itself, with its ids, when it ends.
                debug!(checks = count, limit_ms = limit.as_millis(), "no decisions in time");
                (0..count).map(|_| told_of(&Answer::without_decision(Mode::Enforce))).collect()
            }
        };
        Ok(Response::new(BatchCheckResponse { results }))
    }
}

impl<S: Store> Decider<S> {
    /// Decides checks with one call of the store. A check that would make the others wait is not decided: it is to be asked
    /// alone.
    async fn answer_each(&self, checks: Vec<CheckRequest>) -> Vec<BatchCheckResult> {
        let started = Instant::now();
        let now_ms = self.store.now_ms();
        let live = self.live.current();
        let (mut results, mut batch, mut policies) = (Vec::with_capacity(checks.len()), Vec::new(), Vec::new());
        for check in checks {
            match self.read_one(check, now_ms) {
                One::Told(result) => results.push(Some(result)),
                One::Asked(ask, policy) => {
                    results.push(None);
                    batch.push(command::command(*ask, policy.as_deref(), now_ms, &live));
                    policies.push(policy);
                }
            }
        }
        let replies = self.store.apply_known(&batch).await;
        let latency = started.elapsed();
        let mut decided = batch.iter().zip(&policies).zip(replies).map(|(((command, notes), policy), reply)| {
            self.metrics.check_took(latency);
            let answer = match reply {
                Ok(reply) => self.decided(command, notes, policy.as_deref(), &reply, latency),
                Err(StoreError::NeedsPast) => return alone(),
                Err(error) => {
                    self.undecided(command, notes, &error, latency);
                    Answer::without_decision(Mode::Enforce)
                }
            };
            told_of(&answer)
        });
        results.into_iter().map(|told| told.or_else(|| decided.next()).unwrap_or_default()).collect()
    }

    fn read_one(&self, check: CheckRequest, now_ms: i64) -> One {
        let extensions = check.attributes.unwrap_or_default().context_extensions;
        match Asked::of_filter(&extensions) {
            Asked::Decide(ask) => {
                let policy = self.policies.effective(&ask.merchant, ask.currency, ask.channel.as_ref(), now_ms);
                // What the policy service has still to be asked for, it is asked for now.
                policy.now_or_never().map_or_else(|| One::Told(alone()), |policy| One::Asked(ask, policy))
            }
            Asked::Refuse(refused) => {
                let caller = ask::told_caller(&extensions);
                One::Told(told_of(&self.refuse(word(&extensions), *refused, caller)))
            }
            Asked::Pass => One::Told(told_of(&Answer::without_decision(Mode::Enforce))),
        }
    }
}

/// One check of a call.
enum One {
    /// It is answered already.
    Told(BatchCheckResult),
    Asked(Box<Ask>, Option<Arc<Policy>>),
}

fn told_of(answer: &Answer) -> BatchCheckResult {
    BatchCheckResult { grpc_status: 0, response: Some(answer.to_filter_response()) }
}

fn alone() -> BatchCheckResult {
    BatchCheckResult { grpc_status: ALONE, response: None }
}
