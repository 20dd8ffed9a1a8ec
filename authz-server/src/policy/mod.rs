//! The policies in force: where they come from and how a change is taken over.

mod file;

use std::sync::{Arc, PoisonError, RwLock};

use quota::PolicyBook;
use tracing::info;

use crate::health::Health;

pub use file::{FileSource, SourceError};

/// The policy book that decisions read. A change replaces it whole; a decision keeps the one it began with.
#[derive(Debug)]
pub struct Policies {
    book: RwLock<Arc<PolicyBook>>,
    health: Arc<Health>,
}

impl Policies {
    /// Begins with a book.
    #[must_use]
    pub fn new(book: PolicyBook, health: Arc<Health>) -> Self {
        info!(version = %book.version(), merchants = book.merchants(), "policies are in force");
        health.policy_active(book.version());
        Self { book: RwLock::new(Arc::new(book)), health }
    }

    /// The book in force.
    #[must_use]
    pub fn current(&self) -> Arc<PolicyBook> {
        Arc::clone(&self.book.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts another book in force.
    pub fn replace(&self, book: PolicyBook) {
        self.health.policy_active(book.version());
        *self.book.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
    }
}
