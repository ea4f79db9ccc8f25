//! Qwen2 and Qwen2.5 (Yang et al. 2024). Unlike a Llama: queries, keys and values always have biases, nothing else has; blocks
//! from `max_window_layers` on see a window, if `use_sliding_window` says so.

use serde_json::json;

use super::base::{SILENT, Silent, plain, set_windows, window};
use super::names::LLAMA;
use super::{Entry, Family};
use crate::config::ModelConfig;
use crate::config_keys::ConfigKeys;
use crate::error::ModelError;

pub(super) const ENTRY: Entry =
    Entry { architectures: &["Qwen2ForCausalLM"], model_types: &["qwen2"], read, names: &LLAMA };

pub(super) const QWEN: Silent = Silent { positions: 32_768, ..SILENT };
/// `sliding_window` where the file only says `use_sliding_window`.
pub(super) const WINDOW: usize = 4096;
/// `max_window_layers` where the file is silent.
const MAX_WINDOW_LAYERS: u64 = 28;

fn read(keys: &ConfigKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = plain(keys, Family::Qwen2, &QWEN)?;
    config.qkv_bias = true;
    keys.only("use_mrope", &json!(false))?;
    qwen_windows(&mut config, keys)?;
    Ok(config)
}

/// The window that is in use, if any.
pub(super) fn qwen_window(keys: &ConfigKeys<'_>) -> Result<Option<usize>, ModelError> {
    let window = window(keys)?.unwrap_or(WINDOW);
    Ok(keys.flag("use_sliding_window", false)?.then_some(window))
}

pub(super) fn qwen_windows(config: &mut ModelConfig, keys: &ConfigKeys<'_>) -> Result<(), ModelError> {
    let window = qwen_window(keys)?;
    let full = keys.count("max_window_layers")?.unwrap_or(MAX_WINDOW_LAYERS);
    set_windows(config, keys, window, |block| window.is_some() && block as u64 >= full)
}
