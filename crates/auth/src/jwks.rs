//! The public keys that signed tokens are verified with: a JSON Web Key Set (RFC 7517) from a file or a URL, refreshed from time to
//! time and when a token names an unknown key. The last good set is kept while the source fails.

use sluice_kit::shutdown::Shutdown;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::Deserialize;
use thiserror::Error;
use tokio::sync::Mutex;
use tokio::time::Instant;
use tracing::{info, warn};

use sluice_kit::http;

/// How often the source is refreshed.
const REFRESH_INTERVAL: Duration = Duration::from_secs(600);
/// How often, while there are no keys at all.
const FIRST_INTERVAL: Duration = Duration::from_secs(5);
/// Tokens that name unknown keys refresh the source at most once in this time: anyone can write such a token.
const UNKNOWN_KEY_INTERVAL: Duration = Duration::from_secs(60);
/// How long one read of a URL may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest key set.
const DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Most keys in one set.
const KEYS_MAX: usize = 100;
/// Sizes of an RSA modulus: below, it can be factored; above, checking a signature takes too long.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// Why there are no keys, or no new ones.
#[derive(Debug, Error)]
pub enum JwksError {
    #[error(transparent)]
    Http(#[from] http::HttpError),
    #[error("{path} cannot be read: {error}")]
    File { path: PathBuf, error: std::io::Error },
    #[error("the key set is larger than {DOCUMENT_BYTES_MAX} bytes")]
    TooLarge,
    #[error("the key set cannot be read: {0}")]
    Document(#[from] serde_json::Error),
    #[error("the key set has {0} keys; it may have {KEYS_MAX}")]
    TooMany(usize),
    #[error("the key set has no key for {0:?} signatures (RSA of 2048 to 8192 bits, or P-256)")]
    NoKey(Algorithm),
}

/// Where the set comes from.
#[derive(Clone, Debug)]
enum Source {
    File(PathBuf),
    Url(String, Box<http::Client>),
}

/// The result of a look-up.
#[derive(Debug)]
pub(super) enum Found {
    Key(Arc<DecodingKey>),
    /// The set has no such key.
    Unknown,
    /// There never was a set.
    NoKeys,
}

/// The keys.
#[derive(Debug)]
pub(super) struct Keys {
    source: Source,
    algorithm: Algorithm,
    set: RwLock<Option<Arc<KeySet>>>,
    /// When a token last caused a refresh. The lock also lets one task at a time read the source.
    refreshed: Mutex<Option<Instant>>,
}

/// The usable keys of a set by their ids; one without an id has the empty one.
#[derive(Debug)]
struct KeySet(BTreeMap<String, Arc<DecodingKey>>);

#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

impl Keys {
    /// Opens the source, a URL or a file. A file is read at once; a URL when `watch` runs.
    ///
    /// # Errors
    /// [`JwksError`] for a file that holds no usable key, and if the HTTP client cannot be built.
    pub(super) fn open(location: &str, algorithm: Algorithm) -> Result<Self, JwksError> {
        let new = |source| Self { source, algorithm, set: RwLock::new(None), refreshed: Mutex::new(None) };
        if location.starts_with("http://") || location.starts_with("https://") {
            return Ok(new(Source::Url(location.to_owned(), Box::new(http::Client::new(FETCH_TIMEOUT)?))));
        }
        let path = PathBuf::from(location);
        let keys = new(Source::File(path.clone()));
        keys.take(&read_file(path)?)?;
        Ok(keys)
    }

    /// Refreshes the source periodically until the stop.
    pub(super) async fn watch(self: Arc<Self>, mut stopped: Shutdown) {
        loop {
            self.refresh().await;
            let pause = if self.current().is_some() { REFRESH_INTERVAL } else { FIRST_INTERVAL };
            tokio::select! {
                () = stopped.requested() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// The key with the id, or without one the only key. An unknown id refreshes the source, unless that was just done. While there
    /// are no keys at all, `watch` retries, and tokens do not make it faster.
    pub(super) async fn find(&self, id: Option<&str>) -> Found {
        if self.current().is_none() {
            return Found::NoKeys;
        }
        if let Some(key) = self.look_up(id) {
            return Found::Key(key);
        }
        let mut refreshed = self.refreshed.lock().await;
        let now = Instant::now();
        // The task that held the lock may have read the key.
        if self.look_up(id).is_none() && refreshed.is_none_or(|at| now.duration_since(at) >= UNKNOWN_KEY_INTERVAL) {
            *refreshed = Some(now);
            self.refresh().await;
        }
        self.look_up(id).map_or(Found::Unknown, Found::Key)
    }

    fn look_up(&self, id: Option<&str>) -> Option<Arc<DecodingKey>> {
        self.current()?.find(id)
    }

    fn current(&self) -> Option<Arc<KeySet>> {
        self.set.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn refresh(&self) {
        let text = match &self.source {
            Source::Url(url, client) => {
                client.get_bytes(url, DOCUMENT_BYTES_MAX).await.map(Into::into).map_err(Into::into)
            }
            Source::File(path) => {
                let path = path.clone();
                match tokio::task::spawn_blocking(move || read_file(path)).await {
                    Ok(text) => text,
                    // The runtime is shutting down.
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = text.and_then(|text: Vec<u8>| self.take(&text)) {
            let kept = self.current().is_some();
            warn!(%error, kept, "token verification keys could not be refreshed");
        }
    }

    fn take(&self, text: &[u8]) -> Result<(), JwksError> {
        let set = KeySet::read(text, self.algorithm)?;
        let ids: Vec<&str> = set.0.keys().map(String::as_str).collect();
        let known = self.current().is_some_and(|old| old.0.keys().map(String::as_str).eq(ids.iter().copied()));
        if !known {
            info!(?ids, "token verification keys loaded");
        }
        *self.set.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(set));
        Ok(())
    }
}

impl KeySet {
    /// Keeps the keys that fit the algorithm. Others are no error: a set may serve several purposes.
    fn read(text: &[u8], algorithm: Algorithm) -> Result<Self, JwksError> {
        let document: Document = serde_json::from_slice(text)?;
        if document.keys.len() > KEYS_MAX {
            return Err(JwksError::TooMany(document.keys.len()));
        }
        let mut keys = BTreeMap::new();
        for key in document.keys {
            let Ok(jwk) = serde_json::from_value::<Jwk>(key) else { continue };
            if fits(&jwk, algorithm)
                && let Ok(key) = DecodingKey::from_jwk(&jwk)
            {
                keys.entry(jwk.common.key_id.unwrap_or_default()).or_insert_with(|| Arc::new(key));
            }
        }
        if keys.is_empty() { Err(JwksError::NoKey(algorithm)) } else { Ok(Self(keys)) }
    }

    fn find(&self, id: Option<&str>) -> Option<Arc<DecodingKey>> {
        match id {
            Some(id) => self.0.get(id).cloned(),
            // Without an id the key must be unambiguous.
            None if self.0.len() == 1 => self.0.values().next().cloned(),
            None => None,
        }
    }
}

/// Whether the key fits the algorithm, by its kind, its size and its own members.
fn fits(jwk: &Jwk, algorithm: Algorithm) -> bool {
    let (kind, own) = match (&jwk.algorithm, algorithm) {
        (AlgorithmParameters::RSA(rsa), Algorithm::RS256) => {
            let modulus = BASE64_URL_SAFE_NO_PAD.decode(&rsa.n).unwrap_or_default();
            (RSA_BYTES.contains(&modulus.len()), KeyAlgorithm::RS256)
        }
        (AlgorithmParameters::EllipticCurve(curve), Algorithm::ES256) => {
            (curve.curve == EllipticCurve::P256, KeyAlgorithm::ES256)
        }
        _ => return false,
    };
    let common = &jwk.common;
    kind && common.key_algorithm.is_none_or(|named| named == own)
        && common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature)
        && common.key_operations.as_ref().is_none_or(|operations| operations.contains(&KeyOperations::Verify))
}

fn read_file(path: PathBuf) -> Result<Vec<u8>, JwksError> {
    let mut text = Vec::new();
    let bounded = u64::try_from(DOCUMENT_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let read = File::open(&path).and_then(|file| file.take(bounded).read_to_end(&mut text));
    match read {
        Err(error) => Err(JwksError::File { path, error }),
        Ok(length) if length > DOCUMENT_BYTES_MAX => Err(JwksError::TooLarge),
        Ok(_) => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::watch;

    /// The P-256 example key of RFC 7517, appendix A.1, and a made-up RSA modulus of 2048 bits: its form is enough.
    fn set(keys: &[&str]) -> String {
        let ec = r#""kty":"EC","crv":"P-256","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4","y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM""#;
        let modulus = BASE64_URL_SAFE_NO_PAD.encode([0xab; 256]);
        let short = BASE64_URL_SAFE_NO_PAD.encode([0xab; 128]);
        let keys: Vec<String> = keys
            .iter()
            .map(|key| {
                key.replace("EC", ec)
                    .replace("RSA", &format!(r#""kty":"RSA","e":"AQAB","n":"{modulus}""#))
                    .replace("SHORT", &format!(r#""kty":"RSA","e":"AQAB","n":"{short}""#))
            })
            .collect();
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }

    #[test]
    fn only_keys_that_fit_the_algorithm_are_kept() {
        let table: &[(&str, bool, bool)] = &[
            (r#"{EC,"kid":"a"}"#, false, true),
            (r#"{EC,"kid":"a","alg":"ES256","use":"sig"}"#, false, true),
            (r#"{EC,"kid":"a","use":"enc"}"#, false, false),
            (r#"{EC,"kid":"a","alg":"ES384"}"#, false, false),
            (r#"{EC,"kid":"a","key_ops":["sign"]}"#, false, false),
            (r#"{EC,"kid":"a","key_ops":["verify"]}"#, false, true),
            (r#"{RSA,"kid":"a"}"#, true, false),
            (r#"{RSA,"kid":"a","alg":"RS512"}"#, false, false),
            (r#"{SHORT,"kid":"a"}"#, false, false),
            (r#"{"kty":"oct","k":"AAAA","kid":"a"}"#, false, false),
            (r#"{"kty":"oct","k":"AAAA","kid":"a","alg":"RS256"}"#, false, false),
            (r#"{"kty":"none"}"#, false, false),
        ];
        for (key, rsa, ec) in table {
            let text = set(&[key]);
            assert_eq!(KeySet::read(text.as_bytes(), Algorithm::RS256).is_ok(), *rsa, "{text}");
            assert_eq!(KeySet::read(text.as_bytes(), Algorithm::ES256).is_ok(), *ec, "{text}");
        }
        for text in ["", "[]", "{}", r#"{"keys":[]}"#, r#"{"keys":{}}"#] {
            assert!(KeySet::read(text.as_bytes(), Algorithm::ES256).is_err(), "{text}");
        }
        let many = set(&vec![r#"{EC,"kid":"a"}"#; KEYS_MAX + 1]);
        assert!(matches!(KeySet::read(many.as_bytes(), Algorithm::ES256), Err(JwksError::TooMany(_))));
    }

    #[test]
    fn a_token_without_a_key_id_is_for_a_set_of_one() {
        let one = KeySet::read(set(&[r#"{EC,"kid":"a"}"#]).as_bytes(), Algorithm::ES256).unwrap();
        assert!(one.find(None).is_some() && one.find(Some("a")).is_some() && one.find(Some("b")).is_none());
        let two = set(&[r#"{EC,"kid":"a"}"#, r#"{EC,"kid":"b"}"#, r#"{RSA,"kid":"c"}"#]);
        let two = KeySet::read(two.as_bytes(), Algorithm::ES256).unwrap();
        assert!(two.find(None).is_none() && two.find(Some("b")).is_some() && two.find(Some("c")).is_none());
    }

    /// A source that failed is not read again by every token that names an unknown key.
    #[tokio::test]
    async fn unknown_keys_cost_one_read_a_minute() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys", listener.local_addr().unwrap());
        let keys = Keys::open(&url, Algorithm::ES256).unwrap();
        let (reads, count) = watch::channel(0_u32);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                reads.send_modify(|reads| *reads += 1);
                drop(stream);
            }
        });
        assert!(matches!(keys.find(Some("a")).await, Found::NoKeys));
        assert_eq!(*count.borrow(), 0);
        keys.take(set(&[r#"{EC,"kid":"a"}"#]).as_bytes()).unwrap();
        for _ in 0..3 {
            assert!(matches!(keys.find(Some("a")).await, Found::Key(_)));
            assert!(matches!(keys.find(Some("b")).await, Found::Unknown));
        }
        assert_eq!(*count.borrow(), 1);
        // A failed read keeps the last good keys.
        keys.refresh().await;
        assert!(keys.take(b"{}").is_err());
        assert!(matches!(keys.find(Some("a")).await, Found::Key(_)));
        assert_eq!(*count.borrow(), 2);
    }
}
