//! What a merchant reads of its own credit line: what is or was in force, without the operators' remarks, reasons and names.

use quota::MerchantId;
use sluice_credit::Recipient;

use crate::{
    CreditLine, DisputeRow, GradeKind, GradeRow, LineView, NoticeRow, PauseRow, RunDetails, Transfer, TransferState,
};

/// Stands for every person.
const OPERATORS: &str = "operators";

fn unnamed(_: String) -> String {
    OPERATORS.to_owned()
}

impl CreditLine {
    /// The version as its merchant reads it.
    #[must_use]
    pub fn for_merchant(self) -> Self {
        Self {
            created_by: unnamed(self.created_by),
            edited_by: Vec::new(),
            approved_by: self.approved_by.map(unnamed),
            metadata: None,
            remarks: None,
            ..self
        }
    }
}

impl LineView {
    /// The line as its merchant reads it; `None` where it was never in force.
    #[must_use]
    pub fn for_merchant(self) -> Option<Self> {
        self.line.activated_on?;
        Some(Self { line: self.line.for_merchant(), pending: None, today: self.today })
    }
}

impl GradeRow {
    /// The decision as its merchant reads it; `None` for one that a second person has not approved. Of a run all stays but what had
    /// no effect: a scorecard on trial is not for merchants.
    #[must_use]
    pub fn for_merchant(self) -> Option<Self> {
        let decides = self.run.as_ref().is_some_and(|run| run.has_effect);
        match (self.kind, &self.approved_by) {
            (GradeKind::Override, None) => None,
            (GradeKind::Override, Some(_)) | (GradeKind::Opening | GradeKind::Scorecard, _) => Some(Self {
                reason: None,
                requested_by: unnamed(self.requested_by),
                approved_by: self.approved_by.map(unnamed),
                scorecard: self.scorecard.filter(|_| decides),
                score: self.score.filter(|_| decides),
                run: self.run.filter(|_| decides).map(|run| RunDetails { challenger: None, ..run }),
                ..self
            }),
        }
    }
}

impl PauseRow {
    /// The pause as its merchant reads it.
    #[must_use]
    pub fn for_merchant(self) -> Self {
        Self { reason: String::new(), approved_by: unnamed(self.approved_by), ..self }
    }
}

impl DisputeRow {
    /// The dispute as its merchant reads it.
    #[must_use]
    pub fn for_merchant(self) -> Self {
        Self { recorded_by: unnamed(self.recorded_by), remarks: None, ..self }
    }
}

impl Transfer {
    /// The transfer as the merchant of one side reads it: nothing of the other side's decisions, and why it failed only where that is
    /// its own line's doing.
    #[must_use]
    pub fn for_merchant(self, own: &MerchantId) -> Self {
        let is_sender = self.from_merchant_id == own.as_str();
        let is_own_refusal = is_sender == (self.state == TransferState::Refused);
        Self {
            reason: None,
            requested_by: unnamed(self.requested_by),
            code: self.code.filter(|_| is_own_refusal),
            reserve_decision: self.reserve_decision.filter(|_| is_sender),
            return_decision: self.return_decision.filter(|_| is_sender),
            credit_decision: self.credit_decision.filter(|_| !is_sender),
            ..self
        }
    }
}

impl NoticeRow {
    /// Whether it was sent to the merchant.
    #[must_use]
    pub fn is_for_merchant(&self) -> bool {
        self.recipients.contains(&Recipient::Merchant)
    }
}
