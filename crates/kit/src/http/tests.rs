use super::*;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// Answers one request with the given bytes and closes; `None` never answers. Gives the URL.
async fn server(answer: Option<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/a/b?secret=hunter2", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        match answer {
            Some(answer) => stream.write_all(&answer).await.unwrap(),
            None => std::future::pending().await,
        }
    });
    url
}

fn reply(head: &str, body: &str) -> Option<Vec<u8>> {
    Some(format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

#[tokio::test]
async fn answers_are_read_and_everything_else_is_an_error_without_secrets() {
    let table: [(Option<Vec<u8>>, &str); 8] = [
        (reply("200 OK", "[1,2]"), ""),
        (reply("200 OK", "{}"), "cannot be read"),
        (reply("200 OK", "[1,2"), "cannot be read"),
        (reply("500 No", "[1]"), "status 500"),
        (reply("302 Found\r\nlocation: http://127.0.0.1:1/", "[1]"), "status 302"),
        (reply("200 OK", "[1,2,3,4,5,6,7,8,9,10]"), "more than 20 bytes"),
        (Some(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n[1".to_vec()), "/a/b: "),
        (Some(b"not http at all\r\n\r\n".to_vec()), "/a/b: "),
    ];
    let client = Client::new(Duration::from_secs(10)).unwrap();
    for (answer, expected) in table {
        let url = server(answer).await;
        match client.get_json::<Vec<u8>>(&url, 20).await {
            Ok(value) => assert!(expected.is_empty() && value == [1, 2], "{value:?}, not {expected}"),
            Err(error) => {
                let error = error.to_string();
                assert!(!expected.is_empty() && error.contains(expected), "{error}, not {expected}");
                assert!(error.contains("/a/b") && !error.contains("hunter2"), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_waits_longer_than_the_deadline() {
    let client = Client::new(Duration::from_millis(50)).unwrap();
    let slow = server(Some(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n".to_vec())).await;
    for url in [server(None).await, slow] {
        let error = client.get_bytes(&url, 100).await.unwrap_err();
        // The second server closes after its half answer, at the latest when this test ends.
        assert!(matches!(error, HttpError::Timeout { .. } | HttpError::Connection { .. }), "{error}");
    }
}

#[tokio::test]
async fn urls_that_cannot_be_asked_are_refused() {
    let client = Client::new(Duration::from_secs(1)).unwrap();
    for url in ["", "/path", "ftp://h/", "http://", "http://user:hunter2@h/", "http://a b/"] {
        let error = client.get_bytes(url, 1).await.unwrap_err();
        assert!(matches!(error, HttpError::Url { .. }) && !error.to_string().contains("hunter2"), "{url}: {error}");
        assert!(check_url(url).is_err(), "{url}");
    }
    assert_eq!(check_url("https://policies.example/base"), Ok(()));
}

/// A server with a certificate that only the given client trusts.
#[tokio::test]
async fn https_is_spoken_with_trusted_servers_only() {
    let own = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![own.cert.der().clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A client that does not trust the server ends the handshake.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.unwrap() > 0);
            stream.write_all(&reply("200 OK", "[7]").unwrap()).await.unwrap();
        }
    });
    let mut roots = RootCertStore::empty();
    roots.add(own.cert.der().clone()).unwrap();
    let trusting = Client::trusting(roots, Duration::from_secs(10)).unwrap();
    assert_eq!(trusting.get_json::<Vec<u8>>(&url, 100).await.unwrap(), [7]);
    let error = Client::new(Duration::from_secs(10)).unwrap().get_bytes(&url, 100).await.unwrap_err();
    assert!(matches!(&error, HttpError::Connection { problem, .. } if problem.contains("certificate")), "{error}");
}
