//! What a session computes next: hops, the histories of their inputs, and how losses are mended.
//!
//! There is one mechanism: *some hop's KV is shorter than the history of its input: feed it the difference*. A chunk of
//! prefill, a decode step, a replay and what follows a truncation are all [`Work`] of that kind. A driver sends what
//! [`Chain::next_work`] says, reports what came of it, and opens hops for what [`Chain::lost`] names. Pure state: no
//! clock, no IO.

mod error;
mod history;
mod hop;
#[cfg(test)]
mod model_test;
mod repair;
#[cfg(test)]
mod tests;
mod wanted;
mod work;

use std::collections::BTreeMap;

use swarm_protocol::block::BlockRange;
use swarm_protocol::session::TokenCount;

pub use error::{BadHops, ChainError, StaleSpan};
pub use history::Rows;
pub use repair::LostSpan;
pub use work::{Completed, HopId, Input, OutputRows, Outputs, Work, WorkId};

use history::{History, Source};
use hop::{Flight, Hop};
use wanted::Wanted;

/// How much work is cut off at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainConfig {
    /// The most rows of one piece of work: what a server takes in one step, at least 1.
    pub chunk: TokenCount,
    /// How many pieces of work a hop may have unanswered, at least 1. With 2 the next chunk is already at the server
    /// when it has answered the one before, so that the link is not waited for.
    pub window: usize,
}

/// The pure state of one session. `R` is what a row of activations is: bytes, or in a simulator their hash.
#[derive(Debug, Clone)]
pub struct Chain<R> {
    config: ChainConfig,
    hops: Vec<Hop>,
    /// The input of the first hop.
    source: Source<R>,
    /// The rows that crossed the boundary before a block, for every boundary between two hops.
    histories: BTreeMap<u32, History<R>>,
    wanted: Wanted,
    next_hop: u64,
    next_work: u64,
}

impl<R: Rows> Chain<R> {
    /// A chain whose first input is made of token ids: it is kept as a count, and the driver embeds the tokens anew
    /// whenever it is told to feed them.
    ///
    /// # Errors
    /// [`BadHops`] if the hops do not tile `range`.
    pub fn of_tokens(range: BlockRange, hops: &[BlockRange], config: ChainConfig) -> Result<Self, BadHops> {
        Self::new(range, hops, config, Source::Tokens(0))
    }

    /// A chain whose first input is rows of activations, which are kept.
    ///
    /// # Errors
    /// [`BadHops`] if the hops do not tile `range`.
    pub fn of_rows(range: BlockRange, hops: &[BlockRange], config: ChainConfig) -> Result<Self, BadHops> {
        Self::new(range, hops, config, Source::Rows(History::default()))
    }

    fn new(range: BlockRange, hops: &[BlockRange], config: ChainConfig, source: Source<R>) -> Result<Self, BadHops> {
        BadHops::check(range, hops)?;
        let config = ChainConfig { chunk: config.chunk.max(TokenCount(1)), window: config.window.max(1) };
        let mut chain = Self {
            config,
            hops: Vec::new(),
            source,
            histories: BTreeMap::new(),
            wanted: Wanted::default(),
            next_hop: 0,
            next_work: 0,
        };
        chain.hops = hops.iter().map(|&blocks| chain.fresh_hop(blocks)).collect();
        chain.sync_boundaries();
        Ok(chain)
    }

    /// Cuts work off after `most` rows from now on, if that is less than before: a server takes no more at once.
    pub fn narrow_chunk(&mut self, most: TokenCount) {
        self.config.chunk = self.config.chunk.min(most).max(TokenCount(1));
    }

    fn fresh_hop(&mut self, blocks: BlockRange) -> Hop {
        self.next_hop += 1;
        Hop::new(HopId(self.next_hop), blocks)
    }

    /// The hops in order: who computes which blocks.
    pub fn hops(&self) -> impl ExactSizeIterator<Item = (HopId, BlockRange)> {
        self.hops.iter().map(|hop| (hop.id, hop.blocks))
    }

    /// How many positions the input has.
    pub fn position(&self) -> TokenCount {
        count(self.source.len())
    }

    /// How many rows are kept for replays, over all boundaries; times the bytes of a row this is the memory it takes.
    pub fn history_rows(&self) -> usize {
        let inner: usize = self.histories.values().map(History::len).sum();
        inner + self.source.kept_rows()
    }

    /// Whether every hop has everything: nothing is lost, unanswered or left to send.
    pub fn is_idle(&self) -> bool {
        let length = self.source.len();
        self.hops.iter().all(|hop| !hop.lost && hop.flights.is_empty() && hop.kv == length)
    }

    /// There are `tokens` more token ids.
    ///
    /// # Errors
    /// [`ChainError::WrongInput`] on a chain of rows.
    pub fn extend_tokens(&mut self, tokens: TokenCount, outputs: Outputs) -> Result<(), ChainError> {
        let Source::Tokens(length) = &mut self.source else {
            return Err(ChainError::WrongInput);
        };
        let from = *length;
        *length += tokens.as_usize();
        self.wanted.add(from..*length, outputs);
        Ok(())
    }

    /// There are more rows of input.
    ///
    /// # Errors
    /// [`ChainError::WrongInput`] on a chain of token ids.
    pub fn extend_rows(&mut self, rows: R, outputs: Outputs) -> Result<(), ChainError> {
        let Source::Rows(history) = &mut self.source else {
            return Err(ChainError::WrongInput);
        };
        let from = history.len();
        history.append(rows);
        self.wanted.add(from..history.len(), outputs);
        Ok(())
    }

