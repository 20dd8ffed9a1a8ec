//! Gotify, Bark, Slack and Teams, by servers that ask of a message what the real ones ask, and answer as they do.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testkit::{Result, ensure, ensure_eq};

use crate::bench::{Bench, DAILY_80, DAILY_100, all_to, items};
use crate::receiver::{Got, Receiver, Reply, redirect, status};

const TOKEN: &str = "AKr9vbJ.pYCXsmx";
const DEVICE_KEY: &str = "nysrshcqielvoxsa";
/// Teams takes messages of 28 KB.
const TEAMS_BYTES_MAX: usize = 28 * 1024;
/// Slack's bounds of the texts in blocks.
const HEADER_CHARS_MAX: usize = 150;
const SECTION_CHARS_MAX: usize = 3000;
/// What Apple's push service takes, in bytes.
const PUSH_BYTES_MAX: usize = 4096;

fn said(status: u16, body: &Value) -> Reply {
    Reply::Whole(status, "content-type: application/json\r\n".to_owned(), body.to_string())
}

fn is_json(got: &Got) -> bool {
    got.header("content-type").starts_with("application/json")
}

/// `POST /message` of Gotify 2: the token of an application, a message that is not empty, a number for a priority.
fn gotify(got: &Got) -> Reply {
    let error =
        |status, words: &str| said(status, &json!({"error": words, "errorCode": status, "errorDescription": words}));
    let body = got.json();
    if !got.line.starts_with("POST /message HTTP/1.1") {
        return error(404, "page not found");
    }
    if got.header("x-gotify-key") != TOKEN {
        let said = format!("you need to provide a valid access token, not {}", got.header("x-gotify-key"));
        return error(401, &said);
    }
    let message = body["message"].as_str().unwrap_or_default();
    let fits = body["title"].is_string()
        && body["priority"].is_i64()
        && (body["extras"].is_null() || body["extras"].is_object());
    if !is_json(got) || message.is_empty() || !fits {
        return error(400, "Field 'message' is required");
    }
    let mut answer = body;
    answer["id"] = 25.into();
    answer["appid"] = 5.into();
    said(200, &answer)
}

/// `POST /push` of bark-server 2: the key of a device that it knows, texts for texts.
fn bark(got: &Got) -> Reply {
    let answer =
        |code: u16, message: &str| said(code, &json!({"code": code, "message": message, "timestamp": 1_700_000_000}));
    if !got.line.starts_with("POST /push HTTP/1.1") {
        return answer(404, "Cannot POST");
    }
    let body = got.json();
    if !is_json(got) || !body.is_object() {
        return answer(400, "request bind failed");
    }
    let texts = ["title", "body", "group", "level", "id"].iter().all(|name| body[*name].is_string());
    let level = ["critical", "active", "timeSensitive", "passive"].iter().any(|level| body["level"] == *level);
    match body["device_key"].as_str() {
        None | Some("") => answer(400, "device key is empty"),
        Some(DEVICE_KEY) if got.body.len() > PUSH_BYTES_MAX => answer(500, "push failed: PayloadTooLarge"),
        Some(DEVICE_KEY) if texts && level => answer(200, "success"),
        Some(DEVICE_KEY) => answer(500, "push failed"),
        // The real one says the key back.
        Some(key) => {
            answer(400, &format!("failed to get device token: failed to get [{key}] device token from database"))
        }
    }
}

/// An incoming webhook of Slack: a text, blocks of known types within their bounds, and answers in plain words.
fn slack(got: &Got) -> Reply {
    let answer = |status, words: &str| Reply::Whole(status, "content-type: text/html\r\n".to_owned(), words.to_owned());
    if !got.line.starts_with("POST /services/T000/B000/secret HTTP/1.1") {
        return answer(404, &format!("no_service: {}", got.line));
    }
    let body = got.json();
    if !is_json(got) || !body.is_object() {
        return answer(400, "invalid_payload");
    }
    if body["text"].as_str().is_none_or(str::is_empty) {
        return answer(400, "no_text");
    }
    let fits = |block: &Value| {
        let (of, text) = (&block["text"]["type"], block["text"]["text"].as_str().unwrap_or_default());
        let chars = text.chars().count();
        match block["type"].as_str() {
            Some("header") => of == "plain_text" && (1..=HEADER_CHARS_MAX).contains(&chars),
            Some("section") => of == "mrkdwn" && (1..=SECTION_CHARS_MAX).contains(&chars) && !text.contains("<script>"),
            _ => false,
        }
    };
    let blocks = body["blocks"].as_array().cloned().unwrap_or_default();
    if blocks.is_empty() || !blocks.iter().all(fits) { answer(400, "invalid_blocks") } else { answer(200, "ok") }
}

