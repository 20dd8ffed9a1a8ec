use super::*;
use rustls::pki_types::PrivateKeyDer;
use sluice_kit::http::Networks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Long enough on any machine.
const WITHIN: Duration = Duration::from_secs(20);

fn loopback() -> EgressPolicy {
    EgressPolicy::operators(Networks::parse("127.0.0.0/8,::1/128").unwrap())
}

fn post(url: &str) -> Post {
    Post { url: url.to_owned(), headers: Vec::new(), body: b"{}".to_vec(), confidential: false }
}

/// Answers one request with these bytes, over TLS where it has a certificate. Returns host and port.
async fn server(answer: String, tls: Option<TlsAcceptor>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        match tls {
            Some(tls) => speak(tls.accept(stream).await.unwrap(), &answer).await,
            None => speak(stream, &answer).await,
        }
    });
    format!("localhost:{}", address.port())
}

async fn speak(mut stream: impl AsyncRead + AsyncWrite + Unpin, answer: &str) {
    let mut request = [0; 4096];
    assert!(stream.read(&mut request).await.unwrap() > 0);
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream.shutdown().await.unwrap();
}

fn moved(location: &str) -> String {
    format!("HTTP/1.1 307 Moved\r\nlocation: {location}\r\ncontent-length: 0\r\n\r\n")
}

/// A server's certificate, and a client that trusts it.
fn certified() -> (TlsAcceptor, WebhookClient) {
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    (TlsAcceptor::from(Arc::new(config)), WebhookClient::trusting(roots, loopback()).unwrap())
}

#[tokio::test]
async fn https_is_spoken_with_trusted_servers_only() {
    let (tls, trusting) = certified();
    let ok = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok".to_owned();
    let url = format!("https://{}/", server(ok.clone(), Some(tls.clone())).await);
    let answer = trusting.send(post(&url), WITHIN).await.unwrap();
    assert_eq!((answer.status, answer.beginning.as_str()), (200, "ok"));
    let url = format!("https://{}/", server(ok, Some(tls)).await);
    let stranger = WebhookClient::trusting(RootCertStore::empty(), loopback()).unwrap();
    let error = stranger.send(post(&url), WITHIN).await.unwrap_err().to_string();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn a_redirect_never_leaves_tls() {
    let (tls, client) = certified();
    let plain = server("HTTP/1.1 200 OK\r\n\r\n".to_owned(), None).await;
    let url = format!("https://{}/", server(moved(&format!("http://{plain}/")), Some(tls.clone())).await);
    let error = client.send(post(&url), WITHIN).await.unwrap_err();
    assert!(matches!(error, PostError::Redirect { problem: "leads from https to http", .. }), "{error}");
    // The other way is the better one.
    let last = server("HTTP/1.1 204 No\r\n\r\n".to_owned(), Some(tls)).await;
    let url = format!("http://{}/", server(moved(&format!("https://{last}/x")), None).await);
    assert_eq!(client.send(post(&url), WITHIN).await.unwrap().status, 204);
}

#[test]
fn what_is_confidential_stays_with_its_server() {
    let head = |location: &str| Response::builder().status(308).header(LOCATION, location).body(()).unwrap();
    let table = [
        ("http://a.example/x", "https://a.example/x", true),
        ("http://a.example/x", "/y", true),
        ("http://a.example:81/x", "http://a.example/x", false),
        ("http://a.example:81/x", "https://a.example/x", false),
        ("https://a.example/x", "https://b.example/x", false),
        ("https://a.example/x", "https://a.example.b.example/x", false),
    ];
    for (url, location, follows) in table {
        let url = Url::parse(url).unwrap();
        assert_eq!(target(&url, &head(location), true).is_ok(), follows, "{url} {location}");
        assert!(target(&url, &head(location), false).unwrap().is_some(), "{url} {location}");
    }
}

#[tokio::test]
async fn urls_that_cannot_be_asked_are_refused_without_their_secrets() {
    let client = WebhookClient::trusting(RootCertStore::empty(), loopback()).unwrap();
    for url in ["", "/path", "ftp://h/", "http://", "http://user:hunter2@h/", "http://user@h/", "file:///etc/passwd"] {
        let error = client.send(post(url), WITHIN).await.unwrap_err();
        assert!(matches!(error, PostError::Url(_)) && !error.to_string().contains("hunter2"), "{url}: {error}");
    }
    let error = client.send(post("http://127.0.0.1:1/hunter2?hunter2"), WITHIN).await.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1:1") && !error.contains("hunter2"), "{error}");
}

#[test]
fn waits_that_are_asked_for_are_read() {
    let wait = |text: &str| {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_str(text).unwrap())]);
        retry_after(&headers)
    };
    assert_eq!(wait("120"), Some(Duration::from_secs(120)));
    assert_eq!(wait("Fri, 31 Dec 1999 23:59:59 GMT"), Some(Duration::ZERO));
    assert!(wait("Tue, 31 Dec 2999 23:59:59 GMT").unwrap() > Duration::from_secs(86_400));
    for text in ["", "soon", "-1", "1.5"] {
        assert_eq!(wait(text), None, "{text}");
    }
}
