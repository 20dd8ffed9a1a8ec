//! docs/credit.md: the life of a line, sent as it stands there to a server whose clock the test moves from heading to heading.

use std::fs;

use chrono::{DateTime, NaiveDate, Utc};
use serde_json::json;
use testkit::api::{Api, Caller};
use testkit::dirs::{RunDir, workspace};
use testkit::{Context, Failure, Result, wait};

use crate::readme::{self, examples};
use crate::suite::Suite;

/// The section with the commands.
const HEADING: &str = "\n## A line's life\n";

pub(crate) fn add(suite: &mut Suite) {
    suite.alone("month::the_life_of_a_line_is_as_documented", life);
}

async fn life() -> Result<()> {
    let text = fs::read_to_string(workspace().join("docs/credit.md"))?;
    let (_, section) = text.split_once(HEADING).ok_or_else(|| Failure::new("docs/credit.md has no life of a line"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let days: Vec<(&str, &str)> = section.split("\n### ").skip(1).filter_map(|day| day.split_once('\n')).collect();
    assert_eq!(days.len(), 8, "headings with a day");

    let dir = RunDir::new("month")?;
    let clock = dir.join("clock");
    let first = days.first().map_or(Err(Failure::new("no day")), |(title, _)| noon(title))?;
    move_to(&clock, first)?;
    let env = [("TEST_CLOCK_SHIFT_FILE", &*clock.display().to_string()), ("TEST_CLOCK_SHIFTS_STORE", "1")];
    let policies = fs::read_to_string(workspace().join("deploy/policies.yaml"))?;
    let api = Api::start(&policies, &env)?;
    walk(&api, &clock, &days).await.inspect_err(|_| api.dir().keep())
}

async fn walk(api: &Api, clock: &std::path::Path, days: &[(&str, &str)]) -> Result<()> {
    let (ana, oleg) = (api.admin()?, api.operator()?);
    let mut sent = 0;
    for (title, text) in days {
        let day = noon(title)?;
        move_to(clock, day)?;
        until_day(&ana, day).await?;
        // The header names who calls; the rest is as in docs/api.md.
        let is_maker: Vec<bool> =
            text.lines().filter(|line| line.starts_with("curl ")).map(|line| line.contains("\"$MAKER\"")).collect();
        for (example, is_maker) in examples(&text.replace("\"$MAKER\"", "\"$AUTH\""))?.into_iter().zip(is_maker) {
            let caller = if is_maker { &oleg } else { &ana };
            readme::send(caller, vec![example]).await.context(*title)?;
            sent += 1;
        }
    }
    assert!(sent > 20, "{sent} commands");
    Ok(())
}

/// Noon of the day that a heading begins with.
fn noon(title: &str) -> Result<DateTime<Utc>> {
    let day: NaiveDate = title.split(':').next().unwrap_or_default().parse().context(title.to_owned())?;
    let noon = day.and_hms_opt(12, 0, 0).ok_or_else(|| Failure::new("no such time"))?;
    Ok(noon.and_utc())
}

/// Sets the server's clock, and the store's as the server sees it.
fn move_to(file: &std::path::Path, at: DateTime<Utc>) -> Result<()> {
    let shift_ms = at.timestamp_millis() - sluice_kit::clock::now_ms();
    let fresh = file.with_extension("new");
    fs::write(&fresh, shift_ms.to_string())?;
    Ok(fs::rename(fresh, file)?)
}

/// The server compares its clock with the store's once a second.
async fn until_day(caller: &Caller, at: DateTime<Utc>) -> Result<()> {
    let day = json!(at.format("%Y-%m-%d").to_string());
    wait::until_async("the server's clock", std::time::Duration::from_secs(30), || async {
        let policy = caller.get("/limit-policies/effective?merchant_id=merchant-001").await?.json();
        let found = policy["at"].as_str().and_then(|at| at.get(..10)).map(|day| json!(day));
        Ok((found.as_ref() == Some(&day)).then_some(()))
    })
    .await
}
