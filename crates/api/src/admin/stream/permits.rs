//! How many streams may be open: of a server, of a merchant, and of a caller.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quota::{ActorId, MerchantId};

use crate::admin::Caller;
use crate::admin::problem::{Answer, Kind, Problem};
use sluice_live::StreamMetrics;

/// Streams that one caller may have open on a server, and all callers of one merchant together.
const OF_CALLER_MAX: usize = 8;
const OF_MERCHANT_MAX: usize = 16;
/// The part of a server's permits that is reserved for callers that see all merchants.
const OPERATORS_PART: u64 = 4;
/// `Retry-After` if too many are open.
const RETRY_SECS: u64 = 10;

/// The open streams, by caller and merchant.
#[derive(Debug, Default)]
pub(super) struct StreamPermits(Mutex<Vec<(ActorId, Option<MerchantId>)>>);

/// The permit of an open stream; released when dropped.
#[derive(Debug)]
pub(super) struct StreamPermit {
    permits: Arc<StreamPermits>,
    taker: (ActorId, Option<MerchantId>),
    metrics: Arc<StreamMetrics>,
}

impl StreamPermits {
    /// Takes a permit, if fewer than `streams_max` are taken.
    ///
    /// # Errors
    /// 429 if the caller or its merchant has too many, 503 if the server has.
    pub(super) fn take(
        self: &Arc<Self>,
        caller: &Caller,
        streams_max: u64,
        metrics: &Arc<StreamMetrics>,
    ) -> Answer<StreamPermit> {
        let taker = (caller.subject.clone(), caller.merchant.clone());
        let mut taken = self.lock();
        let full = |who, max| {
            let detail = format!("{who} has {max} streams open: close one");
            Err(Problem::new(Kind::RateLimited).detail(detail).retry_after(RETRY_SECS))
        };
        if taken.iter().filter(|other| other.0 == taker.0).count() >= OF_CALLER_MAX {
            return full("the caller", OF_CALLER_MAX);
        }
        if taker.1.is_some() && taken.iter().filter(|other| other.1 == taker.1).count() >= OF_MERCHANT_MAX {
            return full("the merchant", OF_MERCHANT_MAX);
        }
        let of_merchants = taken.iter().filter(|other| other.1.is_some()).count() as u64;
        let is_full_for_merchants = of_merchants >= streams_max - streams_max / OPERATORS_PART;
        if taken.len() as u64 >= streams_max || (taker.1.is_some() && is_full_for_merchants) {
            return Err(Problem::new(Kind::Busy).detail("too many streams are open").retry_after(RETRY_SECS));
        }
        taken.push(taker.clone());
        metrics.streams.inc();
        Ok(StreamPermit { permits: Arc::clone(self), taker, metrics: Arc::clone(metrics) })
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(ActorId, Option<MerchantId>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        let mut taken = self.permits.lock();
        if let Some(own) = taken.iter().position(|taker| *taker == self.taker) {
            taken.swap_remove(own);
        }
        self.metrics.streams.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::auth::{Role, Via};

    fn caller(subject: &str, merchant: Option<&str>) -> Caller {
        let merchant = merchant.map(|id| MerchantId::parse(id).unwrap());
        let scopes = Role::Operator.permissions();
        Caller {
            subject: ActorId::parse(subject).unwrap(),
            roles: vec![],
            merchant,
            scopes,
            via: Via::Jwt,
            expires_at_ms: None,
        }
    }

    #[test]
    fn seats_are_bounded_and_given_back() {
        let (permits, metrics) = (Arc::new(StreamPermits::default()), Arc::new(StreamMetrics::default()));
        let take =
            |name: &str| permits.take(&caller(name, None), 10, &metrics).map_err(|problem| problem.status().as_u16());
        let mut own: Vec<StreamPermit> = (0..OF_CALLER_MAX).map(|_| take("a").unwrap()).collect();
        assert_eq!(take("a").unwrap_err(), 429);
        let others = [take("b").unwrap(), take("c").unwrap()];
        assert_eq!(take("d").unwrap_err(), 503);
        own.pop();
        let fourth = take("d").unwrap();
        drop((own, others, fourth));
        assert!(permits.lock().is_empty());
        assert_eq!(metrics.streams.get(), 0);
    }

    #[test]
    fn one_merchant_takes_a_part_and_all_of_them_leave_some_to_operators() {
        let (permits, metrics) = (Arc::new(StreamPermits::default()), Arc::new(StreamMetrics::default()));
        let take = |name: &str, merchant: Option<&str>| {
            permits.take(&caller(name, merchant), 32, &metrics).map_err(|problem| problem.status().as_u16())
        };
        let mut open = Vec::new();
        for name in ["a-1", "a-2"] {
            open.extend((0..OF_CALLER_MAX).map(|_| take(name, Some("a")).unwrap()));
        }
        assert_eq!(take("a-3", Some("a")).unwrap_err(), 429);
        open.extend((0..8).map(|_| take("b-1", Some("b")).unwrap()));
        assert_eq!(take("c-1", Some("c")).unwrap_err(), 503);
        open.extend((0..8).map(|_| take("oleg", None).unwrap()));
        assert_eq!(take("ana", None).unwrap_err(), 503);
        drop(open.pop());
        take("ana", None).unwrap();
    }
}
