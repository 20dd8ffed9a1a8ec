//! Which lines the log has.

use tracing_subscriber::EnvFilter;

/// The levels of the log, the fewest lines first.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// A filter directive for the log, known to be well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// What a filter must be like.
    pub(crate) const EXPECTED: &str = "a level (off, error, warn, info, debug or trace), or several directives with commas between, each a level \
        or target=level, as in info,authz_server=debug";

    /// Takes a directive such as `info` or `info,authz_server=debug`; `None` for one that cannot be read. A word that is no level
    /// is none: the log's library takes it for a target, and then every line of all others is gone.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let named = text.split(',').all(|directive| is_directive(directive.trim()));
        let text = text.split(',').map(str::trim).collect::<Vec<_>>().join(",");
        (named && EnvFilter::try_new(&text).is_ok()).then_some(Self(text))
    }

    /// Whether a directive names the target, or a part of it: then that one counts.
    #[must_use]
    pub fn names(&self, target: &str) -> bool {
        let mut targets = self.0.split(',').filter_map(|directive| Some(directive.split_once('=')?.0));
        let is_part = |rest: &str| rest.is_empty() || rest.starts_with("::");
        targets.any(|named| target.strip_prefix(named).is_some_and(is_part))
    }

    /// The directive's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_directive(text: &str) -> bool {
    let is_target = |target: &str| {
        let letters = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':' || byte == b'-';
        !target.is_empty() && target.bytes().all(letters)
    };
    match text.split_once('=') {
        Some((target, level)) => is_target(target) && is_level(level),
        None => is_level(text),
    }
}

fn is_level(text: &str) -> bool {
    LOG_LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
}
