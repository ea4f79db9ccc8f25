//! One way out of a hop: where it goes, and how far it was sent.

use std::ops::Range;

use swarm_protocol::wire::Output;

#[derive(Debug, Clone)]
pub(super) struct Way {
    link: Option<u32>,
    output: Output,
    /// The first position that was not sent.
    sent: usize,
}

impl Way {
    pub(super) fn nowhere() -> Self {
        Self { link: None, output: Output::Nobody, sent: 0 }
    }

    pub(super) fn new(link: u32, output: Output, position: usize) -> Self {
        Self { link: Some(link), output, sent: position }
    }

    pub(super) fn link(&self) -> Option<u32> {
        self.link
    }

    pub(super) fn output(&self) -> &Output {
        &self.output
    }

    /// What is to be sent, of outputs that end at `end`; `None` if nothing is.
    pub(super) fn due(&self, end: usize, wanted_from: usize) -> Option<Range<usize>> {
        let from = match self.output {
            Output::Nobody => return None,
            Output::Owner => self.sent.max(wanted_from),
            Output::Relay | Output::Next(_) => self.sent,
        };
        (from < end).then_some(from..end)
    }

    /// The most rows of one frame; `own` is the most that the owner takes.
    pub(super) fn most_rows(&self, own: usize) -> usize {
        match &self.output {
            Output::Next(next) => own.min(next.max_rows as usize).max(1),
            _ => own,
        }
    }

    pub(super) fn sent(&mut self, end: usize) {
        self.sent = end;
    }

    /// Nothing before `position` is ever to be sent.
    pub(super) fn skip_to(&mut self, position: usize) {
        self.sent = self.sent.max(position);
    }

    /// Everything from `position` on is new, or has to be sent again.
    pub(super) fn rewind(&mut self, position: usize) {
        self.sent = self.sent.min(position);
    }
}
