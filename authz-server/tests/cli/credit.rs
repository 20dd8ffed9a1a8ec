//! `credit`: the line of a merchant as it is in Redis and Postgres, its statements, repayments, and what follows.

use std::time::Duration;

use jiff::Span;
use jiff::civil::{Date, date};
use quota::{ActorId, Currency, MerchantId};
use serde_json::{Value, json};
use sluice_kit::database::change::By;
use sluice_lines::{LineRepository, id_of};
use testkit::api::{Api, expect};
use testkit::client::Call;
use testkit::{Result, wait};

use crate::bench::{Ran, run};

const POLICIES: &str = "version: a\ndefault: {timezone: UTC, daily_amount: 50000}\n";
const STORED_WITHIN: Duration = Duration::from_secs(30);

/// A server, and a line of 10,000 that was opened 40 days ago, with cycles of 30 days. The first one closed with 1,000, which
/// were due yesterday.
struct Bench {
    api: Api,
    today: Date,
    env: Vec<(&'static str, String)>,
}

impl Bench {
    async fn start() -> Result<Self> {
        let api = Api::start(POLICIES, &[])?;
        let env = vec![
            ("REDIS_URL", api.redis.url()),
            ("DATABASE_URL", api.postgres.url()),
            ("SLUICE_POLICY_FILE", api.dir().join("policies.yaml").display().to_string()),
        ];
        let today = date(1970, 1, 1).checked_add(Span::new().days(sluice_kit::clock::now_ms() / 86_400_000))?;
        let bench = Self { api, today, env };
        bench.open_line().await?;
        Ok(bench)
    }

    fn day(&self, days: i64) -> Date {
        self.today.saturating_add(Span::new().days(days))
    }

    async fn open_line(&self) -> Result<()> {
        let pool = self.api.postgres.pool().await?;
        let lines = LineRepository::new(pool.clone());
        let key = (MerchantId::parse("shop")?, Currency::parse("USD")?);
        let [ana, ben] = [ActorId::parse("user:ana")?, ActorId::parse("user:ben")?];
        let by = |actor| By { actor, reason: None };
        let opened_on = self.day(-40);
        let input = json!({"merchant_id": "shop", "currency": "USD", "limit_base": 10_000,
            "terms": {"cycle": {"every_days": {"days": 30}}}});
        lines.create(by(&ana), &serde_json::from_value(input)?, opened_on).await?;
        lines.approve(by(&ben), &key, None).await?;
        lines.activate(by(&ana), &key, None, &Default::default(), opened_on).await?;
        let id = |day| i32::try_from(id_of(day)).unwrap_or_default();
        let statement = "INSERT INTO credit_statement VALUES \
            ('shop', 'USD', 1, $1, $2::date, $3::date, $4::date, 1000, 1000, gen_random_uuid())";
        let query = sqlx::query(statement).bind(id(opened_on)).bind(opened_on.to_string());
        query.bind(self.day(-11).to_string()).bind(self.day(-1).to_string()).execute(&pool).await?;
        let entry = "INSERT INTO credit_entry (event_id, kind, merchant_id, currency, shard, seq, at, business_day, cycle, amount) \
            VALUES (gen_random_uuid(), 'cycle_closed', 'shop', 'USD', 0, 0, now(), $1, $2, 1000)";
        sqlx::query(entry).bind(id(self.day(-10))).bind(id(opened_on)).execute(&pool).await?;
        pool.close().await;
        Ok(())
    }

    fn run(&self, arguments: &[&str]) -> Result<Ran> {
        let env: Vec<(&str, &str)> = self.env.iter().map(|(name, value)| (*name, value.as_str())).collect();
        run(&env, &[&["credit"], arguments].concat())
    }

    fn text(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.run(arguments)?.succeeded())
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.text(&[arguments, &["--json"]].concat())?)?)
    }
}

#[track_caller]
fn assert_parts(text: &str, parts: &[&str]) {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in parts {
        assert!(words.contains(part), "{part} in\n{text}");
    }
}

#[tokio::test]
async fn a_line_is_shown_repaid_and_simulated() -> Result<()> {
    let bench = Bench::start().await?;
    repay(&bench).await?;
    show(&bench)?;
    statement(&bench)?;
    simulate(&bench)
}

