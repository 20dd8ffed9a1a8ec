//! Which callers share a call, and which reply each caller gets.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use quota::{Action, AttemptId, Command, Currency, Effect, MerchantId, OrderNo, WindowIds};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;
use crate::{AuditContext, MemoryStore};

/// A store whose calls each wait for a permit, and that records how many commands each call had.
#[derive(Debug)]
struct Gate {
    ledger: MemoryStore,
    permits: Semaphore,
    begun: AtomicUsize,
    calls: Mutex<Vec<usize>>,
    timeout_ms: AtomicU64,
    breaks_off: bool,
}

impl Gate {
    fn new(permits: usize) -> Self {
        let (ledger, permits) = (MemoryStore::new(1), Semaphore::new(permits));
        let (begun, calls) = (AtomicUsize::new(0), Mutex::default());
        Self { ledger, permits, begun, calls, timeout_ms: AtomicU64::new(60_000), breaks_off: false }
    }

    fn calls(&self) -> Vec<usize> {
        self.calls.lock().unwrap().clone()
    }
}

impl Store for Gate {
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout_ms.load(Ordering::SeqCst))
    }

    async fn apply_each(&self, batch: &[Call]) -> Results {
        let first = self.begun.fetch_add(1, Ordering::SeqCst) == 0;
        assert!(!(first && self.breaks_off), "this call breaks off");
        self.permits.acquire().await.unwrap().forget();
        self.calls.lock().unwrap().push(batch.len());
        self.ledger.apply_each(batch).await
    }

    async fn apply_all(&self, batch: &[Call]) -> Result<Vec<Reply>, StoreError> {
        self.ledger.apply_all(batch).await
    }
}

/// A command with a decision id of its own.
fn command(number: u8) -> Call {
    let command = Command {
        merchant: MerchantId::parse("m").unwrap(),
        currency: Currency::parse("USD").unwrap(),
        order_no: OrderNo::parse(&format!("o-{number}")).ok(),
        attempt: AttemptId([number; 16]),
        action: Action::VoidAttempt,
        effect: Effect::Commit,
        decision_id: [number; 16],
        now_ms: 1_700_000_000_000,
        windows: WindowIds::default(),
        order_ttl_secs: 60,
        backlog_max: 1000,
        threshold_policy: None,
        credit: None,
        history: None,
        payment_no: None,
        operation_no: None,
        channel: None,
    };
    Arc::new((command, AuditContext::default()))
}

/// Lets every task run until it waits.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

/// Submits commands with these numbers as separate callers; returns each caller's reply.
fn submit(group: &Arc<GroupCommit<Gate>>, numbers: std::ops::Range<u8>) -> JoinSet<(u8, Result<Reply, StoreError>)> {
    let mut callers = JoinSet::new();
    for number in numbers {
        let group = Arc::clone(group);
        callers.spawn(async move { (number, group.apply_one(&command(number)).await) });
    }
    callers
}

async fn all_got_their_own(callers: JoinSet<(u8, Result<Reply, StoreError>)>) {
    for (number, reply) in callers.join_all().await {
        assert_eq!(reply.unwrap().decision_id, [number; 16]);
    }
}

#[tokio::test]
async fn arrivals_during_a_call_go_together_in_the_next_one() {
    let store = Arc::new(Gate::new(0));
    let group = Arc::new(GroupCommit::new(Arc::clone(&store)));
    let first = submit(&group, 0..1);
    settle().await;
    let more = submit(&group, 1..6);
    settle().await;
    let several = tokio::spawn({
        let group = Arc::clone(&group);
        async move { group.apply_each(&[command(6), command(7)]).await }
    });
    settle().await;
    assert_eq!(store.begun.load(Ordering::SeqCst), 1, "one call at a time");
    store.permits.add_permits(2);
    all_got_their_own(first).await;
    all_got_their_own(more).await;
    let ids: Vec<_> = several.await.unwrap().into_iter().map(|result| result.unwrap().decision_id).collect();
    assert_eq!(ids, [[6; 16], [7; 16]]);
    assert_eq!(store.calls(), [1, 7]);
    // Nothing waits now: the next one is sent at once and alone.
    store.permits.add_permits(1);
    all_got_their_own(submit(&group, 8..9)).await;
    assert_eq!(store.calls(), [1, 7, 1]);
}

