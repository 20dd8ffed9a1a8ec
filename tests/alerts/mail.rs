//! Mail, through a real mail server: text and HTML, TLS with a password, and what the server refuses.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use e2e::process::Process;
use e2e::{Result, dirs, ensure, ensure_eq, ports, tools, wait};
use serde_json::{Value, json};

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
    let mail = mails.wait(1).await?.remove(0);
    bench.wait_for("SELECT count(*) FROM alert_delivery WHERE outcome = 'sent' AND status = 250", 1).await?;
    ensure_eq!((&mail["from"], &mail["tls"]), (&json!("sluice@example.com"), &json!(false)));
    ensure_eq!(mail["to"], json!(["risk@example.com", "ana@example.com"]));
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
    // Nobody knows whether the first came: it goes again as the same mail.
    bench.sql("UPDATE alert_message SET state = 'pending', next_try_at = now(), ended_at = NULL").await?;
    bench.wake().await?;
    ensure_eq!(mails.wait(2).await?[1]["id"], mail["id"]);
    Ok(())
}

#[tokio::test]
async fn a_refusal_for_good_ends_it_and_one_for_now_does_not() -> Result<()> {
    let dir = dirs::RunDir::new("mails")?;
    let mails = Mails::start(dir.path())?;
    let url = format!("smtp://127.0.0.1:{}", mails.port);
    let env = [("SLUICE_SMTP_URL", url.as_str()), ("SLUICE_SMTP_FROM", "sluice@example.com")];
    let to = |id: &str, address: &str| json!({"kind": "email", "id": id, "to": [address]});
    let bench =
        Bench::start(all_to(&[to("never", "nobody@example.com"), to("later", "later@example.com")]), &env).await?;
    bench.raise(DAILY_100).await?;
    mails.wait(1).await?;
    bench.wait_for("SELECT count(*) FROM alert_delivery", 3).await?;
    let tries = "SELECT channel_id, state, status, outcome FROM alert_message JOIN alert_delivery USING (message_id) \
        ORDER BY channel_id, attempt";
    let rows = bench.rows(tries).await?;
    let row = |channel: &str, state: &str, status: u16, outcome: &str| json!({"channel_id": channel, "state": state, "status": status, "outcome": outcome});
    let expected = json!([
        row("later", "sent", 451, "failed"),
        row("later", "sent", 250, "sent"),
        row("never", "dead", 550, "failed")
    ]);
    ensure_eq!(rows, expected);
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
    let mail = mails.wait(1).await?.remove(0);
    ensure_eq!((&mail["tls"], &mail["user"]), (&json!(true), &json!("sluice")));
    let stranger = Bench::start(channels(), &[("SLUICE_SMTP_URL", &url), from]).await?;
    stranger.raise(DAILY_100).await?;
    stranger.wait_for("SELECT count(*) FROM alert_delivery WHERE attempt = 1 AND outcome = 'failed'", 1).await?;
    let errors = stranger.rows("SELECT error FROM alert_delivery WHERE attempt = 1").await?.to_string();
    ensure!(errors.contains("certificate") && !errors.contains("password"), "{errors}");
    ensure_eq!(mails.kept().len(), 1);
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
