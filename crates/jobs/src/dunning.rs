//! Dunning: sends each notice that is due once, as an alert, and ends the alert when its statement is paid. Raises the
//! operators' alert of lines that risk watches.
//!
//! A notice is recorded in the transaction that raises its alert: a server that dies in between has done neither. What is due
//! follows from the books, the pauses and the terms alone (`sluice-credit`).

use std::collections::{BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use jiff::civil::Date;
use sluice_alerts::credit::{self, Addressed, CURED, LineAccount, OpenLineAlert, PAID};
use sluice_alerts::{Dunning, Level, Subject, Watched, orphans};
use sluice_credit::{
    Books, DunningState, LineHistory, Notice, NoticeKey, NoticeKind, Obligation, Recipient, Stage, StageEffect,
};
use sluice_kit::clock;
use sluice_kit::database::{self, Connection as _, PgConnection};
use sluice_lines::{LineKey, LineRecord, NoticeRow, id_of};
use uuid::Uuid;

use super::Tools;
use super::apply::Failures;

/// The lines of a page, each with its business day and the notices that were sent.
pub(super) struct Page<'a> {
    pub(super) records: &'a HashMap<LineKey, LineRecord>,
    pub(super) days: &'a HashMap<&'a LineKey, Date>,
    pub(super) sent: HashMap<LineKey, Vec<NoticeRow>>,
    pub(super) now_ms: i64,
}

/// One line on its business day.
struct Line<'a> {
    key: &'a LineKey,
    record: &'a LineRecord,
    books: Books,
    today: Date,
    at: DateTime<Utc>,
}

/// Since when a line has been in stages that risk watches, and the present one.
#[derive(Clone, Copy)]
struct Watch {
    since: Date,
    stage: Stage,
}

/// Sends the notices that are due; returns how many. One line's failure holds up no other.
pub(super) async fn send(
    tools: &Tools,
    connection: &mut PgConnection,
    page: &Page<'_>,
    failures: &mut Failures,
) -> Result<u64, database::Error> {
    let merchants: Vec<&str> = page.records.keys().map(|(merchant, _)| merchant.as_str()).collect();
    let currencies: Vec<&str> = page.records.keys().map(|(_, currency)| currency.code()).collect();
    let open = OpenLineAlert::of(connection, &merchants, &currencies).await?;
    let at = DateTime::from_timestamp_millis(page.now_ms).unwrap_or_default();
    let mut sent = 0;
    for (key, record) in page.records {
        let Some(today) = page.days.get(key).filter(|_| !failures.are_too_many()) else { continue };
        let line = Line { key, record, books: record.books().0, today: *today, at };
        let open: Vec<&OpenLineAlert> = open.iter().filter(|open| line.has(open)).collect();
        let notices = page.sent.get(key).map_or(&[][..], Vec::as_slice);
        match line.update(tools, connection, &open, notices).await {
            Ok(notices) => sent += notices,
            Err(error) => failures.add(error.into()),
        }
    }
    Ok(sent)
}

