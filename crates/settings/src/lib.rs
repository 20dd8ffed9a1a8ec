//! The server's settings: one typed table, read from defaults, then a YAML file, then the environment.
//!
//! Everything is checked before anything starts: an unknown name, a value outside its range or two settings that
//! contradict each other are refused with the name as the operator wrote it. Some settings may change while the server
//! runs ([`Live`]), from a configuration service or the database ([`runtime`]).

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod error;
mod live;
mod mail;
mod published;
mod reference;
pub mod runtime;
mod source;
mod table;
#[cfg(test)]
mod tests;
mod value;

use std::path::PathBuf;
use std::time::Duration;

pub use error::SettingsError;
pub use live::{Live, Range, Setting};
pub use mail::{Mail, MailError};
pub use reference::{help, reference};
pub use source::{ConfigFile, Origin};
pub use table::{LiveSettings, Settings};
pub use value::{JwtAlgorithm, OptionalPort, Ratio, TracesSampler};

pub use sluice_kit::http::HttpUrl;
pub use sluice_kit::secret::Secret;
pub use sluice_kit::telemetry::LogFilter;

use source::Sources;

use sluice_kit::health::Addresses;
use sluice_kit::secret::REDACTED;
use sluice_kit::telemetry::Sampler;

/// Names the YAML file; the one setting that the file itself cannot contain.
pub const CONFIG_FILE_ENV: &str = "SLUICE_CONFIG_FILE";

/// HS256 requires a key of the hash's size (RFC 7518, section 3.2); a shorter one can be guessed from one token.
const JWT_SECRET_BYTES_MIN: usize = 32;

/// How to make one.
const MAKE_SECRET: &str = "openssl rand -base64 48";

/// Characters that need no escaping in any part of a URL (RFC 3986, unreserved).
const URL_UNRESERVED: &[u8] = b"-._~";

impl Settings {
    /// How long a stopping server still takes payments.
    #[must_use]
    pub const fn drain(&self) -> Duration {
        Duration::from_millis(self.drain_ms)
    }

    /// Which traces are recorded.
    #[must_use]
    pub fn sampler(&self) -> Sampler {
        // Every accepted name is one.
        Sampler::of(self.traces_sampler.as_str(), self.traces_sampler_arg.get()).unwrap_or(Sampler::BY_PARENT)
    }

    /// Reads this process's environment and the file that `config_flag` (`--config`) or `SLUICE_CONFIG_FILE` names. The
    /// environment is read nowhere else.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting and says what to do.
    pub fn from_process(config_flag: Option<PathBuf>) -> Result<Self, SettingsError> {
        let env = process_environment()?;
        let named = env.iter().find(|(name, _)| name == CONFIG_FILE_ENV).map(|(_, path)| PathBuf::from(path));
        let file = config_flag.or(named).map(ConfigFile::read).transpose()?;
        Self::load(env.into_iter(), file)
    }

    /// Reads settings from the given environment and file; a pure function of both.
    ///
    /// # Errors
    /// [`SettingsError`] names the setting and says what to do.
    pub fn load(env: impl Iterator<Item = (String, String)>, file: Option<ConfigFile>) -> Result<Self, SettingsError> {
        let sources = Sources::collect(env, file)?;
        refuse_both(&sources, "DATABASE_URL", &["DB_HOST", "DB_PORT", "DB_USER", "DB_PASSWORD", "DB_NAME"])?;
        refuse_both(&sources, "REDIS_URL", &["REDIS_HOST", "REDIS_PORT"])?;
        let settings = Self::read(&sources)?;
        settings.check()?;
        Ok(settings)
    }

    /// Whether file or environment name the setting, by its variable.
    #[must_use]
    pub fn is_set(&self, env: &str) -> bool {
        self.origins.contains_key(env)
    }

    /// The rules that hold between settings, and those of a text's form.
    fn check(&self) -> Result<(), SettingsError> {
        self.check_deadlines()?;
        self.check_schemes()?;
        self.check_mail()?;
        self.check_tokens()
    }

    /// Where Postgres is, as a URL with its password: `DATABASE_URL`, or one made of the `DB_*` settings.
    #[must_use]
    pub fn postgres_url(&self) -> Secret {
        if let Some(url) = &self.database_url {
            return url.clone();
        }
        let password = match self.db_password.expose() {
            "" => String::new(),
            password => format!(":{}", url_encode(password)),
        };
        let user = url_encode(&self.db_user);
        let (host, port, name) = (url_host(&self.db_host), self.db_port, url_encode(&self.db_name));
        Secret::new(format!("postgres://{user}{password}@{host}:{port}/{name}"))
    }

    /// Where Redis is, as a URL: `REDIS_URL`, or one made of `REDIS_HOST` and `REDIS_PORT`.
    #[must_use]
    pub fn redis_url(&self) -> Secret {
        match &self.redis_url {
            Some(url) => url.clone(),
            None => Secret::new(format!("redis://{}:{}/", url_host(&self.redis_host), self.redis_port)),
        }
    }

    /// The settings that a file or the environment names, as `NAME=value`; secrets are masked.
    #[must_use]
    pub fn named(&self) -> Vec<String> {
        let named = table::SPECS.iter().filter(|spec| self.origins.contains_key(spec.env));
        named.filter_map(|spec| Some(format!("{}={}", spec.env, self.show(spec)?))).collect()
    }

