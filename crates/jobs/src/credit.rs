//! Credit lines without a request: closes their billing cycles that are over, so that each has its statement, has `scorecard` make the
//! runs and `dunning` send the notices that are due, and publishes what all lines come to.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::DateTime;
use jiff::civil::Date;
use quota::Calendar;
use sluice_alerts::recount::{Recounted, recount};
use sluice_credit::Bands;

use super::apply::Failures;
use super::dunning::{self, Page};
use super::portfolio::Portfolio;
use super::scorecard;
use super::{Shutdown, SweepError, Task, Tools, request};
use sluice_decision::decider::{InForce, Prepared};
use sluice_decision::request::Operation;
use sluice_journal::postgres::StoredAccount;
use sluice_kit::database::leader::Leader;
use sluice_kit::database::{self, PgConnection};
use sluice_lines::{Credit, LineKey, LineRecord, LineRepository, Scorecards, day_of};

/// Lets one server sweep at a time; any number that nothing else uses.
const SWEEP_LOCK: i64 = 0x51_75_6f_74_61_07;
const TASK: Task = Task { actor: "system:credit", reason: "cycle_closed" };
/// Lines that are read at a time.
const LINES_PER_PAGE: i64 = 200;

/// The result of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CreditSwept {
    /// So many billing cycles were closed, runs of the scorecards made, and notices sent.
    Lines { closed: u64, runs: u64, notices: u64 },
    /// Another server is sweeping.
    ByAnother,
}

/// The sweep over credit lines.
#[derive(Debug)]
pub struct CreditSweep {
    tools: Tools,
    lines: LineRepository,
}

/// The state of a round.
#[derive(Debug)]
struct Round {
    now_ms: i64,
    bands: Arc<Bands>,
    /// As they are in Postgres: runs are made by no others. None where they are of a later release.
    cards: Option<Scorecards>,
    closed: u64,
    runs: u64,
    notices: u64,
    portfolio: Portfolio,
    failures: Failures,
}

impl CreditSweep {
    /// A sweep.
    #[must_use]
    pub fn new(tools: Tools) -> Self {
        let lines = LineRepository::new(tools.pool.clone());
        Self { tools, lines }
    }

    /// Closes the billing cycles that are over at `now_ms`, milliseconds since the epoch, in the account's calendar, makes the runs
    /// and sends the notices that are due. One server does it at a time.
    ///
    /// # Errors
    /// [`SweepError`] where Postgres or the store gives no answer, or contains an unexpected value for an account; the other
    /// lines are done where Postgres is there.
    pub async fn round(&self, now_ms: i64, shutdown: &Shutdown) -> Result<CreditSwept, SweepError> {
        let Some(mut leader) = Leader::elect(&self.tools.pool, SWEEP_LOCK).await? else {
            self.tools.portfolio.publish(Portfolio::default());
            return Ok(CreditSwept::ByAnother);
        };
        let bands = self.tools.decider.lines().bands();
        let (portfolio, mut failures) = (Portfolio::default(), Failures::default());
        let cards = match Scorecards::read(&mut leader.connection).await {
            Ok(cards) => Some(cards),
            Err(error @ database::Error::Decode(_)) => {
                failures.add(error.into());
                None
            }
            Err(error) => return Err(error.into()),
        };
        let mut round = Round { now_ms, bands, cards, closed: 0, runs: 0, notices: 0, portfolio, failures };
        let mut after: Option<LineKey> = None;
        let mut is_complete = false;
        while !shutdown.is_requested() && !round.failures.are_too_many() {
            let keys = self.lines.keys(None, after.as_ref(), LINES_PER_PAGE).await?;
            let Some(last) = keys.last() else {
                is_complete = true;
                break;
            };
            after = Some(last.clone());
            self.page(&mut leader.connection, &keys, &mut round).await?;
        }
        if let Err(error) = self.lines.remove_old_changes().await {
            round.failures.add(error.into());
        }
        leader.resign().await?;
        let Round { closed, runs, notices, portfolio, failures, .. } = round;
        if is_complete {
            self.tools.portfolio.publish(portfolio);
        }
        if closed > 0 {
            tracing::info!(cycles = closed, "billing cycles of credit lines without traffic were closed");
        }
        if notices > 0 {
            tracing::info!(notices, "notices of dunning were sent");
        }
        failures.after(CreditSwept::Lines { closed, runs, notices })
    }

