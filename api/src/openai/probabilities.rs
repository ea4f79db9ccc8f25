//! How likely tokens were, in the two forms that OpenAI's API has.

use serde_json::{Map, Value, json};
use swarm_client::Model;
use swarm_model::LogProbabilities;

use super::error::ApiError;

/// A token as text, with its natural log-probability.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Likely {
    pub(crate) token: String,
    pub(crate) log: f32,
}

/// The token that was chosen, and the likeliest ones.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TokenOdds {
    pub(crate) chosen: Likely,
    pub(crate) top: Vec<Likely>,
}

/// What `character` marks: bytes that are no whole character.
const UNFINISHED: char = '\u{FFFD}';

impl TokenOdds {
    /// Those of token `id` after token `before`.
    ///
    /// # Errors
    /// [`ApiError`] if the tokenizer fails.
    pub(crate) fn of(model: &Model, before: u32, id: u32, odds: &LogProbabilities) -> Result<Self, ApiError> {
        let likely = |id: u32, log: f32| Ok::<_, ApiError>(Likely { token: model.token_text(before, id)?, log });
        let top = odds.top.iter().map(|(id, log)| likely(*id, *log)).collect::<Result<_, _>>()?;
        Ok(Self { chosen: likely(id, odds.chosen)?, top })
    }

    /// An element of `logprobs.content` in a chat.
    pub(crate) fn in_chat(&self) -> Value {
        let mut odds = self.chosen.in_chat();
        odds["top_logprobs"] = self.top.iter().map(Likely::in_chat).collect();
        odds
    }
}

impl Likely {
    fn in_chat(&self) -> Value {
        // Half a character has bytes that its text does not tell.
        let whole = !self.token.contains(UNFINISHED);
        let bytes = whole.then(|| self.token.as_bytes().to_vec());
        json!({"token": self.token, "logprob": self.log, "bytes": bytes})
    }
}

/// `logprobs` of a completion, for tokens that begin at the character `offset` of the text.
#[derive(Debug, Clone, Default)]
pub(crate) struct LegacyOdds {
    tokens: Vec<Value>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<Value>,
}

impl LegacyOdds {
    /// Adds a token.
    pub(crate) fn push(&mut self, odds: &TokenOdds, offset: usize) {
        self.tokens.push(json!(odds.chosen.token));
        self.token_logprobs.push(json!(odds.chosen.log));
        // The token itself is among them, likely or not.
        let all = odds.top.iter().chain([&odds.chosen]);
        let top: Map<String, Value> = all.map(|likely| (likely.token.clone(), json!(likely.log))).collect();
        self.top_logprobs.push(Value::Object(top));
        self.text_offset.push(json!(offset));
    }

    /// The object.
    pub(crate) fn object(&self) -> Value {
        json!({
            "tokens": self.tokens,
            "token_logprobs": self.token_logprobs,
            "top_logprobs": self.top_logprobs,
            "text_offset": self.text_offset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn odds() -> TokenOdds {
        let likely = |token: &str, log| Likely { token: token.to_string(), log };
        TokenOdds { chosen: likely(" fox", -0.5), top: vec![likely(" fox", -0.5), likely("\u{FFFD}", -2.0)] }
    }

    #[test]
    fn a_chat_is_given_bytes_where_they_are_whole() {
        let odds = odds().in_chat();
        assert_eq!((odds["token"].as_str(), odds["logprob"].as_f64()), (Some(" fox"), Some(-0.5)));
        assert_eq!(odds["bytes"], json!([32, 102, 111, 120]));
        assert_eq!(odds["top_logprobs"][1]["bytes"], Value::Null);
    }

    #[test]
    fn a_completion_is_given_lists() {
        let mut legacy = LegacyOdds::default();
        legacy.push(&odds(), 7);
        let object = legacy.object();
        assert_eq!((&object["tokens"], &object["text_offset"]), (&json!([" fox"]), &json!([7])));
        assert_eq!(object["top_logprobs"][0][" fox"], json!(-0.5));
    }
}
