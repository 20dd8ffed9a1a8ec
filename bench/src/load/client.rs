//! The load generator: HTTP/1.1 connections with one request at a time each, on one thread and written by hand, so that it
//! takes as little of the cores that it measures as it can. Every answer is checked against its own request.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::answer::{self, Reply};
use super::plan::{Pace, Plan, Stop, Tally};
use super::poll::{Interest, Poll};
use super::template::Template;
use testkit::{Failure, Result};

/// No answer takes longer than this while the rig is well: the filter and the route give up long before.
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);

/// Runs a stretch to its end, on a thread of its own.
///
/// # Errors
/// When a connection breaks, an answer does not come or is not HTTP. Wrong answers are counted.
pub(super) async fn run(plan: Plan) -> Result<Tally> {
    let thread = std::thread::Builder::new().name("generator".to_owned());
    let (done, tally) = tokio::sync::oneshot::channel();
    thread.spawn(move || {
        let _ = done.send(run_here(plan));
    })?;
    tally.await.map_err(|_| Failure::new("the generator's thread died"))?
}

fn run_here(plan: Plan) -> Result<Tally> {
    Session::open(plan)?.run()
}

/// The connections of a plan, for one stretch after another. It belongs to the thread that opened it.
pub(super) struct Session {
    plan: Plan,
    poll: Poll,
    connections: Vec<Connection>,
}

impl Session {
    pub(super) fn open(plan: Plan) -> Result<Self> {
        Poll::wake_in_time()?;
        let poll = Poll::new()?;
        let mut connections = Vec::with_capacity(plan.connections);
        for number in 0..plan.connections {
            let connection = Connection::open(&plan, number)?;
            poll.add(&connection.stream, number, Interest::Read)?;
            connections.push(connection);
        }
        Ok(Self { plan, poll, connections })
    }

    /// Runs a stretch until its last payment is answered. Orders go on where the last stretch ended.
    pub(super) fn run(&mut self) -> Result<Tally> {
        let Self { plan, poll, connections } = self;
        let mut tally = Tally::empty(*plan)?;
        let cpu = clock_gettime(ClockId::ThreadCPUTime);
        let schedule = Schedule::begin(plan);
        drive(plan, &schedule, poll, connections, &mut tally)?;
        tally.elapsed = schedule.started.elapsed();
        tally.cpu = Duration::try_from(clock_gettime(ClockId::ThreadCPUTime) - cpu)?;
        Ok(tally)
    }
}

fn drive(
    plan: &Plan,
    schedule: &Schedule,
    poll: &mut Poll,
    connections: &mut [Connection],
    tally: &mut Tally,
) -> Result<()> {
    let mut under_way = 0;
    // The next payment of a fixed pace that comes due, counted over all connections.
    let mut due = 0_u64;
    let mut last_answer = Instant::now();
    let mut ready = Vec::new();
    if matches!(plan.pace, Pace::Closed) {
        for connection in connections.iter_mut() {
            under_way += usize::from(connection.next(plan, schedule, poll, Instant::now())?);
        }
    }
    loop {
        let now = Instant::now();
        let pause = schedule.release(plan, &mut due, now, |number| {
            let connection = connections.get_mut(number).filter(|connection| connection.is_idle());
            let began = connection.map(|connection| connection.next(plan, schedule, poll, now)).transpose()?;
            under_way += usize::from(began == Some(true));
            Ok(())
        })?;
        if pause.is_none() && under_way == 0 {
            return Ok(());
        }
        if now.duration_since(last_answer) > ANSWERED_WITHIN && under_way > 0 {
            return Err(Failure::new(format!("{under_way} payments were not answered within {ANSWERED_WITHIN:?}")));
        }
        poll.wait(Some(pause.unwrap_or(ANSWERED_WITHIN)), &mut ready)?;
        for number in ready.iter().copied() {
            let Some(connection) = connections.get_mut(number) else { continue };
            if connection.go_on(plan, poll, tally)? {
                last_answer = Instant::now();
                under_way -= 1;
                under_way += usize::from(connection.next(plan, schedule, poll, last_answer)?);
            }
        }
    }
}

/// When payments are due.
struct Schedule {
    started: Instant,
    /// No payment begins from here on.
    until: Option<Instant>,
    /// Each connection sends at most so many.
    each: u64,
    /// Time between two payments of all connections together, where the pace is fixed.
    interval: Option<Duration>,
    connections: u64,
}