impl Line<'_> {
    /// Ends alerts, sends notices, and raises the operators' alert; returns the number of notices.
    async fn update(
        &self,
        tools: &Tools,
        connection: &mut PgConnection,
        open: &[&OpenLineAlert],
        sent: &[NoticeRow],
    ) -> Result<u64, database::Error> {
        let watch = self.watched();
        self.resolve(connection, open, watch.is_some()).await?;
        let notices = self.send(tools, connection, sent).await?;
        if let Some(watch) = watch.filter(|_| open.iter().all(|alert| alert.is_dunning())) {
            self.watch(tools, connection, watch).await?;
        }
        Ok(notices)
    }

    fn history(&self) -> Option<LineHistory<'_>> {
        self.record.history(&self.books)
    }

    fn account(&self) -> LineAccount<'_> {
        LineAccount { merchant_id: self.key.0.as_str(), currency: self.key.1.code() }
    }

    fn has(&self, open: &OpenLineAlert) -> bool {
        (open.merchant_id.as_str(), open.currency.as_str()) == (self.key.0.as_str(), self.key.1.code())
    }

    fn obligation(&self, cycle: u32) -> Option<&Obligation> {
        self.books.obligations().iter().find(|own| own.statement.cycle.0 == cycle)
    }

    /// Ends the alerts of statements that are paid, and that of a line that is better.
    async fn resolve(
        &self,
        connection: &mut PgConnection,
        open: &[&OpenLineAlert],
        is_watched: bool,
    ) -> Result<(), database::Error> {
        let is_paid = |alert: &OpenLineAlert| {
            let cycle = alert.window_id.map(i32::unsigned_abs).unwrap_or_default();
            self.obligation(cycle).is_some_and(|own| own.minimum_unpaid_on(self.today) == 0)
        };
        let ids = |is_over: &dyn Fn(&OpenLineAlert) -> bool| -> Vec<Uuid> {
            open.iter().filter(|alert| is_over(alert)).map(|alert| alert.alert_id).collect()
        };
        let paid = ids(&|alert| alert.is_dunning() && is_paid(alert));
        let cured = ids(&|alert| !alert.is_dunning() && !is_watched);
        for (alerts, reason) in [(paid, PAID), (cured, CURED)] {
            if !alerts.is_empty() {
                orphans::resolve(connection, &alerts, reason).await?;
            }
        }
        Ok(())
    }

    /// Sends the notices that are due, all of the line or none.
    async fn send(
        &self,
        tools: &Tools,
        connection: &mut PgConnection,
        sent: &[NoticeRow],
    ) -> Result<u64, database::Error> {
        let Some(history) = self.history() else { return Ok(0) };
        let sent: BTreeSet<NoticeKey> = sent.iter().map(NoticeRow::key).collect();
        let active_from = self.record.active_from();
        let due = history.notices_due(self.today, DunningState { active_from, sent: &sent });
        if due.is_empty() {
            return Ok(0);
        }
        let mut transaction = connection.begin().await?;
        let mut new = Vec::new();
        for notice in &due {
            let row = NoticeRow::new(notice, self.at, Uuid::from_bytes(clock::decision_id()));
            if row.insert(&mut transaction, self.key).await? {
                self.raise(&mut transaction, notice, row.alert_id).await?;
                new.push(notice.step.kind);
            }
        }
        transaction.commit().await?;
        for kind in &new {
            tools.job_metrics.notice_sent(*kind);
            tools.alert_metrics.raised(Subject::CreditDunning.word(), level(*kind).into_str());
        }
        Ok(new.len() as u64)
    }

    async fn raise(
        &self,
        connection: &mut PgConnection,
        notice: &Notice,
        alert_id: Uuid,
    ) -> Result<(), database::Error> {
        let cycle = notice.key.obligation.0;
        let due_on = notice.due_on.to_string();
        let dunning = Dunning {
            account: self.account(),
            cycle: cycle.cast_signed(),
            number: self.obligation(cycle).map_or(0, |own| own.statement.number),
            amount: notice.amount.unsigned_abs(),
            due_on: &due_on,
            days_left: i64::from((notice.due_on - self.today).get_days().max(0)),
            days_past_due: notice.days_past_due,
            template: &notice.step.template,
            level: level(notice.step.kind),
        };
        let recipients: Vec<&str> = notice.step.recipients.iter().copied().map(Recipient::as_str).collect();
        let channels: Vec<&str> = notice.step.channels.iter().map(String::as_str).collect();
        let addressed = Addressed { recipients: &recipients, channels: &channels };
        credit::raise_notice(connection, alert_id, &dunning, addressed, self.at).await
    }

    /// `None` where the line is in no stage that risk watches.
    fn watched(&self) -> Option<Watch> {
        let history = self.history()?;
        let mut watch: Option<Watch> = None;
        for change in history.stage_changes(self.today) {
            let is_watched = history.terms.stages.effects(change.stage).contains(&StageEffect::RiskAlert);
            let since = watch.map_or(change.on, |watch| watch.since);
            watch = is_watched.then_some(Watch { since, stage: change.stage });
        }
        watch
    }

    /// Raises the operators' alert of a line that risk watches.
    async fn watch(&self, tools: &Tools, connection: &mut PgConnection, watch: Watch) -> Result<(), database::Error> {
        let Some(overdue) = self.history().map(|history| history.overdue(self.today)) else { return Ok(()) };
        let watched = Watched {
            account: self.account(),
            since: id_of(watch.since).cast_signed(),
            stage: watch.stage.as_str(),
            days_past_due: overdue.days_past_due,
            amount: overdue.amount_to_cure.max(0).unsigned_abs(),
        };
        let alert_id = Uuid::from_bytes(clock::decision_id());
        if credit::raise_watch(connection, alert_id, &watched, self.at).await? {
            tools.alert_metrics.raised(Subject::CreditWatch.word(), Level::Warning.into_str());
        }
        Ok(())
    }
}

/// A demand passes the rate limit of alerts.
const fn level(kind: NoticeKind) -> Level {
    match kind {
        NoticeKind::Reminder => Level::Warning,
        NoticeKind::Formal | NoticeKind::Final => Level::Critical,
    }
}
