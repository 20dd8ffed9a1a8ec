//! What callers are answered, operation by operation of the API's own description: examples can be sent as they stand,
//! and whatever is wrong with a request is said in words, never in those of the language that the server is written in.

use serde_json::{Value, json};
use sluice_api::admin::openapi;
use testkit::Result;
use testkit::api::secret;
use testkit::client::Call;

use crate::bench::{Bench, ask, field, token};

/// What no answer may say.
const FOREIGN: [&str; 16] = [
    "Some(",
    "None",
    "invalid type",
    "invalid value",
    "invalid length",
    "expected ",
    "u64",
    "i64",
    "u32",
    "struct ",
    "enum ",
    "variant",
    "at line",
    "digit found",
    "premature end",
    "::",
];
/// An id of nothing.
const ID: &str = "0190b0a4-5b5e-7cc3-98c8-2f4c1d7e9a10";
/// Many requests, quickly; mail can be sent, and settings changed.
const ENV: [(&str, &str); 4] = [
    ("SLUICE_ADMIN_RATE_PER_MINUTE", "1000000"),
    ("ENABLE_CONFIG_CLIENT", "true"),
    ("SLUICE_SMTP_URL", "smtp://127.0.0.1:1"),
    ("SLUICE_SMTP_FROM", "sluice@example.com"),
];

/// An operation of the document.
struct Operation {
    method: String,
    path: String,
    parameters: Vec<Value>,
    example: Option<Value>,
    properties: Vec<String>,
}

fn operations() -> Result<Vec<Operation>> {
    let document: Value = serde_json::from_str(&openapi::document())?;
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().cloned().unwrap_or_default() {
        for (method, operation) in methods.as_object().cloned().unwrap_or_default() {
            let content = &operation["requestBody"]["content"]["application/json"];
            let schema =
                content["schema"]["$ref"].as_str().and_then(|name| name.rsplit('/').next()).unwrap_or_default();
            let properties = document["components"]["schemas"][schema]["properties"].as_object();
            found.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                parameters: operation["parameters"].as_array().cloned().unwrap_or_default(),
                example: content.get("example").cloned(),
                properties: properties.map(|all| all.keys().cloned().collect()).unwrap_or_default(),
            });
        }
    }
    Ok(found.into_iter().filter(|operation| !operation.path.ends_with("/stream")).collect())
}

