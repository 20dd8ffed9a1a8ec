//! The admin API of a real server with real Redis and Postgres behind it, without Envoy, and its callers with their tokens.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use crate::build;
use crate::client::{Answer, Call, Protocol, send_once};
use crate::dirs::RunDir;
use crate::failure::{Context, Failure, Result};
use crate::postgres::Postgres;
use crate::redis::Redis;
use crate::server::{Server, ServerOptions};

/// Where the API begins.
pub const ROOT: &str = "/api/v1";
/// 1 January 2100: no token runs out while a test does.
pub const EXPIRES_AT_SECS: u64 = 4_102_444_800;
/// So much time for an answer that a busy machine is not taken for a store that hangs.
pub const PATIENCE: [(&str, &str); 2] = [("SLUICE_REDIS_TIMEOUT_MS", "8000"), ("SLUICE_CHECK_TIMEOUT_MS", "9000")];

/// What signs the callers' tokens: drawn by each process, because the server takes no secret that stands in a file.
#[must_use]
pub fn secret() -> &'static str {
    static SECRET: LazyLock<String> = LazyLock::new(|| {
        let mut bytes = [0_u8; 32];
        // Without randomness the text is one that the server refuses, and every test says so.
        let _ = getrandom::fill(&mut bytes);
        bytes.map(|byte| format!("{byte:02x}")).concat()
    });
    &SECRET
}

/// A running server with its stores. Its parts are public: tests look into them, and stop them.
#[derive(Debug)]
pub struct Api {
    pub server: Server,
    pub postgres: Postgres,
    pub redis: Redis,
    dir: Arc<RunDir>,
}

impl Api {
    /// Starts everything, with a policy document and more environment for the server.
    ///
    /// # Errors
    /// When a part cannot be built, found or started; the logs are kept then.
    pub fn start(policies: &str, env: &[(&str, &str)]) -> Result<Self> {
        let dir = RunDir::new("api")?;
        Self::start_in(&dir, policies, env).inspect_err(|_| dir.keep())
    }

    fn start_in(dir: &Arc<RunDir>, policies: &str, env: &[(&str, &str)]) -> Result<Self> {
        let program = build::server_bin(false)?;
        let (redis, postgres) = std::thread::scope(|scope| {
            let postgres = scope.spawn(|| Postgres::start_in(Arc::clone(dir), false));
            let redis = Redis::start_in(Arc::clone(dir));
            let postgres = postgres.join().map_err(|_| Failure::new("the thread that started Postgres died"))?;
            Ok::<_, Failure>((redis?, postgres?))
        })?;
        let policy_file = dir.join("policies.yaml");
        std::fs::write(&policy_file, policies)?;
        let own = [
            ("REDIS_URL", redis.url()),
            ("DATABASE_URL", postgres.url()),
            ("SLUICE_POLICY_FILE", policy_file.display().to_string()),
            ("JWT_SECRET", secret().to_owned()),
        ];
        let more = PATIENCE.iter().chain(env).map(|(name, value)| (*name, (*value).to_owned()));
        let env: BTreeMap<String, String> =
            own.into_iter().chain(more).map(|(name, value)| (name.to_owned(), value)).collect();
        let server = Server::start_in(Arc::clone(dir), ServerOptions { program, env, ..ServerOptions::default() })?;
        Ok(Self { server, postgres, redis, dir: Arc::clone(dir) })
    }

    /// The run folder with all logs.
    #[must_use]
    pub fn dir(&self) -> &RunDir {
        &self.dir
    }

    /// A caller with the role `admin`, named `ana`.
    ///
    /// # Errors
    /// When the token cannot be signed.
    pub fn admin(&self) -> Result<Caller> {
        self.caller(json!({"sub": "ana", "role": "admin"}))
    }

    /// A caller with the role `operator`, named `oleg`.
    ///
    /// # Errors
    /// When the token cannot be signed.
    pub fn operator(&self) -> Result<Caller> {
        self.caller(json!({"sub": "oleg", "role": "operator"}))
    }

