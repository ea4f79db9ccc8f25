//! What all families read alike.

use serde_json::{Value, json};
use swarm_protocol::block::MAX_BLOCKS;

use super::Family;
use crate::config::{Activation, BlockKind, Experts, ModelConfig};
use crate::config_keys::ConfigKeys;
use crate::error::ModelError;
use crate::rope::{Rope, RopeContext};

/// Bounds that no known model comes near: they keep every size computed from a hostile file far from overflow.
const MAX_WIDTH: u64 = 1 << 18;
const MAX_HEADS: u64 = 4096;
const MAX_HEAD_DIM: u64 = 1024;
const MAX_VOCAB: u64 = 1 << 22;
const MAX_POSITIONS: u64 = 1 << 27;
const MAX_EXPERTS: u64 = 4096;
/// Of all blocks together.
const MAX_EXPERTS_IN_ALL: u64 = 1 << 17;

/// What holds where `config.json` is silent, as in the reference implementation; `None` where it must speak.
pub(super) struct Silent {
    pub(super) heads: Option<u64>,
    /// As many as `heads` if `None`.
    pub(super) kv_heads: Option<u64>,
    /// `hidden_size / num_attention_heads` if `None`.
    pub(super) head_dim: Option<u64>,
    pub(super) vocab: Option<u64>,
    pub(super) positions: u64,
    pub(super) rms_eps: f64,
    pub(super) rope_theta: f64,
    pub(super) tied: bool,
    /// Which key names the activation, and what it is.
    pub(super) activation: (&'static str, &'static str),
    /// Whether `partial_rotary_factor` may be less than 1.
    pub(super) partly_rotated: bool,
}

/// A Llama's.
pub(super) const SILENT: Silent = Silent {
    heads: None,
    kv_heads: None,
    head_dim: None,
    vocab: None,
    positions: 2048,
    rms_eps: 1e-6,
    rope_theta: 10_000.0,
    tied: false,
    activation: ("hidden_act", "silu"),
    partly_rotated: false,
};

/// A model as plain as a Llama without biases; the family changes what is different.
pub(super) fn plain(keys: &ConfigKeys<'_>, family: Family, silent: &Silent) -> Result<ModelConfig, ModelError> {
    let hidden = keys.size("hidden_size", None, MAX_WIDTH)?;
    let heads = keys.size("num_attention_heads", silent.heads, MAX_HEADS)?;
    let kv_heads = keys.size("num_key_value_heads", silent.kv_heads.or(Some(heads as u64)), MAX_HEADS)?;
    if !heads.is_multiple_of(kv_heads) {
        let reason = format!("is {kv_heads}; it must divide num_attention_heads {heads}");
        return Err(ModelError::config("num_key_value_heads", reason));
    }
    let head_dim = head_dim(keys, silent.head_dim, hidden, heads)?;
    let blocks = keys.size("num_hidden_layers", None, MAX_BLOCKS.into())?;
    let max_positions = keys.size("max_position_embeddings", Some(silent.positions), MAX_POSITIONS)?;
    Ok(ModelConfig {
        family,
        hidden,
        intermediate: keys.size("intermediate_size", None, MAX_WIDTH)?,
        blocks: blocks as u32,
        kinds: vec![BlockKind::default(); blocks],
        heads,
        kv_heads,
        head_dim,
        vocab: keys.size("vocab_size", silent.vocab, MAX_VOCAB)?,
        max_positions,
        rms_eps: rms_eps(keys, silent.rms_eps)?,
        norm_offset: 0.0,
        after_norms: false,
        query_key_norms: false,
        rope: rope(keys, silent, head_dim, max_positions)?,
        local_rope: None,
        query_scale: 1.0 / (head_dim as f32).sqrt(),
        attention_cap: None,
        sinks: false,
        qkv_bias: false,
        output_bias: false,
        mlp_bias: false,
        activation: activation(keys, silent.activation)?,
        experts: None,
        embedding_scale: None,
        logit_cap: None,
        tied: keys.flag("tie_word_embeddings", silent.tied)?,
        bos: keys.token_ids("bos_token_id")?.first().copied(),
        eos: keys.token_ids("eos_token_id")?,
        stored: None,
    })
}

fn head_dim(keys: &ConfigKeys<'_>, silent: Option<u64>, hidden: usize, heads: usize) -> Result<usize, ModelError> {
    if keys.get("head_dim").is_none() && silent.is_none() && !hidden.is_multiple_of(heads) {
        let reason = format!("is {heads}; it must divide hidden_size {hidden}");
        return Err(ModelError::config("num_attention_heads", reason));
    }
    let width = keys.size("head_dim", silent.or(Some((hidden / heads) as u64)), MAX_HEAD_DIM)?;
    match width.is_multiple_of(2) {
        true => Ok(width),
        false => Err(ModelError::config("head_dim", format!("is {width}; it must be even"))),
    }
}

fn rms_eps(keys: &ConfigKeys<'_>, silent: f64) -> Result<f64, ModelError> {
    let eps = keys.number("rms_norm_eps")?.unwrap_or(silent);
    if eps.is_finite() && (0.0..1.0).contains(&eps) {
        return Ok(eps);
    }
    Err(ModelError::config("rms_norm_eps", format!("is {eps}; it must be between 0 and 1")))
}

