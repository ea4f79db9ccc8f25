//! Swarms of real processes on this machine, clients inside the test, and models computed without any network.
//!
//! Everything that is waited for has a deadline and says what it waited for; everything that is started is killed when its
//! value goes away, also when a test panics.

mod api;
mod binaries;
mod client;
mod generate;
mod http;
mod impostor;
mod json_schema;
mod local;
mod process;
mod reference;
mod swarm;
mod wait;
mod web;

pub use api::Api;
pub use binaries::{example, program};
pub use client::{Client, Told, host, tell_in};
pub use generate::{GenerateOutput, Generating, Hop};
pub use http::{Answer, Events, HttpClient, get};
pub use impostor::{Impostor, Manner, Visits};
pub use json_schema::violations;
pub use local::{Local, Text, greedy, sampled};
pub use process::{Exit, Process, leftovers};
pub use reference::Reference;
pub use swarm::{Bootstrap, Server, TestSwarm, ready};
pub use wait::{DEADLINE, eventually, eventually_async, eventually_within};
pub use web::{Fetched, fetch, fetch_with, http_address};

use swarm_protocol::block::BlockRange;

/// The prompt whose text everybody knows.
pub const PROMPT: &str = "Once upon a time, there was a brave fox named Luna.";

/// `start..end`.
pub fn range(start: u32, end: u32) -> BlockRange {
    BlockRange::new(start, end).expect("a range of blocks")
}
