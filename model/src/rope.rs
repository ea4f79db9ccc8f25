//! Rotary position embedding (Su et al. 2021) with the scalings Llama checkpoints use.

use std::f32::consts::PI;

use candle_core::{Device, Tensor};
use serde_json::{Map, Value};

use crate::error::ModelError;

/// How the rotary frequencies are stretched for longer contexts.
#[derive(Debug, Clone, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    Default,
    /// All frequencies divided by one factor.
    Linear {
        /// The divisor, at least 1.
        factor: f32,
    },
    /// Llama 3.1: low frequencies divided, high ones kept, smooth in between.
    Llama3 {
        /// The divisor of low frequencies.
        factor: f32,
        /// Wavelengths above `original_positions / low_frequency_factor` are divided.
        low_frequency_factor: f32,
        /// Wavelengths below `original_positions / high_frequency_factor` are kept.
        high_frequency_factor: f32,
        /// The context the model was first trained with.
        original_positions: u32,
    },
}

/// Default of `rope_theta` where config.json is silent, as in the reference implementation.
const DEFAULT_THETA: f64 = 10_000.0;

/// Base and scaling of the rotary embedding.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rope {
    pub(crate) theta: f32,
    pub(crate) scaling: RopeScaling,
}

impl Rope {
    /// Reads `rope_theta` and `rope_scaling`, or the newer `rope_parameters` that holds both.
    pub(crate) fn parse(
        theta: Option<f64>,
        scaling: Option<&Map<String, Value>>,
        parameters: Option<&Map<String, Value>>,
    ) -> Result<Self, ModelError> {
        let (key, map) = match (parameters, scaling) {
            (Some(map), _) => ("rope_parameters", Some(map)),
            (None, map) => ("rope_scaling", map),
        };
        let inner = map.and_then(|map| map.get("rope_theta")).and_then(Value::as_f64);
        let theta = inner.or(theta).unwrap_or(DEFAULT_THETA) as f32;
        if !(theta.is_finite() && theta >= 1.0) {
            return Err(ModelError::config("rope_theta", format!("is {theta}; it must be at least 1")));
        }
        let scaling = match map {
            Some(map) => parse_scaling(key, map)?,
            None => RopeScaling::Default,
        };
        Ok(Self { theta, scaling })
    }

    /// `head_dim / 2` frequencies in radians per position.
    pub(crate) fn inverse_frequencies(&self, head_dim: usize) -> Vec<f32> {
        let base = |i: usize| 1.0 / self.theta.powf(i as f32 / head_dim as f32);
        (0..head_dim).step_by(2).map(|i| self.stretch(base(i))).collect()
    }

    fn stretch(&self, frequency: f32) -> f32 {
        let RopeScaling::Llama3 { factor, low_frequency_factor: low, high_frequency_factor: high, original_positions } =
            self.scaling
        else {
            return match self.scaling {
                RopeScaling::Linear { factor } => frequency / factor,
                _ => frequency,
            };
        };
        let original = original_positions as f32;
        let wavelength = 2.0 * PI / frequency;
        if wavelength < original / high {
            frequency
        } else if wavelength > original / low {
            frequency / factor
        } else {
            let smooth = (original / wavelength - low) / (high - low);
            (1.0 - smooth) * frequency / factor + smooth * frequency
        }
    }
}

fn parse_scaling(key: &str, map: &Map<String, Value>) -> Result<RopeScaling, ModelError> {
    let number = |name: &str| {
        let value = map.get(name).and_then(Value::as_f64).map(|value| value as f32);
        value
            .filter(|value| value.is_finite() && *value > 0.0)
            .ok_or_else(|| ModelError::config(format!("{key}.{name}"), "must be a number above 0"))
    };
    let kind = map.get("rope_type").or_else(|| map.get("type"));
    match kind.and_then(Value::as_str) {
        None if kind.is_none_or(Value::is_null) => Ok(RopeScaling::Default),
        Some("default") => Ok(RopeScaling::Default),
        Some("linear") => Ok(RopeScaling::Linear { factor: number("factor")? }),
        Some("llama3") => {
            let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
            if low >= high {
                let reason = format!("is {high}; it must be above low_freq_factor {low}");
                return Err(ModelError::config(format!("{key}.high_freq_factor"), reason));
            }
            Ok(RopeScaling::Llama3 {
                factor: number("factor")?,
                low_frequency_factor: low,
                high_frequency_factor: high,
                original_positions: number("original_max_position_embeddings")? as u32,
            })
        }
        _ => {
            let found = kind.map(Value::to_string).unwrap_or_default();
            let reason = format!("is {found}; supported are default, linear and llama3");
            Err(ModelError::config(format!("{key}.rope_type"), reason))
        }
    }
}

/// Cosines and sines `(rows, head_dim / 2)` for the rows' positions only; there is no table of all positions.
pub(crate) fn cos_sin(
    inverse_frequencies: &[f32],
    positions: impl Iterator<Item = usize> + Clone,
) -> Result<(Tensor, Tensor), ModelError> {
    let rows = positions.clone().count();
    let angles = || positions.clone().flat_map(|position| inverse_frequencies.iter().map(move |f| position as f32 * f));
    let shape = (rows, inverse_frequencies.len());
    let cos = Tensor::from_vec(angles().map(f32::cos).collect::<Vec<_>>(), shape, &Device::Cpu)?;
    let sin = Tensor::from_vec(angles().map(f32::sin).collect::<Vec<_>>(), shape, &Device::Cpu)?;
    Ok((cos, sin))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<Rope, ModelError> {
        Rope::parse(Some(500_000.0), value.as_object(), None)
    }

    #[test]
    fn both_spellings_mean_the_same() {
        let old = parse(json!({"type": "linear", "factor": 2.0})).unwrap();
        let new = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 500_000.0});
        assert_eq!(old, Rope::parse(None, None, new.as_object()).unwrap());
    }

    #[test]
    fn an_unknown_type_is_named() {
        let error = parse(json!({"rope_type": "yarn", "factor": 4.0})).unwrap_err();
        assert!(error.to_string().contains("rope_scaling.rope_type"), "{error}");
        assert!(error.to_string().contains("yarn"), "{error}");
        assert!(parse(json!({"rope_type": "linear", "factor": -1.0})).is_err());
        assert!(parse(json!({"rope_type": 3})).is_err());
    }
}