    /// A caller with the role `merchant`, which sees one merchant.
    ///
    /// # Errors
    /// When the token cannot be signed.
    pub fn merchant(&self, merchant: &str) -> Result<Caller> {
        self.caller(json!({"sub": format!("{merchant}-shop"), "role": "merchant", "merchant_id": merchant}))
    }

    /// A caller by the token's claims; they run out in 2100 where they do not say.
    ///
    /// # Errors
    /// When the token cannot be signed.
    pub fn caller(&self, mut claims: Value) -> Result<Caller> {
        if claims.get("exp").is_none() {
            claims["exp"] = EXPIRES_AT_SECS.into();
        }
        Ok(self.bearer(&sign(secret(), &claims)?))
    }

    /// A caller with any text for a token.
    #[must_use]
    pub fn bearer(&self, token: &str) -> Caller {
        Caller { address: self.server.admin_address(), token: Some(token.to_owned()) }
    }

    /// A caller without credentials.
    #[must_use]
    pub fn anonymous(&self) -> Caller {
        Caller { address: self.server.admin_address(), token: None }
    }
}

/// A token (HS256) with the claims.
///
/// # Errors
/// When it cannot be signed.
pub fn sign(secret: &str, claims: &Value) -> Result<String> {
    let key = EncodingKey::from_secret(secret.as_bytes());
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).context("signing a token")
}

/// Who asks, each time over a connection of its own. Paths are those after `/api/v1`.
#[derive(Clone, Debug)]
pub struct Caller {
    address: SocketAddr,
    token: Option<String>,
}

impl Caller {
    /// A caller of an API with a token, also of one that runs elsewhere.
    #[must_use]
    pub fn new(address: SocketAddr, token: &str) -> Self {
        Self { address, token: Some(token.to_owned()) }
    }

    /// The bearer token.
    #[must_use]
    pub fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// GET.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn get(&self, path: &str) -> Result<Answer> {
        self.send(Call::new("GET", path)).await
    }

    /// POST with a JSON body.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer> {
        self.send(Call::post_json(path, body.to_string())).await
    }

    /// Any call, with the caller's token.
    ///
    /// # Errors
    /// When no answer comes.
    pub async fn send(&self, mut call: Call) -> Result<Answer> {
        call.path = format!("{ROOT}{}", call.path);
        if let Some(token) = &self.token {
            call = call.header("authorization", &format!("Bearer {token}"));
        }
        let what = format!("{} {}", call.method, call.path);
        send_once(self.address, Protocol::Http1, call).await.context(what)
    }
}

/// Checks an answer's status and that its body has these members, however deep; gives the body.
///
/// # Panics
/// When it has not: in the name of the test that calls.
#[track_caller]
pub fn expect(answer: &Answer, status: u16, members: &Value) -> Value {
    let body = answer.json();
    let text = String::from_utf8_lossy(&answer.body);
    assert_eq!(answer.status, status, "{text}");
    let differences = differences("", &body, members);
    assert!(differences.is_empty(), "{differences:#?}\nin {text}");
    if status >= 400 {
        assert_eq!(answer.header("content-type"), Some(proto::PROBLEM_CONTENT_TYPE), "{text}");
        assert_eq!(body["status"], status, "{text}");
    }
    body
}

/// Where `found` lacks something of `expected`: members of objects may be more, lists must be as long.
#[must_use]
pub fn differences(place: &str, found: &Value, expected: &Value) -> Vec<String> {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let nothing = Value::Null;
            let each = expected.iter().map(|(name, value)| (name, found.get(name).unwrap_or(&nothing), value));
            each.flat_map(|(name, found, value)| differences(&format!("{place}/{name}"), found, value)).collect()
        }
        (Value::Array(found), Value::Array(expected)) if found.len() == expected.len() => {
            let each = found.iter().zip(expected).enumerate();
            each.flat_map(|(at, (found, value))| differences(&format!("{place}/{at}"), found, value)).collect()
        }
        (found, expected) if found == expected => Vec::new(),
        (found, expected) => vec![format!("{place} is {found}, expected {expected}")],
    }
}
