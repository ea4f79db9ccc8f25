//! Rotary position embedding (Su et al. 2021) and its scalings for longer contexts, as Hugging Face's `transformers` computes
//! them. All depend on the configuration alone, never on how long a text has become: keys are rotated once.

use std::f32::consts::PI;

use candle_core::{Device, Tensor};
use serde_json::{Map, Value};

use crate::config::{BlockKind, ModelConfig};
use crate::error::ModelError;

/// The most frequencies of a rotary embedding: half the widest head.
const MOST_FACTORS: usize = 512;

/// A rotary embedding: base, scaling, and how much of a head is rotated.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Base of the frequencies.
    pub theta: f32,
    /// How they are stretched.
    pub scaling: RopeScaling,
    /// Elements of a head that are rotated, the first ones; even.
    pub rotated: usize,
}

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
    /// YaRN (Peng et al. 2023): the same idea with a ramp over the frequencies' numbers.
    Yarn {
        /// The divisor of low frequencies.
        factor: f32,
        /// Frequencies that turn more often than this over the original context are kept.
        beta_fast: f32,
        /// Frequencies that turn less often than this are divided.
        beta_slow: f32,
        /// Whether the ramp begins and ends at whole numbers.
        truncate: bool,
        /// The context the model was first trained with.
        original_positions: u32,
        /// What cosines and sines are multiplied by.
        magnitude: f32,
    },
    /// LongRoPE (Ding et al. 2024): each frequency divided by a factor of its own.
    Long {
        /// One divisor for each frequency.
        factors: Vec<f32>,
        /// What cosines and sines are multiplied by.
        magnitude: f32,
    },
}

/// What of `config.json` the reading of a rotary embedding needs besides its own maps.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RopeContext {
    /// Base where the map is silent.
    pub(crate) theta: f64,
    /// Elements of a head that are rotated.
    pub(crate) rotated: usize,
    /// `max_position_embeddings`.
    pub(crate) positions: usize,
    /// `original_max_position_embeddings` beside the map, which goes before what the map holds.
    pub(crate) original_positions: Option<usize>,
}

impl Rope {
    /// Reads a `rope_scaling` map, or the newer `rope_parameters` that holds the base too; `key` is its name.
    pub(crate) fn parse(
        key: &str,
        map: Option<&Map<String, Value>>,
        context: &RopeContext,
    ) -> Result<Self, ModelError> {
        let inner = map.and_then(|map| map.get("rope_theta")).and_then(Value::as_f64);
        let theta = inner.unwrap_or(context.theta) as f32;
        if !(theta.is_finite() && theta >= 1.0) {
            return Err(ModelError::config("rope_theta", format!("is {theta}; it must be at least 1")));
        }
        let scaling = match map {
            Some(map) => ScalingMap { key, map, context }.parse()?,
            None => RopeScaling::Default,
        };
        Ok(Self { theta, scaling, rotated: context.rotated })
    }

    /// `rotated / 2` frequencies in radians per position.
    pub(crate) fn inverse_frequencies(&self) -> Vec<f32> {
        let base = |i: usize| 1.0 / self.theta.powf(i as f32 / self.rotated as f32);
        let bases = (0..self.rotated).step_by(2).map(base);
        bases.enumerate().map(|(number, frequency)| self.stretch(number, frequency)).collect()
    }

    /// What cosines and sines are multiplied by.
    pub(crate) fn magnitude(&self) -> f32 {
        match self.scaling {
            RopeScaling::Yarn { magnitude, .. } | RopeScaling::Long { magnitude, .. } => magnitude,
            RopeScaling::Default | RopeScaling::Linear { .. } | RopeScaling::Llama3 { .. } => 1.0,
        }
    }

