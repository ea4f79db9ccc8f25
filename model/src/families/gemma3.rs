//! Gemma 3, the text model (Gemma Team 2025). Unlike Gemma 2: each head's queries and keys go through a norm instead of caps on
//! scores and logits; five of six blocks see a window, with a rotary embedding of their own (`rope_local_base_freq`). Checkpoints
//! that see pictures too hold the text model under `text_config`; the rest of them is left alone.

use serde_json::{Map, Value};

use super::base::{SLIDING, Silent, plain, set_windows, window};
use super::gemma2::{GEMMA, NAMES, gemma};
use super::{Entry, Family};
use crate::config::ModelConfig;
use crate::config_keys::ConfigKeys;
use crate::error::ModelError;
use crate::rope::{Rope, RopeContext};

pub(super) const ENTRY: Entry = Entry {
    architectures: &["Gemma3ForCausalLM", "Gemma3ForConditionalGeneration"],
    model_types: &["gemma3_text", "gemma3"],
    read,
    names: &NAMES,
};

const GEMMA3: Silent = Silent { vocab: Some(262_208), positions: 131_072, rope_theta: 1e6, ..GEMMA };
/// `sliding_window` where the file is silent.
const WINDOW: usize = 4096;
/// Every block of this number sees everything, where the file does not say which.
const PATTERN: u64 = 6;
/// The base of blocks with a window where the file is silent.
const LOCAL_THETA: f64 = 10_000.0;

fn read(keys: &ConfigKeys<'_>) -> Result<ModelConfig, ModelError> {
    let mut config = plain(keys, Family::Gemma3, &GEMMA3)?;
    gemma(&mut config, keys)?;
    config.query_key_norms = true;
    config.attention_cap = keys.positive("attn_logit_softcapping")?;
    config.logit_cap = keys.positive("final_logit_softcapping")?;
    config.local_rope = Some(local_rope(keys, &config)?);
    let window = window(keys)?.unwrap_or(WINDOW);
    let pattern = keys.size("sliding_window_pattern", Some(PATTERN), u64::from(u32::MAX))?;
    keys.ignore(&["_sliding_window_pattern"]);
    set_windows(&mut config, keys, Some(window), |block| !(block + 1).is_multiple_of(pattern))?;
    Ok(config)
}

/// The rotary embedding of blocks with a window.
fn local_rope(keys: &ConfigKeys<'_>, config: &ModelConfig) -> Result<Rope, ModelError> {
    let parameters = keys.map("rope_parameters")?;
    let own = parameters.and_then(|map| map.get(SLIDING)).and_then(Value::as_object);
    let context = RopeContext {
        theta: keys.number("rope_local_base_freq")?.unwrap_or(LOCAL_THETA),
        rotated: config.head_dim,
        positions: config.max_positions,
        original_positions: None,
    };
    Rope::parse("rope_parameters.sliding_attention", own, &context)
}

/// The text model's part of a `config.json` that describes more, with the ids that stand beside it.
pub(super) fn text_part(map: &Map<String, Value>) -> Option<Map<String, Value>> {
    let mut text = map.get("text_config")?.as_object()?.clone();
    for key in ["bos_token_id", "eos_token_id", "tie_word_embeddings", "quantization_config"] {
        if let Some(value) = map.get(key) {
            text.insert(key.into(), value.clone());
        }
    }
    Some(text)
}
