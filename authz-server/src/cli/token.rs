//! `token`: makes a bearer token that the server's own check accepts.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat};
use clap::Args;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use quota::{ActorId, MerchantId};
use serde::Serialize;
use thiserror::Error;

use super::{CliError, print, print_to_stderr};
use sluice_auth::{Role, subject};
use sluice_kit::clock;
use sluice_settings::{JwtAlgorithm, Settings};

/// Longest life of a token that is made here: it cannot be revoked.
const TTL_MAX: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Debug, Args)]
#[command(after_long_help = "Examples:
  authz-server token --subject ana --role operator
  authz-server token --subject shop --role merchant --merchant merchant-001 --ttl 15m
  curl -H \"authorization: Bearer $(authz-server token --subject ana --role admin)\" localhost:40022/api/v1/quotas/stats")]
pub(super) struct TokenArguments {
    /// Who acts with it; usage logs and histories show it.
    #[arg(long, value_name = "NAME", value_parser = subject::parse)]
    subject: ActorId,
    /// What it may do: admin, operator or merchant.
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Role,
    /// The only merchant whose data it sees; required for the role merchant.
    #[arg(long, value_name = "ID", value_parser = merchant)]
    merchant: Option<MerchantId>,
    /// How long it is good, as in 90s, 15m, 8h or 7d; 30d at most.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl)]
    ttl: Duration,
}

/// Why no token is made.
#[derive(Debug, Error)]
pub(super) enum TokenError {
    #[error("JWT_SECRET is not set; set it to the server's, or the server will not accept the token")]
    NoSecret,
    #[error("SLUICE_JWT_ALGORITHM is {0}; tokens for it come from the holder of the private key")]
    Algorithm(&'static str),
    #[error("--role merchant needs --merchant, because such a token sees one merchant only")]
    NoMerchant,
    #[error("the token cannot be signed: {0}")]
    Signing(#[from] jsonwebtoken::errors::Error),
}

#[derive(Serialize)]
struct Claims<'a> {
    sub: &'a str,
    role: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    merchant_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    iat: i64,
    exp: i64,
}

pub(super) fn execute(arguments: &TokenArguments, settings: &Settings) -> Result<(), CliError> {
    let now_secs = clock::now_ms() / 1000;
    let until_secs = now_secs.saturating_add(i64::try_from(arguments.ttl.as_secs()).unwrap_or(i64::MAX));
    let token = sign(arguments, settings, now_secs, until_secs)?;
    let until = DateTime::from_timestamp(until_secs, 0).unwrap_or_default();
    print_to_stderr(&format!(
        "note: for trying things out, by people who hold JWT_SECRET anyway. Good until {}, and cannot be revoked before: \
         keep it out of tickets, logs and shell histories.",
        until.to_rfc3339_opts(SecondsFormat::Secs, true)
    ));
    Ok(print(&format!("{token}\n"))?)
}

fn sign(arguments: &TokenArguments, settings: &Settings, iat: i64, exp: i64) -> Result<String, TokenError> {
    match settings.jwt_algorithm {
        JwtAlgorithm::Hs256 => {}
        other @ (JwtAlgorithm::Rs256 | JwtAlgorithm::Es256) => return Err(TokenError::Algorithm(other.into_str())),
    }
    let secret = settings.jwt_secret.as_ref().ok_or(TokenError::NoSecret)?;
    if arguments.role == Role::Merchant && arguments.merchant.is_none() {
        return Err(TokenError::NoMerchant);
    }
    let claims = Claims {
        sub: arguments.subject.as_str(),
        role: arguments.role.into_str(),
        merchant_id: arguments.merchant.as_ref().map(MerchantId::as_str),
        aud: settings.jwt_audience.as_deref(),
        iss: settings.jwt_issuer.as_deref(),
        iat,
        exp,
    };
    let key = EncodingKey::from_secret(secret.expose().as_bytes());
    Ok(encode(&Header::new(Algorithm::HS256), &claims, &key)?)
}

fn role(text: &str) -> Result<Role, &'static str> {
    text.parse().map_err(|_| "must be admin, operator or merchant")
}

fn merchant(text: &str) -> Result<MerchantId, String> {
    MerchantId::parse(text).map_err(|error| error.to_string())
}

fn ttl(text: &str) -> Result<Duration, String> {
    let secs = match text.split_at_checked(text.len().saturating_sub(1)) {
        Some((number, unit)) => number.parse::<u32>().ok().zip(unit_secs(unit)),
        None => None,
    };
    let life = secs.map(|(number, unit)| Duration::from_secs(u64::from(number) * unit));
    life.filter(|life| !life.is_zero() && *life <= TTL_MAX)
        .ok_or_else(|| "must be a whole number of s, m, h or d, as in 15m, from 1s to 30d".to_owned())
}

const fn unit_secs(unit: &str) -> Option<u64> {
    match unit.as_bytes() {
        b"s" => Some(1),
        b"m" => Some(60),
        b"h" => Some(3600),
        b"d" => Some(24 * 3600),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_read() {
        let table = [
            ("90s", Some(90)),
            ("15m", Some(900)),
            ("1h", Some(3600)),
            ("30d", Some(30 * 86400)),
            ("31d", None),
            ("0s", None),
            ("-1h", None),
            ("1.5h", None),
            ("15", None),
            ("h", None),
            ("", None),
            ("1é", None),
            ("99999999999h", None),
        ];
        for (text, secs) in table {
            assert_eq!(ttl(text).ok(), secs.map(Duration::from_secs), "{text:?}");
        }
    }
}
