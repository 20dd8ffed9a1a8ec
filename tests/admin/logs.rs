//! The usage log through the API: real payments, filters, pages, totals and the export.

use serde_json::{Value, json};
use testkit::api::secret;
use testkit::client::{Answer, Call, Payment, Protocol};
use testkit::stack::{Stack, StackOptions};
use testkit::{Failure, Result, wait};

use crate::bench::{Bench, WITHIN, ask, field, token};
use crate::keys::{Signer, claims, with};

/// Rows made by hand, beside those of the server: orders `made-1` to `made-<n>` of merchant `m-made`, a second apart, two of
/// them at each time. Every fourth is refused; every fifth is in EUR.
const MAKE_ROWS: &str = "INSERT INTO usage_log (event_id, at, shard, seq, action_type, code, success, replay, mode, merchant_id, \
    currency, amount, order_no, operator_id, operator_type, remarks, metadata, daily_window, daily_used_before, \
    daily_used_after, daily_count_before, daily_count_after, monthly_window, monthly_used_before, monthly_used_after, \
    monthly_count_before, monthly_count_after, yearly_window, yearly_used_before, yearly_used_after, yearly_count_before, \
    yearly_count_after, account_version) \
    SELECT gen_random_uuid(), date_trunc('second', now()) - (n / 2) * interval '1 second', 9, n, 'consume', \
    CASE WHEN n % 4 = 0 THEN 'DAILY_AMOUNT' ELSE 'ADMITTED' END, n % 4 <> 0, false, 'enforce', 'm-made', \
    CASE WHEN n % 5 = 0 THEN 'EUR' ELSE 'USD' END, n, 'made-' || n, 'proxy', 'system', \
    CASE n WHEN 1 THEN '=1+1' WHEN 2 THEN 'a \"quoted\", and a\nline' END, CASE n WHEN 3 THEN '{\"a\": 1}'::jsonb END, \
    20261120, 0, n, 0, 1, 202611, 0, n, 0, 1, 2026, 0, n, 0, 1, n \
    FROM generate_series(1, $1) AS n";

async fn make_rows(bench: &Bench, rows: i32) -> Result<()> {
    let pool = bench.pool().await?;
    // The journal makes this month's partition and the next one; rows may reach into the month before.
    sqlx::query("CREATE TABLE usage_log_made PARTITION OF usage_log DEFAULT").execute(&pool).await?;
    sqlx::query(MAKE_ROWS).bind(rows).execute(&pool).await?;
    pool.close().await;
    Ok(())
}

fn items(answer: &Answer) -> Vec<Value> {
    answer.json().get("items").and_then(Value::as_array).cloned().unwrap_or_default()
}

fn texts(items: &[Value], name: &str) -> Vec<String> {
    items.iter().filter_map(|item| item.get(name)?.as_str().map(str::to_owned)).collect()
}

/// Payments through Envoy, then their rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_are_found_by_merchant_and_order() -> Result<()> {
    let options =
        StackOptions { server_env: [("JWT_SECRET".to_owned(), secret().to_owned())].into(), ..StackOptions::default() };
    let stack = Stack::start(&options)?;
    let statuses =
        [("paid", 700_u64), ("paid", 700), ("small", 1)].map(|(order, amount)| (format!("o/{order}"), amount));
    let mut client = stack.client(Protocol::Http1).await?;
    for (order, amount) in &statuses {
        client.send(Payment::new("m-1", order, *amount).call()).await?;
    }
    let operator = token("operator")?;
    let get = |path: &'static str, token: String| {
        let server = &stack.server;
        async move { ask(server, Call::new("GET", path), &token).await }
    };
    let rows = wait::until_async("the rows", WITHIN, || async {
        let answer = get("/api/v1/usage-logs/merchant/m-1", operator.clone()).await?;
        Ok(Some(items(&answer)).filter(|items| items.len() == 3))
    })
    .await?;
    let newest = rows.first().ok_or_else(|| Failure::new("no row"))?;
    for (name, value) in [
        ("merchant_id", json!("m-1")),
        ("currency", json!("USD")),
        ("operator_type", json!("system")),
        ("action_type", json!("consume")),
    ] {
        assert_eq!(newest[name], value, "{newest}");
    }
    assert_eq!(rows[2]["daily_before"], 0);
    assert_eq!(rows[2]["daily_after"], 700);
    assert_eq!(
        (&rows[1]["replay"], &rows[1]["daily_after"], &rows[1]["success"]),
        (&json!(true), &json!(700), &json!(true))
    );

    let order = get("/api/v1/usage-logs/order/o%2Fpaid", operator.clone()).await?;
    assert_eq!(texts(&items(&order), "order_no"), ["o/paid", "o/paid"]);
    // Another merchant does not see it, even with the order's number.
    let other = Signer::secret(secret()).sign(&with(claims("merchant"), json!({"merchant_id": "m-2"})))?;
    let order = get("/api/v1/usage-logs/order/o%2Fpaid", other).await?;
    assert_eq!((order.status, items(&order).len()), (200, 0));

    let stats = get("/api/v1/usage-logs/stats?merchant_id=m-1", operator).await?;
    assert_eq!(field(&stats, "/total"), "3", "{}", stats.json());
    let admitted =
        stats.json()["items"].as_array().into_iter().flatten().find(|item| item["code"] == "ADMITTED").cloned();
    let admitted = admitted.ok_or_else(|| Failure::new(format!("{}", stats.json())))?;
    assert_eq!((&admitted["replays"], &admitted["currency"]), (&json!(1), &json!("USD")), "{admitted}");
    Ok(())
}

