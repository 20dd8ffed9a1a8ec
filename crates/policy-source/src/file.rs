//! Policies from a YAML file that is read again when it changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quota::{TextError, document_text};
use sluice_kit::shutdown::Shutdown;
use sluice_policy::{PolicyError, PolicySet};
use thiserror::Error;
use tracing::error;

use super::Policies;
use super::metrics::Source;
use crate::zones::Zones;

/// How often the file is read.
const POLL_MS: u64 = 250;
/// A document larger than this is refused before it is read.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why the file was not applied.
#[derive(Debug, Error)]
pub enum SourceError {
    #[error("the policy file {path} cannot be read: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("the policy file {path} has {bytes} bytes, more than {FILE_BYTES_MAX}")]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("the policy file {path} {error}")]
    Text { path: PathBuf, error: TextError },
    #[error("{path}: {error}")]
    Document { path: PathBuf, error: PolicyError },
}

/// The texts of the last reads. Half of a file that is just being written may be a valid document without the last merchants,
/// so one read alone changes nothing.
#[derive(Debug)]
struct Reads {
    /// By the last read; `None` where the file could not be read.
    seen: Option<String>,
    /// Applied, or refused.
    taken: Option<String>,
}

impl Reads {
    fn new(text: String) -> Self {
        Self { seen: Some(text.clone()), taken: Some(text) }
    }

    /// True where the text differs from the one that was taken, and was read twice in a row.
    fn find(&mut self, text: Option<&str>) -> bool {
        let settled = self.seen.as_deref() == text;
        if !settled {
            self.seen = text.map(str::to_owned);
            return false;
        }
        let changed = self.taken != self.seen;
        self.taken.clone_from(&self.seen);
        changed
    }
}

/// A policy file.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
    zones: Arc<Zones>,
}

impl FileSource {
    /// Names the file, whose time zones are those of `zones`; nothing is read yet.
    #[must_use]
    pub fn new(path: &Path, zones: Arc<Zones>) -> Self {
        Self { path: path.to_owned(), zones }
    }

    /// Reads the file; returns its text too, for [`FileSource::watch`].
    ///
    /// # Errors
    /// [`SourceError`] names the file and, for a bad document, the field.
    pub fn load(&self) -> Result<(PolicySet, String), SourceError> {
        let text = self.read()?;
        let set = PolicySet::from_yaml(&text).map_err(|error| self.refused(error))?;
        // It must be complete by itself, and enforce something.
        set.compile(&*self.zones).map_err(|error| self.refused(error))?;
        Ok((set, text))
    }

    /// Applies every change of the file until `shutdown` is `true`. A document with an error changes nothing.
    ///
    /// A text counts once two reads in a row have returned it, see [`Reads`].
    pub async fn watch(self, text: String, policies: Arc<Policies>, mut shutdown: Shutdown) {
        let mut reads = Reads::new(text);
        let mut ticks = tokio::time::interval(Duration::from_millis(POLL_MS));
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                _ = ticks.tick() => {}
            }
            let found = self.read();
            if reads.find(found.as_ref().ok().map(String::as_str)) {
                self.take_over(found, &policies);
            }
        }
    }

    fn take_over(&self, text: Result<String, SourceError>, policies: &Policies) {
        let taken = text.and_then(|text| {
            let set = PolicySet::from_yaml(&text).map_err(|error| self.refused(error))?;
            set.compile(&*self.zones).map_err(|error| self.refused(error))?;
            policies.replace_file(set).map_err(|error| self.refused(error))
        });
        if let Err(error) = taken {
            policies.source_read(Source::File, false);
            let kept = policies.current().version().to_string();
            error!(%error, kept, "policy file refused, the policies in force stay");
        }
    }

    fn read(&self) -> Result<String, SourceError> {
        let failed = |error| SourceError::Read { path: self.path.clone(), error };
        let bytes = fs::metadata(&self.path).map_err(failed)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(SourceError::TooLarge { path: self.path.clone(), bytes });
        }
        let bytes = fs::read(&self.path).map_err(failed)?;
        let text = document_text(&bytes).map_err(|error| SourceError::Text { path: self.path.clone(), error })?;
        Ok(text.to_owned())
    }

    fn refused(&self, error: PolicyError) -> SourceError {
        SourceError::Document { path: self.path.clone(), error }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_counts_once_it_was_found_twice_in_a_row() {
        let table = [
            (Some("a"), false),
            (Some("half"), false),
            (Some("whole"), false),
            (Some("whole"), true),
            (Some("whole"), false),
            (None, false),
            (Some("whole"), false),
            (Some("whole"), false),
            (None, false),
            (None, true),
            (None, false),
            (Some("a"), false),
            (Some("a"), true),
        ];
        let mut reads = Reads::new("a".to_owned());
        for (row, (text, counts)) in table.into_iter().enumerate() {
            assert_eq!(reads.find(text), counts, "row {row}: {text:?}");
        }
    }
}
