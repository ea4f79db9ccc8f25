//! One block out of a checkpoint: which tensors it has, and reading them.

use blake3::Hasher;
use candle_core::Tensor;
use swarm_protocol::block::BlockIndex;
use swarm_protocol::model_id::{BlockDigest, WeightFormat};

use crate::block::Block;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::tensors::{StoredMatrix, Tensors};

/// The projections of a block, and whether `attention_bias` or `mlp_bias` speaks of theirs.
const PROJECTIONS: [(&str, bool); 7] = [
    ("self_attn.q_proj", true),
    ("self_attn.k_proj", true),
    ("self_attn.v_proj", true),
    ("self_attn.o_proj", true),
    ("mlp.gate_proj", false),
    ("mlp.up_proj", false),
    ("mlp.down_proj", false),
];
const ATTENTION_NORM: &str = "input_layernorm";
const FEED_FORWARD_NORM: &str = "post_attention_layernorm";

/// The names of one block's tensors.
pub(crate) struct BlockNames {
    prefix: String,
}

impl BlockNames {
    pub(crate) fn new(block: BlockIndex) -> Self {
        let prefix = format!("model.layers.{block}.");
        Self { prefix }
    }

    /// The tensor whose type stands for the checkpoint's.
    pub(crate) fn query(&self) -> String {
        self.matrix(PROJECTIONS[0].0)
    }

    fn matrix(&self, part: &str) -> String {
        format!("{}{part}.weight", self.prefix)
    }

    fn bias(&self, part: &str) -> String {
        format!("{}{part}.bias", self.prefix)
    }

    /// All tensors that the block has under `config`.
    pub(crate) fn all(&self, config: &ModelConfig) -> Vec<String> {
        let norms = [ATTENTION_NORM, FEED_FORWARD_NORM].map(|part| self.matrix(part));
        let matrices = PROJECTIONS.iter().map(|(part, _)| self.matrix(part));
        let biased = PROJECTIONS.iter().filter(|(_, attention)| has_bias(config, *attention));
        let biases = biased.map(|(part, _)| self.bias(part));
        norms.into_iter().chain(matrices).chain(biases).collect()
    }
}

fn has_bias(config: &ModelConfig, attention: bool) -> bool {
    match attention {
        true => config.attention_bias,
        false => config.mlp_bias,
    }
}

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
    names: BlockNames,
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
        Self { place, config, tensors, names: BlockNames::new(block), format, digest: Hasher::new(), progress }
    }

    pub(crate) fn load(mut self) -> Result<(Block<L>, BlockDigest), ModelError> {
        let config = self.config;
        let (hidden, inter) = (config.hidden, config.intermediate);
        let (query, kv) = (config.query_width(), config.kv_width());
        let block = Block {
            attention_norm: self.norm(ATTENTION_NORM)?,
            query: self.linear(0, query, hidden)?,
            key: self.linear(1, kv, hidden)?,
            value: self.linear(2, kv, hidden)?,
            output: self.linear(3, hidden, query)?,
            feed_forward_norm: self.norm(FEED_FORWARD_NORM)?,
            gate: self.linear(4, inter, hidden)?,
            up: self.linear(5, inter, hidden)?,
            down: self.linear(6, hidden, inter)?,
        };
        Ok((block, BlockDigest(*self.digest.finalize().as_bytes())))
    }

    /// Norms and biases are f32 in every format: they are few, and rounding them would gain nothing.
    fn norm(&mut self, part: &str) -> Result<Tensor, ModelError> {
        let norm = self.vector(&self.names.matrix(part), self.config.hidden)?;
        L::vector(self.place, norm)
    }

    fn linear(&mut self, projection: usize, out: usize, inner: usize) -> Result<L, ModelError> {
        let (part, attention) = PROJECTIONS[projection];
        let name = self.names.matrix(part);
        let stored = StoredMatrix { tensors: self.tensors, name: &name, outputs: out, inner, format: self.format };
        let layer = L::load(self.place, &stored, &mut self.digest)?;
        (self.progress)(self.tensors.stored_bytes(&name));
        match has_bias(self.config, attention) {
            true => layer.with_bias(self.place, self.vector(&self.names.bias(part), out)?),
            false => Ok(layer),
        }
    }

    fn vector(&mut self, name: &str, width: usize) -> Result<Tensor, ModelError> {
        let vector = self.tensors.vector(name, width, &mut self.digest)?;
        (self.progress)(self.tensors.stored_bytes(name));
        Ok(vector)
    }
}
