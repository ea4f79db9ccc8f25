//! `config.json` as it is written, before any of it is believed.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The keys of a Llama-class `config.json` that matter; everything else is ignored.
#[derive(Debug, Deserialize)]
pub(crate) struct RawConfig {
    pub(crate) architectures: Option<Vec<String>>,
    pub(crate) model_type: Option<String>,
    pub(crate) hidden_size: Option<u64>,
    pub(crate) intermediate_size: Option<u64>,
    pub(crate) num_hidden_layers: Option<u64>,
    pub(crate) num_attention_heads: Option<u64>,
    pub(crate) num_key_value_heads: Option<u64>,
    pub(crate) head_dim: Option<u64>,
    pub(crate) vocab_size: Option<u64>,
    pub(crate) max_position_embeddings: Option<u64>,
    pub(crate) rms_norm_eps: Option<f64>,
    pub(crate) hidden_act: Option<String>,
    pub(crate) rope_theta: Option<f64>,
    pub(crate) rope_scaling: Option<Map<String, Value>>,
    pub(crate) rope_parameters: Option<Map<String, Value>>,
    pub(crate) partial_rotary_factor: Option<f64>,
    pub(crate) tie_word_embeddings: Option<bool>,
    pub(crate) attention_bias: Option<bool>,
    pub(crate) mlp_bias: Option<bool>,
    pub(crate) quantization_config: Option<Value>,
    pub(crate) bos_token_id: Option<TokenIds>,
    pub(crate) eos_token_id: Option<TokenIds>,
}

/// One token id or a list of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub(crate) enum TokenIds {
    One(u32),
    Many(Vec<u32>),
}

impl TokenIds {
    pub(crate) fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}
