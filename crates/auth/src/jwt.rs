//! Signed bearer tokens (RFC 7519): the signature by the one configured algorithm, the times, the audience and issuer, and the
//! caller from the claims.

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use quota::MerchantId;
use serde::Deserialize;

use super::caller::{Caller, Via};
use super::jwks::{Found, Keys};
use super::role::{Permissions, Role};
use super::subject;
use crate::problem::{Answer, Kind, Problem};
use sluice_settings::{JwtAlgorithm, Secret};

/// How far the clocks of signer and server may differ, in seconds.
const LEEWAY_SECS: u64 = 30;

/// Where the key of a token comes from.
#[derive(Debug)]
enum Material {
    Secret(Arc<DecodingKey>),
    Keys(Arc<Keys>),
}

/// Checks signed tokens.
#[derive(Debug)]
pub(super) struct Verifier {
    material: Material,
    algorithm: Algorithm,
    validation: Validation,
}

/// The claims that we read; a token may have others. `role` and `roles` mean the same.
#[derive(Debug, Deserialize)]
struct Claims {
    sub: String,
    #[serde(default)]
    role: Words,
    #[serde(default)]
    roles: Words,
    merchant_id: Option<String>,
    /// Seconds since the epoch; they may have a fraction (RFC 7519, section 2).
    #[serde(default)]
    exp: Option<f64>,
}

/// One value or several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Several(Vec<String>),
}

impl Default for Words {
    fn default() -> Self {
        Self::Several(Vec::new())
    }
}

impl Words {
    fn as_slice(&self) -> &[String] {
        match self {
            Self::One(word) => std::slice::from_ref(word),
            Self::Several(words) => words,
        }
    }
}

impl Verifier {
    /// By a secret that signer and server share.
    pub(super) fn by_secret(secret: &Secret, audience: Option<&str>, issuer: Option<&str>) -> Self {
        let key = Arc::new(DecodingKey::from_secret(secret.expose().as_bytes()));
        Self::new(Material::Secret(key), Algorithm::HS256, audience, issuer)
    }

    /// By public keys.
    pub(super) fn by_keys(
        keys: Arc<Keys>,
        algorithm: JwtAlgorithm,
        audience: Option<&str>,
        issuer: Option<&str>,
    ) -> Self {
        Self::new(Material::Keys(keys), library_algorithm(algorithm), audience, issuer)
    }

    fn new(material: Material, algorithm: Algorithm, audience: Option<&str>, issuer: Option<&str>) -> Self {
        let mut validation = Validation::new(algorithm);
        let mut required = vec!["exp", "sub"];
        validation.leeway = LEEWAY_SECS;
        validation.validate_nbf = true;
        // Without a configured audience a token's own is ignored.
        validation.validate_aud = audience.is_some();
        if let Some(audience) = audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        if let Some(issuer) = issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        Self { material, algorithm, validation }
    }

    /// The caller that the token names.
    pub(super) async fn verify(&self, token: &str) -> Answer<Caller> {
        let header = decode_header(token).map_err(|_| invalid("it is no signed token"))?;
        if header.alg != self.algorithm {
            return Err(invalid(format!("it must be signed by {:?}", self.algorithm)));
        }
        // RFC 7515, section 4.1.11: extensions that must be understood; none is supported.
        if header.crit.is_some() {
            return Err(invalid("it has critical header parameters"));
        }
        let key = match &self.material {
            Material::Secret(key) => Arc::clone(key),
            Material::Keys(keys) => find(keys, header.kid.as_deref()).await?,
        };
        let claims = decode::<Claims>(token, &key, &self.validation).map_err(|error| refusal(error.kind()))?.claims;
        claims.caller()
    }
}

impl Claims {
    fn caller(self) -> Answer<Caller> {
        let subject = subject::parse(&self.sub).map_err(|problem| invalid(format!("sub {problem}")))?;
        let merchant = self.merchant_id.as_deref().map(MerchantId::parse).transpose();
        let merchant = merchant.map_err(|_| invalid("merchant_id is no merchant's id"))?;
        let words = self.role.as_slice().iter().chain(self.roles.as_slice());
        let roles: Vec<Role> = words.filter_map(|word| word.parse().ok()).collect();
        if roles.is_empty() {
            return Err(Problem::new(Kind::Forbidden).detail("the token's role is none of admin, operator, merchant"));
        }
        if merchant.is_none() && roles.iter().all(|role| *role == Role::Merchant) {
            return Err(
                Problem::new(Kind::Forbidden).detail("a token of the role merchant needs the claim merchant_id")
            );
        }
        let scopes = roles.iter().fold(Permissions::default(), |scopes, role| scopes.or(role.permissions()));
        let expires_at_ms = self.exp.map(|secs| (secs * 1_000.0) as i64);
        Ok(Caller { subject, roles, merchant, scopes, via: Via::Jwt, expires_at_ms })
    }
}