#[tokio::test]
async fn rows_are_filtered() -> Result<()> {
    let bench = Bench::start()?;
    make_rows(&bench, 40).await?;
    let operator = token("operator")?;
    let all = bench.get("/api/v1/usage-logs/merchant/m-made?limit=200", &operator).await?;
    let at = texts(&items(&all), "at");
    assert_eq!(at.len(), 40, "{}", all.json());
    let (newest, oldest) = (at[0].clone(), at[39].clone());
    let table = [
        ("code=DAILY_AMOUNT".to_owned(), 10),
        ("success=false".to_owned(), 10),
        ("success=true&currency=EUR".to_owned(), 6),
        ("currency=EUR".to_owned(), 8),
        ("action=consume".to_owned(), 40),
        ("action=refund".to_owned(), 0),
        ("order_no=made-7".to_owned(), 1),
        (format!("from={newest}"), 1),
        (format!("to={newest}"), 39),
        (format!("to={oldest}"), 0),
        (format!("from={oldest}&to={newest}"), 39),
    ];
    for (query, expected) in table {
        let answer = bench.get(&format!("/api/v1/usage-logs/merchant/m-made?limit=200&{query}"), &operator).await?;
        assert_eq!(items(&answer).len(), expected, "{query}: {}", answer.json());
    }
    let metadata = items(&bench.get("/api/v1/usage-logs/order/made-3", &operator).await?);
    assert_eq!(metadata[0]["metadata"], json!({"a": 1}));

    let stats = bench.get("/api/v1/usage-logs/stats", &operator).await?;
    let (total, succeeded, failed) = (field(&stats, "/total"), field(&stats, "/succeeded"), field(&stats, "/failed"));
    assert_eq!([total, succeeded, failed], ["40", "30", "10"]);
    let amount: i64 = items(&stats).iter().filter_map(|item| item["amount"].as_i64()).sum();
    assert_eq!(amount, (1..=40).sum::<i64>());
    Ok(())
}

/// Every row comes once, in order, whatever the size of a page, and also where several have one time.
#[tokio::test]
async fn pages_follow_each_other() -> Result<()> {
    let bench = Bench::start()?;
    make_rows(&bench, 41).await?;
    let operator = token("operator")?;
    let whole = items(&bench.get("/api/v1/usage-logs/merchant/m-made?limit=200", &operator).await?);
    for limit in [1, 7, 40, 41, 42] {
        let base = format!("/api/v1/usage-logs/merchant/m-made?limit={limit}");
        let (mut seen, mut path) = (Vec::new(), base.clone());
        loop {
            let page = bench.get(&path, &operator).await?;
            let rows = items(&page);
            assert!(rows.len() <= limit && !rows.is_empty(), "{limit}: {}", page.json());
            seen.extend(rows);
            match page.json().get("next_cursor").and_then(Value::as_str) {
                Some(cursor) => path = format!("{base}&cursor={cursor}"),
                None => break,
            }
        }
        assert_eq!(seen, whole, "limit {limit}");
    }
    Ok(())
}

