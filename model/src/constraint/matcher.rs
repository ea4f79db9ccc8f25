//! One text on its way through a constraint.

use llguidance::Matcher;
use llguidance::api::StopReason;

use super::mask::TokenMask;
use crate::error::ModelError;

/// Follows one text.
pub struct TextMatcher(Matcher);

impl std::fmt::Debug for TextMatcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TextMatcher({:?})", self.0.stop_reason())
    }
}

impl TextMatcher {
    pub(super) fn new(matcher: Matcher) -> Self {
        Self(matcher)
    }

    /// The tokens that may come next; those that end the text are among them where it may end, and no others where it must.
    /// Takes up to some milliseconds.
    ///
    /// # Errors
    /// [`ModelError::ConstraintFailed`] if working it out takes more than is allowed.
    pub fn mask(&mut self) -> Result<TokenMask, ModelError> {
        self.0.compute_mask_or_eos().map(TokenMask::new).map_err(failed)
    }

    /// A token was chosen.
    ///
    /// # Errors
    /// [`ModelError::ConstraintFailed`] if it was not allowed.
    pub fn accept(&mut self, id: u32) -> Result<(), ModelError> {
        self.0.consume_token(id).map_err(failed)
    }

    /// Whether the text may end here.
    ///
    /// # Errors
    /// [`ModelError::ConstraintFailed`] if the text has left the constraint before.
    pub fn may_end(&mut self) -> Result<bool, ModelError> {
        Ok(self.is_complete() || self.0.is_accepting().map_err(failed)?)
    }

    /// Whether nothing can follow but the end of the text.
    pub fn is_complete(&self) -> bool {
        self.0.is_stopped() && self.0.stop_reason().is_ok() && self.0.stop_reason() != StopReason::NotStopped
    }

    /// Another one at the same place; they know nothing of one another.
    pub fn copy(&self) -> Self {
        Self(self.0.deep_clone())
    }
}

fn failed(error: impl ToString) -> ModelError {
    let error = error.to_string();
    let line = error.lines().next().unwrap_or_default();
    ModelError::ConstraintFailed(line.to_string())
}
