//! Policies in Postgres: the tables' forms, what people do with them, and how every server learns of a change.

pub(crate) mod checks;
mod error;
mod load;
pub mod model;
mod repository;
mod scopes;
mod watch;

pub use error::RepositoryError;
pub use load::{LoadError, Rows};
pub use repository::{By, PolicyFilter, PolicyRepository};
pub use scopes::ScopeFilter;
pub use watch::Watch;
