//! What a merchant reads of its own credit line: what is or was in force, without the operators' remarks, reasons and names.

use sluice_credit::Recipient;

use crate::{CreditLine, GradeKind, GradeRow, LineView, NoticeRow, PauseRow, RunDetails};

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
    /// The decision as its merchant reads it; `None` for one that a second person has not approved. Of a run all
    /// stays but the challenger's result: a scorecard on trial is not for merchants.
    #[must_use]
    pub fn for_merchant(self) -> Option<Self> {
        match (self.kind, &self.approved_by) {
            (GradeKind::Override, None) => None,
            (GradeKind::Override, Some(_)) | (GradeKind::Opening | GradeKind::Scorecard, _) => Some(Self {
                reason: None,
                requested_by: unnamed(self.requested_by),
                approved_by: self.approved_by.map(unnamed),
                run: self.run.map(|run| RunDetails { challenger: None, ..run }),
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

impl NoticeRow {
    /// Whether it was sent to the merchant.
    #[must_use]
    pub fn is_for_merchant(&self) -> bool {
        self.recipients.contains(&Recipient::Merchant)
    }
}
