//! Which lines the log contains.

use tracing_subscriber::EnvFilter;

/// The levels of the log, from the fewest lines to the most.
const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// The old targets of when the server was one crate, and their current ones. Directives may name the old ones for one more
/// release.
const FORMER_TARGETS: [(&str, &str); 21] = [
    ("authz_server::admin::auth", "sluice_auth"),
    ("authz_server::admin", "sluice_api::admin"),
    ("authz_server::alert", "sluice_alerts"),
    ("authz_server::check", "sluice_ext_authz"),
    ("authz_server::clock", "sluice_kit::clock"),
    ("authz_server::database", "sluice_kit::database"),
    ("authz_server::decision", "sluice_decision"),
    ("authz_server::health", "sluice_kit::health"),
    ("authz_server::http", "sluice_kit::http"),
    ("authz_server::journal", "sluice_journal"),
    ("authz_server::live", "sluice_live"),
    ("authz_server::operations", "sluice_decision::operations"),
    ("authz_server::outcomes", "sluice_journal::outcomes"),
    ("authz_server::policy", "sluice_policy_source"),
    ("authz_server::process", "sluice_kit::process"),
    ("authz_server::settings", "sluice_settings"),
    ("authz_server::store", "sluice_store"),
    ("authz_server::sweep", "sluice_jobs"),
    ("authz_server::telemetry", "sluice_kit::telemetry"),
    ("authz_server::zones", "sluice_policy_source::zones"),
    // All of them: a directive matches every target that begins with its own.
    ("authz_server", "sluice_"),
];

/// A filter directive for the log, known to be well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// What a filter must be like.
    pub const EXPECTED: &str = "a level (off, error, warn, info, debug or trace), or several directives with commas between, each a level \
        or target=level, as in info,sluice_store=debug";

    /// Takes a directive such as `info` or `info,sluice_store=debug`; `None` for one that cannot be read. An unknown level is
    /// refused: the log's library would take it for a target, and drop every line of all others.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let named = text.split(',').all(|directive| is_directive(directive.trim()));
        let text = text.split(',').map(str::trim).collect::<Vec<_>>().join(",");
        (named && EnvFilter::try_new(&text).is_ok()).then_some(Self(text))
    }

    /// Whether a directive names the target, or a part of it: then that one applies.
    #[must_use]
    pub fn names(&self, target: &str) -> bool {
        let mut targets = self.0.split(',').filter_map(|directive| Some(directive.split_once('=')?.0));
        targets.any(|named| part_of(target, named).is_some())
    }

    /// The directives, with one more for each that names an old target.
    #[must_use]
    pub fn directives(&self) -> Vec<String> {
        let renamed = self.0.split(',').filter_map(|directive| {
            let (target, level) = directive.split_once('=')?;
            let moved = |(old, new): &(&str, &str)| Some(format!("{new}{}={level}", part_of(target, old)?));
            FORMER_TARGETS.iter().find_map(moved)
        });
        // A later directive for the same target replaces an earlier one: a current name has precedence.
        renamed.chain(self.0.split(',').map(str::to_owned)).collect()
    }

    /// The directive's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The rest of a target behind `of`, where it is that target or a part of it.
fn part_of<'a>(target: &'a str, of: &str) -> Option<&'a str> {
    target.strip_prefix(of).filter(|rest| rest.is_empty() || rest.starts_with("::"))
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
