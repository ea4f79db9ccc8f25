//! What the model is shown: windows of token ids cut from fresh documents.

use anyhow::Result;
use tokenizers::Tokenizer;

use crate::corpus::Corpus;
use crate::tokenizer::encode;

/// The first windows are short and hold very short stories only: what to
/// attend to is found soonest where there is little else to attend to.
pub(crate) const TINY_WINDOW: usize = 64;

/// Windows of token ids, each starting where a document starts.
pub(crate) struct Windows<'a> {
    corpus: Corpus,
    tokenizer: &'a Tokenizer,
    made: usize,
}

impl<'a> Windows<'a> {
    pub(crate) fn new(seed: u64, tokenizer: &'a Tokenizer) -> Self {
        Self { corpus: Corpus::new(seed), tokenizer, made: 0 }
    }

    /// `count` windows of `length` inputs and the target of the last of them.
    pub(crate) fn batch(&mut self, count: usize, length: usize) -> Result<Vec<Vec<u32>>> {
        (0..count).map(|_| self.window(length)).collect()
    }

    /// Every tenth window lacks its first token, so that a prompt without one works too.
    fn window(&mut self, length: usize) -> Result<Vec<u32>> {
        self.made += 1;
        let skipped = usize::from(self.made.is_multiple_of(10));
        let mut ids = Vec::new();
        while ids.len() < length + 1 + skipped {
            let document = if length == TINY_WINDOW { self.corpus.tiny_document() } else { self.corpus.document() };
            ids.extend(encode(self.tokenizer, &document)?);
        }
        Ok(ids[skipped..skipped + length + 1].to_vec())
    }
}
