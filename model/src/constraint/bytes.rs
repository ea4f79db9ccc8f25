//! The bytes that each token of a vocabulary stands for.

use std::collections::HashMap;

use serde_json::Value;
use tokenizers::Tokenizer;
use toktrie::TokTrie;

use crate::error::ModelError;

/// The longest token: what a trie of tokens takes, and twice what the longest known ones have. Longer ones are not chosen.
const MAX_TOKEN_BYTES: usize = 1000;

/// Bytes of all tokens together: a trie of them has at most as many nodes, and takes 4 Mi of them. Known vocabularies have half.
const MAX_BYTES: usize = (1 << 22) - 1;

/// How a vocabulary writes bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Spelling {
    /// A letter for each byte (GPT-2).
    ByteLevel,
    /// As text, spaces as this letter, and bytes that are no text as `<0xAB>` (SentencePiece).
    Fallback(Option<char>),
}

impl Spelling {
    /// By the tokenizer's decoder.
    pub(super) fn of(tokenizer: &Tokenizer) -> Result<Self, ModelError> {
        let decoder = tokenizer.get_decoder().map(serde_json::to_value).transpose();
        let decoder = decoder.map_err(|error| ModelError::NoConstraints(error.to_string()))?.unwrap_or(Value::Null);
        let parts = parts(&decoder);
        let has = |kind: &str| parts.iter().any(|part| part["type"] == kind);
        if has("ByteLevel") {
            return Ok(Self::ByteLevel);
        }
        if has("ByteFallback") || has("Metaspace") {
            let letter = parts.iter().find_map(|part| space(part));
            return Ok(Self::Fallback(letter));
        }
        let reason =
            "its tokenizer is neither of bytes nor of SentencePiece's kind; leave the constraint out".to_string();
        Err(ModelError::NoConstraints(reason))
    }

    fn bytes(&self, token: &str, letters: &HashMap<char, u8>) -> Vec<u8> {
        match self {
            Self::ByteLevel => {
                let bytes: Option<Vec<u8>> = token.chars().map(|letter| letters.get(&letter).copied()).collect();
                // A token with other letters stands for none.
                bytes.unwrap_or_default()
            }
            Self::Fallback(space) => match byte_of(token) {
                Some(byte) => vec![byte],
                None => space.map_or_else(|| token.to_string(), |space| token.replace(space, " ")).into_bytes(),
            },
        }
    }
}

/// A decoder and all that it is made of.
fn parts(decoder: &Value) -> Vec<&Value> {
    let inner = decoder["decoders"].as_array().into_iter().flatten().flat_map(parts);
    std::iter::once(decoder).chain(inner).collect()
}

/// The letter that a decoder makes a space of.
fn space(part: &Value) -> Option<char> {
    let letter = match part["type"].as_str()? {
        "Replace" if part["content"] == " " => part["pattern"]["String"].as_str()?,
        "Metaspace" => part["replacement"].as_str()?,
        _ => return None,
    };
    let mut letters = letter.chars();
    letters.next().filter(|_| letters.next().is_none())
}

/// The byte that `<0xAB>` stands for.
fn byte_of(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok().filter(|_| digits.len() == 2)
}

/// The letters that stand for bytes in byte-level vocabularies: printable ones for themselves, the others in order from U+0100 on.
fn letters() -> HashMap<char, u8> {
    let itself = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..=u8::MAX).filter(|byte| !itself(*byte)).zip('\u{100}'..).map(|(byte, letter)| (letter, byte));
    (0..=u8::MAX).filter(|byte| itself(*byte)).map(|byte| (char::from(byte), byte)).chain(others).collect()
}

/// For each of `vocab` ids its bytes; none for ids without a token. Special tokens stand behind toktrie's marker, so that no text is
/// ever mistaken for one.
pub(super) fn token_bytes(tokenizer: &Tokenizer, vocab: usize) -> Result<Vec<Vec<u8>>, ModelError> {
    let spelling = Spelling::of(tokenizer)?;
    let (letters, added) = (letters(), tokenizer.get_added_tokens_decoder());
    let bytes = |id: u32| match added.get(&id) {
        Some(token) if token.special => [&[TokTrie::SPECIAL_TOKEN_MARKER], token.content.as_bytes()].concat(),
        Some(token) => token.content.clone().into_bytes(),
        None => tokenizer.id_to_token(id).map(|token| spelling.bytes(&token, &letters)).unwrap_or_default(),
    };
    let marked = |bytes: &Vec<u8>| bytes.first() == Some(&TokTrie::SPECIAL_TOKEN_MARKER);
    let words = (0..vocab as u32).map(|id| {
        let mut bytes = bytes(id);
        // The byte 0xff is in no text.
        let special = added.get(&id).is_some_and(|token| token.special);
        if bytes.len() > MAX_TOKEN_BYTES || (marked(&bytes) && !special) {
            bytes.clear();
        }
        bytes
    });
    let words: Vec<Vec<u8>> = words.collect();
    let all: usize = words.iter().map(Vec::len).sum();
    if all > MAX_BYTES {
        return Err(ModelError::NoConstraints(format!(
            "its vocabulary has {all} bytes, {MAX_BYTES} at most can be used"
        )));
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_a_letter() {
        let letters = letters();
        assert_eq!(letters.len(), 256);
        assert_eq!((letters[&'Ġ'], letters[&'Ċ'], letters[&'a'], letters[&'Ã']), (b' ', b'\n', b'a', 0xc3));
        let mut bytes: Vec<u8> = letters.into_values().collect();
        bytes.sort_unstable();
        assert!(bytes.iter().copied().eq(0..=u8::MAX));
    }

    #[test]
    fn sentence_piece_writes_spaces_and_bytes() {
        let spelling = Spelling::Fallback(Some('\u{2581}'));
        let bytes = |token: &str| spelling.bytes(token, &HashMap::new());
        assert_eq!((bytes("\u{2581}a"), bytes("<0x0A>"), bytes("<0xé>")), (b" a".to_vec(), vec![10], "<0xé>".into()));
    }
}
