//! The settings in force now: those of the start with the changes of a configuration service or the database over them.
//!
//! Readers take a snapshot for each piece of work, which costs one atomic step. A change is checked as a whole, with every rule
//! between settings, before any reader sees any of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::Serialize;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use utoipa::ToSchema;

use super::error::SettingsError;
use super::source::{self, Found, Origin};
use super::table::{LiveSettings, SPECS, Settings, Spec, present_name};

/// The handle to the settings in force. Clones share them.
#[derive(Clone)]
pub struct Live(Arc<Shared>);

struct Shared {
    base: Settings,
    current: ArcSwap<LiveSettings>,
    changes: watch::Sender<Arc<LiveSettings>>,
    state: Mutex<State>,
    /// Held from reading or writing the database until the result is in force, so that an older reading never comes last.
    turn: tokio::sync::Mutex<()>,
}

/// The settings in force, for those who show or change them.
struct State {
    settings: Settings,
    layer: Layer,
    /// The last reading of the layer was valid.
    good: bool,
}

/// The values that override those of the start, by file key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub origin: Origin,
    /// Grows with every change in the database; 0 elsewhere.
    pub version: u64,
    pub values: BTreeMap<String, String>,
}

impl Layer {
    pub(super) const fn empty(origin: Origin) -> Self {
        Self { origin, version: 0, values: BTreeMap::new() }
    }

    /// The location of a refused value, as the end of its name in a message.
    const fn location(&self) -> &'static str {
        match self.origin {
            Origin::ConfigService => " in the configuration service",
            Origin::Database => " in runtime_setting",
            Origin::Default | Origin::File | Origin::Environment => "",
        }
    }
}

/// One setting that a change gave another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Changed {
    pub key: &'static str,
    pub old: Option<String>,
    pub new: Option<String>,
}

/// Smallest and largest value of a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = SettingRange)]
pub struct Range {
    pub min: u64,
    pub max: u64,
}

/// A setting as people see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Setting {
    /// The name in files and changes.
    pub key: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// The value in force; null where there is none. A secret that is set shows as `[redacted]`.
    pub value: Option<String>,
    /// Where the value in force comes from.
    pub source: Origin,
    /// The default value.
    pub default: Option<&'static str>,
    pub range: Option<Range>,
    /// Whether it may change while the server runs.
    pub live: bool,
    pub secret: bool,
    /// What it is for.
    pub description: String,
}

impl Live {
    /// The settings of the start; nothing changes them until a layer is applied.
    #[must_use]
    pub fn fixed(settings: &Settings) -> Self {
        let live = Arc::new(LiveSettings::from(settings));
        Self(Arc::new(Shared {
            base: settings.clone(),
            current: ArcSwap::new(Arc::clone(&live)),
            changes: watch::Sender::new(live),
            state: Mutex::new(State {
                settings: settings.clone(),
                layer: Layer::empty(Origin::Environment),
                good: true,
            }),
            turn: tokio::sync::Mutex::new(()),
        }))
    }

    /// The settings now.
    #[must_use]
    pub fn current(&self) -> Arc<LiveSettings> {
        self.0.current.load_full()
    }

