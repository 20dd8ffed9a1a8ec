use super::*;

const POLICY: (&str, &str) = ("SLUICE_POLICY_FILE", "/p.yaml");

fn load(env: &[(&str, &str)], file: Option<&str>) -> Result<Settings, SettingsError> {
    let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings::load(env, file.map(|text| ConfigFile { path: PathBuf::from("s.yaml"), text: text.to_owned() }))
}

#[test]
fn values_come_from_defaults_then_file_then_environment() {
    let settings = load(&[POLICY], None).unwrap();
    assert_eq!((settings.port, settings.grpc_port, settings.shards), (40022, 40023, 64));
    // X9: the port that takes charges without a token is bound to this machine only, unless set otherwise.
    assert!(settings.grpc_bind.is_loopback(), "{}", settings.grpc_bind);
    assert_eq!(settings.postgres_url().expose(), "postgres://postgres@127.0.0.1:5432/sluice");
    assert_eq!(settings.redis_url().expose(), "redis://127.0.0.1:6379/");

    let file = "port: 1\nshards: 8\npolicy_file: /q.yaml\n";
    let settings = load(&[("PORT", "2")], Some(file)).unwrap();
    assert_eq!((settings.port, settings.shards), (2, 8));
    assert_eq!(settings.policy_file, Some(PathBuf::from("/q.yaml")));
    assert!(load(&[POLICY], Some("# nothing\n")).is_ok());
}

#[test]
fn addresses_are_made_of_parts_or_taken_whole() {
    let parts =
        [POLICY, ("DB_HOST", "::1"), ("DB_USER", "a b"), ("DB_PASSWORD", "p@:/%"), ("DB_NAME", "n"), ("DB_PORT", "5")];
    assert_eq!(load(&parts, None).unwrap().postgres_url().expose(), "postgres://a%20b:p%40%3A%2F%25@[::1]:5/n");
    let whole = [POLICY, ("DATABASE_URL", "postgresql://x/y"), ("REDIS_URL", "valkey://h:1")];
    let settings = load(&whole, None).unwrap();
    assert_eq!(settings.postgres_url().expose(), "postgresql://x/y");
    assert_eq!(settings.redis_url().expose(), "valkey://h:1");
}