    fn stretch(&self, number: usize, frequency: f32) -> f32 {
        match &self.scaling {
            RopeScaling::Default => frequency,
            RopeScaling::Linear { factor } => frequency / factor,
            RopeScaling::Llama3 { factor, low_frequency_factor, high_frequency_factor, original_positions } => {
                let (low, high) = (*low_frequency_factor, *high_frequency_factor);
                let original = *original_positions as f32;
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
            RopeScaling::Yarn { factor, .. } => {
                let (low, high) = self.yarn_ramp();
                let divided = ((number as f32 - low) / (high - low)).clamp(0.0, 1.0);
                frequency / factor * divided + frequency * (1.0 - divided)
            }
            RopeScaling::Long { factors, .. } => frequency / factors.get(number).copied().unwrap_or(1.0),
        }
    }

    /// The numbers of the last frequency that is kept and of the first that is divided by the whole factor.
    fn yarn_ramp(&self) -> (f32, f32) {
        let RopeScaling::Yarn { beta_fast, beta_slow, truncate, original_positions, .. } = self.scaling else {
            return (0.0, 1.0);
        };
        let (dim, theta) = (self.rotated as f64, f64::from(self.theta));
        let number = |turns: f32| {
            let wavelength = f64::from(original_positions) / (f64::from(turns) * 2.0 * std::f64::consts::PI);
            dim * wavelength.ln() / (2.0 * theta.ln())
        };
        let (mut low, mut high) = (number(beta_fast), number(beta_slow));
        if truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        let (low, high) = (low.max(0.0), high.min(dim - 1.0));
        // As in the reference implementation: no division by zero.
        let high = if low == high { high + 0.001 } else { high };
        (low as f32, high as f32)
    }
}

/// A map that describes a scaling, and its name in `config.json`.
struct ScalingMap<'a> {
    key: &'a str,
    map: &'a Map<String, Value>,
    context: &'a RopeContext,
}

impl ScalingMap<'_> {
    fn parse(&self) -> Result<RopeScaling, ModelError> {
        let kind = self.map.get("rope_type").or_else(|| self.map.get("type"));
        let (kind, keys): (_, &[&str]) = match kind.and_then(Value::as_str) {
            None if kind.is_none_or(Value::is_null) => (RopeScaling::Default, &[]),
            Some("default") => (RopeScaling::Default, &[]),
            Some("linear") => (RopeScaling::Linear { factor: self.number("factor")? }, &["factor"]),
            Some("llama3") => (self.llama3()?, &["factor", "low_freq_factor", "high_freq_factor", ORIGINAL]),
            Some("yarn") => (self.yarn()?, &YARN_KEYS),
            Some("longrope" | "su") => (self.long()?, &LONG_KEYS),
            _ => {
                let found = kind.map(Value::to_string).unwrap_or_default();
                let reason = format!("is {found}; supported are default, linear, llama3, yarn and longrope");
                return Err(self.wrong("rope_type", reason));
            }
        };
        let known = |name: &str| keys.contains(&name) || COMMON_KEYS.contains(&name);
        let unset = |value: &Value| value.is_null();
        match self.map.iter().find(|(name, value)| !known(name) && !unset(value)) {
            Some((name, value)) if !matches!(kind, RopeScaling::Default) => {
                Err(self.wrong(name, format!("is {value}, which this type of scaling does not know")))
            }
            _ => Ok(kind),
        }
    }

    fn llama3(&self) -> Result<RopeScaling, ModelError> {
        let (low, high) = (self.number("low_freq_factor")?, self.number("high_freq_factor")?);
        if low >= high {
            return Err(self.wrong("high_freq_factor", format!("is {high}; it must be above low_freq_factor {low}")));
        }
        Ok(RopeScaling::Llama3 {
            factor: self.number("factor")?,
            low_frequency_factor: low,
            high_frequency_factor: high,
            original_positions: self.original_positions()?,
        })
    }

    fn yarn(&self) -> Result<RopeScaling, ModelError> {
        let original_positions = self.original_positions()?;
        let stretch = self.context.positions as f32 / original_positions as f32;
        let factor = self.optional("factor")?.unwrap_or(stretch);
        let (beta_fast, beta_slow) =
            (self.optional("beta_fast")?.unwrap_or(32.0), self.optional("beta_slow")?.unwrap_or(1.0));
        if beta_fast <= beta_slow {
            return Err(self.wrong("beta_fast", format!("is {beta_fast}; it must be above beta_slow {beta_slow}")));
        }
        let of = |weight: f32| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        let magnitude =
            match (self.optional("attention_factor")?, self.optional("mscale")?, self.optional("mscale_all_dim")?) {
                (Some(given), _, _) => given,
                (None, Some(one), Some(all)) => of(one) / of(all),
                (None, _, _) => of(1.0),
            };
        let truncate = self.map.get("truncate").and_then(Value::as_bool).unwrap_or(true);
        Ok(RopeScaling::Yarn { factor, beta_fast, beta_slow, truncate, original_positions, magnitude })
    }

    /// The reference implementation takes the short factors until a text is longer than the original context, and the long ones
    /// for all its positions from then on, which would turn every key that is cached. Here one set serves all texts: the long
    /// factors where the model was made for more than its original context (so does vLLM).
    fn long(&self) -> Result<RopeScaling, ModelError> {
        let original = self.original_positions()? as f32;
        let stretch = self.context.positions as f32 / original;
        let factor = self.optional("factor")?.unwrap_or(stretch);
        let magnitude = match self.optional("attention_factor")? {
            Some(given) => given,
            None if factor <= 1.0 || original <= 1.0 => 1.0,
            None => (1.0 + factor.ln() / original.ln()).sqrt(),
        };
        let (short, long) = (self.factors("short_factor")?, self.factors("long_factor")?);
        Ok(RopeScaling::Long { factors: if stretch > 1.0 { long } else { short }, magnitude })
    }

    fn factors(&self, name: &str) -> Result<Vec<f32>, ModelError> {
        let wanted = self.context.rotated / 2;
        let list = self.map.get(name).and_then(Value::as_array);
        let list = list.filter(|list| list.len() == wanted && wanted <= MOST_FACTORS);
        let above_zero = |value: &Value| value.as_f64().map(|value| value as f32).filter(|v| v.is_finite() && *v > 0.0);
        let factors = list.and_then(|list| list.iter().map(above_zero).collect());
        factors.ok_or_else(|| self.wrong(name, format!("must be {wanted} numbers above 0, one for each frequency")))
    }

    fn original_positions(&self) -> Result<u32, ModelError> {
        let beside = self.context.original_positions;
        let value = match beside {
            Some(positions) => positions as f32,
            None => self.optional(ORIGINAL)?.unwrap_or(self.context.positions as f32),
        };
        if value < 1.0 {
            return Err(self.wrong(ORIGINAL, format!("is {value}; it must be at least 1")));
        }
        Ok(value as u32)
    }

    fn number(&self, name: &str) -> Result<f32, ModelError> {
        self.optional(name)?.ok_or_else(|| self.wrong(name, "must be a number above 0".into()))
    }

    fn optional(&self, name: &str) -> Result<Option<f32>, ModelError> {
        let Some(value) = self.map.get(name).filter(|value| !value.is_null()) else {
            return Ok(None);
        };
        let number = value.as_f64().map(|value| value as f32).filter(|value| value.is_finite() && *value > 0.0);
        number.map(Some).ok_or_else(|| self.wrong(name, format!("is {value}; it must be a number above 0")))
    }

    fn wrong(&self, name: &str, reason: String) -> ModelError {
        ModelError::config(format!("{}.{name}", self.key), reason)
    }
}

