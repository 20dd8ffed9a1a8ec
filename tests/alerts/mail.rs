//! Mail, through a real mail server: text and HTML, TLS with a password, and what the server refuses.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::process::Process;
use testkit::{Result, dirs, ensure, ensure_eq, ports, tools, wait};

use crate::bench::{Bench, DAILY_100, WITHIN, all_to, items};

/// How long Python may take to begin.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// The mail server, with what it kept.
struct Mails {
    port: u16,
    certificate: String,
    kept: std::path::PathBuf,
    _process: Process,
}

impl Mails {
    fn start(dir: &Path) -> Result<Self> {
        let python = tools::python("alerts-python", &dirs::workspace().join("tests/alerts/requirements.txt"))?;
        let own = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let (certificate, key) = (dir.join("mail.pem"), dir.join("mail.key"));
        std::fs::write(&certificate, own.cert.pem())?;
        std::fs::write(&key, own.signing_key.serialize_pem())?;
        let (port, kept) = (ports::free()?, dir.join("mails.json"));
        let mut command = Command::new(python);
        command.arg(dirs::workspace().join("tests/alerts/mail.py")).arg(port.to_string());
        command.args([&kept, &certificate, &key]);
        let mut process = Process::start("mail", command, &dir.join("mail.log"))?;
        process.wait_ready(READY_WITHIN, || Ok(wait::connect(ports::loopback(port)).is_ok()))?;
        Ok(Self { port, certificate: certificate.display().to_string(), kept, _process: process })
    }

