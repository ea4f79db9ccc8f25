//! Which tokens may come next.

use toktrie::SimpleVob;

use crate::error::ModelError;

/// A set of tokens of a vocabulary.
#[derive(Debug, Clone)]
pub struct TokenMask(SimpleVob);

impl TokenMask {
    pub(super) fn new(allowed: SimpleVob) -> Self {
        Self(allowed)
    }

    /// Whether a token is in it.
    pub fn allows(&self, id: u32) -> bool {
        (id as usize) < self.0.len() && self.0.is_allowed(id)
    }

    /// How many tokens are in it.
    pub fn count(&self) -> usize {
        self.0.num_set()
    }

    /// Makes every other token impossible.
    pub(crate) fn apply(&self, logits: &mut [f32]) -> Result<(), ModelError> {
        let mut some = false;
        for (id, logit) in (0u32..).zip(logits) {
            match self.allows(id) {
                true => some = true,
                false => *logit = f32::NEG_INFINITY,
            }
        }
        if some { Ok(()) } else { Err(ModelError::NothingAllowed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_allowed_is_impossible() {
        let mut allowed = SimpleVob::alloc(5);
        [1, 4].into_iter().for_each(|id| allowed.allow_token(id));
        let mask = TokenMask::new(allowed);
        assert_eq!((mask.count(), mask.allows(4), mask.allows(3), mask.allows(70)), (2, true, false, false));
        // Logits beyond the vocabulary are those of no token.
        let mut logits = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0];
        mask.apply(&mut logits).unwrap();
        let none = f32::NEG_INFINITY;
        assert_eq!(logits, [none, 1.0, none, none, 4.0, none]);
        assert!(matches!(TokenMask::new(SimpleVob::alloc(5)).apply(&mut logits), Err(ModelError::NothingAllowed)));
    }
}
