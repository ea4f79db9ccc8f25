//! Metadata to what a `config.json` would say, so that every family has one parser.

use serde_json::{Map, Value, json};

use super::architecture::{Architecture, Kind};
use super::metadata::Metadata;
use super::rope;
use crate::error::ModelError;
use crate::tensors::Tensors;

/// Keys that every architecture may have. One that is not understood may change the numbers.
const KEYS: [&str; 25] = [
    "vocab_size",
    "context_length",
    "embedding_length",
    "block_count",
    "feed_forward_length",
    "expert_count",
    "expert_used_count",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.causal",
    "attention.sliding_window",
    "attention.key_length_swa",
    "attention.value_length_swa",
    "rope.dimension_count",
    "rope.dimension_count_swa",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scale_linear",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.finetuned",
];
/// More of them, which go with `rope.scaling.type`.
const SCALING_KEYS: [&str; 6] = [
    "rope.scaling.attn_factor",
    "rope.scaling.yarn_attn_factor",
    "rope.scaling.yarn_beta_fast",
    "rope.scaling.yarn_beta_slow",
    "rope.scaling.yarn_ext_factor",
    "rope.scaling.yarn_log_multiplier",
];

/// Keys that may be there as long as they change nothing.
const NEUTRAL: [(&str, &[f64]); 4] = [
    ("expert_shared_count", &[0.0]),
    ("expert_weights_scale", &[0.0, 1.0]),
    // llama.cpp's number of a softmax.
    ("expert_gating_func", &[1.0]),
    ("rope.scaling.yarn_ext_factor", &[1.0]),
];
/// What some files of Gemma 3 say of the part that sees pictures.
const VISION: [&str; 2] = ["vision.", "mm."];
const PATTERN: &str = "attention.sliding_window_pattern";

/// Blocks of Gemma 2 27B and Gemma 3 27B, whose queries are scaled by the width of the model and not by that of a head.
const GEMMA_27B: [(Kind, u64); 2] = [(Kind::Gemma2, 46), (Kind::Gemma3, 62)];
/// Base of the rotary embedding of Gemma 3's sliding-window layers, where the file does not say.
const GEMMA_LOCAL_BASE: f64 = 10_000.0;
/// Every so manyth layer of Gemma 3 has no sliding window.
const GEMMA_PATTERN: u64 = 6;

pub(super) const HEADS: &str = "attention.head_count";
pub(super) const KV_HEADS: &str = "attention.head_count_kv";
pub(super) const EXPERTS: &str = "expert_count";

/// The keys of one architecture.
pub(super) struct Keys<'a> {
    pub(super) metadata: &'a Metadata<'a>,
    pub(super) architecture: &'static Architecture,
}

