//! How the answers of plain completions are written.

use serde_json::{Value, json};

use super::answer::Form;
use super::probabilities::{LegacyOdds, TokenOdds};
use super::run::End;

/// The form of completions.
#[derive(Debug)]
pub(crate) struct CompletionForm {
    /// Whether odds are given.
    odds: bool,
    /// What stands before each answer's text: its prompt, if it is to be repeated.
    before: Vec<String>,
    /// Characters of each answer so far.
    offsets: Vec<usize>,
}

impl CompletionForm {
    /// Of answers that begin with these texts.
    pub(crate) fn new(odds: bool, before: Vec<String>) -> Self {
        let offsets = before.iter().map(|text| text.chars().count()).collect();
        Self { odds, before, offsets }
    }

    fn chunk(choice: usize, text: &str, odds: Option<Value>, finish: Option<&str>) -> Value {
        json!({"index": choice, "text": text, "logprobs": odds, "finish_reason": finish})
    }

    fn before(&self, choice: usize) -> &str {
        self.before.get(choice).map_or("", String::as_str)
    }
}

impl Form for CompletionForm {
    fn kinds(&self) -> (&'static str, &'static str) {
        ("text_completion", "text_completion")
    }

    fn opening(&mut self, choice: usize) -> Option<Value> {
        let before = self.before(choice);
        (!before.is_empty()).then(|| Self::chunk(choice, before, None, None))
    }

    fn piece(&mut self, choice: usize, text: &str, odds: Option<&TokenOdds>) -> Vec<Value> {
        let odds = odds.filter(|_| self.odds);
        if text.is_empty() && odds.is_none() {
            return Vec::new();
        }
        let mut offset = 0;
        if let Some(place) = self.offsets.get_mut(choice) {
            offset = *place;
            *place += text.chars().count();
        }
        let odds = odds.map(|odds| {
            let mut legacy = LegacyOdds::default();
            legacy.push(odds, offset);
            legacy.object()
        });
        vec![Self::chunk(choice, text, odds, None)]
    }

    fn closing(&mut self, choice: usize, end: &End) -> Vec<Value> {
        let mut chunks = self.piece(choice, &end.summary.tail, None);
        chunks.push(Self::chunk(choice, "", None, Some(end.summary.finish.name())));
        chunks
    }

    fn whole(&mut self, choice: usize, end: &End, odds: &[TokenOdds]) -> Value {
        let mut offset = self.before(choice).chars().count();
        let mut legacy = LegacyOdds::default();
        for odds in odds {
            legacy.push(odds, offset);
            offset += odds.chosen.token.chars().count();
        }
        let text = format!("{}{}", self.before(choice), end.summary.text);
        Self::chunk(choice, &text, self.odds.then(|| legacy.object()), Some(end.summary.finish.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::probabilities::Likely;
    use super::super::usage::tests::end;
    use super::*;

    fn odds(token: &str) -> TokenOdds {
        TokenOdds { chosen: Likely { token: token.to_string(), log: -1.0 }, top: vec![] }
    }

    #[test]
    fn a_prompt_is_repeated_and_counts_in_offsets() {
        let mut form = CompletionForm::new(true, vec!["Größe".to_string()]);
        assert_eq!(form.opening(0).unwrap()["text"], "Größe");
        let piece = form.piece(0, " a", Some(&odds(" a"))).remove(0);
        assert_eq!(piece["logprobs"]["text_offset"], json!([5]));
        assert_eq!(form.piece(0, "b", Some(&odds("b"))).remove(0)["logprobs"]["text_offset"], json!([7]));
        let mut end = end(2, true);
        end.summary.text = " ab".to_string();
        let whole = form.whole(0, &end, &[odds(" a"), odds("b")]);
        assert_eq!((&whole["text"], &whole["logprobs"]["text_offset"]), (&json!("Größe ab"), &json!([5, 7])));
    }

    #[test]
    fn what_is_not_asked_for_is_not_there() {
        let mut form = CompletionForm::new(false, vec![String::new()]);
        assert_eq!(form.opening(0), None);
        assert!(form.piece(0, "", Some(&odds("x"))).is_empty());
        let closing = form.closing(0, &end(1, true));
        assert_eq!((closing.len(), &closing[0]["finish_reason"]), (1, &json!("length")));
        assert_eq!(form.whole(0, &end(1, true), &[])["logprobs"], Value::Null);
    }
}
