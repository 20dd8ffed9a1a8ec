use super::*;
use crate::{ConfigFile, SettingsError};

fn live(env: &[(&str, &str)]) -> Live {
    let secret = secret();
    let own = [("SLUICE_POLICY_FILE", "/p.yaml"), ("JWT_SECRET", secret.as_str())];
    let env = env.iter().chain(&own);
    let file = ConfigFile { path: "s.yaml".into(), text: "hold_sweep_ms: 500\n".to_owned() };
    let env = env.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Live::fixed(&Settings::load(env, Some(file)).unwrap())
}

/// A secret that is recognised where it should not be shown. A text in a public file would be refused.
fn secret() -> String {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).unwrap();
    format!("hunter2-{}", random.map(|byte| format!("{byte:02x}")).concat())
}

fn layer(values: &[(&str, &str)]) -> Layer {
    let values = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Layer { origin: Origin::Database, version: 1, values }
}

fn find(live: &Live, key: &str) -> Setting {
    live.list().into_iter().find(|setting| setting.key == key).unwrap()
}

#[test]
fn a_change_is_seen_by_all_and_gone_with_its_row() {
    let live = live(&[("SLUICE_REDIS_TIMEOUT_MS", "100")]);
    let (other, mut changes) = (live.clone(), live.subscribe());
    let changed = live.apply(layer(&[("redis_timeout_ms", "120"), ("log", "debug"), ("check_timeout_ms", "250")]));
    let value = |text: &str| Some(text.to_owned());
    let expected = [
        Changed { key: "redis_timeout_ms", old: value("100"), new: value("120") },
        Changed { key: "log", old: value("info"), new: value("debug") },
    ];
    assert_eq!(changed.unwrap(), expected);
    assert_eq!((other.current().redis_timeout_ms, other.current().log.as_str()), (120, "debug"));
    assert!(changes.has_changed().unwrap());
    assert_eq!(changes.borrow_and_update().redis_timeout(), Duration::from_millis(120));
    assert_eq!(find(&live, "redis_timeout_ms").source, Origin::Database);
    assert_eq!(live.version(), 1);

    assert_eq!(live.apply(layer(&[("log", "debug")])).unwrap().len(), 1);
    assert_eq!(other.current().redis_timeout_ms, 100);
    assert_eq!(find(&live, "redis_timeout_ms").source, Origin::Environment);
    changes.mark_unchanged();
    assert_eq!(live.apply(layer(&[("log", "debug")])).unwrap(), []);
    assert!(!changes.has_changed().unwrap(), "nothing changed, no receiver is woken");
}

/// A day's wait ends when a change makes it a millisecond; nothing here waits for time to pass.
#[tokio::test]
async fn a_shorter_interval_ends_a_long_wait() {
    let live = live(&[]);
    let day = Duration::from_secs(86_400);
    let waiter = live.clone();
    let interval = move |now: &LiveSettings| if now.hold_sweep_ms == 500 { day } else { Duration::from_millis(1) };
    let wait = tokio::spawn(async move { waiter.elapse(interval).await });
    tokio::task::yield_now().await;
    assert!(!wait.is_finished());
    live.apply(layer(&[("hold_sweep_ms", "100")])).unwrap();
    wait.await.unwrap();
}

#[test]
fn a_layer_with_anything_wrong_changes_nothing() {
    let live = live(&[]);
    live.apply(layer(&[("hold_sweep_ms", "700")])).unwrap();
    let (before, listed) = (live.current(), live.list());
    let table: &[(&[(&str, &str)], &str, &str)] = &[
        (
            &[("log", "debug"), ("redis_timeout_ms", "4")],
            "redis_timeout_ms",
            "redis_timeout_ms in runtime_setting is '4'",
        ),
        (&[("log", "debug"), ("redis_timeout_ms", "x")], "redis_timeout_ms", "a whole number from 5 to 10000"),
        (&[("log", "debug"), ("redis_timeout_ms", "")], "redis_timeout_ms", "is empty"),
        (&[("log", "a=b=c"), ("redis_timeout_ms", "9")], "log", "it must be a level"),
        (&[("log", "debug"), ("redis_timeout_ms", "250")], "check_timeout_ms", "SLUICE_CHECK_TIMEOUT_MS is 250"),
        (&[("log", "debug"), ("check_timeout_ms", "150")], "check_timeout_ms", "SLUICE_REDIS_TIMEOUT_MS, which is 150"),
        (&[("log", "debug"), ("port", "1")], "port", "cannot change while the server runs"),
        (&[("log", "debug"), ("jwt_secret", "hunter2")], "jwt_secret", "cannot change while the server runs"),
        (
            &[("log", "debug"), ("redis_timeout", "9")],
            "redis_timeout",
            "is not a setting; the nearest known names are redis_timeout_ms",
        ),
        (&[("SLUICE_LOG", "debug")], "log", "is not a setting"),
    ];
    for (values, key, part) in table {
        let error: SettingsError = live.apply(layer(values)).unwrap_err();
        assert!(error.to_string().contains(part) && !error.to_string().contains("hunter2"), "{values:?}: {error}");
        assert_eq!(error.key().as_deref(), Some(*key), "{values:?}: {error}");
        assert_eq!(live.current(), before, "{values:?}");
        assert_eq!(live.list(), listed, "{values:?}");
    }
    assert_eq!(live.apply(layer(&[("redis_timeout_ms", "250"), ("check_timeout_ms", "251")])).unwrap().len(), 3);
}

#[test]
fn the_list_names_sources_and_shows_no_secret() {
    let live = live(&[("DB_PASSWORD", "hunter2"), ("PORT", "0")]);
    let table: [(&str, Option<&str>, Origin, Option<&str>, bool); 7] = [
        ("port", Some("0"), Origin::Environment, Some("40022"), false),
        ("hold_sweep_ms", Some("500"), Origin::File, Some("1000"), true),
        ("window_sweep_secs", Some("600"), Origin::Default, Some("600"), true),
        ("policy_service_url", None, Origin::Default, None, false),
        ("jwt_secret", Some("[redacted]"), Origin::Environment, None, false),
        ("db_password", Some("[redacted]"), Origin::Environment, None, false),
        ("redis_url", None, Origin::Default, None, false),
    ];
    for (key, value, source, default, is_live) in table {
        let setting = find(&live, key);
        let found = (setting.value.as_deref(), setting.source, setting.default, setting.live);
        assert_eq!(found, (value, source, default, is_live), "{key}");
    }
    let shown = serde_json::to_string(&live.list()).unwrap();
    assert!(!shown.contains("hunter2") && shown.contains(r#""range":{"min":100,"max":60000}"#), "{shown}");
    assert_eq!(live.list().len(), SPECS.len());
}
