//! Why a server does not start, or stops.

use swarm_model::ModelError;
use swarm_protocol::PeerId;
use swarm_protocol::p2p::{JoinError, NetworkError};
use thiserror::Error;

/// Why a server does not start, or stops.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The model cannot be read or held.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The network does not start.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The swarm does not let it in.
    #[error(transparent)]
    Join(Box<JoinError>),
    /// Not even one block fits.
    #[error(
        "one block with its KV cache needs {needed_mib} MiB, but only {available_mib} MiB of memory may be used; \
         lower --cache-tokens, or pass --blocks 1 to try anyway"
    )]
    TooLittleMemory {
        /// For one block, in MiB.
        needed_mib: u64,
        /// Usable, in MiB.
        available_mib: u64,
    },
    /// The system does not say how much memory is free.
    #[error("this system does not say how much memory is free; pass --blocks N or --block-range A..B")]
    UnknownMemory,
    /// Most of the model's servers that were asked hold other weights.
    #[error(
        "your weights differ from those of peer {peer} in block{blocks}; one of you has a damaged or different \
         checkpoint: compare the files, or use another --swarm"
    )]
    WeightsDiffer {
        /// The other server.
        peer: PeerId,
        /// Which blocks, for people.
        blocks: String,
    },
    /// The blocks do not compute.
    #[error("the self-check failed: {0}; the checkpoint may be damaged")]
    SelfCheck(String),
    /// Another process runs with the same identity.
    #[error(
        "another live server uses this identity ({0}); stop it, or start this one with an --identity FILE of its own"
    )]
    Twin(PeerId),
    /// The compute thread is gone.
    #[error("the compute thread ended unexpectedly; the cause is in the log above")]
    ComputeEnded,
    /// The system gives no thread.
    #[error("the compute thread could not be started: {0}")]
    Thread(std::io::Error),
    /// The network driver is gone.
    #[error("the network driver ended unexpectedly")]
    NetworkEnded,
}

impl ServeError {
    /// Whether it lies in certain blocks, or in the moment: other blocks, or the same later, may be loaded.
    pub(super) fn concerns_blocks(&self) -> bool {
        matches!(self, Self::Model(_) | Self::SelfCheck(_) | Self::WeightsDiffer { .. } | Self::Thread(_))
    }
}

impl From<JoinError> for ServeError {
    fn from(error: JoinError) -> Self {
        Self::Join(Box::new(error))
    }
}
