//! A seeded discrete-event simulation of one session in a swarm where everything goes wrong.
//!
//! Real: the route search, the chain on the client, the hops and admission on the servers, placement, and the rules by
//! which a silent peer is told from a slow one. Simulated: time, the network, and the math: a row of activations is a hash
//! of every row before it, so that one wrong, stale or missing row of KV anywhere changes everything after it. What drives
//! the real logic, `client` and `server` here, does as `client::session` and `node::serve::session` do. A [`Scenario`] is
//! data; the same scenario gives the same [`Report`], trace included.

mod client;
mod draw;
mod message;
mod network;
mod report;
mod rows;
mod scenario;
mod server;
mod world;

pub use report::{Counts, Report, Violation};
pub use rows::{Activations, Kv};
pub use scenario::{Fault, Hosting, Operation, Scenario, ServerSpec, Turn};
pub use world::{run, tell};
