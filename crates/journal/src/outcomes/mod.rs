//! Outcomes that the gateway left open: logging, counting, and their rows as the API and the command line read and close them.
//! The journal writes the rows.

mod metrics;
pub mod read;

use quota::{Action, Code, Command, Reply};
use tracing::{info, warn};
use uuid::Uuid;

use sluice_kit::telemetry::trace_id;
use sluice_store::{AuditContext, operation_word, resolution_word};

pub use metrics::OutcomeMetrics;

/// Counts and logs an unknown outcome, and one that is resolved by an event of its own. Repetitions are neither.
pub fn report(metrics: &OutcomeMetrics, command: &Command, audit: &AuditContext, reply: &Reply) {
    let is_new = !reply.record.replay && matches!(reply.record.code, Code::Applied | Code::Voided);
    let order_no = command.order_no.as_ref().map(quota::OrderNo::as_str);
    let event_id = Uuid::from_bytes(reply.event_id);
    match command.action {
        Action::MarkUnknown(mark) if is_new => {
            let operation = operation_word(mark.subject);
            metrics.unknown(operation, &audit.reason);
            warn!(
                %event_id,
                merchant = %command.merchant,
                order_no,
                attempt = %command.attempt,
                operation,
                amount_minor = reply.record.amount,
                currency = %command.currency,
                reason = audit.reason,
                trace_id = trace_id(audit.trace),
                "outcome unknown"
            );
        }
        Action::Resolve(resolution) if is_new => info!(
            %event_id,
            merchant = %command.merchant,
            order_no,
            resolution = resolution_word(resolution),
            actor = &*audit.actor,
            reason = audit.reason,
            trace_id = trace_id(audit.trace),
            "unknown outcome resolved"
        ),
        Action::MarkUnknown(_)
        | Action::Resolve(_)
        | Action::Consume(_)
        | Action::Hold(..)
        | Action::VoidAttempt
        | Action::Void
        | Action::Settle(_)
        | Action::Refund(_)
        | Action::Release(_)
        | Action::Expire
        | Action::ExtendHold { .. }
        | Action::Adjust(_)
        | Action::Reset(_)
        | Action::Suspend
        | Action::Resume
        | Action::SuspendMerchant
        | Action::ResumeMerchant
        | Action::Initialize
        | Action::Post(_)
        | Action::Grant(_)
        | Action::Report(_)
        | Action::ReleaseRight(_)
        | Action::OrphanRight(_)
        | Action::Roll => {}
    }
}
