//! S2: a POST that needs no field needs no body, however its client says so.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sluice_api::admin::openapi;
use testkit::api::secret;
use testkit::client::{Call, Part};
use testkit::{Result, wait};

use crate::bench::{Bench, WITHIN, ask, field, token};
use crate::keys::{Signer, claims, with};

/// Ways to send nothing.
const NOTHING: [(&str, Option<&str>, Option<&str>); 7] = [
    ("no body", None, None),
    ("no body, and JSON", None, Some("application/json")),
    ("no body, and a form, as some libraries say", None, Some("application/x-www-form-urlencoded")),
    ("an empty body", Some(""), None),
    ("blanks", Some(" \n"), Some("application/json; charset=utf-8")),
    ("an empty object", Some("{}"), Some("application/json")),
    ("an empty object of no type", Some("{}"), None),
];

fn nothing(path: &str, (_, body, media): (&str, Option<&str>, Option<&str>)) -> Call {
    let call = Call::new("POST", path);
    let call = media.into_iter().fold(call, |call, media| call.header("content-type", media));
    body.into_iter().fold(call, |call, body| call.part(Part::Data(body.to_owned().into())))
}

/// The POSTs of the document, and whether they need a body.
fn posts() -> Result<BTreeMap<String, bool>> {
    let document: Value = serde_json::from_str(&openapi::document())?;
    let paths = document["paths"].as_object().cloned().unwrap_or_default();
    let post = |(path, methods): (String, Value)| {
        let body = methods.get("post")?.get("requestBody").cloned();
        Some((path, body.is_some_and(|body| body["required"] == true)))
    };
    Ok(paths.into_iter().filter_map(post).collect())
}

/// A part of a path with something that is not there in the place of a parameter.
fn something(part: &str) -> &str {
    match part {
        "{merchant_id}" => "m-1",
        "{currency}" => "USD",
        "{grade_id}" => "1",
        part if part.starts_with('{') => "00000000-0000-7000-8000-000000000001",
        part => part,
    }
}

/// On things that are not there: what is asked for is understood, and not found.
#[tokio::test]
async fn s2_no_post_that_needs_no_field_demands_a_body() -> Result<()> {
    let bench = Bench::start()?;
    let (admin, posts) = (token("admin")?, posts()?);
    let free: Vec<&String> = posts.iter().filter(|(_, needs)| !**needs).map(|(path, _)| path).collect();
    for end in ["/acknowledge", "/resolve", "/approve", "/activate", "/deactivate", "/revoke", "/rotate", "/redeliver"]
    {
        assert!(free.iter().any(|path| path.ends_with(end)), "{end} is not among {free:?}");
    }
    for path in free {
        let path = path.split('/').map(something).collect::<Vec<_>>().join("/");
        for way in NOTHING {
            let answer = ask(&bench.server, nothing(&path, way), &admin).await?;
            assert_eq!(answer.status, 404, "{path} with {}: {}", way.0, answer.json());
        }
    }
    // Where a field is needed, nothing is answered by naming one.
    for (path, _) in posts.iter().filter(|(_, needs)| **needs) {
        let path = path.split('/').map(something).collect::<Vec<_>>().join("/");
        for way in NOTHING {
            let answer = ask(&bench.server, nothing(&path, way), &admin).await?;
            assert_eq!(answer.status, 400, "{path} with {}: {}", way.0, answer.json());
            assert!(!field(&answer, "/field").is_empty(), "{path} with {}: {}", way.0, answer.json());
        }
    }
    // What is something else than JSON is refused as before.
    for (body, media) in [("{}", "application/x-www-form-urlencoded"), ("<a/>", "application/xml")] {
        let way = ("another type", Some(body), Some(media));
        let answer = ask(&bench.server, nothing(&format!("/api/v1/alerts/{}/resolve", uuid::Uuid::nil()), way), &admin);
        assert_eq!(answer.await?.status, 415, "{media}");
    }
    Ok(())
}

/// On things that are there.
#[tokio::test]
async fn s2_alerts_and_policies_are_changed_without_a_body() -> Result<()> {
    let bench = Bench::start()?;
    let admin = token("admin")?;
    let boss = Signer::secret(secret()).sign(&with(claims("admin"), json!({"sub": "boss"})))?;
    let suspend = json!({"merchant_id": "merchant-001", "currency": "USD", "reason": "fraud"});
    assert_eq!(bench.post("/api/v1/quotas/suspend", &admin, &suspend).await?.status, 200);
    let alert = wait::until_async("the alert", WITHIN, || async {
        let open = bench.get("/api/v1/alerts/unresolved", &admin).await?;
        Ok(Some(field(&open, "/items/0/alert_id")).filter(|id| !id.is_empty()))
    });
    let alert = alert.await?;
    for step in ["acknowledge", "resolve"] {
        let call = Call::new("POST", &format!("/api/v1/alerts/{alert}/{step}"));
        let answer = ask(&bench.server, call, &admin).await?;
        assert_eq!(answer.status, 200, "{step}: {}", answer.json());
    }
    let policy = json!({"policy": {"merchant_id": "merchant-001", "daily_limit": 5_000}});
    let made = bench.post("/api/v1/limit-policies", &admin, &policy).await?;
    for step in ["approve", "activate", "deactivate"] {
        let call = Call::new("POST", &format!("/api/v1/limit-policies/{}/{step}", field(&made, "/policy_id")));
        let answer = ask(&bench.server, call, &boss).await?;
        assert_eq!(answer.status, 200, "{step}: {}", answer.json());
    }
    Ok(())
}
