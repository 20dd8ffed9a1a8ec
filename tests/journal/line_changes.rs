//! Changes of credit lines on the live stream: each once however many servers close cycles and run scorecards, in their order, and from
//! wherever a reader goes on.

use quota::{ActorId, Currency, MerchantId};
use serde_json::{Value, json};
use sluice_credit::{Grade, Scorecard};
use sluice_kit::database::change::By;
use sluice_lines::{OverrideRepository, ScorecardRepository, ScorecardRole};
use sluice_live::{Change, Cursor, Feed, Filter, Item};
use testkit::{Failure, Result};

use crate::alerts::MERCHANT;
use crate::credit_sweep::{AMOUNT, DUE_DAY, Life, day, key};
use crate::engine::consume;
use crate::scorecards::constant;

const LINES: Filter = Filter {
    alerts: false,
    decisions: false,
    credit_lines: true,
    own: None,
    merchant: None,
    currency: None,
    code: None,
};

/// Everything after a cursor, with the cursor of each: the rest of what its reader was reading, and what became visible since.
async fn after(feed: &Feed, filter: &Filter, cursor: Cursor) -> Result<Vec<Item>> {
    let resumed = feed.resume(filter.clone(), cursor).await?;
    let mut reader = resumed.map_err(|error| Failure::new(error.to_string()))?;
    let (mut items, mut ends) = (Vec::new(), 0);
    while ends < 2 {
        let (read, more) = reader.read().await?;
        items.extend(read);
        ends += usize::from(!more);
    }
    Ok(items)
}

fn data(item: &Item) -> Result<Value> {
    match &item.change {
        Change::CreditLine(change) => Ok(serde_json::to_value(change)?),
        Change::Decision(row) => Ok(json!({"change": "decision", "kind": row.action_type})),
        Change::Alert { .. } => Ok(json!({"change": "alert"})),
    }
}

/// A change in short: what, and its numbers.
fn short(item: &Item) -> Result<String> {
    let data = data(item)?;
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let change = text(&data["change"]);
    let (statement, stage, grade) = (&data["statement"], &data["stage"], &data["grade"]);
    Ok(match change.as_str() {
        "statement_closed" => {
            format!("statement {} {} {}", statement["number"], statement["amount"], text(&statement["due_on"]))
        }
        "stage_changed" => {
            let [before, after] = [&stage["stage_before"], &stage["stage"]].map(text);
            format!("stage {before} {after} {}", stage["days_past_due"])
        }
        "grade_changed" => {
            let [before, after, kind] = [&grade["grade_before"], &grade["grade"], &grade["kind"]].map(text);
            format!("grade {before} {after} {kind} {} {}", grade["due_days"], text(&grade["expires_on"]))
        }
        _ => change,
    })
}

fn all(items: &[Item]) -> Result<Vec<String>> {
    items.iter().map(short).collect()
}