#[test]
fn bad_settings_are_refused_by_name() {
    type Row = (&'static [(&'static str, &'static str)], Option<&'static str>, &'static [&'static str]);
    let table: &[Row] = &[
        (&[("SLUICE_SHARD", "1")], None, &["SLUICE_SHARD is not a setting", "SLUICE_SHARDS"]),
        (&[], Some("shard: 1"), &["shard in s.yaml is not a setting", "shards"]),
        (&[], Some("config_file: x"), &["config_file in s.yaml is not a setting"]),
        (&[("SLUICE_SHARDS", "0")], None, &["SLUICE_SHARDS is '0'", "from 1 to 1024"]),
        (&[("SLUICE_SHARDS", "1025")], None, &["SLUICE_SHARDS is '1025'"]),
        (&[("SLUICE_SHARDS", "+1")], None, &["SLUICE_SHARDS is '+1'"]),
        (&[("SLUICE_SHARDS", "99999999999999999999999")], None, &["from 1 to 1024"]),
        (&[("SLUICE_SHARDS", "")], None, &["SLUICE_SHARDS is empty"]),
        (&[], Some("shards: -1"), &["shards in s.yaml is '-1'"]),
        (&[], Some("shards: [1]"), &["shards must be a single text or number"]),
        (&[], Some("shards:"), &["shards must be a single text or number"]),
        (&[], Some("shards: 1\nshards: 2"), &["s.yaml", "duplicate"]),
        (&[], Some("- 1"), &["s.yaml", "flat mapping"]),
        (&[("PORT", "65536")], None, &["PORT is '65536'", "from 0 to 65535"]),
        (&[("DB_PORT", "0")], None, &["DB_PORT is '0'"]),
        (&[("SLUICE_BIND", "localhost")], None, &["SLUICE_BIND is 'localhost'", "IP address"]),
        (&[("SLUICE_PROBE_PORT", "65536")], None, &["SLUICE_PROBE_PORT is '65536'", "or off"]),
        (&[("SLUICE_GRPC_BIND", "*")], None, &["SLUICE_GRPC_BIND is '*'", "IP address"]),
        (&[("SLUICE_LOG", "a=b=c")], None, &["SLUICE_LOG is 'a=b=c'", "off, error, warn, info, debug or trace"]),
        (&[("SLUICE_LOG", "warning")], None, &["SLUICE_LOG is 'warning'", "off, error, warn, info, debug or trace"]),
        (
            &[("OTEL_TRACES_SAMPLER", "jaeger_remote")],
            None,
            &["OTEL_TRACES_SAMPLER is 'jaeger_remote'", "parentbased_always_on"],
        ),
        (&[("OTEL_TRACES_SAMPLER_ARG", "1.5")], None, &["OTEL_TRACES_SAMPLER_ARG is '1.5'", "from 0 to 1"]),
        (&[("OTEL_TRACES_SAMPLER_ARG", "NaN")], None, &["OTEL_TRACES_SAMPLER_ARG is 'NaN'"]),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317")], None, &["OTEL_EXPORTER_OTLP_ENDPOINT", "http://"]),
        (&[("SLUICE_ORDER_TTL_SECS", "3599")], None, &["SLUICE_ORDER_TTL_SECS", "3600"]),
        (&[("DATABASE_URL", "postgres://h/d"), ("DB_HOST", "h")], None, &["DATABASE_URL and DB_HOST are both set"]),
        (&[("DATABASE_URL", "postgres://h/d")], Some("db_name: n"), &["DATABASE_URL and DB_NAME are both set"]),
        (&[("REDIS_URL", "redis://h"), ("REDIS_PORT", "1")], None, &["REDIS_URL and REDIS_PORT are both set"]),
        (&[("DATABASE_URL", "mysql://u:hunter2@h/d")], None, &["DATABASE_URL is '[redacted]'", "postgres://"]),
        (&[("REDIS_URL", "rediss://h")], None, &["REDIS_URL is '[redacted]'", "redis://"]),
        (&[("SLUICE_REDIS_TIMEOUT_MS", "250")], None, &["SLUICE_CHECK_TIMEOUT_MS is 250", "SLUICE_REDIS_TIMEOUT_MS"]),
        (&[("ENABLE_CONFIG_CLIENT", "yes")], None, &["ENABLE_CONFIG_CLIENT is 'yes'", "true or false"]),
        (&[("CONFIG_SERVICE_URL", "h:80/x")], None, &["CONFIG_SERVICE_URL is 'h:80/x'", "http:// or https://"]),
        (&[("CONFIG_SERVICE_URL", "ftp://h")], None, &["CONFIG_SERVICE_URL is 'ftp://h'"]),
        (&[("POLICY_SERVICE_URL", "http://h/?a=b")], None, &["POLICY_SERVICE_URL", "without user, password, query"]),
        (&[("POLICY_SERVICE_URL", "http://h/#a")], None, &["POLICY_SERVICE_URL"]),
        (&[("JWT_SECRET", "hunter2")], None, &["JWT_SECRET is '[redacted]'", "at least 32 bytes"]),
        (&[("JWT_SECRET", "")], None, &["JWT_SECRET", "at least 32 bytes", "openssl rand"]),
        (&[("JWT_SECRET", "hunter2-hunter2-hunter2-hunter2-")], None, &["JWT_SECRET", "public files", "openssl rand"]),
        (&[("JWT_SECRET", "payment-platform-secret-key-2024")], None, &["JWT_SECRET", "public files"]),
        (&[("SLUICE_SMTP_FROM", "a@b.example")], None, &["SLUICE_SMTP_URL and SLUICE_SMTP_FROM", "set both or none"]),
        (
            &[("SLUICE_SMTP_URL", "smtp://h"), ("SLUICE_SMTP_FROM", "me")],
            None,
            &["SLUICE_SMTP_FROM is no mail address"],
        ),
        (
            &[("SLUICE_SMTP_URL", "hunter2"), ("SLUICE_SMTP_FROM", "a@b.example")],
            None,
            &["SLUICE_SMTP_URL cannot be used"],
        ),
        (
            &[("SLUICE_ALERT_ALLOW_NETWORKS", "10.0.0.0")],
            None,
            &["SLUICE_ALERT_ALLOW_NETWORKS is '10.0.0.0'", "10.1.0.0/16"],
        ),
        (&[("SLUICE_ALERT_MERCHANT_NETWORKS", "10.0.0.0")], None, &["SLUICE_ALERT_MERCHANT_NETWORKS is '10.0.0.0'"]),
        (&[("SLUICE_JWT_ALGORITHM", "none")], None, &["SLUICE_JWT_ALGORITHM is 'none'", "HS256, RS256 or ES256"]),
        (&[("SLUICE_JWT_ALGORITHM", "ES256")], None, &["SLUICE_JWT_ALGORITHM is 'ES256'", "needs SLUICE_JWT_JWKS"]),
        (&[("SLUICE_JWT_JWKS", "/k")], None, &["SLUICE_JWT_ALGORITHM is 'HS256'", "set RS256 or ES256"]),
        (
            &[("SLUICE_JWT_ALGORITHM", "RS256"), ("SLUICE_JWT_JWKS", "/k"), ("JWT_SECRET", "hunter2")],
            None,
            &["SLUICE_JWT_ALGORITHM is 'RS256'", "takes no JWT_SECRET"],
        ),
        (&[("SLUICE_HOLD_SWEEP_MS", "99")], None, &["SLUICE_HOLD_SWEEP_MS is '99'", "from 100 to 60000"]),
    ];
    for (env, file, expected) in table {
        let env: Vec<_> = env.iter().copied().chain([POLICY]).collect();
        let message = load(&env, *file).unwrap_err().to_string();
        for part in *expected {
            assert!(message.contains(part), "{env:?} {file:?}: {message}");
        }
        assert!(!message.contains("hunter2"), "{message}");
    }
    assert_eq!(load(&[], None).unwrap().policy_file, None);
}

