//! Signed tokens: by a secret, by RSA and by P-256 keys; and everything that only looks like one.

use serde_json::{Value, json};
use testkit::api::secret;
use testkit::client::{Answer, Call, Protocol, send_once};
use testkit::{Result, wait};

use crate::bench::{Bench, WITHIN, field, token};
use crate::keys::{Publisher, Signer, claims, encode, forge, now, with};

/// Any caller may read it.
const STATS: &str = "/api/v1/usage-logs/stats";
/// Who a token must be for and from, in the tests of keys.
const ADDRESSED: [(&str, &str); 2] = [("SLUICE_JWT_AUDIENCE", "sluice"), ("SLUICE_JWT_ISSUER", "https://issuer.test/")];

fn addressed(role: &str) -> Value {
    with(claims(role), json!({"aud": "sluice", "iss": "https://issuer.test/"}))
}

/// Tokens that are accepted, each for one reason more than the plain one.
fn good(signer: &Signer) -> Result<Vec<(&'static str, String)>> {
    let sign = |changes: Value| signer.sign(&with(addressed("operator"), changes));
    Ok(vec![
        ("a plain token", sign(json!({}))?),
        ("one of several audiences", sign(json!({"aud": ["other", "sluice"]}))?),
        ("roles as a list", sign(json!({"role": null, "roles": ["admin"]}))?),
        ("a role beside ones of others", sign(json!({"roles": ["offline_access"]}))?),
        ("ended within the leeway", sign(json!({"exp": now() - 5}))?),
        ("begins within the leeway", sign(json!({"nbf": now() + 5}))?),
        ("a merchant's own", sign(json!({"role": "merchant", "merchant_id": "m-1"}))?),
    ])
}

/// Tokens that are refused, with the status.
fn bad(signer: &Signer, stranger: &Signer) -> Result<Vec<(String, String, u16)>> {
    let claims = addressed("admin");
    let algorithm = signer.algorithm();
    let header = json!({"alg": algorithm, "typ": "JWT", "kid": "k-1"});
    let sign = |changes: Value| signer.sign(&with(claims.clone(), changes));
    let good = signer.sign(&claims)?;
    let (message, signature) = good.rsplit_once('.').unwrap_or_default();
    let (head, _) = message.split_once('.').unwrap_or_default();
    let bare = |alg: &str| format!("{}.{}.", encode(json!({"alg": alg}).to_string()), encode(claims.to_string()));
    let mut table = vec![
        ("expired".to_owned(), sign(json!({"exp": now() - 60}))?, 401),
        ("not yet valid".to_owned(), sign(json!({"nbf": now() + 60}))?, 401),
        ("no exp".to_owned(), sign(json!({"exp": null}))?, 401),
        ("exp as text".to_owned(), sign(json!({"exp": "never"}))?, 401),
        ("exp below zero".to_owned(), sign(json!({"exp": -1}))?, 401),
        ("nbf as text".to_owned(), sign(json!({"nbf": "soon"}))?, 401),
        ("no sub".to_owned(), sign(json!({"sub": null}))?, 401),
        ("sub of an access token".to_owned(), sign(json!({"sub": "token:1"}))?, 401),
        ("another audience".to_owned(), sign(json!({"aud": "other"}))?, 401),
        ("no audience".to_owned(), sign(json!({"aud": null}))?, 401),
        ("another issuer".to_owned(), sign(json!({"iss": "https://other.test/"}))?, 401),
        ("no issuer".to_owned(), sign(json!({"iss": null}))?, 401),
        ("no role".to_owned(), sign(json!({"role": null}))?, 403),
        ("an unknown role".to_owned(), sign(json!({"role": "root"}))?, 403),
        ("a merchant without merchant_id".to_owned(), sign(json!({"role": "merchant"}))?, 403),
        ("merchant_id that is none".to_owned(), sign(json!({"merchant_id": "a b"}))?, 401),
        (
            "critical extensions".to_owned(),
            signer.sign_with(&with(header.clone(), json!({"crit": ["exp"]})), &claims)?,
            401,
        ),
        ("another key under the same name".to_owned(), stranger.sign_with(&header, &claims)?, 401),
        ("no signature".to_owned(), format!("{message}."), 401),
        ("two parts".to_owned(), message.to_owned(), 401),
        ("four parts".to_owned(), format!("{good}.{signature}"), 401),
        ("truncated".to_owned(), good[..good.len() - 3].to_owned(), 401),
        ("a foreign signature".to_owned(), format!("{message}.{}", encode([7; 64])), 401),
        (
            "tampered claims".to_owned(),
            format!("{head}.{}.{signature}", encode(with(claims.clone(), json!({"sub": "eve"})).to_string())),
            401,
        ),
        ("garbage".to_owned(), "abc".to_owned(), 401),
        ("dots".to_owned(), "..".to_owned(), 401),
        ("an access token that is none".to_owned(), "slc_AAAA".to_owned(), 401),
    ];
    for alg in ["none", "None", "NONE", "", algorithm, "HS256", "HS512", "RS512", "PS256", "EdDSA"] {
        table.push((format!("unsigned, alg {alg:?}"), bare(alg), 401));
        table.push((format!("signed by us as {alg:?}"), format!("{}{signature}", bare(alg)), 401));
    }
    // Algorithm confusion: what everyone may know of the key, used as a secret.
    for (number, key) in signer.public_forms()?.into_iter().enumerate() {
        for alg in ["HS256", algorithm] {
            let header = json!({"alg": alg, "kid": "k-1"});
            table.push((format!("public form {number} as a secret, alg {alg}"), forge(&key, &header, &claims), 401));
        }
    }
    Ok(table)
}

