//! Credit lines that nothing happens on: cycles close without traffic, and each notice of dunning is sent once, however many
//! servers sweep, whatever dies in between.

use std::sync::Arc;

use jiff::civil::{Date, date};
use quota::{Action, ActorId, AmountMinor, Command, CreditTerms, Currency, MerchantId, Posting, PostingKind};
use serde_json::json;
use sluice_alerts::notifier;
use sluice_credit::{Bands, CycleRule, Grade, Terms};
use sluice_jobs::CreditSwept;
use sluice_kit::database::change::By;
use sluice_kit::metrics::Metrics;
use sluice_kit::shutdown;
use sluice_lines::{LineInput, LineKey, LineRepository, PauseRepository};
use sluice_settings::{Live, Settings};
use sqlx::PgPool;
use testkit::{Failure, Result};

use crate::alerts::{DAY_MS, Hand, MERCHANT};
use crate::bench::{AT_MS, Bench};
use crate::engine::{Engine, consume};
use crate::receiver::{Receiver, status};
use crate::sweeps::Sweeper;

const POLICIES: &str = "version: \"1\"\ndefault: {timezone: UTC, daily_amount: 1000000000}\n";
/// The day of `AT_MS`, day 0.
const OPENED_ON: Date = date(2026, 11, 20);
/// What is charged on day 0, and is due on day 43: 14 days after the last day of the first cycle.
pub(crate) const AMOUNT: u64 = 12_000;
pub(crate) const DUE_DAY: i64 = 43;

/// Two servers that sweep, and an account with a line of thirty-day cycles, opened on day 0.
pub(crate) struct Life {
    pub(crate) bench: Bench,
    pub(crate) engine: Engine,
    pub(crate) hand: Hand,
    pub(crate) pool: PgPool,
    pub(crate) servers: [Sweeper; 2],
}

impl Life {
    pub(crate) async fn open() -> Result<Self> {
        let bench = Bench::start()?;
        let engine = Engine { order_ttl_secs: 400 * 86_400, ..Engine::open(&bench)? };
        let hand = Hand::open(&bench).await?;
        let pool = bench.postgres.pool().await?;
        let servers = [Sweeper::open(&bench, POLICIES)?, Sweeper::open(&bench, POLICIES)?];
        let mut life = Self { bench, engine, hand, pool, servers };
        open_line(&life.lines()).await?;
        life.apply(0, "o-1", consume(AMOUNT)).await?;
        Ok(life)
    }

    pub(crate) fn lines(&self) -> LineRepository {
        LineRepository::new(self.pool.clone())
    }

    /// Does something on a day, and stores it.
    pub(crate) async fn apply(&mut self, day: i64, number: &str, action: Action) -> Result<()> {
        let limit = AmountMinor::new(1_000_000).unwrap_or_default();
        let now_ms = at(day);
        let cycle = quota::Calendar::UTC.windows_at(at(day - day % 30)).ids.day;
        let credit = Some(CreditTerms { cycle, limit, uncapped_limit: limit });
        let command = self.engine.command(MERCHANT, number, action, now_ms)?;
        let reply = self.engine.apply(&Command { credit, ..command }).await?;
        match reply.record.code.http_status() {
            200 => self.hand.drain().await,
            _ => Err(Failure::new(format!("{number}: {}", reply.record.code.as_str()))),
        }
    }

    pub(crate) async fn repay(&mut self, day: i64, minor: u64) -> Result<()> {
        let amount = AmountMinor::new(minor).unwrap_or_default();
        self.apply(day, "p-1", Action::Post(Posting { kind: PostingKind::Repayment, amount })).await
    }

    /// Both servers sweep at once on a day, and one of them again; what they did is stored.
    pub(crate) async fn sweep(&mut self, day: i64) -> Result<(u64, u64)> {
        let [one, two] = &self.servers;
        let (first, second) = tokio::join!(one.credit(at(day)), two.credit(at(day)));
        let mut sum = (0, 0);
        for swept in [first?, second?, one.credit(at(day)).await?] {
            if let CreditSwept::Lines { closed, runs: _, notices } = swept {
                sum = (sum.0 + closed, sum.1 + notices);
            }
        }
        self.hand.drain().await?;
        Ok(sum)
    }

