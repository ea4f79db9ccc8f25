//! Whole-swarm tests: a simulation of the pure logic.

pub mod sim;
