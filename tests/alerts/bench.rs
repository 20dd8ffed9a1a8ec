//! What every test here stands on: private Redis and Postgres, a server that may send to loopback, and alerts put into the
//! table as the journal puts them there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sluice_alerts::read::messages;
use sluice_settings::Secret;
use sqlx::PgPool;
use testkit::dirs::{self, RunDir};
use testkit::postgres::Postgres;
use testkit::redis::Redis;
use testkit::server::{Server, ServerOptions};
use testkit::{Context, Result, api, build, wait};
use uuid::Uuid;

/// How long anything may take to come true.
pub(crate) const WITHIN: Duration = Duration::from_secs(40);
/// A secret of a webhook.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// Waits are short and deadlines are not long, so that no test waits for them.
const ENV: [(&str, &str); 4] = [
    ("SLUICE_ALERT_ALLOW_NETWORKS", "127.0.0.1/32"),
    ("SLUICE_ALERT_MERCHANT_NETWORKS", "127.0.0.1/32"),
    ("SLUICE_ALERT_RETRY_MS", "50"),
    ("SLUICE_ALERT_TIMEOUT_MS", "1500"),
];

/// Redis, Postgres and a server.
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) redis: Redis,
    pub(crate) pool: PgPool,
    pub(crate) dir: Arc<RunDir>,
    pub(crate) postgres: Postgres,
}

/// An alert, with what matters to a test.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Raise {
    pub(crate) merchant: &'static str,
    pub(crate) alert_type: &'static str,
    pub(crate) threshold: i32,
    pub(crate) level: &'static str,
}

/// A warning that 80 % of the day is used.
pub(crate) const DAILY_80: Raise = Raise { merchant: "M-1", alert_type: "daily_80", threshold: 80, level: "warning" };
/// All of it is.
pub(crate) const DAILY_100: Raise =
    Raise { merchant: "M-1", alert_type: "daily_100", threshold: 100, level: "critical" };

impl Bench {
    /// A server that has the operators' settings, with more environment.
    pub(crate) async fn start(settings: Value, env: &[(&str, &str)]) -> Result<Self> {
        let dir = RunDir::new("alerts")?;
        let (redis, postgres) = (Redis::start_in(Arc::clone(&dir))?, Postgres::start_in(Arc::clone(&dir), false)?);
        let server = launch(&dir, &redis, &postgres, env)?;
        let pool = postgres.pool().await?;
        let bench = Self { server, redis, pool, dir, postgres };
        bench.set("operators", settings).await?;
        Ok(bench)
    }

    /// Another server on the same Redis and Postgres.
    pub(crate) fn another(&self, env: &[(&str, &str)]) -> Result<Server> {
        launch(&self.dir, &self.redis, &self.postgres, env)
    }

    /// Sets the settings of a scope.
    pub(crate) async fn set(&self, scope: &str, settings: Value) -> Result<()> {
        let statement = "INSERT INTO alert_settings (scope, document, updated_by) VALUES ($1, $2::text::jsonb, 'test') \
            ON CONFLICT (scope) DO UPDATE SET document = excluded.document";
        sqlx::query(statement).bind(scope).bind(settings.to_string()).execute(&self.pool).await?;
        Ok(())
    }

    /// Raises an alert in a window of its own, so that several of one type can be open; none of them is over.
    pub(crate) async fn raise(&self, alert: Raise) -> Result<Uuid> {
        let id = new_id();
        let statement = "INSERT INTO quota_alert (alert_id, merchant_id, currency, subject, threshold, alert_type, \
                alert_level, window_id, current_used, max, usage_percent, message, raised_at, event_id, trace_id) \
            VALUES ($1, $2, 'USD', 'daily_amount', $3, $4, $5, (SELECT count(*) + 20990101 FROM quota_alert), $3 * 100, 10000, \
                $3::numeric + 0.125, 'Today''s amount has reached ' || $3 || ' % of its limit', now(), gen_random_uuid(), \
                '0af7651916cd43dd8448eb211c80319c')";
        let mut transaction = self.pool.begin().await?;
        sqlx::query(statement)
            .bind(id)
            .bind(alert.merchant)
            .bind(alert.threshold)
            .bind(alert.alert_type)
            .bind(alert.level)
            .execute(&mut *transaction)
            .await?;
        sqlx::query("SELECT pg_notify('sluice_alert', $1)").bind(id.to_string()).execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(id)
    }

