//! The load generator: HTTP/1.1 connections with one request at a time each, written by hand so that it takes as little of
//! the two cores as it can. Every answer is checked against its own request.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{RACE_MERCHANT, merchant};
use crate::failure::{Failure, Result};

/// Size of a payment's body.
const BODY_BYTES: usize = 250;
/// Amount of every payment, in cents.
pub(super) const AMOUNT_MINOR: u64 = 1_050;
/// Longest latency that is told apart, in microseconds.
const LATENCY_MAX_US: u64 = 60_000_000;

/// One stretch of load.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub address: SocketAddr,
    pub connections: usize,
    pub duration: Duration,
    /// Payments go to these merchants in turn; 0 is the race's merchant, who may be refused.
    pub merchants: u32,
    /// Keeps this stretch's orders apart from all others.
    pub round: u64,
}

/// What came of a stretch.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub plan: Plan,
    pub requests: u64,
    pub admitted: u64,
    /// Answers with another status, or for another order, than they should have had.
    pub wrong: u64,
    pub elapsed: Duration,
    /// In microseconds.
    pub latency: Histogram<u64>,
    /// Admitted payments by merchant.
    pub by_merchant: Vec<u32>,
}

impl Tally {
    fn empty(plan: Plan) -> Result<Self> {
        let latency =
            Histogram::new_with_bounds(1, LATENCY_MAX_US, 3).map_err(|error| Failure::new(error.to_string()))?;
        let by_merchant = vec![0; plan.merchants as usize];
        Ok(Self { plan, requests: 0, admitted: 0, wrong: 0, elapsed: Duration::ZERO, latency, by_merchant })
    }

    fn add(&mut self, other: &Self) -> Result<()> {
        self.requests += other.requests;
        self.admitted += other.admitted;
        self.wrong += other.wrong;
        self.latency.add(&other.latency).map_err(|error| Failure::new(error.to_string()))?;
        for (sum, more) in self.by_merchant.iter_mut().zip(&other.by_merchant) {
            *sum += more;
        }
        Ok(())
    }
}

/// Runs a stretch to its end.
pub(super) async fn run(plan: Plan) -> Result<Tally> {
    let started = Instant::now();
    let mut connections = JoinSet::new();
    for number in 0..plan.connections {
        connections.spawn(drive(plan, number, started + plan.duration));
    }
    let mut total = Tally::empty(plan)?;
    while let Some(ended) = connections.join_next().await {
        total.add(&ended.map_err(|error| Failure::new(error.to_string()))??)?;
    }
    total.elapsed = started.elapsed();
    Ok(total)
}

async fn drive(plan: Plan, connection: usize, until: Instant) -> Result<Tally> {
    let mut stream = TcpStream::connect(plan.address).await?;
    stream.set_nodelay(true)?;
    let mut tally = Tally::empty(plan)?;
    let (mut request, mut reply) = (Vec::with_capacity(512), Vec::with_capacity(2048));
    for number in 0_u64.. {
        let began = Instant::now();
        if began >= until {
            break;
        }
        let turn = (u64::from(plan.merchants) * connection as u64 / plan.connections as u64).wrapping_add(number);
        let payer = turn.checked_rem(u64::from(plan.merchants)).map(|payer| payer as u32);
        let order_no = format!("{:x}-{connection:x}-{number:x}", plan.round);
        write_request(&mut request, payer, &order_no);
        stream.write_all(&request).await?;
        let status = read_reply(&mut stream, &mut reply).await?;
        tally.latency.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        tally.requests += 1;
        let own = contains(&reply, order_no.as_bytes());
        match (status, payer) {
            (200, _) if own => {
                tally.admitted += 1;
                if let Some(count) = payer.and_then(|payer| tally.by_merchant.get_mut(payer as usize)) {
                    *count += 1;
                }
            }
            (429, None) if contains(&reply, b"\"code\":\"YEARLY_COUNT\"") => {}
            _ => tally.wrong += 1,
        }
    }
    Ok(tally)
}

fn write_request(out: &mut Vec<u8>, payer: Option<u32>, order_no: &str) {
    let payer = payer.map_or_else(|| RACE_MERCHANT.to_owned(), merchant);
    let fields = format!(
        "{{\"merchant_id\":\"{payer}\",\"order_no\":\"{order_no}\",\"amount\":{AMOUNT_MINOR},\"currency\":\"USD\",\"description\":\""
    );
    let padding = BODY_BYTES.saturating_sub(fields.len() + 2);
    out.clear();
    out.extend_from_slice(b"POST /v1/payments HTTP/1.1\r\nhost: payments\r\ncontent-type: application/json\r\n");
    out.extend_from_slice(format!("content-length: {}\r\n\r\n", fields.len() + padding + 2).as_bytes());
    out.extend_from_slice(fields.as_bytes());
    out.resize(out.len() + padding, b'.');
    out.extend_from_slice(b"\"}");
}

/// Reads one answer into `reply` and tells its status.
async fn read_reply(stream: &mut TcpStream, reply: &mut Vec<u8>) -> Result<u16> {
    reply.clear();
    let mut whole = None;
    loop {
        if stream.read_buf(reply).await? == 0 {
            return Err(Failure::new("Envoy closed a connection in the middle of an answer"));
        }
        if whole.is_none() {
            whole = answer_bytes(reply)?;
        }
        if whole.is_some_and(|bytes| reply.len() >= bytes) {
            let status = reply.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
            return status.ok_or_else(|| Failure::new("an answer without status"));
        }
    }
}

/// The size of head and body together, once the head is there.
fn answer_bytes(reply: &[u8]) -> Result<Option<usize>> {
    let Some(end) = reply.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(None);
    };
    let head = String::from_utf8_lossy(&reply[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
    length.map(|length| Some(end + 4 + length)).ok_or_else(|| Failure::new("an answer without content-length"))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
