//! Models by name from the Hugging Face hub: of a repository's weights only the bytes that are needed, verified and kept in
//! the cache that other tools share.
//!
//! [`open`] opens whatever a [`ModelSpec`] names. Reading and loading then fetch what is not here; all of this blocks, as
//! reading a checkpoint from disk does. See `docs/architecture.md`, "Models from the hub".
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod answer;
mod cached;
mod config;
mod connection;
mod disk;
mod error;
mod explain;
mod fetch;
mod files;
mod http;
mod journal;
mod layout;
mod lock;
mod partial;
mod pull;
mod ranges;
mod remove;
mod repository;
mod retry;
mod transfer;
mod verify;

use std::sync::Arc;

use swarm_model::{Checkpoint, ModelError, ModelSpec};

pub use cached::{CachedModel, CachedParts, list};
pub use config::{HubConfig, Retries, Token};
pub use disk::free_bytes;
pub use error::HubError;
pub use pull::{Pulled, pull};
pub use remove::remove;

use crate::files::HubFiles;
use crate::repository::Repository;

/// Opens the model that `spec` names, wherever it lies. Of a model on the hub configuration and headers are fetched; blocks
/// and edges when they are loaded.
///
/// # Errors
/// [`ModelError`]; [`ModelError::Source`] holds a [`HubError`].
pub fn open(spec: &ModelSpec, config: &HubConfig) -> Result<Checkpoint, ModelError> {
    match spec {
        ModelSpec::Hub { repository, revision, file } => {
            let repository = Repository::open(config, repository, revision.as_deref())?;
            checkpoint(spec.to_string(), &Arc::new(HubFiles::new(repository)), file.as_deref())
        }
        _ => Checkpoint::open(spec),
    }
}

/// The model in `files`: that of the GGUF file `file`, if one is named.
fn checkpoint(name: String, files: &Arc<HubFiles>, file: Option<&str>) -> Result<Checkpoint, ModelError> {
    match file {
        Some(file) => Checkpoint::open_gguf_files(name, files.clone(), file),
        None => Checkpoint::open_files(name, files.clone()),
    }
}
