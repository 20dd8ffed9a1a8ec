//! A line to Redis that can be cut between a command and its answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Hands bytes on in both directions.
pub(crate) struct Line {
    address: std::net::SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Line {
    /// A line to the Redis at `url`, as in `redis://127.0.0.1:6379/`.
    pub(crate) async fn to(url: &str) -> Self {
        let redis = url.trim_start_matches("redis://").trim_end_matches('/').to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let cut = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(&redis).await.unwrap();
                tokio::spawn(carry(client, server, Arc::clone(&flag)));
            }
        });
        Self { address, cut }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// The next answer is swallowed, and its connection closed.
    pub(crate) fn cut_next_answer(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }
}

async fn carry(mut client: TcpStream, mut server: TcpStream, cut: Arc<AtomicBool>) {
    let (mut asked, mut answered) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        tokio::select! {
            read = client.read(&mut asked) => match read {
                Ok(size @ 1..) => server.write_all(&asked[..size]).await.unwrap(),
                _ => return,
            },
            read = server.read(&mut answered) => match read {
                Ok(size @ 1..) if !cut.swap(false, Ordering::SeqCst) => client.write_all(&answered[..size]).await.unwrap(),
                _ => return,
            },
        }
    }
}
