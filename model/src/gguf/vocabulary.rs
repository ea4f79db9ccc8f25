//! The tokens a file carries.

use std::collections::HashMap;

use super::metadata::Metadata;
use super::value::Value;
use crate::error::ModelError;

pub(super) const MODEL: &str = "tokenizer.ggml.model";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";
const MERGES: &str = "tokenizer.ggml.merges";
/// The most tokens believed; the largest known vocabularies have some 260,000.
const MAX_TOKENS: u64 = 1 << 22;

/// What a token is; the numbers are llama.cpp's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Normal,
    Unknown,
    /// It steers the model and is no text.
    Control,
    /// Text that is never cut.
    UserDefined,
    Unused,
    Byte,
}

/// The tokens in the order of their ids.
#[derive(Debug)]
pub(super) struct Vocabulary {
    pub(super) tokens: Vec<String>,
    /// As many as tokens.
    pub(super) kinds: Vec<Kind>,
}

impl Vocabulary {
    pub(super) fn read(metadata: &Metadata<'_>) -> Result<Self, ModelError> {
        let tokens = texts(metadata, TOKENS)?.ok_or_else(|| metadata.bad(TOKENS, "is missing"))?;
        let kinds = match metadata.list(TYPES, kind)? {
            Some(kinds) => kinds,
            None => vec![Kind::Normal; tokens.len()],
        };
        if kinds.len() != tokens.len() {
            return Err(metadata.bad(TYPES, format!("has {} elements for {} tokens", kinds.len(), tokens.len())));
        }
        Ok(Self { tokens, kinds })
    }

    /// Tokens with their ids and kinds.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, &str, Kind)> {
        let pairs = self.tokens.iter().zip(&self.kinds).enumerate();
        pairs.map(|(id, (token, kind))| (id, token.as_str(), *kind))
    }

    /// The token that stands for what no other does.
    pub(super) fn unknown(&self) -> Option<&str> {
        self.iter().find(|(_, _, kind)| *kind == Kind::Unknown).map(|(_, token, _)| token)
    }

    pub(super) fn token(&self, id: u64) -> Option<&str> {
        self.tokens.get(usize::try_from(id).ok()?).map(String::as_str)
    }
}

/// The pairs that a byte-level vocabulary merges, the first ones first.
pub(super) fn merges(metadata: &Metadata<'_>) -> Result<Vec<(String, String)>, ModelError> {
    let merges = texts(metadata, MERGES)?.ok_or_else(|| metadata.bad(MERGES, "is missing"))?;
    let pair = |merge: &String| {
        // A part may begin with a space, but not be one.
        let space = merge.char_indices().skip(1).find(|(_, letter)| *letter == ' ')?.0;
        Some((merge[..space].to_string(), merge[space + 1..].to_string()))
    };
    let bad = |merge: &String| metadata.bad(MERGES, format!("has \"{merge}\", which are no two tokens"));
    merges.iter().map(|merge| pair(merge).ok_or_else(|| bad(merge))).collect()
}

/// The pairs that a SentencePiece vocabulary merges: whatever two tokens make a third, that of the highest score first. Of
/// the pairs of one token the one whose parts come first.
pub(super) fn scored_merges<'v>(
    metadata: &Metadata<'_>,
    vocabulary: &'v Vocabulary,
) -> Result<Vec<(&'v str, &'v str)>, ModelError> {
    let scores = metadata.list(SCORES, Value::as_f64)?.ok_or_else(|| metadata.bad(SCORES, "is missing"))?;
    if scores.len() != vocabulary.tokens.len() {
        return Err(metadata.bad(SCORES, format!("has {} for {} tokens", scores.len(), vocabulary.tokens.len())));
    }
    let of_text = |kind: Kind| matches!(kind, Kind::Normal | Kind::UserDefined | Kind::Unused);
    let texts = || vocabulary.iter().filter(|(_, _, kind)| of_text(*kind));
    let ids: HashMap<&str, usize> = texts().map(|(id, token, _)| (token, id)).collect();
    let mut merges = Vec::new();
    for (id, token, _) in texts() {
        for (place, _) in token.char_indices().skip(1) {
            let (left, right) = token.split_at(place);
            if let (Some(first), Some(second)) = (ids.get(left), ids.get(right)) {
                merges.push((scores[id], *first, *second, left, right));
            }
        }
    }
    merges.sort_by(|one, other| other.0.total_cmp(&one.0).then((one.1, one.2).cmp(&(other.1, other.2))));
    Ok(merges.into_iter().map(|(_, _, _, left, right)| (left, right)).collect())
}

fn texts(metadata: &Metadata<'_>, key: &str) -> Result<Option<Vec<String>>, ModelError> {
    let count = metadata.count(key);
    if count > MAX_TOKENS {
        return Err(metadata.bad(key, format!("has {count} elements; the most is {MAX_TOKENS}")));
    }
    metadata.list(key, |value| value.as_str().map(str::to_string))
}

fn kind(value: &Value) -> Option<Kind> {
    match value.as_u64()? {
        // Files that say nothing of a token say 0.
        0 | 1 => Some(Kind::Normal),
        2 => Some(Kind::Unknown),
        3 => Some(Kind::Control),
        4 => Some(Kind::UserDefined),
        5 => Some(Kind::Unused),
        6 => Some(Kind::Byte),
        _ => None,
    }
}
