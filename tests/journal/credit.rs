//! Credit lines: the entries of their books, and with them statements and allocations, follow from the events, whatever is stored
//! twice.

use jiff::civil::{Date, date};
use quota::{
    Action, ActorId, Adjust, AmountMinor, Change, Command, CounterName, CreditTerms, Currency, MerchantId, OnExpiry,
    Posting, PostingKind, Reply,
};
use sluice_credit::{Bands, Books, CycleRule, Grade, Obligation, Terms};
use sluice_kit::database::change::By;
use sluice_lines::{LineInput, LineKey, LineRecord, LineRepository};
use testkit::{Failure, Result};

use crate::alerts::{DAY_MS, Hand, MERCHANT};
use crate::bench::{AT_MS, Bench};
use crate::engine::{Engine, consume, hold, refund, settle};

const LIMIT: u64 = 1_000;

/// A store, a journal and an account with a credit line, which is opened on the day of `AT_MS`.
struct Ledger {
    bench: Bench,
    engine: Engine,
    hand: Hand,
    /// Day 0 is that of `AT_MS`.
    day: i64,
    cycle: u32,
}

impl Ledger {
    async fn open() -> Result<Self> {
        let bench = Bench::start()?;
        let engine = Engine { order_ttl_secs: 400 * 86_400, ..Engine::open(&bench)? };
        let hand = Hand::open(&bench).await?;
        let mut ledger = Self { bench, engine, hand, day: 0, cycle: 0 };
        ledger.cycle = ledger.today();
        let pool = ledger.bench.postgres.pool().await?;
        open_line(&LineRepository::new(pool.clone()), OPENED_ON).await?;
        pool.close().await;
        Ok(ledger)
    }

    fn now_ms(&self) -> i64 {
        AT_MS + self.day * DAY_MS
    }

    fn today(&self) -> u32 {
        quota::Calendar::UTC.windows_at(self.now_ms()).ids.day
    }

    /// So many days later; a cycle has thirty.
    fn days_later(&mut self, days: i64) {
        self.day += days;
        if self.day >= 30 && self.day - days < 30 {
            let first_ms = AT_MS + 30 * DAY_MS;
            self.cycle = quota::Calendar::UTC.windows_at(first_ms).ids.day;
        }
    }

    async fn grant(&self, number: &str, action: Action) -> Result<Reply> {
        let limit = AmountMinor::new(LIMIT).unwrap_or_default();
        let credit = Some(CreditTerms { cycle: self.cycle, limit, uncapped_limit: limit });
        let command = self.engine.command(MERCHANT, number, action, self.now_ms())?;
        let reply = self.engine.apply(&Command { credit, ..command }).await?;
        match reply.record.code.http_status() {
            200 => Ok(reply),
            _ => Err(Failure::new(format!("{number}: {}", reply.record.code.as_str()))),
        }
    }

    async fn post(&self, kind: PostingKind, number: &str, minor: u64) -> Result<Reply> {
        let amount = AmountMinor::new(minor).unwrap_or_default();
        self.grant(number, Action::Post(Posting { kind, amount })).await
    }

    /// Stores what happened since the last time, twice.
    async fn store(&mut self) -> Result<()> {
        let entries = self.hand.read().await?;
        self.hand.store(&entries).await?;
        self.hand.store(&entries).await
    }

    async fn texts(&self, sql: &'static str) -> Result<Vec<String>> {
        let pool = self.bench.postgres.pool().await?;
        let texts = sqlx::query_scalar(sql).fetch_all(&pool).await?;
        pool.close().await;
        Ok(texts)
    }

    /// The books that follow from the stored entries; none is left out.
    async fn books(&self) -> Result<Books> {
        let (books, left_out) = self.record().await.map(|record| (record.books().0, record.books().1.len()))?;
        assert_eq!(left_out, 0);
        Ok(books)
    }

    async fn record(&self) -> Result<LineRecord> {
        let pool = self.bench.postgres.pool().await?;
        let record = LineRepository::new(pool.clone()).record(&key()?).await?;
        pool.close().await;
        Ok(record)
    }

    /// Each statement: its number, amount, and what is paid, credited and written off.
    async fn statements(&self) -> Result<Vec<(u32, i64, i64, i64, i64)>> {
        let books = self.books().await?;
        let statement = |own: &Obligation| {
            (own.statement.number, own.statement.amount, own.paid(), own.credited(), own.written_off())
        };
        Ok(books.obligations().iter().map(statement).collect())
    }

    /// The store's exposure: held + unbilled + open statements − what no statement has taken.
    async fn check_exposure(&self) -> Result<()> {
        let books = self.books().await?;
        let account = self.engine.account(MERCHANT).await?;
        let credit = account.credit.ok_or_else(|| Failure::new("the account is on no credit line"))?;
        let used = account.pending.cast_signed() + credit.unbilled.cast_signed();
        assert_eq!(credit.exposure, used + books.billed() - books.unapplied());
        Ok(())
    }
}

/// The day of `AT_MS`.
const OPENED_ON: Date = date(2026, 11, 20);

/// Cycles of thirty days; the line is opened on the day of `AT_MS`.
fn terms() -> Terms {
    Terms { cycle: CycleRule::EveryDays { days: 30 }, ..Terms::default() }
}

