//! The sample payment gateway on its own: the upstream of docker-compose.yml.

use std::net::{SocketAddr, TcpListener};

use clap::Parser;

/// A sample payment gateway. It captures every payment; the request header `x-gateway` asks for failures (fail-500,
/// fail-402, conflict-409, hang, reset, reset-after-headers, slow-<ms>, status-<code>).
#[derive(Debug, Parser)]
struct Arguments {
    /// Where to listen, HTTP/1.1 and HTTP/2 without TLS.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
}

fn main() -> testkit::Result<()> {
    let arguments = Arguments::parse();
    let listener = TcpListener::bind(arguments.listen)?;
    println!("the sample gateway listens on {}", listener.local_addr()?);
    testkit::gateway::serve_forever(listener)
}
