//! Gemma 2 (Gemma Team 2024). Unlike a Llama: norms behind attention and feed-forward part too, all stored as the difference from
//! 1; gelu for silu; rows of the embedding times the square root of the width; scores and logits capped by tanh; scores scaled by
//! `query_pre_attn_scalar`; every other block, the first among them, sees a window. The head is the embedding.

use serde_json::json;

use super::base::{SILENT, Silent, plain, set_windows, window};
use super::names::{LLAMA, TensorNames};
use super::{Entry, Family};
use crate::config::ModelConfig;
use crate::config_keys::ConfigKeys;
use crate::error::ModelError;

pub(super) const ENTRY: Entry =
    Entry { architectures: &["Gemma2ForCausalLM"], model_types: &["gemma2"], read, names: &NAMES };

pub(super) const NAMES: TensorNames = TensorNames {
    after_attention_norm: "post_attention_layernorm",
    feed_forward_norm: "pre_feedforward_layernorm",
    after_feed_forward_norm: "post_feedforward_layernorm",
    ..LLAMA
};

pub(super) const GEMMA: Silent = Silent {
    heads: Some(8),
    kv_heads: Some(4),
    head_dim: Some(256),
    positions: 8192,
    tied: true,
    activation: ("hidden_activation", "gelu_pytorch_tanh"),
    ..SILENT
};
/// `sliding_window` where the file is silent.
const WINDOW: usize = 4096;

fn read(keys: &ConfigKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = plain(keys, Family::Gemma2, &GEMMA)?;
    gemma(&mut config, keys)?;
    let cap = |key, silent: f32| match keys.present(key) {
        // Written as `null` it is off; left out it is on.
        true => keys.positive(key),
        false => Ok(Some(silent)),
    };
    config.attention_cap = cap("attn_logit_softcapping", 50.0)?;
    config.logit_cap = cap("final_logit_softcapping", 30.0)?;
    let window = window(keys)?.unwrap_or(WINDOW);
    set_windows(&mut config, keys, Some(window), |block| block.is_multiple_of(2))?;
    Ok(config)
}

/// What Gemma 2 and 3 have in common.
pub(super) fn gemma(config: &mut ModelConfig, keys: &ConfigKeys<'_>) -> Result<(), ModelError> {
    config.norm_offset = 1.0;
    config.after_norms = true;
    config.query_scale = 1.0 / keys.positive("query_pre_attn_scalar")?.unwrap_or(256.0).sqrt();
    config.embedding_scale = Some((config.hidden as f32).sqrt());
    config.qkv_bias = keys.flag("attention_bias", false)?;
    config.output_bias = config.qkv_bias;
    // The reference implementation reads `hidden_activation` only.
    keys.ignore(&["hidden_act"]);
    keys.only("use_bidirectional_attention", &json!(false))
}
