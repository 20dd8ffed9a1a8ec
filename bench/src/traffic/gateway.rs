//! The gateway of a run: it does with each order what its number says, and answers with what it received of the decision.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;
use proto::header;
use serde::Deserialize;
use tokio::task::JoinHandle;

use super::ledger::Ledger;
use super::order::{AtGateway, DecisionHeaders, Order};
use super::orders::Orders;
use testkit::Result;
use testkit::client::{Aborted, CallBody, Part};
use testkit::ports::loopback;

/// Long enough for the head of an answer to be on its way before the connection breaks.
const BREAK_AFTER: Duration = Duration::from_millis(50);

/// A running gateway, ended when dropped.
#[derive(Debug)]
pub(super) struct EchoGateway {
    pub(super) address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl EchoGateway {
    pub(super) fn start(orders: Orders, ledger: Arc<Ledger>) -> Result<Self> {
        let listener = TcpListener::bind(loopback(0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let _ = stream.set_nodelay(true);
                let ledger = Arc::clone(&ledger);
                let service = service_fn(move |request| answer(request, orders, Arc::clone(&ledger)));
                // Connections end in errors by design here.
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(Self { address, accepting })
    }
}

impl Drop for EchoGateway {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

#[derive(Deserialize)]
struct Body {
    order_no: String,
}

async fn answer(
    request: Request<Incoming>,
    orders: Orders,
    ledger: Arc<Ledger>,
) -> std::result::Result<Response<CallBody>, Aborted> {
    let (head, body) = request.into_parts();
    // A request that broke off is none.
    let body = body.collect().await.map_err(|_| Aborted)?.to_bytes();
    let order = serde_json::from_slice(&body).ok().and_then(|Body { order_no }| orders.number_of(&order_no));
    let Some(order) = order.map(|number| orders.order(number)).filter(|order| body == order.body()) else {
        ledger.strange(format!("the gateway was sent {}", String::from_utf8_lossy(&body)));
        return Err(Aborted);
    };
    let received = decision_headers(&head.headers);
    let made = matches!(order.at_gateway.status(), Some(200..=299));
    ledger.with(order.number, |page| {
        page.at_gateway += 1;
        page.made |= made;
    });
    act(&order, &received).await
}

fn decision_headers(headers: &HeaderMap) -> DecisionHeaders {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let replay = text(header::REPLAY).as_deref() == Some("true");
    DecisionHeaders { code: text(header::CODE), decision_id: text(header::DECISION_ID), replay }
}

async fn act(order: &Order, received: &DecisionHeaders) -> std::result::Result<Response<CallBody>, Aborted> {
    let body = Bytes::from(order.gateway_body(received));
    let half = body.slice(..body.len() / 2);
    let rest = body.slice(body.len() / 2..);
    let (status, parts) = match order.at_gateway {
        AtGateway::Resets => return Err(Aborted),
        AtGateway::Answers(status) => (status, vec![Part::Data(body)]),
        AtGateway::AnswersLate(status, wait) => {
            tokio::time::sleep(wait).await;
            (status, vec![Part::Data(body)])
        }
        AtGateway::AnswersSlowly(status, wait) => (status, vec![Part::Data(half), Part::Pause(wait), Part::Data(rest)]),
        AtGateway::ResetsAfterHead => (200, vec![Part::Data(half), Part::Pause(BREAK_AFTER), Part::Abort]),
    };
    let response = Response::builder().status(status).header("x-captured-amount", order.amount);
    response.body(CallBody::from(parts)).map_err(|_| Aborted)
}
