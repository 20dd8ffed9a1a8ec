//! Real servers: what a change does in them, and that they begin with what is in force.

use std::collections::BTreeMap;

use envoy_types::pb::envoy::service::auth::v3::authorization_client::AuthorizationClient;
use envoy_types::pb::envoy::service::auth::v3::{AttributeContext, CheckRequest};
use proto::extension;
use quota::{MerchantId, OrderNo};
use serde_json::json;
use sluice_kit::database;
use sluice_kit::metrics::Metrics;
use sluice_settings::runtime::{Change, Repository};
use sluice_settings::{Live, Settings};
use sluice_store::keys;
use testkit::dirs::{self, RunDir};
use testkit::postgres::Postgres;
use testkit::redis::Redis;
use testkit::server::{Server, ServerOptions};
use testkit::{Failure, Result, Service as _, build, wait};
use tonic::transport::Channel;

use crate::bench::{self, WITHIN};

struct Servers {
    redis: Redis,
    postgres: Postgres,
}

impl Servers {
    fn start() -> Result<Self> {
        Ok(Self { redis: Redis::start()?, postgres: Postgres::start()? })
    }

    fn server(&self, name: &str, env: &[(&str, &str)]) -> Result<Server> {
        let dir = RunDir::new(&format!("settings-{name}"))?;
        let policies = dirs::workspace().join("deploy/policies.yaml");
        let own = [
            ("REDIS_URL", self.redis.url()),
            ("DATABASE_URL", self.postgres.url()),
            ("SLUICE_POLICY_FILE", policies.display().to_string()),
            ("ENABLE_CONFIG_CLIENT", "true".to_owned()),
        ];
        let given = env.iter().map(|(name, value)| (*name, (*value).to_owned()));
        let env: BTreeMap<String, String> = own.into_iter().chain(given).map(|(k, v)| (k.to_owned(), v)).collect();
        Server::start_in(dir, ServerOptions { program: build::server_bin(false)?, env, ..ServerOptions::default() })
    }

    /// What the admin API of any of the servers would use.
    fn repository(&self) -> Result<Repository> {
        let settings: Settings = bench::settings(&self.postgres, &[])?;
        let pool = database::pool(&settings.postgres_url(), 2)?;
        Ok(Repository::new(&settings, Live::fixed(&settings), pool, &Metrics::new()))
    }
}

/// A payment of its own order, decided as the proxy filter asks.
async fn pay(server: &Server, order_no: &str) -> Result<()> {
    let extensions = [
        (extension::ACTION, extension::ACTION_CONSUME),
        (extension::MERCHANT, "m-1"),
        (extension::AMOUNT_MINOR, "100"),
        (extension::CURRENCY, "USD"),
        (extension::ORDER_NO, order_no),
        (extension::ATTEMPT, "00000000000000000000000000000001"),
        (extension::MODE, "enforce"),
    ];
    let context_extensions = extensions.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    let attributes = AttributeContext { context_extensions, ..AttributeContext::default() };
    let channel = Channel::from_shared(format!("http://{}", server.grpc_address()))?.connect().await?;
    let request = CheckRequest { attributes: Some(attributes) };
    let answer = AuthorizationClient::new(channel).check(request).await?.into_inner();
    match answer.status {
        Some(status) if status.code != 0 => Err(Failure::new(format!("refused: {status:?}"))),
        Some(_) | None => Ok(()),
    }
}

/// For how many seconds the order is remembered.
async fn remembered_secs(redis: &Redis, order_no: &str) -> Result<i64> {
    let merchant = MerchantId::parse("m-1")?;
    let order = OrderNo::parse(order_no)?;
    let key = keys::order(quota::shard_of(&merchant, 64), &merchant, Some(&order));
    Ok(::redis::cmd("TTL").arg(key).query_async(&mut redis.connection().await?).await?)
}

