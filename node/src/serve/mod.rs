//! Serving blocks of a model: from the checkpoint to the last session.

mod about;
mod announcer;
mod choice;
mod compute;
mod config;
mod digests;
mod error;
mod host;
mod memory;
mod neighbours;
mod occupancy;
mod opening;
mod phase;
mod registry;
mod run;
mod self_check;
mod session;
mod smoothed;
mod steps;
mod twins;
mod view;

pub use config::{
    DEFAULT_ANNOUNCE_INTERVAL, DEFAULT_CACHE_TOKENS, DEFAULT_DRAIN_TIMEOUT, DEFAULT_IDLE_TIMEOUT, ServeConfig, Wanted,
};
pub use error::ServeError;
pub use run::{Report, ServeEvent, serve};
pub use swarm_model::LoadProgress;
