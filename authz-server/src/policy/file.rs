//! Policies from a YAML file that is read again when it changes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quota::{PolicyBook, PolicyError};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{error, info};

use super::Policies;

/// How often the file is looked at.
const POLL_MS: u64 = 250;
/// A document larger than this is refused before it is read.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Why the file was not taken over.
#[derive(Debug, Error)]
pub enum SourceError {
    #[error("the policy file {path} cannot be read: {error}")]
    Read { path: PathBuf, error: io::Error },
    #[error("the policy file {path} has {bytes} bytes, more than {FILE_BYTES_MAX}")]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("{path}: {error}")]
    Document { path: PathBuf, error: PolicyError },
}

/// A policy file.
#[derive(Debug)]
pub struct FileSource {
    path: PathBuf,
}

impl FileSource {
    /// Names the file; nothing is read yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Reads and compiles the file; gives its text too, for [`FileSource::watch`].
    ///
    /// # Errors
    /// [`SourceError`] names the file and, for a bad document, the field.
    pub fn load(&self) -> Result<(PolicyBook, String), SourceError> {
        let text = self.read()?;
        Ok((self.compile(&text)?, text))
    }

    /// Takes every change of the file over until `shutdown` says `true`. A document with an error changes nothing.
    ///
    /// A text counts once two looks in a row have found it: half of a file that is just being written may be a valid
    /// document without the last merchants.
    pub async fn watch(self, text: String, policies: Arc<Policies>, mut shutdown: watch::Receiver<bool>) {
        let mut taken = Some(text);
        let mut seen = taken.clone();
        let mut ticks = tokio::time::interval(Duration::from_millis(POLL_MS));
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|stop| *stop) => return,
                _ = ticks.tick() => {}
            }
            let found = self.read();
            let text = found.as_ref().ok().cloned();
            let settled = text == seen;
            seen = text;
            if settled && seen != taken {
                self.take_over(found, &policies);
                taken.clone_from(&seen);
            }
        }
    }

    fn take_over(&self, text: Result<String, SourceError>, policies: &Policies) {
        let kept = policies.current().version().to_string();
        match text.and_then(|text| self.compile(&text)) {
            Ok(book) => {
                info!(from = kept, to = %book.version(), "policies changed");
                policies.replace(book);
            }
            Err(error) => error!(%error, kept, "policy file refused, the policies in force stay"),
        }
    }

    fn read(&self) -> Result<String, SourceError> {
        let failed = |error| SourceError::Read { path: self.path.clone(), error };
        let bytes = fs::metadata(&self.path).map_err(failed)?.len();
        if bytes > FILE_BYTES_MAX {
            return Err(SourceError::TooLarge { path: self.path.clone(), bytes });
        }
        fs::read_to_string(&self.path).map_err(failed)
    }

    fn compile(&self, text: &str) -> Result<PolicyBook, SourceError> {
        PolicyBook::from_yaml(text).map_err(|error| SourceError::Document { path: self.path.clone(), error })
    }
}
