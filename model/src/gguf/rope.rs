//! The scaling of the rotary embedding, out of keys and out of the tensor of factors that Llama 3.1 and later carry.

use blake3::Hasher;
use serde_json::{Value, json};

use super::config::Keys;
use crate::error::ModelError;
use crate::rope::{Rope, RopeScaling};
use crate::tensors::Tensors;

/// Factors by which frequencies are divided, `(head_dim / 2)`.
pub(super) const FACTORS: &str = "rope_freqs.weight";
/// Phi-3's, for contexts longer than the original one.
pub(super) const LONG: &str = "rope_factors_long.weight";
/// Phi-3's, for others.
pub(super) const SHORT: &str = "rope_factors_short.weight";

/// What every Llama from 3.1 on was trained with; the factor differs.
const LOW_FREQUENCY_FACTOR: f32 = 1.0;
const HIGH_FREQUENCY_FACTOR: f32 = 4.0;
const ORIGINAL_POSITIONS: u32 = 8192;
/// How far apart factors may be that mean the same: they were computed in other orders.
const TOLERANCE: f32 = 1e-3;

/// `rope_scaling` of a `config.json`; null if there is none.
pub(super) fn scaling_json(keys: &Keys<'_>, tensors: &Tensors) -> Result<Value, ModelError> {
    if tensors.has(LONG) || tensors.has(SHORT) {
        return Ok(json!({
            "type": "longrope",
            "long_factor": factors(keys, tensors, LONG)?,
            "short_factor": factors(keys, tensors, SHORT)?,
            "attention_factor": keys.f64("rope.scaling.attn_factor")?,
        }));
    }
    if tensors.has(FACTORS) {
        return llama3(keys, &factors(keys, tensors, FACTORS)?);
    }
    let old = keys.f64("rope.scale_linear")?.filter(|factor| *factor != 1.0);
    // 0 is llama.cpp's word for none.
    let factor = keys.f64("rope.scaling.factor")?.or(old).filter(|factor| *factor != 0.0);
    let kind = keys.str("rope.scaling.type")?;
    match (kind, factor) {
        (Some("none"), _) | (None, None) => Ok(Value::Null),
        (Some("linear") | None, factor) => Ok(json!({"rope_type": "linear", "factor": factor})),
        (Some("yarn"), factor) => Ok(json!({
            "rope_type": "yarn",
            "factor": factor,
            "original_max_position_embeddings": keys.u64("rope.scaling.original_context_length")?,
            "beta_fast": keys.f64("rope.scaling.yarn_beta_fast")?,
            "beta_slow": keys.f64("rope.scaling.yarn_beta_slow")?,
            "attention_factor": yarn_magnitude(keys, factor)?,
        })),
        (Some(kind), _) => {
            Err(keys.bad("rope.scaling.type", format!("is \"{kind}\"; known are none, linear and yarn")))
        }
    }
}

/// What cosines and sines are multiplied by, if the file changes it: `rope.scaling.attn_factor` goes on top of YaRN's own factor
/// (`llama-context.cpp`). Of these architectures, llama.cpp does not look at `rope.scaling.yarn_log_multiplier`.
fn yarn_magnitude(keys: &Keys<'_>, factor: Option<f64>) -> Result<Option<f64>, ModelError> {
    let given = keys.f64("rope.scaling.attn_factor")?.filter(|given| *given != 1.0);
    let own = 0.1 * factor.unwrap_or(1.0).max(1.0).ln() + 1.0;
    Ok(given.map(|given| given * own))
}

fn factors(keys: &Keys<'_>, tensors: &Tensors, name: &str) -> Result<Vec<f32>, ModelError> {
    let width = usize::try_from(keys.rotated()? / 2).unwrap_or(usize::MAX);
    // Nobody asks for it: the configuration tells the factors.
    tensors.vector(name, width, &mut Hasher::new())?.to_vec1().map_err(ModelError::from)
}

/// The settings that give these factors.
fn llama3(keys: &Keys<'_>, factors: &[f32]) -> Result<Value, ModelError> {
    let theta = keys.f64("rope.freq_base")?.unwrap_or(10_000.0) as f32;
    let factor = factors.iter().copied().fold(1.0, f32::max);
    let stretched = |scaling| Rope { theta, scaling, rotated: 2 * factors.len() }.inverse_frequencies();
    let plain = stretched(RopeScaling::Default);
    let scaled = stretched(RopeScaling::Llama3 {
        factor,
        low_frequency_factor: LOW_FREQUENCY_FACTOR,
        high_frequency_factor: HIGH_FREQUENCY_FACTOR,
        original_positions: ORIGINAL_POSITIONS,
    });
    let expected = plain.iter().zip(&scaled).map(|(plain, scaled)| plain / scaled);
    let near = |(found, expected): (&f32, f32)| (found / expected - 1.0).abs() <= TOLERANCE;
    if factors.iter().all(|factor| *factor == 1.0) {
        return Ok(Value::Null);
    }
    if !factors.iter().zip(expected).all(near) {
        let reason = format!("tensor {FACTORS} does not hold the factors of Llama 3.1; others are not supported");
        return Err(ModelError::file(keys.metadata.arrays.file, reason));
    }
    Ok(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": LOW_FREQUENCY_FACTOR,
        "high_freq_factor": HIGH_FREQUENCY_FACTOR,
        "original_max_position_embeddings": ORIGINAL_POSITIONS,
    }))
}
