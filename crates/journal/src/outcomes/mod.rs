//! Outcomes that the gateway left open: what is logged and counted of them, and their rows as the API and the
//! command line read and close them. The journal writes the rows.

mod figures;
pub mod read;

use quota::{Action, Code, Command, Reply};
use tracing::{info, warn};
use uuid::Uuid;

use sluice_kit::telemetry::trace_id;
use sluice_store::{Notes, operation_word, resolution_word};

pub use figures::Figures;

/// Counts and logs an outcome that is unknown, and one that is settled by a word of its own. Repetitions are neither.
pub fn report(figures: &Figures, command: &Command, notes: &Notes, reply: &Reply) {
    let is_new = !reply.record.replay && matches!(reply.record.code, Code::Applied | Code::Voided);
    let order_no = command.order_no.as_ref().map(quota::OrderNo::as_str);
    let event_id = Uuid::from_bytes(reply.event_id);
    match command.action {
        Action::MarkUnknown(mark) if is_new => {
            let operation = operation_word(mark.subject);
            figures.unknown(operation, &notes.reason);
            warn!(
                %event_id,
                merchant = %command.merchant,
                order_no,
                attempt = %command.attempt,
                operation,
                amount_minor = reply.record.amount,
                currency = %command.currency,
                reason = notes.reason,
                trace_id = trace_id(notes.trace),
                "outcome unknown"
            );
        }
        Action::Resolve(resolution) if is_new => info!(
            %event_id,
            merchant = %command.merchant,
            order_no,
            resolution = resolution_word(resolution),
            actor = notes.actor,
            reason = notes.reason,
            trace_id = trace_id(notes.trace),
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
        | Action::Adjust(_)
        | Action::Reset(_)
        | Action::Suspend
        | Action::Resume
        | Action::SuspendMerchant
        | Action::ResumeMerchant
        | Action::Initialize
        | Action::Roll => {}
    }
}
