//! What a chain knows of one hop.

use std::collections::VecDeque;

use swarm_protocol::block::BlockRange;

use super::error::ChainError;
use super::work::{HopId, OutputRows, WorkId};

/// Work that was sent and not yet answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Flight {
    pub(super) id: WorkId,
    pub(super) from: usize,
    pub(super) rows: usize,
    pub(super) output: OutputRows,
}

impl Flight {
    fn end(&self) -> usize {
        self.from + self.rows
    }
}

#[derive(Debug, Clone)]
pub(super) struct Hop {
    pub(super) id: HopId,
    pub(super) blocks: BlockRange,
    /// The positions its KV is known to hold.
    pub(super) kv: usize,
    /// In the order of sending, which is the order of answering.
    pub(super) flights: VecDeque<Flight>,
    pub(super) lost: bool,
}

impl Hop {
    pub(super) fn new(id: HopId, blocks: BlockRange) -> Self {
        Self { id, blocks, kv: 0, flights: VecDeque::new(), lost: false }
    }

    /// The positions its KV holds once everything sent is computed.
    pub(super) fn sent(&self) -> usize {
        self.flights.back().map_or(self.kv, Flight::end)
    }

    /// The flight that `work` names, if an answer of that many rows is its right answer.
    pub(super) fn check_answer(&self, work: WorkId, rows: usize) -> Result<Flight, ChainError> {
        let hop = self.id;
        let flight = self.flights.front().filter(|flight| flight.id == work);
        let flight = *flight.ok_or(ChainError::OutOfOrder { hop })?;
        let expected = flight.output.of(flight.rows);
        if rows != expected {
            return Err(ChainError::WrongRows { hop, expected, got: rows });
        }
        Ok(flight)
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.kv = self.kv.min(length);
        self.flights.retain(|flight| flight.end() <= length);
    }

    pub(super) fn lose(&mut self) {
        self.lost = true;
        self.flights.clear();
    }
}