const ORIGINAL: &str = "original_max_position_embeddings";
/// Keys of any scaling; `partial_rotary_factor` is the family's to read.
const COMMON_KEYS: [&str; 4] = ["rope_type", "type", "rope_theta", "partial_rotary_factor"];
const YARN_KEYS: [&str; 8] =
    ["factor", "beta_fast", "beta_slow", "truncate", "attention_factor", "mscale", "mscale_all_dim", ORIGINAL];
const LONG_KEYS: [&str; 5] = ["factor", "short_factor", "long_factor", "attention_factor", ORIGINAL];

/// The frequencies of a model's blocks, worked out once.
#[derive(Debug)]
pub(crate) struct Frequencies {
    all: RopeFrequencies,
    /// Of blocks with a window, where they are others.
    local: Option<RopeFrequencies>,
}

#[derive(Debug)]
struct RopeFrequencies {
    inverse: Vec<f32>,
    magnitude: f32,
}

/// Cosines and sines `(rows, rotated / 2)` for the positions of a call's rows; there is no table of all positions.
pub(crate) struct Turns {
    all: (Tensor, Tensor),
    local: Option<(Tensor, Tensor)>,
}

impl Frequencies {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        let of = |rope: &Rope| RopeFrequencies { inverse: rope.inverse_frequencies(), magnitude: rope.magnitude() };
        Self { all: of(&config.rope), local: config.local_rope.as_ref().map(of) }
    }

    pub(crate) fn turns(&self, positions: impl Iterator<Item = usize> + Clone) -> Result<Turns, ModelError> {
        let local = self.local.as_ref().map(|local| local.turns(positions.clone())).transpose()?;
        Ok(Turns { all: self.all.turns(positions)?, local })
    }
}

