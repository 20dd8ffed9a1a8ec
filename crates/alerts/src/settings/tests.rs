use serde_json::{Value, json};

use super::*;
use quota::MerchantId;

/// Base64 of 24 bytes.
const OLD: &str = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz";
const NEW: &str = "whsec_bmV3bmV3bmV3bmV3bmV3bmV3bmV3bmV3";
const SLACK: &str = "https://hooks.slack.com/services/T0/B0/xyz";

fn read(document: &Value) -> Settings {
    serde_json::from_value(document.clone()).unwrap()
}

/// A notice goes to those of the routed channels that its step names, and to all of them where it names none.
#[test]
fn a_step_chooses_among_the_channels_of_its_routes() {
    let settings =
        with(all_kinds(), "/routes", json!([{"types": ["credit_dunning"], "channels": ["mail", "hook", "chat"]}]));
    let settings = read(&settings);
    let notice =
        AlertAttributes { subject: Subject::CreditDunning, level: Level::Critical, threshold: None, resolved: false };
    let ids = |alert: &AlertAttributes, names: Option<&[&str]>| {
        let names: Option<Vec<String>> = names.map(|names| names.iter().map(|name| (*name).to_owned()).collect());
        let chosen = settings.channels_for(alert, names.as_deref());
        chosen.into_iter().map(|(channel, _)| channel.id().to_owned()).collect::<Vec<_>>()
    };
    for (names, expected) in [
        (None, &["hook", "mail", "chat"][..]),
        (Some(&["email"][..]), &["mail"]),
        (Some(&["hook", "email"]), &["hook", "mail"]),
        (Some(&["phone", "letter"]), &["hook", "mail", "chat"]),
    ] {
        assert_eq!(ids(&notice, names), expected, "{names:?}");
    }
    let other = AlertAttributes { subject: Subject::Suspended, ..notice };
    assert_eq!(ids(&other, Some(&["email"])), [""; 0]);
}

fn merchant() -> Scope {
    Scope::Merchant(MerchantId::parse("m-1").unwrap())
}

fn all_kinds() -> Value {
    json!({
        "channels": [
            {"id": "hook", "kind": "webhook", "url": "https://example.com/alerts?team=1", "secrets": [NEW, OLD]},
            {"id": "mail", "kind": "email", "to": ["a@example.com", "b+c@example.com"]},
            {"id": "phone", "kind": "bark", "url": "https://api.day.app", "device_key": "key"},
            {"id": "g", "kind": "gotify", "url": "http://gotify.internal:8080/base", "token": "token"},
            {"id": "chat", "kind": "slack", "url": SLACK},
        ],
        "routes": [
            {"types": ["daily", "suspended"], "levels": ["critical"], "thresholds": [100], "channels": ["hook", "phone"]},
            {"resolved": false, "channels": ["mail"], "delivery": "digest"},
        ],
        "digest_minutes": 30,
    })
}

/// The document with a value at a place.
fn with(mut document: Value, place: &str, value: Value) -> Value {
    *document.pointer_mut(place).unwrap() = value;
    document
}

#[test]
fn what_is_shown_has_no_secret_and_what_is_kept_has_them() {
    let settings = read(&all_kinds()).check(&Scope::Operators, &Settings::default()).unwrap();
    let shown = serde_json::to_value(&settings).unwrap();
    assert_eq!(shown["channels"][0]["secrets"], json!(["********1", "********2"]));
    assert_eq!(shown["channels"][2]["device_key"], "********");
    assert_eq!(shown["channels"][3]["token"], "********");
    assert_eq!(shown["channels"][4]["url"], "https://hooks.slack.com/********");
    for text in [shown.to_string(), format!("{settings:?}")] {
        for secret in [OLD, NEW, "\"key\"", "\"token\"", "xyz"] {
            let name = text.contains("\"token\":\"********\"") && secret == "\"token\"";
            assert!(name || !text.contains(secret), "{secret} in {text}");
        }
    }
    assert_eq!(serde_json::from_str::<Settings>(&settings.stored()).unwrap(), settings);
    // What was shown, sent back, changes nothing.
    assert_eq!(read(&shown).check(&Scope::Operators, &settings).unwrap(), settings);
}