    fn kept(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(&self.kept).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    async fn wait(&self, count: usize) -> Result<Vec<Value>> {
        wait::until_async("mails", WITHIN, || async { Ok(Some(self.kept()).filter(|kept| kept.len() >= count)) }).await
    }
}

fn channels() -> Value {
    all_to(&[json!({"kind": "email", "id": "mail", "to": ["risk@example.com", "Ana <ana@example.com>"]})])
}

#[tokio::test]
async fn mail_has_text_and_html_and_one_id_at_every_try() -> Result<()> {
    let dir = dirs::RunDir::new("mails")?;
    let mails = Mails::start(dir.path())?;
    let url = format!("smtp://127.0.0.1:{}", mails.port);
    let env = [("SLUICE_SMTP_URL", url.as_str()), ("SLUICE_SMTP_FROM", "Sluice <sluice@example.com>")];
    let bench = Bench::start(channels(), &env).await?;
    bench.raise(DAILY_100).await?;
    let mut both = mails.wait(2).await?;
    bench.wait_for("SELECT count(*) FROM alert_delivery WHERE outcome = 'sent' AND status = 250", 1).await?;
    both.sort_by_key(|mail| mail["to"].to_string());
    ensure_eq!((&both[0]["to"], &both[1]["to"]), (&json!(["ana@example.com"]), &json!(["risk@example.com"])));
    ensure_eq!(both[0]["id"], both[1]["id"]);
    let mail = both.remove(0);
    ensure_eq!((&mail["from"], &mail["tls"]), (&json!("sluice@example.com"), &json!(false)));
    ensure_eq!(
        (&mail["subject"], &mail["type"]),
        (&json!("[critical] daily_100: M-1, USD"), &json!("multipart/alternative"))
    );
    let id = bench.rows("SELECT message_id FROM alert_message").await?;
    ensure_eq!(mail["id"], format!("<{}@example.com>", id[0]["message_id"].as_str().unwrap_or_default()));
    let parts = items(&mail["parts"]);
    let types: Vec<&Value> = parts.iter().map(|part| &part["type"]).collect();
    ensure_eq!(types, ["text/plain", "text/html"]);
    let text = |part: &Value| part["text"].as_str().unwrap_or_default().to_owned();
    ensure!(text(&parts[0]).contains("Today's amount has reached 100 % of its limit"), "{mail:#}");
    ensure!(text(&parts[1]).contains("<p>Today&#39;s amount has reached 100 % of its limit</p>"), "{mail:#}");
    // It is unknown whether the first came: it goes again as the same mail.
    bench.sql("UPDATE alert_message SET state = 'pending', told = '{}', next_try_at = now(), ended_at = NULL").await?;
    bench.wake().await?;
    ensure_eq!(mails.wait(4).await?[3]["id"], mail["id"]);
    Ok(())
}

#[tokio::test]
async fn who_is_refused_keeps_a_mail_from_no_one_else_and_is_tried_again() -> Result<()> {
    let dir = dirs::RunDir::new("mails")?;
    let mails = Mails::start(dir.path())?;
    let url = format!("smtp://127.0.0.1:{}", mails.port);
    let env = [("SLUICE_SMTP_URL", url.as_str()), ("SLUICE_SMTP_FROM", "sluice@example.com")];
    let to = |to: &[&str]| all_to(&[json!({"kind": "email", "id": "mail", "to": to})]);
    let bench = Bench::start(to(&["nobody@example.com", "later@example.com", "risk@example.com"]), &env).await?;
    bench.raise(DAILY_100).await?;
    let kept = mails.wait(2).await?;
    ensure_eq!((&kept[0]["to"], &kept[1]["to"]), (&json!(["risk@example.com"]), &json!(["later@example.com"])));
    ensure_eq!(kept[0]["id"], kept[1]["id"]);
    bench.wait_for("SELECT count(*) FROM alert_delivery WHERE attempt <= 3 AND next_try_at IS NOT NULL", 3).await?;
    let tries = bench.rows("SELECT status, error FROM alert_delivery ORDER BY attempt LIMIT 3").await?;
    let named = |number: usize| {
        let error = tries[number]["error"].as_str().unwrap_or_default();
        ["nobody@", "later@", "risk@"].map(|name| error.contains(name))
    };
    ensure_eq!([0, 1, 2].map(named), [[true, true, false], [true, false, false], [true, false, false]], "{tries:#}");
    ensure_eq!(tries[1]["status"], 550);
    let message = bench.rows("SELECT state, told FROM alert_message").await?;
    ensure_eq!(message, json!([{"state": "pending", "told": ["risk@example.com", "later@example.com"]}]));
    // No address is left that has not taken it.
    bench.set("operators", to(&["later@example.com", "risk@example.com"])).await?;
    bench.sql("UPDATE alert_message SET next_try_at = now()").await?;
    bench.wake().await?;
    bench.wait_for("SELECT count(*) FROM alert_message WHERE state = 'sent'", 1).await?;
    ensure_eq!(mails.kept().len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_password_goes_over_tls_only_and_to_a_trusted_server_only() -> Result<()> {
    let dir = dirs::RunDir::new("mails")?;
    let mails = Mails::start(dir.path())?;
    let url = format!("smtp://sluice:a%20password@localhost:{}?tls=required", mails.port);
    let from = ("SLUICE_SMTP_FROM", "sluice@example.com");
    let bench =
        Bench::start(channels(), &[("SLUICE_SMTP_URL", &url), from, ("SSL_CERT_FILE", &mails.certificate)]).await?;
    bench.raise(DAILY_100).await?;
    let mail = mails.wait(2).await?.remove(0);
    ensure_eq!((&mail["tls"], &mail["user"]), (&json!(true), &json!("sluice")));
    let stranger = Bench::start(channels(), &[("SLUICE_SMTP_URL", &url), from]).await?;
    stranger.raise(DAILY_100).await?;
    stranger.wait_for("SELECT count(*) FROM alert_delivery WHERE attempt = 1 AND outcome = 'failed'", 1).await?;
    let errors = stranger.rows("SELECT error FROM alert_delivery WHERE attempt = 1").await?.to_string();
    ensure!(errors.contains("certificate") && !errors.contains("password"), "{errors}");
    ensure_eq!(mails.kept().len(), 2);
    Ok(())
}

#[tokio::test]
async fn without_a_mail_server_a_try_says_what_to_set() -> Result<()> {
    let bench = Bench::start(channels(), &[]).await?;
    bench.raise(DAILY_100).await?;
    let says = "SELECT count(*) FROM alert_delivery \
            WHERE attempt = 1 AND error LIKE '%SLUICE_SMTP_URL and SLUICE_SMTP_FROM'";
    bench.wait_for(says, 1).await
}
