//! Trailers that the gateway gets, which only an HTTP/2 gateway does.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use testkit::client::{Call, Part, Payment, Protocol, send_once};
use testkit::dirs::RunDir;
use testkit::envoy::{Envoy, EnvoyConfig};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::Outcome;

/// A client's own trailer, and two that only Sluice may set.
const SENT: [&str; 3] = ["x-checksum", "x-sluice-code", "x-sluice-of-tomorrow"];

/// Sends the trailers of each request to the receiver.
async fn gateway() -> std::io::Result<(SocketAddr, mpsc::UnboundedReceiver<HeaderMap>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let sender = sender.clone();
            let answer = service_fn(move |request: Request<Incoming>| {
                let sender = sender.clone();
                async move {
                    let trailers = request.collect().await.ok().and_then(|body| body.trailers().cloned());
                    let _ = sender.send(trailers.unwrap_or_default());
                    Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                }
            });
            tokio::spawn(http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), answer));
        }
    });
    Ok((address, receiver))
}

/// The shipped configuration with an HTTP/2 gateway, and no server to ask: payments on a shadow route go on.
fn configuration(gateway: SocketAddr) -> testkit::Result<EnvoyConfig> {
    let mut config = EnvoyConfig::shipped(&testkit::build::filter_wasm()?)?;
    config.set_cluster("gateway", gateway)?;
    config.set_cluster("sluice_authz", SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))?;
    const OPTIONS: &str = "typed_extension_protocol_options";
    let clusters = config.bootstrap()["static_resources"]["clusters"].as_sequence_mut();
    let clusters = clusters.ok_or_else(|| testkit::Failure::new("the configuration has no clusters"))?;
    let http2 = clusters.iter().find_map(|cluster| cluster.get(OPTIONS)).cloned();
    for cluster in clusters.iter_mut().filter(|cluster| cluster["name"] == "gateway") {
        cluster[OPTIONS] = http2.clone().ok_or_else(|| testkit::Failure::new("no cluster speaks HTTP/2"))?;
    }
    Ok(config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn trailers_that_only_sluice_may_set_are_never_a_clients() -> Outcome {
    let (address, mut receiver) = gateway().await?;
    let dir = RunDir::new("trailers")?;
    let envoy = Envoy::start_in(Arc::clone(&dir), configuration(address)?).inspect_err(|_| dir.keep())?;
    let trailers = SENT.map(|name| (HeaderName::from_static(name), HeaderValue::from_static("forged")));
    let payment = Payment::new("m", "o", 100).path("/v1/shadow/payments");
    for call in [payment.call(), Call::new("POST", "/elsewhere").part(Part::Data(Bytes::from_static(b"x")))] {
        let path = call.path.clone();
        let call = call.part(Part::Trailers(HeaderMap::from_iter(trailers.clone())));
        let answer = send_once(envoy.address(), Protocol::Http2, call).await?;
        assert_eq!(answer.status, 200, "{path}: {:?}", answer.json());
        let got = tokio::time::timeout(Duration::from_secs(5), receiver.recv()).await?.ok_or("the gateway is gone")?;
        assert_eq!(got.keys().map(HeaderName::as_str).collect::<Vec<_>>(), SENT[..1], "{path}");
    }
    Ok(())
}
