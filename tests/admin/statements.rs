//! Statements of credit lines for the finance department: pages of all lines, and the same as CSV.

use serde_json::{Value, json};
use testkit::api::secret;
use testkit::client::{Answer, Call};
use testkit::{Failure, Result};

use crate::bench::{Bench, ask, token};
use crate::keys::{Signer, claims, with};

/// Statements of each account: together more than an export reads at a time.
const EACH: usize = 220;
/// The accounts, in their order.
const ACCOUNTS: [&str; 3] = ["=1+1", "m-1", "m-2"];

/// A statement of `number` minor units for every 28 days since 2000.
const STATEMENTS: &str = "INSERT INTO credit_statement SELECT $1, 'USD', number, to_char(first_day, 'YYYYMMDD')::int, first_day, \
    first_day + 27, first_day + 41, number, number, gen_random_uuid() \
    FROM (SELECT number, '2000-01-01'::date + 28 * number AS first_day FROM generate_series(1, $2) AS number) AS cycles";
const CLOSES: &str = "INSERT INTO credit_entry (event_id, kind, merchant_id, currency, shard, seq, at, business_day, cycle, amount) \
    SELECT event_id, 'cycle_closed', merchant_id, currency, $2, number, closed_on, to_char(closed_on + 1, 'YYYYMMDD')::int, \
    cycle, amount FROM credit_statement WHERE merchant_id = $1 ORDER BY number";

async fn make(bench: &Bench) -> Result<()> {
    let pool = bench.pool().await?;
    for (shard, merchant) in (0_i32..).zip(ACCOUNTS) {
        sqlx::query(STATEMENTS).bind(merchant).bind(i32::try_from(EACH)?).execute(&pool).await?;
        sqlx::query(CLOSES).bind(merchant).bind(shard).execute(&pool).await?;
    }
    pool.close().await;
    Ok(())
}

/// A row of the file by the names of its columns.
fn rows(answer: &Answer) -> Result<Vec<Vec<(String, String)>>> {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/csv")));
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"statements.csv\""));
    let mut file = csv::Reader::from_reader(answer.body.as_ref());
    let names = file.headers()?.clone();
    let named = |row: csv::StringRecord| {
        names.iter().zip(row.iter()).map(|(name, cell)| (name.to_owned(), cell.to_owned())).collect()
    };
    Ok(file.records().collect::<std::result::Result<Vec<_>, _>>()?.into_iter().map(named).collect())
}

/// The row that a statement in JSON is.
fn row_of(item: &Value) -> Vec<(String, String)> {
    let statement = &item["statement"];
    let cell = |name: &str| match if statement[name].is_null() { &item[name] } else { &statement[name] } {
        Value::String(text) if name == "merchant_id" && text.starts_with('=') => format!("'{text}"),
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        number => number.to_string(),
    };
    let columns = "merchant_id currency number first_day closed_on due_on status amount minimum paid credited written_off open \
        days_past_due paid_in_full_on";
    columns.split_whitespace().map(|name| (name.to_owned(), cell(name))).collect()
}

#[tokio::test]
async fn pages_and_the_file_have_every_statement() -> Result<()> {
    let bench = Bench::start()?;
    make(&bench).await?;
    let operator = token("operator")?;
    let file = rows(&bench.get("/api/v1/credit/statements?format=csv", &operator).await?)?;
    assert_eq!(file.len(), EACH * ACCOUNTS.len());
    let (base, mut items) = ("/api/v1/credit/statements?limit=200", Vec::new());
    let mut path = base.to_owned();
    loop {
        let page = bench.get(&path, &operator).await?.json();
        items.extend(page["items"].as_array().cloned().unwrap_or_default());
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        path = format!("{base}&cursor={cursor}");
    }
    assert_eq!(items.iter().map(row_of).collect::<Vec<_>>(), file);
    // A spreadsheet takes the first merchant's name for text.
    let first = &file[0];
    let expected = [
        ("merchant_id", "'=1+1"),
        ("currency", "USD"),
        ("number", "1"),
        ("first_day", "2000-01-29"),
        ("closed_on", "2000-02-25"),
        ("due_on", "2000-03-10"),
        ("status", "past_due"),
        ("amount", "1"),
        ("minimum", "1"),
        ("paid", "0"),
        ("credited", "0"),
        ("written_off", "0"),
        ("open", "1"),
    ];
    assert!(
        expected.iter().zip(first).all(|((name, cell), found)| (*name, *cell) == (&found.0, &found.1)),
        "{first:?}"
    );
    let days = |row: &[(String, String)]| row[13].1.parse::<i64>();
    assert_eq!(days(first)? - days(&file[1])?, 28);
    assert!(days(first)? > 9_000, "{first:?}");
    Ok(())
}

