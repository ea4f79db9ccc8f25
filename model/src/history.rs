//! What the choice of a token looks back at.

use std::collections::BTreeMap;

/// The tokens of a text so far: all of them, and how often each of those that were generated came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History {
    seen: Vec<u32>,
    generated: BTreeMap<u32, u32>,
}

impl History {
    /// A text of which nothing has been generated yet.
    pub fn of_prompt(prompt: &[u32]) -> Self {
        Self { seen: prompt.to_vec(), generated: BTreeMap::new() }
    }

    /// From what the penalties look at: the tokens `seen`, in any order, and those `generated`, with how often each came.
    pub fn from_parts(seen: Vec<u32>, generated: impl IntoIterator<Item = (u32, u32)>) -> Self {
        Self { seen, generated: generated.into_iter().collect() }
    }

    /// One more token was generated.
    pub fn push(&mut self, id: u32) {
        self.seen.push(id);
        let count = self.generated.entry(id).or_default();
        *count = count.saturating_add(1);
    }

    /// Prompt and answer.
    pub fn seen(&self) -> &[u32] {
        &self.seen
    }

    /// The tokens that were generated, each once and in order of their ids, and how often each came.
    pub fn generated(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        self.generated.iter().map(|(id, count)| (*id, *count))
    }
}