#[tokio::test]
async fn a_change_is_in_force_in_every_process_at_once() -> Result<()> {
    let servers = Servers::start()?;
    // No server looks within the time of this test: what they learn comes by notification.
    let env = [("SLUICE_CONFIG_REFRESH_SECS", "3600"), ("SLUICE_LOG", "error,sluice::decision=off")];
    let both = [("a", servers.server("a", &env)?), ("b", servers.server("b", &env)?)];
    for (name, server) in &both {
        wait::until("the first reading", WITHIN, || {
            Ok((server.metric("sluice_settings_current", &[])? > 0.5).then_some(()))
        })?;
        let order_no = format!("before-{name}");
        pay(server, &order_no).await?;
        assert!(remembered_secs(&servers.redis, &order_no).await? > 600_000, "seven days, the default");
        assert!(server.decisions().is_empty(), "nothing but errors is logged");
    }
    let changes = [("log".to_owned(), json!("info")), ("order_ttl_secs".to_owned(), json!(3600))].into();
    let change = Change { changes, reason: "look closer".to_owned(), expected_version: None };
    servers.repository()?.change("ana", change).await?;
    for (name, server) in &both {
        wait::until("the change", WITHIN, || Ok((server.metric("sluice_settings_version", &[])? > 0.5).then_some(())))?;
        let order_no = format!("after-{name}");
        pay(server, &order_no).await?;
        let secs = remembered_secs(&servers.redis, &order_no).await?;
        assert!((0..=3600).contains(&secs), "{secs}");
        // The log is switched by another thread, perhaps after this payment.
        wait::until_async("a line about a decision", WITHIN, || async {
            pay(server, &order_no).await?;
            Ok((!server.decisions().is_empty()).then_some(()))
        })
        .await?;
    }
    Ok(())
}

/// Ten payments while Postgres hangs; how many transactions bring their events there afterwards.
async fn transactions_of_ten(servers: &mut Servers, server: &Server, name: &str) -> Result<f64> {
    let figure = |figure: &str| server.metric(&format!("sluice_journal_{figure}_total"), &[]);
    let (rows, batches) = (figure("rows_stored")?, figure("batches")?);
    servers.postgres.pause()?;
    for number in 0..10 {
        pay(server, &format!("{name}-{number}")).await?;
    }
    servers.postgres.resume()?;
    wait::until("the events of ten payments", WITHIN, || Ok((figure("rows_stored")? >= rows + 10.0).then_some(())))?;
    Ok(figure("batches")? - batches)
}

#[tokio::test]
async fn the_journal_takes_a_change_while_it_runs() -> Result<()> {
    let mut servers = Servers::start()?;
    let server = servers.server("a", &[("SLUICE_CONFIG_REFRESH_SECS", "3600")])?;
    wait::until("the first reading", WITHIN, || {
        Ok((server.metric("sluice_settings_current", &[])? > 0.5).then_some(()))
    })?;
    assert!(transactions_of_ten(&mut servers, &server, "together").await? < 9.5);
    let changes = [("journal_batch_rows_max".to_owned(), json!(1))].into();
    let change = Change { changes, reason: "one by one".to_owned(), expected_version: None };
    servers.repository()?.change("ana", change).await?;
    wait::until("the change", WITHIN, || Ok((server.metric("sluice_settings_version", &[])? > 0.5).then_some(())))?;
    assert!(transactions_of_ten(&mut servers, &server, "one-by-one").await? > 9.5);
    Ok(())
}

/// The first payment is decided with the settings in force, not with those of the environment.
#[tokio::test]
async fn a_server_reads_the_changes_before_it_decides() -> Result<()> {
    let servers = Servers::start()?;
    let service = bench::Service::with(r#"{"hold_sweep_ms": 700}"#)?;
    let server = servers.server("a", &[("CONFIG_SERVICE_URL", &service.url())])?;
    let (changed, open) = wait::until("the log of the start", WITHIN, || {
        let lines = server.log_lines();
        let place = |words: &str| lines.iter().position(|line| line["message"] == words);
        Ok(place("ext_authz is open").map(|open| (place("a setting changed"), open)))
    })?;
    assert!(changed.is_some_and(|changed| changed < open), "{changed:?} {open:?}");
    Ok(())
}

/// A service that is down holds no server up.
#[tokio::test]
async fn a_server_starts_without_its_configuration_service() -> Result<()> {
    let servers = Servers::start()?;
    let service = bench::Service::down()?;
    let server = servers.server("a", &[("CONFIG_SERVICE_URL", &service.url())])?;
    assert!(server.metric("sluice_settings_failures_total", &["away"])? > 0.5);
    let logged = wait::until("the log of the start", WITHIN, || {
        let failed = |line: &serde_json::Value| line["message"] == "settings cannot be read, the last good values stay";
        Ok(server.log_lines().into_iter().find(failed))
    })?;
    assert!(logged["reason"].to_string().contains(&service.url()), "{logged}");
    Ok(())
}
