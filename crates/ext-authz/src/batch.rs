//! Several checks of the proxy filter in one call: decided together, each answered separately.

use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use proto::batch::batch_authorization_server::BatchAuthorization;
use proto::batch::{ALONE, BatchCheckRequest, BatchCheckResponse, BatchCheckResult, ENTRIES_MAX};
use proto::batched::CheckRequest;
use quota::Mode;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tonic::{Request, Response, Status};
use tracing::debug;

use super::answer::Answer;
use super::parse::{self, Extensions, Parsed, ParsedCheck, Refused};
use super::right::{self, Asked};
use super::{CheckService, Checks, answer, word};
use sluice_decision::decider::InForce;
use sluice_store::{Store, StoreError};

#[tonic::async_trait]
impl<S: Store> BatchAuthorization for CheckService<S> {
    async fn batch_check(&self, request: Request<BatchCheckRequest>) -> Result<Response<BatchCheckResponse>, Status> {
        let checks = request.into_inner().checks;
        let count = checks.len();
        if count > ENTRIES_MAX {
            return Err(Status::invalid_argument(format!("{count} checks in one call, {ENTRIES_MAX} are the most")));
        }
        let service = Arc::clone(&self.checks);
        let limit = service.decider.live().current().check_timeout();
        let (sender, receiver) = oneshot::channel();
        // Decisions run to their end although the caller may leave. The filter voids what it got no answer for.
        self.tasks.spawn(async move { drop(sender.send(service.answer_each(checks).await)) });
        let results = match timeout(limit, receiver).await {
            Ok(Ok(results)) => results,
            Ok(Err(_)) => return Err(Status::internal("the decision task failed")),
            Err(_) => {
                // Each decision is logged with its ids when it ends.
                debug!(checks = count, limit_ms = limit.as_millis(), "no decisions within the check timeout");
                (0..count).map(|_| result_of(&Answer::without_decision(Mode::Enforce))).collect()
            }
        };
        Ok(Response::new(BatchCheckResponse { results }))
    }
}

impl<S: Store> Checks<S> {
    /// Decides checks with one call of the store. A check that would delay the others is not decided: the filter has to send it
    /// alone.
    async fn answer_each(&self, checks: Vec<CheckRequest>) -> Vec<BatchCheckResult> {
        let started = Instant::now();
        let now_ms = self.decider.store().now_ms();
        let (mut results, mut batch) = (Vec::with_capacity(checks.len()), Vec::with_capacity(checks.len()));
        // Of the checks that are decided, in their order: the answer to a request for a right, or that it comes behind its check.
        let mut rights = Vec::new();
        for check in checks {
            match self.read_one(check, now_ms) {
                One::Answered(result) => results.push(Some(result)),
                One::Undecided(check, in_force) => {
                    results.push(None);
                    let asked = self.asked(&check, &in_force, now_ms);
                    batch.push(self.prepare(*check, in_force, now_ms));
                    rights.push(match asked {
                        Asked::No => Right::Answer(None),
                        Asked::Refused => Right::Answer(Some(proto::right::Answer::Refused)),
                        Asked::Undecided(grant) => {
                            batch.push(*grant);
                            Right::Behind
                        }
                    });
                }
            }
        }
        let mut decided = self.decider.decide_known(batch, started).await.into_iter();
        let mut rights = rights.into_iter();
        let mut next = || {
            let result = decided.next()?;
            let right = match rights.next()? {
                Right::Answer(right) => right,
                Right::Behind => decided.next().and_then(right::answer),
            };
            Some(match result {
                Ok(decision) => result_of(&Answer { right, ..answer(&decision) }),
                Err(StoreError::NeedsHistory) => alone(),
                Err(_) => result_of(&Answer::without_decision(Mode::Enforce)),
            })
        };
        results.into_iter().map(|answered| answered.or_else(&mut next).unwrap_or_default()).collect()
    }

    fn read_one(&self, check: CheckRequest, now_ms: i64) -> One {
        let received = check.attributes.unwrap_or_default().context_extensions;
        let extensions = match Extensions::received(&received) {
            Ok(extensions) => extensions,
            Err(detail) => {
                let refused = Refused::not_of_filter(detail);
                return One::Answered(result_of(&self.refuse(word(&Extensions::NONE), refused, None)));
            }
        };
        match Parsed::of_filter(&extensions) {
            Parsed::Decide(check) => {
                let request = &check.request;
                let in_force = self
                    .decider
                    .in_force(&request.merchant, request.currency, request.channel.as_ref(), now_ms)
                    .now_or_never();
                // What still has to be requested, a policy or a credit line, is requested now.
                in_force.map_or_else(|| One::Answered(alone()), |in_force| One::Undecided(check, in_force))
            }
            Parsed::Refuse(refused) => {
                let caller = parse::filter_caller(&extensions);
                One::Answered(result_of(&self.refuse(word(&extensions), *refused, caller)))
            }
            Parsed::Pass => One::Answered(result_of(&Answer::without_decision(Mode::Enforce))),
        }
    }
}

/// The right that a check asks for.
enum Right {
    Answer(Option<proto::right::Answer>),
    /// Its result comes behind that of the check.
    Behind,
}

/// One check of a call.
enum One {
    Answered(BatchCheckResult),
    Undecided(Box<ParsedCheck>, InForce),
}

fn result_of(answer: &Answer) -> BatchCheckResult {
    BatchCheckResult { grpc_status: 0, response: Some(answer.to_filter_response()) }
}

fn alone() -> BatchCheckResult {
    BatchCheckResult { grpc_status: ALONE, response: None }
}
