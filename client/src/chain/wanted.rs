//! The last hop's outputs that the user still waits for.

use std::collections::VecDeque;
use std::ops::Range;

use super::work::{OutputRows, Outputs};

/// Runs of positions, in order and apart. The last hop's KV never reaches past the first of them.
#[derive(Debug, Clone, Default)]
pub(super) struct Wanted {
    runs: VecDeque<Range<usize>>,
}

impl Wanted {
    /// The positions were added to the input.
    pub(super) fn add(&mut self, positions: Range<usize>, outputs: Outputs) {
        let start = match outputs {
            Outputs::All => positions.start,
            Outputs::Last => positions.start.max(positions.end.saturating_sub(1)),
            Outputs::None => positions.end,
        };
        match self.runs.back_mut() {
            Some(run) if run.end == start => run.end = positions.end,
            _ if start < positions.end => self.runs.push_back(start..positions.end),
            _ => {}
        }
    }

    /// How many of the `rows` rows from `from` on to feed, and what to ask for, so that nothing comes back unwanted.
    pub(super) fn output_of(&self, from: usize, rows: usize) -> (usize, OutputRows) {
        let end = from + rows;
        let Some(run) = self.runs.iter().find(|run| run.end > from && run.start < end) else {
            return (rows, OutputRows::None);
        };
        if run.start + 1 == end.min(run.end) {
            return (run.start + 1 - from, OutputRows::Last);
        }
        if run.start <= from {
            return (rows.min(run.end - from), OutputRows::All);
        }
        (run.start - from, OutputRows::None)
    }

    /// Every wanted output below `end` was handed to the user.
    pub(super) fn delivered(&mut self, end: usize) {
        while self.runs.front().is_some_and(|run| run.end <= end) {
            self.runs.pop_front();
        }
        if let Some(run) = self.runs.front_mut() {
            run.start = run.start.max(end);
        }
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.runs.retain(|run| run.start < length);
        if let Some(run) = self.runs.back_mut() {
            run.end = run.end.min(length);
        }
    }
}