/// The trigger of a Teams workflow: a message with one Adaptive Card, accepted with an empty answer.
fn teams(got: &Got) -> Reply {
    let answer =
        |status, words: &str| Reply::Whole(status, "content-type: application/json\r\n".to_owned(), words.to_owned());
    if !got
        .line
        .starts_with("POST /workflows/0123456789abcdef/triggers/manual/paths/invoke?sig=teams-signature HTTP/1.1")
    {
        let words = json!({"error": {"code": "DirectApiAuthorizationRequired", "message": format!("not signed: {}", got.line)}});
        return answer(401, &words.to_string());
    }
    let body = got.json();
    let attachments = body["attachments"].as_array().cloned().unwrap_or_default();
    let card = |attachment: &Value| {
        let blocks = attachment["content"]["body"].as_array().cloned().unwrap_or_default();
        let is_block =
            |block: &Value| block["type"] == "TextBlock" && block["text"].as_str().is_some_and(|text| !text.is_empty());
        attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
            && attachment["content"]["type"] == "AdaptiveCard"
            && !blocks.is_empty()
            && blocks.iter().all(is_block)
    };
    let is_card = is_json(got) && body["type"] == "message" && attachments.len() == 1 && attachments.iter().all(card);
    if is_card && got.body.len() <= TEAMS_BYTES_MAX { answer(202, "") } else { answer(400, "{}") }
}

#[tokio::test]
async fn each_takes_what_it_is_sent() -> Result<()> {
    let gotify = Receiver::start(|_, got| gotify(got)).await?;
    let bark = Receiver::start(|_, got| bark(got)).await?;
    let slack = Receiver::start(|_, got| slack(got)).await?;
    let teams = Receiver::start(|_, got| teams(got)).await?;
    let workflow = format!("{}/workflows/0123456789abcdef/triggers/manual/paths/invoke?sig=", teams.base());
    let channels = [
        json!({"kind": "teams", "id": "teams", "url": format!("{workflow}teams-signature")}),
        json!({"kind": "teams", "id": "wrong-teams", "url": format!("{workflow}wrong-signature")}),
        json!({"kind": "gotify", "id": "gotify", "url": gotify.base(), "token": TOKEN}),
        json!({"kind": "bark", "id": "bark", "url": format!("{}/", bark.base()), "device_key": DEVICE_KEY}),
        json!({"kind": "slack", "id": "slack", "url": format!("{}/services/T000/B000/secret", slack.base())}),
        json!({"kind": "gotify", "id": "wrong-gotify", "url": gotify.base(), "token": "wrong/token"}),
        json!({"kind": "bark", "id": "wrong-bark", "url": bark.base(), "device_key": "wrong/key"}),
        json!({"kind": "slack", "id": "wrong-slack", "url": format!("{}/services/T000/B000/wrong-path", slack.base())}),
    ];
    let bench = Bench::start(all_to(&channels), &[("SLUICE_ALERT_RETRY_MS", "600000")]).await?;
    bench.raise(DAILY_100).await?;
    bench.raise(DAILY_80).await?;
    bench.wait_for("SELECT count(*) FROM alert_delivery", 16).await?;
    let rows = bench
        .rows(
            "SELECT channel_id, state, status, response FROM alert_message JOIN alert_delivery USING (message_id) \
        WHERE alert_level = 'critical'",
        )
        .await?;
    let mut found = BTreeMap::new();
    for row in items(&rows) {
        let text = |name: &str| row[name].as_str().unwrap_or_default().to_owned();
        found.insert(text("channel_id"), (text("state"), row["status"].as_i64(), text("response")));
    }
    let expected = [
        ("gotify", "sent", 200, "\"appid\":5"),
        ("bark", "sent", 200, "\"message\":\"success\""),
        ("slack", "sent", 200, "ok"),
        ("teams", "sent", 202, ""),
        ("wrong-teams", "pending", 401, "not signed"),
        ("wrong-gotify", "pending", 401, "valid access token"),
        ("wrong-bark", "pending", 400, "failed to get device token"),
        ("wrong-slack", "pending", 404, "no_service"),
    ];
    for (channel, state, status, words) in expected {
        let (is_state, is_status, response) = &found[channel];
        ensure_eq!((is_state.as_str(), *is_status), (state, Some(status)), "{channel}: {response}");
        ensure!(response.contains(words), "{channel}: {response}");
        ensure!(
            !response.contains("wrong") && (*state == *"sent" || response.contains("********")),
            "{channel}: {response}"
        );
    }
    let card = teams.got()[0].json();
    let title = &card["attachments"][0]["content"]["body"][0]["text"];
    ensure!(title.as_str().is_some_and(|text| text.contains("daily\\_")), "{card}");
    let of = |receiver: &Receiver, name: &str| -> Vec<Value> {
        let mut values: Vec<Value> = receiver.got().iter().map(|got| got.json()[name].clone()).collect();
        values.sort_by_key(Value::to_string);
        values.dedup();
        values
    };
    ensure_eq!(of(&gotify, "priority"), [json!(5), json!(8)]);
    ensure_eq!(of(&bark, "level"), [json!("active"), json!("timeSensitive")]);
    // All of it is there for those who show no blocks.
    let texts = of(&slack, "text");
    let begins = |number: usize, words: &str| texts[number].as_str().is_some_and(|text| text.starts_with(words));
    ensure!(begins(0, "[critical] daily_100: M-1, USD\nToday's amount has reached 100 % of its limit\n"), "{texts:?}");
    ensure!(begins(1, "[warning] daily_80: M-1, USD\nToday's amount has reached 80 % of its limit\n"), "{texts:?}");
    Ok(())
}