fn key() -> Result<LineKey> {
    Ok((MerchantId::parse(MERCHANT)?, Currency::parse("USD")?))
}

/// A line that one person drafts, and another one approves and activates.
async fn open_line(lines: &LineRepository, on: Date) -> Result<()> {
    let (maker, checker) = (ActorId::parse("ana")?, ActorId::parse("ben")?);
    let [made, checked] = [&maker, &checker].map(|actor| By { actor, reason: None });
    let input = LineInput {
        merchant_id: MERCHANT.to_owned(),
        currency: "USD".to_owned(),
        limit_base: i64::try_from(LIMIT)?,
        grade: Grade::B,
        terms: terms(),
        override_limit: None,
        override_until: None,
        taken_over_from: None,
        expires_on: None,
        metadata: None,
        remarks: None,
    };
    lines.create(made, &input, on).await?;
    lines.approve(checked, &key()?, None).await?;
    lines.activate(checked, &key()?, None, &Bands::default(), on).await?;
    Ok(())
}

/// A cycle closes into a statement; late refunds and repayments settle it, the rest waits for the next one.
#[tokio::test]
async fn q4_statements_follow_from_events() -> Result<()> {
    let mut ledger = Ledger::open().await?;
    ledger.grant("o-1", consume(600)).await?;
    ledger.grant("o-2", hold(200, 3_600_000, OnExpiry::Void)).await?;
    ledger.grant("o-2", settle(150, "c-1", true)).await?;
    ledger.grant("o-3", hold(50, 3_600_000, OnExpiry::Void)).await?;
    ledger.grant("o-1", Action::Refund(refund(100, "r-1"))).await?;
    ledger.store().await?;
    assert_eq!(ledger.statements().await?, []);
    ledger.check_exposure().await?;

    ledger.days_later(31);
    ledger.grant("", Action::Roll).await?;
    ledger.grant("", Action::Roll).await?;
    ledger.store().await?;
    assert_eq!(ledger.statements().await?, [(1, 650, 0, 0, 0)]);
    ledger.check_exposure().await?;

    // A refund of what is billed, a capture of the new cycle, and repayments.
    ledger.grant("o-1", Action::Refund(refund(30, "r-2"))).await?;
    ledger.grant("o-3", settle(50, "c-2", true)).await?;
    ledger.post(PostingKind::Repayment, "p-1", 200).await?;
    assert!(ledger.post(PostingKind::Repayment, "p-1", 200).await?.record.replay);
    ledger.store().await?;
    assert_eq!(ledger.statements().await?, [(1, 650, 230, 30, 0)]);
    ledger.check_exposure().await?;

    ledger.days_later(1);
    ledger.post(PostingKind::Repayment, "p-2", 500).await?;
    ledger.store().await?;
    assert_eq!(ledger.statements().await?, [(1, 650, 650, 30, 0)]);
    ledger.check_exposure().await?;

    // The first repayment bounces: what it paid is open again, and the balance fills a part of it.
    ledger.post(PostingKind::Reversal, "p-1", 200).await?;
    ledger.post(PostingKind::WriteOff, "w-1", 120).await?;
    ledger.store().await?;
    assert_eq!(ledger.statements().await?, [(1, 650, 530, 30, 120)]);
    ledger.check_exposure().await?;

    // More than is open waits for the next statement.
    ledger.post(PostingKind::WriteOff, "w-2", 90).await?;
    ledger.store().await?;
    assert_eq!((ledger.statements().await?, ledger.books().await?.unapplied()), (vec![(1, 650, 530, 30, 120)], 90));
    ledger.check_exposure().await
}

/// What an operator corrects by hand, and the end of a hold after it, is no credit: nothing billed is given back.
#[tokio::test]
async fn the_end_of_a_hold_is_no_credit() -> Result<()> {
    let mut ledger = Ledger::open().await?;
    ledger.grant("o-1", hold(100, 3_600_000, OnExpiry::Void)).await?;
    let none = Adjust { counter: CounterName::Pending, change: Change::Set(AmountMinor::ZERO), expected_version: None };
    ledger.grant("", Action::Adjust(none)).await?;
    ledger.days_later(31);
    ledger.grant("o-1", Action::Void).await?;
    ledger.grant("o-2", consume(70)).await?;
    ledger.grant("o-2", Action::VoidAttempt).await?;
    ledger.store().await?;
    let entries = ledger.texts("SELECT concat_ws(' ', kind, amount) FROM credit_entry ORDER BY entry_id").await?;
    assert_eq!(entries, ["cycle_closed 0"]);
    Ok(())
}

/// An account without a line has no entries, and its rows of the usage log no exposure.
#[tokio::test]
async fn accounts_without_a_line_have_no_entries() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, mut hand) = (Engine::open(&bench)?, Hand::open(&bench).await?);
    engine.grant(MERCHANT, "o-1", consume(60), AT_MS).await?;
    engine.grant(MERCHANT, "o-1", Action::Refund(refund(10, "r-1")), AT_MS).await?;
    hand.drain().await?;
    assert_eq!(bench.count("SELECT count(*) FROM credit_entry").await?, 0);
    let without = "SELECT count(*) FROM usage_log WHERE exposure_after IS NULL AND credit_cycle IS NULL";
    assert_eq!(bench.count(without).await?, 2);
    Ok(())
}