/// The path with something in the place of each parameter, ids by `id`.
fn filled(path: &str, id: &str) -> String {
    let part = |part: &str| match part {
        "{merchant_id}" => "merchant-001".to_owned(),
        "{order_no}" => "ORDER-001".to_owned(),
        "{currency}" => "USD".to_owned(),
        "{grade_id}" => "1".to_owned(),
        part if part.starts_with('{') => id.to_owned(),
        part => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn call(operation: &Operation, path: &str, body: Option<&Value>) -> Call {
    let mut call = match body {
        Some(body) => Call::post_json(path, body.to_string()),
        None => Call::new(&operation.method, path),
    };
    call.method.clone_from(&operation.method);
    call
}

#[tokio::test]
async fn every_example_can_be_sent_as_it_stands() -> Result<()> {
    let bench = Bench::with(&[&[("JWT_SECRET", secret())][..], &ENV].concat())?;
    let admin = token("admin")?;
    for operation in operations()?.iter().filter(|operation| operation.example.is_some()) {
        let path = filled(&operation.path, ID);
        let answer = ask(&bench.server, call(operation, &path, operation.example.as_ref()), &admin).await?;
        let what = format!("{} {path}: {} {}", operation.method, answer.status, answer.json());
        // What an example is about may not be there, or not in the state that it needs; and the same person may have drafted it.
        let four_eyes = answer.status == 403 && field(&answer, "/detail").starts_with("another person");
        let is_missing = ["tier_id", "from_merchant_id"].contains(&field(&answer, "/field").as_str());
        assert!(matches!(answer.status, 200..=299 | 404 | 409) || is_missing || four_eyes, "{what}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_wrong_is_said_in_words() -> Result<()> {
    let bench = Bench::with(&[&[("JWT_SECRET", secret())][..], &ENV].concat())?;
    let admin = token("admin")?;
    let wrong = [
        json!("x"),
        json!(""),
        json!(-1),
        json!(1.5),
        json!(1e300),
        json!(true),
        json!(null),
        json!([]),
        json!({}),
        json!([{}]),
    ];
    let mut refused = 0;
    for operation in operations()? {
        let path = filled(&operation.path, ID);
        let mut calls = Vec::new();
        if let Some(example) = &operation.example {
            for (property, value) in
                operation.properties.iter().flat_map(|it| wrong.iter().map(move |value| (it, value)))
            {
                let mut body = example.clone();
                body[property] = value.clone();
                calls.push(call(&operation, &path, Some(&body)));
            }
            calls.extend(wrong.iter().map(|value| call(&operation, &path, Some(value))));
            let mut unknown = example.clone();
            unknown["nonsense"] = json!(1);
            calls.push(call(&operation, &path, Some(&unknown)));
            for text in ["", "{", "{\"", "[1", "{\"a\":tru}", "{} {}", "{\"a\":1,}", "{\"a\":\"\\x\"}", "{a:1}", "nul"]
            {
                let mut cut = Call::post_json(&path, text);
                cut.method.clone_from(&operation.method);
                calls.push(cut);
            }
        }
        for parameter in operation.parameters.iter().filter(|parameter| parameter["in"] == "query") {
            let name = parameter["name"].as_str().unwrap_or_default();
            for value in ["x", "-1", "1.5", "", "99999999999999999999", "2026-11-29T08:00:00+01:00"] {
                calls.push(call(&operation, &format!("{path}?{name}={value}"), operation.example.as_ref()));
            }
        }
        calls.push(call(&operation, &filled(&operation.path, "no-id"), operation.example.as_ref()));
        calls.push(call(&operation, &format!("{path}?nonsense=1"), operation.example.as_ref()));
        for call in calls {
            let what = format!("{} {} {:?}", call.method, call.path, call.body);
            let answer = ask(&bench.server, call, &admin).await?;
            if answer.status < 400 {
                continue;
            }
            refused += 1;
            let text = String::from_utf8_lossy(&answer.body).into_owned();
            assert!(answer.status < 500, "{what}: {text}");
            let foreign = FOREIGN.iter().find(|words| text.contains(**words));
            assert_eq!(foreign, None, "{what}: {text}");
            if answer.code() == "BAD_REQUEST" {
                assert!(!field(&answer, "/detail").is_empty(), "{what}: {text}");
            }
        }
    }
    assert!(refused > 1000, "{refused}");
    Ok(())
}

/// Channels that cannot work are refused when they are set, and what may not work is said.
#[tokio::test]
async fn channels_that_cannot_work_are_refused() -> Result<()> {
    let bench = Bench::start()?;
    let admin = token("admin")?;
    let hook = |url: &str| json!({"kind": "webhook", "id": "a", "url": url, "secrets": ["whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"]});
    let fine = json!({"kind": "slack", "id": "b", "url": "https://1.1.1.1/services/x"});
    for (channel, refused) in [
        (json!({"kind": "email", "id": "a", "to": ["a@example.com"]}), Some("channels[1].kind")),
        (hook("http://127.0.0.1:9/"), Some("channels[1].url")),
        (hook("http://localhost/"), Some("channels[1].url")),
        (hook("http://[::1]/"), Some("channels[1].url")),
        (hook("http://10.0.0.7/"), Some("channels[1].url")),
        (hook("http://169.254.169.254/latest"), Some("channels[1].url")),
        (hook("http://2130706433/"), Some("channels[1].url")),
        (json!({"kind": "bark", "id": "a", "url": "http://192.168.1.1", "device_key": "k"}), Some("channels[1].url")),
        (json!({"kind": "gotify", "id": "a", "url": "http://172.16.0.1", "token": "t"}), Some("channels[1].url")),
        (json!({"kind": "slack", "id": "a", "url": "https://127.0.0.1/services/x"}), Some("channels[1].url")),
        (hook("https://1.1.1.1/hook"), None),
        (hook("https://nowhere.invalid/hook"), None),
    ] {
        let settings = json!({"channels": [fine, channel], "routes": [{"channels": ["a"]}]});
        for path in ["/api/v1/operators/settings", "/api/v1/merchants/m-1/settings"] {
            let mut put = Call::post_json(path, settings.to_string());
            put.method = "PUT".to_owned();
            let answer = ask(&bench.server, put, &admin).await?;
            let what = format!("{path} {channel}: {}", answer.json());
            match refused {
                Some(at) => assert_eq!((answer.status, field(&answer, "/field").as_str()), (400, at), "{what}"),
                None => assert_eq!(answer.status, 200, "{what}"),
            }
            let doubted = what.contains("nowhere.invalid");
            assert_eq!(field(&answer, "/warnings/0").contains("channels[1].url"), doubted, "{what}");
        }
    }
    Ok(())
}

/// Who changed what by hand is in the log, without secrets; so is who was not let in, without the token.
#[tokio::test]
async fn changes_by_hand_and_refused_credentials_are_logged() -> Result<()> {
    let bench = Bench::with(&[("JWT_SECRET", secret()), ("SLUICE_LOG", "error")])?;
    let admin = token("admin")?;
    let suspend = json!({"merchant_id": "m-1", "currency": "USD", "reason": "fraud"});
    assert_eq!(bench.post("/api/v1/quotas/suspend", &admin, &suspend).await?.status, 200);
    let wrong = "slc_wrong-token-of-a-test";
    assert_eq!(bench.get("/api/v1/quotas/stats", wrong).await?.status, 401);
    let audit = |message: &str| {
        let lines = bench.server.log_lines().into_iter();
        lines.filter(|line| line["target"] == "sluice::audit" && line["message"] == message).collect::<Vec<_>>()
    };
    let changed = testkit::wait::until_async("the change's line", crate::bench::WITHIN, || async {
        Ok(audit("change by hand").pop())
    })
    .await?;
    assert_eq!((&changed["actor"], &changed["path"]), (&json!("admin-1"), &json!("/api/v1/quotas/suspend")));
    assert_eq!((&changed["status"], &changed["client"]), (&json!(200), &json!("127.0.0.1")));
    assert!(changed["request"].as_str().is_some_and(|text| text.contains("fraud")), "{changed}");
    let refused = testkit::wait::until_async("the refusal's line", crate::bench::WITHIN, || async {
        Ok(audit("credentials refused").pop())
    })
    .await?;
    assert_eq!((&refused["problem"], &refused["client"]), (&json!("INVALID_TOKEN"), &json!("127.0.0.1")));
    assert!(bench.server.log_lines().iter().all(|line| !line.to_string().contains(wrong)));
    Ok(())
}
