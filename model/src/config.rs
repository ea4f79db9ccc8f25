//! A model's configuration, checked: what a block, the embedding and the head compute, in terms that all families share.
//! [`crate::families`] fills it in.

use serde_json::{Map, Value};
use swarm_protocol::block::BlockRange;
use swarm_protocol::model_id::{ModelId, WeightFormat};

use crate::error::ModelError;
use crate::families::{self, Family};
use crate::kv::{KvFormat, KvShape};
use crate::manifest::model_id;
use crate::rope::Rope;

/// What `config.json` says, with every number in bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Which family of models it is: how its files are read, and what its tensors are called.
    pub family: Family,
    /// Width of the activations between blocks.
    pub hidden: usize,
    /// Width inside a feed-forward part without experts.
    pub intermediate: usize,
    /// Number of blocks.
    pub blocks: u32,
    /// What distinguishes the blocks, one entry for each.
    pub kinds: Vec<BlockKind>,
    /// Number of query heads.
    pub heads: usize,
    /// Number of key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of a head; even.
    pub head_dim: usize,
    /// Number of token ids.
    pub vocab: usize,
    /// The longest sequence the model was made for.
    pub max_positions: usize,
    /// Epsilon of the norms.
    pub rms_eps: f64,
    /// What is added to the stored weights of norms: 1 where files hold the difference from 1, else 0.
    pub norm_offset: f32,
    /// Whether attention and feed-forward part each have a norm behind them too, before the residual sum.
    pub after_norms: bool,
    /// Whether each head's queries and keys go through a norm before they are rotated.
    pub query_key_norms: bool,
    /// The rotary embedding.
    pub rope: Rope,
    /// The rotary embedding of blocks with a window, where it is another.
    pub local_rope: Option<Rope>,
    /// What scores (products of queries and keys) are multiplied by.
    pub query_scale: f32,
    /// Scaled scores `s` become `cap * tanh(s / cap)`.
    pub attention_cap: Option<f32>,
    /// Whether each head has a score of its own that takes part in the softmax and brings no value.
    pub sinks: bool,
    /// Whether the projections to queries, keys and values have biases.
    pub qkv_bias: bool,
    /// Whether the projection from attended values has a bias.
    pub output_bias: bool,
    /// Whether the feed-forward part's projections have biases.
    pub mlp_bias: bool,
    /// How gate and up become what the down projection takes.
    pub activation: Activation,
    /// Where the feed-forward part is a mixture of experts.
    pub experts: Option<Experts>,
    /// What rows of the embedding are multiplied by, before it is rounded to the activation type.
    pub embedding_scale: Option<f32>,
    /// Logits `l` become `cap * tanh(l / cap)`.
    pub logit_cap: Option<f32>,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// The id that starts a text.
    pub bos: Option<u32>,
    /// The ids that end a text.
    pub eos: Vec<u32>,
    /// What a GGUF file says of its tensors' types; `None` for other checkpoints.
    pub stored: Option<StoredTypes>,
}

/// The types in which a GGUF file stores its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTypes {
    /// blake3 over all tensors' names and types: files of different ones are different models.
    pub digest: [u8; 32],
    /// Bytes of the largest block's weights as they are stored.
    pub block_bytes: u64,
}

/// Bytes of 32 weights held in MXFP4: four bits each, and a scale of two bytes.
const MXFP4_CELL_BYTES: u64 = 18;

/// What distinguishes one block of a model from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockKind {
    /// How many positions a row sees, its own among them; all up to its own where there is none.
    pub window: Option<usize>,
    /// Whether its feed-forward part is the mixture of experts.
    pub experts: bool,
}

/// A gated activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `silu(gate) * up`.
    Silu,
    /// `gelu(gate) * up`, with the tanh approximation of gelu.
    GeluTanh,
    /// `gate * sigmoid(alpha * gate) * (up + 1)`, with `gate` at most `limit` and `up` within `limit` of 0.
    ClampedSilu {
        /// The steepness of the sigmoid.
        alpha: f32,
        /// The largest gate and up.
        limit: f32,
    },
}

/// A mixture of experts: each row is computed by some of them, chosen by a router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Experts {
    /// How many there are.
    pub count: usize,
    /// How many compute a row.
    pub chosen: usize,
    /// Width inside an expert.
    pub intermediate: usize,
    /// Whether the weights of the chosen ones are made to add up to 1: a softmax over their logits alone.
    pub normalised: bool,
    /// Whether router and experts have biases.
    pub biases: bool,
    /// Whether the checkpoint holds the experts' matrices in MXFP4.
    pub mxfp4: bool,
}