    /// Ends an alert.
    pub(crate) async fn resolve(&self, id: Uuid) -> Result<()> {
        let statement = "UPDATE quota_alert SET resolved_at = now(), resolved_by = 'system', resolve_reason = 'refund' \
            WHERE alert_id = $1";
        sqlx::query(statement).bind(id).execute(&self.pool).await?;
        self.wake().await
    }

    /// Has a message sent again, as the API does it.
    pub(crate) async fn again(&self, message: Uuid) -> Result<()> {
        let give_up_secs = 86_400;
        let settings = Secret::new(self.postgres.url());
        let pool = sluice_kit::database::pool(&settings, 1)?;
        let filter = messages::Filter { message_id: Some(message), ..messages::Filter::default() };
        for message in messages::list(&pool, &filter, None, 1).await? {
            messages::redeliver(&pool, &message, "ana", give_up_secs).await?;
        }
        Ok(())
    }

    /// Says that there is something to do.
    pub(crate) async fn wake(&self) -> Result<()> {
        sqlx::query("SELECT pg_notify('sluice_alert', '')").execute(&self.pool).await?;
        Ok(())
    }

    /// Changes the tables.
    pub(crate) async fn sql(&self, statement: &'static str) -> Result<u64> {
        Ok(sqlx::query(statement).execute(&self.pool).await.context(statement)?.rows_affected())
    }

    /// One number from Postgres.
    pub(crate) async fn count(&self, sql: &'static str) -> Result<i64> {
        sqlx::query_scalar(sql).fetch_one(&self.pool).await.context(sql)
    }

    /// The rows of a query, as JSON.
    pub(crate) async fn rows(&self, sql: &'static str) -> Result<Value> {
        let query = format!("SELECT coalesce(json_agg(row_to_json(r)), '[]')::text FROM ({sql}) AS r");
        let text: String = sqlx::query_scalar(sqlx::AssertSqlSafe(query)).fetch_one(&self.pool).await.context(sql)?;
        Ok(serde_json::from_str(&text)?)
    }

    /// Waits until a query gives the number.
    pub(crate) async fn wait_for(&self, sql: &'static str, expected: i64) -> Result<()> {
        let waited =
            wait::until_async(sql, WITHIN, || async { Ok((self.count(sql).await? == expected).then_some(())) }).await;
        match waited {
            Ok(()) => Ok(()),
            Err(failure) => {
                let tables = "SELECT m.kind, m.channel_id, m.state, m.attempts, d.outcome, d.status, d.error \
                    FROM alert_message AS m LEFT JOIN alert_delivery AS d USING (message_id)";
                Err(failure.while_doing(format!("{:#}", self.rows(tables).await?)))
            }
        }
    }
}

fn launch(dir: &Arc<RunDir>, redis: &Redis, postgres: &Postgres, env: &[(&str, &str)]) -> Result<Server> {
    let own = [
        ("REDIS_URL", redis.url()),
        ("DATABASE_URL", postgres.url()),
        ("SLUICE_POLICY_FILE", dirs::workspace().join("deploy/policies.yaml").display().to_string()),
        ("JWT_SECRET", api::secret().to_owned()),
    ];
    let more = ENV.iter().chain(env).map(|(name, value)| (*name, (*value).to_owned()));
    let env: BTreeMap<String, String> =
        own.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value)).collect();
    let options = ServerOptions { program: build::server_bin(false)?, env, ..ServerOptions::default() };
    Server::start_in(Arc::clone(dir), options)
}

/// A version 7 UUID as the journal makes them; random is enough here.
fn new_id() -> Uuid {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).unwrap_or_default();
    Uuid::from_bytes(bytes)
}

/// A webhook channel.
pub(crate) fn webhook(id: &str, url: &str) -> Value {
    json!({"kind": "webhook", "id": id, "url": url, "secrets": [SECRET]})
}

/// Settings in which every alert goes to every channel at once.
pub(crate) fn all_to(channels: &[Value]) -> Value {
    let ids: Vec<&Value> = channels.iter().map(|channel| &channel["id"]).collect();
    json!({"channels": channels, "routes": [{"channels": ids}]})
}

/// The items of a list; none of anything else.
pub(crate) fn items(list: &Value) -> &[Value] {
    list.as_array().map(Vec::as_slice).unwrap_or_default()
}
