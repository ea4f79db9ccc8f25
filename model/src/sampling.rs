//! From logits to the next token.

use std::collections::BTreeSet;

use candle_core::{DType, Device, Tensor};
use candle_transformers::generation::{LogitsProcessor, Sampling};

use crate::constraint::TokenMask;
use crate::error::ModelError;
use crate::history::History;

/// What presence and frequency penalties may be: as in OpenAI's API.
const PENALTIES: std::ops::RangeInclusive<f32> = -2.0..=2.0;

/// How the next token is chosen: logits are penalised, divided by the temperature and cut (`min_p`, `top_k`, `top_p`, in this
/// order), and one of what is left is drawn.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SamplingConfig {
    /// Divisor of the logits; none (or 0): the likeliest token, always (greedy).
    pub temperature: Option<f64>,
    /// Choose among the `k` likeliest tokens only.
    pub top_k: Option<usize>,
    /// Choose among the likeliest tokens that together reach this probability.
    pub top_p: Option<f64>,
    /// Choose among tokens that are at least this many times as likely as the likeliest one, from 0 to 1.
    pub min_p: Option<f64>,
    /// Above 1: tokens already in the history, that of the prompt included, become less likely.
    pub repetition_penalty: Option<f32>,
    /// Taken from the logit of each token that was generated before, from -2 to 2.
    pub presence_penalty: Option<f32>,
    /// Taken from the logit of each token as often as it was generated before, from -2 to 2.
    pub frequency_penalty: Option<f32>,
    /// Seed of the random generator.
    pub seed: u64,
}

/// Temperatures below are greedy: logits divided by them would leave what 32 bits hold.
const LEAST_TEMPERATURE: f64 = 1e-5;

/// The smallest nucleus: the likeliest token, in 32 bits too.
const LEAST_NUCLEUS: f64 = 1e-6;

/// Factors for tokens that have come before; with others logits would leave what 32 bits hold.
const REPETITION: std::ops::RangeInclusive<f32> = 0.01..=100.0;

impl SamplingConfig {
    /// Whether the choice is greedy.
    pub fn is_greedy(&self) -> bool {
        self.temperature.is_none_or(|temperature| temperature < LEAST_TEMPERATURE)
    }

    /// Checks every option.
    ///
    /// # Errors
    /// [`ModelError::BadSampling`] naming the option that is out of its bounds.
    pub fn validate(&self) -> Result<(), ModelError> {
        let finite = |value: f64| value.is_finite() && value >= 0.0;
        let nucleus = |value: f64| value > 0.0 && value <= 1.0;
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let factor = |value: f32| REPETITION.contains(&value);
        let penalty = |value: f32| PENALTIES.contains(&value);
        check("temperature", self.temperature, finite, "0 or above")?;
        check("top_k", self.top_k, |k| k > 0, "1 or above")?;
        check("top_p", self.top_p, nucleus, "above 0 and at most 1")?;
        check("min_p", self.min_p, share, "from 0 to 1")?;
        check("repetition_penalty", self.repetition_penalty, factor, "from 0.01 to 100")?;
        check("presence_penalty", self.presence_penalty, penalty, "from -2 to 2")?;
        check("frequency_penalty", self.frequency_penalty, penalty, "from -2 to 2")
    }

    /// The penalty for tokens of the whole text, if it changes anything.
    pub fn repetition(&self) -> Option<f32> {
        self.repetition_penalty.filter(|penalty| *penalty != 1.0)
    }

    /// The presence and the frequency penalty, if one of them changes anything.
    pub fn occurrence(&self) -> Option<(f32, f32)> {
        let penalties = (self.presence_penalty.unwrap_or(0.0), self.frequency_penalty.unwrap_or(0.0));
        Some(penalties).filter(|penalties| *penalties != (0.0, 0.0))
    }

    /// The share of the largest probability below which nothing is drawn, if that cuts anything.
    pub fn least_share(&self) -> Option<f64> {
        self.min_p.filter(|share| *share > 0.0 && !self.is_greedy())
    }

