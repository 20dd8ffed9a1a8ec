//! What every test here stands on: private Redis and Postgres, servers on them, and a client of the API.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sqlx::PgPool;
use testkit::api::{PATIENCE, secret};
use testkit::client::{Answer, Call, Protocol, send_once};
use testkit::dirs::{self, RunDir};
use testkit::postgres::Postgres;
use testkit::redis::Redis;
use testkit::server::{Server, ServerOptions};
use testkit::{Context, Result, build, wait};

use crate::keys::{Signer, claims};

/// How long anything may take to come true.
pub(crate) const WITHIN: Duration = Duration::from_secs(30);

/// Redis, Postgres and a server.
pub(crate) struct Bench {
    pub(crate) server: Server,
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
    dir: Arc<RunDir>,
}

impl Bench {
    /// A server that takes tokens signed with [`secret`].
    pub(crate) fn start() -> Result<Self> {
        Self::with(&[("JWT_SECRET", secret())])
    }

    /// A server with more environment.
    pub(crate) fn with(env: &[(&str, &str)]) -> Result<Self> {
        let dir = RunDir::new("admin")?;
        let (redis, postgres) = (Redis::start_in(Arc::clone(&dir))?, Postgres::start_in(Arc::clone(&dir), false)?);
        let server = launch(&dir, &redis, &postgres, env)?;
        Ok(Self { server, postgres, redis, dir })
    }

    /// Another server on the same Redis and Postgres.
    pub(crate) fn another(&self, env: &[(&str, &str)]) -> Result<Server> {
        launch(&self.dir, &self.redis, &self.postgres, env)
    }

    /// The run folder.
    pub(crate) fn dir(&self) -> Arc<RunDir> {
        Arc::clone(&self.dir)
    }

    /// The policy document that servers read.
    pub(crate) fn policies(&self) -> PathBuf {
        self.dir.join("policies.yaml")
    }

    pub(crate) async fn pool(&self) -> Result<PgPool> {
        self.postgres.pool().await
    }

    /// One number from Postgres.
    pub(crate) async fn count(&self, sql: &'static str) -> Result<i64> {
        let pool = self.pool().await?;
        let count = sqlx::query_scalar(sql).fetch_one(&pool).await;
        pool.close().await;
        Ok(count?)
    }

    /// Waits until a query gives the number.
    pub(crate) async fn wait_for(&self, sql: &'static str, expected: i64) -> Result<()> {
        wait::until_async(sql, WITHIN, || async { Ok((self.count(sql).await? == expected).then_some(())) }).await
    }

    pub(crate) async fn get(&self, path: &str, token: &str) -> Result<Answer> {
        ask(&self.server, Call::new("GET", path), token).await
    }

    pub(crate) async fn post(&self, path: &str, token: &str, body: &Value) -> Result<Answer> {
        ask(&self.server, Call::post_json(path, body.to_string()), token).await
    }

    pub(crate) async fn delete(&self, path: &str, token: &str) -> Result<Answer> {
        ask(&self.server, Call::new("DELETE", path), token).await
    }
}

fn launch(dir: &Arc<RunDir>, redis: &Redis, postgres: &Postgres, env: &[(&str, &str)]) -> Result<Server> {
    let policies = dirs::workspace().join("deploy/policies.yaml");
    let file = dir.join("policies.yaml");
    fs::copy(&policies, &file).context("deploy/policies.yaml")?;
    let mut all = BTreeMap::from([
        ("REDIS_URL".to_owned(), redis.url()),
        ("DATABASE_URL".to_owned(), postgres.url()),
        ("SLUICE_POLICY_FILE".to_owned(), file.display().to_string()),
        ("SLUICE_SHARDS".to_owned(), "4".to_owned()),
    ]);
    all.extend(PATIENCE.iter().chain(env).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let options = ServerOptions { program: build::server_bin(false)?, env: all, ..ServerOptions::default() };
    Server::start_in(Arc::clone(dir), options)
}

/// Sends a call with a bearer token.
pub(crate) async fn ask(server: &Server, call: Call, token: &str) -> Result<Answer> {
    let call = call.header("authorization", &format!("Bearer {token}"));
    send_once(server.admin_address(), Protocol::Http1, call).await
}

/// A token of a role, signed with [`secret`].
pub(crate) fn token(role: &str) -> Result<String> {
    Signer::secret(secret()).sign(&claims(role))
}

/// An answer's field, by JSON pointer.
pub(crate) fn field(answer: &Answer, pointer: &str) -> String {
    match answer.json().pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    }
}
