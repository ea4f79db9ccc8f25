//! The last hop's outputs that the user still waits for.

use std::ops::Range;

use swarm_protocol::activations::Rows;

use super::order::{Came, Outputs};
use super::{TokenCount, count};

/// Consecutive positions at the end of the input, handed out in order and each once.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    /// Those of the newest extension.
    asked: Range<usize>,
    /// The first that has not been handed out.
    next: usize,
}

/// Rows that do not follow those before.
pub(super) struct OutOfPlace;

impl Wanted {
    /// The positions were added to the input; what was wanted before has been handed out, or is wanted no more.
    pub(super) fn set(&mut self, positions: Range<usize>, outputs: Outputs) {
        let start = match outputs {
            Outputs::All => positions.start,
            Outputs::Last => positions.start.max(positions.end.saturating_sub(1)),
            Outputs::None => positions.end,
        };
        // Several extensions before the first output: all of them are wanted from the first on.
        let waiting = !self.is_satisfied() && self.asked.end == positions.start;
        self.asked = if waiting { self.asked.start..positions.end } else { start..positions.end };
        self.next = if waiting { self.next } else { start };
    }

    /// From which position on the last hop sends its output.
    pub(super) fn from(&self) -> usize {
        self.asked.start
    }

    /// The next position to come.
    pub(super) fn next(&self) -> usize {
        self.next
    }

    pub(super) fn had_any(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn is_satisfied(&self) -> bool {
        self.next >= self.asked.end
    }

    /// Takes in rows of the last hop; those that came before, and came again since their hop was replaced, are left out.
    pub(super) fn take<R: Rows>(&mut self, from: usize, rows: R) -> Result<Came<R>, OutOfPlace> {
        let end = from + rows.rows();
        if end <= self.next || self.is_satisfied() {
            return Ok(Came::Stale);
        }
        if from > self.next {
            return Err(OutOfPlace);
        }
        let known = self.next - from;
        let rows = if known == 0 { rows } else { rows.slice(known, end - self.next) };
        let from: TokenCount = count(self.next);
        self.next = end;
        Ok(Came::Output { from, rows })
    }

    pub(super) fn truncate(&mut self, length: usize) {
        let start = self.asked.start.min(length);
        self.asked = start..self.asked.end.min(length).max(start);
        self.next = self.next.min(length);
    }
}
