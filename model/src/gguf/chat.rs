//! Chat template and suggestions for generating, as the files of a directory would hold them.

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use super::special::{BOS, EOS, token_ids};
use super::vocabulary::{Kind, Vocabulary};
use crate::error::ModelError;

const TEMPLATE: &str = "tokenizer.chat_template";
/// What the makers suggest, and what a `generation_config.json` calls it.
const SAMPLING: [(&str, &str); 3] = [
    ("general.sampling.temp", "temperature"),
    ("general.sampling.top_p", "top_p"),
    ("general.sampling.penalty_repeat", "repetition_penalty"),
];
/// Tokens that end an answer in whichever file has them: many files name only one end (llama.cpp looks for them too).
const ENDS: [&str; 6] = ["<|eot_id|>", "<|eom_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|endoftext|>"];
const TOP_K: &str = "general.sampling.top_k";

/// The text of a `tokenizer_config.json`; `None` if the file has no template.
pub(super) fn tokenizer_config(metadata: &Metadata<'_>) -> Result<Option<Value>, ModelError> {
    let Some(template) = metadata.str(TEMPLATE)? else { return Ok(None) };
    let vocabulary = Vocabulary::read(metadata)?;
    let token = |key| Ok::<_, ModelError>(metadata.u64(key)?.and_then(|id| vocabulary.token(id)));
    Ok(Some(json!({"chat_template": template, "bos_token": token(BOS)?, "eos_token": token(EOS)?})))
}

/// The text of a `generation_config.json`.
pub(super) fn generation_config(metadata: &Metadata<'_>) -> Result<Value, ModelError> {
    let mut config = Map::new();
    for (key, name) in SAMPLING {
        if let Some(value) = metadata.f64(key)? {
            config.insert(name.into(), json!(value as f32));
        }
    }
    if let Some(value) = metadata.u64(TOP_K)? {
        config.insert("top_k".into(), json!(value));
    }
    // Who suggests how to sample suggests sampling.
    let samples = !config.is_empty() && config.get("temperature") != Some(&json!(0.0));
    config.insert("do_sample".into(), json!(samples));
    let mut ids = token_ids(metadata)?;
    if let Some(ends) = ids["eos_token_id"].as_array_mut() {
        let vocabulary = Vocabulary::read(metadata)?;
        let steers = |kind| matches!(kind, Kind::Control | Kind::UserDefined);
        let found = vocabulary.iter().filter(|(_, token, kind)| steers(*kind) && ENDS.contains(token));
        for (id, ..) in found {
            let id = json!(id);
            if !ends.contains(&id) {
                ends.push(id);
            }
        }
    }
    if let Value::Object(ids) = ids {
        config.extend(ids);
    }
    Ok(Value::Object(config))
}