/// A repayment in advance of the payment: from then on Redis keeps the exposure.
async fn repay(bench: &Bench) -> Result<()> {
    let received_on = bench.day(-2).to_string();
    let arguments = ["repay", "shop", "USD", "R-1", "400", "--received-on", &received_on, "--as", "user:ana"];
    let done = bench.json(&arguments)?;
    assert_eq!((&done["code"], &done["replay"], &done["amount"]), (&"APPLIED".into(), &false.into(), &400.into()));
    assert_eq!((&done["kind"], &done["number"]), (&"repayment".into(), &"R-1".into()));
    assert_eq!(done["credit"]["exposure"], -400, "{done}");
    let charge = json!({"merchant_id": "shop", "currency": "USD", "order_no": "O-1", "amount": 500});
    expect(&bench.api.operator()?.post("/quotas/consume", &charge).await?, 200, &json!({"success": true}));
    let again = bench.json(&arguments)?;
    assert_eq!((&again["replay"], &again["decision_id"]), (&true.into(), &done["decision_id"]));
    assert_eq!((&again["credit"]["exposure"], &again["credit"]["limit"]), (&100.into(), &10_000.into()), "{again}");
    assert_parts(
        &bench.text(&arguments)?,
        &["repayment R-1 of 400, recorded before", "exposure 100", "available 9900"],
    );

    let refused = bench.run(&["repay", "shop", "USD", "R-1", "401"])?;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
    assert!(refused.stderr.contains("refused with IDEMPOTENCY_CONFLICT: "), "{refused:?}");
    let future = bench.run(&["repay", "shop", "USD", "R-2", "1", "--received-on", &bench.day(2).to_string()])?;
    assert!(future.code == Some(1) && future.stderr.contains("is in the future"), "{future:?}");
    let recovery = bench.run(&["repay", "shop", "USD", "V-1", "1", "--recovery"])?;
    assert!(recovery.code == Some(1) && recovery.stderr.contains("give at most 0"), "{recovery:?}");
    let unknown = bench.run(&["repay", "other", "USD", "R-1", "1"])?;
    assert!(unknown.code == Some(1) && unknown.stderr.contains("no credit line"), "{unknown:?}");
    Ok(())
}

fn show(bench: &Bench) -> Result<()> {
    let shown = wait::until("the repayment in the books", STORED_WITHIN, || {
        let shown = bench.json(&["show", "shop", "USD"])?;
        Ok((shown["today"]["billed"] == 600).then_some(shown))
    })?;
    let line = &shown["line"];
    assert_eq!((&shown["found"], &line["state"], &line["version"]), (&true.into(), &"active".into(), &1.into()));
    assert_eq!((&line["limit_base"], &line["opened_on"]), (&10_000.into(), &bench.day(-40).to_string().into()));
    let today = &shown["today"];
    assert_eq!((&today["limit"], &today["exposure"]), (&10_000.into(), &100.into()), "{today}");
    assert_eq!((&today["available"], &today["unbilled"], &today["held"]), (&9_900.into(), &500.into(), &0.into()));
    assert_eq!(today["standing"]["stage"], "grace", "{today}");
    assert_eq!(today["overdue"]["oldest_due_on"], bench.day(-1).to_string());
    assert_eq!((&today["overdue"]["amount_to_cure"], &today["cycle"]["number"]), (&600.into(), &2.into()), "{today}");
    assert_eq!(today["next_stage_changes"][0]["on"], bench.day(5).to_string());
    let closes = format!("number 2, {}, closes on {}", bench.day(-10), bench.day(19));
    let next = format!("if nothing is paid {}: watch, 6 days past due", bench.day(5));
    let text = bench.text(&["show", "shop", "USD"])?;
    let statements = "statements due after 14 days, at least 100.00 %";
    let parts =
        ["active, version 1", "available 9900", "stage grace", "amount to cure 600", &closes, statements, &next];
    assert_parts(&text, &parts);

    let none = bench.run(&["show", "other", "USD"])?;
    assert_eq!((none.code, none.stdout.as_str()), (Some(3), ""), "{none:?}");
    assert!(none.stderr.contains("other has no credit line in USD"), "{none:?}");
    let none = bench.run(&["show", "shop", "EUR", "--json"])?;
    assert_eq!((none.code, serde_json::from_str::<Value>(&none.stdout)?["found"].clone()), (Some(3), false.into()));
    Ok(())
}