    /// The settings now and after each change, for parts that must react: the receiver holds the newest.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<LiveSettings>> {
        self.0.changes.subscribe()
    }

    /// Waits for an interval that the settings give. Where they change meanwhile, the new one counts from the wait's
    /// beginning: a shorter interval ends a long wait at once.
    pub async fn elapse(&self, interval: impl Fn(&LiveSettings) -> Duration) {
        let began = Instant::now();
        let mut changes = self.subscribe();
        loop {
            let end = began + interval(&Arc::clone(&changes.borrow_and_update()));
            tokio::select! {
                () = sleep_until(end) => return,
                // The sender lives as long as `self`.
                _ = changes.changed() => {}
            }
        }
    }

    /// Every setting with its value in force, in the order of the reference.
    #[must_use]
    pub fn list(&self) -> Vec<Setting> {
        let state = self.state();
        SPECS.iter().map(|spec| describe(spec, &state.settings)).collect()
    }

    /// The version of the database's changes that is in force.
    pub(super) fn version(&self) -> u64 {
        self.state().layer.version
    }

    /// Whether the last reading of the layer was valid.
    pub(super) fn good(&self) -> bool {
        self.state().good
    }

    /// Records whether the last reading was valid; returns the previous value.
    pub(super) fn set_good(&self, good: bool) -> bool {
        std::mem::replace(&mut self.state().good, good)
    }

    /// Waits until no other task reads or writes the database for these settings.
    pub(super) async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.0.turn.lock().await
    }

    /// Checks one new value by itself: whether it is of a live setting, and valid for it.
    pub(super) fn check_one(&self, key: &str, text: Option<&str>) -> Result<(), SettingsError> {
        let spec = find_live(key, key)?;
        let Some(text) = text else { return Ok(()) };
        let found = Found { name: key.to_owned(), text: text.to_owned(), origin: Origin::Database };
        self.0.base.clone().set(spec, &found)
    }

    /// What the settings of `keys` would be with `after` in place of `before`. Changes nothing.
    pub(super) fn compare(
        &self,
        before: &Layer,
        after: &Layer,
        keys: &[String],
    ) -> Result<Vec<Changed>, SettingsError> {
        let new = self.merged(after)?;
        // A stored value may be invalid, if written manually; then the settings in force are those from before it.
        let old = self.merged(before).unwrap_or_else(|_| self.state().settings.clone());
        let named = SPECS.iter().filter(|spec| keys.iter().any(|key| present_name(key) == spec.key));
        Ok(named.map(|spec| Changed { key: spec.key, old: old.show(spec), new: new.show(spec) }).collect())
    }

    /// Replaces the present layer, as a whole or not at all; returns the changes.
    pub(super) fn apply(&self, layer: Layer) -> Result<Vec<Changed>, SettingsError> {
        let settings = self.merged(&layer)?;
        let mut state = self.state();
        let changed = changes(&state.settings, &settings);
        if !changed.is_empty() {
            let live = Arc::new(LiveSettings::from(&settings));
            self.0.current.store(Arc::clone(&live));
            self.0.changes.send_replace(live);
        }
        state.settings = settings;
        state.layer = layer;
        Ok(changed)
    }

    /// The settings of the start with a layer over them, all rules checked.
    fn merged(&self, layer: &Layer) -> Result<Settings, SettingsError> {
        let mut settings = self.0.base.clone();
        for (key, text) in &layer.values {
            let name = format!("{key}{}", layer.location());
            let spec = find_live(key, &name)?;
            settings.set(spec, &Found { name, text: text.clone(), origin: layer.origin })?;
            settings.origins.insert(spec.env, layer.origin);
        }
        settings.check()?;
        Ok(settings)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&self.current()).finish()
    }
}

impl LiveSettings {
    /// How long one store call may take.
    #[must_use]
    pub const fn redis_timeout(&self) -> Duration {
        Duration::from_millis(self.redis_timeout_ms)
    }

    /// How long one check may take, all its parts together.
    #[must_use]
    pub const fn check_timeout(&self) -> Duration {
        Duration::from_millis(self.check_timeout_ms)
    }

    /// How long the lease of the server whose journal reads lasts after its last sign of life.
    #[must_use]
    pub const fn journal_lease(&self) -> Duration {
        Duration::from_millis(self.journal_lease_ms)
    }

    /// How long one try to send a message may take.
    #[must_use]
    pub const fn alert_timeout(&self) -> Duration {
        Duration::from_millis(self.alert_timeout_ms)
    }

    /// The period of the rate limit.
    #[must_use]
    pub const fn alert_rate_period(&self) -> Duration {
        Duration::from_secs(self.alert_rate_secs)
    }
}

/// The live setting of a key; the error has `name`, which may contain where the key was found.
fn find_live(key: &str, name: &str) -> Result<&'static Spec, SettingsError> {
    let Some(spec) = SPECS.iter().find(|spec| spec.key == present_name(key)) else {
        let known = SPECS.iter().filter(|spec| spec.live).map(|spec| spec.key);
        return Err(SettingsError::Unknown { name: name.to_owned(), nearest: source::nearest(key, known) });
    };
    if spec.live { Ok(spec) } else { Err(SettingsError::NotLive { name: name.to_owned() }) }
}

fn changes(old: &Settings, new: &Settings) -> Vec<Changed> {
    let live = SPECS.iter().filter(|spec| spec.live);
    live.map(|spec| Changed { key: spec.key, old: old.show(spec), new: new.show(spec) })
        .filter(|changed| changed.old != changed.new)
        .collect()
}

fn describe(spec: &'static Spec, settings: &Settings) -> Setting {
    Setting {
        key: spec.key,
        env: spec.env,
        value: settings.show(spec),
        source: settings.origins.get(spec.env).copied().unwrap_or(Origin::Default),
        default: spec.default.filter(|_| !spec.secret),
        range: spec.range.map(|(min, max)| Range { min, max }),
        live: spec.live,
        secret: spec.secret,
        description: spec.doc.split_whitespace().collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests;