impl Keys<'_> {
    pub(super) fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture.name)
    }

    pub(super) fn u64(&self, key: &str) -> Result<Option<u64>, ModelError> {
        self.metadata.one_u64(&self.key(key))
    }

    pub(super) fn f64(&self, key: &str) -> Result<Option<f64>, ModelError> {
        self.metadata.f64(&self.key(key))
    }

    pub(super) fn str(&self, key: &str) -> Result<Option<&str>, ModelError> {
        self.metadata.str(&self.key(key))
    }

    pub(super) fn bool(&self, key: &str) -> Result<Option<bool>, ModelError> {
        self.metadata.bool(&self.key(key))
    }

    pub(super) fn bad(&self, key: &str, reason: impl std::fmt::Display) -> ModelError {
        self.metadata.bad(&self.key(key), reason)
    }

    fn needed(&self, key: &str) -> Result<u64, ModelError> {
        self.u64(key)?.ok_or_else(|| self.bad(key, "is missing"))
    }

    pub(super) fn head_dim(&self) -> Result<u64, ModelError> {
        match self.u64("attention.key_length")? {
            Some(width) => Ok(width),
            None => Ok(self.needed("embedding_length")? / self.needed(HEADS)?.max(1)),
        }
    }

    /// How many elements of a head are rotated.
    pub(super) fn rotated(&self) -> Result<u64, ModelError> {
        Ok(self.u64("rope.dimension_count")?.unwrap_or(self.head_dim()?))
    }

    /// The sliding window: converters write 0 where there is none.
    fn window(&self) -> Result<Option<u64>, ModelError> {
        Ok(self.u64("attention.sliding_window")?.filter(|window| *window > 0))
    }

    /// Which layers slide, where the file tells of each.
    fn layer_types(&self) -> Result<Option<Vec<&'static str>>, ModelError> {
        let key = self.key(PATTERN);
        if self.metadata.count(&key) == 0 {
            return Ok(None);
        }
        let slides = self.metadata.list(&key, |value| value.as_bool().or(value.as_u64().map(|number| number != 0)))?;
        let name = |slides| if slides { "sliding_attention" } else { "full_attention" };
        Ok(slides.map(|slides| slides.into_iter().map(name).collect()))
    }

    /// Refuses what would run but give wrong numbers.
    fn check(&self) -> Result<(), ModelError> {
        let gemma3 = self.architecture.kind == Kind::Gemma3;
        let vision = |key: &str| gemma3 && VISION.iter().any(|prefix| key.starts_with(prefix));
        let listed =
            |key: &str| KEYS.contains(&key) || SCALING_KEYS.contains(&key) || self.architecture.keys.contains(&key);
        let known = |key: &str| listed(key) || vision(key);
        let prefix = self.key("");
        let own = self.metadata.values.keys().filter_map(|key| key.strip_prefix(&prefix));
        if let Some(odd) = own.into_iter().find(|key| !known(key)) {
            return Err(self.bad(odd, "is not understood by this version"));
        }
        if self.bool("attention.causal")? == Some(false) {
            return Err(self.bad("attention.causal", "is false; only causal models generate text"));
        }
        let width = self.head_dim()?;
        for key in ["attention.value_length", "attention.key_length_swa", "attention.value_length_swa"] {
            if self.u64(key)?.is_some_and(|value| value != width) {
                return Err(self.bad(key, format!("differs from the keys' width {width}")));
            }
        }
        let rotated = self.rotated()?;
        if self.u64("rope.dimension_count_swa")?.is_some_and(|value| value != rotated) {
            return Err(self.bad("rope.dimension_count_swa", format!("differs from rope.dimension_count {rotated}")));
        }
        NEUTRAL.iter().try_for_each(|(key, neutral)| match self.f64(key)? {
            Some(value) if !neutral.contains(&value) => {
                Err(self.bad(key, format!("is {value}; understood are {neutral:?}")))
            }
            _ => Ok(()),
        })
    }
}

/// The text of a `config.json`.
pub(super) fn config_json(keys: &Keys<'_>, tensors: &Tensors, token_ids: &Value) -> Result<Value, ModelError> {
    keys.check()?;
    let mut config = Map::new();
    let mut put = |key: &str, value: Value| {
        if !value.is_null() {
            config.insert(key.to_string(), value);
        }
    };
    let has = |name: &str| tensors.has(name);
    put("architectures", json!([keys.architecture.hugging_face]));
    put("hidden_size", json!(keys.needed("embedding_length")?));
    put("intermediate_size", json!(keys.needed("feed_forward_length")?));
    put("num_hidden_layers", json!(keys.needed("block_count")?));
    put("num_attention_heads", json!(keys.needed(HEADS)?));
    put("num_key_value_heads", json!(keys.u64(KV_HEADS)?));
    let head_dim = keys.head_dim()?;
    put("head_dim", json!(head_dim));
    put("max_position_embeddings", json!(keys.needed("context_length")?));
    put("rms_norm_eps", json!(keys.f64("attention.layer_norm_rms_epsilon")?.map(decimal)));
    put("rope_theta", json!(keys.f64("rope.freq_base")?.map(decimal)));
    put("rope_scaling", rope::scaling_json(keys, tensors)?);
    let rotated = Some(keys.rotated()?).filter(|width| *width != head_dim);
    // The product is cut to a whole number: half an element keeps it from falling one short.
    put("partial_rotary_factor", json!(rotated.map(|width| (width as f64 + 0.5) / head_dim.max(1) as f64)));
    put("vocab_size", json!(tensors.entry("model.embed_tokens.weight")?.1.shape[0]));
    put("tie_word_embeddings", json!(!has("lm_head.weight")));
    // Families without a choice do not know the keys.
    let biases = has("model.layers.0.self_attn.q_proj.bias") && keys.architecture.kind != Kind::Qwen2;
    put("attention_bias", json!(biases.then_some(true)));
    put("mlp_bias", json!(has("model.layers.0.mlp.gate_proj.bias").then_some(true)));
    put("sliding_window", json!(keys.window()?));
    put("hidden_act", json!(if keys.architecture.kind.is_gemma() { "gelu_pytorch_tanh" } else { "silu" }));
    put("bos_token_id", token_ids["bos_token_id"].clone());
    put("eos_token_id", token_ids["eos_token_id"].clone());
    config.extend(of_kind(keys)?.into_iter().filter(|(_, value)| !value.is_null()));
    Ok(Value::Object(config))
}

