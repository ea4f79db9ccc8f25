//! A model's configuration, checked.

use swarm_protocol::block::{BlockRange, MAX_BLOCKS};
use swarm_protocol::model_id::{ModelId, WeightFormat};

use crate::error::ModelError;
use crate::kv::{KvFormat, KvShape};
use crate::manifest::model_id;
use crate::raw_config::{RawConfig, TokenIds};
use crate::rope::{Rope, RopeScaling};

/// Bounds that no known model comes near: they keep every size computed from a hostile file far from overflow.
const MAX_WIDTH: u64 = 1 << 18;
const MAX_HEADS: u64 = 4096;
const MAX_HEAD_DIM: u64 = 1024;
const MAX_VOCAB: u64 = 1 << 22;
const MAX_POSITIONS: u64 = 1 << 27;
/// Default of `max_position_embeddings` in the reference implementation.
const DEFAULT_POSITIONS: u64 = 2048;
/// Default of `rms_norm_eps` in the reference implementation.
const DEFAULT_EPS: f64 = 1e-6;

/// What `config.json` of a Llama-class model says, with every number in bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// Width of the activations between blocks.
    pub hidden: usize,
    /// Width inside the feed-forward part.
    pub intermediate: usize,
    /// Number of blocks.
    pub blocks: u32,
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
    /// Base of the rotary embedding.
    pub rope_theta: f32,
    /// Scaling of the rotary embedding.
    pub rope_scaling: RopeScaling,
    /// Whether the head is the embedding.
    pub tied: bool,
    /// Whether the attention's projections have biases.
    pub attention_bias: bool,
    /// Whether the feed-forward part's projections have biases.
    pub mlp_bias: bool,
    /// The id that starts a text.
    pub bos: Option<u32>,
    /// The ids that end a text.
    pub eos: Vec<u32>,
}

impl ModelConfig {
    /// What servers of such a model in `format` share.
    pub fn id(&self, format: WeightFormat) -> ModelId {
        model_id(self, format)
    }