impl RopeFrequencies {
    fn turns(&self, positions: impl Iterator<Item = usize> + Clone) -> Result<(Tensor, Tensor), ModelError> {
        let shape = (positions.clone().count(), self.inverse.len());
        let angles = || positions.clone().flat_map(|p| self.inverse.iter().map(move |f| p as f32 * f));
        let of = |function: fn(f32) -> f32| angles().map(|angle| function(angle) * self.magnitude).collect::<Vec<_>>();
        let tensor = |values| Tensor::from_vec(values, shape, &Device::Cpu);
        Ok((tensor(of(f32::cos))?, tensor(of(f32::sin))?))
    }
}

impl Turns {
    /// Those of a block.
    pub(crate) fn of(&self, kind: BlockKind) -> &(Tensor, Tensor) {
        self.local.as_ref().filter(|_| kind.window.is_some()).unwrap_or(&self.all)
    }

    pub(crate) fn to_device(&self, device: &Device) -> Result<Self, ModelError> {
        let moved = |(cos, sin): &(Tensor, Tensor)| -> Result<(Tensor, Tensor), ModelError> {
            Ok((cos.to_device(device)?, sin.to_device(device)?))
        };
        Ok(Self { all: moved(&self.all)?, local: self.local.as_ref().map(moved).transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const CONTEXT: RopeContext =
        RopeContext { theta: 500_000.0, rotated: 16, positions: 4096, original_positions: None };

    fn parse(value: Value) -> Result<Rope, ModelError> {
        Rope::parse("rope_scaling", value.as_object(), &CONTEXT)
    }

    #[test]
    fn both_spellings_mean_the_same() {
        let old = parse(json!({"type": "linear", "factor": 2.0})).unwrap();
        let new = json!({"rope_type": "linear", "factor": 2.0, "rope_theta": 500_000.0});
        let context = RopeContext { theta: 10_000.0, ..CONTEXT };
        assert_eq!(old, Rope::parse("rope_parameters", new.as_object(), &context).unwrap());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let wrong = [
            (json!({"rope_type": "dynamic", "factor": 4.0}), "rope_scaling.rope_type is \"dynamic\""),
            (json!({"rope_type": 3}), "rope_scaling.rope_type"),
            (json!({"rope_type": "linear", "factor": -1.0}), "rope_scaling.factor"),
            (json!({"rope_type": "linear", "factor": 2.0, "beta_fast": 3}), "rope_scaling.beta_fast"),
            (json!({"rope_type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 1}), "high_freq"),
            (json!({"rope_type": "yarn", "factor": 4, "beta_fast": 1, "beta_slow": 2}), "rope_scaling.beta_fast"),
            (json!({"rope_type": "yarn", "original_max_position_embeddings": 0.5}), "original_max"),
            (json!({"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}), "short_factor must be 8"),
            (json!({"rope_type": "default", "rope_theta": 0.5}), "rope_theta"),
        ];
        for (value, named) in wrong {
            let error = parse(value).unwrap_err().to_string();
            assert!(error.contains(named), "{named}: {error}");
        }
    }

    #[test]
    fn yarn_keeps_high_frequencies_and_divides_low_ones() {
        let plain = parse(json!({})).unwrap().inverse_frequencies();
        let yarn =
            parse(json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1024})).unwrap();
        let stretched = yarn.inverse_frequencies();
        assert_eq!(stretched[0], plain[0]);
        assert_eq!(stretched[7], plain[7] / 4.0);
        assert!((yarn.magnitude() - 1.138_629_4).abs() < 1e-6);
    }

    #[test]
    fn long_factors_are_for_models_made_longer() {
        let map =
            json!({"type": "su", "short_factor": [1, 1, 1, 1, 1, 1, 1, 1], "long_factor": [2, 2, 2, 2, 2, 2, 2, 2]});
        let parse = |original| {
            let context = RopeContext { original_positions: Some(original), ..CONTEXT };
            Rope::parse("rope_scaling", map.as_object(), &context).unwrap()
        };
        let plain = parse(4096);
        assert_eq!((plain.inverse_frequencies()[0], plain.magnitude()), (1.0, 1.0));
        let long = parse(1024);
        assert_eq!(long.inverse_frequencies()[0], 0.5);
        assert!((long.magnitude() - (1.0_f32 + 4.0_f32.ln() / 1024.0_f32.ln()).sqrt()).abs() < 1e-6);
    }
}
