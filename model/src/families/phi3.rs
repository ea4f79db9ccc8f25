//! Phi-3, Phi-3.5 and Phi-4-mini (Abdin et al. 2024). Unlike a Llama: one matrix holds the rows of queries, keys and values, one
//! those of gate and up; longer contexts by LongRoPE; Phi-4-mini rotates three quarters of each head; a window in every block
//! where `sliding_window` gives one.

use serde_json::json;

use super::base::{SILENT, Silent, no_biases, plain, set_windows, window};
use super::names::{LLAMA, TensorNames};
use super::{Entry, Family};
use crate::config::ModelConfig;
use crate::config_keys::ConfigKeys;
use crate::error::ModelError;

pub(super) const ENTRY: Entry =
    Entry { architectures: &["Phi3ForCausalLM"], model_types: &["phi3"], read, names: &NAMES };

const NAMES: TensorNames =
    TensorNames { query_key_value: Some("self_attn.qkv_proj"), gate_up: Some("mlp.gate_up_proj"), ..LLAMA };

const PHI3: Silent = Silent { positions: 4096, rms_eps: 1e-5, partly_rotated: true, ..SILENT };

fn read(keys: &ConfigKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = plain(keys, Family::Phi3, &PHI3)?;
    no_biases(keys)?;
    // Phi-4-mini names them; the reference implementation does not read them.
    ["full_attn_mod", "interpolate_factor"].iter().try_for_each(|key| keys.only(key, &json!(1)))?;
    let window = window(keys)?;
    set_windows(&mut config, keys, window, |_| window.is_some())?;
    Ok(config)
}
