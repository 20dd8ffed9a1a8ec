//! `quota.v1.CreditService`: each method is an operation of REST, answered by REST's own route with its checks, its audit and its
//! idempotency keys. So no rule can hold over one of them and not over the other.

use axum::Router;
use axum::http::Method;
use proto::quota_v1 as pb;
use proto::quota_v1::credit_service_server::CreditService;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::Request;

use super::{GrpcResult, rest, status};
use crate::admin::{API, Admin, executed};

/// The service. It has the operations of REST without the middleware that admits callers, which gRPC has of its own.
#[derive(Clone, Debug)]
pub(super) struct CreditLines {
    operations: Router,
}

impl CreditLines {
    pub(super) fn new(admin: &Admin) -> Self {
        Self { operations: Router::new().nest(API, executed(admin)).with_state(admin.clone()) }
    }

    async fn answer<Q: Serialize, A: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        request: Request<Q>,
    ) -> GrpcResult<A> {
        let (metadata, extensions, message) = request.into_parts();
        let request = rest::request(method, path, &message, &metadata.into_headers(), &extensions);
        let request = request.map_err(|problem| status::of(&problem))?;
        rest::answer(self.operations.clone(), request).await
    }
}

/// Declares the service: what each method is in REST. The members of a message that the path does not name are the query or the
/// body.
macro_rules! credit_service {
    ($($verb:ident $path:literal => $name:ident($request:ident) -> $response:ident;)+) => {
        #[tonic::async_trait]
        impl CreditService for CreditLines {
            $(
                async fn $name(&self, request: Request<pb::$request>) -> GrpcResult<pb::$response> {
                    self.answer(Method::$verb, $path, request).await
                }
            )+
        }
    };
}

credit_service! {
    GET "/credit-lines" => list_credit_lines(ListCreditLinesRequest) -> ListCreditLinesResponse;
    POST "/credit-lines" => create_credit_line(CreateCreditLineRequest) -> CreditLine;
    GET "/credit-lines/{merchant_id}/{currency}" => get_credit_line(GetCreditLineRequest) -> CreditLineView;
    PATCH "/credit-lines/{merchant_id}/{currency}" => update_credit_line(UpdateCreditLineRequest) -> CreditLine;
    POST "/credit-lines/{merchant_id}/{currency}/approve"
        => approve_credit_line(ApproveCreditLineRequest) -> CreditLine;
    POST "/credit-lines/{merchant_id}/{currency}/activate"
        => activate_credit_line(ActivateCreditLineRequest) -> CreditLine;
    POST "/credit-lines/{merchant_id}/{currency}/close" => close_credit_line(CloseCreditLineRequest) -> CreditLine;
    GET "/credit-lines/{merchant_id}/{currency}/history"
        => credit_line_history(CreditLineHistoryRequest) -> CreditLineHistoryResponse;
    GET "/credit-lines/{merchant_id}/{currency}/statements"
        => list_statements(ListStatementsRequest) -> ListStatementsResponse;
    GET "/credit-lines/{merchant_id}/{currency}/statements/{number}" => get_statement(GetStatementRequest) -> Statement;
    POST "/credit-lines/{merchant_id}/{currency}/repayments" => repay(RepayRequest) -> Posting;
    GET "/credit-lines/{merchant_id}/{currency}/repayments"
        => list_repayments(ListRepaymentsRequest) -> ListRepaymentsResponse;
    POST "/credit-lines/{merchant_id}/{currency}/repayments/{repayment_no}/reverse"
        => reverse_repayment(ReverseRepaymentRequest) -> Posting;
    POST "/credit-lines/{merchant_id}/{currency}/write-off" => write_off(WriteOffRequest) -> Posting;
    POST "/credit-lines/{merchant_id}/{currency}/pauses" => pause(PauseRequest) -> CreditPause;
    GET "/credit-lines/{merchant_id}/{currency}/pauses" => list_pauses(ListPausesRequest) -> ListPausesResponse;
    GET "/credit-lines/{merchant_id}/{currency}/grade" => get_grade(GetGradeRequest) -> CreditGrade;
    POST "/credit-lines/{merchant_id}/{currency}/grade" => request_grade(RequestGradeRequest) -> GradeDecision;
    POST "/credit-lines/{merchant_id}/{currency}/grade/{grade_id}/approve"
        => approve_grade(ApproveGradeRequest) -> GradeDecision;
    POST "/credit-lines/{merchant_id}/{currency}/disputes" => record_dispute(RecordDisputeRequest) -> Dispute;
    GET "/credit-lines/{merchant_id}/{currency}/disputes" => list_disputes(ListDisputesRequest) -> ListDisputesResponse;
    GET "/scorecards" => list_scorecards(ListScorecardsRequest) -> ListScorecardsResponse;
    GET "/scorecards/{version}" => get_scorecard(GetScorecardRequest) -> ScorecardVersion;
    PUT "/scorecards" => put_scorecard(PutScorecardRequest) -> ScorecardVersion;
    POST "/scorecards/{version}/activate" => activate_scorecard(ActivateScorecardRequest) -> ScorecardVersion;
    POST "/scorecards/{version}/retire" => retire_scorecard(RetireScorecardRequest) -> ScorecardVersion;
    GET "/scorecards/{version}/results" => scorecard_results(ScorecardResultsRequest) -> ScorecardResultsResponse;
    GET "/scorecards/{version}/history" => scorecard_history(ScorecardHistoryRequest) -> ScorecardHistoryResponse;
    GET "/credit-lines/{merchant_id}/{currency}/dunning" => get_dunning(GetDunningRequest) -> Dunning;
    POST "/credit-lines/{merchant_id}/{currency}/obligations"
        => take_over_obligations(TakeOverObligationsRequest) -> TakeOverObligationsResponse;
    POST "/transfers" => transfer(TransferRequest) -> CreditTransfer;
    GET "/transfers/{transfer_no}" => get_transfer(GetTransferRequest) -> CreditTransfer;
    GET "/credit/statements" => credit_statements(CreditStatementsRequest) -> CreditStatementsResponse;
    GET "/credit/ageing" => credit_ageing(CreditAgeingRequest) -> CreditAgeingResponse;
    GET "/credit/stats" => credit_stats(CreditStatsRequest) -> CreditStatsResponse;
}
