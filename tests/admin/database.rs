//! F9, F10: databases that cannot hold the journal, and poolers, are said at the start, with what to do about it.

use serde_json::json;
use sqlx::Executor;
use testkit::client::Call;
use testkit::server::{Server, ServerOptions};
use testkit::{Result, build, wait};

use crate::bench::{Bench, WITHIN, ask, token};
use crate::pooler::Pooler;

/// What is done to a fresh Postgres, by which address the server uses it then, and what `/ready` says.
struct Row {
    sql: &'static [&'static str],
    user: &'static str,
    database: &'static str,
    said: &'static str,
}

const ROWS: [Row; 6] = [
    Row {
        sql: &["CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'"],
        user: "",
        database: "latin",
        said: "encoding is LATIN1",
    },
    Row {
        sql: &["CREATE DATABASE ascii TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'"],
        user: "",
        database: "ascii",
        said: "must be UTF8",
    },
    Row {
        sql: &[
            "CREATE DATABASE standby TEMPLATE template0",
            "ALTER DATABASE standby SET default_transaction_read_only = on",
        ],
        user: "",
        database: "standby",
        said: "name the primary",
    },
    Row {
        sql: &["CREATE DATABASE rights TEMPLATE template0", "CREATE ROLE reader LOGIN"],
        user: "reader",
        database: "rights",
        said: "GRANT USAGE, CREATE ON SCHEMA public TO reader",
    },
    Row { sql: &[], user: "stranger", database: "", said: "stranger" },
    Row { sql: &[], user: "", database: "absent", said: "absent" },
];

/// The address with another user and database.
fn url(bench: &Bench, user: &str, database: &str) -> String {
    let (_, rest) =
        bench.postgres.url().split_once("://").map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap_or_default();
    let (credentials, place) = rest.rsplit_once('@').unwrap_or(("", rest.as_str()));
    let (server, own) = place.split_once('/').unwrap_or((place, ""));
    let user = if user.is_empty() { credentials } else { user };
    let database = if database.is_empty() { own } else { database };
    format!("postgres://{user}@{server}/{database}")
}

/// A server that comes up, whatever its database is like.
fn server(bench: &Bench, url: &str) -> Result<Server> {
    let env = [
        ("REDIS_URL", bench.redis.url()),
        ("DATABASE_URL", url.to_owned()),
        ("SLUICE_POLICY_FILE", bench.policies().display().to_string()),
        ("SLUICE_SHARDS", "4".to_owned()),
        ("JWT_SECRET", testkit::api::secret().to_owned()),
    ];
    let env = env.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let ready_when = testkit::server::ReadyWhen::Healthy;
    Server::start_in(bench.dir(), ServerOptions { program: build::server_bin(false)?, env, ready_when })
}

async fn says(server: &Server, said: &str) -> Result<()> {
    wait::until_async(said, WITHIN, || async {
        let (status, body) = server.get("/ready")?;
        Ok((status == 503 && body.contains(said)).then_some(()))
    })
    .await
}

#[tokio::test]
async fn f9_f10_a_database_that_cannot_hold_the_journal_is_said_with_what_to_do() -> Result<()> {
    let bench = Bench::start()?;
    let pool = bench.pool().await?;
    for row in ROWS {
        for statement in row.sql {
            pool.execute(*statement).await?;
        }
        let server = server(&bench, &url(&bench, row.user, row.database))?;
        says(&server, row.said).await?;
        // Payments are decided: events wait in Redis.
        wait::until_async("payments", WITHIN, || async {
            let (status, body) = server.get("/ready/payments")?;
            Ok((status == 200 && body.contains("\"payments\":\"decided\"")).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// F10: a server that is not let in by Postgres says so, once in its log, and blames no request.
#[tokio::test]
async fn f10_a_database_that_refuses_the_server_is_503_and_logged_once() -> Result<()> {
    let bench = Bench::start()?;
    let server = server(&bench, &url(&bench, "stranger", ""))?;
    for _ in 0..5 {
        let answer = ask(&server, Call::new("GET", "/api/v1/usage-logs/stats"), &token("operator")?).await?;
        assert_eq!((answer.status, answer.code().as_str()), (503, "DATABASE_UNAVAILABLE"), "{}", answer.json());
        assert_eq!(answer.json()["detail"], json!("the database refuses the server's user or password"));
        assert!(answer.header("retry-after").is_some());
    }
    let lines = || server.log_lines().into_iter().filter(|line| line["sqlstate"] == "28000").count();
    wait::until("the line", WITHIN, || Ok((lines() == 1).then_some(()))).map(drop)
}

/// F10: a pooler that gives each transaction another session is found out, and said.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f10_a_pooler_in_transaction_mode_is_found_out() -> Result<()> {
    let bench = Bench::start()?;
    for sessions in [1, 2, 3] {
        let pooler = Pooler::start(bench.postgres.port(), sessions).await?;
        let address = format!("127.0.0.1:{}", pooler.port());
        let through = url(&bench, "", "").replace(&format!("127.0.0.1:{}", bench.postgres.port()), &address);
        let server = server(&bench, &through)?;
        says(&server, "a pooler in transaction mode").await?;
    }
    Ok(())
}

/// F9: an event that Postgres refuses for its content is set aside, and that is logged, counted and reported to
/// operators.
#[tokio::test]
async fn f9_an_event_that_is_set_aside_is_logged_counted_and_reported() -> Result<()> {
    const REFUSE: [&str; 2] = [
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
            IF NEW.remarks = 'refused' THEN RAISE EXCEPTION 'no such remarks' USING ERRCODE = '22000'; END IF; \
            RETURN NEW; END $$",
        "CREATE TRIGGER refuse BEFORE INSERT ON usage_log FOR EACH ROW EXECUTE FUNCTION refuse()",
    ];
    let bench = Bench::start()?;
    let pool = bench.pool().await?;
    for statement in REFUSE {
        pool.execute(statement).await?;
    }
    let admin = token("admin")?;
    for (order_no, remarks) in [("A", "fine"), ("B", "refused"), ("C", "fine")] {
        let charge = json!({"merchant_id": "merchant-001", "currency": "USD", "order_no": order_no, "amount": 5_000,
            "remarks": remarks});
        assert_eq!(bench.post("/api/v1/quotas/consume", &admin, &charge).await?.status, 200);
    }
    bench.wait_for("SELECT count(*) FROM journal_rejected", 1).await?;
    bench.wait_for("SELECT count(*) FROM usage_log", 2).await?;
    let line = wait::until("the line", WITHIN, || {
        let mut lines = bench.server.log_lines().into_iter();
        Ok(lines.rfind(|line| line["order_no"] == "B" && line["level"] == "ERROR"))
    })?;
    assert_eq!(line["merchant"], json!("merchant-001"));
    assert!(line["reason"].as_str().is_some_and(|reason| reason.contains("no such remarks")), "{line}");
    assert!(line["event_id"].is_string(), "{line}");
    wait::until("the count", WITHIN, || {
        Ok((bench.server.metric("sluice_journal_rejected_total", &[])? > 0.5).then_some(()))
    })?;
    wait::until_async("the operators' alert", WITHIN, || async {
        let open = bench.get("/api/v1/alerts/unresolved?type=drift", &admin).await?.json();
        let message = open["items"][0]["message"].as_str().unwrap_or_default().to_owned();
        Ok(message.contains("1 events could not be stored (journal_rejected)").then_some(()))
    })
    .await
}