fn activation(keys: &ConfigKeys<'_>, (key, silent): (&'static str, &str)) -> Result<Activation, ModelError> {
    match keys.word(key)?.unwrap_or(silent) {
        "silu" | "swish" => Ok(Activation::Silu),
        "gelu_pytorch_tanh" | "gelu_new" => Ok(Activation::GeluTanh),
        other => Err(ModelError::config(key, format!("is \"{other}\"; supported are silu and gelu_pytorch_tanh"))),
    }
}

/// The embedding of all blocks: `rope_parameters`, or `rope_theta` and `rope_scaling` as older files have them. Where
/// `rope_parameters` has a map for each kind of block, it is that of the blocks that see everything.
fn rope(keys: &ConfigKeys<'_>, silent: &Silent, head_dim: usize, positions: usize) -> Result<Rope, ModelError> {
    let (parameters, scaling) = (keys.map("rope_parameters")?, keys.map("rope_scaling")?);
    let nested = parameters.and_then(|map| map.get(FULL)).and_then(Value::as_object);
    let (key, map) = match parameters {
        Some(map) => ("rope_parameters", Some(nested.unwrap_or(map))),
        None => ("rope_scaling", scaling),
    };
    let beside = keys.number("partial_rotary_factor")?;
    let factor = map.and_then(|map| map.get("partial_rotary_factor")).and_then(Value::as_f64).or(beside).unwrap_or(1.0);
    let rotated = (head_dim as f64 * factor) as usize;
    let partly = silent.partly_rotated && rotated >= 2 && rotated < head_dim && rotated.is_multiple_of(2);
    if rotated != head_dim && !partly {
        let reason = format!("is {factor}, which is not supported for this architecture");
        return Err(ModelError::config("partial_rotary_factor", reason));
    }
    let original = keys.count("original_max_position_embeddings")?;
    let context = RopeContext {
        theta: keys.number("rope_theta")?.unwrap_or(silent.rope_theta),
        rotated,
        positions,
        original_positions: original.map(|positions| positions.min(MAX_POSITIONS) as usize),
    };
    Rope::parse(key, map, &context)
}

/// The window of `sliding_window`, if it says anything.
pub(super) fn window(keys: &ConfigKeys<'_>) -> Result<Option<usize>, ModelError> {
    match keys.get("sliding_window") {
        None => Ok(None),
        Some(_) => keys.size("sliding_window", None, MAX_POSITIONS).map(Some),
    }
}

pub(super) const FULL: &str = "full_attention";
pub(super) const SLIDING: &str = "sliding_attention";

/// Gives `window` to the blocks that `layer_types` names, or where that is silent to those that `slides` says.
pub(super) fn set_windows(
    config: &mut ModelConfig,
    keys: &ConfigKeys<'_>,
    window: Option<usize>,
    slides: impl Fn(usize) -> bool,
) -> Result<(), ModelError> {
    let types = keys.list("layer_types")?;
    if let Some(types) = types.filter(|types| types.len() != config.kinds.len()) {
        let reason = format!("has {} entries for {} blocks", types.len(), config.kinds.len());
        return Err(ModelError::config("layer_types", reason));
    }
    for (index, kind) in config.kinds.iter_mut().enumerate() {
        let sliding = match types.and_then(|types| types.get(index)) {
            None => slides(index),
            Some(name) if name == FULL => false,
            Some(name) if name == SLIDING => true,
            Some(other) => {
                let reason = format!("names {other}; supported are {FULL} and {SLIDING}");
                return Err(ModelError::config("layer_types", reason));
            }
        };
        if sliding && window.is_none() {
            return Err(ModelError::config("sliding_window", "is missing, but layer_types asks for it"));
        }
        kind.window = window.filter(|_| sliding);
    }
    Ok(())
}

/// Reads the numbers of a mixture of experts and gives it to all blocks.
pub(super) fn set_experts(
    config: &mut ModelConfig,
    keys: &ConfigKeys<'_>,
    (count_key, silent_count): (&'static str, Option<u64>),
    experts: Experts,
) -> Result<(), ModelError> {
    let count = keys.size(count_key, silent_count, MAX_EXPERTS)?;
    let chosen =
        keys.size("num_experts_per_tok", (experts.chosen > 0).then_some(experts.chosen as u64), MAX_EXPERTS)?;
    if (count * config.kinds.len()) as u64 > MAX_EXPERTS_IN_ALL {
        let reason =
            format!("is {count} for {} blocks; at most {MAX_EXPERTS_IN_ALL} in all are read", config.kinds.len());
        return Err(ModelError::config(count_key, reason));
    }
    if chosen > count {
        let reason = format!("is {chosen}; there are {count} experts");
        return Err(ModelError::config("num_experts_per_tok", reason));
    }
    config.experts = Some(Experts { count, chosen, ..experts });
    config.kinds.iter_mut().for_each(|kind| kind.experts = true);
    Ok(())
}

/// A width, checked as all are.
pub(super) fn width(keys: &ConfigKeys<'_>, key: &'static str, silent: Option<u64>) -> Result<usize, ModelError> {
    keys.size(key, silent, MAX_WIDTH)
}

/// Refuses biases that the family does not have.
pub(super) fn no_biases(keys: &ConfigKeys<'_>) -> Result<(), ModelError> {
    ["attention_bias", "mlp_bias", "lm_head_bias"].iter().try_for_each(|key| keys.only(key, &json!(false)))
}
