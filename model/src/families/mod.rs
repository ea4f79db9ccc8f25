//! The families of models. Each file names how one family differs from a Llama: what its `config.json` says and means, and what
//! its tensors are called. What a block then computes is the same code for all, driven by [`ModelConfig`]. How to add a family:
//! `docs/families.md`.

mod base;
mod gemma2;
mod gemma3;
mod gpt_oss;
mod llama;
mod mistral;
mod mixtral;
mod names;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;

use serde_json::{Map, Value};

use crate::config::ModelConfig;
use crate::config_keys::ConfigKeys;
use crate::error::ModelError;

pub(crate) use names::TensorNames;

/// A family of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// Llama 2 and 3, and everything that is one under another name.
    Llama,
    /// Mistral, with a sliding window.
    Mistral,
    /// Mixtral: Mistral with experts.
    Mixtral,
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3.
    Qwen3,
    /// Qwen3 with experts.
    Qwen3Moe,
    /// Gemma 2.
    Gemma2,
    /// Gemma 3, the text model.
    Gemma3,
    /// Phi-3, Phi-3.5 and Phi-4-mini.
    Phi3,
    /// gpt-oss.
    GptOss,
}

/// How a family's files are recognised and read.
struct Entry {
    /// What `architectures` names it.
    architectures: &'static [&'static str],
    /// What `model_type` names it where there are no `architectures`.
    model_types: &'static [&'static str],
    read: fn(&ConfigKeys<'_>) -> Result<ModelConfig, ModelError>,
    names: &'static TensorNames,
}

impl Family {
    /// All families.
    pub const ALL: [Self; 10] = [
        Self::Llama,
        Self::Mistral,
        Self::Mixtral,
        Self::Qwen2,
        Self::Qwen3,
        Self::Qwen3Moe,
        Self::Gemma2,
        Self::Gemma3,
        Self::Phi3,
        Self::GptOss,
    ];

    fn entry(self) -> &'static Entry {
        match self {
            Self::Llama => &llama::ENTRY,
            Self::Mistral => &mistral::ENTRY,
            Self::Mixtral => &mixtral::ENTRY,
            Self::Qwen2 => &qwen2::ENTRY,
            Self::Qwen3 => &qwen3::ENTRY,
            Self::Qwen3Moe => &qwen3_moe::ENTRY,
            Self::Gemma2 => &gemma2::ENTRY,
            Self::Gemma3 => &gemma3::ENTRY,
            Self::Phi3 => &phi3::ENTRY,
            Self::GptOss => &gpt_oss::ENTRY,
        }
    }

    /// What `architectures` in `config.json` names it.
    pub fn architecture(self) -> &'static str {
        self.entry().architectures.first().copied().unwrap_or_default()
    }

    /// What `model_type` in `config.json` names it.
    pub fn model_type(self) -> &'static str {
        self.entry().model_types.first().copied().unwrap_or_default()
    }

    /// What its tensors are called.
    pub(crate) fn names(self) -> &'static TensorNames {
        self.entry().names
    }
}

/// How a checkpoint is quantised: only one way is read, a family's own.
const QUANTIZATION: &str = "quantization_config";

/// Reads `config.json` by the rules of whichever family it names.
pub(crate) fn read(map: &Map<String, Value>) -> Result<ModelConfig, ModelError> {
    let family = find(map)?;
    let text = if family == Family::Gemma3 { gemma3::text_part(map) } else { None };
    let keys = ConfigKeys::new(text.as_ref().unwrap_or(map));
    if family != Family::GptOss && keys.get(QUANTIZATION).is_some() {
        let reason = "is not supported; use the checkpoint in f32, f16 or bf16, or a GGUF file of it";
        return Err(ModelError::config(QUANTIZATION, reason));
    }
    let config = (family.entry().read)(&keys)?;
    keys.check_all_understood()?;
    Ok(config)
}

fn find(map: &Map<String, Value>) -> Result<Family, ModelError> {
    let listed = map.get("architectures").and_then(Value::as_array);
    let listed = listed.map(|names| names.iter().filter_map(Value::as_str).collect::<Vec<_>>());
    let model_type = map.get("model_type").and_then(Value::as_str);
    let known = |family: &Family| match (&listed, model_type) {
        (Some(names), _) => names.iter().any(|name| family.entry().architectures.contains(name)),
        (None, Some(model_type)) => family.entry().model_types.contains(&model_type),
        (None, None) => false,
    };
    let named = || listed.as_ref().map(|names| names.join(", ")).or(model_type.map(str::to_string));
    Family::ALL.into_iter().find(known).ok_or_else(|| ModelError::UnknownArchitecture {
        found: named().unwrap_or_else(|| "(none named)".into()),
        supported: Family::ALL.map(Family::architecture).join(", "),
    })
}
