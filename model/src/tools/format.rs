//! Which form a model's calls have.

use super::ToolFamily;
use super::family::{HERMES_OPEN, LLAMA_OPEN, MISTRAL_OPEN};
use crate::chat::ChatTemplate;
use crate::text::TextTokenizer;

/// How a model writes calls of tools, and which of the words around them are special tokens of its vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolFormat {
    family: ToolFamily,
    special: Vec<(&'static str, u32)>,
}

impl ToolFormat {
    /// As the chat template writes calls that were made before; if it says nothing, by the vocabulary.
    pub fn of(template: Option<&ChatTemplate>, tokenizer: &TextTokenizer) -> Self {
        let template = template.map(ChatTemplate::source).unwrap_or_default();
        let words =
            [(HERMES_OPEN, ToolFamily::Hermes), (MISTRAL_OPEN, ToolFamily::Mistral), (LLAMA_OPEN, ToolFamily::Llama)];
        let said = words.iter().find(|(word, _)| template.contains(word));
        let known = || words.iter().find(|(word, _)| tokenizer.id_of(word).is_some());
        let family = said.or_else(known).map_or(ToolFamily::Json, |(_, family)| *family);
        let special = family.words().iter().filter_map(|word| Some((*word, tokenizer.special_id(word)?)));
        Self { family, special: special.collect() }
    }

    /// The family's form.
    pub fn family(&self) -> ToolFamily {
        self.family
    }

    /// The special tokens that must be shown in the text, so that a [`ToolParser`](super::ToolParser) sees them; for
    /// [`TextTokenizer::decoder_showing`].
    pub fn shown_tokens(&self) -> Vec<u32> {
        self.special.iter().map(|(_, id)| *id).collect()
    }

    /// The id of a word, if it is a special token.
    pub(super) fn special(&self, word: &str) -> Option<u32> {
        self.special.iter().find(|(special, _)| *special == word).map(|(_, id)| *id)
    }

    /// A form with no special tokens: for tests of what does not depend on them.
    #[cfg(test)]
    pub(super) fn plain(family: ToolFamily) -> Self {
        Self { family, special: Vec::new() }
    }
}
