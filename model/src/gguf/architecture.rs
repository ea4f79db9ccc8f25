//! What GGUF calls architectures, and what they are called in a `config.json`. A new one is a row of [`ARCHITECTURES`], if its
//! keys and tensors are among those that the rows before it have.

use crate::error::ModelError;

/// One architecture, and what its converter does to weights.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Architecture {
    /// `general.architecture`.
    pub(super) name: &'static str,
    /// `architectures` of a `config.json`.
    pub(super) hugging_face: &'static str,
    pub(super) kind: Kind,
    /// Rows of query and key are in the order in which llama.cpp's rotary embedding pairs them.
    pub(super) heads_interleaved: bool,
    /// Norms are stored larger by one than in the original.
    pub(super) norms_plus_one: bool,
    /// Keys of the metadata that only this architecture has.
    pub(super) keys: &'static [&'static str],
}

/// What else differs between architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Llama,
    /// Experts, as Mixtral names them.
    Mixtral,
    Qwen2,
    Qwen3,
    /// Experts, as Qwen names them.
    Qwen3Moe,
    Gemma2,
    Gemma3,
    Phi3,
}

impl Kind {
    pub(super) fn is_gemma(self) -> bool {
        matches!(self, Self::Gemma2 | Self::Gemma3)
    }
}

const EXPERTS: &[&str] = &[
    "expert_feed_forward_length",
    "expert_shared_count",
    "expert_weights_norm",
    "expert_weights_scale",
    "expert_gating_func",
];
const SOFTCAPS: &[&str] = &["attn_logit_softcapping", "final_logit_softcapping"];
const GEMMA3: &[&str] = &["attn_logit_softcapping", "final_logit_softcapping", "attention.sliding_window_pattern"];

const LLAMA: Architecture = Architecture {
    name: "llama",
    hugging_face: "LlamaForCausalLM",
    kind: Kind::Llama,
    heads_interleaved: true,
    norms_plus_one: false,
    keys: &[],
};

/// `llama` with experts.
const MIXTRAL: Architecture = Architecture { hugging_face: "MixtralForCausalLM", kind: Kind::Mixtral, ..LLAMA };

const ARCHITECTURES: [Architecture; 7] = [
    LLAMA,
    plain("qwen2", "Qwen2ForCausalLM", Kind::Qwen2),
    plain("qwen3", "Qwen3ForCausalLM", Kind::Qwen3),
    Architecture { keys: EXPERTS, ..plain("qwen3moe", "Qwen3MoeForCausalLM", Kind::Qwen3Moe) },
    Architecture { norms_plus_one: true, keys: SOFTCAPS, ..plain("gemma2", "Gemma2ForCausalLM", Kind::Gemma2) },
    Architecture { norms_plus_one: true, keys: GEMMA3, ..plain("gemma3", "Gemma3ForCausalLM", Kind::Gemma3) },
    plain("phi3", "Phi3ForCausalLM", Kind::Phi3),
];

const fn plain(name: &'static str, hugging_face: &'static str, kind: Kind) -> Architecture {
    Architecture { name, hugging_face, kind, heads_interleaved: false, norms_plus_one: false, keys: &[] }
}

/// The architecture of that name, with or without experts.
///
/// # Errors
/// [`ModelError::UnknownArchitecture`] naming it.
pub(super) fn find(name: &str, experts: bool) -> Result<&'static Architecture, ModelError> {
    if experts && name == LLAMA.name {
        return Ok(&MIXTRAL);
    }
    let found = ARCHITECTURES.iter().find(|architecture| architecture.name == name);
    found.ok_or_else(|| ModelError::UnknownArchitecture {
        found: format!("\"{name}\" of the GGUF file"),
        supported: ARCHITECTURES.map(|architecture| architecture.name).join(", "),
    })
}
