//! One block out of a checkpoint: which tensors it has, and reading them.

use blake3::Hasher;
use candle_core::Tensor;
use swarm_protocol::block::BlockIndex;
use swarm_protocol::model_id::{BlockDigest, WeightFormat};

use crate::block::Block;
use crate::config::ModelConfig;
use crate::error::ModelError;
use crate::linear::Linear;
use crate::tensors::Tensors;

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

/// Reads one block's tensors in a fixed order, which its digest follows.
pub(crate) struct BlockLoader<'a> {
    config: &'a ModelConfig,
    tensors: &'a Tensors,
    names: BlockNames,
    format: WeightFormat,
    digest: Hasher,
    /// Told the stored bytes of each tensor that is done.
    progress: &'a mut dyn FnMut(u64),
}

impl<'a> BlockLoader<'a> {
    pub(crate) fn new(
        config: &'a ModelConfig,
        tensors: &'a Tensors,
        block: BlockIndex,
        format: WeightFormat,
        progress: &'a mut dyn FnMut(u64),
    ) -> Self {
        Self { config, tensors, names: BlockNames::new(block), format, digest: Hasher::new(), progress }
    }

    pub(crate) fn load(mut self) -> Result<(Block, BlockDigest), ModelError> {
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
        self.vector(&self.names.matrix(part), self.config.hidden)
    }

    fn linear(&mut self, projection: usize, out: usize, inner: usize) -> Result<Linear, ModelError> {
        let (part, attention) = PROJECTIONS[projection];
        let name = self.names.matrix(part);
        let weight = self.tensors.matrix(&name, (out, inner), self.format, &mut self.digest)?;
        (self.progress)(self.tensors.stored_bytes(&name));
        let bias = match has_bias(self.config, attention) {
            true => Some(self.vector(&self.names.bias(part), out)?),
            false => None,
        };
        Ok(Linear { weight, bias })
    }

    fn vector(&mut self, name: &str, width: usize) -> Result<Tensor, ModelError> {
        let vector = self.tensors.vector(name, width, &mut self.digest)?;
        (self.progress)(self.tensors.stored_bytes(name));
        Ok(vector)
    }
}