#[tokio::test]
async fn statements_are_found_by_account_and_day() -> Result<()> {
    let bench = Bench::start()?;
    make(&bench).await?;
    let operator = token("operator")?;
    let shop = Signer::secret(secret()).sign(&with(claims("merchant"), json!({"merchant_id": "m-1"})))?;
    for (query, token, expected) in [
        ("merchant_id=m-2", &operator, EACH),
        ("merchant_id=m-2&currency=EUR", &operator, 0),
        ("from=2000-02-25&to=2000-03-24", &operator, 2 * ACCOUNTS.len()),
        ("from=2000-02-26&to=2000-03-23", &operator, 0),
        ("to=2000-02-25", &operator, ACCOUNTS.len()),
        ("", &shop, EACH),
        ("from=2000-02-25&to=2000-02-25", &shop, 1),
    ] {
        let file = rows(&bench.get(&format!("/api/v1/credit/statements?format=csv&{query}"), token).await?)?;
        assert_eq!(file.len(), expected, "{query}");
        let page = bench.get(&format!("/api/v1/credit/statements?limit=200&{query}"), token).await?.json();
        assert_eq!(page["items"].as_array().map(Vec::len), Some(expected.min(200)), "{query}: {page}");
    }
    for (path, status, field) in [
        ("/api/v1/credit/statements?format=csv&limit=5", 400, "limit"),
        ("/api/v1/credit/statements?format=xml", 400, "format"),
        ("/api/v1/credit/statements?from=2026-02-30", 400, "from"),
        ("/api/v1/credit/statements?from=2026-02-02&to=2026-02-01", 400, "from"),
        ("/api/v1/credit/statements?currency=usd", 400, "currency"),
        ("/api/v1/credit/statements?cursor=bm8", 400, "cursor"),
        ("/api/v1/credit-lines/m-1/USD/statements?format=csv", 404, ""),
    ] {
        let answer = bench.get(path, &operator).await?;
        assert_eq!((answer.status, crate::bench::field(&answer, "/field").as_str()), (status, field), "{path}");
    }
    let other = bench.get("/api/v1/credit/statements?merchant_id=m-2", &shop).await?;
    assert_eq!((other.status, other.code().as_str()), (403, "FORBIDDEN"));
    Ok(())
}

/// One line as a file: what all lines have of it.
#[tokio::test]
async fn a_line_is_exported_alone() -> Result<()> {
    let bench = Bench::start()?;
    make(&bench).await?;
    let (operator, admin) = (token("operator")?, token("admin")?);
    let line = json!({"line": {"merchant_id": "m-1", "currency": "USD", "limit_base": 1_000}});
    assert_eq!(bench.post("/api/v1/credit-lines", &operator, &line).await?.status, 201);
    for step in ["approve", "activate"] {
        let path = format!("/api/v1/credit-lines/m-1/USD/{step}");
        assert_eq!(bench.post(&path, &admin, &json!({})).await?.status, 200, "{step}");
    }
    let expected = rows(&bench.get("/api/v1/credit/statements?format=csv&merchant_id=m-1", &operator).await?)?;
    let by_header = Call::new("GET", "/api/v1/credit-lines/m-1/USD/statements").header("accept", "text/csv");
    let by_query = Call::new("GET", "/api/v1/credit-lines/m-1/USD/statements?format=csv");
    for call in [by_header, by_query] {
        assert_eq!(rows(&ask(&bench.server, call, &operator).await?)?, expected);
    }
    assert_eq!(expected.len(), EACH);
    for name in ["limit=5", "cursor=MQ"] {
        let answer =
            bench.get(&format!("/api/v1/credit-lines/m-1/USD/statements?format=csv&{name}"), &operator).await?;
        let field = name.split('=').next().ok_or_else(|| Failure::new(name))?;
        assert_eq!((answer.status, crate::bench::field(&answer, "/field").as_str()), (400, field));
    }
    Ok(())
}