impl Schedule {
    fn begin(plan: &Plan) -> Self {
        let started = Instant::now();
        let (until, each) = match plan.stop {
            Stop::After(duration) => (Some(started + duration), u64::MAX),
            Stop::Payments { each } => (None, each),
        };
        let interval = match plan.pace {
            Pace::Closed => None,
            Pace::Fixed { per_second } => Some(Duration::from_secs_f64(1.0 / per_second)),
        };
        Self { started, until, each, interval, connections: plan.connections as u64 }
    }

    /// When a connection's payment of this number begins, at the earliest; `None` where it is not to be sent any more.
    fn begin_of(&self, connection: usize, number: u64, now: Instant) -> Option<Instant> {
        if number >= self.each {
            return None;
        }
        let begin = match self.interval {
            None => now,
            Some(interval) => self.due(interval, number * self.connections + connection as u64),
        };
        self.until.is_none_or(|until| begin < until).then_some(begin)
    }

    fn due(&self, interval: Duration, turn: u64) -> Instant {
        self.started + Duration::from_secs_f64(interval.as_secs_f64() * turn as f64)
    }

    /// Hands every connection whose turn has come to `begin`, and gives the time until the next turn; `None` where no
    /// further turn comes.
    fn release(
        &self,
        plan: &Plan,
        due: &mut u64,
        now: Instant,
        mut begin: impl FnMut(usize) -> Result<()>,
    ) -> Result<Option<Duration>> {
        let Some(interval) = self.interval else { return Ok(None) };
        loop {
            let at = self.due(interval, *due);
            if *due / self.connections >= self.each || self.until.is_some_and(|until| at >= until) {
                return Ok(None);
            }
            if at > now {
                return Ok(Some(at - now));
            }
            begin((*due % plan.connections as u64) as usize)?;
            *due += 1;
        }
    }
}

/// One connection with at most one payment under way.
struct Connection {
    number: usize,
    stream: TcpStream,
    template: Template,
    /// Payments begun.
    sent: u64,
    /// Bytes of the request that are on their way.
    written: usize,
    waits_to_write: bool,
    /// When the payment under way began, or should have.
    began: Option<Instant>,
    reply: Reply,
}

impl Connection {
    fn open(plan: &Plan, number: usize) -> Result<Self> {
        let stream = TcpStream::connect(plan.address)?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let template = Template::new(plan, number);
        let reply = Reply::default();
        Ok(Self { number, stream, template, sent: 0, written: 0, waits_to_write: false, began: None, reply })
    }

    fn is_idle(&self) -> bool {
        self.began.is_none()
    }

    /// Begins the next payment where it is due. Returns whether it did.
    fn next(&mut self, plan: &Plan, schedule: &Schedule, poll: &Poll, now: Instant) -> Result<bool> {
        let begin = schedule.begin_of(self.number, self.sent, now).filter(|begin| *begin <= now);
        let Some(begin) = begin else { return Ok(false) };
        self.template.set(plan, self.number, self.sent / plan.repeats.max(1));
        self.began = Some(begin);
        self.sent += 1;
        self.written = 0;
        self.write(poll)?;
        Ok(true)
    }

    fn write(&mut self, poll: &Poll) -> Result<()> {
        loop {
            let rest = self.template.bytes().get(self.written..).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            match self.stream.write(rest) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        let waits = self.written < self.template.bytes().len();
        if waits != self.waits_to_write {
            self.waits_to_write = waits;
            poll.change(&self.stream, self.number, if waits { Interest::ReadAndWrite } else { Interest::Read })?;
        }
        Ok(())
    }

    /// Writes and reads what the socket is ready for. Returns whether the payment is answered; it is booked then.
    fn go_on(&mut self, plan: &Plan, poll: &Poll, tally: &mut Tally) -> Result<bool> {
        if self.waits_to_write {
            self.write(poll)?;
        }
        match self.stream.read(self.reply.room()) {
            Ok(0) => return Err(Failure::new("Envoy closed a connection that was in use")),
            Ok(bytes) => self.reply.filled(bytes),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        let Some(answer) = self.reply.whole()? else { return Ok(false) };
        let began = self.began.take().ok_or_else(|| Failure::new("an answer without a request"))?;
        let order = (self.sent - 1) / plan.repeats.max(1);
        let payer = plan.payer(self.number, order);
        let judged = answer::judge(&answer, plan.expect, self.template.order(), payer as u64);
        tally.latency.saturating_record(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        tally.requests += 1;
        tally.admitted += u64::from(judged == answer::Judged::Admitted);
        tally.wrong += u64::from(judged == answer::Judged::Wrong);
        let is_charge = judged == answer::Judged::Admitted && (self.sent - 1).is_multiple_of(plan.repeats.max(1));
        if let Some(count) = tally.by_payer.get_mut(payer).filter(|_| is_charge) {
            *count += 1;
        }
        self.reply.clear();
        Ok(true)
    }
}