async fn find(keys: &Keys, id: Option<&str>) -> Answer<Arc<DecodingKey>> {
    match keys.find(id).await {
        Found::Key(key) => Ok(key),
        Found::Unknown => Err(invalid("it is signed with a key that is not known")),
        Found::NoKeys => Err(Problem::new(Kind::AuthUnavailable)),
    }
}

pub(super) const fn library_algorithm(algorithm: JwtAlgorithm) -> Algorithm {
    match algorithm {
        JwtAlgorithm::Hs256 => Algorithm::HS256,
        JwtAlgorithm::Rs256 => Algorithm::RS256,
        JwtAlgorithm::Es256 => Algorithm::ES256,
    }
}

fn refusal(kind: &ErrorKind) -> Problem {
    match kind {
        ErrorKind::InvalidSignature => invalid("its signature does not match"),
        ErrorKind::ExpiredSignature => invalid("it has expired"),
        ErrorKind::ImmatureSignature => invalid("it is not valid yet"),
        ErrorKind::InvalidAudience => invalid("it is for another audience"),
        ErrorKind::InvalidIssuer => invalid("it is of another issuer"),
        ErrorKind::MissingRequiredClaim(claim) => invalid(format!("it has no claim {claim}")),
        _ => invalid("it cannot be read"),
    }
}

/// A refused token, and why; the reason reveals only what its holder can see in it.
pub(super) fn invalid(why: impl Into<String>) -> Problem {
    Problem::new(Kind::InvalidToken).detail(why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn caller(claims: Value) -> Answer<Caller> {
        serde_json::from_value::<Claims>(claims).unwrap().caller()
    }

    #[test]
    fn claims_name_the_caller() {
        let own = caller(json!({"sub": "a", "role": "merchant", "merchant_id": "m-1"})).unwrap();
        assert_eq!((own.subject.as_str(), own.roles.as_slice()), ("a", [Role::Merchant].as_slice()));
        assert_eq!(own.merchant.unwrap().as_str(), "m-1");
        let expiring = |exp: Value| caller(json!({"sub": "a", "role": "admin", "exp": exp})).unwrap().expires_at_ms;
        assert_eq!([json!(1_795_139_200), json!(1.5)].map(expiring), [Some(1_795_139_200_000), Some(1_500)]);
        let several = caller(json!({"sub": "a", "roles": ["merchant", "offline_access", "operator"]})).unwrap();
        assert_eq!(several.roles, [Role::Merchant, Role::Operator]);
        assert_eq!(several.scopes, Role::Operator.permissions().or(Role::Merchant.permissions()));
        assert_eq!(several.merchant, None);
    }

    #[test]
    fn claims_that_name_nobody_are_refused() {
        let table = [
            (json!({"sub": "a"}), 403),
            (json!({"sub": "a", "role": "root"}), 403),
            (json!({"sub": "a", "roles": []}), 403),
            (json!({"sub": "a", "role": "Admin"}), 403),
            (json!({"sub": "a", "role": "merchant"}), 403),
            (json!({"sub": "a", "role": "merchant", "merchant_id": ""}), 401),
            (json!({"sub": "a", "role": "admin", "merchant_id": "a b"}), 401),
            (json!({"sub": "", "role": "admin"}), 401),
            (json!({"sub": "a b", "role": "admin"}), 401),
            (json!({"sub": "x".repeat(129), "role": "admin"}), 401),
            (json!({"sub": "token:1", "role": "admin"}), 401),
            (json!({"sub": "system", "role": "admin"}), 401),
            (json!({"sub": "Proxy", "role": "merchant", "merchant_id": "m-1"}), 401),
        ];
        for (claims, status) in table {
            assert_eq!(caller(claims.clone()).unwrap_err().status(), status, "{claims}");
        }
    }
}
