//! A configuration as a GGUF file's metadata.

use super::gguf_file::{GgufFile, GgufValue};
use crate::config::{BlockKind, ModelConfig};
use crate::error::ModelError;
use crate::families::Family;
use crate::rope::RopeScaling;

/// Every so manyth block of Gemma 3 has no window, where the file does not say.
const GEMMA3_PATTERN: usize = 6;

/// What a file calls a family's architecture.
fn architecture(family: Family) -> Result<&'static str, ModelError> {
    Ok(match family {
        Family::Llama | Family::Mistral | Family::Mixtral => "llama",
        Family::Qwen2 => "qwen2",
        Family::Qwen3 => "qwen3",
        Family::Qwen3Moe => "qwen3moe",
        Family::Gemma2 => "gemma2",
        Family::Gemma3 => "gemma3",
        Family::Phi3 => "phi3",
        Family::GptOss => return Err(ModelError::file("gguf", "files of gpt-oss are not written")),
    })
}

/// Keys of one architecture.
struct Entries<'a> {
    file: &'a mut GgufFile,
    prefix: &'static str,
}

impl Entries<'_> {
    fn put(&mut self, key: &str, value: GgufValue) {
        self.file.put(format!("{}.{key}", self.prefix), value);
    }

    fn number(&mut self, key: &str, value: usize) {
        self.put(key, GgufValue::U32(value as u32));
    }

    fn float(&mut self, key: &str, value: f32) {
        self.put(key, GgufValue::F32(value));
    }

    fn text(&mut self, key: &str, value: &str) {
        self.put(key, GgufValue::Text(value.into()));
    }
}

/// Puts everything but the tokenizer.
pub(super) fn put_config(file: &mut GgufFile, name: &str, config: &ModelConfig) -> Result<(), ModelError> {
    let prefix = architecture(config.family)?;
    file.put("general.architecture", GgufValue::Text(prefix.into()));
    file.put("general.name", GgufValue::Text(name.into()));
    let mut entries = Entries { file, prefix };
    entries.number("block_count", config.blocks as usize);
    entries.number("context_length", config.max_positions);
    entries.number("embedding_length", config.hidden);
    entries.number("feed_forward_length", config.intermediate);
    entries.number("attention.head_count", config.heads);
    entries.number("attention.head_count_kv", config.kv_heads);
    // Phi-3's files leave it to the division.
    if config.family != Family::Phi3 {
        entries.number("attention.key_length", config.head_dim);
        entries.number("attention.value_length", config.head_dim);
    }
    entries.number("rope.dimension_count", config.rope.rotated);
    entries.number("vocab_size", config.vocab);
    entries.float("attention.layer_norm_rms_epsilon", config.rms_eps as f32);
    entries.float("rope.freq_base", config.rope.theta);
    put_scaling(&mut entries, config);
    put_windows(&mut entries, config);
    if let Some(experts) = config.experts {
        entries.number("expert_count", experts.count);
        entries.number("expert_used_count", experts.chosen);
        if config.family == Family::Qwen3Moe {
            entries.number("expert_feed_forward_length", experts.intermediate);
        }
    }
    if let Some(cap) = config.attention_cap {
        entries.float("attn_logit_softcapping", cap);
    }
    if let Some(cap) = config.logit_cap {
        entries.float("final_logit_softcapping", cap);
    }
    Ok(())
}

fn put_scaling(entries: &mut Entries<'_>, config: &ModelConfig) {
    match &config.rope.scaling {
        RopeScaling::Linear { factor } => {
            entries.text("rope.scaling.type", "linear");
            entries.float("rope.scaling.factor", *factor);
        }
        RopeScaling::Yarn { factor, beta_fast, beta_slow, original_positions, .. } => {
            entries.text("rope.scaling.type", "yarn");
            entries.float("rope.scaling.factor", *factor);
            entries.number("rope.scaling.original_context_length", *original_positions as usize);
            entries.float("rope.scaling.yarn_beta_fast", *beta_fast);
            entries.float("rope.scaling.yarn_beta_slow", *beta_slow);
        }
        RopeScaling::Long { magnitude, .. } => {
            entries.float("rope.scaling.attn_factor", *magnitude);
            // A configuration keeps the factors that it chose by this, and no longer the number.
            entries.number("rope.scaling.original_context_length", config.max_positions / 2);
        }
        RopeScaling::Default | RopeScaling::Llama3 { .. } => (),
    }
}

fn put_windows(entries: &mut Entries<'_>, config: &ModelConfig) {
    let window = config.kinds.iter().find_map(|kind| kind.window);
    match (config.family, window) {
        (Family::Qwen2 | Family::Qwen3 | Family::Qwen3Moe, _) => (),
        // Phi-3's files always have it.
        (Family::Phi3, None) => entries.number("attention.sliding_window", 0),
        (_, None) => (),
        (_, Some(window)) => entries.number("attention.sliding_window", window),
    }
    let slides = |kind: &BlockKind| kind.window.is_some();
    let usual = |(block, kind): (usize, &BlockKind)| slides(kind) != (block + 1).is_multiple_of(GEMMA3_PATTERN);
    if config.family == Family::Gemma3 && !config.kinds.iter().enumerate().all(usual) {
        let slides = config.kinds.iter().map(slides).collect();
        entries.put("attention.sliding_window_pattern", GgufValue::Bools(slides));
    }
    if let Some(local) = &config.local_rope {
        entries.float("rope.freq_base_swa", local.theta);
    }
}