    /// The same on each day after another one, up to a day.
    pub(crate) async fn live(&mut self, days: std::ops::RangeInclusive<i64>) -> Result<()> {
        for day in days {
            self.sweep(day).await?;
        }
        Ok(())
    }

    pub(crate) async fn texts(&self, sql: &'static str) -> Result<Vec<String>> {
        Ok(sqlx::query_scalar(sql).fetch_all(&self.pool).await?)
    }

    /// The notices that were sent, each with the days from the due date to its sending.
    async fn notices(&self) -> Result<Vec<String>> {
        let notices = "SELECT concat_ws(' ', step, sent_at::date - due_on, kind, array_to_string(recipients, '+')) \
            FROM credit_notice ORDER BY sent_at, step";
        self.texts(notices).await
    }

    /// Each alert, with its end where it has one.
    async fn alerts(&self) -> Result<Vec<String>> {
        let alerts = "SELECT concat_ws(' ', alert_type, alert_level, raised_at::date - date '2027-01-02', resolve_reason) \
            FROM quota_alert ORDER BY raised_at, alert_type";
        self.texts(alerts).await
    }

    pub(crate) async fn execute(&self, sql: &'static str) -> Result<()> {
        sqlx::query(sql).execute(&self.pool).await?;
        Ok(())
    }
}

pub(crate) const fn at(day: i64) -> i64 {
    AT_MS + day * DAY_MS
}

pub(crate) fn day(day: i64) -> Date {
    OPENED_ON.saturating_add(jiff::Span::new().days(day))
}

pub(crate) fn key() -> Result<LineKey> {
    Ok((MerchantId::parse(MERCHANT)?, Currency::parse("USD")?))
}

async fn open_line(lines: &LineRepository) -> Result<()> {
    let (maker, checker) = (ActorId::parse("ana")?, ActorId::parse("ben")?);
    let [made, checked] = [&maker, &checker].map(|actor| By { actor, reason: None });
    let input = LineInput {
        merchant_id: MERCHANT.to_owned(),
        currency: "USD".to_owned(),
        limit_base: 1_000_000,
        grade: Grade::B,
        terms: Terms { cycle: CycleRule::EveryDays { days: 30 }, ..Terms::default() },
        override_limit: None,
        override_until: None,
        taken_over_from: None,
        expires_on: None,
        metadata: None,
        remarks: None,
    };
    lines.create(made, &input, OPENED_ON).await?;
    lines.approve(checked, &key()?, None).await?;
    lines.activate(checked, &key()?, None, &Bands::default(), OPENED_ON).await?;
    Ok(())
}

/// A cycle closes once, on the first day after it; of cycles that pass without a sweep the stored one closes.
#[tokio::test]
async fn a_cycle_closes_without_traffic() -> Result<()> {
    let mut life = Life::open().await?;
    let statements = "SELECT concat_ws(' ', number, cycle, due_on, amount) FROM credit_statement ORDER BY number";
    assert_eq!(life.sweep(29).await?, (0, 0));
    assert_eq!(life.sweep(30).await?, (1, 0));
    assert_eq!(life.texts(statements).await?, ["1 20261120 2027-01-02 12000"]);
    assert_eq!(life.sweep(30).await?, (0, 0));
    assert!(!life.lines().record(&key()?).await?.has_cycle_to_close(day(59)));
    // Cycles begin on the days 30, 60, 90 and 120.
    let (closed, _) = life.sweep(125).await?;
    assert_eq!(closed, 1);
    let both = ["1 20261120 2027-01-02 12000", "2 20261220 2027-02-01 0"];
    assert_eq!(life.texts(statements).await?, both);
    let record = life.lines().record(&key()?).await?;
    assert_eq!([149, 150].map(|number| record.has_cycle_to_close(day(number))), [false, true]);
    assert_eq!(life.sweep(149).await?.0, 0);
    let events = "SELECT concat_ws(' ', action_type, operator_id, operator_type, reason) FROM usage_log \
        WHERE action_type = 'roll' ORDER BY at";
    assert_eq!(life.texts(events).await?, ["roll system:credit system cycle_closed"; 2]);
    let text = life.servers.iter().map(|server| server.metrics.encode()).collect::<String>();
    assert!(text.contains("sluice_credit_cycles_closed_total"), "{text}");
    Ok(())
}

