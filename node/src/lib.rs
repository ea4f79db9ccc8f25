//! The server's logic: what the `swarm-node` binary is made of.

pub mod admission;
pub mod placement;
