//! The router through a real socket, without Postgres: what is open, what is closed, and the form of the answers.

use super::*;
use sluice_decision::decider::Decider;
use sluice_journal::HistoryStore;
use sluice_kit::shutdown;
use sluice_lines::CreditLines;
use sluice_policy::PolicyBook;
use sluice_policy_source::Policies;
use sluice_settings::Secret;
use sluice_store::{RedisStore, RedisStoreConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The status and body of one request, through a real socket.
async fn get(admin: &Admin, request: &str) -> (u16, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = shutdown::channel();
    let server = tokio::spawn(serve(listener, admin.clone(), stopped));
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    stop.request();
    server.await.unwrap();
    let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
    (status, reply)
}

/// An admin without a reachable Postgres, with more environment.
fn admin_with(env: &[(&str, &str)]) -> Admin {
    let env = env.iter().copied().chain([("SLUICE_POLICY_FILE", "/p.yaml")]);
    let settings = Settings::load(env.map(|(name, value)| (name.to_owned(), value.to_owned())), None).unwrap();
    let (live, metrics) = (Live::fixed(&settings), Arc::new(Metrics::new()));
    let health = Arc::new(Health::new(Arc::clone(&metrics)));
    let pool = sluice_kit::database::pool(&Secret::new("postgres://127.0.0.1:1/nowhere"), 1).unwrap();
    let config =
        RedisStoreConfig { url: Secret::new("redis://127.0.0.1:1"), shards: 1, timeout: Duration::from_secs(1) };
    let redis = Arc::new(RedisStore::open(&config).unwrap());
    let store = Arc::new(HistoryStore::new(redis, pool.clone()));
    let policies = Arc::new(Policies::new(PolicyBook::empty(), Arc::clone(&health)));
    let operations = Operations::new(Decider::new(store, policies, CreditLines::none(), live.clone(), &metrics));
    Admin::new(&settings, live, health, metrics, pool, operations).unwrap()
}

fn admin() -> Admin {
    admin_with(&[])
}

#[tokio::test]
async fn readiness_names_what_is_missing() {
    let admin = admin();
    type Step = (fn(&Health), u16, u16, &'static [&'static str]);
    let table: &[Step] = &[
        (
            |_| {},
            503,
            503,
            &["\"redis\":{\"up\":false,\"detail\":\"not reached yet\"}", "\"payments\":\"not decided\""],
        ),
        (|health| health.redis_up(), 503, 503, &["\"redis\":{\"up\":true}"]),
        (|health| health.clock_compared(0, None), 503, 503, &["\"clock\":{\"up\":true}"]),
        (|health| health.policy_active(), 503, 200, &["\"payments\":\"decided\"", "\"postgres\":{\"up\":false"]),
        (|health| health.postgres_up(), 200, 200, &["\"status\":\"ready\""]),
        (|health| health.postgres_down("refused"), 503, 200, &["\"detail\":\"refused\""]),
        (|health| health.redis_down("timeout"), 503, 503, &["\"detail\":\"timeout\""]),
        // F1: a clock that is off.
        (|health| health.redis_up(), 503, 200, &[]),
        (
            |health| health.clock_compared(9_000, Some("off".to_owned())),
            503,
            503,
            &["\"clock\":{\"up\":false,\"detail\":\"off\"}", "\"payments\":\"not decided\""],
        ),
    ];
    for (step, (change, ready, payments, parts)) in table.iter().enumerate() {
        change(&admin.health);
        let (status, body) = get(&admin, "GET /ready").await;
        assert_eq!(status, *ready, "step {step}: {body}");
        assert_eq!(get(&admin, "GET /ready/payments").await.0, *payments, "step {step}");
        for part in *parts {
            assert!(body.contains(part), "step {step}: {body}");
        }
    }
}

#[tokio::test]
async fn the_other_endpoints_answer() {
    let admin = admin();
    assert!(get(&admin, "GET /health").await.1.contains("{\"status\":\"ok\"}"));
    let (status, metrics) = get(&admin, "GET /metrics").await;
    assert!(status == 200 && metrics.contains("sluice_enforcement_active 0"), "{metrics}");
    let (status, problem) = get(&admin, "GET /nothing").await;
    assert!(status == 404 && problem.contains("application/problem+json"), "{problem}");
    let (status, problem) = get(&admin, "POST /health").await;
    assert!(status == 405 && problem.contains("application/problem+json"), "{problem}");
}

/// What describes the API is open, and whole: nothing is fetched from elsewhere.
#[tokio::test]
async fn the_api_is_described() {
    let admin = admin();
    let (status, document) = get(&admin, "GET /openapi.json").await;
    assert!(status == 200 && document.contains("\"openapi\":\"3.1.0\""), "{document}");
    let (status, page) = get(&admin, "GET /swagger/index.html").await;
    assert!(status == 200 && page.contains("swagger-ui") && !page.contains("https://"), "{page}");
    assert_eq!(get(&admin, "GET /swagger/swagger-ui-bundle.js").await.0, 200);
}

#[tokio::test]
async fn without_authentication_the_api_is_closed() {
    let admin = admin();
    for request in ["GET /api/v1/access-tokens", "POST /api/v1/quotas/consume", "GET /api/v1/nothing"] {
        let (status, problem) = get(&admin, request).await;
        assert_eq!(status, 503, "{request}");
        assert!(problem.contains("AUTH_NOT_CONFIGURED") && problem.contains("set JWT_SECRET"), "{problem}");
    }
}

#[tokio::test]
async fn whoever_shows_nothing_learns_nothing() {
    let mut random = [0_u8; 32];
    getrandom::fill(&mut random).unwrap();
    let secret = random.map(|byte| format!("{byte:02x}")).concat();
    let admin = admin_with(&[("JWT_SECRET", &secret)]);
    for request in ["GET /api/v1/access-tokens", "PUT /api/v1/access-tokens", "GET /api/v1/nothing"] {
        let (status, problem) = get(&admin, request).await;
        assert_eq!(status, 401, "{request}: {problem}");
        assert!(problem.contains("www-authenticate: Bearer realm=\"sluice\""), "{problem}");
        assert!(problem.contains("cache-control: no-store") && problem.contains("UNAUTHENTICATED"), "{problem}");
    }
    // An access token cannot be looked up without Postgres, and is not admitted.
    let token = format!("slc_{}", "A".repeat(43));
    let request = format!("GET /api/v1/access-tokens HTTP/1.1\r\nauthorization: Bearer {token}\r\nx: ");
    let (status, problem) = get(&admin, &request).await;
    assert!(status == 503 && problem.contains("DATABASE_UNAVAILABLE"), "{problem}");
}
