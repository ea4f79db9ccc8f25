//! Qwen3 (Yang et al. 2025). Unlike Qwen2: each head's queries and keys go through a norm before they are rotated; biases only
//! where `attention_bias` asks for them; heads are 128 wide whatever the hidden size.

use super::base::{Silent, plain};
use super::names::LLAMA;
use super::qwen2::{QWEN, qwen_windows};
use super::{Entry, Family};
use crate::config::ModelConfig;
use crate::config_keys::ConfigKeys;
use crate::error::ModelError;

pub(super) const ENTRY: Entry =
    Entry { architectures: &["Qwen3ForCausalLM"], model_types: &["qwen3"], read, names: &LLAMA };

pub(super) const QWEN3: Silent = Silent { head_dim: Some(128), ..QWEN };

fn read(keys: &ConfigKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = plain(keys, Family::Qwen3, &QWEN3)?;
    config.query_key_norms = true;
    config.qkv_bias = keys.flag("attention_bias", false)?;
    config.output_bias = config.qkv_bias;
    qwen_windows(&mut config, keys)?;
    Ok(config)
}