fn statement(bench: &Bench) -> Result<()> {
    let last = bench.json(&["statement", "shop", "USD"])?;
    assert_eq!(last, bench.json(&["statement", "shop", "USD", "1"])?);
    assert_eq!((&last["number"], &last["status"]), (&1.into(), &"past_due".into()), "{last}");
    assert_eq!((&last["amount"], &last["paid"], &last["open"]), (&1_000.into(), &400.into(), &600.into()), "{last}");
    let by = json!([{"kind": "repayment", "number": "R-1", "amount": 400, "value_on": bench.day(-2)}]);
    assert_eq!(last["allocations"], by);
    let text = bench.text(&["statement", "shop", "USD"])?;
    let due = format!("due on {}", bench.day(-1));
    assert_parts(&text, &["number 1, past_due", "amount 1000", "open 600", &due, "by repayment R-1: 400 of"]);
    let csv = bench.text(&["statement", "shop", "USD", "--csv"])?;
    let [first, closed, due] = [-40, -11, -1].map(|days| bench.day(days));
    let row = format!("shop,USD,1,{first},{closed},{due},past_due,1000,1000,400,0,0,600,1,\r\n");
    assert!(csv.starts_with("merchant_id,currency,number,") && csv.ends_with(&row), "{csv}");
    let none = bench.run(&["statement", "shop", "USD", "2"])?;
    assert!(none.code == Some(3) && none.stderr.contains("shop has no statement 2 in USD"), "{none:?}");
    let none = bench.run(&["statement", "other", "USD"])?;
    assert!(none.code == Some(3) && none.stderr.contains("other has no statement in USD"), "{none:?}");
    Ok(())
}

fn simulate(bench: &Bench) -> Result<()> {
    let on = |days: i64| bench.json(&["simulate", "shop", "USD", "--on", &bench.day(days).to_string()]);
    let open = on(18)?;
    assert_eq!((&open["statement"], &open["standing"]["stage"]), (&Value::Null, &"watch".into()), "{open}");
    assert_eq!((&open["limit"], &open["overdue"]["amount_to_cure"]), (&7_500.into(), &600.into()), "{open}");
    let closed = on(19)?;
    assert_eq!((&closed["statement"]["number"], &closed["statement"]["amount"]), (&2.into(), &500.into()), "{closed}");
    let late = on(40)?;
    assert_eq!((&late["standing"]["stage"], &late["limit"]), (&"restricted".into(), &5_000.into()), "{late}");
    assert_eq!((&late["overdue"]["days_past_due"], &late["overdue"]["amount_to_cure"]), (&41.into(), &1_100.into()));
    assert_eq!((&late["exposure"], &late["available"]), (&100.into(), &4_900.into()));
    let stages: Vec<&Value> = late["stage_changes"].as_array().into_iter().flatten().map(|one| &one["stage"]).collect();
    assert!(stages.ends_with(&[&"watch".into(), &"restricted".into()]), "{late}");
    let formal = format!("{}: notice formal_demand for 600 due on {}", bench.day(29), bench.day(-1));
    let text = bench.text(&["simulate", "shop", "USD", "--on", &bench.day(40).to_string()])?;
    assert_parts(&text, &["number 2, 500 closed on", "stage restricted, 41 days past due", &formal]);
    let past = bench.run(&["simulate", "shop", "USD", "--on", &bench.day(-5).to_string()])?;
    assert!(past.code == Some(1) && past.stderr.contains("is not a day to simulate"), "{past:?}");
    let none = bench.run(&["simulate", "other", "USD", "--on", &bench.day(5).to_string()])?;
    assert!(none.code == Some(3) && none.stderr.contains("other has no credit line in USD"), "{none:?}");
    Ok(())
}