#[test]
fn b6_a_log_filter_names_levels_and_targets_or_is_refused() {
    let table = [
        ("info", true),
        ("INFO", true),
        ("off", true),
        ("info,sluice_store=debug", true),
        ("warn, authz_server::journal=trace", true),
        ("sqlx=off", true),
        ("warn,sluice::decision=off", true),
        ("warning", false),
        ("debgu", false),
        ("err", false),
        ("fatal", false),
        ("verbose", false),
        ("authz_server", false),
        ("info,authz_server", false),
        ("info,authz_server=debgu", false),
        ("info,authz_server=warning", false),
        ("info;authz_server=debug", false),
        ("info authz_server=debug", false),
        ("info,", false),
        (",", false),
        ("=debug", false),
        ("authz_server=", false),
        ("authz_server==debug", false),
        ("[check]=debug", false),
        ("4", false),
        ("true", false),
    ];
    for (text, accepted) in table {
        assert_eq!(LogFilter::parse(text).is_some(), accepted, "{text}");
    }
    let names = |filter: &str| LogFilter::parse(filter).unwrap().names("sluice::decision");
    assert!(names("warn,sluice::decision=off") && names("sluice=error"));
    assert!(!names("off") && !names("sluice::audit=off") && !names("sluice::decisions=off"));
}

#[test]
fn foreign_variables_and_those_of_the_test_stack_are_left_alone() {
    let env =
        [POLICY, ("HOME", "/"), ("SLUICE_ENVOY", "x"), ("SLUICE_REDIS_SERVER", "x"), ("SLUICE_POSTGRES_BIN", "x")];
    assert!(load(&env, None).is_ok());
}

#[test]
fn secrets_are_never_printed() {
    let env = [POLICY, ("DB_PASSWORD", "hunter2"), ("REDIS_URL", "redis://:hunter2@h")];
    let settings = load(&env, None).unwrap();
    let printed = format!("{settings:?} {:?}", settings.postgres_url());
    assert!(printed.contains("[redacted]") && !printed.contains("hunter2"), "{printed}");
}

#[test]
fn a_url_of_a_service_is_shown_and_a_password_in_one_is_refused_unseen() {
    let url = [POLICY, ("CONFIG_SERVICE_URL", "https://h:8443/settings/"), ("SLUICE_JWT_ALGORITHM", "HS256")];
    let settings = load(&url, None).unwrap();
    assert_eq!(settings.config_service_url.unwrap().as_str(), "https://h:8443/settings");
    let password = [POLICY, ("CONFIG_SERVICE_URL", "https://u:hunter2@h/")];
    let message = load(&password, None).unwrap_err().to_string();
    assert!(message.contains("CONFIG_SERVICE_URL is '[redacted]'") && !message.contains("hunter2"), "{message}");
}

