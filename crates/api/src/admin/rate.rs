//! The request rate of each caller: a bucket for each, in this server's memory, that holds a minute's worth of requests and
//! fills evenly.
//!
//! A bucket is one number, the time at which it is full again (the generic cell rate algorithm's theoretical arrival time,
//! ITU-T I.371): a full bucket needs no entry at all.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use quota::ActorId;

use super::problem::{Answer, Kind, Problem};
use super::{Admin, Caller};

/// Most callers with a bucket that is not full. Beyond it those nearest to full are removed.
const CALLERS_MAX: usize = 10_000;
/// A minute in microseconds, the unit of all times here.
const MINUTE_US: i64 = 60_000_000;

/// The buckets. Times are microseconds since they were made.
#[derive(Debug)]
pub(super) struct Rates {
    since: Instant,
    full_at_us: Mutex<HashMap<ActorId, i64>>,
}

impl Default for Rates {
    fn default() -> Self {
        Self { since: Instant::now(), full_at_us: Mutex::default() }
    }
}

impl Rates {
    fn now_us(&self) -> i64 {
        i64::try_from(self.since.elapsed().as_micros()).unwrap_or(i64::MAX)
    }

    /// Takes requests out of the caller's bucket; `Err` is the number of seconds until there are so many again.
    fn take(&self, caller: &ActorId, count: u64, per_minute: u64, now_us: i64) -> Result<(), u64> {
        let one_us = MINUTE_US / i64::try_from(per_minute.max(1)).unwrap_or(MINUTE_US).min(MINUTE_US);
        let step_us = one_us.saturating_mul(i64::try_from(count).unwrap_or(i64::MAX));
        let mut buckets = self.full_at_us.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at_us = buckets.get(caller).copied().unwrap_or(now_us).max(now_us).saturating_add(step_us);
        let wait_us = full_at_us.saturating_sub(now_us).saturating_sub(MINUTE_US);
        if wait_us > 0 {
            return Err(u64::try_from(wait_us).unwrap_or_default().div_ceil(1_000_000));
        }
        if buckets.len() >= CALLERS_MAX && !buckets.contains_key(caller) {
            make_room(&mut buckets, now_us);
        }
        buckets.insert(caller.clone(), full_at_us);
        Ok(())
    }
}

/// Removes full buckets; if there are none, the half that is nearest to full.
fn make_room(buckets: &mut HashMap<ActorId, i64>, now_us: i64) {
    buckets.retain(|_, full_at_us| *full_at_us > now_us);
    if buckets.len() >= CALLERS_MAX {
        let mut times: Vec<i64> = buckets.values().copied().collect();
        let (_, middle, _) = times.select_nth_unstable(CALLERS_MAX / 2);
        let middle = *middle;
        buckets.retain(|_, full_at_us| *full_at_us > middle);
    }
}

/// The middleware: a caller whose bucket is empty gets a 429 with `Retry-After`.
pub(super) async fn middleware(State(admin): State<Admin>, caller: Caller, request: Request, next: Next) -> Response {
    match take(&admin, &caller, 1) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Takes the operations of a batch out of the caller's bucket; the middleware has taken one request already.
pub(super) fn take_batch(admin: &Admin, caller: &Caller, operations: usize) -> Answer<()> {
    let per_minute = admin.live.current().admin_rate_per_minute;
    let operations = u64::try_from(operations).unwrap_or(u64::MAX);
    if operations > per_minute {
        let detail = format!("the caller may send {per_minute} operations in a minute: send smaller batches");
        return Err(Problem::field("operations", detail));
    }
    match operations.saturating_sub(1) {
        0 => Ok(()),
        more => take(admin, caller, more),
    }
}

/// Takes requests out of the caller's bucket.
pub(super) fn take(admin: &Admin, caller: &Caller, count: u64) -> Answer<()> {
    let per_minute = admin.live.current().admin_rate_per_minute;
    admin.rates.take(&caller.subject, count, per_minute, admin.rates.now_us()).map_err(|secs| {
        let detail = format!("the caller may make {per_minute} requests in a minute");
        Problem::new(Kind::RateLimited).detail(detail).retry_after(secs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(id: &str) -> ActorId {
        ActorId::parse(id).unwrap()
    }

    #[test]
    fn a_bucket_holds_a_minutes_worth_and_fills_evenly() {
        let rates = Rates::default();
        let (one, other) = (caller("a"), caller("b"));
        let start = 1_000_000_000;
        for _ in 0..6 {
            assert_eq!(rates.take(&one, 1, 6, start), Ok(()));
        }
        assert_eq!(rates.take(&one, 1, 6, start), Err(10));
        assert_eq!(rates.take(&other, 1, 6, start), Ok(()));
        assert_eq!(rates.take(&one, 1, 6, start + 9_000_000), Err(1));
        assert_eq!(rates.take(&one, 1, 6, start + 10_000_000), Ok(()));
        assert_eq!(rates.take(&one, 1, 6, start + 10_000_000), Err(10));
        for _ in 0..6 {
            assert_eq!(rates.take(&one, 1, 6, start + 200_000_000), Ok(()));
        }
        assert_eq!(rates.take(&one, 1, 6, start + 200_000_000), Err(10));
    }

    #[test]
    fn a_batch_takes_as_much_as_its_operations_would() {
        let rates = Rates::default();
        let (one, other) = (caller("a"), caller("b"));
        assert_eq!(rates.take(&one, 6, 6, 0), Ok(()));
        assert_eq!(rates.take(&one, 1, 6, 0), Err(10));
        // A refused request takes nothing.
        assert_eq!(rates.take(&other, 5, 6, 0), Ok(()));
        assert_eq!(rates.take(&other, 2, 6, 0), Err(10));
        assert_eq!(rates.take(&other, 1, 6, 0), Ok(()));
    }

    #[test]
    fn odd_rates_are_served() {
        for per_minute in [1_u64, 7, 6000, 1_000_000] {
            let rates = Rates::default();
            let admitted = (0..=per_minute).filter(|_| rates.take(&caller("a"), 1, per_minute, 0).is_ok()).count();
            assert!(u64::try_from(admitted).unwrap().abs_diff(per_minute) <= 1, "{per_minute}: {admitted}");
        }
    }

    #[test]
    fn the_number_of_buckets_is_bounded() {
        let rates = Rates::default();
        for number in 0..CALLERS_MAX * 2 {
            assert_eq!(rates.take(&caller(&number.to_string()), 1, 60, 0), Ok(()));
        }
        assert!(rates.full_at_us.lock().unwrap().len() <= CALLERS_MAX);
    }
}
