//! Alerts of marks that no event raises or ends: a limit, a merchant's thresholds or a grade's have changed. The sweeps give the
//! accounts as the journal has stored them, with the limits in force.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use chrono::{DateTime, Utc};
use quota::{LimitName, ThresholdPolicy, Thresholds, WindowIds};
use sluice_journal::postgres::StoredAccount;
use sqlx::Connection as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::marks::{self, Marked};
use crate::metrics::AlertMetrics;
use crate::orphans;
use crate::own::{self, OwnByMerchant, OwnThresholds};
use crate::projection::{self, Alert};
use crate::raise::{Account, ChangedState, Key, Open, marked_by, with_usage};
use crate::subject::Subject;
use crate::words;

/// Events of these accounts that are stored while their account is not yet: what they raised or ended is not to be undone.
const BEHIND: &str = "SELECT DISTINCT account.merchant_id, account.currency \
    FROM UNNEST($1::text[], $2::text[], $3::int4[], $4::int8[], $5::timestamptz[]) \
        AS account (merchant_id, currency, shard, seq, updated_at) \
    JOIN usage_log AS row ON row.merchant_id = account.merchant_id AND row.currency = account.currency::char(3) \
        AND row.at >= account.updated_at - interval '1 minute' AND row.shard = account.shard AND row.seq > account.seq \
        AND NOT row.replay AND row.code IN ('ADMITTED', 'APPLIED', 'VOIDED') \
        AND row.action_type NOT IN ('unknown', 'resolve', 'extend_hold') \
        AND NOT (row.right_id IS NOT NULL AND row.action_type IN ('consume', 'orphan_right') \
            AND row.daily_count_before = row.daily_count_after)";

/// An account whose marks are counted anew.
#[derive(Debug)]
pub struct Recounted {
    account: StoredAccount,
    counted: Counted,
}

/// Which marks.
#[derive(Debug)]
enum Counted {
    /// The merchant's own thresholds for the limits of its policy, in the windows of now; none where no policy is known.
    Limits(Option<(Arc<ThresholdPolicy>, WindowIds)>),
    /// Those of the credit line.
    Line { limit: u64, thresholds: Thresholds },
}

impl Recounted {
    /// An account with the limits in force, for the merchant's own thresholds.
    #[must_use]
    pub const fn limits(account: StoredAccount, in_force: Option<(Arc<ThresholdPolicy>, WindowIds)>) -> Self {
        Self { account, counted: Counted::Limits(in_force) }
    }

    /// An account with its credit line: its limit in minor units and the thresholds of its grade.
    #[must_use]
    pub const fn line(account: StoredAccount, limit: u64, thresholds: Thresholds) -> Self {
        Self { account, counted: Counted::Line { limit, thresholds } }
    }

    fn state(&self, at: DateTime<Utc>) -> ChangedState<'_> {
        let StoredAccount { merchant_id, currency, shard, seq, .. } = &self.account;
        ChangedState { merchant_id, currency: Some(currency), shard: *shard, seq: *seq, at }
    }

    fn key(&self) -> Account {
        (self.account.merchant_id.clone(), self.account.currency.clone())
    }

    /// Whether the alert is one of those that are counted here.
    fn counts(&self, key: &Key) -> bool {
        let is_of_line = key.subject == Subject::CreditUtilisation.column();
        match &self.counted {
            Counted::Limits(_) => key.is_own && !is_of_line,
            Counted::Line { .. } => is_of_line,
        }
    }

    /// Whether the alert is one of a window that is over: the event that closes the window ends it.
    fn is_over(&self, key: &Key) -> bool {
        let limit = Subject::from_column(&key.subject).and_then(Subject::limit);
        match (&self.counted, limit.and_then(LimitName::period)) {
            (Counted::Limits(Some((_, windows))), Some(period)) => {
                let window = self.account.account().rolled(*windows).of(period).id;
                key.window_id != i32::try_from(window).ok()
            }
            (Counted::Limits(_) | Counted::Line { .. }, _) => false,
        }
    }

    /// Each limit with its marks, its usage, and the window of that.
    fn marked(&self, own: &[OwnThresholds]) -> Vec<(Marked, u64, Option<i32>)> {
        let currency = self.account.currency.as_str();
        match &self.counted {
            Counted::Limits(None) => Vec::new(),
            Counted::Limits(Some((policy, windows))) => {
                let account = self.account.account().rolled(*windows);
                let usage = |marked: Marked| {
                    let limit = marked.subject.limit()?;
                    let window = limit.period().and_then(|period| i32::try_from(account.of(period).id).ok());
                    Some((marked, limit.used_of(&account), window))
                };
                marks::of_limits(own, currency, policy).into_iter().filter_map(usage).collect()
            }
            Counted::Line { limit, thresholds } => {
                let used = self.account.credit_exposure.unwrap_or_default().max(0).unsigned_abs();
                marks::of_line(own, currency, *limit, thresholds)
                    .map(|marked| (marked, used, None))
                    .into_iter()
                    .collect()
            }
        }
    }
}