/// What only some architectures have.
fn of_kind(keys: &Keys<'_>) -> Result<Map<String, Value>, ModelError> {
    let types = keys.layer_types()?;
    let pattern = if types.is_none() { keys.u64(PATTERN)?.or(Some(GEMMA_PATTERN)) } else { None };
    let value = match keys.architecture.kind {
        Kind::Llama if keys.window()?.is_some() => json!({"architectures": ["MistralForCausalLM"]}),
        Kind::Llama | Kind::Qwen2 | Kind::Qwen3 => json!({}),
        Kind::Mixtral => json!({
            "num_local_experts": keys.needed(EXPERTS)?,
            "num_experts_per_tok": keys.needed("expert_used_count")?,
        }),
        Kind::Qwen3Moe => json!({
            "num_experts": keys.needed(EXPERTS)?,
            "num_experts_per_tok": keys.needed("expert_used_count")?,
            "moe_intermediate_size": keys.needed("expert_feed_forward_length")?,
            "norm_topk_prob": keys.bool("expert_weights_norm")?.unwrap_or(true),
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
        }),
        Kind::Gemma2 => json!({
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": query_scalar(keys)?,
            "attn_logit_softcapping": keys.f64("attn_logit_softcapping")?,
            "final_logit_softcapping": keys.f64("final_logit_softcapping")?,
        }),
        Kind::Gemma3 => json!({
            "hidden_activation": "gelu_pytorch_tanh",
            "query_pre_attn_scalar": query_scalar(keys)?,
            "attn_logit_softcapping": keys.f64("attn_logit_softcapping")?,
            "final_logit_softcapping": keys.f64("final_logit_softcapping")?,
            "sliding_window_pattern": pattern,
            "layer_types": types,
            "rope_local_base_freq": keys.f64("rope.freq_base_swa")?.unwrap_or(GEMMA_LOCAL_BASE),
        }),
        Kind::Phi3 => json!({
            "original_max_position_embeddings": keys.u64("rope.scaling.original_context_length")?,
        }),
    };
    match value {
        Value::Object(map) => Ok(map),
        _ => Ok(Map::new()),
    }
}

/// What the square of a query's scale is divided by: the files do not say, llama.cpp knows the sizes.
fn query_scalar(keys: &Keys<'_>) -> Result<u64, ModelError> {
    let by_model = GEMMA_27B.contains(&(keys.architecture.kind, keys.needed("block_count")?));
    match by_model {
        true => Ok(keys.needed("embedding_length")? / keys.needed(HEADS)?.max(1)),
        false => keys.head_dim(),
    }
}

/// A number stored in 32 bits as the decimal that it was written as: 1e-5, not 9.99999974737875e-6.
fn decimal(value: f64) -> f64 {
    let short = value as f32;
    if f64::from(short) != value {
        return value;
    }
    short.to_string().parse().unwrap_or(value)
}
