//! Finds usage that is across a threshold, or below one again, though no payment took it there: limits and thresholds change
//! without one. A suspended account is looked at like any other. Then come the alerts that no account bears out.

use std::sync::Arc;

use quota::{Account, Command, Counter, Marks, Watch};
use sqlx::postgres::PgConnection;

use super::apply::Failures;
use super::roll::{ACCOUNTS_PER_PAGE, Roll, Rolled};
use super::{Shutdown, SweepError, Tools, notes};
use crate::store::Notes;

/// Lets one server sweep at a time; any number that nothing else uses.
const SWEEP_LOCK: i64 = 0x51_75_6f_74_61_06;
/// Who the journal says asked, and why.
const ACTOR: &str = "system:threshold";
const REASON: &str = "threshold_crossed";

/// The sweep over thresholds.
#[derive(Debug)]
pub struct ThresholdSweep(Tools);

/// An account as the journal has it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(super) struct Stored {
    pub(super) merchant_id: String,
    pub(super) currency: String,
    daily_window: i32,
    daily_used: i64,
    daily_count: i64,
    monthly_window: i32,
    monthly_used: i64,
    monthly_count: i64,
    yearly_window: i32,
    yearly_used: i64,
    yearly_count: i64,
    pending_amount: i64,
    alert_marks: i32,
    alert_list: i32,
}

impl ThresholdSweep {
    /// A sweep.
    #[must_use]
    pub const fn new(tools: Tools) -> Self {
        Self(tools)
    }

    /// Brings the accounts' thresholds in line with the limits of `now_ms`, milliseconds since the epoch. One server does it at
    /// a time.
    ///
    /// # Errors
    /// [`SweepError`] where Postgres or the store gives no answer, or holds something else for an account; what else could be
    /// done is.
    pub async fn round(&self, now_ms: i64, shutdown: &Shutdown) -> Result<Rolled, SweepError> {
        let Some(mut turn) = self.0.turn(SWEEP_LOCK).await? else { return Ok(Rolled::ByAnother) };
        let mut marked = 0;
        let mut failures = Failures::default();
        let mut after = (String::new(), String::new());
        while !shutdown.is_asked() && !failures.are_too_many() {
            let page = page(&mut turn.connection, &after).await?;
            let Some(last) = page.last() else { break };
            after = (last.merchant_id.clone(), last.currency.clone());
            let mut commands = Vec::new();
            for stored in &page {
                commands.extend(self.roll(stored, now_ms).await);
            }
            let rolled = self.0.roll_each(commands, &mut failures).await;
            self.0.metrics.sweep.accounts_marked(rolled);
            marked += rolled;
        }
        if !shutdown.is_asked() {
            self.0.end_orphans(&mut turn.connection, now_ms).await?;
        }
        turn.end().await?;
        if marked > 0 {
            tracing::info!(accounts = marked, "usage of accounts was found across a threshold without a payment");
        }
        failures.after(Rolled::Accounts(marked))
    }

    /// The command that marks an account anew; `None` where its marks are right, or nobody knows what is.
    async fn roll(&self, stored: &Stored, now_ms: i64) -> Option<(Command, Notes)> {
        let Roll { mut command, policy } = self.0.roll(&stored.merchant_id, &stored.currency, now_ms).await?;
        if policy.is_none() && self.0.policies.any() {
            // An account that has no policy any more has no limit that it could be near.
            command.watch = Some(Arc::new(Watch::NOTHING));
        }
        let account = stored.account().rolled(command.windows);
        let is_to_be_marked = command.watch.as_ref().is_some_and(|watch| watch.marks(&account) != account.marks);
        is_to_be_marked.then(|| (command, notes(ACTOR, REASON, policy.as_deref())))
    }
}

impl Stored {
    pub(super) fn account(&self) -> Account {
        let counter = |id: i32, amount: i64, count: i64| Counter {
            id: id.unsigned_abs(),
            amount: amount.unsigned_abs(),
            count: count.unsigned_abs(),
            ..Counter::default()
        };
        Account {
            day: counter(self.daily_window, self.daily_used, self.daily_count),
            month: counter(self.monthly_window, self.monthly_used, self.monthly_count),
            year: counter(self.yearly_window, self.yearly_used, self.yearly_count),
            pending: self.pending_amount.unsigned_abs(),
            marks: Marks::unpacked(self.alert_marks.unsigned_abs(), u16::try_from(self.alert_list).unwrap_or_default()),
            ..Account::default()
        }
    }
}

async fn page(connection: &mut PgConnection, after: &(String, String)) -> Result<Vec<Stored>, sqlx::Error> {
    let statement = "SELECT * FROM quota_account WHERE (merchant_id, currency) > ($1, $2::text::char(3)) ORDER BY merchant_id, currency LIMIT $3";
    let (merchant_id, currency) = after;
    sqlx::query_as(statement).bind(merchant_id).bind(currency).bind(ACCOUNTS_PER_PAGE).fetch_all(connection).await
}
