//! A void that overtakes its own attempt: the way from Envoy to the server is two connections, and one of them is slow.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use testkit::books::{books_agree, journal, settles_at, voids_done};
use testkit::client::{Payment, Protocol};
use testkit::dirs::RunDir;
use testkit::envoy::{Envoy, EnvoyConfig, Host};
use testkit::stack::Stack;
use testkit::{Result, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::no_answer::unavailable;
use crate::server::pay_until_admitted;
use crate::suite::{Suite, prompt};

/// Envoy gives a silent connection up within two seconds, and sends its void over a new one.
const OVERTAKEN_WITHIN: Duration = Duration::from_secs(20);
/// A question is complete when nothing more has come for so long; Envoy cancels it only after half a second.
const COMPLETE_AFTER: Duration = Duration::from_millis(150);
/// Envoy's signs of life are smaller than this, and a question is larger.
const QUESTION_BYTES_MIN: usize = 128;

pub(crate) fn add(suite: &mut Suite) {
    suite.owned("late::a_void_overtakes_its_attempt", prompt(), a_void_overtakes_its_attempt);
}

/// What the connections that are open do with what comes from Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    /// The next question on an open connection waits here; new connections are open.
    Held,
    /// What waits goes on.
    Released,
}

/// A relay in front of the server.
struct Relay {
    address: SocketAddr,
    way: watch::Sender<Way>,
    accepting: JoinHandle<()>,
}

impl Relay {
    async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let way = watch::Sender::new(Way::Open);
        let changes = way.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let way = changes.subscribe();
                tokio::spawn(async move {
                    // A connection that ends in an error has ended.
                    drop(relay(stream, server, way).await);
                });
            }
        });
        Ok(Self { address, way, accepting })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn relay(mut envoy: TcpStream, address: SocketAddr, mut way: watch::Receiver<Way>) -> Result<()> {
    let mut server = TcpStream::connect(address).await?;
    server.set_nodelay(true)?;
    let opened_while = *way.borrow_and_update();
    tokio::select! {
        copied = copy_bidirectional(&mut envoy, &mut server) => return Ok(copied.map(drop)?),
        // Connections that are opened later are not held.
        _ = way.wait_for(|way| *way == Way::Held && opened_while == Way::Open) => {}
    }
    let mut question = Vec::new();
    while question.len() < QUESTION_BYTES_MIN {
        ensure!(envoy.read_buf(&mut question).await? > 0, "Envoy has gone without a question");
    }
    while let Ok(more) = timeout(COMPLETE_AFTER, envoy.read_buf(&mut question)).await {
        if more? == 0 {
            break;
        }
    }
    way.wait_for(|way| *way == Way::Released).await?;
    server.write_all(&question).await?;
    // Envoy has gone; the server's answers are read and thrown away.
    let mut answers = Vec::new();
    server.read_to_end(&mut answers).await?;
    Ok(())
}

async fn a_void_overtakes_its_attempt(stack: &mut Stack) -> Result<()> {
    let relay = Relay::start(stack.server.grpc_address()).await?;
    let dir = RunDir::new("late")?;
    let mut config = EnvoyConfig::for_host(Host::chosen()?)?;
    config.set_cluster("gateway", stack.gateway.address())?;
    config.set_cluster("sluice_authz", relay.address)?;
    stack.envoy = Envoy::start_in(Arc::clone(&dir), config)?;
    overtake(stack, &relay).await.inspect_err(|_| dir.keep())
}

async fn overtake(stack: &Stack, relay: &Relay) -> Result<()> {
    let payment = |number: u32| Payment::new("late", &format!("late-{number}"), 6_000);
    pay_until_admitted(stack, Protocol::Http1, &payment(0)).await?;
    voids_done(stack).await?;
    relay.way.send_replace(Way::Held);
    unavailable(&stack.send(Protocol::Http1, payment(1).call()).await?)?;
    journalled(stack, "TOMBSTONED").await?;
    relay.way.send_replace(Way::Released);
    journalled(stack, "ATTEMPT_VOIDED").await?;
    settles_at(stack, "late", (6_000, 1)).await?;
    pay_until_admitted(stack, Protocol::Http2, &payment(1)).await?;
    voids_done(stack).await?;
    settles_at(stack, "late", (12_000, 2)).await?;
    let entries = books_agree(stack, "late").await?;
    let codes: Vec<_> = entries.iter().filter(|entry| entry.order_no == "late-1").map(|entry| &*entry.code).collect();
    ensure_eq!(codes, ["TOMBSTONED", "ATTEMPT_VOIDED", "ADMITTED"]);
    Ok(())
}

/// Waits for a row with this code about the late order.
async fn journalled(stack: &Stack, code: &str) -> Result<()> {
    wait::until_async(&format!("{code} in the journal"), OVERTAKEN_WITHIN, || async {
        let entries = journal(stack, "late").await?;
        Ok(entries.iter().any(|entry| entry.order_no == "late-1" && entry.code == code).then_some(()))
    })
    .await
}
