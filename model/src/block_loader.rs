//! One block out of a checkpoint: which tensors it has, and reading them.

use std::collections::HashSet;

use blake3::Hasher;
use candle_core::Tensor;
use swarm_protocol::block::BlockIndex;
use swarm_protocol::model_id::{BlockDigest, WeightFormat};

use crate::block::Block;
use crate::block_tensors::{BlockTensors, TensorShape};
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::feed_forward::{FeedForward, Gated, Mixture};
use crate::tensor_views::ROTARY_TABLE;
use crate::tensors::{StoredMatrix, Tensors};

/// A linear layer in the form that one kind of processor computes with.
pub(crate) trait Layer: Sized {
    /// Where such layers lie.
    type Place;

    /// Brings the weights from the checkpoint to where they are used; the digest depends on format and weights alone.
    fn load(place: &Self::Place, stored: &StoredMatrix<'_>, digest: &mut Hasher) -> Result<Self, ModelError>;

    /// The layer with a bias `(out)` in f32.
    fn with_bias(self, place: &Self::Place, bias: Tensor) -> Result<Self, ModelError>;

    /// Brings a norm to where it is used.
    fn vector(place: &Self::Place, vector: Tensor) -> Result<Tensor, ModelError>;
}

/// Reads one block's tensors in a fixed order, which its digest follows.
pub(crate) struct BlockLoader<'a, L: Layer> {
    place: &'a L::Place,
    config: &'a ModelConfig,
    tensors: &'a Tensors,
    names: BlockTensors<'a>,
    format: WeightFormat,
    digest: Hasher,
    /// Told the stored bytes of each tensor that is done.
    progress: &'a mut dyn FnMut(u64),
}

impl<'a, L: Layer> BlockLoader<'a, L> {
    pub(crate) fn new(
        place: &'a L::Place,
        config: &'a ModelConfig,
        tensors: &'a Tensors,
        block: BlockIndex,
        format: WeightFormat,
        progress: &'a mut dyn FnMut(u64),
    ) -> Self {
        let names = BlockTensors::new(config, block);
        Self { place, config, tensors, names, format, digest: Hasher::new(), progress }
    }

    pub(crate) fn load(mut self) -> Result<(Block<L>, BlockDigest), ModelError> {
        self.check_names()?;
        let (config, names) = (self.config, self.config.family.names());
        let kind = self.names.kind();
        let block = Block {
            kind,
            attention_norm: self.norm(names.attention_norm)?,
            query: self.linear(&self.names.query())?,
            key: self.linear(&self.names.key())?,
            value: self.linear(&self.names.value())?,
            query_key_norms: match config.query_key_norms {
                true => Some((self.norm(names.query_norm)?, self.norm(names.key_norm)?)),
                false => None,
            },
            sinks: match config.sinks {
                true => Some(self.vector(&self.names.sinks())?),
                false => None,
            },
            output: self.linear(&self.names.output())?,
            after_attention_norm: self.after_norm(names.after_attention_norm)?,
            feed_forward_norm: self.norm(names.feed_forward_norm)?,
            feed_forward: match kind.experts {
                true => FeedForward::Experts(self.mixture()?),
                false => FeedForward::Dense(self.gated(&self.names.dense())?),
            },
            after_feed_forward_norm: self.after_norm(names.after_feed_forward_norm)?,
        };
        Ok((block, BlockDigest(*self.digest.finalize().as_bytes())))
    }

    /// Finds what is missing before anything is read, and what nobody asked for: it would have changed what the block computes.
    fn check_names(&self) -> Result<(), ModelError> {
        let known: HashSet<String> = self.names.all().into_iter().map(|tensor| tensor.name).collect();
        if let Some(missing) = known.iter().filter(|name| !self.tensors.has(name)).min() {
            return Err(ModelError::MissingTensor { tensor: missing.clone() });
        }
        let stored = self.tensors.names_under(self.names.prefix());
        let unknown = stored.filter(|name| !known.contains(*name) && !name.ends_with(ROTARY_TABLE)).min();
        match unknown {
            Some(name) => Err(ModelError::UnknownTensor {
                tensor: name.to_string(),
                architecture: self.config.family.architecture().to_string(),
            }),
            None => Ok(()),
        }
    }

    fn mixture(&mut self) -> Result<Mixture<L>, ModelError> {
        let count = self.config.experts.map_or(0, |experts| experts.count);
        let router = self.linear_in(&self.names.router(), WeightFormat::F32)?;
        let experts = (0..count).map(|expert| self.gated(&self.names.expert(expert)));
        Ok(Mixture { router, experts: experts.collect::<Result<_, _>>()? })
    }

    fn gated(&mut self, [gate, up, down]: &[TensorShape; 3]) -> Result<Gated<L>, ModelError> {
        Ok(Gated { gate: self.linear(gate)?, up: self.linear(up)?, down: self.linear(down)? })
    }

    fn linear(&mut self, matrix: &TensorShape) -> Result<L, ModelError> {
        self.linear_in(matrix, self.format)
    }

    fn linear_in(&mut self, matrix: &TensorShape, format: WeightFormat) -> Result<L, ModelError> {
        let (name, (outputs, inner)) = (&matrix.name, matrix.matrix());
        let stored = StoredMatrix { tensors: self.tensors, name, outputs, inner, format };
        let layer = L::load(self.place, &stored, &mut self.digest)?;
        (self.progress)(self.tensors.stored_bytes(name));
        match &matrix.bias {
            Some(bias) => {
                let bias = self.tensor(bias, outputs)?;
                layer.with_bias(self.place, bias)
            }
            None => Ok(layer),
        }
    }

    fn after_norm(&mut self, part: &str) -> Result<Option<Tensor>, ModelError> {
        self.config.after_norms.then(|| self.norm(part)).transpose()
    }

    /// Norms and biases are f32 in every format: they are few, and rounding them would gain nothing.
    fn norm(&mut self, part: &str) -> Result<Tensor, ModelError> {
        let norm = self.names.norm(part);
        let stored = self.tensor(&norm.name, norm.width())?;
        L::vector(self.place, with_offset(stored, self.config.norm_offset)?)
    }

    fn vector(&mut self, vector: &TensorShape) -> Result<Tensor, ModelError> {
        let stored = self.tensor(&vector.name, vector.width())?;
        L::vector(self.place, stored)
    }

    fn tensor(&mut self, name: &str, width: usize) -> Result<Tensor, ModelError> {
        let vector = self.tensors.vector(name, width, &mut self.digest)?;
        (self.progress)(self.tensors.stored_bytes(name));
        Ok(vector)
    }
}

/// The weights of a norm from what is stored.
pub(crate) fn with_offset(norm: Tensor, offset: f32) -> Result<Tensor, ModelError> {
    if offset == 0.0 {
        return Ok(norm);
    }
    let weights: Vec<f32> = norm.to_vec1::<f32>()?.iter().map(|weight| weight + offset).collect();
    Ok(Tensor::from_vec(weights, norm.dims1()?, norm.device())?)
}