/// A file of lines: the first run drafts, and the one after their approval takes over what is open.
#[tokio::test]
async fn lines_of_another_system_are_imported_in_as_many_runs_as_it_takes() -> Result<()> {
    let bench = Bench::start().await?;
    let good = json!({"line": {"merchant_id": "moved", "currency": "USD", "limit_base": 10_000, "taken_over_from": "2024-03-01"},
        "obligations": [{"closed_on": "2024-05-31", "due_on": "2033-01-01", "amount": 700}]});
    let without = json!({"line": {"merchant_id": "new", "currency": "USD", "limit_base": 1}});
    let rows = format!("{good}\n\n{without}\nno json\n");
    let file = crate::bench::file(bench.api.dir(), "lines.jsonl", &rows)?;
    let import = |more: &[&str]| bench.run(&[&["import", &file, "--as", "user:ana"], more].concat());
    let check = |ran: Ran, report: &str| {
        assert_eq!((ran.code, ran.stdout.trim_end()), (Some(3), report), "{ran:?}");
        assert!(ran.stderr.contains("line 2: `taken_over_from` is missing"), "{ran:?}");
        assert!(ran.stderr.contains("line 3: expected"), "{ran:?}");
    };
    let drafted = "1 drafted, 0 wait for approval and activation, 0 in force with their statements, 2 failed";
    let waiting = "0 drafted, 1 wait for approval and activation, 0 in force with their statements, 2 failed";
    let in_force = "0 drafted, 0 wait for approval and activation, 1 in force with their statements, 2 failed";
    check(import(&["--dry-run"])?, &format!("dry run, nothing was changed: {drafted}"));
    check(import(&[])?, drafted);
    check(import(&[])?, waiting);
    let ana = bench.api.admin()?;
    for (caller, step) in [(&bench.api.caller(json!({"sub": "ben", "role": "admin"}))?, "approve"), (&ana, "activate")]
    {
        let path = format!("/credit-lines/moved/USD/{step}");
        assert_eq!(caller.post(&path, &json!({})).await?.status, 200, "{step}");
    }
    // Also with a change that is drafted.
    let change = Call::post_json("/credit-lines/moved/USD", json!({"line": {"limit_base": 20_000}}).to_string());
    let changed = bench.api.operator()?.send(Call { method: "PATCH".to_owned(), ..change }).await?;
    expect(&changed, 200, &json!({"state": "draft"}));
    for _ in 0..2 {
        check(import(&[])?, in_force);
    }
    let statement = wait::until("the statement in the books", STORED_WITHIN, || {
        let ran = bench.run(&["statement", "moved", "USD", "--json"])?;
        let found: Value = serde_json::from_str(&ran.stdout)?;
        Ok((found["found"] == true).then_some(found))
    })?;
    assert_eq!((&statement["number"], &statement["open"]), (&1.into(), &700.into()), "{statement}");
    assert_eq!((&statement["first_day"], &statement["due_on"]), (&"2024-05-01".into(), &"2033-01-01".into()));
    assert_eq!(bench.json(&["show", "moved", "USD"])?["today"]["exposure"], 700);
    let none = bench.run(&["import", "/nowhere/lines.jsonl"])?;
    assert!(none.code == Some(1) && none.stderr.contains("/nowhere/lines.jsonl cannot be read"), "{none:?}");
    Ok(())
}

#[test]
fn what_cannot_be_read_is_refused() -> Result<()> {
    let table: [(&[&str], &str); 7] = [
        (&["credit", "show", "shop", "usd!"], "<CURRENCY>"),
        (&["credit", "show", "a b", "USD"], "<MERCHANT>"),
        (&["credit", "statement", "shop", "USD", "one"], "[NUMBER]"),
        (&["credit", "statement", "shop", "USD", "--csv", "--json"], "--json"),
        (&["credit", "repay", "shop", "USD", "R-1", "0"], "<AMOUNT>"),
        (&["credit", "repay", "shop", "USD", "R-1", "9007199254740992"], "<AMOUNT>"),
        (&["credit", "simulate", "shop", "USD", "--on", "2026-13-01"], "--on"),
    ];
    for (arguments, part) in table {
        let ran = run(&[], arguments)?;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(2), ""), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(part), "{arguments:?}: {ran:?}");
    }
    Ok(())
}
