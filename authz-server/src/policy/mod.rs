//! The policies in force: where they come from and how a change is taken over.

mod file;

use std::sync::{Arc, PoisonError, RwLock};

use quota::PolicyBook;

pub use file::{FileSource, SourceError};

/// The policy book that decisions read. A change replaces it whole; a decision keeps the one it began with.
#[derive(Debug)]
pub struct Policies(RwLock<Arc<PolicyBook>>);

impl Policies {
    /// Begins with a book.
    #[must_use]
    pub fn new(book: PolicyBook) -> Self {
        Self(RwLock::new(Arc::new(book)))
    }

    /// The book in force.
    #[must_use]
    pub fn current(&self) -> Arc<PolicyBook> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another book in force.
    pub fn replace(&self, book: PolicyBook) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
    }
}