#[test]
fn masks_keep_the_secret_of_the_same_channel_and_server() {
    let present = read(&all_kinds()).check(&Scope::Operators, &Settings::default()).unwrap();
    let shown = serde_json::to_value(&present).unwrap();
    let third = "whsec_dGhpcmR0aGlyZHRoaXJkdGhpcmR0aGlyZCEh";
    let kept: [(&str, Value, Result<&[&str], &str>); 8] = [
        ("/channels/0/secrets", json!([third, "********1"]), Ok(&[third, NEW])),
        ("/channels/0/secrets", json!(["********2"]), Ok(&[OLD])),
        ("/channels/0/secrets", json!(["********3"]), Err("channels[0].secrets[0]")),
        ("/channels/0/secrets", json!(["********"]), Err("channels[0].secrets[0]")),
        ("/channels/0/id", json!("renamed"), Err("channels[0].secrets[0]")),
        ("/channels/2/url", json!("https://elsewhere.example.com"), Err("channels[2].device_key")),
        ("/channels/3/url", json!("https://elsewhere.example.com"), Err("channels[3].token")),
        ("/channels/4/url", json!("https://elsewhere.example.com/********"), Err("channels[4].url")),
    ];
    for (place, value, expected) in kept {
        // Without routes, which would name a channel that is renamed.
        let document = with(with(shown.clone(), place, value.clone()), "/routes", json!([]));
        let secrets = read(&document).check(&Scope::Operators, &present).map(|settings| match &settings.channels[0] {
            Channel::Webhook(webhook) => webhook.secrets.iter().map(|secret| secret.expose().to_owned()).collect(),
            _ => Vec::new(),
        });
        let secrets: Result<Vec<String>, String> = secrets.map_err(|invalid| invalid.field);
        assert_eq!(
            secrets,
            expected.map(|list| list.iter().map(ToString::to_string).collect()).map_err(str::to_owned),
            "{place} {value}"
        );
    }
}

