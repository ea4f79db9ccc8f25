//! A wide-area network on one machine: hosts are network namespaces, and one process, the hub, carries the packets between
//! them as late, as slow and as unreliably as it is told, also while it runs.
//!
//! Each namespace has a TUN device; what is sent there comes out at the hub (`swarm-wan`), which holds it for as long as the
//! link says and puts it into the receiver's device. No traffic leaves these namespaces. It takes root.

mod bed;
mod hub;
mod link;
mod namespace;
mod network;
mod order;
mod place;

use std::io;

pub use bed::Wan;
pub use hub::{HubConfig, run};
pub use link::{BadLink, Link, Wire};
pub use network::{Arrived, Host, Network};
pub use order::{BadOrder, Order};
pub use place::Place;

/// Why there is no network, or an order was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum WanError {
    /// The system said no.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// A command failed.
    #[error("`{command}` failed: {said}")]
    Command {
        /// The command.
        command: String,
        /// What it said.
        said: String,
    },
    /// The hub has ended, or does not know what it was asked for.
    #[error("the hub: {0}")]
    Hub(String),
}
