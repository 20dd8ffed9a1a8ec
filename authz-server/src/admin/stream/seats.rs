//! How many streams may be open: of a server, and of a caller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use quota::ActorId;

use crate::admin::problem::{Answer, Kind, Problem};
use crate::metrics::Metrics;

/// Streams that one caller may have open on a server.
const OF_CALLER_MAX: u64 = 8;
/// When to ask again where too many are open.
const RETRY_SECS: u64 = 10;

/// The open streams by their callers.
#[derive(Debug, Default)]
pub(super) struct Seats(Mutex<HashMap<ActorId, u64>>);

/// An open stream; its end gives the seat back.
#[derive(Debug)]
pub(super) struct Seat {
    seats: Arc<Seats>,
    caller: ActorId,
    metrics: Arc<Metrics>,
}

impl Seats {
    /// Takes a seat, where there are fewer than `seats_max`.
    ///
    /// # Errors
    /// 429 where the caller has too many, 503 where the server has.
    pub(super) fn take(self: &Arc<Self>, caller: &ActorId, seats_max: u64, metrics: &Arc<Metrics>) -> Answer<Seat> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if taken.get(caller).is_some_and(|own| *own >= OF_CALLER_MAX) {
            let detail = format!("the caller has {OF_CALLER_MAX} streams open: close one");
            return Err(Problem::new(Kind::RateLimited).detail(detail).retry_after(RETRY_SECS));
        }
        if taken.values().sum::<u64>() >= seats_max {
            return Err(Problem::new(Kind::Busy).detail("too many streams are open").retry_after(RETRY_SECS));
        }
        *taken.entry(caller.clone()).or_default() += 1;
        metrics.live.streams.inc();
        Ok(Seat { seats: Arc::clone(self), caller: caller.clone(), metrics: Arc::clone(metrics) })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = taken.get_mut(&self.caller) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.remove(&self.caller);
            }
        }
        self.metrics.live.streams.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_bounded_and_given_back() {
        let (seats, metrics) = (Arc::new(Seats::default()), Arc::new(Metrics::new()));
        let caller = |name: &str| ActorId::parse(name).unwrap();
        let take = |name: &str| seats.take(&caller(name), 10, &metrics).map_err(|problem| problem.status().as_u16());
        let mut own: Vec<Seat> = (0..OF_CALLER_MAX).map(|_| take("a").unwrap()).collect();
        assert_eq!(take("a").unwrap_err(), 429);
        let others = [take("b").unwrap(), take("c").unwrap()];
        assert_eq!(take("d").unwrap_err(), 503);
        own.pop();
        let fourth = take("d").unwrap();
        drop((own, others, fourth));
        assert!(seats.0.lock().unwrap().is_empty());
        assert!(metrics.encode().contains("sluice_streams 0"));
    }
}
