//! Metrics of the credit lines that a server knows.

use sluice_kit::metrics::signed;

sluice_kit::metrics! {
    /// Metrics of the credit lines that a server knows.
    pub struct LineMetrics {
        lines: Gauge = "sluice_credit_lines", "Accounts that have, or had, a credit line";
        read: Gauge = "sluice_credit_lines_read", "Credit lines whose books this server has read";
        outdated: Gauge = "sluice_credit_lines_outdated",
            "1 while credit lines cannot be read, and the last known ones count";
    }
}

impl LineMetrics {
    pub(crate) fn set(&self, lines: usize, read: usize, outdated: bool) {
        self.lines.set(signed(lines));
        self.read.set(signed(read));
        self.outdated.set(i64::from(outdated));
    }
}
