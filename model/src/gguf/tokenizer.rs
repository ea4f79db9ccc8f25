//! A file's tokenizer as the text of a `tokenizer.json`, so that one implementation encodes for all checkpoints.

use serde_json::{Map, Value, json};

use super::metadata::Metadata;
use super::pre::{self, Cut};
use super::special::{BOS, EOS};
use super::vocabulary::{Kind, MODEL, Vocabulary, merges, scored_merges};
use crate::error::ModelError;

const PRE: &str = "tokenizer.ggml.pre";
const ADD_BOS: &str = "tokenizer.ggml.add_bos_token";
const ADD_EOS: &str = "tokenizer.ggml.add_eos_token";
const ADD_PREFIX: &str = "tokenizer.ggml.add_space_prefix";
/// How a file calls byte-level vocabularies.
const BYTE_LEVEL: &str = "gpt2";
/// How it calls SentencePiece vocabularies with merges by score.
const SENTENCE_PIECE: &str = "llama";
/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

/// The text of a `tokenizer.json`.
pub(super) fn tokenizer_json(metadata: &Metadata<'_>) -> Result<Value, ModelError> {
    let vocabulary = Vocabulary::read(metadata)?;
    match metadata.str(MODEL)? {
        Some(BYTE_LEVEL) => byte_level(metadata, &vocabulary),
        Some(SENTENCE_PIECE) => sentence_piece(metadata, &vocabulary),
        Some(other) => Err(metadata.bad(MODEL, format!("is \"{other}\"; known are {BYTE_LEVEL} and {SENTENCE_PIECE}"))),
        None => Err(metadata.bad(MODEL, "is missing")),
    }
}

fn byte_level(metadata: &Metadata<'_>, vocabulary: &Vocabulary) -> Result<Value, ModelError> {
    let name = metadata.str(PRE)?.unwrap_or("default");
    let cut = pre::find(name).ok_or_else(|| metadata.bad(PRE, format!("is \"{name}\"; known are {}", pre::names())))?;
    let model = json!({
        "type": "BPE",
        "vocab": ids(vocabulary),
        "merges": merges(metadata)?,
        "ignore_merges": cut.ignore_merges,
    });
    Ok(json!({
        "version": "1.0",
        "added_tokens": added(vocabulary),
        "pre_tokenizer": cuts(cut),
        "post_processor": around(metadata, vocabulary, cut.add_bos)?,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": model,
    }))
}

fn cuts(cut: &Cut) -> Value {
    let split = |pattern: &&str| json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let steps: Vec<Value> = cut.patterns.iter().map(split).chain([bytes]).collect();
    json!({"type": "Sequence", "pretokenizers": steps})
}

fn sentence_piece(metadata: &Metadata<'_>, vocabulary: &Vocabulary) -> Result<Value, ModelError> {
    let model = json!({
        "type": "BPE",
        "vocab": ids(vocabulary),
        "merges": scored_merges(metadata, vocabulary)?,
        "unk_token": vocabulary.unknown(),
        "fuse_unk": true,
        "byte_fallback": true,
    });
    let prefix = metadata.bool(ADD_PREFIX)?.unwrap_or(true);
    let mut before = vec![json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE})];
    let mut after = vec![
        json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
        json!({"type": "ByteFallback"}),
        json!({"type": "Fuse"}),
    ];
    if prefix {
        before.insert(0, json!({"type": "Prepend", "prepend": SPACE}));
        after.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
    }
    Ok(json!({
        "version": "1.0",
        "added_tokens": added(vocabulary),
        "normalizer": {"type": "Sequence", "normalizers": before},
        "post_processor": around(metadata, vocabulary, true)?,
        "decoder": {"type": "Sequence", "decoders": after},
        "model": model,
    }))
}

fn ids(vocabulary: &Vocabulary) -> Value {
    let ids = vocabulary.iter().map(|(id, token, _)| (token.to_string(), json!(id)));
    Value::Object(ids.collect::<Map<String, Value>>())
}

/// Tokens that are looked for in the text before it is cut.
fn added(vocabulary: &Vocabulary) -> Vec<Value> {
    let wanted = |kind| matches!(kind, Kind::Control | Kind::Unknown | Kind::UserDefined);
    let tokens = vocabulary.iter().filter(|(_, token, kind)| wanted(*kind) && !token.is_empty());
    let token = |(id, token, kind)| {
        json!({
            "id": id,
            "content": token,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": kind != Kind::UserDefined,
        })
    };
    tokens.map(token).collect()
}

/// The tokens that are put around a plain text; null if there are none.
fn around(metadata: &Metadata<'_>, vocabulary: &Vocabulary, bos: bool) -> Result<Value, ModelError> {
    let begin = wanted(metadata, vocabulary, (ADD_BOS, BOS), bos)?;
    let end = wanted(metadata, vocabulary, (ADD_EOS, EOS), false)?;
    if begin.is_none() && end.is_none() {
        return Ok(Value::Null);
    }
    let special = |token: &(u64, &str)| json!({"SpecialToken": {"id": token.1, "type_id": 0}});
    let text = |id: &str, type_id: u32| json!({"Sequence": {"id": id, "type_id": type_id}});
    let whole = |id, type_id| {
        let parts = begin.iter().map(special).chain([text(id, type_id)]).chain(end.iter().map(special));
        parts.collect::<Vec<_>>()
    };
    let known = begin.iter().chain(&end);
    let known = known.map(|(id, token)| (token.to_string(), json!({"id": token, "ids": [id], "tokens": [token]})));
    Ok(json!({
        "type": "TemplateProcessing",
        "single": whole("A", 0),
        "pair": [text("A", 0), text("B", 1)],
        "special_tokens": known.collect::<Map<String, Value>>(),
    }))
}

/// A token, if the file wants it, or says nothing and `default` does.
fn wanted<'v>(
    metadata: &Metadata<'_>,
    vocabulary: &'v Vocabulary,
    (add, key): (&str, &str),
    default: bool,
) -> Result<Option<(u64, &'v str)>, ModelError> {
    if !metadata.bool(add)?.unwrap_or(default) {
        return Ok(None);
    }
    let Some(id) = metadata.u64(key)? else { return Ok(None) };
    let token = vocabulary.token(id).ok_or_else(|| metadata.bad(key, format!("is {id}, which is no token")))?;
    Ok(Some((id, token)))
}
