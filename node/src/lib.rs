//! The server's logic: what the `swarm-node` binary is made of.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod admission;
pub mod hop;
pub mod placement;
pub mod prefix_cache;
pub mod serve;
