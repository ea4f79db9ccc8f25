//! Whole-swarm tests: a simulation of the pure logic, a harness for real processes, a wide-area network for them,
//! chaos in both, and a soak; a collector of spans.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

#[allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]
pub mod chaos;
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub mod collector;
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]
pub mod harness;
#[allow(clippy::unwrap_used, clippy::expect_used)]
pub mod hub_server;
pub mod placement_sim;
pub mod sim;
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]
pub mod soak;
pub mod wan;
