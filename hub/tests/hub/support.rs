//! A small model on a hub, an empty cache, and what is made of both.

use std::path::Path;
use std::time::Duration;

use swarm_hub::{HubConfig, Retries};
use swarm_model::synthetic::SyntheticSpec;
use swarm_model::{Checkpoint, FileRange, ModelError, ModelSpec};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::BlockDigest;
use tempfile::TempDir;

use crate::hub_server::HubServer;

/// The repository's name.
pub(crate) const NAME: &str = "org/model";

/// A hub with one model, and a cache.
pub(crate) struct Bed {
    pub(crate) hub: HubServer,
    pub(crate) directory: TempDir,
    pub(crate) cache: TempDir,
}

/// A model whose blocks are large beside its header: 12 blocks of 1 MiB.
pub(crate) fn model() -> SyntheticSpec {
    SyntheticSpec {
        hidden: 256,
        intermediate: 512,
        blocks: 12,
        heads: 4,
        kv_heads: 2,
        head_dim: 64,
        ..Default::default()
    }
}

impl Bed {
    pub(crate) fn new(spec: &SyntheticSpec) -> Self {
        let (directory, cache) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        spec.write(directory.path()).unwrap();
        let hub = HubServer::start();
        hub.add(NAME, directory.path());
        Self { hub, directory, cache }
    }

    pub(crate) fn config(&self) -> HubConfig {
        let endpoint = self.hub.endpoint();
        let cache = self.cache.path().to_str().unwrap().to_string();
        let of = move |name: &str| match name {
            "HF_ENDPOINT" => Some(endpoint.clone()),
            "HF_HUB_CACHE" => Some(cache.clone()),
            _ => None,
        };
        let retries = Retries { first_pause: Duration::ZERO, ..Retries::default() };
        HubConfig { retries, ..HubConfig::new(Path::new("/nowhere"), &of) }
    }

    pub(crate) fn offline(&self) -> HubConfig {
        HubConfig { offline: true, ..self.config() }
    }

    pub(crate) fn open(&self) -> Result<Checkpoint, ModelError> {
        swarm_hub::open(&spec(), &self.config())
    }

    /// The same files without any hub.
    pub(crate) fn local(&self) -> Checkpoint {
        Checkpoint::open(&ModelSpec::Directory(self.directory.path().into())).unwrap()
    }
}

pub(crate) fn spec() -> ModelSpec {
    NAME.parse().unwrap()
}

pub(crate) fn range(start: u32, end: u32) -> BlockRange {
    BlockRange::new(start, end).unwrap()
}

/// The digests of blocks, as a server computes them.
pub(crate) fn digests(checkpoint: &Checkpoint, range: BlockRange) -> Result<Vec<BlockDigest>, ModelError> {
    let blocks = checkpoint.load_blocks(range, checkpoint.native_format(), &mut |_| ())?;
    Ok(blocks.digests().to_vec())
}

pub(crate) fn bytes(ranges: &[FileRange]) -> u64 {
    ranges.iter().map(|range| range.bytes.end - range.bytes.start).sum()
}
