//! Text to token ids and back.

use std::sync::Arc;

use tokenizers::Tokenizer;

use crate::error::ModelError;

/// The model's tokenizer; cheap to clone.
#[derive(Clone)]
pub struct TextTokenizer {
    tokenizer: Arc<Tokenizer>,
}

impl std::fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TextTokenizer({} tokens)", self.vocab())
    }
}

impl TextTokenizer {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, ModelError> {
        Self::parse_of(json, "tokenizer.json")
    }

    /// The same; `file` is named where something is wrong.
    pub(crate) fn parse_of(json: &[u8], file: &str) -> Result<Self, ModelError> {
        let tokenizer = Tokenizer::from_bytes(json).map_err(|error| ModelError::file(file, error))?;
        Ok(Self { tokenizer: Arc::new(tokenizer) })
    }

    /// The ids of `text`. `add_special` adds what the model expects around a plain text (a leading bos, say); a
    /// rendered chat holds its special tokens already and is encoded without.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the tokenizer fails.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, ModelError> {
        let encoding = self.tokenizer.encode_fast(text, add_special).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The text of `ids`, without special tokens; bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the tokenizer fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        self.tokenizer.decode(ids, true).map_err(failed)
    }

    /// The number of token ids, special ones included.
    pub fn vocab(&self) -> usize {
        self.tokenizer.get_vocab_size(true)
    }

    /// The id of a token as it is written in the vocabulary, for example `<|end|>`.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// What `id` adds to a text after `before`; a token that adds nothing, as special ones, as it is written in the vocabulary.
    /// Bytes that are no whole character are U+FFFD.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the tokenizer fails.
    pub fn piece(&self, before: u32, id: u32) -> Result<String, ModelError> {
        let (one, both) = (self.decode(&[before])?, self.decode(&[before, id])?);
        // A character that `id` completes is no addition; then what it is alone says more.
        match both.strip_prefix(&one).filter(|piece| !piece.is_empty()) {
            Some(piece) => Ok(piece.to_string()),
            None => match self.decode(&[id])? {
                alone if alone.is_empty() => Ok(self.tokenizer.id_to_token(id).unwrap_or_default()),
                alone => Ok(alone),
            },
        }
    }

    /// The id of a special token: one that is no part of a text.
    pub fn special_id(&self, token: &str) -> Option<u32> {
        let id = self.id_of(token)?;
        self.tokenizer.get_added_tokens_decoder().get(&id).is_some_and(|token| token.special).then_some(id)
    }

    /// A decoder for a stream of ids.
    pub fn decoder(&self) -> TextDecoder {
        TextDecoder::new(self.clone())
    }

    /// One that also shows these special tokens, as they are written in the vocabulary.
    pub fn decoder_showing(&self, tokens: Vec<u32>) -> TextDecoder {
        TextDecoder { shown: tokens, ..self.decoder() }
    }

    pub(crate) fn inner(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

fn failed(error: impl ToString) -> ModelError {
    ModelError::Tokenizer(error.to_string())
}

/// Turns ids into pieces of text as they come. Pieces are whole characters, and one after the other they are the text
/// of all ids. Each step decodes only the ids since the last piece but one, since what a token reads as may depend
/// on the token before it.
#[derive(Debug, Clone)]
pub struct TextDecoder {
    tokenizer: TextTokenizer,
    /// The ids of the last piece, then those not yet given out.
    ids: Vec<u32>,
    /// How many of `ids` the last piece covers.
    given: usize,
    /// Special tokens that are shown.
    shown: Vec<u32>,
}

/// What unfinished bytes decode to.
const UNFINISHED: char = '\u{FFFD}';

impl TextDecoder {
    /// A decoder at the start of a text.
    pub fn new(tokenizer: TextTokenizer) -> Self {
        Self { tokenizer, ids: Vec::new(), given: 0, shown: Vec::new() }
    }

    /// Adds one id; the text that is now whole, if any.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the tokenizer fails.
    pub fn push(&mut self, id: u32) -> Result<Option<String>, ModelError> {
        if self.shown.contains(&id) {
            let before = self.flush()?.unwrap_or_default();
            return Ok(self.tokenizer.tokenizer.id_to_token(id).map(|token| before + &token));
        }
        self.ids.push(id);
        let piece = self.pending()?.filter(|piece| !piece.ends_with(UNFINISHED));
        if piece.is_some() {
            self.ids.drain(..self.given);
            self.given = self.ids.len();
        }
        Ok(piece)
    }

    /// What is left at the end of the text, unfinished bytes as U+FFFD.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] if the tokenizer fails.
    pub fn flush(&mut self) -> Result<Option<String>, ModelError> {
        let piece = self.pending()?;
        self.ids.clear();
        self.given = 0;
        Ok(piece)
    }

    /// The text after the last piece.
    fn pending(&self) -> Result<Option<String>, ModelError> {
        let given = self.tokenizer.decode(&self.ids[..self.given])?;
        let all = self.tokenizer.decode(&self.ids)?;
        let piece = all.strip_prefix(&given).filter(|piece| !piece.is_empty());
        Ok(piece.map(str::to_string))
    }
}
