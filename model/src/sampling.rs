//! From logits to the next token.

use candle_core::{DType, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};
use candle_transformers::utils::apply_repeat_penalty;

use crate::error::ModelError;

/// How the next token is chosen.
#[derive(Debug, Clone, PartialEq)]
pub struct SamplingConfig {
    /// Divisor of the logits; none (or 0): the likeliest token, always (greedy).
    pub temperature: Option<f64>,
    /// Choose among the `k` likeliest tokens only.
    pub top_k: Option<usize>,
    /// Choose among the likeliest tokens that together reach this probability.
    pub top_p: Option<f64>,
    /// Above 1: tokens already in the history become less likely.
    pub repetition_penalty: Option<f32>,
    /// Seed of the random generator.
    pub seed: u64,
}

impl Default for SamplingConfig {
    /// Greedy.
    fn default() -> Self {
        Self { temperature: None, top_k: None, top_p: None, repetition_penalty: None, seed: 0 }
    }
}

impl SamplingConfig {
    /// Whether the choice is greedy.
    pub fn is_greedy(&self) -> bool {
        self.temperature.is_none_or(|temperature| temperature == 0.0)
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`ModelError::BadSampling`] naming the option that is out of its bounds.
    pub fn validate(&self) -> Result<(), ModelError> {
        let finite = |value: f64| value.is_finite() && value >= 0.0;
        let nucleus = |value: f64| value > 0.0 && value <= 1.0;
        let penalty = |value: f32| value.is_finite() && value > 0.0;
        check("temperature", self.temperature, finite, "0 or above")?;
        check("top_k", self.top_k, |k| k > 0, "1 or above")?;
        check("top_p", self.top_p, nucleus, "above 0 and at most 1")?;
        check("repetition_penalty", self.repetition_penalty, penalty, "above 0")
    }

    fn sampling(&self) -> Sampling {
        let Some(temperature) = self.temperature.filter(|_| !self.is_greedy()) else {
            return Sampling::ArgMax;
        };
        match (self.top_k, self.top_p.filter(|p| *p < 1.0)) {
            (None, None) => Sampling::All { temperature },
            (Some(k), None) => Sampling::TopK { k, temperature },
            (None, Some(p)) => Sampling::TopP { p, temperature },
            (Some(k), Some(p)) => Sampling::TopKThenTopP { k, p, temperature },
        }
    }
}

fn check<T: Copy + ToString>(
    option: &'static str,
    value: Option<T>,
    good: impl Fn(T) -> bool,
    expected: &'static str,
) -> Result<(), ModelError> {
    match value.filter(|value| !good(*value)) {
        None => Ok(()),
        Some(value) => Err(ModelError::BadSampling { option, found: value.to_string(), expected }),
    }
}

/// Chooses tokens; the same configuration and logits give the same tokens, in the same order of calls.
pub struct Sampler {
    processor: LogitsProcessor,
    penalty: Option<f32>,
}

impl std::fmt::Debug for Sampler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sampler").field("penalty", &self.penalty).finish_non_exhaustive()
    }
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    ///
    /// # Errors
    /// [`ModelError::BadSampling`] naming the option that is out of its bounds.
    pub fn new(config: &SamplingConfig) -> Result<Self, ModelError> {
        config.validate()?;
        Ok(Self {
            processor: LogitsProcessor::from_sampling(config.seed, config.sampling()),
            penalty: config.repetition_penalty.filter(|penalty| *penalty != 1.0),
        })
    }

    /// The next token from logits `(vocab)` or `(1, vocab)`; `history` is what the repetition penalty looks at.
    ///
    /// # Errors
    /// [`ModelError::BadInput`] if the logits hold NaN or infinity: the computation went wrong somewhere.
    pub fn sample(&mut self, logits: &Tensor, history: &[u32]) -> Result<u32, ModelError> {
        let logits = logits.flatten_all()?.to_dtype(DType::F32)?;
        let values = logits.to_vec1::<f32>()?;
        if values.is_empty() || !values.iter().all(|value| value.is_finite()) {
            return Err(ModelError::BadInput {
                found: format!("{} logits, not all of them finite", values.len()),
                expected: "finite logits".into(),
            });
        }
        let logits = match self.penalty {
            Some(penalty) => apply_repeat_penalty(&logits, penalty, history)?,
            None => logits,
        };
        Ok(self.processor.sample(&logits)?)
    }
}
