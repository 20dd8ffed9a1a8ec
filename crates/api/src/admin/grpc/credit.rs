//! `quota.v1.CreditService`: credit lines, scorecards, transfers and sums over all lines.

use proto::quota_v1::credit_service_server::CreditService;

use super::routed::routed_service;

routed_service! { CreditService:
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
    GET "/transfers" => list_transfers(ListTransfersRequest) -> ListTransfersResponse;
    POST "/transfers" => transfer(TransferRequest) -> CreditTransfer;
    GET "/transfers/{transfer_no}" => get_transfer(GetTransferRequest) -> CreditTransfer;
    GET "/credit/statements" => credit_statements(CreditStatementsRequest) -> CreditStatementsResponse;
    GET "/credit/ageing" => credit_ageing(CreditAgeingRequest) -> CreditAgeingResponse;
    GET "/credit/stats" => credit_stats(CreditStatsRequest) -> CreditStatsResponse;
}
