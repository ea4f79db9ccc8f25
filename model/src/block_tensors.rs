//! Which tensors a block has, by name and shape: the one description that loading, fetching and random checkpoints share.

use swarm_protocol::block::BlockIndex;

use crate::config::{BlockKind, ModelConfig};
use crate::families::TensorNames;
use crate::tensors::Tensors;

/// A tensor of a block, and the vector that is added to a matrix's products.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorShape {
    pub(crate) name: String,
    /// `(outputs, inner)`, or the width of a vector.
    pub(crate) shape: Vec<usize>,
    /// The name of a matrix's bias `(outputs)`.
    pub(crate) bias: Option<String>,
}

impl TensorShape {
    pub(crate) fn matrix(&self) -> (usize, usize) {
        (self.width(), self.shape.get(1).copied().unwrap_or(1))
    }

    pub(crate) fn width(&self) -> usize {
        self.shape.first().copied().unwrap_or_default()
    }

    /// The bias as a tensor of its own.
    fn own_bias(&self) -> Option<Self> {
        Some(Self { name: self.bias.clone()?, shape: vec![self.width()], bias: None })
    }
}

/// The tensors of one block.
pub(crate) struct BlockTensors<'a> {
    config: &'a ModelConfig,
    names: &'static TensorNames,
    kind: BlockKind,
    prefix: String,
}

impl<'a> BlockTensors<'a> {
    pub(crate) fn new(config: &'a ModelConfig, block: BlockIndex) -> Self {
        let prefix = format!("model.layers.{block}.");
        Self { config, names: config.family.names(), kind: config.kind(block.0), prefix }
    }

    pub(crate) fn kind(&self) -> BlockKind {
        self.kind
    }

    /// What the names of all its tensors begin with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    fn named(&self, part: &str, outputs: usize, inner: usize, biased: bool) -> TensorShape {
        let name = |kind: &str| format!("{}{part}.{kind}", self.prefix);
        TensorShape { name: name("weight"), shape: vec![outputs, inner], bias: biased.then(|| name("bias")) }
    }

    /// The tensor whose type stands for the checkpoint's.
    pub(crate) fn query(&self) -> TensorShape {
        self.named(self.names.query, self.config.query_width(), self.config.hidden, self.config.qkv_bias)
    }

    pub(crate) fn key(&self) -> TensorShape {
        self.named(self.names.key, self.config.kv_width(), self.config.hidden, self.config.qkv_bias)
    }

    pub(crate) fn value(&self) -> TensorShape {
        self.named(self.names.value, self.config.kv_width(), self.config.hidden, self.config.qkv_bias)
    }

    pub(crate) fn output(&self) -> TensorShape {
        self.named(self.names.output, self.config.hidden, self.config.query_width(), self.config.output_bias)
    }

    /// Gate, up and down projection of a block without experts.
    pub(crate) fn dense(&self) -> [TensorShape; 3] {
        let (hidden, inter, biased) = (self.config.hidden, self.config.intermediate, self.config.mlp_bias);
        let into = |part| self.named(part, inter, hidden, biased);
        [into(self.names.gate), into(self.names.up), self.named(self.names.down, hidden, inter, biased)]
    }

    /// Gate, up and down projection of one expert.
    pub(crate) fn expert(&self, number: usize) -> [TensorShape; 3] {
        let (names, experts) = (&self.names.experts, self.config.experts);
        let (inter, biased) = experts.map_or((0, false), |experts| (experts.intermediate, experts.biases));
        let part = |part: &str, outputs, inner| {
            self.named(&format!("{}.{number}.{part}", names.prefix), outputs, inner, biased)
        };
        let hidden = self.config.hidden;
        [part(names.gate, inter, hidden), part(names.up, inter, hidden), part(names.down, hidden, inter)]
    }

    pub(crate) fn router(&self) -> TensorShape {
        let (count, biased) = self.config.experts.map_or((0, false), |experts| (experts.count, experts.biases));
        self.named(self.names.experts.router, count, self.config.hidden, biased)
    }

    pub(crate) fn sinks(&self) -> TensorShape {
        let name = format!("{}self_attn.sinks", self.prefix);
        TensorShape { name, shape: vec![self.config.heads], bias: None }
    }

    /// A norm by its part's name.
    pub(crate) fn norm(&self, part: &str) -> TensorShape {
        let of_head = part == self.names.query_norm || part == self.names.key_norm;
        let width = if of_head { self.config.head_dim } else { self.config.hidden };
        TensorShape { name: format!("{}{part}.weight", self.prefix), shape: vec![width], bias: None }
    }

    fn norms(&self) -> Vec<TensorShape> {
        let (names, config) = (self.names, self.config);
        let used = |used: bool, two: [&'static str; 2]| two.into_iter().filter(move |_| used);
        let parts = [names.attention_norm, names.feed_forward_norm].into_iter();
        let parts = parts.chain(used(config.after_norms, [names.after_attention_norm, names.after_feed_forward_norm]));
        let parts = parts.chain(used(config.query_key_norms, [names.query_norm, names.key_norm]));
        parts.map(|part| self.norm(part)).collect()
    }

    /// All tensors that the block has.
    pub(crate) fn all(&self) -> Vec<TensorShape> {
        let mut matrices = vec![self.query(), self.key(), self.value(), self.output()];
        match self.config.experts.filter(|_| self.kind.experts) {
            Some(experts) => {
                matrices.push(self.router());
                matrices.extend((0..experts.count).flat_map(|expert| self.expert(expert)));
            }
            None => matrices.extend(self.dense()),
        }
        let biases: Vec<TensorShape> = matrices.iter().filter_map(TensorShape::own_bias).collect();
        let sinks = self.config.sinks.then(|| self.sinks());
        matrices.into_iter().chain(biases).chain(self.norms()).chain(sinks).collect()
    }

    /// The matrices that hold the rows of several of [`BlockTensors::all`], in order.
    pub(crate) fn fused(&self) -> Vec<(String, Vec<TensorShape>)> {
        let name = |part: &str| format!("{}{part}.weight", self.prefix);
        let attention =
            self.names.query_key_value.map(|part| (name(part), vec![self.query(), self.key(), self.value()]));
        let dense = self.names.gate_up.filter(|_| !self.kind.experts).map(|part| {
            let [gate, up, _] = self.dense();
            (name(part), vec![gate, up])
        });
        attention.into_iter().chain(dense).collect()
    }
}

/// Gives the parts of matrices that hold several the names that blocks know them by.
pub(crate) fn split_fused(tensors: &mut Tensors, config: &ModelConfig) -> Result<(), crate::error::ModelError> {
    for block in 0..config.blocks {
        for (name, parts) in BlockTensors::new(config, BlockIndex(block)).fused() {
            tensors.split_rows(&name, &parts)?;
        }
    }
    Ok(())
}
