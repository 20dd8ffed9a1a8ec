//! The one table of settings. Each entry gives a setting's field, type, default, range, variable and meaning once; the structs,
//! the reader, `--help` and `docs/settings.md` are made from it. The file key is the field's name. A row that ends with `live`
//! may change while the server runs: it is in [`LiveSettings`] too, and its users read it there.

use std::net::IpAddr;
use std::path::PathBuf;

use super::error::SettingsError;
use super::source::{Found, Origins, Sources};
use super::value::{self, JwtAlgorithm, OptionalPort, Ratio, TracesSampler, Value};
use sluice_kit::http::{HttpUrl, Networks};
use sluice_kit::secret::Secret;
use sluice_kit::telemetry::LogFilter;

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
    /// May change while the server runs.
    pub live: bool,
    /// What it is for, in sentences.
    pub doc: &'static str,
}

/// Settings that have another name now: each with the variable and the key of before and of now. Those of before are read for one
/// more release.
const RENAMED: [[(&str, &str); 2]; 1] =
    [[("SLUICE_JOURNAL_CLAIM_IDLE_MS", "SLUICE_JOURNAL_LEASE_MS"), ("journal_claim_idle_ms", "journal_lease_ms")]];

/// The present name of a setting's variable or key.
pub(super) fn present_name(name: &str) -> &str {
    RENAMED.iter().flatten().find(|(former, _)| *former == name).map_or(name, |(_, present)| present)
}

macro_rules! settings {
    ($(
        $(#[doc = $doc:literal])+
        $field:ident: $type:ty $(= $default:literal)? $(, range $min:literal to $max:literal)?, env $env:literal
        $(, $live:ident)?;
    )+) => {
        /// The server's settings as they stand at the start; see `docs/settings.md` for the same as a table.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($(#[doc = $doc])+ pub $field: $type,)+
            /// Where each value came from.
            pub(super) origins: Origins,
        }

        /// Every setting, in the order of the reference.
        pub(super) const SPECS: &[Spec] = &[$(Spec {
            env: $env,
            key: stringify!($field),
            default: settings!(@optional $($default)?),
            range: settings!(@optional $(($min, $max))?),
            secret: <$type as Value>::SECRET,
            optional: <$type as Value>::OPTIONAL,
            live: settings!(@live $($live)?),
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
                    origins: sources.origins(),
                })
            }

            /// Puts the text in the place of the setting's value; whether it may be changed is for the caller to know.
            pub(super) fn set(&mut self, spec: &Spec, found: &Found) -> Result<(), SettingsError> {
                match spec.env {
                    $($env => self.$field = value::read::<$type>(spec, Some(found))?,)+
                    name => return Err(SettingsError::Missing { name: spec.env, doc: name }),
                }
                Ok(())
            }

            /// The setting's value as text; none where it has none. Secrets show as such.
            pub(super) fn show(&self, spec: &Spec) -> Option<String> {
                match spec.env {
                    $($env => self.$field.show(),)+
                    _ => None,
                }
            }
        }

        live_settings! { [] $(
            $(#[doc = $doc])+ $field: $type, $($live)?;
        )+ }
    };
    (@optional) => { None };
    (@optional $value:expr) => { Some($value) };
    (@live) => { false };
    (@live live) => { true };
}

