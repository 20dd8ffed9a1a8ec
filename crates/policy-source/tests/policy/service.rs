//! The external policy service: what holds while it is slow, down or says nonsense.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use quota::{Currency, LimitName, MerchantId, Period, Policy, ThresholdPolicy, Trust};
use sluice_policy_source::service::FIRST_ANSWER_MAX;
use testkit::dirs::RunDir;
use testkit::ports::{self, loopback};
use testkit::{Failure, Result, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::bench::{DOCUMENT, Node, WITHIN, daily_policy, postgres, put_in_force};
use crate::zones::{self, Database};

/// What the service does with a request.
#[derive(Clone, Debug)]
enum Behaviour {
    /// Status, more header lines, body; `{merchant}` in the body stands for the merchant that was asked for.
    Answer(&'static str, &'static str, String),
    /// Takes the request and says nothing.
    Hang,
}

fn daily(daily: u64) -> Behaviour {
    ok(&format!("{{\"merchant_id\": \"{{merchant}}\", \"daily_limit\": {daily}}}"))
}

fn ok(body: &str) -> Behaviour {
    Behaviour::Answer("200 OK", "", body.to_owned())
}

/// The service's own word that it has no policy.
fn none() -> Behaviour {
    Behaviour::Answer("404 Not Found", "content-type: application/problem+json\r\n", "{}".to_owned())
}

/// A policy service whose answers a test chooses. Its port stays the same while it is down.
struct PolicyService {
    port: u16,
    behaviour: Arc<Mutex<Behaviour>>,
    asked: Arc<Mutex<Vec<String>>>,
    task: Option<JoinHandle<()>>,
}

impl PolicyService {
    async fn start(behaviour: Behaviour) -> Result<Self> {
        let port = ports::free()?;
        let mut service = Self { port, behaviour: Arc::new(Mutex::new(behaviour)), asked: Arc::default(), task: None };
        service.up().await?;
        Ok(service)
    }

    fn url(&self) -> String {
        format!("http://{}", loopback(self.port))
    }

    fn behave(&self, behaviour: Behaviour) {
        *self.behaviour.lock().unwrap_or_else(PoisonError::into_inner) = behaviour;
    }

    async fn up(&mut self) -> Result<()> {
        let listener = TcpListener::bind(loopback(self.port)).await?;
        let (behaviour, asked) = (Arc::clone(&self.behaviour), Arc::clone(&self.asked));
        self.task = Some(tokio::spawn(async move {
            // Dropped with this task, so that being down ends what hangs.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&behaviour), Arc::clone(&asked)));
            }
        }));
        Ok(())
    }

    async fn down(&mut self) {
        if let Some(task) = self.task.take() {
            task.abort();
            let _ = task.await;
        }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One request, after which the connection is closed.
async fn serve(mut stream: TcpStream, behaviour: Arc<Mutex<Behaviour>>, asked: Arc<Mutex<Vec<String>>>) {
    let mut request = vec![0; 16 * 1024];
    let Ok(length) = stream.read(&mut request).await else { return };
    let head = String::from_utf8_lossy(&request[..length]).into_owned();
    let target = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let merchant = target.split("merchant_id=").nth(1).and_then(|rest| rest.split('&').next()).unwrap_or_default();
    let behaviour = behaviour.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let answer = match behaviour {
        Behaviour::Hang => None,
        Behaviour::Answer(status, headers, body) => {
            let body = body.replace("{merchant}", merchant);
            let length = body.len();
            Some(format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\nconnection: close\r\n\r\n{body}"))
        }
    };
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(target);
    match answer {
        Some(answer) => drop(stream.write_all(answer.as_bytes()).await),
        None => std::future::pending().await,
    }
}

async fn node(service: &PolicyService, postgres_url: &str, document: Option<&str>) -> Result<Node> {
    let url = service.url();
    Node::start(postgres_url, document, &[("POLICY_SERVICE_URL", &url), ("SLUICE_POLICY_REFRESH_SECS", "1")]).await
}

#[tokio::test]
async fn its_answer_outranks_the_configured_policies_and_is_kept() -> Result<()> {
    let postgres = postgres().await?;
    let service = PolicyService::start(daily(7)).await?;
    let node = node(&service, &postgres.url(), Some(DOCUMENT)).await?;
    put_in_force(&node.repository(&postgres)?, &daily_policy("m", 5)).await?;
    let policy = node.policy("m", "USD", Some("card")).await?;
    let policy = policy.map(|policy| (policy.limits.windows.day.amount.get(), policy.version.starts_with("service:")));
    assert_eq!(policy, Some((7, true)));
    let mut asked = service.asked();
    asked.sort();
    let question = "/api/v1/limit-policies/effective?merchant_id=m&currency=USD";
    assert_eq!(asked, [question.to_owned(), format!("{question}&channel=card")]);
    // What the account itself may was asked for as well.
    node.daily("m").await?;
    assert_eq!(service.asked().len(), 2);
    // Read again in the background, without a payment.
    service.behave(daily(8));
    node.wait_for_daily("m", 8, WITHIN).await?;
    let figures = node.metrics.encode();
    let step_downs = figures.lines().filter(|line| line.starts_with("sluice_policy_step_downs_total{"));
    assert!(step_downs.clone().count() == 3 && step_downs.clone().all(|line| line.ends_with(" 0")), "{figures}");
    Ok(())
}

/// Each of these is no policy. An account that had one keeps it; another has what is configured, or the default limits.
#[tokio::test]
async fn nonsense_changes_nothing() -> Result<()> {
    let huge = format!("{{\"daily_limit\": 1, \"padding\": \"{}\"}}", "x".repeat(100_000));
    let elsewhere = PolicyService::start(daily(1)).await?;
    let redirect: &'static str = Box::leak(format!("location: {}/\r\n", elsewhere.url()).into_boxed_str());
    let table = [
        ("garbage", ok("<html>it works</html>")),
        ("another form", ok("[1, 2]")),
        ("nothing", ok("")),
        ("no limit", ok("{}")),
        ("below zero", ok("{\"daily_limit\": -1}")),
        ("another merchant's", ok("{\"merchant_id\": \"other\", \"daily_limit\": 1}")),
        ("another currency's", ok("{\"currency\": \"EUR\", \"daily_limit\": 1}")),
        ("not in force", ok("{\"status\": \"pending\", \"daily_limit\": 1}")),
        ("huge", ok(&huge)),
        ("an error", Behaviour::Answer("500 Internal Server Error", "", "{\"daily_limit\": 1}".to_owned())),
        ("a redirect", Behaviour::Answer("302 Found", redirect, "{\"daily_limit\": 1}".to_owned())),
        ("a proxy's 404", Behaviour::Answer("404 Not Found", "content-type: text/html\r\n", "<html>".to_owned())),
        ("a bare 404", Behaviour::Answer("404 Not Found", "", String::new())),
        ("no body", Behaviour::Answer("204 No Content", "", String::new())),
    ];
    let postgres = postgres().await?;
    let service = PolicyService::start(daily(7)).await?;
    let configured = node(&service, &postgres.url(), Some(DOCUMENT)).await?;
    let alone = node(&service, &postgres.url(), None).await?;
    assert_eq!((configured.daily("known").await?, alone.daily("known").await?), (Some(7), Some(7)));
    for (number, (what, behaviour)) in table.into_iter().enumerate() {
        service.behave(behaviour);
        let stranger = format!("m-{number}");
        let question = format!("/api/v1/limit-policies/effective?merchant_id={stranger}&currency=USD");
        assert_eq!(configured.daily(&stranger).await?, Some(1_000), "{what}");
        alone.daily(&stranger).await?;
        // Answered to both, whether or not they waited for it.
        wait::until_async(what, WITHIN, || async {
            Ok((service.asked().iter().filter(|asked| **asked == question).count() >= 2).then_some(()))
        })
        .await?;
        let defaults = alone.policy(&stranger, "USD", None).await?.map(|policy| {
            (
                policy.single_min.get(),
                policy.single_max.get(),
                policy.limits.windows.day.amount.get(),
                policy.limits.windows.month.amount.get(),
            )
        });
        assert_eq!(defaults, Some((100, 100_000_000, 500_000_000, 10_000_000_000)), "{what}");
        assert_eq!(configured.daily(&stranger).await?, Some(1_000), "{what}");
        assert_eq!((configured.daily("known").await?, alone.daily("known").await?), (Some(7), Some(7)), "{what}");
    }
    assert!(elsewhere.asked().is_empty(), "a redirect was followed");
    // It recovers, for all of them.
    service.behave(daily(9));
    for merchant in ["known", "m-0", "m-5", "m-11"] {
        configured.wait_for_daily(merchant, 9, WITHIN).await?;
        alone.wait_for_daily(merchant, 9, WITHIN).await?;
    }
    Ok(())
}

#[tokio::test]
async fn without_a_policy_of_the_service_the_configured_one_holds() -> Result<()> {
    let postgres = postgres().await?;
    let service = PolicyService::start(none()).await?;
    let node = node(&service, &postgres.url(), Some(DOCUMENT)).await?;
    assert_eq!(node.daily("m").await?, Some(1_000));
    assert!(node.has_metric("sluice_policy_step_downs_total{to=\"configured\"} 1"), "{}", node.metrics.encode());
    service.behave(daily(7));
    node.wait_for_daily("m", 7, WITHIN).await?;
    // Taken away again: its last answer is no longer the service's word.
    service.behave(none());
    node.wait_for_daily("m", 1_000, WITHIN).await
}

/// X8: whom the service knows is known; whom neither it nor the document names is refused.
#[tokio::test]
async fn x8_a_merchant_that_only_the_service_knows_is_known() -> Result<()> {
    let postgres = postgres().await?;
    let service = PolicyService::start(none()).await?;
    let document = DOCUMENT.replacen('{', "{unknown_merchants: refuse, ", 1);
    let node = node(&service, &postgres.url(), Some(&document)).await?;
    let unknown =
        async || Ok::<_, testkit::Failure>(node.policy("m", "USD", None).await?.map(|policy| policy.merchant_unknown));
    assert_eq!(unknown().await?, Some(true));
    service.behave(daily(7));
    node.wait_for_daily("m", 7, WITHIN).await?;
    assert_eq!(unknown().await?, Some(false));
    service.behave(none());
    node.wait_for_daily("m", 1_000, WITHIN).await?;
    assert_eq!(unknown().await?, Some(true));
    Ok(())
}

#[tokio::test]
async fn a_service_that_hangs_or_is_down_holds_up_one_payment_at_most() -> Result<()> {
    let postgres = postgres().await?;
    let mut service = PolicyService::start(Behaviour::Hang).await?;
    let node = node(&service, &postgres.url(), Some(DOCUMENT)).await?;
    // The first payment of an account waits, but not for long.
    let began = Instant::now();
    assert_eq!(node.daily("m").await?, Some(1_000));
    let took = began.elapsed();
    assert!(took >= FIRST_ANSWER_MAX && took < FIRST_ANSWER_MAX + Duration::from_millis(400), "{took:?}");
    service.behave(daily(7));
    node.wait_for_daily("m", 7, WITHIN).await?;

    // Once a policy is known no payment waits, whatever the service does.
    service.behave(Behaviour::Hang);
    let seen = service.asked().len();
    wait::until_async("a request that hangs", WITHIN, || async { Ok((service.asked().len() > seen).then_some(())) })
        .await?;
    let began = Instant::now();
    for _ in 0..100 {
        assert_eq!(node.daily("m").await?, Some(7));
    }
    assert!(began.elapsed() < FIRST_ANSWER_MAX, "{:?}", began.elapsed());

    // Down: known accounts keep their policy, and no payment waits for a service that is known to be away.
    service.down().await;
    node.wait_for_metric("sluice_policy_source_up{source=\"service\"} 0").await?;
    // `/ready` says so, and that payments are decided all the same.
    let said = node.health.states().policy_service.ok_or_else(|| Failure::new("the service was never asked"))?;
    let detail = said.detail.unwrap_or_default();
    assert!(!said.up && detail.contains("payments are decided by its last answers"), "{detail}");
    wait::until_async("the step down", WITHIN, || async {
        let known = node.daily("m").await? == Some(7);
        Ok((known && node.metrics.encode().contains("step_downs_total{to=\"last_known\"}")).then_some(()))
    })
    .await?;
    let began = Instant::now();
    for number in 0..20 {
        assert_eq!(node.daily(&format!("stranger-{number}")).await?, Some(1_000));
    }
    assert!(began.elapsed() < FIRST_ANSWER_MAX * 5, "{:?}", began.elapsed());
    service.behave(daily(8));
    service.up().await?;
    for merchant in ["m", "stranger-0", "stranger-19"] {
        node.wait_for_daily(merchant, 8, WITHIN).await?;
    }
    node.wait_for_metric("sluice_policy_source_up{source=\"service\"} 1").await?;
    assert!(node.health.states().policy_service.is_some_and(|service| service.up));
    Ok(())
}

/// All payments of an account that come before its first answer wait for the same request.
#[tokio::test]
async fn an_account_is_asked_for_once() -> Result<()> {
    let postgres = postgres().await?;
    let service = PolicyService::start(daily(7)).await?;
    let url = service.url();
    let env = [("POLICY_SERVICE_URL", url.as_str()), ("SLUICE_POLICY_REFRESH_SECS", "3600")];
    let node = Arc::new(Node::start(&postgres.url(), None, &env).await?);
    let payments: Vec<_> = (0..50)
        .map(|_| {
            let node = Arc::clone(&node);
            tokio::spawn(async move { node.daily("m").await })
        })
        .collect();
    for payment in payments {
        assert_eq!(payment.await??, Some(7));
    }
    assert_eq!(service.asked().len(), 1);
    Ok(())
}

/// Q-5: an account's windows follow its own calendar or stay as they are. No source that stands in for the service
/// moves them.
#[tokio::test]
async fn q5_a_step_down_keeps_the_calendar() -> Result<()> {
    let calendar = |policy: &Policy| policy.calendar_known.then(|| policy.calendar.zone_name().to_owned());
    let los_angeles = "{\"daily_limit\": 7, \"timezone\": \"America/Los_Angeles\"}";
    let document = "{version: file, default: {daily_amount: 1000, timezone: Asia/Shanghai}}";
    let postgres = postgres().await?;
    let mut service = PolicyService::start(none()).await?;
    let answered = node(&service, &postgres.url(), Some(document)).await?;
    let of = async |node: &Node, merchant: &str, channel: Option<&str>| {
        let policy = node.policy(merchant, "USD", channel).await?;
        Ok::<_, Failure>(policy.map(|policy| (policy.limits.windows.day.amount.get(), calendar(&policy))))
    };
    // The service's word that it has no policy leaves the account to the configured ones.
    assert_eq!(of(&answered, "configured", None).await?, Some((1_000, Some("Asia/Shanghai".to_owned()))));
    service.behave(ok(los_angeles));
    assert_eq!(of(&answered, "m", None).await?, Some((7, Some("America/Los_Angeles".to_owned()))));

    // Away: the node that was answered keeps the calendar; a server that starts now knows the limits, and no calendar.
    service.down().await;
    answered.wait_for_metric("sluice_policy_source_up{source=\"service\"} 0").await?;
    assert_eq!(of(&answered, "m", Some("card")).await?, Some((7, Some("America/Los_Angeles".to_owned()))));
    let configured = node(&service, &postgres.url(), Some(document)).await?;
    let alone = node(&service, &postgres.url(), None).await?;
    assert_eq!(of(&configured, "m", None).await?, Some((1_000, None)));
    assert_eq!(of(&alone, "m", Some("card")).await?, Some((500_000_000, None)));
    service.up().await?;
    for node in [&configured, &alone] {
        node.wait_for_daily("m", 7, WITHIN).await?;
        assert_eq!(of(node, "m", None).await?, Some((7, Some("America/Los_Angeles".to_owned()))));
    }
    Ok(())
}

/// F6: the calendar of an answer follows renewed zone data, also while the service is away.
#[tokio::test]
async fn f6_an_answers_calendar_follows_renewed_zone_data() -> Result<()> {
    let dir = RunDir::new("zones")?;
    let database = Database::new(&dir, "2999a", "Etc/GMT+8")?;
    let postgres = postgres().await?;
    let mut service = PolicyService::start(ok("{\"daily_limit\": 7, \"timezone\": \"Test/Zone\"}")).await?;
    let (url, tzdir) = (service.url(), database.path());
    let env = [("POLICY_SERVICE_URL", url.as_str()), ("SLUICE_POLICY_REFRESH_SECS", "3600"), ("TZDIR", tzdir.as_str())];
    let node = Node::start(&postgres.url(), None, &env).await?;
    let hour = async || {
        let policy = node.policy("m", "USD", None).await?.ok_or_else(|| Failure::new("no policy"))?;
        let begins = policy.calendar.begins_at_ms(Period::Day, 20_261_129).unwrap_or_default();
        Ok::<_, Failure>(begins.rem_euclid(86_400_000) / 3_600_000)
    };
    assert_eq!(hour().await?, 8);
    service.down().await;
    database.put("Test/Zone", zones::data("Etc/GMT+3")?)?;
    wait::until_async("the renewed zone", WITHIN, || async { Ok((hour().await? == 3).then_some(())) }).await
}

/// A channel has limits of its own, and its account's calendar, thresholds and trust.
#[tokio::test]
async fn q5_a_channel_follows_its_accounts_calendar() -> Result<()> {
    let postgres = postgres().await?;
    let trust = r#""trust": "on", "trust_above_percent": 20, "trust_share_percent": 5, "trust_ttl_ms": 2000"#;
    let answer = format!(r#"{{"daily_limit": 7, "timezone": "Asia/Tokyo", {trust}}}"#);
    let service = PolicyService::start(ok(&answer)).await?;
    let url = service.url();
    let env = [("POLICY_SERVICE_URL", url.as_str()), ("SLUICE_POLICY_REFRESH_SECS", "3600")];
    let node = Node::start(&postgres.url(), None, &env).await?;
    assert_eq!(node.daily("m").await?, Some(7));
    service.behave(daily(5));
    let policy = wait::until_async("the channel's own answer", WITHIN, || async {
        let policy = node.policy("m", "USD", Some("card")).await?;
        Ok(policy.filter(|policy| policy.limits.windows.day.amount.get() == 5))
    })
    .await?;
    assert_eq!((policy.calendar.zone_name(), policy.calendar_known), ("Asia/Tokyo", true));
    assert_eq!(watched(&policy), Some(7), "usage is the account's");
    let trust = Trust { above_percent: 20, share_percent: 5, ttl_ms: 2_000 };
    assert_eq!(policy.trust, Some(trust), "rights are the account's");
    Ok(())
}

/// The daily amount that usage is measured by.
fn watched(policy: &Policy) -> Option<u64> {
    let place = ThresholdPolicy::LIMITS.iter().position(|limit| *limit == LimitName::DailyAmount)?;
    policy.threshold_policy.as_ref().map(|watch| watch.maxima()[place].get())
}

/// Usage is reported by the account's own limits, not by those that stand in for them.
#[tokio::test]
async fn usage_is_measured_by_the_accounts_own_limits() -> Result<()> {
    let postgres = postgres().await?;
    let mut service = PolicyService::start(none()).await?;
    let node = node(&service, &postgres.url(), Some(DOCUMENT)).await?;
    let of = async |merchant: &str| {
        let policy = node.policy(merchant, "USD", None).await?;
        Ok::<_, Failure>(policy.map(|policy| (policy.limits.windows.day.amount.get(), watched(&policy))))
    };
    // The service's word that it has none leaves the account to what is configured.
    assert_eq!(of("configured").await?, Some((1_000, Some(1_000))));
    service.behave(daily(7));
    assert_eq!(of("m").await?, Some((7, Some(7))));
    // A payment of long ago: with the next reading the account is forgotten, but for its calendar.
    let (idle, usd) = (MerchantId::parse("idle")?, Currency::parse("USD")?);
    node.policies.effective(&idle, usd, None, 0).await;
    let forgotten = wait::until_async("the account is forgotten", WITHIN, || async {
        let policy = node.policies.peek(&idle, usd, None, 0);
        Ok(policy.filter(|policy| policy.limits.windows.day.amount.get() == 1_000))
    })
    .await?;
    assert_eq!((watched(&forgotten), forgotten.calendar_known), (None, true));

    service.down().await;
    node.wait_for_metric("sluice_policy_source_up{source=\"service\"} 0").await?;
    assert_eq!(of("m").await?, Some((7, Some(7))));
    assert_eq!(of("stranger").await?, Some((1_000, None)));
    Ok(())
}

/// Who pays chooses the channel.
#[tokio::test]
async fn a_channel_that_is_made_up_neither_waits_nor_leaves_the_account() -> Result<()> {
    let postgres = postgres().await?;
    let service = PolicyService::start(daily(7)).await?;
    let node = node(&service, &postgres.url(), Some(DOCUMENT)).await?;
    assert_eq!(node.daily("m").await?, Some(7));
    service.behave(Behaviour::Hang);
    let began = Instant::now();
    for number in 0..100 {
        let policy = node.policy("m", "USD", Some(&format!("made-up-{number}"))).await?;
        assert_eq!(policy.map(|policy| policy.limits.windows.day.amount.get()), Some(7));
    }
    assert!(began.elapsed() < FIRST_ANSWER_MAX * 5, "{:?}", began.elapsed());
    // Only looked at, an account is neither asked for nor remembered.
    let (stranger, usd) = (MerchantId::parse("stranger")?, Currency::parse("USD")?);
    let seen = node.policies.peek(&stranger, usd, None, 0).map(|policy| policy.calendar_known);
    assert_eq!(seen, Some(false));
    assert!(node.has_metric("sluice_policy_service_accounts 1"), "{}", node.metrics.encode());
    Ok(())
}