    fn sampling(&self) -> Sampling {
        let Some(temperature) = self.temperature.filter(|_| !self.is_greedy()) else {
            return Sampling::ArgMax;
        };
        match (self.top_k, self.top_p.filter(|p| *p < 1.0).map(|p| p.max(LEAST_NUCLEUS))) {
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
///
/// Each token is drawn with a generator of its own, whose seed is that of the text and the number of tokens drawn before: whoever
/// knows both draws the same token, without having drawn the others.
#[derive(Debug, Clone)]
pub struct Sampler {
    config: SamplingConfig,
    drawn: u64,
}

impl Sampler {
    /// A sampler at the start of its random sequence.
    ///
    /// # Errors
    /// [`ModelError::BadSampling`] naming the option that is out of its bounds.
    pub fn new(config: &SamplingConfig) -> Result<Self, ModelError> {
        Self::after(config, 0)
    }

    /// A sampler that has drawn `drawn` tokens.
    ///
    /// # Errors
    /// [`ModelError::BadSampling`] naming the option that is out of its bounds.
    pub fn after(config: &SamplingConfig, drawn: u64) -> Result<Self, ModelError> {
        config.validate()?;
        Ok(Self { config: config.clone(), drawn })
    }

    /// How it chooses.
    pub fn config(&self) -> &SamplingConfig {
        &self.config
    }

    /// How many tokens have been drawn.
    pub fn drawn(&self) -> u64 {
        self.drawn
    }

    /// The next token from logits `(vocab)` or `(1, vocab)`; `history` is what the penalties look at.
    ///
    /// # Errors
    /// [`ModelError::BadInput`] if the logits hold NaN or infinity: the computation went wrong somewhere.
    pub fn sample(&mut self, logits: &Tensor, history: &History) -> Result<u32, ModelError> {
        self.sample_among(logits, history, None)
    }

    /// The same, but only among the tokens in `allowed`, if that is given.
    ///
    /// # Errors
    /// [`ModelError::BadInput`] as for [`Self::sample`], [`ModelError::NothingAllowed`] if no token is allowed.
    pub fn sample_among(
        &mut self,
        logits: &Tensor,
        history: &History,
        allowed: Option<&TokenMask>,
    ) -> Result<u32, ModelError> {
        let mut logits = logits.flatten_all()?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        if logits.is_empty() || !logits.iter().all(|value| value.is_finite()) {
            return Err(ModelError::BadInput {
                found: format!("{} logits, not all of them finite", logits.len()),
                expected: "finite logits".into(),
            });
        }
        self.penalise(&mut logits, history);
        if let Some(allowed) = allowed {
            allowed.apply(&mut logits)?;
        }
        self.cut(&mut logits);
        let vocab = logits.len();
        let logits = Tensor::from_vec(logits, vocab, &Device::Cpu)?;
        let mut processor =
            LogitsProcessor::from_sampling(seed_of(self.config.seed, self.drawn), self.config.sampling());
        let token = processor.sample(&logits)?;
        self.drawn = self.drawn.wrapping_add(1);
        Ok(token)
    }

    fn penalise(&self, logits: &mut [f32], history: &History) {
        if let Some(penalty) = self.config.repetition() {
            // Each token counts once, however often it came (Keskar et al. 2019).
            for id in history.seen().iter().collect::<BTreeSet<_>>() {
                if let Some(logit) = logits.get_mut(*id as usize) {
                    *logit = if *logit >= 0.0 { *logit / penalty } else { *logit * penalty };
                }
            }
        }
        if let Some((presence, frequency)) = self.config.occurrence() {
            for (id, count) in history.generated() {
                if let Some(logit) = logits.get_mut(id as usize) {
                    *logit -= presence + frequency * count as f32;
                }
            }
        }
    }

    /// Forbids what is too unlikely beside the likeliest token, at the temperature.
    fn cut(&self, logits: &mut [f32]) {
        let (Some(share), Some(temperature)) = (self.config.least_share(), self.config.temperature) else { return };
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let least = f64::from(largest) + temperature * share.ln();
        logits.iter_mut().filter(|logit| f64::from(**logit) < least).for_each(|logit| *logit = f32::NEG_INFINITY);
    }
}

/// The seed of the token after `drawn` others: the finaliser of SplitMix64 (Steele, Lea and Flood 2014) over both.
fn seed_of(seed: u64, drawn: u64) -> u64 {
    /// The step of SplitMix64: 2^64 over the golden ratio.
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |mut z: u64| {
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    // Seeds that follow one another must not share the rest of their sequences.
    mix(mix(seed.wrapping_add(STEP)).wrapping_add(drawn.wrapping_mul(STEP)))
}
