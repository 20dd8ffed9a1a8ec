//! A pooler in transaction mode before real Postgres, as PgBouncer with `pool_mode=transaction` and
//! `ignore_startup_parameters=options`: clients share a few sessions, and have one for as long as a transaction lasts. It knows as
//! much of the protocol (PostgreSQL's documentation, chapter "Frontend/Backend Protocol") as the server's start needs.

use std::sync::Arc;

use testkit::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio::task::JoinHandle;

/// Asks for TLS, which there is none of.
const SSL_REQUEST: u32 = 80_877_103;
const PROTOCOL: u32 = 196_608;

/// A running pooler; ends when it is dropped.
pub(crate) struct Pooler {
    port: u16,
    task: JoinHandle<()>,
}

/// The sessions that no client has.
struct Sessions {
    idle: Mutex<Vec<TcpStream>>,
    free: Semaphore,
    postgres: u16,
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pooler {
    /// Starts a pooler with so many sessions.
    pub(crate) async fn start(postgres: u16, sessions: usize) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let port = listener.local_addr()?.port();
        let sessions = Arc::new(Sessions { idle: Mutex::default(), free: Semaphore::new(sessions), postgres });
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let sessions = Arc::clone(&sessions);
                // A client that breaks off ends its own connection only.
                tokio::spawn(async move { drop(serve(client, &sessions).await) });
            }
        });
        Ok(Self { port, task })
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

async fn serve(mut client: TcpStream, sessions: &Sessions) -> Result<()> {
    let startup = loop {
        let length = client.read_u32().await?;
        let mut body = vec![0; usize::try_from(length)?.saturating_sub(4)];
        client.read_exact(&mut body).await?;
        if body.starts_with(&SSL_REQUEST.to_be_bytes()) {
            client.write_all(b"N").await?;
        } else {
            break body;
        }
    };
    let mut greeting = message(b'R', &0_u32.to_be_bytes());
    for (name, value) in
        [("server_version", "15.0"), ("client_encoding", "UTF8"), ("standard_conforming_strings", "on")]
    {
        greeting.extend(message(b'S', format!("{name}\0{value}\0").as_bytes()));
    }
    greeting.extend(message(b'K', &[0; 8]));
    greeting.extend(message(b'Z', b"I"));
    client.write_all(&greeting).await?;
    loop {
        let first = read(&mut client).await?;
        if first.first() == Some(&b'X') {
            return Ok(());
        }
        let _turn = sessions.free.acquire().await?;
        let idle = sessions.idle.lock().await.pop();
        let mut session = match idle {
            Some(session) => session,
            None => open(sessions.postgres, &startup).await?,
        };
        transaction(&mut client, &mut session, first).await?;
        sessions.idle.lock().await.push(session);
    }
}

/// Hands messages to and fro until no transaction is open.
async fn transaction(client: &mut TcpStream, session: &mut TcpStream, first: Vec<u8>) -> Result<()> {
    let mut asked = first;
    loop {
        session.write_all(&asked).await?;
        if matches!(asked.first(), Some(b'Q' | b'S')) && relay(session, Some(client)).await? == b'I' {
            return Ok(());
        }
        asked = read(client).await?;
    }
}

/// Hands on what the session says until it is ready; gives the state of its transaction.
async fn relay(session: &mut TcpStream, mut client: Option<&mut TcpStream>) -> Result<u8> {
    loop {
        let said = read(session).await?;
        if let Some(client) = client.as_deref_mut() {
            client.write_all(&said).await?;
        }
        if said.first() == Some(&b'Z') {
            return Ok(said.last().copied().unwrap_or_default());
        }
    }
}

/// A new session of the same user and database, without what else the client asked for.
async fn open(postgres: u16, startup: &[u8]) -> Result<TcpStream> {
    let texts: Vec<&[u8]> = startup.get(4..).unwrap_or_default().split(|byte| *byte == 0).collect();
    let kept = texts.chunks(2).filter(|pair| matches!(pair.first(), Some(&b"user" | &b"database")));
    let mut body = PROTOCOL.to_be_bytes().to_vec();
    for pair in kept {
        for text in pair {
            body.extend(*text);
            body.push(0);
        }
    }
    body.push(0);
    let mut session = TcpStream::connect(("127.0.0.1", postgres)).await?;
    session.write_all(&u32::try_from(body.len() + 4)?.to_be_bytes()).await?;
    session.write_all(&body).await?;
    relay(&mut session, None).await?;
    Ok(session)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[kind][..], &length.to_be_bytes(), body].concat()
}

async fn read(stream: &mut TcpStream) -> Result<Vec<u8>> {
    let (kind, length) = (stream.read_u8().await?, stream.read_u32().await?);
    let mut body = vec![0; usize::try_from(length)?.saturating_sub(4)];
    stream.read_exact(&mut body).await?;
    Ok(message(kind, &body))
}