/// What the marks of one account come to.
#[derive(Default)]
struct Changes {
    raised: Vec<Alert>,
    raised_limit: Vec<Uuid>,
    other_thresholds: Vec<Uuid>,
}

/// Raises the alerts of marks that usage has reached, and ends those of marks that it has not; returns how many of both. An alert
/// that was resolved by hand is not raised again.
///
/// # Errors
/// [`sqlx::Error`] where Postgres gives no answer.
pub async fn recount(
    connection: &mut PgConnection,
    metrics: &AlertMetrics,
    accounts: &[Recounted],
    at: DateTime<Utc>,
) -> Result<u64, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let own = own::read(&mut transaction, accounts.iter().map(|one| one.account.merchant_id.as_str())).await?;
    let keys: Vec<Account> = accounts.iter().map(Recounted::key).collect();
    let mut open: HashMap<Account, Vec<Open>> = HashMap::new();
    for (account, alert) in projection::open(&mut transaction, &keys.iter().collect()).await? {
        open.entry(account).or_default().push(alert);
    }
    let mut changes = Changes::default();
    for (one, key) in accounts.iter().zip(&keys) {
        changes.add(one, &own, open.get(key).map_or(&[], Vec::as_slice), at);
    }
    let Changes { raised, raised_limit, other_thresholds } = changes;
    let raised = justified(&mut transaction, accounts, raised).await?;
    let mut ended = orphans::resolve(&mut transaction, &raised_limit, "limit_raised").await?;
    ended += orphans::resolve(&mut transaction, &other_thresholds, "thresholds_changed").await?;
    let raised = projection::insert(&mut transaction, &raised).await?;
    transaction.commit().await?;
    raised.iter().for_each(|(alert_type, level)| metrics.raised(alert_type, level));
    Ok(ended + raised.len() as u64)
}

impl Changes {
    fn add(&mut self, one: &Recounted, own: &OwnByMerchant, open: &[Open], at: DateTime<Utc>) {
        let own = own.get(&one.account.merchant_id).map_or(&[][..], Vec::as_slice);
        let (mut reached, mut marked_at) = (HashSet::new(), HashSet::new());
        for (Marked { subject, max, marks }, used, window_id) in one.marked(own) {
            for mark in marks {
                let key = Key::of(subject, &mark, window_id);
                marked_at.insert(key.clone());
                if used < mark.first {
                    continue;
                }
                if open.iter().all(|open| open.key != key) {
                    let words = words::reached(subject, &one.account.currency, mark.threshold, used, max);
                    let alert = one.state(at).alert(subject, mark.threshold.level(), words);
                    self.raised.push(with_usage(marked_by(alert, subject, &mark, window_id), used, max));
                }
                reached.insert(key);
            }
        }
        // A later event than the account's has raised it.
        let is_later = |open: &Open| {
            open.shard == Some(one.account.shard) && open.raised_seq.is_some_and(|seq| seq > one.account.seq)
        };
        let is_left = |open: &&Open| one.counts(&open.key) && !one.is_over(&open.key) && !reached.contains(&open.key);
        for open in open.iter().filter(is_left).filter(|open| !is_later(open)) {
            let is_marked = marked_at.iter().any(|key| key.is_threshold_of(&open.key));
            if is_marked { &mut self.raised_limit } else { &mut self.other_thresholds }.push(open.alert_id);
        }
    }
}

/// Those that were not resolved by hand, of accounts that are not behind.
async fn justified(
    connection: &mut PgConnection,
    accounts: &[Recounted],
    raised: Vec<Alert>,
) -> Result<Vec<Alert>, sqlx::Error> {
    if raised.is_empty() {
        return Ok(raised);
    }
    let account = |alert: &Alert| (alert.merchant_id.clone(), alert.currency.clone().unwrap_or_default());
    let keys: HashSet<Account> = raised.iter().map(account).collect();
    let silenced = projection::silenced(connection, &keys.iter().collect::<BTreeSet<_>>()).await?;
    let concerned: Vec<&StoredAccount> =
        accounts.iter().filter(|one| keys.contains(&one.key())).map(|one| &one.account).collect();
    let column = |of: fn(&StoredAccount) -> &str| concerned.iter().map(|account| of(account)).collect::<Vec<_>>();
    let behind: HashSet<Account> = sqlx::query_as(BEHIND)
        .bind(column(|account| &account.merchant_id))
        .bind(column(|account| &account.currency))
        .bind(concerned.iter().map(|account| account.shard).collect::<Vec<_>>())
        .bind(concerned.iter().map(|account| account.seq).collect::<Vec<_>>())
        .bind(concerned.iter().map(|account| account.updated_at).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?
        .into_iter()
        .collect();
    let is_new = |alert: &Alert| {
        let account = account(alert);
        !behind.contains(&account) && !silenced.contains(&(account, alert.key()))
    };
    Ok(raised.into_iter().filter(is_new).collect())
}