#[test]
fn every_default_is_within_its_range_and_every_name_is_used_once() {
    let mut names: Vec<_> = table::SPECS.iter().flat_map(|spec| [spec.env, spec.key]).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), table::SPECS.len() * 2);
    assert!(help().contains("SLUICE_SHARDS [64, 1 to 1024]"));
    // A key is followed by " in " in messages, and is stored in the database.
    let plain = |key: &str| key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    assert!(table::SPECS.iter().all(|spec| plain(spec.key)));
    assert!(table::SPECS.iter().all(|spec| !(spec.live && spec.secret)), "a secret is never changed at run time");
}

/// `authz-server settings > docs/settings.md` writes the file anew.
/// For one more release after a setting was renamed.
#[test]
fn a_setting_is_also_known_by_its_former_name() {
    let lease = |env: &[(&str, &str)], file| {
        load(&[&[("SLUICE_POLICY_FILE", "p")], env].concat(), file).map(|settings| settings.journal_lease_ms)
    };
    let (former, present) = ("SLUICE_JOURNAL_CLAIM_IDLE_MS", "SLUICE_JOURNAL_LEASE_MS");
    assert_eq!(lease(&[(former, "2000")], None).unwrap(), 2_000);
    for env in [[(former, "2000"), (present, "3000")], [(present, "3000"), (former, "2000")]] {
        assert_eq!(lease(&env, None).unwrap(), 3_000);
    }
    assert_eq!(lease(&[], Some("journal_claim_idle_ms: 4000")).unwrap(), 4_000);
    assert_eq!(lease(&[(former, "2000")], Some("journal_lease_ms: 4000")).unwrap(), 2_000);
    let error = lease(&[(former, "1")], None).unwrap_err().to_string();
    assert!(error.contains(former), "the name that was given: {error}");
}

#[test]
fn the_reference_is_the_committed_file() {
    let committed = include_str!("../../../docs/settings.md");
    assert!(committed == reference(), "docs/settings.md is out of date: write `authz-server settings` to it");
}

#[test]
fn addresses_name_hosts_and_no_secrets() {
    let table = [
        ("redis://user:hunter2@cache.internal:6379/0", "cache.internal:6379"),
        ("redis://:hunter@2@cache:6379", "cache:6379"),
        ("postgres://sluice:hunter2@[::1]:5432/sluice?password=hunter2", "[::1]:5432"),
        ("redis+unix:///run/redis.sock?pass=hunter2", "/run/redis.sock"),
        ("https://policies:8443/base", "policies:8443"),
    ];
    for (url, expected) in table {
        assert_eq!(endpoint(url), expected, "{url}");
    }
    let named = [POLICY, ("REDIS_URL", "redis://user:hunter2@h:1/"), ("SLUICE_DRAIN_MS", "7")];
    let settings = load(&named, None).unwrap();
    let named = settings.named().join(" ");
    assert!(named.contains("REDIS_URL=[redacted]") && named.contains("SLUICE_DRAIN_MS=7"), "{named}");
    assert!(!named.contains("hunter2") && !named.contains("GRPC_PORT"), "{named}");
    assert_eq!(settings.addresses().redis, "h:1");
}

/// A file that an editor saved with a byte order mark, or in another encoding, is refused with what to do.
#[test]
fn a_file_in_another_encoding_is_refused_by_name() {
    let path = std::env::temp_dir().join(format!("sluice-settings-{}.yaml", std::process::id()));
    for (bytes, problem) in [
        ("\u{feff}port: 1\n".as_bytes(), "starts with a byte order mark: save it without"),
        (b"p\0o\0r\0t\0".as_slice(), "is UTF-16 or UTF-32: save it as UTF-8"),
        (b"log: \xf6\n".as_slice(), "is not UTF-8 from byte 5 on"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = ConfigFile::read(path.clone()).unwrap_err().to_string();
        assert!(error.contains(problem) && error.contains("sluice-settings"), "{error}");
    }
    std::fs::remove_file(path).unwrap();
}
