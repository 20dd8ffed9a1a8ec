//! `credit statement`: one statement with what paid it, or all of them as CSV.

use sluice_lines::{StatementView, statements_csv};

use super::{CliError, Outcome, Session, day_or_none, print, table};

/// How it is printed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Format {
    pub json: bool,
    pub csv: bool,
}

pub(super) async fn statement(session: &Session, number: Option<u32>, format: Format) -> Result<Outcome, CliError> {
    let mut views = session.record().await?.statement_views(session.today);
    if format.csv {
        let csv = statements_csv(&session.key, &views).map_err(std::io::Error::other)?;
        print(&String::from_utf8_lossy(&csv))?;
        return Ok(if views.is_empty() { Outcome::No } else { Outcome::Done });
    }
    let found = match number {
        Some(number) => views.into_iter().find(|view| view.statement.number == number),
        None => views.pop(),
    };
    let (merchant, currency) = &session.key;
    let missing = match number {
        Some(number) => format!("{merchant} has no statement {number} in {currency}"),
        None => format!("{merchant} has no statement in {currency}"),
    };
    session.answer(found.as_ref(), format.json, &missing, |view| text(session, view))
}

fn text(session: &Session, view: &StatementView) -> String {
    let own = &view.statement;
    let mut rows = vec![
        ("account", session.account()),
        ("statement", format!("number {}, {}", own.number, view.status.into_str())),
        ("period", format!("{} to {}", own.first_day, own.closed_on)),
        ("amount", own.amount.to_string()),
        ("minimum", own.minimum.to_string()),
        ("due on", own.due_on.to_string()),
        ("paid", view.paid.to_string()),
        ("credited", view.credited.to_string()),
        ("written off", view.written_off.to_string()),
        ("open", view.open.to_string()),
        ("paid in full on", day_or_none(view.paid_in_full_on)),
    ];
    rows.extend(view.allocations.iter().map(|own| {
        let number = own.number.as_ref().map(|number| format!(" {number}")).unwrap_or_default();
        ("by", format!("{}{number}: {} of {}", own.kind, own.amount, own.value_on))
    }));
    table(&rows)
}
