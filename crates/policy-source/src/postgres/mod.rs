//! Policies in Postgres: the tables' types, the operations on them, and how every server picks up a change.

pub(crate) mod checks;
mod error;
mod listener;
mod load;
pub mod model;
mod repository;
mod scopes;

pub(crate) use error::of_policy;
pub use listener::PolicyListener;
pub use load::{LoadError, Rows};
pub use repository::{PolicyFilter, PolicyRepository};
pub use scopes::ScopeFilter;