    /// Reads the text of a `config.json`.
    ///
    /// # Errors
    /// [`ModelError`] naming the key that is missing, out of bounds or not supported.
    pub fn parse(json: &[u8]) -> Result<Self, ModelError> {
        let raw: RawConfig = serde_json::from_slice(json).map_err(|error| ModelError::file("config.json", error))?;
        check_supported(&raw)?;
        let rope = Rope::parse(raw.rope_theta, raw.rope_scaling.as_ref(), raw.rope_parameters.as_ref())?;
        let hidden = size("hidden_size", raw.hidden_size, MAX_WIDTH)?;
        let heads = size("num_attention_heads", raw.num_attention_heads, MAX_HEADS)?;
        let kv_heads = raw.num_key_value_heads.or(raw.num_attention_heads);
        let kv_heads = size("num_key_value_heads", kv_heads, MAX_HEADS)?;
        let positions = raw.max_position_embeddings.or(Some(DEFAULT_POSITIONS));
        let config = Self {
            hidden,
            intermediate: size("intermediate_size", raw.intermediate_size, MAX_WIDTH)?,
            blocks: size("num_hidden_layers", raw.num_hidden_layers, MAX_BLOCKS.into())? as u32,
            heads,
            kv_heads,
            head_dim: head_dim(raw.head_dim, hidden, heads)?,
            vocab: size("vocab_size", raw.vocab_size, MAX_VOCAB)?,
            max_positions: size("max_position_embeddings", positions, MAX_POSITIONS)?,
            rms_eps: eps(raw.rms_norm_eps)?,
            rope_theta: rope.theta,
            rope_scaling: rope.scaling,
            tied: raw.tie_word_embeddings.unwrap_or(false),
            attention_bias: raw.attention_bias.unwrap_or(false),
            mlp_bias: raw.mlp_bias.unwrap_or(false),
            bos: raw.bos_token_id.and_then(|ids| ids.into_vec().first().copied()),
            eos: raw.eos_token_id.map(TokenIds::into_vec).unwrap_or_default(),
        };
        if !heads.is_multiple_of(kv_heads) {
            let reason = format!("is {kv_heads}; it must divide num_attention_heads {heads}");
            return Err(ModelError::config("num_key_value_heads", reason));
        }
        Ok(config)
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

    /// Bytes of one block's weights in memory; norms and biases are always held as f32.
    pub fn block_bytes(&self, format: WeightFormat) -> u64 {
        let (hidden, inter) = (self.hidden as u64, self.intermediate as u64);
        let (query, kv) = (self.query_width() as u64, self.kv_width() as u64);
        let matrices = hidden * (2 * query + 2 * kv + 3 * inter);
        format.weight_bytes(matrices) + 2 * hidden * 4
    }

    /// Width of all query heads.
    pub(crate) fn query_width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads.
    pub(crate) fn kv_width(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    pub(crate) fn inverse_frequencies(&self) -> Vec<f32> {
        let rope = Rope { theta: self.rope_theta, scaling: self.rope_scaling.clone() };
        rope.inverse_frequencies(self.head_dim)
    }
}

/// Refuses what would run but give wrong numbers.
fn check_supported(raw: &RawConfig) -> Result<(), ModelError> {
    let known = match (&raw.architectures, &raw.model_type) {
        (Some(names), _) => names.iter().any(|name| name == "LlamaForCausalLM"),
        (None, model_type) => model_type.as_deref() == Some("llama"),
    };
    if !known {
        let named = raw.architectures.as_ref().map(|names| names.join(", "));
        let found = named.or(raw.model_type.clone()).unwrap_or_else(|| "(none named)".into());
        return Err(ModelError::UnknownArchitecture { found });
    }
    if let Some(activation) = raw.hidden_act.as_deref().filter(|name| *name != "silu") {
        let reason = format!("is \"{activation}\"; supported is silu");
        return Err(ModelError::config("hidden_act", reason));
    }
    if raw.partial_rotary_factor.is_some_and(|factor| factor != 1.0) {
        return Err(ModelError::config("partial_rotary_factor", "is not supported"));
    }
    if raw.quantization_config.as_ref().is_some_and(|value| !value.is_null()) {
        let reason = "is not supported; use the checkpoint in f32, f16 or bf16";
        return Err(ModelError::config("quantization_config", reason));
    }
    Ok(())
}

fn size(key: &str, value: Option<u64>, most: u64) -> Result<usize, ModelError> {
    match value {
        None => Err(ModelError::config(key, "is missing")),
        Some(value) if (1..=most).contains(&value) => Ok(value as usize),
        Some(value) => {
            let reason = format!("is {value}; it must be between 1 and {most}");
            Err(ModelError::config(key, reason))
        }
    }
}

fn head_dim(explicit: Option<u64>, hidden: usize, heads: usize) -> Result<usize, ModelError> {
    let width = explicit.unwrap_or((hidden / heads) as u64);
    if explicit.is_none() && !hidden.is_multiple_of(heads) {
        let reason = format!("is {heads}; it must divide hidden_size {hidden}");
        return Err(ModelError::config("num_attention_heads", reason));
    }
    if !width.is_multiple_of(2) {
        return Err(ModelError::config("head_dim", format!("is {width}; it must be even")));
    }
    size("head_dim", Some(width), MAX_HEAD_DIM)
}

fn eps(value: Option<f64>) -> Result<f64, ModelError> {
    let eps = value.unwrap_or(DEFAULT_EPS);
    if eps.is_finite() && (0.0..1.0).contains(&eps) {
        return Ok(eps);
    }
    let reason = format!("is {eps}; it must be between 0 and 1");
    Err(ModelError::config("rms_norm_eps", reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

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
            ("head_dim", json!(7)),
            ("rms_norm_eps", json!(-1.0)),
            ("rope_theta", json!(0.0)),
            ("quantization_config", json!({"quant_method": "awq"})),
            ("partial_rotary_factor", json!(0.5)),
        ];
        for (key, value) in wrong {
            let error = with(key, value).unwrap_err();
            assert!(error.to_string().contains(key), "{key}: {error}");
        }
        let error = with("architectures", json!(["MambaForCausalLM"])).unwrap_err();
        assert!(error.to_string().contains("Mamba") && error.to_string().contains("LlamaForCausalLM"));
    }

    #[test]
    fn ends_may_be_one_or_many() {
        assert_eq!(with("eos_token_id", json!(7)).unwrap().eos, [7]);
        assert_eq!(with("eos_token_id", json!([7, 9])).unwrap().eos, [7, 9]);
        assert!(with("eos_token_id", Value::Null).unwrap().eos.is_empty());
        assert_eq!(with("head_dim", Value::Null).unwrap().head_dim, 32);
    }
}
