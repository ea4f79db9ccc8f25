//! The fields that chat and completions share, and what they mean for sampling.

use serde::Deserialize;
use serde_json::Value;
use swarm_client::GenerationConfig;
use swarm_model::{GenerationDefaults, SamplingConfig, StopFilter};

use super::error::ApiError;

/// The most answers to one prompt: they are generated one after the other.
const MOST_ANSWERS: u32 = 16;

/// The most strings that end an answer: OpenAI's number.
const MOST_STOPS: usize = 4;

/// What OpenAI's API samples with when nobody says how.
const DEFAULT_TEMPERATURE: f64 = 1.0;

/// Tokens of an answer in a chat when neither the request nor the model's makers say how many: some pages. Its room is
/// reserved on every server, so that it is not the whole context.
const DEFAULT_ANSWER: usize = 1024;

/// The fields that both endpoints know.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Options {
    pub(crate) model: Option<String>,
    #[serde(default)]
    pub(crate) stream: Option<bool>,
    pub(crate) stream_options: Option<StreamOptions>,
    pub(crate) max_tokens: Option<u32>,
    pub(crate) max_completion_tokens: Option<u32>,
    pub(crate) n: Option<u32>,
    pub(crate) best_of: Option<u32>,
    pub(crate) seed: Option<i64>,
    pub(crate) temperature: Option<f64>,
    pub(crate) top_p: Option<f64>,
    /// Not OpenAI's: as in `swarm-node generate`.
    pub(crate) top_k: Option<u32>,
    /// Not OpenAI's.
    pub(crate) min_p: Option<f64>,
    /// Not OpenAI's.
    pub(crate) repetition_penalty: Option<f32>,
    pub(crate) presence_penalty: Option<f32>,
    pub(crate) frequency_penalty: Option<f32>,
    pub(crate) stop: Option<Stop>,
    pub(crate) logit_bias: Option<Value>,
    pub(crate) service_tier: Option<String>,
}

/// How an answer is streamed.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct StreamOptions {
    pub(crate) include_usage: Option<bool>,
}

/// Where an answer ends.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a string or a list of strings")]
pub(crate) enum Stop {
    One(String),
    Many(Vec<String>),
}

impl Stop {
    /// The strings.
    pub(crate) fn strings(&self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one.clone()],
            Self::Many(many) => many.clone(),
        }
    }
}

impl Options {
    /// Whether the answer is streamed.
    pub(crate) fn streams(&self) -> bool {
        self.stream.unwrap_or(false)
    }

    /// Whether a stream ends with a chunk that has the usage.
    pub(crate) fn includes_usage(&self) -> bool {
        self.stream_options.as_ref().and_then(|options| options.include_usage).unwrap_or(false)
    }

    /// How many answers to each prompt.
    ///
    /// # Errors
    /// [`ApiError`] if none, or more than are given.
    pub(crate) fn answers(&self) -> Result<u32, ApiError> {
        let n = self.n.unwrap_or(1);
        if !(1..=MOST_ANSWERS).contains(&n) {
            return Err(ApiError::bad("n", format!("n is {n}; it must be from 1 to {MOST_ANSWERS}.")));
        }
        if self.best_of.is_some_and(|best| best != n) {
            return Err(ApiError::unsupported("best_of", "best_of is not supported here, unless it is n."));
        }
        if self.stream_options.is_some() && !self.streams() {
            return Err(ApiError::bad("stream_options", "stream_options is only allowed when stream is true."));
        }
        if self.logit_bias.as_ref().is_some_and(|bias| bias.as_object().is_none_or(|bias| !bias.is_empty())) {
            return Err(ApiError::unsupported("logit_bias", "logit_bias is not supported here; leave it out."));
        }
        let stops = self.stops().len();
        if stops > MOST_STOPS {
            return Err(ApiError::bad("stop", format!("stop has {stops} strings; at most {MOST_STOPS} are taken.")));
        }
        // Each answer gets a copy: what is too long is refused before.
        StopFilter::new(&self.stops()).map_err(|error| ApiError::bad("stop", format!("{error}.")))?;
        Ok(n)
    }

    /// The most tokens of one answer, before the context is looked at; `silent` if nobody says how many.
    ///
    /// # Errors
    /// [`ApiError`] if there are to be none.
    pub(crate) fn most_tokens(&self, silent: usize) -> Result<usize, ApiError> {
        match self.max_completion_tokens.or(self.max_tokens) {
            Some(0) => {
                let field = if self.max_completion_tokens.is_some() { "max_completion_tokens" } else { "max_tokens" };
                Err(ApiError::bad(field, format!("{field} is 0; it must be at least 1.")))
            }
            Some(most) => Ok(most as usize),
            None => Ok(silent),
        }
    }

    /// How tokens are chosen: as the request says, else as the model's makers suggest, else as OpenAI does.
    ///
    /// # Errors
    /// [`ApiError`] names the field that is out of its bounds.
    pub(crate) fn sampling(&self, defaults: &GenerationDefaults, seed: u64) -> Result<SamplingConfig, ApiError> {
        within("temperature", self.temperature, 0.0, 2.0)?;
        within("top_p", self.top_p, 0.0, 1.0)?;
        within("min_p", self.min_p, 0.0, 1.0)?;
        within("presence_penalty", self.presence_penalty.map(f64::from), -2.0, 2.0)?;
        within("frequency_penalty", self.frequency_penalty.map(f64::from), -2.0, 2.0)?;
        let temperature = self.temperature.or(defaults.temperature).unwrap_or(DEFAULT_TEMPERATURE);
        // Nothing but the likeliest token has a part in a nucleus of nothing.
        let top_p = self.top_p.or(defaults.top_p).map(|top_p| top_p.max(f64::MIN_POSITIVE));
        let config = SamplingConfig {
            temperature: Some(temperature),
            top_k: self.top_k.map(|k| k as usize).or(defaults.top_k),
            top_p,
            min_p: self.min_p,
            repetition_penalty: self.repetition_penalty.or(defaults.repetition_penalty),
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            seed,
        };
        config.validate()?;
        Ok(config)
    }

    /// Where an answer ends.
    pub(crate) fn stops(&self) -> Vec<String> {
        self.stop.as_ref().map(Stop::strings).unwrap_or_default()
    }

    /// How each answer to a prompt is generated: like `base`, each with the next seed.
    ///
    /// # Errors
    /// [`ApiError`] names the field that is out of its bounds.
    pub(crate) fn configs(
        &self,
        defaults: &GenerationDefaults,
        seed: u64,
        base: &GenerationConfig,
    ) -> Result<Vec<GenerationConfig>, ApiError> {
        let config = |answer: u32| {
            let sampling = self.sampling(defaults, seed.wrapping_add(u64::from(answer)))?;
            Ok(GenerationConfig { sampling, stop: self.stops(), ..base.clone() })
        };
        (0..self.answers()?).map(config).collect()
    }

    /// The seed of the first answer, if it is to be the same each time.
    pub(crate) fn seed(&self) -> u64 {
        // Negative seeds are as good as others.
        self.seed.map_or_else(rand::random, |seed| seed as u64)
    }
}

/// The tokens of an answer in a chat that nobody has limited.
pub(crate) fn silent_answer(defaults: &GenerationDefaults) -> usize {
    defaults.max_new_tokens.map_or(DEFAULT_ANSWER, |most| most.max(1) as usize)
}

fn within(field: &str, value: Option<f64>, least: f64, most: f64) -> Result<(), ApiError> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(ApiError::bad(field, format!("{field} is {value}; it must be from {least} to {most}.")))
        }
        _ => Ok(()),
    }
}
