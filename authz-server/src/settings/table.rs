//! The one table of settings. Each entry gives a setting's field, type, default, range, variable and meaning once; the
//! struct, the reader, `--help` and `docs/settings.md` are made from it. The file key is the field's name.

use std::net::IpAddr;
use std::path::PathBuf;

use super::error::SettingsError;
use super::source::Sources;
use super::value::{self, LogFilter, Secret, Value};

/// A setting as the table declares it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spec {
    /// The variable's name.
    pub env: &'static str,
    /// The key in the file.
    pub key: &'static str,
    /// The value where neither file nor environment has one.
    pub default: Option<&'static str>,
    /// Smallest and largest accepted value of a number.
    pub range: Option<(u64, u64)>,
    /// Never printed.
    pub secret: bool,
    /// May be left out although it has no default.
    pub optional: bool,
    /// What it is for, in sentences.
    pub doc: &'static str,
}

macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty $(= $default:literal)? $(, range $min:literal to $max:literal)?, env $env:literal;
    )+) => {
        /// The server's settings; see `docs/settings.md` for the same as a table.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $field: $type,)+
        }

        /// Every setting, in the order of the reference.
        pub(super) const SPECS: &[Spec] = &[$(Spec {
            env: $env,
            key: stringify!($field),
            default: settings!(@optional $($default)?),
            range: settings!(@optional $(($min, $max))?),
            secret: <$type as Value>::SECRET,
            optional: <$type as Value>::OPTIONAL,
            doc: concat!($($doc),+),
        }),+];

        impl Settings {
            /// Reads every setting; the first bad one is the error.
            pub(super) fn read(sources: &Sources) -> Result<Self, SettingsError> {
                let mut specs = SPECS.iter();
                Ok(Self {
                    // The struct's fields are read in the table's order, so the iterator stands at the field's own entry.
                    $($field: match specs.next() {
                        Some(spec) => value::read::<$type>(spec, sources.found(spec.env))?,
                        None => return Err(SettingsError::Missing { name: $env, doc: "" }),
                    },)+
                })
            }
        }
    };
    (@optional) => { None };
    (@optional $value:expr) => { Some($value) };
}

settings! {
    /// Port of the admin API, `/health`, `/ready` and `/metrics`. 0 takes any free port.
    port: u16 = "40022", range 0 to 65535, env "PORT";
    /// Port of the ext_authz service that Envoy calls. 0 takes any free port.
    grpc_port: u16 = "40023", range 0 to 65535, env "GRPC_PORT";
    /// Address that both ports are bound to.
    bind: IpAddr = "0.0.0.0", env "SLUICE_BIND";
    /// Postgres as a URL, `postgres://user:password@host:port/name`. It excludes the `DB_*` settings.
    database_url: Option<Secret>, env "DATABASE_URL";
    /// Host of Postgres.
    db_host: String = "127.0.0.1", env "DB_HOST";
    /// Port of Postgres.
    db_port: u16 = "5432", range 1 to 65535, env "DB_PORT";
    /// User that owns the journal's tables.
    db_user: String = "postgres", env "DB_USER";
    /// Password of that user; empty for none.
    db_password: Secret = "", env "DB_PASSWORD";
    /// Database that holds the journal.
    db_name: String = "sluice", env "DB_NAME";
    /// Redis or Valkey as a URL, `redis://user:password@host:port/0`. It excludes `REDIS_HOST` and `REDIS_PORT`.
    redis_url: Option<Secret>, env "REDIS_URL";
    /// Host of Redis.
    redis_host: String = "127.0.0.1", env "REDIS_HOST";
    /// Port of Redis.
    redis_port: u16 = "6379", range 1 to 65535, env "REDIS_PORT";
    /// The policy document (YAML). Without one there are no limits to enforce, so the server does not start.
    policy_file: PathBuf, env "SLUICE_POLICY_FILE";
    /// The extraction rules (JSON) for Envoy's native ext_authz filter, the same format as the proxy filter's
    /// configuration. Without it only the proxy filter's calls are answered.
    rules_file: Option<PathBuf>, env "SLUICE_RULES_FILE";
    /// Number of shards that merchants fall into. It is recorded in Redis at the first start and cannot change after.
    shards: u16 = "64", range 1 to 1024, env "SLUICE_SHARDS";
    /// How long one call of Redis may take, in milliseconds.
    redis_timeout_ms: u64 = "150", range 5 to 10000, env "SLUICE_REDIS_TIMEOUT_MS";
    /// How long one check may take, in milliseconds: more than the Redis timeout, and less than the proxy filter's own.
    check_timeout_ms: u64 = "250", range 10 to 20000, env "SLUICE_CHECK_TIMEOUT_MS";
    /// How long an order is remembered, in seconds: a retry within this time is not charged again. 1 hour to 400 days.
    order_ttl_secs: u64 = "604800", range 3600 to 34560000, env "SLUICE_ORDER_TTL_SECS";
    /// Events that one shard may hold while Postgres is away. At this bound new charges are refused rather than lost. Redis
    /// needs some 500 bytes for each: room for this many times the number of shards, or a smaller bound.
    backlog_events_max: u64 = "100000", range 1000 to 10000000, env "SLUICE_BACKLOG_EVENTS_MAX";
    /// Most journal rows that go to Postgres in one transaction.
    journal_batch_rows_max: u64 = "2000", range 1 to 10000, env "SLUICE_JOURNAL_BATCH_ROWS_MAX";
    /// After how many milliseconds the journal takes over events that another server's process read and never finished.
    journal_claim_idle_ms: u64 = "30000", range 1000 to 3600000, env "SLUICE_JOURNAL_CLAIM_IDLE_MS";
    /// What is logged, as in `info` or `info,authz_server=debug`.
    log: LogFilter = "info", env "SLUICE_LOG";
}
