//! What is to be done later.

use std::collections::BTreeMap;

use super::schedule::Operation;

/// Operations by the millisecond they are due.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    due: BTreeMap<u64, Vec<Operation>>,
}

impl Agenda {
    pub(super) fn add(&mut self, at: u64, operation: Operation) {
        self.due.entry(at).or_default().push(operation);
    }

    /// When the next is due.
    pub(super) fn next(&self) -> Option<u64> {
        self.due.keys().next().copied()
    }

    /// What is due then.
    pub(super) fn take(&mut self) -> Vec<Operation> {
        self.due.pop_first().map(|(_, operations)| operations).unwrap_or_default()
    }

    /// It is not to be done at all.
    pub(super) fn forget(&mut self, operation: Operation) {
        self.due.values_mut().for_each(|operations| operations.retain(|known| *known != operation));
        self.due.retain(|_, operations| !operations.is_empty());
    }

    /// What is due by `at` is done `later`.
    pub(super) fn postpone(&mut self, at: u64, later: u64) {
        let after = self.due.split_off(&(at + 1));
        for (due, operations) in std::mem::replace(&mut self.due, after) {
            // After `at` in any case, since `later` reaches from now to there.
            self.due.entry(due + later + 1).or_default().extend(operations);
        }
    }
}
