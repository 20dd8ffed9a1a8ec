//! `token`: what it makes is what the server lets in, and what it must not make it refuses.

use testkit::Result;
use testkit::api::{self, Api};

use crate::bench::run;

/// What the server has.
fn shared() -> (&'static str, &'static str) {
    ("JWT_SECRET", api::secret())
}

const POLICIES: &str = "version: a\ndefault: {timezone: UTC, daily_amount: 5000}\n";

#[tokio::test]
async fn the_server_lets_its_tokens_in() -> Result<()> {
    let (audience, issuer) = (("SLUICE_JWT_AUDIENCE", "sluice-test"), ("SLUICE_JWT_ISSUER", "tests"));
    let api = Api::start(POLICIES, &[audience, issuer])?;
    let env = [shared(), audience, issuer];
    let token = |arguments: &[&str]| -> Result<String> {
        let ran = run(&env, &[&["token"], arguments].concat())?;
        assert!(ran.stderr.starts_with("note: ") && !ran.stderr.contains(api::secret()), "{ran:?}");
        let stdout = ran.succeeded();
        assert!(stdout.ends_with('\n') && stdout.lines().count() == 1, "{stdout}");
        Ok(stdout.trim_end().to_owned())
    };
    let operator = token(&["--subject", "ana", "--role", "operator", "--ttl", "15m"])?;
    let body = serde_json::json!({"merchant_id": "shop", "currency": "USD", "order_no": "A", "amount": 500});
    assert_eq!(api.bearer(&operator).post("/quotas/consume", &body).await?.status, 200);
    let merchant = token(&["--subject", "shop", "--role", "merchant", "--merchant", "shop"])?;
    assert_eq!(api.bearer(&merchant).get("/quotas/merchant/shop").await?.status, 200);
    assert_eq!(api.bearer(&merchant).get("/quotas/merchant/other").await?.status, 403);
    assert_eq!(api.bearer(&merchant).post("/quotas/consume", &body).await?.status, 403);
    let other = format!("another-{}", api::secret());
    // Signed with another secret, or for another audience, it is not let in.
    for env in [
        [("JWT_SECRET", other.as_str()), audience, issuer],
        [shared(), ("SLUICE_JWT_AUDIENCE", "another-audience"), issuer],
    ] {
        let foreign = run(&env, &["token", "--subject", "ana", "--role", "admin"])?.succeeded();
        assert_eq!(api.bearer(foreign.trim_end()).get("/quotas/merchant/shop").await?.status, 401);
    }
    Ok(())
}

#[test]
fn what_it_must_not_make_it_refuses() -> Result<()> {
    let short = ("JWT_SECRET", "hunter2-hunter2");
    let by_key = [("SLUICE_JWT_ALGORITHM", "ES256"), ("SLUICE_JWT_JWKS", "/keys.json")];
    let admin = ["token", "--subject", "ana", "--role", "admin"];
    let table: &[(&[(&str, &str)], Vec<&str>, i32, &str)] = &[
        (&[], admin.to_vec(), 1, "JWT_SECRET is not set"),
        (&[short], admin.to_vec(), 1, "JWT_SECRET is '[redacted]'"),
        (&by_key, admin.to_vec(), 1, "SLUICE_JWT_ALGORITHM is ES256"),
        (&[shared()], vec!["token", "--subject", "shop", "--role", "merchant"], 1, "--role merchant needs --merchant"),
        (&[shared()], vec!["token", "--subject", "ana", "--role", "root"], 2, "admin, operator or merchant"),
        (&[shared()], vec!["token", "--subject", "token:1", "--role", "admin"], 2, "the server has for its own parts"),
        (&[shared()], vec!["token", "--subject", "System", "--role", "admin"], 2, "the server has for its own parts"),
        (&[shared()], vec!["token", "--subject", "a b", "--role", "admin"], 2, "visible ASCII"),
        (&[shared()], vec!["token", "--subject", "ana"], 2, "--role"),
        (&[shared()], [&admin[..], &["--ttl", "31d"]].concat(), 2, "from 1s to 30d"),
        (&[shared()], [&admin[..], &["--ttl", "0s"]].concat(), 2, "from 1s to 30d"),
        (&[shared()], [&admin[..], &["--merchant", "a b"]].concat(), 2, "--merchant"),
    ];
    for (env, arguments, code, part) in table {
        let ran = run(env, arguments)?;
        assert_eq!((ran.code, ran.stdout.as_str()), (Some(*code), ""), "{arguments:?}: {ran:?}");
        assert!(ran.stderr.contains(part) && !ran.stderr.contains("hunter2"), "{arguments:?}: {ran:?}");
        assert!(!ran.stderr.contains(api::secret()), "{arguments:?}: {ran:?}");
    }
    Ok(())
}