    /// The addresses of all dependencies of the server, without secrets.
    #[must_use]
    pub fn addresses(&self) -> Addresses {
        let service = self.policy_service_url.as_ref().map(|url| endpoint(url.as_str()));
        Addresses {
            redis: endpoint(self.redis_url().expose()),
            postgres: endpoint(self.postgres_url().expose()),
            policy_service: service.unwrap_or_default(),
        }
    }

    /// Deadlines nest: a check that ends before its store call does would leave the answer unknown.
    fn check_deadlines(&self) -> Result<(), SettingsError> {
        if self.check_timeout_ms > self.redis_timeout_ms {
            return Ok(());
        }
        Err(SettingsError::Nesting {
            outer: "SLUICE_CHECK_TIMEOUT_MS",
            outer_ms: self.check_timeout_ms,
            inner: "SLUICE_REDIS_TIMEOUT_MS",
            inner_ms: self.redis_timeout_ms,
        })
    }

    /// One algorithm has one kind of key; the other kind beside it would look as if it were used.
    fn check_tokens(&self) -> Result<(), SettingsError> {
        let by_secret = self.jwt_algorithm == JwtAlgorithm::Hs256;
        let needs = match (by_secret, &self.jwt_secret, &self.jwt_jwks) {
            (true, _, Some(_)) => "takes no keys of SLUICE_JWT_JWKS: set RS256 or ES256, or remove SLUICE_JWT_JWKS",
            (false, Some(_), _) => "takes no JWT_SECRET: set HS256, or remove JWT_SECRET",
            (false, None, None) => "needs SLUICE_JWT_JWKS: set it to the file or URL of the keys",
            (true, Some(secret), None) => return check_secret(secret),
            (true, None, None) | (false, None, Some(_)) => return Ok(()),
        };
        let value = self.jwt_algorithm.into_str().to_owned();
        Err(SettingsError::Needs { name: "SLUICE_JWT_ALGORITHM", value, needs })
    }

    /// The mail server of alerts; none where the settings name none.
    ///
    /// # Errors
    /// [`MailError`] for settings that cannot be used; those that were loaded can.
    pub fn mail(&self) -> Result<Option<Mail>, MailError> {
        Mail::new(self.smtp_url.as_ref(), self.smtp_from.as_deref())
    }

    fn check_mail(&self) -> Result<(), SettingsError> {
        self.mail().map(drop).map_err(SettingsError::Mail)
    }

    fn check_schemes(&self) -> Result<(), SettingsError> {
        check_scheme("DATABASE_URL", self.database_url.as_ref(), &["postgres", "postgresql"])?;
        check_scheme("REDIS_URL", self.redis_url.as_ref(), &["redis", "valkey", "redis+unix", "valkey+unix", "unix"])
    }
}

/// Tokens are only as safe as their secret: a short one is guessed from one token, and with a published one anyone can sign.
fn check_secret(secret: &Secret) -> Result<(), SettingsError> {
    let expected = if secret.expose().len() < JWT_SECRET_BYTES_MIN {
        format!("at least {JWT_SECRET_BYTES_MIN} bytes long")
    } else if published::is_known(secret.expose()) {
        "a secret: this one is an example, is in public files or is easily guessed".to_owned()
    } else {
        return Ok(());
    };
    let (name, value) = ("JWT_SECRET".to_owned(), REDACTED.to_owned());
    Err(SettingsError::Invalid { name, value, expected: format!("{expected}. Make one: {MAKE_SECRET}") })
}

/// The directory of time zones that the environment names, for commands that need no other setting.
///
/// # Errors
/// [`SettingsError`] where it is no text.
pub fn tzdir() -> Result<Option<PathBuf>, SettingsError> {
    let env = process_environment()?;
    Ok(env.into_iter().find(|(name, _)| name == "TZDIR").map(|(_, path)| PathBuf::from(path)))
}

/// The environment as text. A variable that is not UTF-8 is refused only where it is one of ours.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn process_environment() -> Result<Vec<(String, String)>, SettingsError> {
    let mut env = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Ok(name) = name.into_string() else { continue };
        match value.into_string() {
            Ok(value) => env.push((name, value)),
            Err(_) if source::is_ours(&name) => return Err(SettingsError::NotText { name }),
            Err(_) => {}
        }
    }
    Ok(env)
}

fn refuse_both(sources: &Sources, whole: &'static str, parts: &[&'static str]) -> Result<(), SettingsError> {
    match parts.iter().find(|part| sources.is_set(whole) && sources.is_set(part)) {
        Some(part) => Err(SettingsError::Conflict { one: whole, other: part }),
        None => Ok(()),
    }
}

fn check_scheme(name: &'static str, url: Option<&Secret>, schemes: &[&str]) -> Result<(), SettingsError> {
    let Some(url) = url else { return Ok(()) };
    let scheme = url.expose().split_once("://").map(|(scheme, _)| scheme);
    if scheme.is_some_and(|scheme| schemes.contains(&scheme)) {
        return Ok(());
    }
    let prefixes: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://")).collect();
    let expected = format!("a URL that starts with one of {}", prefixes.join(", "));
    Err(SettingsError::Invalid { name: name.to_owned(), value: REDACTED.to_owned(), expected })
}

/// The host and port of a URL, or a socket's path, without credentials and parameters.
fn endpoint(url: &str) -> String {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let (authority, path) = rest.find(['/', '?', '#']).map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if host.is_empty() { path.split(['?', '#']).next().unwrap_or_default().to_owned() } else { host.to_owned() }
}

/// An IPv6 address is put in brackets; every other host stays as it is.
fn url_host(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { url_encode(host) }
}

fn url_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || URL_UNRESERVED.contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