impl ModelConfig {
    /// What servers of such a model in `format` share.
    pub fn id(&self, format: WeightFormat) -> ModelId {
        model_id(self, format)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the key that is missing, out of bounds, not supported or not understood.
    pub fn parse(json: &[u8]) -> Result<Self, ModelError> {
        let map: Map<String, Value> =
            serde_json::from_slice(json).map_err(|error| ModelError::file("config.json", error))?;
        families::read(&map)
    }

    /// All blocks of the model.
    ///
    /// # Errors
    /// [`ModelError::BadConfig`] never for a parsed configuration.
    pub fn all_blocks(&self) -> Result<BlockRange, ModelError> {
        BlockRange::new(0, self.blocks).map_err(|error| ModelError::config("num_hidden_layers", error.to_string()))
    }

    /// Bytes that one token's keys and values take in one block's KV cache.
    pub fn kv_bytes_per_token_block(&self, format: WeightFormat, kv: KvFormat) -> u64 {
        KvShape::new(self, format, kv).position_bytes() as u64
    }

    /// Bytes of one block's weights in memory, of the largest where blocks differ; norms, biases and routers are always held as
    /// f32.
    pub fn block_bytes(&self, format: WeightFormat) -> u64 {
        if let (WeightFormat::Gguf, Some(stored)) = (format, &self.stored) {
            return stored.block_bytes;
        }
        let of = |kind: &BlockKind| {
            let (matrices, floats) = self.block_weights(*kind);
            let mxfp4 = match self.experts.filter(|experts| experts.mxfp4 && kind.experts) {
                // Other formats are made of them.
                Some(experts) if format == WeightFormat::Bf16 => self.expert_weights(experts),
                _ => 0,
            };
            format.weight_bytes(matrices - mxfp4) + mxfp4 / 32 * MXFP4_CELL_BYTES + 4 * floats
        };
        self.kinds.iter().map(of).max().unwrap_or_default()
    }

    /// The weights of all experts' matrices in a block.
    fn expert_weights(&self, experts: Experts) -> u64 {
        (experts.count * 3) as u64 * self.hidden as u64 * experts.intermediate as u64
    }

    /// The weights of a block: those in the weight format, and those in f32.
    fn block_weights(&self, kind: BlockKind) -> (u64, u64) {
        let (hidden, head_dim) = (self.hidden as u64, self.head_dim as u64);
        let (query, kv) = (self.query_width() as u64, self.kv_width() as u64);
        let used = |used: bool, weights: u64| if used { weights } else { 0 };
        let norms = hidden * if self.after_norms { 4 } else { 2 } + used(self.query_key_norms, 2 * head_dim);
        let biases = used(self.qkv_bias, query + 2 * kv) + used(self.output_bias, hidden);
        let (matrices, floats) = match self.experts.filter(|_| kind.experts) {
            Some(experts) => {
                let (count, inter) = (experts.count as u64, experts.intermediate as u64);
                let biases = used(experts.biases, count * (2 * inter + hidden + 1));
                (self.expert_weights(experts), count * hidden + biases)
            }
            None => {
                let inter = self.intermediate as u64;
                (3 * hidden * inter, used(self.mlp_bias, 2 * inter + hidden))
            }
        };
        (matrices + hidden * (2 * query + 2 * kv), floats + norms + biases + used(self.sinks, self.heads as u64))
    }

    /// Width of all query heads.
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads.
    pub(crate) fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// What a block is like; of one past the model's last, like an ordinary one.
    pub(crate) fn kind(&self, block: u32) -> BlockKind {
        self.kinds.get(block as usize).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn with(key: &str, value: Value) -> Result<ModelConfig, ModelError> {
        let mut config: Value = serde_json::from_str(include_str!("../demo/config.json")).unwrap();
        config[key] = value;
        ModelConfig::parse(config.to_string().as_bytes())
    }

    #[test]
    fn the_key_that_is_wrong_is_named() {
        let wrong = [
            ("hidden_act", json!("gelu")),
            ("num_hidden_layers", json!(100_000)),
            ("num_attention_heads", json!(0)),
            ("num_key_value_heads", json!(3)),
            ("vocab_size", json!(1u64 << 60)),
            ("vocab_size", json!("many")),
            ("head_dim", json!(7)),
            ("rms_norm_eps", json!(-1.0)),
            ("rope_theta", json!(0.0)),
            ("quantization_config", json!({"quant_method": "awq"})),
            ("partial_rotary_factor", json!(0.5)),
            ("eos_token_id", json!([1, "end"])),
            ("sliding_window", json!(4096)),
            ("residual_multiplier", json!(0.2)),
        ];
        for (key, value) in wrong {
            let error = with(key, value).unwrap_err();
            assert!(error.to_string().contains(key), "{key}: {error}");
        }
        let error = with("architectures", json!(["MambaForCausalLM"])).unwrap_err();
        assert!(error.to_string().contains("Mamba") && error.to_string().contains("LlamaForCausalLM"));
    }

    #[test]
    fn what_changes_nothing_may_be_there() {
        for key in ["transformers_version", "unsloth_fixed", "_name_or_path", "id2label"] {
            with(key, json!("anything")).unwrap();
        }
        with("some_new_key", Value::Null).unwrap();
    }

    #[test]
    fn ends_may_be_one_or_many() {
        assert_eq!(with("eos_token_id", json!(7)).unwrap().eos, [7]);
        assert_eq!(with("eos_token_id", json!([7, 9])).unwrap().eos, [7, 9]);
        assert!(with("eos_token_id", Value::Null).unwrap().eos.is_empty());
        assert_eq!(with("head_dim", Value::Null).unwrap().head_dim, 32);
    }
}
