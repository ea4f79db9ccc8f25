//! `swarm-node`: serve blocks of a model to a swarm, and use models that a swarm serves.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
