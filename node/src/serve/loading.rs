//! The model that is served, and its blocks from the checkpoint to the self-check.

use std::sync::Arc;

use swarm_model::{Blocks, Checkpoint, ComputeDevice, ComputePool, KvFormat};
use swarm_protocol::announcement::Rates;
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{ModelId, WeightFormat};
use tracing::info;

use super::config::{ServeConfig, Wanted};
use super::error::ServeError;
use super::event::{Report, ServeEvent};
use super::memory::{available, blocks_that_fit, edges_bytes};
use super::self_check::self_check;

/// What is certain before the network is touched.
pub(super) struct Served {
    pub(super) checkpoint: Arc<Checkpoint>,
    pub(super) format: WeightFormat,
    pub(super) kv_format: KvFormat,
    pub(super) model: ModelId,
    pub(super) model_blocks: BlockRange,
    /// Which blocks, or how many.
    pub(super) wanted: Result<BlockRange, u32>,
    pub(super) device: ComputeDevice,
    pub(super) threads: usize,
}

impl Served {
    /// Opens the model, and works out what of it is to be served.
    pub(super) async fn open(config: &ServeConfig) -> Result<Self, ServeError> {
        let (spec, hub, choice) = (config.model.clone(), config.hub.clone(), config.device);
        let opened = blocking(move || Ok::<_, ServeError>((swarm_hub::open(&spec, &hub)?, choice.open()?)));
        let (checkpoint, device) = opened.await??;
        let format = config.format.unwrap_or(checkpoint.native_format());
        let about = checkpoint.config();
        let model_blocks = about.all_blocks()?;
        let wanted = match config.wanted {
            Wanted::Pinned(range) if model_blocks.covers(range) => Ok(range),
            Wanted::Pinned(range) => {
                return Err(swarm_model::ModelError::RangePastModel { range, blocks: about.blocks }.into());
            }
            Wanted::Count(count) => Err(count),
            Wanted::Fitting => {
                let memory = device.free_memory().or_else(available).ok_or(ServeError::UnknownMemory)?;
                let left = memory.saturating_sub(if config.edges { edges_bytes(about, format) } else { 0 });
                Err(blocks_that_fit(about, format, config.kv_format, config.cache_tokens, left)?)
            }
        };
        let model = checkpoint.id(format);
        let threads = config.threads.unwrap_or_else(default_threads);
        let (checkpoint, kv_format) = (Arc::new(checkpoint), config.kv_format);
        Ok(Self { checkpoint, format, kv_format, model, model_blocks, wanted, device, threads })
    }
}

/// The threads that a server computes on if nothing is said: one core is left to the network and the system where there is more than one.
pub fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    cores.saturating_sub(1).max(1)
}

/// Blocks that have passed the self-check.
pub(super) struct Loaded {
    pub(super) blocks: Blocks,
    pub(super) pool: ComputePool,
    pub(super) rates: Rates,
}

/// Loads the blocks and runs the self-check, on a thread where it may take its time.
pub(super) async fn load(plan: &Served, blocks: BlockRange, report: Report) -> Result<Loaded, ServeError> {
    let (checkpoint, device) = (plan.checkpoint.clone(), plan.device.clone());
    let (format, kv_format, threads) = (plan.format, plan.kv_format, plan.threads);
    blocking(move || {
        let pool = ComputePool::new(threads)?;
        let (blocks, rates) = pool.run(|| -> Result<_, ServeError> {
            let mut progress = |progress| report(ServeEvent::Loading(progress));
            let blocks = checkpoint.load_blocks_on(&device, blocks, format, &mut progress)?;
            let blocks = blocks.with_kv_format(kv_format)?;
            let rates = self_check(&blocks)?;
            Ok((blocks, rates))
        })?;
        info!(blocks = %blocks.range(), %device, ?rates, "the self-check passed");
        Ok(Loaded { blocks, pool, rates })
    })
    .await?
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, ServeError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| ServeError::SelfCheck(error.to_string()))
}
