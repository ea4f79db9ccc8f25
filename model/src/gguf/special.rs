//! The ids of tokens with a meaning of their own.

use serde_json::{Value, json};

use super::metadata::Metadata;
use crate::error::ModelError;

pub(super) const BOS: &str = "tokenizer.ggml.bos_token_id";
pub(super) const EOS: &str = "tokenizer.ggml.eos_token_id";
/// What ends a text, a turn, or a message: all end an answer.
const ENDS: [&str; 3] = [EOS, "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"];

/// `bos_token_id` and `eos_token_id` of a `config.json`.
pub(super) fn token_ids(metadata: &Metadata<'_>) -> Result<Value, ModelError> {
    let mut ends = Vec::new();
    for key in ENDS {
        if let Some(id) = token_id(metadata, key)?
            && !ends.contains(&id)
        {
            ends.push(id);
        }
    }
    Ok(json!({"bos_token_id": token_id(metadata, BOS)?, "eos_token_id": ends}))
}

fn token_id(metadata: &Metadata<'_>, key: &str) -> Result<Option<u32>, ModelError> {
    let id = metadata.u64(key)?;
    id.map(|id| u32::try_from(id).map_err(|_| metadata.bad(key, format!("is {id}, which is no token")))).transpose()
}