/// From the opening to the cure: two servers sweep at once on each day.
#[tokio::test]
async fn each_change_of_a_line_is_sent_once() -> Result<()> {
    let mut life = Life::open().await?;
    let feed = Feed::new(life.bench.postgres.pool().await?);
    let first = feed.begin(LINES).await?.cursor().clone();
    let (maker, checker) = (ActorId::parse("ana")?, ActorId::parse("ben")?);
    let [made, checked] = [&maker, &checker].map(|actor| By { actor, reason: Some("agreed") });
    let mut card = constant("strict", 550);
    for band in card.bands.0.iter_mut().filter(|band| band.grade == Grade::D) {
        band.due_days = Some(7);
    }
    let cards = ScorecardRepository::new(life.pool.clone());
    cards.put(made, &card, None).await?;
    cards.activate(checked, &card.version, ScorecardRole::Champion, None).await?;
    // The close, with its run: then what is past due.
    life.live(30..=DUE_DAY + 6).await?;
    life.apply(DUE_DAY + 7, "o-2", consume(700)).await?;
    life.live(60..=61).await?;
    let overrides = OverrideRepository::new(life.pool.clone());
    let asked = overrides.request(made, &key()?, Grade::B, day(90), day(62)).await?;
    overrides.approve(checked, &key()?, asked.grade_id, day(62)).await?;
    // The same grade as the one in force changes nothing, nor does one that was requested before the one in force.
    let earlier = overrides.request(made, &key()?, Grade::A, day(94), day(63)).await?;
    let asked = overrides.request(made, &key()?, Grade::B, day(95), day(63)).await?;
    overrides.approve(checked, &key()?, asked.grade_id, day(63)).await?;
    overrides.approve(checked, &key()?, earlier.grade_id, day(63)).await?;
    life.repay(64, 10 * AMOUNT).await?;
    life.live(64..=65).await?;
    let patch = json!({"terms": {"due_days": 30}, "remarks": "as agreed by phone"});
    let Value::Object(patch) = patch else { return Err(Failure::new("no object")) };
    life.lines().update(made, &key()?, patch, None, day(65)).await?;
    life.lines().approve(checked, &key()?, None).await?;
    life.lines().activate(checked, &key()?, None, &Scorecard::default().bands, day(65)).await?;
    life.lines().close(checked, &key()?, None, day(66)).await?;
    let expected = [
        "statement 1 12000 2027-01-02",
        "grade B D scorecard 7 null",
        "stage current grace 1",
        "stage grace watch 6",
        "statement 2 700 2027-01-25",
        "grade D B override null 2027-02-18",
        "stage watch current 0",
        "line_changed",
        "line_closed",
    ];
    let items = after(&feed, &LINES, first.clone()).await?;
    assert_eq!(all(&items)?, expected);
    // From each of them on, the rest.
    for (place, item) in items.iter().enumerate() {
        let rest = after(&feed, &LINES, item.place.clone()).await?;
        assert_eq!(all(&rest)?, expected[place + 1..], "after {place}");
    }
    // Beside alerts and decisions, in whatever order of kinds.
    let everything = after(&feed, &Filter { alerts: true, decisions: true, ..LINES }, first.clone()).await?;
    let names = all(&everything)?;
    let of_lines: Vec<&String> = names.iter().filter(|name| !["decision", "alert"].contains(&name.as_str())).collect();
    assert_eq!(of_lines, expected.iter().collect::<Vec<_>>());
    assert!(names.iter().any(|name| name == "alert"), "{names:?}");
    let none =
        after(&feed, &Filter { credit_lines: false, alerts: true, decisions: true, ..LINES }, first.clone()).await?;
    assert_eq!(none.len(), everything.len() - expected.len());

    // Its merchant reads what changed, and neither remarks nor names; another merchant and another currency read nothing.
    let own = Some(MerchantId::parse(MERCHANT)?);
    let of_merchant = Filter { own: own.clone(), merchant: own, ..LINES };
    let items = after(&feed, &of_merchant, first.clone()).await?;
    assert_eq!(all(&items)?, expected);
    let data = data(items.get(7).ok_or_else(|| Failure::new("no line"))?)?;
    let line = &data["line"];
    assert_eq!(
        (&line["terms"]["due_days"], &line["remarks"], &line["created_by"]),
        (&json!(30), &Value::Null, &json!("operators"))
    );
    let other = Some(MerchantId::parse("another")?);
    for filter in [
        Filter { own: other.clone(), merchant: other, ..LINES },
        Filter { currency: Some(Currency::parse("EUR")?), ..LINES },
    ] {
        assert_eq!(all(&after(&feed, &filter, first.clone()).await?)?, [""; 0]);
    }
    let changed = life.execute("UPDATE credit_change SET change = 'line_closed'").await;
    assert!(changed.is_err());
    Ok(())
}

/// A change whose transaction ends late is sent when it is there, and what cannot be read ends no stream.
#[tokio::test]
async fn changes_are_sent_when_they_become_visible() -> Result<()> {
    let life = Life::open().await?;
    let feed = Feed::new(life.bench.postgres.pool().await?);
    let first = feed.begin(LINES).await?.cursor().clone();
    let insert = |number: i32| {
        let statement = "INSERT INTO credit_change (merchant_id, currency, change, body) VALUES ($2, 'USD', 'stage_changed', \
            jsonb_build_object('stage', jsonb_build_object('stage', 'grace', 'stage_before', 'current', 'days_past_due', $1::int, \
                'on_day', '2027-01-03')))";
        sqlx::query(statement).bind(number).bind(MERCHANT)
    };
    let mut late = life.pool.begin().await?;
    insert(1).execute(&mut *late).await?;
    insert(2).execute(&life.pool).await?;
    let unknown = "INSERT INTO credit_change (merchant_id, currency, change, body) VALUES ('m-1', 'USD', 'grade_changed', '{\"other\": 1}')";
    life.execute(unknown).await?;
    let early = after(&feed, &LINES, first.clone()).await?;
    assert_eq!(all(&early)?, ["stage current grace 2"]);
    late.commit().await?;
    let mut numbers = Vec::new();
    for place in [first, early.last().ok_or_else(|| Failure::new("nothing"))?.place.clone()] {
        numbers.push(all(&after(&feed, &LINES, place).await?)?);
    }
    // Within a reading they come by transaction. What was sent is not sent again.
    assert_eq!(numbers, [vec!["stage current grace 1", "stage current grace 2"], vec!["stage current grace 1"]]);
    // What no reader can go back to is removed.
    life.execute("INSERT INTO credit_change (merchant_id, currency, change, changed_at, body) \
        SELECT 'm-1', 'USD', 'line_closed', now() - days * interval '1 day', '{}' FROM unnest(ARRAY[44, 46, 400]) AS days").await?;
    assert_eq!(life.lines().remove_old_changes().await?, 2);
    assert_eq!(life.lines().remove_old_changes().await?, 0);
    Ok(())
}
