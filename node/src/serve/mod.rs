//! Serving blocks of a model: from the checkpoint to the last session.

mod about;
mod announcer;
mod choice;
mod compute;
mod config;
mod digests;
mod door;
mod edges;
mod error;
mod event;
mod host;
mod loading;
mod memory;
mod metrics;
mod moving;
mod neighbours;
mod occupancy;
mod opening;
mod part_budget;
mod parts;
mod phase;
mod prefixes;
mod registry;
mod run;
mod running;
mod self_check;
mod server;
mod session;
mod setbacks;
mod smoothed;
mod steps;
mod turns;
mod twins;
mod view;

pub use config::{
    DEFAULT_ANNOUNCE_INTERVAL, DEFAULT_CACHE_TOKENS, DEFAULT_DRAIN_TIMEOUT, DEFAULT_IDLE_TIMEOUT, ServeConfig, Wanted,
};
pub use error::ServeError;
pub use event::{Report, ServeEvent};
pub use host::OwnWord;
pub use loading::default_threads;
pub use memory::{available as available_memory, blocks_that_fit};
pub use metrics::ServerMetrics;
pub use run::serve;
pub use self_check::self_check as measure;
pub use swarm_model::{LoadProgress, LoadStage};
