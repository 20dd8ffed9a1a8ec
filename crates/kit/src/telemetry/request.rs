//! The trace of an API request: available to everything that is done for it, so that every line of the log names it.

use super::trace::Trace;

tokio::task_local! {
    static CURRENT: Trace;
}

/// The span of the current request, where there is one and it is in a trace.
#[must_use]
pub fn current() -> Option<Trace> {
    CURRENT.try_with(|trace| *trace).ok()
}

/// Work of the current request in another task.
pub fn carried<F: Future>(work: F) -> impl Future<Output = F::Output> {
    within(current(), work)
}

/// Work for a request in a trace.
pub async fn within<F: Future>(trace: Option<Trace>, work: F) -> F::Output {
    match trace {
        Some(trace) => CURRENT.scope(trace, work).await,
        None => work.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn another_task_works_in_the_same_trace_where_it_is_carried() {
        let trace = Trace::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let (carried, bare) = within(trace, async {
            let carried = tokio::spawn(carried(async { current() }));
            let bare = tokio::spawn(async { current() });
            (carried.await.unwrap(), bare.await.unwrap())
        })
        .await;
        assert_eq!((carried, bare, current()), (trace, None, None));
    }
}