/// Makes [`LiveSettings`] of the rows that end with `live`: takes one row after the other from the right to the left list.
macro_rules! live_settings {
    ([$($(#[doc = $doc:literal])+ $field:ident: $type:ty;)*]) => {
        /// The settings that may change while the server runs, as they stand now. A snapshot: take a new one for each piece
        /// of work.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct LiveSettings {
            $($(#[doc = $doc])+ pub $field: $type,)*
        }

        impl From<&Settings> for LiveSettings {
            fn from(settings: &Settings) -> Self {
                Self { $($field: settings.$field.clone(),)* }
            }
        }
    };
    ([$($done:tt)*] $(#[doc = $doc:literal])+ $field:ident: $type:ty, live; $($rest:tt)*) => {
        live_settings! { [$($done)* $(#[doc = $doc])+ $field: $type;] $($rest)* }
    };
    ([$($done:tt)*] $(#[doc = $doc:literal])+ $field:ident: $type:ty, ; $($rest:tt)*) => {
        live_settings! { [$($done)*] $($rest)* }
    };
}

settings! {
    /// Port of the admin API, `/health`, `/ready` and `/metrics`. 0 takes any free port.
    port: u16 = "40022", range 0 to 65535, env "PORT";
    /// Port of the ext_authz service that Envoy calls, on `SLUICE_GRPC_BIND`. 0 takes any free port.
    grpc_port: u16 = "40023", range 0 to 65535, env "GRPC_PORT";
    /// Port that answers `/health`, `/ready`, `/ready/payments` and `/metrics` and nothing else, on `SLUICE_BIND`: whatever callers do
    /// to the API, probes are answered here. The API's port answers them as well. 0 takes any free port, `off` opens none. Where
    /// the default cannot be had, as beside another server, there is a warning and no such port.
    probe_port: OptionalPort = "40024", env "SLUICE_PROBE_PORT";
    /// Threads that decide, each with its own listener, runtime and connection to Redis. One is fastest where Envoy, Redis and the
    /// server share few cores. The kernel spreads connections over them, so more threads than connections from Envoy's workers
    /// are of no use.
    grpc_threads: u16 = "1", range 1 to 256, env "SLUICE_GRPC_THREADS";
    /// Address that the admin API's port is bound to.
    bind: IpAddr = "0.0.0.0", env "SLUICE_BIND";
    /// Address that the ext_authz port is bound to. Any caller that reaches that port can charge, void and refund without a token: bind
    /// it wider than loopback only where no one but Envoy reaches it, as inside of a pod or of a container network.
    grpc_bind: IpAddr = "127.0.0.1", env "SLUICE_GRPC_BIND";
    /// Path of a Unix socket on which the ext_authz service is open as well, for a proxy on the same host. Its owner and group may
    /// connect (mode 0660). The file is made at the start and removed at the stop, and a file with the ending `.lock` stays beside
    /// it; two servers need two paths.
    grpc_socket: Option<PathBuf>, env "SLUICE_GRPC_SOCKET";
    /// Postgres as a URL, `postgres://user:password@host:port/name`. It excludes the `DB_*` settings. The database must be of
    /// version 13 or newer, in UTF8 and writable, its user must be able to make tables in its schema, and a pooler in between must
    /// pool sessions, not transactions; `/ready` says what is amiss.
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
    /// The policy document (YAML). It may be left out where `POLICY_SERVICE_URL` is set or policies are active in Postgres: a
    /// server without any does not start.
    policy_file: Option<PathBuf>, env "SLUICE_POLICY_FILE";
    /// The directory of the IANA time zone database that policies' zones are read from. Without it the first one that exists of
    /// `/usr/share/zoneinfo`, `/usr/share/lib/zoneinfo` and `/etc/zoneinfo`, unless it is older than the data that is compiled in.
    tzdir: Option<PathBuf>, env "TZDIR";
    /// The extraction rules (JSON) for Envoy's native ext_authz filter, the same format as the proxy filter's
    /// configuration. Without it only the proxy filter's calls are answered.
    rules_file: Option<PathBuf>, env "SLUICE_RULES_FILE";
    /// Number of shards that merchants fall into. It is recorded in Redis at the first start and cannot change after.
    shards: u16 = "64", range 1 to 1024, env "SLUICE_SHARDS";
    /// Decides although Redis may evict keys, which forgets what merchants have used (`maxmemory` with another `maxmemory-policy` than
    /// `noeviction`). Without it such a Redis counts as away.
    redis_allow_eviction: bool = "false", env "SLUICE_REDIS_ALLOW_EVICTION";
    /// How long one call of Redis may take, in milliseconds.
    redis_timeout_ms: u64 = "150", range 5 to 10000, env "SLUICE_REDIS_TIMEOUT_MS", live;
    /// How long one check may take, in milliseconds: more than the Redis timeout, and less than the proxy filter's own.
    check_timeout_ms: u64 = "250", range 10 to 20000, env "SLUICE_CHECK_TIMEOUT_MS", live;
    /// How long an order is remembered, in seconds: a retry within this time is not charged again. 1 hour to 400 days.
    order_ttl_secs: u64 = "604800", range 3600 to 34560000, env "SLUICE_ORDER_TTL_SECS", live;
    /// Events that one shard may hold while Postgres is away. At this bound new charges are refused rather than lost. Redis
    /// needs some 500 bytes for each: room for this many times the number of shards, or a smaller bound.
    backlog_events_max: u64 = "100000", range 1000 to 10000000, env "SLUICE_BACKLOG_EVENTS_MAX", live;
    /// Most journal rows that go to Postgres in one transaction.
    journal_batch_rows_max: u64 = "2000", range 1 to 10000, env "SLUICE_JOURNAL_BATCH_ROWS_MAX", live;
    /// After how many milliseconds without a sign of life from the server whose journal reads another one's takes over.
    journal_lease_ms: u64 = "5000", range 1000 to 3600000, env "SLUICE_JOURNAL_LEASE_MS", live;
    /// How often holds that have run out are looked for, in milliseconds.
    hold_sweep_ms: u64 = "1000", range 100 to 60000, env "SLUICE_HOLD_SWEEP_MS", live;
    /// How often windows that are over are looked for, in seconds, so that the last figures of a merchant without further
    /// traffic are recorded too.
    window_sweep_secs: u64 = "600", range 10 to 86400, env "SLUICE_WINDOW_SWEEP_SECS", live;
    /// How often accounts are looked for whose usage has crossed a threshold without a payment, in seconds, as where a limit was
    /// lowered.
    threshold_sweep_secs: u64 = "300", range 10 to 86400, env "SLUICE_THRESHOLD_SWEEP_SECS", live;
    /// After how many seconds without an answer from Redis operators are alerted.
    degraded_store_secs: u64 = "10", range 1 to 3600, env "SLUICE_DEGRADED_STORE_SECS", live;
    /// For how many milliseconds a server that is asked to stop (SIGTERM) still takes payments after it has reported in gRPC health and
    /// `/ready/payments` that it will not: longer than proxies and load balancers take to notice.
    drain_ms: u64 = "5000", range 0 to 60000, env "SLUICE_DRAIN_MS";
    /// True while servers of the release before are running beside this one: values in Redis that have their format keep it, so that
    /// they can read them. Set it before a rolling upgrade, and to false when the last of them has stopped.
    rolling_upgrade: bool = "false", env "SLUICE_ROLLING_UPGRADE", live;
    /// By how many milliseconds this server's clock may differ from Redis', in either direction. Beyond it the server neither
    /// decides nor sweeps, and `/ready` says so: `clock`.
    clock_skew_ms_max: u64 = "5000", range 100 to 60000, env "SLUICE_CLOCK_SKEW_MS_MAX", live;
    /// The external policy service: `GET <this>/api/v1/limit-policies/effective` is asked for each account's limits.
    policy_service_url: Option<HttpUrl>, env "POLICY_SERVICE_URL";
    /// How often policies in use are read again from where they come, in seconds.
    policy_refresh_secs: u64 = "30", range 1 to 3600, env "SLUICE_POLICY_REFRESH_SECS", live;
    /// The secret that signs the admin API's bearer tokens with HS256, 32 bytes at least, as `openssl rand -base64 48` makes one.
    /// Published examples are refused.
    jwt_secret: Option<Secret>, env "JWT_SECRET";
    /// How the admin API's bearer tokens are signed: `HS256` by `JWT_SECRET`, `RS256` or `ES256` by a key of
    /// `SLUICE_JWT_JWKS`. A token that is signed in another way is refused.
    jwt_algorithm: JwtAlgorithm = "HS256", env "SLUICE_JWT_ALGORITHM";
    /// The keys that bearer tokens are checked with, as a JSON Web Key Set (RFC 7517): a file, or an `http://` or `https://`
    /// URL.
    jwt_jwks: Option<String>, env "SLUICE_JWT_JWKS";
    /// The audience that a bearer token must name. Without one any is taken.
    jwt_audience: Option<String>, env "SLUICE_JWT_AUDIENCE";
    /// The issuer that a bearer token must name. Without one any is taken.
    jwt_issuer: Option<String>, env "SLUICE_JWT_ISSUER";
    /// Largest body of a request to the admin API, in bytes.
    admin_body_bytes_max: u64 = "1048576", range 1024 to 16777216, env "SLUICE_ADMIN_BODY_BYTES_MAX";
    /// Most items on one page of a list of the admin API.
    admin_page_max: u64 = "200", range 1 to 1000, env "SLUICE_ADMIN_PAGE_MAX", live;
    /// Requests that one caller may make to the admin API in a minute.
    admin_rate_per_minute: u64 = "6000", range 1 to 1000000, env "SLUICE_ADMIN_RATE_PER_MINUTE", live;
    /// Connections to the admin API that one client (an IPv4 address, or a /64 of IPv6) may have at a time. One more takes the place
    /// of the one that is idle longest; where all are in use it gets probes only.
    admin_connections_per_client: u64 = "128", range 1 to 512, env "SLUICE_ADMIN_CONNECTIONS_PER_CLIENT";
    /// Whether `/metrics` shows series of single merchants (`quota_usage_rate`) to everybody who reaches it. Otherwise it takes the
    /// token of a caller that may see all merchants, as Prometheus sends it with `authorization`.
    metrics_merchants: bool = "false", env "SLUICE_METRICS_MERCHANTS", live;
    /// Live streams that a server has open at a time.
    streams_max: u64 = "64", range 0 to 1000, env "SLUICE_STREAMS_MAX", live;
    /// After how many seconds a live stream without events shows that it is there; the caller's token is looked at as often.
    stream_heartbeat_secs: u64 = "15", range 1 to 60, env "SLUICE_STREAM_HEARTBEAT_SECS", live;
    /// Accounts in the figure `quota_usage_rate`: those nearest to a limit.
    usage_rate_accounts: u64 = "100", range 0 to 10000, env "SLUICE_USAGE_RATE_ACCOUNTS", live;
    /// How often that figure is made anew, in seconds. All accounts are read for it, by one server.
    usage_rate_secs: u64 = "60", range 1 to 3600, env "SLUICE_USAGE_RATE_SECS", live;
    /// Whether settings may change while the server runs: `true` takes changes from `CONFIG_SERVICE_URL`, or without one
    /// from the database, where the admin API writes them.
    enable_config_client: bool = "false", env "ENABLE_CONFIG_CLIENT";
    /// The configuration service: a GET answers with a flat JSON object, one file key per setting. It takes part only with
    /// `ENABLE_CONFIG_CLIENT`.
    config_service_url: Option<HttpUrl>, env "CONFIG_SERVICE_URL";
    /// How often the configuration service, or the table of changed settings, is read again, in seconds.
    config_refresh_secs: u64 = "30", range 1 to 3600, env "SLUICE_CONFIG_REFRESH_SECS";
    /// The OpenTelemetry collector that spans are sent to, by OTLP over gRPC: `http://host:4317`, or `https://` with the system's
    /// certificate authorities. Without one no spans are made.
    otlp_endpoint: Option<HttpUrl>, env "OTEL_EXPORTER_OTLP_ENDPOINT";
    /// The name that spans have their service under.
    otel_service_name: String = "sluice", env "OTEL_SERVICE_NAME";
    /// Which traces are recorded: `always_on`, `always_off`, `traceidratio`, or one of them behind `parentbased_`, which goes by
    /// the caller's `traceparent` where there is one.
    traces_sampler: TracesSampler = "parentbased_always_on", env "OTEL_TRACES_SAMPLER";
    /// The part of traces that the samplers by ratio record, from 0 to 1.
    traces_sampler_arg: Ratio = "1", env "OTEL_TRACES_SAMPLER_ARG";
    /// Networks that operators' alerts may be sent to although they are not on the public internet, as in
    /// `10.1.0.0/16,fd00::/8`. It holds for the channels of the operators' settings only.
    alert_allow_networks: Networks = "", env "SLUICE_ALERT_ALLOW_NETWORKS";
    /// The same for the channels of merchants' settings. Callers who may set those read the beginning of what answers there.
    alert_merchant_networks: Networks = "", env "SLUICE_ALERT_MERCHANT_NETWORKS";
    /// How long one try to send a message about an alert may take, in milliseconds.
    alert_timeout_ms: u64 = "10000", range 100 to 60000, env "SLUICE_ALERT_TIMEOUT_MS", live;
    /// How long after its first failed try a message is tried again, in milliseconds. Each further wait is twice as long, up to an
    /// hour or two.
    alert_retry_ms: u64 = "5000", range 50 to 600000, env "SLUICE_ALERT_RETRY_MS", live;
    /// For how many seconds a message that cannot be sent is tried again.
    alert_give_up_secs: u64 = "86400", range 1 to 604800, env "SLUICE_ALERT_GIVE_UP_SECS", live;
    /// How many changes of alerts of one type and merchant are sent in a period; what goes beyond is summed up in a digest after
    /// it. Critical ones pass.
    alert_rate_messages: u64 = "2", range 1 to 1000, env "SLUICE_ALERT_RATE_MESSAGES", live;
    /// That period, in seconds.
    alert_rate_secs: u64 = "600", range 1 to 86400, env "SLUICE_ALERT_RATE_SECS", live;
    /// For how many days resolved alerts, and messages that were sent or given up, are kept; 0 keeps them for good. Of fewer than 30 a
    /// live stream that goes on from longer ago misses some.
    alert_keep_days: u64 = "90", range 0 to 36500, env "SLUICE_ALERT_KEEP_DAYS", live;
    /// The mail server for alerts: `smtps://user:password@host:465` speaks TLS, `smtp://host:587?tls=required` STARTTLS, and
    /// `smtp://host:25` nothing of either.
    smtp_url: Option<Secret>, env "SLUICE_SMTP_URL";
    /// Who mail about alerts is from, as in `Sluice <sluice@example.com>`.
    smtp_from: Option<String>, env "SLUICE_SMTP_FROM";
    /// What is logged: a level (`off`, `error`, `warn`, `info`, `debug`, `trace`), or directives with commas between, each a level or
    /// `target=level`, as in `info,sluice_store=debug`; `sluice` names all of the server's own. Decisions (target `sluice::decision`) and changes by hand and refused
    /// credentials (`sluice::audit`) are logged whatever the level is, unless a directive names their target, as in
    /// `warn,sluice::decision=off`.
    log: LogFilter = "info", env "SLUICE_LOG", live;
}
