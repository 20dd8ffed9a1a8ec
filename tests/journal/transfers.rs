//! Transfers whose caller died between two steps: any server takes them to their end, and each step happens once.

use std::sync::Arc;
use std::time::Duration;

use quota::{Action, AmountMinor, Command, CreditTerms, MerchantId, Posting, PostingKind};
use sluice_kit::clock;
use sluice_kit::metrics::Metrics;
use sluice_lines::{Follower, LineKey};
use sluice_settings::Secret;
use sqlx::PgPool;
use testkit::{Failure, Result};

use crate::alerts::Hand;
use crate::bench::Bench;
use crate::engine::{Engine, consume, usd};
use crate::sweeps::Sweeper;

const POLICIES: &str = "version: \"1\"\ndefault: {timezone: UTC, daily_amount: 1000000000}\n";
const AMOUNT: u64 = 300;
const KNOWN_WITHIN: Duration = Duration::from_secs(10);
const FROM: &str = "m-from";
const TO: &str = "m-to";

/// A transfer as its caller left it, and what becomes of it.
struct Case {
    number: &'static str,
    /// The row, and a posting that was made before the row could say so.
    state: &'static str,
    posted: &'static [(&'static str, PostingKind)],
    from: &'static str,
    to: &'static str,
    /// Its last state and code, and by how much the exposure of either side changes.
    expected: &'static str,
    changes: (i64, i64),
}

const CASES: [Case; 7] = [
    Case {
        number: "t-1",
        state: "requested",
        posted: &[],
        from: FROM,
        to: TO,
        expected: "completed ",
        changes: (300, -300),
    },
    Case {
        number: "t-2",
        state: "requested",
        posted: &[(FROM, PostingKind::TransferOut)],
        from: FROM,
        to: TO,
        expected: "completed ",
        changes: (300, -300),
    },
    Case {
        number: "t-3",
        state: "reserved",
        posted: &[(FROM, PostingKind::TransferOut)],
        from: FROM,
        to: TO,
        expected: "completed ",
        changes: (300, -300),
    },
    Case {
        number: "t-4",
        state: "reserved",
        posted: &[(FROM, PostingKind::TransferOut), (TO, PostingKind::TransferIn)],
        from: FROM,
        to: TO,
        expected: "completed ",
        changes: (300, -300),
    },
    Case {
        number: "t-5",
        state: "requested",
        posted: &[],
        from: "m-poor",
        to: TO,
        expected: "refused CREDIT_EXHAUSTED",
        changes: (0, 0),
    },
    // The receiver has no line.
    Case {
        number: "t-6",
        state: "requested",
        posted: &[],
        from: FROM,
        to: "m-none",
        expected: "returned CREDIT_UNKNOWN",
        changes: (0, 0),
    },
    Case {
        number: "t-7",
        state: "returning",
        posted: &[(FROM, PostingKind::TransferOut), (FROM, PostingKind::TransferIn)],
        from: FROM,
        to: "m-none",
        expected: "returned CREDIT_UNKNOWN",
        changes: (0, 0),
    },
];

/// A sender that no policy names.
const POLICIES_OF_RECEIVER: &str = "version: \"1\"\nmerchants:\n  m-to: {timezone: UTC, daily_amount: 1000000000}\n";

const CASES_WITHOUT_POLICY: [Case; 4] = [
    Case {
        number: "p-1",
        state: "requested",
        posted: &[],
        from: FROM,
        to: TO,
        expected: "requested ",
        changes: (0, 0),
    },
    // It was taken from the sender while there was a policy.
    Case {
        number: "p-2",
        state: "requested",
        posted: &[(FROM, PostingKind::TransferOut)],
        from: FROM,
        to: TO,
        expected: "requested ",
        changes: (300, 0),
    },
    Case {
        number: "p-3",
        state: "reserved",
        posted: &[(FROM, PostingKind::TransferOut)],
        from: FROM,
        to: TO,
        expected: "completed ",
        changes: (300, -300),
    },
    Case {
        number: "p-4",
        state: "returning",
        posted: &[(FROM, PostingKind::TransferOut)],
        from: FROM,
        to: "m-none",
        expected: "returned CREDIT_UNKNOWN",
        changes: (0, 0),
    },
];

async fn exposures(engine: &Engine) -> Result<(i64, i64)> {
    let exposure = |account: quota::Account| account.credit.unwrap_or_default().exposure;
    Ok((exposure(engine.account(FROM).await?), exposure(engine.account(TO).await?)))
}

/// Lines of sender and receiver, which servers know, and what both have used of them.
async fn opened(engine: &Engine, pool: &PgPool, now_ms: i64) -> Result<Vec<LineKey>> {
    let limit = AmountMinor::new(1_000_000).unwrap_or_default();
    let line = "INSERT INTO credit_line (merchant_id, currency, limit_base, terms, state, opened_on, activated_on, created_by, \
            edited_by, approved_by, approved_at) \
        VALUES ($1, 'USD', $2, '{}', 'active', current_date, current_date, 'ana', ARRAY['ana'], 'ben', now())";
    for (merchant, limit_base) in [(FROM, 1_000_000), (TO, 1_000_000), ("m-poor", 299)] {
        sqlx::query(line).bind(merchant).bind(limit_base).execute(pool).await?;
    }
    for merchant in [FROM, TO] {
        let command = engine.command(merchant, "charge", consume(1_000), now_ms)?;
        let credit = Some(CreditTerms { cycle: 20_261_101, limit, uncapped_limit: limit });
        engine.apply(&Command { credit, ..command }).await?;
    }
    engine.grant("m-none", "charge", consume(1), now_ms).await?;
    let keys = [FROM, TO, "m-poor"].map(|merchant| MerchantId::parse(merchant).map(|id| (id, usd())));
    let keys = keys.into_iter().map(|key| key.map_err(Failure::from).and_then(|(id, usd)| Ok((id, usd?))));
    keys.collect()
}

