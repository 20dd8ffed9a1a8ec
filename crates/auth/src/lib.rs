//! Authentication: the caller of a request, by a signed token (JWT) or an access token of this API, and its permissions; and the
//! problem document that refuses one.

#![cfg_attr(not(test), deny(clippy::indexing_slicing, clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod access;
mod caller;
mod jwks;
mod jwt;
pub mod problem;
mod role;
pub mod subject;
pub mod token;

use std::sync::Arc;

use axum::http::{HeaderMap, header};
use sluice_kit::shutdown::Shutdown;
use sqlx::PgPool;
use tracing::warn;

use access::Access;
use jwks::Keys;
use jwt::{Verifier, invalid};
use problem::{Answer, Kind, Problem};
use sluice_settings::Settings;

pub use access::grantable;
pub use caller::{Caller, Via};
pub use jwks::JwksError;
pub use role::{Permission, Permissions, Role};

/// Longest bearer token that is read, in bytes.
const TOKEN_LEN_MAX: usize = 8 * 1024;

/// Authenticates callers.
#[derive(Debug)]
pub struct Auth {
    /// Without one every caller is refused, access tokens too.
    verifier: Option<Verifier>,
    keys: Option<Arc<Keys>>,
    access: Access,
}

impl Auth {
    /// Reads how tokens are checked. With neither a secret nor keys the API refuses every request.
    ///
    /// # Errors
    /// [`JwksError`] for a key file that cannot be used. A URL may be unavailable: its keys are fetched when it is back.
    pub fn new(settings: &Settings, pool: PgPool) -> Result<Self, JwksError> {
        let (audience, issuer) = (settings.jwt_audience.as_deref(), settings.jwt_issuer.as_deref());
        let algorithm = settings.jwt_algorithm;
        let open = |place: &String| Keys::open(place, jwt::library_algorithm(algorithm)).map(Arc::new);
        let keys = settings.jwt_jwks.as_ref().map(open).transpose()?;
        let verifier = match (&keys, &settings.jwt_secret) {
            (Some(keys), _) => Some(Verifier::by_keys(Arc::clone(keys), algorithm, audience, issuer)),
            (None, Some(secret)) => Some(Verifier::by_secret(secret, audience, issuer)),
            (None, None) => {
                warn!("no authentication is configured: the admin api refuses every request");
                None
            }
        };
        Ok(Self { verifier, keys, access: Access::new(pool) })
    }

    /// Keeps the keys fresh until the stop.
    pub async fn watch(&self, stopped: Shutdown) {
        if let Some(keys) = &self.keys {
            Arc::clone(keys).watch(stopped).await;
        }
    }

    /// Makes this server look up every access token anew: a revocation takes effect at once.
    pub fn forget_tokens(&self) {
        self.access.forget();
    }

    /// The caller of a request.
    ///
    /// # Errors
    /// 401 for no or bad credentials, 403 for an unknown role, 503 if the credentials cannot be checked now.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Answer<Caller> {
        let verifier = self.verifier.as_ref().ok_or_else(|| Problem::new(Kind::AuthNotConfigured))?;
        let text = bearer(headers)?;
        if text.starts_with(token::PREFIX) { self.access.verify(text).await } else { verifier.verify(text).await }
    }
}

/// The token of the one `Authorization` header (RFC 6750, section 2.1). It is taken from nowhere else: URLs are logged.
fn bearer(headers: &HeaderMap) -> Answer<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or_else(|| Problem::new(Kind::Unauthenticated))?;
    if values.next().is_some() {
        return Err(Problem::field("authorization", "the header must come once"));
    }
    let (scheme, token) = value.to_str().unwrap_or_default().split_once(' ').unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(Problem::new(Kind::Unauthenticated));
    }
    let token = token.trim_start_matches(' ');
    if token.is_empty() || token.len() > TOKEN_LEN_MAX {
        return Err(invalid(format!("it must have 1 to {TOKEN_LEN_MAX} characters")));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bearer_token_is_found_in_its_one_place() {
        let long = format!("Bearer {}", "x".repeat(TOKEN_LEN_MAX + 1));
        let table: &[(&[&str], Result<&str, u16>)] = &[
            (&["Bearer abc"], Ok("abc")),
            (&["bearer abc"], Ok("abc")),
            (&["Bearer  abc"], Ok("abc")),
            (&[], Err(401)),
            (&["Bearer"], Err(401)),
            (&["Bearer "], Err(401)),
            (&["Basic abc"], Err(401)),
            (&["abc"], Err(401)),
            (&[&long], Err(401)),
            (&["Bearer abc", "Bearer abc"], Err(400)),
        ];
        for (values, expected) in table {
            let mut headers = HeaderMap::new();
            for value in *values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(bearer(&headers).map_err(|problem| problem.status().as_u16()), *expected, "{values:?}");
        }
    }
}
