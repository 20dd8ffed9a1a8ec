//! `credit show`: the line, and what it comes to today.

use sluice_kit::database::change::ChangeError;
use sluice_lines::{CreditLine, LineToday, LineView};

use super::{CliError, CreditError, Outcome, Session, day_or_none, past_due, table};

pub(super) async fn show(session: &Session, json: bool) -> Result<Outcome, CliError> {
    let view = match session.lines.get(&session.key).await {
        Ok(latest) => {
            let usage = session.usage().await?;
            let record = session.record().await?;
            let today = LineToday::of(&record, &session.operations.lines().bands(), usage, session.today);
            Some(LineView::of(latest, &record, today))
        }
        Err(ChangeError::NotFound(_)) => None,
        Err(error) => return Err(CreditError::from(error).into()),
    };
    session.answer(view.as_ref(), json, &session.no_line(), |view| text(session, view))
}

fn text(session: &Session, LineView { line, pending, today }: &LineView) -> String {
    let mut rows = vec![
        ("account", session.account()),
        ("line", version(line)),
        ("limit base", line.limit_base.to_string()),
        ("opened with grade", line.grade.as_str().to_owned()),
    ];
    rows.extend(pending.as_ref().map(|pending| ("pending", version(pending))));
    match today {
        Some(today) => rows.extend(of_day(today)),
        None => rows.push(("today", "not in force yet".to_owned())),
    }
    table(&rows)
}

fn version(line: &CreditLine) -> String {
    let opened = line.opened_on.map(|day| format!(", opened on {day}")).unwrap_or_default();
    let expires = line.expires_on.map(|day| format!(", expires on {day}")).unwrap_or_default();
    let closed = line.closed_on.map(|day| format!(", closed on {day}")).unwrap_or_default();
    format!("{}, version {}{opened}{expires}{closed}", line.state.into_str(), line.version)
}

fn of_day(today: &LineToday) -> Vec<(&'static str, String)> {
    let LineToday { cycle, standing, overdue, .. } = today;
    let by_hand = if today.is_limit_overridden { ", set by hand" } else { "" };
    let (due_days, minimum_bp) = (today.statement_terms.due_days, today.statement_terms.minimum_bp.0);
    let minimum = format!("{}.{:02}", minimum_bp / 100, minimum_bp % 100);
    let mut rows = vec![
        ("today", today.date.to_string()),
        ("grade", today.grade.as_str().to_owned()),
        ("limit", format!("{}{by_hand}", today.limit)),
        ("exposure", today.exposure.to_string()),
        ("available", today.available.to_string()),
        ("held", today.held.to_string()),
        ("unbilled", today.unbilled.to_string()),
        ("billed", today.billed.to_string()),
        ("unapplied", today.unapplied.to_string()),
        ("written off", today.written_off.to_string()),
        ("stage", format!("{}, {}", standing.stage.as_str(), past_due(overdue.days_past_due))),
        ("oldest due", day_or_none(overdue.oldest_due_on)),
        ("amount to cure", overdue.amount_to_cure.to_string()),
        ("cycle", format!("number {}, {}, closes on {}", cycle.number, cycle.first_day, cycle.last_day)),
        ("statements", format!("due after {due_days} days, at least {minimum} %")),
    ];
    rows.extend(today.next_stage_changes.iter().map(|next| {
        let stage = format!("{}: {}, {}", next.on, next.stage.as_str(), past_due(next.days_past_due));
        ("if nothing is paid", stage)
    }));
    rows
}
