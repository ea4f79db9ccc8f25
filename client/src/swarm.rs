//! Membership in a swarm.

use std::collections::BTreeMap;

use swarm_model::{Checkpoint, ComputePool, ModelError, ModelSpec};
use swarm_protocol::PeerId;
use swarm_protocol::announcement::DirectoryEntry;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{ModelId, WeightFormat};
use swarm_protocol::p2p::{BootstrapPeer, JoinError, Network, NetworkConfig, NetworkError};
use swarm_protocol::swarm_view::SwarmView;
use thiserror::Error;

use crate::config::ClientConfig;
use crate::edges::EdgesWorker;
use crate::finder::{self, Finder};
use crate::model::{Model, ModelParts};

/// Threads for embedding and head: most of a step's work is the servers'.
const EDGE_THREADS: usize = 1;

/// Why a client cannot begin.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The network did not start.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// No bootstrap peer let it in.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// Nowhere to join.
    #[error("no way into a swarm was given: pass --bootstrap MULTIADDR/p2p/PEERID, or --mdns on a local network")]
    NoEntryPoint,
    /// The model cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A thread could not be started.
    #[error("a thread could not be started: {0}")]
    Thread(#[from] std::io::Error),
}

/// A member of a swarm that uses what others serve.
#[derive(Debug, Clone)]
pub struct Swarm {
    network: Network,
    config: ClientConfig,
}

impl Swarm {
    /// Joins the swarm that `network` describes.
    ///
    /// # Errors
    /// [`ClientError`] within seconds, with the cause and what to do, if nobody there lets this client in.
    pub async fn join(network: NetworkConfig, config: ClientConfig) -> Result<Self, ClientError> {
        if network.bootstrap.is_empty() && !network.mdns {
            return Err(ClientError::NoEntryPoint);
        }
        let entry_points: Vec<BootstrapPeer> = network.bootstrap.clone();
        let (network, _) = Network::start(network).await?;
        network.join(&entry_points).await?;
        Ok(Self { network, config })
    }

    /// This client's id.
    pub fn peer_id(&self) -> PeerId {
        self.network.peer_id()
    }

    /// The network it is part of.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The models that live in the swarm.
    pub async fn models(&self) -> BTreeMap<ModelId, DirectoryEntry> {
        finder::models(&self.network).await
    }

    /// What the DHT says of a model's servers, without asking them.
    pub async fn look_up(&self, model: ModelId, blocks: BlockRange) -> SwarmView {
        finder::look_up(&self.network, model, blocks).await
    }

    /// Loads the client's part of a model, in the checkpoint's own format or in `format`. No server is asked yet.
    ///
    /// # Errors
    /// [`ClientError::Model`] if the model cannot be read.
    pub async fn open_model(&self, spec: &ModelSpec, format: Option<WeightFormat>) -> Result<Model, ClientError> {
        let spec = spec.clone();
        let loaded = tokio::task::spawn_blocking(move || load(&spec, format)).await;
        let loaded = loaded.map_err(std::io::Error::other)??;
        let pool = ComputePool::new(EDGE_THREADS)?.into();
        let blocks = loaded.checkpoint.config().all_blocks()?;
        let id = loaded.checkpoint.id(loaded.format);
        let (edges, parts) = loaded.into_parts();
        let edges = EdgesWorker::start(edges, pool)?;
        let finder = Finder::start(self.network.clone(), id, blocks, self.config.clone());
        Ok(Model::new(self.network.clone(), self.config.clone(), finder, edges, parts, id))
    }

    /// Leaves the swarm.
    pub async fn leave(&self) {
        self.network.shut_down().await;
    }
}

/// What is read of a checkpoint.
struct Loaded {
    checkpoint: Checkpoint,
    format: WeightFormat,
    edges: swarm_model::Edges,
    tokenizer: swarm_model::TextTokenizer,
    template: Option<swarm_model::ChatTemplate>,
    defaults: swarm_model::GenerationDefaults,
}

impl Loaded {
    fn into_parts(self) -> (swarm_model::Edges, ModelParts) {
        let parts = ModelParts {
            name: self.checkpoint.name().to_string(),
            config: self.checkpoint.config().clone(),
            format: self.format,
            tokenizer: self.tokenizer,
            template: self.template,
            defaults: self.defaults,
        };
        (self.edges, parts)
    }
}

fn load(spec: &ModelSpec, format: Option<WeightFormat>) -> Result<Loaded, ModelError> {
    let checkpoint = Checkpoint::open(spec)?;
    let format = format.unwrap_or_else(|| checkpoint.native_format());
    Ok(Loaded {
        edges: checkpoint.load_edges(format)?,
        tokenizer: checkpoint.tokenizer()?,
        template: checkpoint.chat_template()?,
        defaults: checkpoint.generation_defaults()?,
        checkpoint,
        format,
    })
}
