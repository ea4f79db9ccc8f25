//! Whole-swarm tests: a simulation of the pure logic, and a harness for real processes.

#[allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]
pub mod harness;
pub mod placement_sim;
pub mod sim;
