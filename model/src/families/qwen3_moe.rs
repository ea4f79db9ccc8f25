//! Qwen3-MoE. Like Qwen3, with a mixture of experts in every `decoder_sparse_step`-th block that `mlp_only_layers` does not name;
//! the others have an ordinary feed-forward part. The chosen experts' weights are made to add up to 1 if `norm_topk_prob` says so.

use serde_json::Value;

use super::base::{Silent, plain, set_experts, set_windows, width};
use super::names::LLAMA;
use super::qwen2::{QWEN, qwen_window};
use super::{Entry, Family};
use crate::config::{Experts, ModelConfig};
use crate::config_keys::ConfigKeys;
use crate::error::ModelError;

pub(super) const ENTRY: Entry =
    Entry { architectures: &["Qwen3MoeForCausalLM"], model_types: &["qwen3_moe"], read, names: &LLAMA };

/// `hidden_size / num_attention_heads` where the file does not name `head_dim`.
const QWEN3_MOE: Silent = Silent { head_dim: None, ..QWEN };

fn read(keys: &ConfigKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = plain(keys, Family::Qwen3Moe, &QWEN3_MOE)?;
    config.query_key_norms = true;
    config.qkv_bias = keys.flag("attention_bias", false)?;
    config.output_bias = config.qkv_bias;
    let window = qwen_window(keys)?;
    // Published files name it; the reference implementation does not read it.
    keys.ignore(&["max_window_layers"]);
    set_windows(&mut config, keys, window, |_| window.is_some())?;
    let experts = Experts {
        count: 0,
        chosen: 8,
        intermediate: width(keys, "moe_intermediate_size", Some(768))?,
        normalised: keys.flag("norm_topk_prob", false)?,
        biases: false,
        mxfp4: false,
    };
    let count_key = if keys.get("num_experts").is_some() { "num_experts" } else { "num_local_experts" };
    set_experts(&mut config, keys, (count_key, Some(128)), experts)?;
    let step = keys.size("decoder_sparse_step", Some(1), u64::from(u32::MAX))?;
    let dense: Vec<u64> = keys.list("mlp_only_layers")?.into_iter().flatten().filter_map(Value::as_u64).collect();
    for (block, kind) in config.kinds.iter_mut().enumerate() {
        kind.experts = !dense.contains(&(block as u64)) && (block + 1).is_multiple_of(step);
    }
    Ok(config)
}