/// From three days before the due date to default: each step once, on its day, and the alert of each replaces the one before it.
#[tokio::test]
async fn each_notice_is_sent_once() -> Result<()> {
    let mut life = Life::open().await?;
    life.live(29..=DUE_DAY + 95).await?;
    let sent = [
        "-3 -3 reminder merchant",
        "0 0 reminder merchant",
        "1 1 reminder merchant+operators",
        "7 7 reminder merchant+operators",
        "14 14 reminder merchant+operators",
        "30 30 formal merchant+operators",
        "45 45 reminder merchant+operators",
        "60 60 final merchant+operators",
        "90 90 reminder merchant+operators",
    ];
    assert_eq!(life.notices().await?, sent);
    let alerts = [
        "credit_dunning warning -3 replaced",
        "credit_dunning warning 0 replaced",
        "credit_dunning warning 1 replaced",
        "credit_watch warning 6",
        "credit_dunning warning 7 replaced",
        "credit_dunning warning 14 replaced",
        "credit_dunning critical 30 replaced",
        "credit_dunning warning 45 replaced",
        "credit_dunning critical 60 replaced",
        "credit_dunning warning 90",
    ];
    assert_eq!(life.alerts().await?, alerts);
    let carried = "SELECT alert_id::text FROM credit_notice EXCEPT SELECT alert_id::text FROM quota_alert \
        WHERE subject = 'credit_dunning' AND window_id = 20261120";
    assert_eq!(life.texts(carried).await?, [""; 0]);
    let changed = life.execute("UPDATE credit_notice SET amount = 1").await;
    assert!(changed.is_err_and(|failure| failure.to_string().contains("kept for the record")));
    Ok(())
}

/// A payment ends the alert, and nothing is sent after it. An alert that was resolved by hand is not raised again.
#[tokio::test]
async fn a_payment_stops_the_notices() -> Result<()> {
    let mut life = Life::open().await?;
    life.live(30..=DUE_DAY + 7).await?;
    life.execute(
        "UPDATE quota_alert SET resolved_at = raised_at, resolved_by = 'ana', resolve_reason = 'by_hand' \
         WHERE subject = 'credit_watch'",
    )
    .await?;
    life.live(DUE_DAY + 8..=DUE_DAY + 9).await?;
    life.repay(DUE_DAY + 9, AMOUNT).await?;
    life.live(DUE_DAY + 9..=DUE_DAY + 95).await?;
    assert_eq!(life.notices().await?.len(), 4);
    let alerts = [
        "credit_dunning warning -3 replaced",
        "credit_dunning warning 0 replaced",
        "credit_dunning warning 1 replaced",
        "credit_watch warning 6 by_hand",
        "credit_dunning warning 7 paid",
    ];
    assert_eq!(life.alerts().await?, alerts);
    Ok(())
}

/// The operators' alert ends when the line is better.
#[tokio::test]
async fn a_line_that_is_better_is_watched_no_more() -> Result<()> {
    let mut life = Life::open().await?;
    life.live(30..=DUE_DAY + 6).await?;
    life.repay(DUE_DAY + 6, AMOUNT).await?;
    life.live(DUE_DAY + 7..=DUE_DAY + 40).await?;
    let alerts = life.alerts().await?;
    assert!(alerts.contains(&"credit_watch warning 6 cured".to_owned()), "{alerts:?}");
    // The threshold sweep takes none of them for one that no account justifies.
    assert!(alerts.iter().all(|alert| !alert.contains("counters_lost")), "{alerts:?}");
    Ok(())
}

