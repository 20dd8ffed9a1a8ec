//! `credit simulate`: the line on a later day if nothing is paid and nothing more is charged.

use jiff::civil::Date;
use sluice_lines::{Simulation, SimulationBasis, SimulationError};

use super::{CliError, CreditError, Outcome, Session, day_or_none, past_due, table};

pub(super) async fn simulate(session: &Session, on: Date, json: bool) -> Result<Outcome, CliError> {
    let usage = session.usage().await?;
    let record = session.record().await?;
    let notices = session.lines.notices(std::slice::from_ref(&session.key)).await.map_err(CreditError::from)?;
    let sent = notices.into_values().flatten().map(|notice| notice.key()).collect();
    let basis = SimulationBasis { today: session.today, usage, sent: &sent };
    let simulation = match record.simulate(&session.operations.lines().bands(), basis, on) {
        Ok(simulation) => Some(simulation),
        Err(SimulationError::NoLine) => None,
        Err(error @ (SimulationError::Date { .. } | SimulationError::Books(_))) => {
            return Err(CreditError::from(error).into());
        }
    };
    session.answer(simulation.as_ref(), json, &session.no_line(), |simulation| text(session, simulation))
}

fn text(session: &Session, simulation: &Simulation) -> String {
    let Simulation { standing, overdue, .. } = simulation;
    let by_hand = if simulation.is_limit_overridden { ", set by hand" } else { "" };
    let statement = simulation.statement.map_or_else(
        || "the cycle is still open".to_owned(),
        |own| format!("number {}, {} closed on {}, due on {}", own.number, own.amount, own.closed_on, own.due_on),
    );
    let mut rows = vec![
        ("account", session.account()),
        ("day", format!("{}, if nothing is paid from {} on", simulation.date, simulation.today)),
        ("open cycle", statement),
        ("grade", simulation.grade.as_str().to_owned()),
        ("limit", format!("{}{by_hand}", simulation.limit)),
        ("exposure", simulation.exposure.to_string()),
        ("available", simulation.available.to_string()),
        ("stage", format!("{}, {}", standing.stage.as_str(), past_due(overdue.days_past_due))),
        ("oldest due", day_or_none(overdue.oldest_due_on)),
        ("amount to cure", overdue.amount_to_cure.to_string()),
    ];
    rows.extend(events(simulation).into_iter().map(|(on, event)| ("until then", format!("{on}: {event}"))));
    table(&rows)
}

/// Changes of the stage and notices, by day.
fn events(simulation: &Simulation) -> Vec<(Date, String)> {
    let stages = simulation.stage_changes.iter().map(|change| {
        let cap = match change.cap_bp.0 {
            10_000.. => "no cap".to_owned(),
            cap_bp => format!("cap {} %", cap_bp / 100),
        };
        (change.on, format!("stage {}, {}, {cap}", change.stage.as_str(), past_due(change.days_past_due)))
    });
    let notices = simulation.notices.iter().map(|notice| {
        let due = format!("{} due on {}", notice.amount, notice.due_on);
        (notice.on, format!("notice {} for {due}", notice.step.template))
    });
    let mut events: Vec<(Date, String)> = stages.chain(notices).collect();
    events.sort_by_key(|(on, _)| *on);
    events
}
