//! A seeded discrete-event simulation of one session in a swarm where everything goes wrong.
//!
//! Real: the route search, the session's chain, admission and placement. Simulated: time, the network, and the math: a
//! row of activations is a hash of every row before it, so that one wrong, stale or missing row of KV anywhere changes
//! everything after it. A [`Scenario`] is data; the same scenario gives the same [`Report`], trace included.

mod client;
mod message;
mod rows;
mod scenario;
mod server;
mod world;

pub use client::Counts;
pub use rows::{Activations, Kv};
pub use scenario::{Fault, Hosting, Operation, Scenario, ServerSpec, Turn};
pub use world::{Report, Violation, run};