    async fn page(&self, connection: &mut PgConnection, keys: &[LineKey], round: &mut Round) -> Result<(), SweepError> {
        let records = self.lines.records(keys).await?;
        let days: HashMap<&LineKey, Date> =
            keys.iter().filter_map(|key| Some((key, self.business_day(key, round.now_ms)?))).collect();
        if let Some(cards) = &round.cards {
            let page = scorecard::Page { records: &records, days: &days, cards };
            round.runs += scorecard::run(&self.tools, &page, &mut round.failures).await;
        }
        let page = Page { records: &records, days: &days, sent: self.lines.notices(keys).await?, now_ms: round.now_ms };
        round.notices += dunning::send(&self.tools, connection, &page, &mut round.failures).await?;
        self.count(connection, &page, round).await?;
        let commands = records.iter().filter_map(|(key, record)| self.close(key, record, round)).collect();
        let closed = self.tools.roll_each(commands, &mut round.failures).await;
        self.tools.job_metrics.cycles_closed.inc_by(closed);
        round.closed += closed;
        Ok(())
    }

    /// Adds the lines to the sums, and raises and ends the alerts of what they use of their limit.
    async fn count(&self, connection: &mut PgConnection, page: &Page<'_>, round: &mut Round) -> Result<(), SweepError> {
        let merchants: Vec<&str> = page.records.keys().map(|(merchant, _)| merchant.as_str()).collect();
        let currencies: Vec<&str> = page.records.keys().map(|(_, currency)| currency.code()).collect();
        let accounts = StoredAccount::of(connection, &merchants, &currencies).await?;
        let mut accounts: HashMap<(String, String), StoredAccount> = accounts
            .into_iter()
            .map(|account| ((account.merchant_id.clone(), account.currency.clone()), account))
            .collect();
        let mut recounted = Vec::new();
        for (key, record) in page.records {
            let day = page.days.get(key).and_then(|date| record.on(&record.books().0, &round.bands, *date));
            let Some(day) = day else { continue };
            let account = accounts.remove(&(key.0.to_string(), key.1.to_string()));
            let exposure = account.as_ref().and_then(|account| account.credit_exposure);
            round.portfolio.add(key.1, &day, exposure.unwrap_or_default());
            // An account without events has no exposure, and no alerts.
            let counted = |account| Recounted::line(account, day.limit.limit.max(0).unsigned_abs(), day.thresholds());
            recounted.extend(account.map(counted));
        }
        let at = DateTime::from_timestamp_millis(round.now_ms).unwrap_or_default();
        recount(connection, &self.tools.alert_metrics, &recounted, at).await?;
        Ok(())
    }

    /// The command that closes a line's cycle; `None` where none is over.
    fn close(&self, (merchant, currency): &LineKey, record: &LineRecord, round: &Round) -> Option<Prepared> {
        let policy = self.tools.in_force(merchant, *currency, round.now_ms).policy;
        let today = self.business_day(&(merchant.clone(), *currency), round.now_ms)?;
        if !record.has_cycle_to_close(today) {
            return None;
        }
        let day = record.on(&record.books().0, &round.bands, today)?;
        let in_force = InForce { policy, credit: Credit::Line(Arc::new(day)) };
        let request = request(merchant.clone(), *currency, Operation::Roll);
        Some(self.tools.prepare(request, TASK, in_force, round.now_ms))
    }

    /// The account's business day; that of UTC where no policy applies: what is owed stays owed.
    fn business_day(&self, (merchant, currency): &LineKey, now_ms: i64) -> Option<Date> {
        let policy = self.tools.in_force(merchant, *currency, now_ms).policy;
        let windows = policy.map_or_else(|| Calendar::UTC.windows_at(now_ms), |policy| policy.windows_at(now_ms));
        day_of(windows.ids.day)
    }
}
