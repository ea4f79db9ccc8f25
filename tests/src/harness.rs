//! Swarms of real processes on this machine, clients inside the test, and models computed without any network.
//!
//! Everything that is waited for has a deadline and says what it waited for; everything that is started is killed when its
//! value goes away, also when a test panics.

mod binaries;
mod client;
mod generate;
mod impostor;
mod local;
mod process;
mod reference;
mod swarm;
mod wait;

pub use binaries::{example, program};
pub use client::{Client, Told, host};
pub use generate::{GenerateOutput, Generating, Hop};
pub use impostor::{Impostor, Manner, Visits};
pub use local::{Local, Text, greedy, sampled};
pub use process::{Exit, Process, leftovers};
pub use reference::Reference;
pub use swarm::{Bootstrap, Server, TestSwarm, ready};
pub use wait::{DEADLINE, eventually, eventually_async, eventually_within};

use swarm_protocol::block::BlockRange;

/// The prompt whose text everybody knows.
pub const PROMPT: &str = "Once upon a time, there was a brave fox named Luna.";

/// `start..end`.
pub fn range(start: u32, end: u32) -> BlockRange {
    BlockRange::new(start, end).expect("a range of blocks")
}