async fn check(bench: &Bench, signer: &Signer, stranger: &Signer) -> Result<()> {
    for (what, token) in good(signer)? {
        let answer = bench.get(STATS, &token).await?;
        assert_eq!(answer.status, 200, "{}, {what}: {}", signer.algorithm(), answer.json());
    }
    for (what, token, status) in bad(signer, stranger)? {
        let answer = bench.get(STATS, &token).await?;
        assert_eq!(answer.status, status, "{}, {what}: {}", signer.algorithm(), answer.json());
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{what}");
        let challenge = answer.header("www-authenticate").unwrap_or_default();
        assert_eq!(challenge.contains("invalid_token"), status == 401, "{what}: {challenge}");
    }
    Ok(())
}

#[tokio::test]
async fn tokens_of_a_secret() -> Result<()> {
    let bench = Bench::with(&[&[("JWT_SECRET", secret())][..], &ADDRESSED].concat())?;
    check(&bench, &Signer::secret(secret()), &Signer::secret(&format!("other-{}", secret()))).await
}

#[tokio::test]
async fn tokens_of_an_rsa_key_in_a_file() -> Result<()> {
    let (signer, stranger) = (Signer::rsa()?, Signer::rsa()?);
    let dir = testkit::dirs::RunDir::new("keys")?;
    let file = dir.join("keys.json");
    std::fs::write(&file, json!({"keys": [signer.jwk("k-1"), signer.jwk("k-2")]}).to_string())?;
    let file = file.display().to_string();
    let keys = [("SLUICE_JWT_ALGORITHM", "RS256"), ("SLUICE_JWT_JWKS", file.as_str())];
    let bench = Bench::with(&[&keys[..], &ADDRESSED].concat())?;
    check(&bench, &signer, &stranger).await?;
    // Two keys: without a name, or with another one, nothing is guessed.
    for header in [json!({"alg": "RS256"}), json!({"alg": "RS256", "kid": "k-3"}), json!({"alg": "RS256", "kid": ""})] {
        let answer = bench.get(STATS, &signer.sign_with(&header, &addressed("admin"))?).await?;
        assert_eq!((answer.status, answer.code().as_str()), (401, "INVALID_TOKEN"), "{header}");
    }
    Ok(())
}

/// The keys come by HTTP, change, and go away.
#[tokio::test]
async fn tokens_of_a_published_key() -> Result<()> {
    let publisher = Publisher::start().await?;
    let (first, second, third) = (Signer::ec()?, Signer::ec()?, Signer::ec()?);
    let url = publisher.url();
    let keys = [("SLUICE_JWT_ALGORITHM", "ES256"), ("SLUICE_JWT_JWKS", url.as_str())];
    let bench = Bench::with(&[&keys[..], &ADDRESSED].concat())?;

    // Nothing is published yet: no token can be checked, and no caller is let in.
    let token = first.sign(&addressed("admin"))?;
    let answer = bench.get(STATS, &token).await?;
    assert_eq!((answer.status, answer.code().as_str()), (503, "AUTH_UNAVAILABLE"), "{}", answer.json());
    publisher.publish(Some(json!({"keys": [first.jwk("k-1")]})));
    wait::until_async("the published key", WITHIN, || async {
        Ok(Some(bench.get(STATS, &token).await?.status).filter(|status| *status == 200))
    })
    .await?;
    check(&bench, &first, &third).await?;

    // The source fails: what was good stays good. Unknown keys make it be asked once a minute at most.
    publisher.publish(None);
    let unknown = third.sign_with(&json!({"alg": "ES256", "kid": "k-9"}), &addressed("admin"))?;
    let reads = publisher.reads();
    for _ in 0..5 {
        assert_eq!(bench.get(STATS, &unknown).await?.status, 401);
    }
    assert!(publisher.reads() <= reads + 1, "{} reads", publisher.reads() - reads);
    assert_eq!(bench.get(STATS, &token).await?.status, 200);

    // Another server, whose minute is not used up, takes a new key with the first token that names it.
    publisher.publish(Some(json!({"keys": [first.jwk("k-1")]})));
    let other = bench.another(&[&keys[..], &ADDRESSED].concat())?;
    let asks = |token: String| {
        let call = Call::new("GET", STATS).header("authorization", &format!("Bearer {token}"));
        send_once(other.admin_address(), Protocol::Http1, call)
    };
    wait::until_async("the published key", WITHIN, || async {
        Ok(Some(asks(token.clone()).await?.status).filter(|status| *status == 200))
    })
    .await?;
    publisher.publish(Some(json!({"keys": [second.jwk("k-2")]})));
    let fresh = second.sign_with(&json!({"alg": "ES256", "kid": "k-2"}), &addressed("admin"))?;
    assert_eq!(asks(fresh).await?.status, 200);
    // The old key was withdrawn with that.
    assert_eq!(asks(token).await?.status, 401);
    Ok(())
}

