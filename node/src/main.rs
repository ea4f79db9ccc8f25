//! `swarm-node`: serve blocks of a model to a swarm, and use models that a swarm serves.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
