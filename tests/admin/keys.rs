//! Keys, tokens signed with them byte by byte, and a server that publishes keys.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use aws_lc_rs::{digest, hmac};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use testkit::{Failure, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Seconds since the epoch.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map(|since| since.as_secs()).unwrap_or_default()
}

/// Claims of an hour, for a role.
pub(crate) fn claims(role: &str) -> Value {
    json!({"sub": format!("{role}-1"), "role": role, "exp": now() + 3600})
}

/// Claims with changes: a null takes a claim away.
pub(crate) fn with(mut claims: Value, changes: Value) -> Value {
    if let (Some(claims), Value::Object(changes)) = (claims.as_object_mut(), changes) {
        claims.extend(changes);
        claims.retain(|_, value| !value.is_null());
    }
    claims
}

/// A key that signs.
pub(crate) enum Signer {
    Secret(String),
    Rsa(Box<KeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

impl Signer {
    pub(crate) fn secret(secret: &str) -> Self {
        Self::Secret(secret.to_owned())
    }

    pub(crate) fn rsa() -> Result<Self> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| Failure::new("no RSA key"))?;
        Ok(Self::Rsa(Box::new(pair)))
    }

    pub(crate) fn ec() -> Result<Self> {
        let pair =
            EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| Failure::new("no P-256 key"))?;
        Ok(Self::Ec(Box::new(pair)))
    }

    pub(crate) fn algorithm(&self) -> &'static str {
        match self {
            Self::Secret(_) => "HS256",
            Self::Rsa(_) => "RS256",
            Self::Ec(_) => "ES256",
        }
    }

    /// A token as an honest signer makes it.
    pub(crate) fn sign(&self, claims: &Value) -> Result<String> {
        self.sign_with(&json!({"alg": self.algorithm(), "typ": "JWT", "kid": "k-1"}), claims)
    }

    /// A token with any header.
    pub(crate) fn sign_with(&self, header: &Value, claims: &Value) -> Result<String> {
        let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
        let signature = self.signature(message.as_bytes())?;
        Ok(format!("{message}.{}", encode(signature)))
    }

    fn signature(&self, message: &[u8]) -> Result<Vec<u8>> {
        let random = SystemRandom::new();
        let failed = |_| Failure::new("signing failed");
        match self {
            Self::Secret(secret) => Ok(hmac_sha256(secret.as_bytes(), message)),
            Self::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).map_err(failed)?;
                Ok(signature)
            }
            Self::Ec(pair) => Ok(pair.sign(&random, message).map_err(failed)?.as_ref().to_vec()),
        }
    }

    /// The public key as a set publishes it; nothing for a secret.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        match self {
            Self::Secret(_) => Value::Null,
            Self::Rsa(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                let (n, e) = (n.big_endian_without_leading_zero(), e.big_endian_without_leading_zero());
                json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": encode(n), "e": encode(e)})
            }
            Self::Ec(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "use": "sig", "kid": kid, "x": encode(x), "y": encode(y)})
            }
        }
    }

    /// What an attacker can have of the key: all the forms of its public half, as secrets to sign with.
    pub(crate) fn public_forms(&self) -> Result<Vec<Vec<u8>>> {
        let no_der = |_| Failure::new("no DER");
        let der: Vec<u8> = match self {
            Self::Secret(_) => return Ok(Vec::new()),
            Self::Rsa(pair) => AsDer::<aws_lc_rs::encoding::PublicKeyX509Der>::as_der(pair.public_key())
                .map_err(no_der)?
                .as_ref()
                .to_vec(),
            Self::Ec(pair) => AsDer::<aws_lc_rs::encoding::PublicKeyX509Der>::as_der(pair.public_key())
                .map_err(no_der)?
                .as_ref()
                .to_vec(),
        };
        let text = base64::prelude::BASE64_STANDARD.encode(&der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"));
        let jwk = self.jwk("k-1");
        let modulus = jwk.get("n").and_then(Value::as_str).unwrap_or_default();
        let raw = BASE64_URL_SAFE_NO_PAD.decode(modulus)?;
        Ok(vec![
            der,
            pem.trim_end().as_bytes().to_vec(),
            pem.into_bytes(),
            raw,
            jwk.to_string().into_bytes(),
            Vec::new(),
        ])
    }
}

/// HS256 under any key, of any length.
pub(crate) fn forge(key: &[u8], header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", encode(header.to_string()), encode(claims.to_string()));
    let signature = hmac_sha256(key, message.as_bytes());
    format!("{message}.{}", encode(signature))
}

fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message).as_ref().to_vec()
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// SHA-256, as the server keeps access tokens.
pub(crate) fn sha256(text: &str) -> Vec<u8> {
    digest::digest(&digest::SHA256, text.as_bytes()).as_ref().to_vec()
}

/// Publishes a document on a loopback port, or an error where there is none.
pub(crate) struct Publisher {
    pub(crate) address: SocketAddr,
    document: Arc<Mutex<Option<String>>>,
    reads: Arc<Mutex<u32>>,
}

impl Publisher {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let publisher = Self { address: listener.local_addr()?, document: Arc::default(), reads: Arc::default() };
        let (document, reads) = (Arc::clone(&publisher.document), Arc::clone(&publisher.reads));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                // One small GET arrives in one piece.
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                let answer = match document.lock().unwrap_or_else(PoisonError::into_inner).clone() {
                    Some(text) => {
                        format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{text}", text.len())
                    }
                    None => {
                        "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n".to_owned()
                    }
                };
                *reads.lock().unwrap_or_else(PoisonError::into_inner) += 1;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Ok(publisher)
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/keys.json", self.address)
    }

    pub(crate) fn publish(&self, document: Option<Value>) {
        *self.document.lock().unwrap_or_else(PoisonError::into_inner) = document.map(|document| document.to_string());
    }

    /// How often the document was asked for.
    pub(crate) fn reads(&self) -> u32 {
        *self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
