//! Payments by the thousand in which every answer can be distinguished from every other: what an order is decided, what
//! becomes of it at the gateway and when its client leaves all follow from its number. The client, the decision server
//! and the gateway each reckon it for themselves, so that an answer which reached the wrong stream shows by itself; and
//! what each of them saw is compared order by order in the end.

mod answers;
mod client;
mod gateway;
mod judge;
mod ledger;
mod order;
mod orders;
mod raw;
mod real;
mod rig;
mod scenarios;
mod server;
mod swap;

pub use client::Lanes;
pub use ledger::Tally;
pub use orders::Mix;
pub use rig::{Rig, RigOptions};
pub use scenarios::{SCENARIOS, Scale, Scenario, misdelivered_answers_are_noticed};
pub use swap::Swap;