/// What each role may do, and whose data it sees.
#[tokio::test]
async fn roles_and_merchants_are_kept_apart() -> Result<()> {
    let bench = Bench::start()?;
    let own = Signer::secret(secret()).sign(&with(claims("merchant"), json!({"merchant_id": "m-1"})))?;
    let scoped = Signer::secret(secret()).sign(&with(claims("operator"), json!({"merchant_id": "m-1"})))?;
    let (admin, operator) = (token("admin")?, token("operator")?);
    let tokens = "/api/v1/access-tokens";
    let table: &[(&str, &str, [u16; 4])] = &[
        // Who: admin, operator, merchant m-1, operator of m-1.
        ("GET", STATS, [200, 200, 200, 200]),
        ("GET", "/api/v1/usage-logs/merchant/m-1", [200, 200, 200, 200]),
        ("GET", "/api/v1/usage-logs/merchant/m-2", [200, 200, 403, 403]),
        ("GET", "/api/v1/usage-logs/stats?merchant_id=m-2", [200, 200, 403, 403]),
        ("GET", "/api/v1/usage-logs/order/o-1?merchant_id=m-2", [200, 200, 403, 403]),
        ("GET", tokens, [200, 403, 200, 403]),
        ("POST", tokens, [201, 403, 403, 403]),
        ("DELETE", "/api/v1/access-tokens/00000000-0000-0000-0000-000000000001", [404, 403, 404, 403]),
        ("POST", "/api/v1/access-tokens/00000000-0000-0000-0000-000000000001/rotate", [404, 403, 403, 403]),
        ("GET", "/api/v1/self", [403, 403, 200, 200]),
        ("GET", "/api/v1/nothing", [404, 404, 404, 404]),
        ("PUT", tokens, [405, 405, 405, 405]),
    ];
    for (method, path, statuses) in table {
        for (token, status) in [&admin, &operator, &own, &scoped].into_iter().zip(statuses) {
            let call = match *method {
                "POST" => Call::post_json(path, json!({"name": "n", "role": "operator"}).to_string()),
                method => Call::new(method, path),
            };
            let answer: Answer = crate::bench::ask(&bench.server, call, token).await?;
            assert_eq!(answer.status, *status, "{method} {path} by {token}: {}", answer.json());
        }
    }
    // Where no merchant is named, a merchant gets its own.
    let answer = bench.get(STATS, &own).await?;
    assert_eq!(field(&answer, "/merchant_id"), "m-1");
    Ok(())
}

/// Health, metrics and the description are open; the rest is closed where nothing is configured.
#[tokio::test]
async fn without_authentication_only_the_probes_answer() -> Result<()> {
    let bench = Bench::with(&[])?;
    for path in ["/health", "/ready", "/ready/payments", "/metrics", "/openapi.json", "/swagger/index.html"] {
        let answer = send_once(bench.server.admin_address(), Protocol::Http1, Call::new("GET", path)).await?;
        assert_eq!(answer.status, 200, "{path}");
    }
    for token in [forge(b"", &json!({"alg": "HS256"}), &claims("admin")), "slc_x".to_owned(), String::new()] {
        let answer = bench.get(STATS, &token).await?;
        assert_eq!((answer.status, answer.code().as_str()), (503, "AUTH_NOT_CONFIGURED"), "{}", answer.json());
    }
    Ok(())
}