    /// The next thing to send, upstream hops first; `None` while everything is sent, or waits for an answer or a
    /// replacement. Call it until it says `None`.
    pub fn next_work(&mut self) -> Option<Work<R>> {
        (0..self.hops.len()).find_map(|index| self.work_of(index))
    }

    fn work_of(&mut self, index: usize) -> Option<Work<R>> {
        let hop = &self.hops[index];
        let from = hop.sent();
        let unsent = self.input_len(index).saturating_sub(from);
        if hop.lost || unsent == 0 || hop.flights.len() >= self.config.window {
            return None;
        }
        let (rows, output) = self.output_of(index, from, unsent.min(self.config.chunk.as_usize()));
        let input = self.input_of(index, from, rows)?;
        self.next_work += 1;
        let id = WorkId(self.next_work);
        let hop = &mut self.hops[index];
        hop.flights.push_back(Flight { id, from, rows, output });
        Some(Work { id, hop: hop.id, from: count(from), rows: count(rows), input, output })
    }

    /// Which rows to ask for, and how many rows to feed so that one answer fits all of them.
    fn output_of(&self, index: usize, from: usize, rows: usize) -> (usize, OutputRows) {
        let Some(next) = self.hops.get(index + 1) else {
            return self.wanted.output_of(from, rows);
        };
        match self.len_before(next).saturating_sub(from) {
            0 => (rows, OutputRows::All),
            kept => (rows.min(kept), OutputRows::None),
        }
    }

    fn input_len(&self, index: usize) -> usize {
        if index == 0 { self.source.len() } else { self.len_before(&self.hops[index]) }
    }

    fn input_of(&self, index: usize, from: usize, rows: usize) -> Option<Input<R>> {
        if index == 0 {
            return self.source.slice(from, rows);
        }
        let history = self.histories.get(&self.hops[index].blocks.start())?;
        history.slice(from, rows).map(Input::Rows)
    }

    fn len_before(&self, hop: &Hop) -> usize {
        self.histories.get(&hop.blocks.start()).map_or(0, History::len)
    }

    /// A server answered: `rows` are the output rows that the work asked for, `None` if it asked for none.
    ///
    /// # Errors
    /// [`ChainError`] if the answer is not what was asked for: the server breaks the protocol; give the hop up with
    /// [`Chain::fail`].
    pub fn complete(&mut self, work: WorkId, rows: Option<R>) -> Result<Completed<R>, ChainError> {
        let Some(index) = self.hop_flying(work) else {
            return Ok(Completed::Stale);
        };
        let hop = &mut self.hops[index];
        let flight = hop.check_answer(work, rows.as_ref().map_or(0, Rows::rows))?;
        hop.flights.pop_front();
        hop.kv = flight.from + flight.rows;
        let end = hop.kv;
        let Some(rows) = rows.filter(|rows| rows.rows() > 0) else {
            return Ok(Completed::Advanced);
        };
        let Some(next) = self.hops.get(index + 1) else {
            self.wanted.delivered(end);
            return Ok(Completed::Output { from: count(end - rows.rows()), rows });
        };
        self.histories.entry(next.blocks.start()).or_default().append(rows);
        Ok(Completed::Advanced)
    }

    /// A server refused a piece of work because its KV is shorter than the work's position: it holds `kv` positions.
    /// Whatever is missing is fed to it again. Also the way to have an unanswered piece of work sent again.
    pub fn fell_back(&mut self, work: WorkId, kv: TokenCount) {
        if let Some(index) = self.hop_flying(work) {
            self.hops[index].flights.clear();
            self.hops[index].kv = self.hops[index].kv.min(kv.as_usize());
        }
    }

    /// The driver was interrupted: whatever is unanswered will be sent again, its late answers are stale, and outputs that
    /// were wanted and have not been handed out are wanted no more.
    pub fn abandon_unanswered(&mut self) {
        self.hops.iter_mut().for_each(|hop| hop.flights.clear());
        self.wanted = Wanted::default();
    }

    fn hop_flying(&self, work: WorkId) -> Option<usize> {
        self.hops.iter().position(|hop| hop.flights.iter().any(|flight| flight.id == work))
    }

    /// Forgets every position from `position` on. Servers rewind by themselves when they are fed a position below
    /// their length; answers to work that reached beyond `position` are stale from now on.
    pub fn truncate(&mut self, position: TokenCount) {
        let length = position.as_usize();
        self.source.truncate(length);
        self.histories.values_mut().for_each(|history| history.truncate(length));
        self.hops.iter_mut().for_each(|hop| hop.truncate(length));
        self.wanted.truncate(length);
    }

    /// Keeps a history for exactly the boundaries between two hops.
    fn sync_boundaries(&mut self) {
        let inner: Vec<u32> = self.hops.iter().skip(1).map(|hop| hop.blocks.start()).collect();
        self.histories.retain(|boundary, _| inner.contains(boundary));
        for boundary in inner {
            self.histories.entry(boundary).or_default();
        }
    }
}

/// Positions are bounded by what was counted in [`TokenCount`]s in the first place.
fn count(length: usize) -> TokenCount {
    TokenCount(u32::try_from(length).unwrap_or(u32::MAX))
}
