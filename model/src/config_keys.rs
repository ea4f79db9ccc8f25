//! `config.json` as it is written: typed look-ups that name the key that is wrong, and a record of what was looked up, so
//! that a key which nobody understood is found.

use std::cell::RefCell;
use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::error::ModelError;

/// Keys that change no number a model computes: training, generation, labels, bookkeeping. So do those that begin with one of
/// [`HARMLESS_PREFIXES`].
const HARMLESS: [&str; 58] = [
    "architectures",
    "attention_dropout",
    "attn_implementation",
    "auto_map",
    "bad_words_ids",
    "begin_suppress_tokens",
    "cache_implementation",
    "chunk_size_feed_forward",
    "classifier_dropout",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "dtype",
    "early_stopping",
    "embd_pdrop",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "finetuning_task",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "hidden_dropout",
    "id2label",
    "initializer_range",
    "label2id",
    "length_penalty",
    "max_length",
    "min_length",
    "model_type",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_attentions",
    "output_hidden_states",
    "output_router_logits",
    "output_scores",
    "pad_token_id",
    "prefix",
    "pretraining_tp",
    "problem_type",
    "remove_invalid_values",
    "repetition_penalty",
    "resid_pdrop",
    "return_dict",
    "return_dict_in_generate",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "sep_token_id",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tokenizer_class",
    "top_k",
    "top_p",
    "torch_dtype",
    "torchscript",
    "transformers_version",
    "use_cache",
];
/// `_name_or_path` and the like; what fine-tuning tools leave behind.
const HARMLESS_PREFIXES: [&str; 2] = ["_", "unsloth_"];

/// The keys of a `config.json`; `null` is as good as absent.
pub(crate) struct ConfigKeys<'a> {
    map: &'a Map<String, Value>,
    understood: RefCell<BTreeSet<&'static str>>,
}

impl<'a> ConfigKeys<'a> {
    pub(crate) fn new(map: &'a Map<String, Value>) -> Self {
        Self { map, understood: RefCell::default() }
    }

    pub(crate) fn get(&self, key: &'static str) -> Option<&'a Value> {
        self.understood.borrow_mut().insert(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// Whether the key is there, be it as `null`.
    pub(crate) fn present(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Says that keys which this family's reference implementation does not read may be there.
    pub(crate) fn ignore(&self, keys: &[&'static str]) {
        self.understood.borrow_mut().extend(keys);
    }

    /// Refuses a key that is there and not `neutral`: what it asks for is not supported.
    pub(crate) fn only(&self, key: &'static str, neutral: &Value) -> Result<(), ModelError> {
        let same = |value: &Value| {
            let numbers = value.as_f64().zip(neutral.as_f64());
            value == neutral || numbers.is_some_and(|(value, neutral)| value == neutral)
        };
        match self.get(key).filter(|value| !same(value)) {
            Some(value) => Err(ModelError::config(key, format!("is {value}; supported is {neutral}"))),
            None => Ok(()),
        }
    }

    fn typed<T>(
        &self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, ModelError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let wrong = || ModelError::config(key, format!("is {value}; it must be {expected}"));
        read(value).ok_or_else(wrong).map(Some)
    }

    pub(crate) fn count(&self, key: &'static str) -> Result<Option<u64>, ModelError> {
        self.typed(key, "a whole number", Value::as_u64)
    }

    pub(crate) fn number(&self, key: &'static str) -> Result<Option<f64>, ModelError> {
        self.typed(key, "a number", Value::as_f64)
    }

    /// A number above 0 that f32 holds.
    pub(crate) fn positive(&self, key: &'static str) -> Result<Option<f32>, ModelError> {
        self.typed(key, "a number above 0", |value| {
            let number = value.as_f64()? as f32;
            (number.is_finite() && number > 0.0).then_some(number)
        })
    }

    pub(crate) fn flag(&self, key: &'static str, silent: bool) -> Result<bool, ModelError> {
        Ok(self.typed(key, "true or false", Value::as_bool)?.unwrap_or(silent))
    }

    pub(crate) fn word(&self, key: &'static str) -> Result<Option<&'a str>, ModelError> {
        self.typed(key, "a word", Value::as_str)
    }

    pub(crate) fn list(&self, key: &'static str) -> Result<Option<&'a Vec<Value>>, ModelError> {
        self.typed(key, "a list", Value::as_array)
    }

    pub(crate) fn map(&self, key: &'static str) -> Result<Option<&'a Map<String, Value>>, ModelError> {
        self.typed(key, "a map", Value::as_object)
    }

    /// A size between 1 and `most`; `silent` where the file says nothing.
    pub(crate) fn size(&self, key: &'static str, silent: Option<u64>, most: u64) -> Result<usize, ModelError> {
        match self.count(key)?.or(silent) {
            None => Err(ModelError::config(key, "is missing")),
            Some(value) if (1..=most).contains(&value) => Ok(value as usize),
            Some(value) => Err(ModelError::config(key, format!("is {value}; it must be between 1 and {most}"))),
        }
    }

    /// One token id or a list of them.
    pub(crate) fn token_ids(&self, key: &'static str) -> Result<Vec<u32>, ModelError> {
        let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
        let ids = self.typed(key, "a token id or a list of them", |value| match value {
            Value::Array(ids) => ids.iter().map(id).collect(),
            one => id(one).map(|id| vec![id]),
        })?;
        Ok(ids.unwrap_or_default())
    }

    /// Refuses the file if it has a key that was never looked up and is not known to change nothing.
    pub(crate) fn check_all_understood(&self) -> Result<(), ModelError> {
        let understood = self.understood.borrow();
        let unknown = self.map.iter().find(|(key, value)| {
            let harmless = HARMLESS.contains(&key.as_str()) || HARMLESS_PREFIXES.iter().any(|p| key.starts_with(p));
            !(value.is_null() || harmless || understood.contains(key.as_str()))
        });
        match unknown {
            None => Ok(()),
            Some((key, value)) => Err(ModelError::config(
                key,
                format!(
                    "is {value}, and what it means for this architecture is not known; if it changes nothing the model computes, remove it"
                ),
            )),
        }
    }
}
