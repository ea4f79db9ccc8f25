//! Texts of a given form: JSON of a schema, a grammar, a regular expression. llguidance says which tokens may come next.
//!
//! A [`Constraint`] says what is wanted; [`Grammars`] belongs to a vocabulary and makes a [`TextMatcher`] of it, which follows one
//! text: before each token its [`TokenMask`], after it the token that was chosen. What a matcher knows follows from the tokens
//! alone.

mod bytes;
mod grammars;
mod mask;
mod matcher;
mod place;
mod vocabulary;

pub use grammars::Grammars;
pub(crate) use grammars::tight;
pub use mask::TokenMask;
pub use matcher::TextMatcher;

use serde_json::Value;

/// The form that a text has from its first to its last token.
#[derive(Debug, Clone, PartialEq)]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON of this schema. Between its parts stand no more than a space, or a line break and its indentation; a key `x-guidance`
    /// of the schema changes that, and what else llguidance lets it.
    JsonSchema(Value),
    /// A context-free grammar in llguidance's kind of Lark; its first rule is `start`.
    Lark(String),
    /// A regular expression, as of Rust's `regex` crate, of the whole text.
    Regex(String),
}

impl Constraint {
    /// What it is called in messages.
    pub fn name(&self) -> &'static str {
        match self {
            Self::JsonObject => "the constraint to JSON objects",
            Self::JsonSchema(_) => "the JSON schema",
            Self::Lark(_) => "the grammar",
            Self::Regex(_) => "the regular expression",
        }
    }
}
