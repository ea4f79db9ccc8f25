//! Fetching a model, or a part of it, before anybody needs it.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_model::{Checkpoint, CheckpointFiles, FileRange, ModelError, ModelPart, ModelSpec, gguf_parts};

use crate::checkpoint;
use crate::config::HubConfig;
use crate::error::HubError;
use crate::files::HubFiles;
use crate::repository::Repository;

/// Files beside the weights that a client, or another tool, may ask for.
const BESIDE: [&str; 8] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "added_tokens.json",
    "model.safetensors.index.json",
];

/// What was pulled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The commit.
    pub commit: String,
    /// Bytes of weights that were not cached before.
    pub fetched: u64,
    /// Bytes of weights that were asked for.
    pub wanted: u64,
}

/// Fetches what of a model is not cached: all of it, or `part`, and the small files. `progress` is told how many bytes of
/// weights have come, and how many were missing.
///
/// # Errors
/// [`ModelError`]; [`ModelError::Source`] holds a [`HubError`].
pub fn pull(
    spec: &ModelSpec,
    config: &HubConfig,
    part: Option<ModelPart>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Pulled, ModelError> {
    let ModelSpec::Hub { repository, revision, file } = spec else {
        return Err(HubError::NotOfHub { what: spec.to_string() }.into());
    };
    let repository = Repository::open(config, repository, revision.as_deref())?;
    let commit = repository.commit.clone();
    let files = Arc::new(HubFiles::new(repository));
    let checkpoint = checkpoint(spec.to_string(), &files, file.as_deref())?;
    let ranges = match part {
        Some(ModelPart::Blocks(range)) if range.end() > checkpoint.config().blocks => {
            return Err(ModelError::RangePastModel { range, blocks: checkpoint.config().blocks });
        }
        Some(part) => checkpoint.byte_ranges(part),
        None => match file {
            Some(file) => whole(&files, gguf_parts(file).into_iter().collect())?,
            None => whole(&files, weights(&checkpoint)?)?,
        },
    };
    let mut fetched = 0;
    files.fetch(&ranges, &mut |done, missing| {
        fetched = missing;
        progress(done, missing);
    })?;
    // GGUF files carry all of that themselves.
    for name in BESIDE.iter().filter(|_| file.is_none()) {
        match files.open(name) {
            Err(ModelError::MissingFile { .. }) | Ok(_) => {}
            Err(error) => return Err(error),
        }
    }
    let wanted = ranges.iter().map(|range| range.bytes.end - range.bytes.start).sum();
    Ok(Pulled { commit, fetched, wanted })
}

/// The files that hold a model's tensors.
fn weights(checkpoint: &Checkpoint) -> Result<BTreeSet<String>, ModelError> {
    let blocks = ModelPart::Blocks(checkpoint.config().all_blocks()?);
    let ranges = [blocks, ModelPart::Edges].into_iter().flat_map(|part| checkpoint.byte_ranges(part));
    Ok(ranges.map(|range| range.file).collect())
}

/// All bytes of `names`.
fn whole(files: &HubFiles, names: BTreeSet<String>) -> Result<Vec<FileRange>, ModelError> {
    let all = |file: String| Ok(FileRange { bytes: 0..files.open(&file)?.len(), file });
    names.into_iter().map(all).collect()
}
