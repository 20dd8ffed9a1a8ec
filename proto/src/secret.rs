//! How messages that may contain secrets are shown in logs and in tests that fail.

use std::fmt::{Debug, Formatter, Result};

use crate::quota_v1::{AlertChannel, CreatedToken};

const REDACTED: &str = "[redacted]";

impl Debug for CreatedToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let token = self.token.as_ref().map(|_| REDACTED);
        f.debug_struct("CreatedToken").field("token", &token).field("access_token", &self.access_token).finish()
    }
}

impl Debug for AlertChannel {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let (id, kind) = (&self.id, &self.kind);
        f.debug_struct("AlertChannel").field("id", id).field("kind", kind).finish_non_exhaustive()
    }
}