/// The sweep finds what a line uses of its limit where the limit has changed, and publishes what all lines come to.
#[tokio::test]
async fn the_sweep_counts_what_lines_use() -> Result<()> {
    let mut life = Life::open().await?;
    let published = |life: &Life, on: usize| life.servers[on].metrics.encode();
    for (limit, expected) in [
        (1_000_000, &[][..]),
        (14_000, &["credit_utilisation_80 warning"]),
        (14_000, &["credit_utilisation_80 warning"]),
        (100_000, &["credit_utilisation_80 warning limit_raised"]),
    ] {
        set_limit(&life.lines(), limit).await?;
        life.servers[0].credit(at(1)).await?;
        let alerts =
            life.texts("SELECT concat_ws(' ', alert_type, alert_level, resolve_reason) FROM quota_alert").await?;
        assert_eq!(alerts, expected, "{limit}");
    }
    for line in [
        "sluice_credit_exposure{currency=\"USD\",grade=\"B\"} 12000",
        "sluice_credit_limit{currency=\"USD\",grade=\"B\"} 100000",
        "sluice_credit_past_due{currency=\"USD\",days=\"1_to_30\"} 0",
        "sluice_credit_lines_by_stage{currency=\"USD\",stage=\"current\",grade=\"B\"} 1",
    ] {
        assert!(published(&life, 0).contains(line), "{line}: {}", published(&life, 0));
    }
    life.live(30..=DUE_DAY + 7).await?;
    life.servers[1].credit(at(DUE_DAY + 7)).await?;
    for line in [
        "sluice_credit_past_due{currency=\"USD\",days=\"1_to_30\"} 12000",
        "sluice_credit_lines_by_stage{currency=\"USD\",stage=\"watch\",grade=\"B\"} 1",
    ] {
        assert!(published(&life, 1).contains(line), "{line}: {}", published(&life, 1));
    }
    assert!(!published(&life, 1).contains("stage=\"current\""));
    Ok(())
}

/// Puts another limit in force.
async fn set_limit(lines: &LineRepository, limit: i64) -> Result<()> {
    let (maker, checker) = (ActorId::parse("ana")?, ActorId::parse("ben")?);
    let [made, checked] = [&maker, &checker].map(|actor| By { actor, reason: None });
    let patch = json!({"limit_base": limit}).as_object().cloned().unwrap_or_default();
    lines.update(made, &key()?, patch, None, OPENED_ON).await?;
    lines.approve(checked, &key()?, None).await?;
    lines.activate(checked, &key()?, None, &Bands::default(), OPENED_ON).await?;
    Ok(())
}

/// A promise to pay: its days are not counted, and nothing is sent on them.
#[tokio::test]
async fn a_pause_delays_the_notices() -> Result<()> {
    let mut life = Life::open().await?;
    life.live(30..=DUE_DAY).await?;
    let actor = ActorId::parse("ben")?;
    let by = By { actor: &actor, reason: None };
    PauseRepository::new(life.pool.clone())
        .accept(by, &key()?, day(DUE_DAY + 1), day(DUE_DAY + 10), "pays in two parts")
        .await?;
    life.live(DUE_DAY + 1..=DUE_DAY + 20).await?;
    let sent = [
        "-3 -3 reminder merchant",
        "0 0 reminder merchant",
        "1 11 reminder merchant+operators",
        "7 17 reminder merchant+operators",
    ];
    assert_eq!(life.notices().await?, sent);
    Ok(())
}

