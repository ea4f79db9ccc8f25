//! The trained model as a Hugging Face checkpoint.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Result;
use candle_core::DType;
use serde_json::json;

use crate::model::{self, Llama};

/// Writes the weights as bf16, under the names of a Hugging Face checkpoint.
pub(crate) fn save_weights(model: &Llama, out: &Path) -> Result<()> {
    let tensors = model
        .named_vars()
        .into_iter()
        .map(|(name, var)| Ok((name, var.to_dtype(DType::BF16)?)))
        .collect::<Result<Vec<_>>>()?;
    let format = HashMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = safetensors::serialize(tensors, Some(format))?;
    Ok(std::fs::write(out.join("model.safetensors"), bytes)?)
}

/// Writes the model's shape as `config.json`.
pub(crate) fn save_config(out: &Path) -> Result<()> {
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": model::HIDDEN,
        "intermediate_size": model::INTERMEDIATE,
        "num_hidden_layers": model::LAYERS,
        "num_attention_heads": model::HEADS,
        "num_key_value_heads": model::KV_HEADS,
        "head_dim": model::HEAD_DIM,
        "vocab_size": model::VOCABULARY,
        "max_position_embeddings": model::MAX_POSITIONS,
        "rms_norm_eps": model::RMS_EPS,
        "rope_theta": model::ROPE_THETA,
        "tie_word_embeddings": true,
        "attention_bias": false,
        "mlp_bias": false,
        "bos_token_id": 0,
        "eos_token_id": [1, 4],
        "torch_dtype": "bfloat16",
    });
    let text = serde_json::to_string_pretty(&config)? + "\n";
    Ok(std::fs::write(out.join("config.json"), text)?)
}
