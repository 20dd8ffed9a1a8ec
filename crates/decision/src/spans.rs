//! Spans of decisions. Names of attributes are those of OpenTelemetry's semantic conventions where they have one, else our own.

use std::time::Duration;

use quota::{Code, Command, Effect, OrderNo, Reply};
use uuid::Uuid;

use crate::request::Source;
pub(crate) use sluice_kit::telemetry::spans::of_decision;
use sluice_kit::telemetry::spans::under;
use sluice_kit::telemetry::tracer::{self, Kind, SpanData, flag, text};
use sluice_store::{AuditContext, StoreError};

/// A command was decided, or could not be.
pub(crate) fn decision(
    source: Source,
    command: &Command,
    audit: &AuditContext,
    outcome: Result<&Reply, &StoreError>,
    took: Duration,
) {
    let kind = match source {
        Source::Proxy => Kind::Server,
        Source::Api | Source::Job => Kind::Internal,
    };
    let id = outcome.map_or(command.decision_id, |reply| reply.event_id);
    let Some((tracer, trace)) = tracer::recorded(under(audit.trace, id)) else { return };
    let code = outcome.map_or(Code::StoreUnavailable, |reply| reply.record.code);
    let mut attributes = vec![
        text("sluice.event_id", Uuid::from_bytes(id)),
        text("sluice.action", command.action.as_str()),
        flag("sluice.effect", command.effect != Effect::Commit),
        text("sluice.merchant", command.merchant.as_str()),
        text("sluice.currency", command.currency.code()),
        text("sluice.mode", audit.mode),
        text("sluice.policy_version", &*audit.policy_version),
        text("sluice.code", code.as_str()),
    ];
    attributes.extend(command.order_no.as_ref().map(|order_no| text("sluice.order_no", OrderNo::as_str(order_no))));
    if let Ok(reply) = outcome {
        attributes.push(text("sluice.decision_id", Uuid::from_bytes(reply.decision_id)));
        attributes.push(flag("sluice.replay", reply.record.replay));
    }
    let error = outcome.err().map(ToString::to_string);
    let name = format!("decide {}", command.action.as_str());
    tracer.end(trace, took, SpanData { kind, name, attributes, links: Vec::new(), error: error.as_deref() });
}