/// Nothing is swept for weeks: demands are sent all the same, and of the reminders the last one. A server that dies between a notice
/// and its alert has sent neither.
#[tokio::test]
async fn a_notice_and_its_alert_are_there_together() -> Result<()> {
    let mut life = Life::open().await?;
    life.sweep(30).await?;
    life.execute("ALTER TABLE quota_alert ADD CONSTRAINT broken CHECK (alert_level <> 'critical') NOT VALID").await?;
    let broken = life.servers[0].credit(at(DUE_DAY + 50)).await;
    assert!(broken.is_err(), "{broken:?}");
    assert_eq!((life.notices().await?, life.alerts().await?), (Vec::new(), Vec::new()));
    life.execute("ALTER TABLE quota_alert DROP CONSTRAINT broken").await?;
    assert_eq!(life.sweep(DUE_DAY + 50).await?.1, 2);
    assert_eq!(life.notices().await?, ["30 50 formal merchant+operators", "45 50 reminder merchant+operators"]);
    Ok(())
}

/// Messages go to those whom the step names: by webhook, to the merchant and the operators.
#[tokio::test]
async fn notices_reach_who_they_are_for() -> Result<()> {
    let mut life = Life::open().await?;
    let (merchant, operators) =
        (Receiver::start(|_, _| status(204)).await?, Receiver::start(|_, _| status(204)).await?);
    for (scope, receiver) in [(format!("merchant:{MERCHANT}"), &merchant), ("operators".to_owned(), &operators)] {
        let secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let settings = json!({
            "channels": [{"kind": "webhook", "id": "hook", "url": receiver.url(), "secrets": [secret]}],
            "routes": [{"types": ["credit_dunning"], "channels": ["hook"]}],
        });
        let statement = "INSERT INTO alert_settings (scope, document, updated_by) VALUES ($1, $2::text::jsonb, 'test')";
        sqlx::query(statement).bind(scope).bind(settings.to_string()).execute(&life.pool).await?;
    }
    life.live(30..=DUE_DAY + 1).await?;
    let env = [
        ("REDIS_URL", life.bench.redis.url()),
        ("DATABASE_URL", life.bench.postgres.url()),
        ("SLUICE_POLICY_FILE", "policies.yaml".to_owned()),
        ("SLUICE_ALERT_RATE_MESSAGES", "10".to_owned()),
        ("SLUICE_ALERT_ALLOW_NETWORKS", "127.0.0.1/32".to_owned()),
        ("SLUICE_ALERT_MERCHANT_NETWORKS", "127.0.0.1/32".to_owned()),
    ];
    let settings = Settings::load(env.into_iter().map(|(name, value)| (name.to_owned(), value)), None)?;
    let (stop, shutdown) = shutdown::channel();
    let config = notifier::Config::new(&settings, Live::fixed(&settings));
    let thread = notifier::spawn(config, &Arc::new(Metrics::new()), shutdown)?;
    let messages = |receiver: Vec<crate::receiver::Got>| {
        let mut messages: Vec<String> =
            receiver.iter().map(|got| got.json()["data"]["message"].as_str().unwrap_or_default().to_owned()).collect();
        messages.sort();
        messages
    };
    let overdue = "Statement 1 of m-1 (USD) was due on 2027-01-02; 1 day past due. To pay: 120.00 USD";
    let all = [
        "Statement 1 of m-1 (USD) is due on 2027-01-02, in 3 days. To pay: 120.00 USD",
        "Statement 1 of m-1 (USD) is due on 2027-01-02. To pay: 120.00 USD",
        overdue,
    ];
    assert_eq!(messages(merchant.wait(3).await?), all);
    assert_eq!(messages(operators.wait(1).await?), [overdue]);
    // The alerts that were replaced have no end of their own: only the payment is announced.
    life.repay(DUE_DAY + 1, AMOUNT).await?;
    life.sweep(DUE_DAY + 2).await?;
    let got = merchant.wait(4).await?;
    let last = got.last().map(|got| got.json()).unwrap_or_default();
    assert_eq!((&last["type"], &last["data"]["resolve_reason"]), (&"quota_alert.resolved".into(), &"paid".into()));
    assert_eq!((operators.wait(2).await?.len(), merchant.got().len()), (2, 4));
    stop.request();
    thread.join().map_err(|_| Failure::new("the notifier panicked"))
}