#[tokio::test]
async fn who_gives_up_before_the_call_is_not_asked_for() {
    let store = Arc::new(Gate::new(0));
    let group = Arc::new(GroupCommit::new(Arc::clone(&store)));
    let first = submit(&group, 0..1);
    settle().await;
    let (mut gone, kept) = (submit(&group, 1..4), submit(&group, 4..6));
    settle().await;
    gone.shutdown().await;
    store.permits.add_permits(2);
    all_got_their_own(first).await;
    all_got_their_own(kept).await;
    assert_eq!(store.calls(), [1, 2]);
    let orders = |number| command(number).0.order_no.clone().unwrap();
    let ledger = store.ledger.ledger();
    let merchant = MerchantId::parse("m").unwrap();
    assert!((1..4).all(|number| ledger.order(&merchant, &orders(number)).is_none()));
    assert!((4..6).all(|number| ledger.order(&merchant, &orders(number)).is_some()));
}

#[tokio::test]
async fn who_gives_up_during_the_call_costs_nobody_his_answer() {
    let store = Arc::new(Gate::new(0));
    let group = Arc::new(GroupCommit::new(Arc::clone(&store)));
    let first = submit(&group, 0..1);
    settle().await;
    let (mut gone, kept) = (submit(&group, 1..3), submit(&group, 3..5));
    settle().await;
    store.permits.add_permits(1);
    settle().await;
    gone.shutdown().await;
    store.permits.add_permits(1);
    all_got_their_own(first).await;
    all_got_their_own(kept).await;
    assert_eq!(store.calls(), [1, 4]);
}

#[tokio::test]
async fn a_call_has_a_bounded_number_of_commands() {
    let store = Arc::new(Gate::new(0));
    let group = Arc::new(GroupCommit::new(Arc::clone(&store)));
    let first = submit(&group, 0..1);
    settle().await;
    let more = submit(&group, 1..200);
    settle().await;
    store.permits.add_permits(3);
    all_got_their_own(first).await;
    all_got_their_own(more).await;
    assert_eq!(store.calls(), [1, CALL_COMMANDS_MAX, 199 - CALL_COMMANDS_MAX]);
}

/// One caller with more commands than a call takes: answers in time are returned, and what was not sent by then never is.
#[tokio::test]
async fn a_late_call_costs_the_answers_of_no_other() {
    let store = Arc::new(Gate { timeout_ms: AtomicU64::new(20), ..Gate::new(2) });
    let group = GroupCommit::new(Arc::clone(&store));
    let batch: Vec<_> = (0..4 * CALL_COMMANDS_MAX).map(|number| command((number % 251) as u8)).collect();
    let results = group.apply_each(&batch).await;
    assert_eq!(results.len(), batch.len());
    let (answered, late) = results.split_at(2 * CALL_COMMANDS_MAX);
    for (result, call) in answered.iter().zip(&batch) {
        assert_eq!(result.as_ref().unwrap().decision_id, call.0.decision_id);
    }
    assert!(late.iter().all(|result| *result == Err(StoreError::Timeout { after_ms: 20 })), "{late:?}");
    // The third call is still under way; the fourth is never made.
    store.timeout_ms.store(60_000, Ordering::SeqCst);
    store.permits.add_permits(10);
    all_got_their_own(submit(&Arc::new(group), 0..1)).await;
    assert_eq!(store.calls(), [CALL_COMMANDS_MAX, CALL_COMMANDS_MAX, CALL_COMMANDS_MAX, 1]);
}

#[tokio::test]
async fn a_store_that_hangs_is_waited_for_no_longer_than_it_may_take() {
    let store = Arc::new(Gate { timeout_ms: AtomicU64::new(20), ..Gate::new(0) });
    let group = Arc::new(GroupCommit::new(Arc::clone(&store)));
    let first = submit(&group, 0..1);
    settle().await;
    let more = submit(&group, 1..3);
    for (_, result) in first.join_all().await.into_iter().chain(more.join_all().await) {
        assert_eq!(result, Err(StoreError::Timeout { after_ms: 20 }));
    }
    // The first call is still under way; the others were given up before theirs, so they are never made.
    store.timeout_ms.store(60_000, Ordering::SeqCst);
    store.permits.add_permits(10);
    all_got_their_own(submit(&group, 3..5)).await;
    assert_eq!(store.calls().iter().sum::<usize>(), 3);
}

#[tokio::test]
async fn an_empty_batch_waits_for_no_call() {
    let group = Arc::new(GroupCommit::new(Arc::new(Gate::new(0))));
    let _under_way = submit(&group, 0..1);
    settle().await;
    assert_eq!(group.apply_each(&[]).await, []);
}

#[tokio::test]
async fn a_call_that_breaks_off_holds_up_nobody_after_it() {
    let store = Arc::new(Gate { breaks_off: true, ..Gate::new(10) });
    let group = Arc::new(GroupCommit::new(Arc::clone(&store)));
    for (_, result) in submit(&group, 0..1).join_all().await {
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    }
    all_got_their_own(submit(&group, 1..4)).await;
}