#[test]
fn fields_are_checked_one_by_one() {
    let secret = |bytes: usize| {
        use base64::Engine;
        format!("whsec_{}", base64::prelude::BASE64_STANDARD.encode(vec![b'x'; bytes]))
    };
    let id = "i".repeat(65);
    let url = format!("https://example.com/{}", "u".repeat(2048));
    let table = [
        ("/digest_minutes", json!(0), "digest_minutes"),
        ("/digest_minutes", json!(1441), "digest_minutes"),
        ("/channels", json!(vec![json!({"id": "a", "kind": "email", "to": ["a@b.example"]}); 21]), "channels"),
        ("/routes", json!(vec![json!({"channels": ["mail"]}); 51]), "routes"),
        ("/channels/0/id", json!(""), "channels[0].id"),
        ("/channels/0/id", json!("Hook"), "channels[0].id"),
        ("/channels/0/id", json!(id), "channels[0].id"),
        ("/channels/1/id", json!("hook"), "channels[1].id"),
        ("/channels/0/url", json!("ftp://example.com"), "channels[0].url"),
        ("/channels/0/url", json!("example.com"), "channels[0].url"),
        ("/channels/0/url", json!("/alerts"), "channels[0].url"),
        ("/channels/0/url", json!("https://user:word@example.com"), "channels[0].url"),
        ("/channels/0/url", json!("https://example.com/#part"), "channels[0].url"),
        ("/channels/0/url", json!("https://"), "channels[0].url"),
        ("/channels/0/url", json!("https://exam\nple.com"), "channels[0].url"),
        ("/channels/0/url", json!("https://example.com/ä"), "channels[0].url"),
        ("/channels/0/url", json!("https://exa mple.com"), "channels[0].url"),
        ("/channels/0/url", json!(url), "channels[0].url"),
        ("/channels/0/secrets", json!([]), "channels[0].secrets"),
        ("/channels/0/secrets", json!([NEW, NEW, NEW, NEW, NEW]), "channels[0].secrets"),
        ("/channels/0/secrets/1", json!("word"), "channels[0].secrets[1]"),
        ("/channels/0/secrets/0", json!(OLD.strip_prefix("whsec_")), "channels[0].secrets[0]"),
        ("/channels/0/secrets/0", json!(secret(23)), "channels[0].secrets[0]"),
        ("/channels/0/secrets/0", json!(secret(65)), "channels[0].secrets[0]"),
        ("/channels/1/to", json!([]), "channels[1].to"),
        ("/channels/1/to/1", json!("no-address"), "channels[1].to[1]"),
        ("/channels/1/to/0", json!("a@b@c"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("a@b\r\nBcc: c@d"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("A <a@b>"), "channels[1].to[0]"),
        // X11
        ("/channels/1/to/0", json!("a@[127.0.0.1]"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("a@[IPv6:::1]"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("a@127.0.0.1"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("a@127.1"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("a@2130706433"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("a@0x7f.0x1"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("root@localhost"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("root@mail.localhost"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("root@localhost.localdomain"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("root@mail"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("a@example.com."), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("a@-x.example"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("a@ex_ample.com"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("a%[127.0.0.1]@example.com"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("localhost!root@example.com"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("\"a b\"@example.com"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("\"|calc\"@example.com"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("a@example.com,b@example.com"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("a@example.com\u{0}"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("a\u{7f}@example.com"), "channels[1].to[0]"),
        ("/channels/1/to/0", json!("\u{ff41}@example.com"), "channels[1].to[0]"),
        ("/channels/2/url", json!("https://api.day.app?x=1"), "channels[2].url"),
        ("/channels/2/device_key", json!(""), "channels[2].device_key"),
        ("/channels/2/device_key", json!("********"), "channels[2].device_key"),
        ("/channels/3/token", json!("a b"), "channels[3].token"),
        ("/channels/3/token", json!("t".repeat(257)), "channels[3].token"),
        ("/channels/4/url", json!("hooks.slack.com"), "channels[4].url"),
        ("/channels/4/url", json!("https://hooks.slack.com/********"), "channels[4].url"),
        ("/routes/0/types", json!([]), "routes[0].types"),
        ("/routes/0/levels", json!([]), "routes[0].levels"),
        ("/routes/0/thresholds", json!([]), "routes[0].thresholds"),
        ("/routes/0/thresholds", json!([80, 0]), "routes[0].thresholds[1]"),
        ("/routes/0/thresholds", json!([1001]), "routes[0].thresholds[0]"),
        ("/routes/0/channels", json!([]), "routes[0].channels"),
        ("/routes/1/channels", json!(["mail", "fax"]), "routes[1].channels[1]"),
        ("/routes/0/types", json!(["daily", "drift"]), "routes[0].types[1]"),
    ];
    for (place, value, field) in table {
        let document = with(all_kinds(), place, value.clone());
        let problem = read(&document).check(&merchant(), &Settings::default()).unwrap_err();
        assert_eq!(problem.field, field, "{place} {value}: {problem}");
        assert!(!problem.problem.contains("whsec_MDEy"), "{problem}");
    }
    assert!(read(&all_kinds()).check(&merchant(), &Settings::default()).is_ok());
    let of_operators = with(all_kinds(), "/routes/0/types", json!(["drift"]));
    assert!(read(&of_operators).check(&Scope::Operators, &Settings::default()).is_ok());
    assert_eq!(read(&json!({"channels": [], "routes": []})), Settings::default());
    // A document that replaces everything must be complete.
    for short in [json!({}), json!([]), json!({"channels": []}), json!({"routes": []})] {
        assert!(serde_json::from_value::<Settings>(short.clone()).is_err(), "{short}");
    }
    for (place, value) in [
        ("/channels/0", json!({"id": "a", "kind": "fax"})),
        ("/channels/0", json!({"id": "a", "kind": "email", "to": [], "bcc": []})),
        ("/routes/0", json!({"channels": ["mail"], "quiet": true})),
        ("/routes/0", json!({"channels": ["mail"], "types": ["daily_80"]})),
        ("/routes/0", json!({"channels": ["mail"], "delivery": "later"})),
    ] {
        assert!(serde_json::from_value::<Settings>(with(all_kinds(), place, value.clone())).is_err(), "{value}");
    }
}

#[test]
fn routes_choose_channels_once_and_at_once_before_later() {
    use Delivery::{Digest, Immediate};
    let settings = read(&json!({
        "channels": [
            {"id": "a", "kind": "email", "to": ["a@b.example"]},
            {"id": "b", "kind": "email", "to": ["a@b.example"]},
        ],
        "routes": [
            {"channels": ["b"], "delivery": "digest", "resolved": false},
            {"types": ["daily", "suspended"], "channels": ["a"], "thresholds": [100]},
            {"levels": ["critical"], "channels": ["b"]},
        ],
    }));
    let alert = |subject, level, threshold, resolved| AlertAttributes { subject, level, threshold, resolved };
    use Level::{Critical, Warning};
    use Subject::{Daily, Monthly, Suspended};
    let table: [(AlertAttributes, &[(&str, Delivery)]); 7] = [
        (alert(Daily, Warning, Some(80), false), &[("b", Digest)]),
        (alert(Daily, Warning, Some(80), true), &[]),
        (alert(Daily, Critical, Some(100), false), &[("a", Immediate), ("b", Immediate)]),
        (alert(Daily, Critical, Some(100), true), &[("a", Immediate), ("b", Immediate)]),
        (alert(Monthly, Critical, Some(100), false), &[("b", Immediate)]),
        (alert(Suspended, Critical, None, false), &[("a", Immediate), ("b", Immediate)]),
        (alert(Suspended, Warning, None, true), &[("a", Immediate)]),
    ];
    for (alert, expected) in table {
        let routes: Vec<_> = settings.routes_for(&alert).into_iter().map(|(channel, at)| (channel.id(), at)).collect();
        assert_eq!(routes, expected, "{alert:?}");
    }
}

#[test]
fn scopes_are_read_back() {
    for scope in [Scope::Operators, merchant()] {
        assert_eq!(Scope::parse(&scope.text()), Some(scope));
    }
    for text in ["", "operator", "merchant:", "merchant:a b", "m-1"] {
        assert_eq!(Scope::parse(text), None, "{text}");
    }
}
