//! What a sequence has kept since an earlier epoch.

/// The truncations after which nothing shorter was left.
#[derive(Debug, Clone, Default)]
pub(super) struct Cutbacks {
    /// Each with the epoch it began and the positions it left: both grow. Those that left more than a later one tell nothing.
    left: Vec<(u32, usize)>,
}

impl Cutbacks {
    /// `epoch` begins with `length` positions left of what there was.
    pub(super) fn note(&mut self, epoch: u32, length: usize) {
        while self.left.pop_if(|(_, left)| *left >= length).is_some() {}
        self.left.push((epoch, length));
    }

    /// The positions below are what they were in `epoch`, as far as there were so many; `None` if all are.
    pub(super) fn since(&self, epoch: u32) -> Option<usize> {
        let next = self.left.partition_point(|(began, _)| *began <= epoch);
        self.left.get(next).map(|(_, left)| *left)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_least_that_was_left_is_what_holds(lengths in prop::collection::vec(0usize..50, 0..40)) {
            let mut cutbacks = Cutbacks::default();
            for (before, length) in lengths.iter().enumerate() {
                cutbacks.note(before as u32 + 1, *length);
            }
            for epoch in 0..=lengths.len() {
                prop_assert_eq!(cutbacks.since(epoch as u32), lengths[epoch..].iter().min().copied());
            }
        }
    }
}
