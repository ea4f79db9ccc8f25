//! Texts of a request: one or many, as text or as token ids.

use serde::Deserialize;
use swarm_client::Model;

use super::error::ApiError;

/// One text or several.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged, expecting = "expected a string, a list of strings, a list of token ids or a list of such lists")]
pub(crate) enum Input {
    /// One.
    Text(String),
    /// Several.
    Texts(Vec<String>),
    /// One as token ids.
    Ids(Vec<u32>),
    /// Several as token ids.
    ManyIds(Vec<Vec<u32>>),
}

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Tokens<'a> {
    /// As text.
    Text(&'a str),
    /// As token ids.
    Ids(&'a [u32]),
}

impl Input {
    /// Each text, in order.
    ///
    /// # Errors
    /// [`ApiError`] if there is none, or there are more than `most`.
    pub(crate) fn each(&self, field: &str, most: usize) -> Result<Vec<Tokens<'_>>, ApiError> {
        let each: Vec<Tokens<'_>> = match self {
            Self::Text(text) => vec![Tokens::Text(text)],
            Self::Texts(texts) => texts.iter().map(|text| Tokens::Text(text)).collect(),
            Self::Ids(ids) => vec![Tokens::Ids(ids)],
            Self::ManyIds(many) => many.iter().map(|ids| Tokens::Ids(ids)).collect(),
        };
        if each.is_empty() {
            return Err(ApiError::bad(field, format!("{field} is empty; give at least one text.")));
        }
        if each.len() > most {
            return Err(ApiError::bad(field, format!("{field} has {} texts; at most {most} are taken.", each.len())));
        }
        Ok(each)
    }
}

impl Tokens<'_> {
    /// Its token ids: of a text with the special tokens that begin one, ids as they are.
    ///
    /// # Errors
    /// [`ApiError`] if there are none, or one is not in the vocabulary.
    pub(crate) fn ids(&self, model: &Model, field: &str) -> Result<Vec<u32>, ApiError> {
        let ids = match self {
            Self::Text(text) => model.encode(text)?,
            Self::Ids(ids) => ids.to_vec(),
        };
        let vocab = model.config().vocab;
        if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
            let message = format!("The token id {id} does not exist; the model has {vocab} tokens.");
            return Err(ApiError::bad(field, message));
        }
        if ids.is_empty() {
            return Err(ApiError::bad(field, format!("{field} is empty; give at least one token.")));
        }
        Ok(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_are_read() {
        let read = |json: &str| serde_json::from_str::<Input>(json).unwrap();
        assert_eq!(read(r#""a""#).each("prompt", 9).unwrap(), [Tokens::Text("a")]);
        assert_eq!(read(r#"["a", "b"]"#).each("prompt", 9).unwrap(), [Tokens::Text("a"), Tokens::Text("b")]);
        assert_eq!(read("[1, 2]").each("prompt", 9).unwrap(), [Tokens::Ids(&[1, 2])]);
        assert_eq!(read("[[1], [2, 3]]").each("prompt", 9).unwrap(), [Tokens::Ids(&[1]), Tokens::Ids(&[2, 3])]);
        assert!(read("[]").each("prompt", 9).is_err());
        assert!(read("[[1], [2], [3]]").each("prompt", 2).is_err());
        for wrong in ["3", "{}", "[1, \"a\"]", "[-1]", "[1.5]"] {
            let error = serde_json::from_str::<Input>(wrong).unwrap_err().to_string();
            assert!(error.contains("expected a string, a list"), "{error}");
        }
    }
}