/// A server that knows the lines.
async fn server(bench: &Bench, keys: &[LineKey], policies: &str) -> Result<Sweeper> {
    let url = Secret::new(bench.postgres.url());
    let (lines, follower) = Follower::open(&url, &Arc::new(Metrics::new()))?;
    follower.first_reading_of(keys, KNOWN_WITHIN).await;
    Sweeper::open_with(bench, policies, lines)
}

/// The row as its caller left it so many seconds ago, and what was posted before the row could say so.
async fn left(case: &Case, engine: &Engine, pool: &PgPool, secs: i32) -> Result<()> {
    let row = "INSERT INTO credit_transfer (transfer_no, from_merchant_id, to_merchant_id, currency, amount, state, code, \
            requested_by, operator_type, updated_at) \
        VALUES ($1, $2, $3, 'USD', 300, $4, CASE $4 WHEN 'returning' THEN 'CREDIT_UNKNOWN' END, 'ana', 'admin', \
            now() - $5 * interval '1 second')";
    let query = sqlx::query(row).bind(case.number).bind(case.from).bind(case.to).bind(case.state).bind(secs);
    query.execute(pool).await?;
    for (merchant, kind) in case.posted {
        let posting = Posting { kind: *kind, amount: AmountMinor::new(AMOUNT).unwrap_or_default() };
        engine.grant(merchant, case.number, Action::Post(posting), clock::now_ms()).await?;
    }
    Ok(())
}

/// State and code of a transfer.
async fn state(pool: &PgPool, number: &str) -> Result<String> {
    let row = "SELECT concat(state, ' ', code) FROM credit_transfer WHERE transfer_no = $1";
    Ok(sqlx::query_scalar(row).bind(number).fetch_one(pool).await?)
}

#[tokio::test]
async fn a_transfer_that_was_left_half_way_is_ended_once() -> Result<()> {
    let bench = Bench::start()?;
    let (engine, mut hand) = (Engine::open(&bench)?, Hand::open(&bench).await?);
    let pool = bench.postgres.pool().await?;
    // The sweeps go by the time of the day.
    let now_ms = clock::now_ms();
    let keys = opened(&engine, &pool, now_ms).await?;
    let servers = [server(&bench, &keys, POLICIES).await?, server(&bench, &keys, POLICIES).await?];
    // A sender that the server does not know keeps its transfer for later.
    let unknown = Sweeper::open(&bench, POLICIES)?;
    for case in CASES {
        let before = exposures(&engine).await?;
        left(&case, &engine, &pool, 0).await?;
        if case.state == "requested" {
            assert_eq!(unknown.transfers().await?, 0, "{}", case.number);
        }
        let (first, second) = tokio::join!(servers[0].transfers(), servers[1].transfers());
        assert!(first? + second? >= 1, "{}", case.number);
        assert_eq!(servers[0].transfers().await?, 0, "{}", case.number);
        let ended = state(&pool, case.number).await?;
        let after = exposures(&engine).await?;
        let changes = (after.0 - before.0, after.1 - before.1);
        assert_eq!((ended.as_str(), changes), (case.expected, case.changes), "{}", case.number);
    }
    // Every step that was made is in the books of its account, once.
    let entries = "SELECT string_agg(concat_ws(' ', posting_no, kind, merchant_id), ', ' ORDER BY posting_no, kind DESC) \
        FROM credit_entry WHERE kind LIKE 'transfer%'";
    let both = |number: &str| format!("{number} transfer_out m-from, {number} transfer_in m-to");
    let back = |number: &str| format!("{number} transfer_out m-from, {number} transfer_in m-from");
    let expected = ["t-1", "t-2", "t-3", "t-4"]
        .map(both)
        .into_iter()
        .chain(["t-6", "t-7"].map(back))
        .collect::<Vec<_>>()
        .join(", ");
    hand.drain().await?;
    let stored: Option<String> = sqlx::query_scalar(entries).fetch_one(&pool).await?;
    assert_eq!(stored, Some(expected));
    Ok(())
}

/// A transfer whose sender no policy names any more: without a calendar its line cannot be read. It may have been taken from the
/// sender already, so it waits for a policy, however long; what was reserved goes on.
#[tokio::test]
async fn a_transfer_waits_while_its_sender_has_no_policy() -> Result<()> {
    let bench = Bench::start()?;
    // It makes the tables.
    let (engine, _hand) = (Engine::open(&bench)?, Hand::open(&bench).await?);
    let pool = bench.postgres.pool().await?;
    let keys = opened(&engine, &pool, clock::now_ms()).await?;
    let without = server(&bench, &keys, POLICIES_OF_RECEIVER).await?;
    for case in CASES_WITHOUT_POLICY {
        let before = exposures(&engine).await?;
        left(&case, &engine, &pool, 86_400).await?;
        without.transfers().await?;
        let after = exposures(&engine).await?;
        let changes = (after.0 - before.0, after.1 - before.1);
        let ended = state(&pool, case.number).await?;
        assert_eq!((ended.as_str(), changes), (case.expected, case.changes), "{}", case.number);
    }
    let before = exposures(&engine).await?;
    assert_eq!(server(&bench, &keys, POLICIES).await?.transfers().await?, 2);
    let after = exposures(&engine).await?;
    // What was taken before is not taken again.
    assert_eq!((after.0 - before.0, after.1 - before.1), (300, -600));
    for number in ["p-1", "p-2"] {
        assert_eq!(state(&pool, number).await?, "completed ", "{number}");
    }
    Ok(())
}