#[tokio::test]
async fn a_digest_of_real_size_is_taken_and_counts_what_it_leaves_out() -> Result<()> {
    let bark = Receiver::start(|_, got| bark(got)).await?;
    let slack = Receiver::start(|_, got| slack(got)).await?;
    let channels = [
        json!({"kind": "bark", "id": "bark", "url": bark.base(), "device_key": DEVICE_KEY}),
        json!({"kind": "slack", "id": "slack", "url": format!("{}/services/T000/B000/secret", slack.base())}),
    ];
    let mut settings = all_to(&channels);
    settings["routes"][0]["delivery"] = "digest".into();
    let bench = Bench::start(settings, &[]).await?;
    for _ in 0..60 {
        bench.raise(DAILY_80).await?;
    }
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'held'", 120).await?;
    bench.sql("UPDATE alert_message SET next_try_at = now()").await?;
    bench.wake().await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent' AND kind = 'digest'", 2).await?;
    let body = slack.got()[0].json();
    let sections: Vec<&str> =
        items(&body["blocks"]).iter().filter_map(|block| block["text"]["text"].as_str()).collect();
    ensure_eq!(sections[1..].join("\n").lines().count(), 51);
    ensure!(body["text"].as_str().is_some_and(|text| text.ends_with("\nand 10 more")), "{body:#}");
    let body = bark.got()[0].json()["body"].as_str().unwrap_or_default().to_owned();
    let named = body.lines().count() - 1;
    ensure!(named > 20 && body.ends_with(&format!("\nand {} more", 60 - named)), "{body}");
    Ok(())
}

#[tokio::test]
async fn their_secrets_are_for_them_alone() -> Result<()> {
    let stranger = Receiver::start(|_, _| status(200)).await?;
    let target = stranger.url();
    let receiver = Receiver::start(move |_, _| redirect(307, &target)).await?;
    let channels = [
        json!({"kind": "gotify", "id": "gotify", "url": receiver.base(), "token": TOKEN}),
        json!({"kind": "bark", "id": "bark", "url": receiver.base(), "device_key": DEVICE_KEY}),
        json!({"kind": "slack", "id": "slack", "url": format!("{}/services/T000/B000/secret", receiver.base())}),
    ];
    let bench = Bench::start(all_to(&channels), &[("SLUICE_ALERT_RETRY_MS", "600000")]).await?;
    bench.raise(DAILY_100).await?;
    bench.wait_for("SELECT count(*) FROM alert_delivery WHERE error LIKE '%leads to another server'", 3).await?;
    ensure_eq!(stranger.got().len(), 0);
    let said = format!(
        "{}{}",
        bench.rows("SELECT * FROM alert_delivery").await?,
        std::fs::read_to_string(bench.dir.join("server.log"))?
    );
    for secret in [TOKEN, DEVICE_KEY, "B000/secret"] {
        ensure!(!said.contains(secret), "{secret} in {said}");
    }
    Ok(())
}