/// More rows than one reading has, as a file that a spreadsheet can open without running anything.
#[tokio::test]
async fn an_export_has_every_row() -> Result<()> {
    let bench = Bench::start()?;
    make_rows(&bench, 1_203).await?;
    let operator = token("operator")?;
    let by_header = Call::new("GET", "/api/v1/usage-logs/merchant/m-made").header("accept", "text/csv");
    let by_query = Call::new("GET", "/api/v1/usage-logs/merchant/m-made?format=csv");
    for call in [by_header, by_query] {
        let answer = ask(&bench.server, call, &operator).await?;
        assert_eq!(answer.status, 200);
        assert!(answer.header("content-type").is_some_and(|kind| kind.starts_with("text/csv")));
        assert!(answer.header("content-disposition").is_some_and(|value| value.starts_with("attachment")));
        let mut file = csv::Reader::from_reader(answer.body.as_ref());
        let names = file.headers()?.clone();
        let column = |name: &str| names.iter().position(|found| found == name).ok_or_else(|| Failure::new(name));
        let rows = file.records().collect::<std::result::Result<Vec<_>, _>>()?;
        let (order, remarks, metadata) = (column("order_no")?, column("remarks")?, column("metadata")?);
        assert_eq!(rows.len(), 1_203);
        let find = |no: &str| rows.iter().find(|row| &row[order] == no).ok_or_else(|| Failure::new(no));
        assert_eq!(&find("made-1")?[remarks], "'=1+1");
        assert_eq!(&find("made-2")?[remarks], "a \"quoted\", and a\nline");
        assert_eq!(&find("made-3")?[metadata], "{\"a\": 1}");
        assert_eq!(&find("made-1203")?[column("amount")?], "1203");
    }
    let filtered = Call::new("GET", "/api/v1/usage-logs/merchant/m-made?format=csv&success=false");
    let answer = ask(&bench.server, filtered, &operator).await?;
    assert_eq!(csv::Reader::from_reader(answer.body.as_ref()).records().count(), 300);
    // An export of nothing is a file with a head.
    let empty =
        ask(&bench.server, Call::new("GET", "/api/v1/usage-logs/merchant/m-none?format=csv"), &operator).await?;
    assert_eq!(csv::Reader::from_reader(empty.body.as_ref()).records().count(), 0);
    assert!(String::from_utf8_lossy(&empty.body).starts_with("event_id,at,merchant_id,"));
    Ok(())
}

/// X11: a client that does not read holds up its own next exports, and no other client's; when it leaves, there is room
/// again.
#[tokio::test]
async fn x11_a_slow_reader_holds_up_its_own_exports_only() -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let bench = Bench::start()?;
    // Far more than the sockets' buffers hold.
    make_rows(&bench, 60_000).await?;
    let operator = token("operator")?;
    let path = "/api/v1/usage-logs/merchant/m-made?format=csv";
    // Reads no more than that it is taken.
    let begin = async |token: &str| -> Result<tokio::net::TcpStream> {
        let mut stream = tokio::net::TcpStream::connect(bench.server.admin_address()).await?;
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        let mut start = [0; 15];
        stream.read_exact(&mut start).await?;
        assert_eq!(&start, b"HTTP/1.1 200 OK");
        Ok(stream)
    };
    let mut readers = Vec::new();
    for _ in 0..4 {
        readers.push(begin(&operator).await?);
    }
    let answer = bench.get(path, &operator).await?;
    assert_eq!((answer.status, answer.code().as_str()), (429, "RATE_LIMITED"), "{}", answer.json());
    assert!(answer.header("retry-after").is_some());
    let other = Signer::secret(secret()).sign(&with(claims("operator"), json!({"sub": "another-operator"})))?;
    drop(begin(&other).await?);
    // What is not an export goes on.
    assert_eq!(bench.get("/api/v1/usage-logs/merchant/m-made", &operator).await?.status, 200);
    drop(readers);
    wait::until_async("room for an export", WITHIN, || async {
        Ok((bench.get(path, &operator).await?.status == 200).then_some(()))
    })
    .await
}
