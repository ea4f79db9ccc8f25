//! A vocabulary as llguidance wants to see it.

use toktrie::{INVALID_TOKEN, TokRxInfo, TokTrie, TokenId, TokenizerEnv};

use super::bytes::{Spelling, token_bytes};
use crate::error::ModelError;
use crate::text::TextTokenizer;

/// The tokens of a model as a tree of their bytes, and the tokenizer, which says how forced text is written in tokens.
pub(super) struct Vocabulary {
    tokenizer: TextTokenizer,
    trie: TokTrie,
    canonical: bool,
}

impl Vocabulary {
    /// `vocab`: how many logits there are; `eos`: what ends a text.
    pub(super) fn new(tokenizer: TextTokenizer, vocab: usize, eos: &[u32]) -> Result<Self, ModelError> {
        let words = token_bytes(tokenizer.inner(), vocab)?;
        let eos: Vec<u32> = eos.iter().copied().filter(|id| (*id as usize) < vocab).collect();
        let info = TokRxInfo::new(vocab as u32, eos.first().copied().unwrap_or(INVALID_TOKEN));
        let mut trie = TokTrie::from(&info, &words);
        if !eos.is_empty() {
            trie = trie.with_eos_tokens(&eos);
        }
        // SentencePiece puts a space before a text, so that a piece of one is not written as within it.
        let canonical = Spelling::of(tokenizer.inner())? == Spelling::ByteLevel;
        Ok(Self { tokenizer, trie, canonical })
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let ids = self
            .trie
            .tokenize_with_greedy_fallback(bytes, |text| self.tokenizer.encode(text, false).unwrap_or_default());
        // A text that reads like a special token is none, and must not become one.
        match self.trie.decode_raw(&ids) == bytes {
            true => ids,
            false => self.trie.greedy_tokenize(bytes),
        }
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.canonical
    }
}
