//! What the model's makers suggest for generating text.

use serde::Deserialize;

use crate::config::ModelConfig;
use crate::error::ModelError;

/// The parts of `generation_config.json` that matter, with `config.json` where it is silent.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationDefaults {
    /// The id that starts a text.
    pub bos: Option<u32>,
    /// The ids that end a text.
    pub eos: Vec<u32>,
    /// Whether the makers suggest sampling rather than greedy choice.
    pub do_sample: bool,
    /// Suggested temperature.
    pub temperature: Option<f64>,
    /// Suggested nucleus.
    pub top_p: Option<f64>,
    /// Suggested number of candidates.
    pub top_k: Option<usize>,
    /// Suggested repetition penalty.
    pub repetition_penalty: Option<f32>,
    /// Suggested length of an answer, in tokens.
    pub max_new_tokens: Option<u32>,
}

/// One token id or a list of them.
#[derive(Deserialize)]
#[serde(untagged)]
enum TokenIds {
    One(u32),
    Many(Vec<u32>),
}

impl TokenIds {
    fn into_vec(self) -> Vec<u32> {
        match self {
            Self::One(id) => vec![id],
            Self::Many(ids) => ids,
        }
    }
}

#[derive(Default, Deserialize)]
struct RawGeneration {
    bos_token_id: Option<TokenIds>,
    eos_token_id: Option<TokenIds>,
    do_sample: Option<bool>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<usize>,
    repetition_penalty: Option<f32>,
    max_new_tokens: Option<u32>,
}

impl GenerationDefaults {
    pub(crate) fn parse(json: Option<&[u8]>, label: &str, config: &ModelConfig) -> Result<Self, ModelError> {
        let raw: RawGeneration = match json {
            Some(json) => serde_json::from_slice(json).map_err(|error| ModelError::file(label, error))?,
            None => RawGeneration::default(),
        };
        let bos = raw.bos_token_id.and_then(|ids| ids.into_vec().first().copied());
        Ok(Self {
            bos: bos.or(config.bos),
            eos: raw.eos_token_id.map_or_else(|| config.eos.clone(), TokenIds::into_vec),
            do_sample: raw.do_sample.unwrap_or(false),
            temperature: raw.temperature,
            top_p: raw.top_p,
            top_k: raw.top_k,
            repetition_penalty: raw.repetition_penalty,
            max_new_tokens: raw.max_new_tokens,
        })
    }
}
