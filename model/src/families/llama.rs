//! Llama 2 and 3 (Touvron et al. 2023, Dubey et al. 2024): the family that the others are described by. Pre-norms, rotary
//! embedding, grouped-query attention, a feed-forward part gated by silu. Biases only where `config.json` asks for them.

use super::base::{SILENT, plain};
use super::names::LLAMA;
use super::{Entry, Family};
use crate::config::ModelConfig;
use crate::config_keys::ConfigKeys;
use crate::error::ModelError;

pub(super) const ENTRY: Entry =
    Entry { architectures: &["LlamaForCausalLM"], model_types: &["llama"], read, names: &LLAMA };

fn read(keys: &ConfigKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = plain(keys, Family::Llama, &SILENT)?;
    config.qkv_bias = keys.flag("attention_bias", false)?;
    config.output_bias = config.qkv_bias;
    config.mlp_bias = keys.flag("mlp_bias", false)?;
    Ok(config)
}
