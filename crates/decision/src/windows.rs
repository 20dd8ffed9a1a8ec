//! The windows of the last payment: those of the next one, where it is under the same policy and no day has begun meanwhile.

use std::sync::{Arc, Mutex, PoisonError};

use quota::{Policy, WindowIds};

/// Computing windows takes three conversions by the zone's rules, and most payments of a moment are under one policy.
#[derive(Debug, Default)]
pub(crate) struct LastWindows(Mutex<Option<(Arc<Policy>, WindowIds)>>);

impl LastWindows {
    /// As [`Policy::windows_at`].
    pub(crate) fn at(&self, policy: &Arc<Policy>, now_ms: i64) -> WindowIds {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((own, windows)) = &*last
            && Arc::ptr_eq(own, policy)
            && (windows.since_ms..windows.until_ms).contains(&now_ms)
        {
            return *windows;
        }
        let windows = policy.windows_at(now_ms);
        *last = Some((Arc::clone(policy), windows));
        windows
    }
}
