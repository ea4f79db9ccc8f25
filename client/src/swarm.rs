//! Membership in a swarm.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_edges::EdgesWorker;
use swarm_hub::HubConfig;
use swarm_model::{Checkpoint, ComputePool, ModelError, ModelPart, ModelSpec};
use swarm_protocol::PeerId;
use swarm_protocol::announcement::DirectoryEntry;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{ModelId, WeightFormat};
use swarm_protocol::p2p::{BootstrapPeer, JoinError, Network, NetworkConfig, NetworkError};
use swarm_protocol::swarm_view::SwarmView;
use thiserror::Error;

use crate::config::{ClientConfig, EdgesPlace};
use crate::edges::{EdgesSource, ServedParts};
use crate::finder::{self, Finder};
use crate::here::BlocksHere;
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
        self.open_model_watched(spec, format, |_, _| ()).await
    }

    /// Like [`Swarm::open_model`]; of a model on the hub, `fetched` is told how many bytes of embedding, norm and head have
    /// come, and how many were not on this machine.
    ///
    /// # Errors
    /// Those of [`Swarm::open_model`].
    pub async fn open_model_watched(
        &self,
        spec: &ModelSpec,
        format: Option<WeightFormat>,
        fetched: impl FnMut(u64, u64) + Send + 'static,
    ) -> Result<Model, ClientError> {
        let (spec, hub) = (spec.clone(), self.config.hub.clone());
        // Who says nothing of a format means the checkpoint's own, which is another model.
        let name: Arc<str> =
            format.map_or_else(|| spec.to_string(), |format| format!("{spec} --format {format}")).into();
        let place = self.config.edges;
        let loaded = tokio::task::spawn_blocking(move || load(&spec, &hub, format, place, fetched)).await;
        let loaded = loaded.map_err(std::io::Error::other)??;
        let blocks = loaded.checkpoint.config().all_blocks()?;
        let id = loaded.checkpoint.id(loaded.format);
        let (edges, parts) = loaded.into_parts();
        let (network, config) = (self.network.clone(), self.config.clone());
        let finder = Finder::start(network.clone(), id, name.clone(), blocks, config.clone());
        let edges = match edges {
            Some(edges) => EdgesSource::Own(EdgesWorker::start(edges, ComputePool::new(EDGE_THREADS)?)?),
            None => {
                let parts = ServedParts::new(network, finder.clone(), config, (id, name), &parts.config, parts.format);
                EdgesSource::Served(Box::new(parts))
            }
        };
        Ok(Model::new(self.network.clone(), self.config.clone(), finder, edges, parts, id))
    }

    /// Opens a model whose texts this process computes itself, on `threads` threads: its blocks are loaded too. No server is asked.
    ///
    /// # Errors
    /// Those of [`Swarm::open_model`].
    pub async fn open_model_here(
        &self,
        spec: &ModelSpec,
        format: Option<WeightFormat>,
        threads: usize,
    ) -> Result<Model, ClientError> {
        // Whoever computes blocks holds the edges as well.
        let own = Self { config: ClientConfig { edges: EdgesPlace::Own, ..self.config.clone() }, ..self.clone() };
        let model = own.open_model(spec, format).await?;
        let (spec, hub, format) = (spec.clone(), self.config.hub.clone(), model.format());
        let loaded = tokio::task::spawn_blocking(move || {
            let checkpoint = swarm_hub::open(&spec, &hub)?;
            let all = checkpoint.config().all_blocks()?;
            checkpoint.fetch(ModelPart::Blocks(all), &mut |_, _| ())?;
            checkpoint.load_blocks(all, format, &mut |_| ())
        });
        let blocks = loaded.await.map_err(std::io::Error::other)??;
        Ok(model.with_blocks(BlocksHere::start(blocks, ComputePool::new(threads.max(1))?)?))
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
    /// None if they are left to servers.
    edges: Option<swarm_model::Edges>,
    tokenizer: swarm_model::TextTokenizer,
    template: Option<swarm_model::ChatTemplate>,
    defaults: swarm_model::GenerationDefaults,
}

impl Loaded {
    fn into_parts(self) -> (Option<swarm_model::Edges>, ModelParts) {
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

fn load(
    spec: &ModelSpec,
    hub: &HubConfig,
    format: Option<WeightFormat>,
    place: EdgesPlace,
    mut fetched: impl FnMut(u64, u64),
) -> Result<Loaded, ModelError> {
    let checkpoint = swarm_hub::open(spec, hub)?;
    let format = format.unwrap_or_else(|| checkpoint.native_format());
    let edges = match place {
        EdgesPlace::Own => {
            checkpoint.fetch(ModelPart::Edges, &mut fetched)?;
            Some(checkpoint.load_edges(format)?)
        }
        EdgesPlace::Served => None,
    };
    Ok(Loaded {
        edges,
        tokenizer: checkpoint.tokenizer()?,
        template: checkpoint.chat_template()?,
        defaults: checkpoint.generation_defaults()?,
        checkpoint,
        format,
    })
}
