//! The program's commands as an operator runs them: what they print, how they end, and what they never print.

mod bench;
mod credit;
mod inspect;
mod outcomes;
mod policy;
mod reference;
mod rights;
mod routes;
mod token;
